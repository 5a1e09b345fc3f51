"""The page claims nothing that differs between worlds in which paying changes nothing, or between the channels."""

import re
from pathlib import Path

from playwright.sync_api import Browser

from tests.report.confounded_worlds import PAID, confounded_world
from tests.report.conftest import report_of
from tests.report.report_browser import open_report

# The text of the page without its numbers, names and pictures, without the rows of its tables, and without what says
# which costs are known, and who has a large part: that differs between the worlds, and compares no channels.
_WORDS = """() => {
  const page = document.body.cloneNode(true);
  const left = 'script, svg, bdi, #missing, #who, .card.cost, .table tbody, .table tfoot';
  page.querySelectorAll(left).forEach(each => each.remove());
  page.querySelectorAll('data, .null').forEach(each => each.replaceWith('#'));
  return page.textContent.replaceAll('at least ', '');
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
    assert "spent # on ads and # on creators# for the posts published in them" in words
    assert not re.findall(r"\b(better|worse|higher|lower|lift|wins?)\b", words, re.IGNORECASE)
