"""The HTML page: deterministic, and without markup or scripts from the data."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.report.report_data import ReportData
from later_reporting_dagster.report.report_page import json_for_html, report_page, web_link
from tests.report.conftest import report_of
from tests.rollups.worlds import Shape, world_of


def test_report_page_has_the_same_bytes_in_any_order_of_rows() -> None:
    world = world_of(Shape(days=10), seed=3)
    files = [{key: rows[::-1] for key, rows in reversed(of.items())} for of in (world.recorded, world.published)]
    again = replace(world, recorded=files[0], published=files[1], campaigns=world.campaigns[::-1])
    assert report_page(report_of(world)) == report_page(report_of(again))


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


def test_report_page_policy_allows_only_its_own_scripts_and_style(report_of_world: ReportData) -> None:
    page = report_page(report_of_world).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert not re.search("unsafe|http|\\*", policy)
    assert "src=" not in page.split("<script", 1)[0]
