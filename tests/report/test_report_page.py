"""The page as bytes: the same for the same data, and nothing of the data in it is markup."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.report.report_data import ReportData
from later_reporting_dagster.report.report_page import json_inside_html, page_data, report_page, web_link
from tests.report.posts import drawn_rows, report_data


def test_the_same_data_gives_the_same_bytes_in_whatever_order_it_comes() -> None:
    cells = drawn_rows(3, days=10)
    assert report_page(report_data(cells)) == report_page(report_data(dict(reversed(cells.items()))))


@given(st.recursive(st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=3), max_leaves=5))
def test_json_ends_no_script_and_reads_back(value: object) -> None:
    text = json_inside_html(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == value


@pytest.mark.parametrize(
    "link",
    [
        None,
        "",
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        " https://a.example",
        "java\tscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "//a.example",
        "/relative",
        "https:",
        "https://",
        "https:\\\\a.example",
        "http://[",
        "ftp://a.example",
    ],
)
def test_what_leads_to_no_web_page_is_no_link(link: str | None) -> None:
    assert web_link(link) is None


@pytest.mark.parametrize("link", ["https://a.example", "HTTP://a.example/ü?q=<b>", "https://u@a.example:8080/#x"])
def test_what_leads_to_a_web_page_is_a_link(link: str) -> None:
    assert web_link(link) == link


def test_its_policy_allows_just_its_own_scripts_and_style(incomplete: ReportData) -> None:
    page = report_page(incomplete).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search("unsafe|http|\\*", policy)
    assert "src=" not in page.split("<script", 1)[0]


def test_periods_are_offered_as_far_as_days_reach() -> None:
    for days, periods in ((1, [7]), (7, [7]), (8, [7, 28]), (29, [7, 28, 90])):
        assert page_data(report_data(drawn_rows(1, days=days)))["periods"] == periods


def test_what_is_no_valid_text_does_no_harm(incomplete: ReportData) -> None:
    assert report_page(replace(incomplete, set_aside=[replace(incomplete.set_aside[0], reason="\ud800")]))
