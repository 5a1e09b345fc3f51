"""The HTML page: deterministic, and without markup or scripts from the data."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.report.report_data import ReportData
from later_reporting_dagster.report.report_page import json_for_html, page_data, report_page, web_link
from tests.report.posts import one_post, random_files, report_data


def test_report_page_has_the_same_bytes_in_any_order_of_rows() -> None:
    files = random_files(3, days=10)
    assert report_page(report_data(files)) == report_page(report_data(dict(reversed(files.items()))))


@given(st.recursive(st.text(), lambda inner: st.dictionaries(st.text(), inner, max_size=3), max_leaves=5))
def test_json_for_html_has_no_markup_and_round_trips(value: object) -> None:
    text = json_for_html(value)
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
def test_web_link_rejects_other_addresses(link: str | None) -> None:
    assert web_link(link) is None


@pytest.mark.parametrize("link", ["https://a.example", "HTTP://a.example/ü?q=<b>", "https://u@a.example:8080/#x"])
def test_web_link_accepts_http_and_https(link: str) -> None:
    assert web_link(link) == link


def test_report_page_policy_allows_only_its_own_scripts_and_style(incomplete: ReportData) -> None:
    page = report_page(incomplete).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search("unsafe|http|\\*", policy)
    assert "src=" not in page.split("<script", 1)[0]


def test_page_data_offers_periods_up_to_the_stored_days() -> None:
    for days, periods in ((1, [7]), (7, [7]), (8, [7, 28]), (29, [7, 28, 90])):
        assert page_data(report_data(random_files(1, days=days)))["periods"] == periods


@pytest.mark.parametrize("value", [1234.56, 123_456.78, 12_345_678.91])
def test_page_data_has_money_to_the_cent(value: float) -> None:
    kpis = page_data(report_data(one_post(estimated_value_generated=value)))["kpis"]
    assert kpis["organic_estimated_value"][0] == value


def test_report_page_accepts_invalid_unicode(incomplete: ReportData) -> None:
    assert report_page(replace(incomplete, quarantined=[replace(incomplete.quarantined[0], reason="\ud800")]))
