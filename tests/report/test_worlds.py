"""The page claims nothing that differs between worlds in which paying changes nothing, or between the channels."""

import re
from pathlib import Path

from playwright.sync_api import Browser

from tests.report.confounded_worlds import PAID, confounded_world
from tests.report.conftest import report_of
from tests.report.report_browser import open_report

# The text of the page without its numbers, names and pictures, and without the rows of its tables.
_WORDS = """() => {
  const page = document.body.cloneNode(true);
  page.querySelectorAll('script, svg, .bars, bdi, .table tbody').forEach(each => each.remove());
  page.querySelectorAll('data, .null').forEach(each => each.replaceWith('#'));
  return page.textContent;
}"""


def test_page_reads_the_same_in_each_world_and_with_channels_swapped(browser: Browser, tmp_path: Path) -> None:
    read = {}
    # The channels are swapped in the two worlds that differ most.
    for name, swapped in [*((name, False) for name in PAID), ("quality", True), ("dark", True)]:
        with open_report(browser, report_of(confounded_world(name, swapped=swapped)), tmp_path) as report:
            report.open_all()
            words = re.sub(r"[\d,.+−±–#]+", "#", report.page.evaluate(_WORDS))
            read[name, swapped] = re.sub(r"\s+", " ", words)
    assert {*read.values()} == {read["quality", False]}
    (words,) = {*read.values()}
    assert "Ads brought # of impressions and # of engagements for # of ad spend (# per engagement)" in words
    assert not re.findall(r"\b(better|worse|higher|lower|lift|wins?)\b", words, re.IGNORECASE)
