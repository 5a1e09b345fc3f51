"""The page claims nothing about which channel does better: it reads the same if organic and paid are swapped."""

import re
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Browser

from tests.report.conftest import report_of
from tests.report.report_browser import open_report
from tests.rollups.reference import Files, World
from tests.rollups.worlds import Shape, world_of

SWAPPED = ("impressions", "engagements", "cpe", "cpm")
# The text of the page without its numbers, names and pictures, and without the rows of its tables.
_WORDS = """() => {
  const page = document.body.cloneNode(true);
  page.querySelectorAll('script, svg, .bars, bdi, .table tbody').forEach(each => each.remove());
  page.querySelectorAll('data, .null').forEach(each => each.replaceWith('#'));
  return page.textContent;
}"""


def with_swapped_channels(world: World) -> World:
    def swapped(files: Files) -> Files:
        return {
            key: [
                row | {name: row[f"paid_{name}"] for name in SWAPPED} | {f"paid_{name}": row[name] for name in SWAPPED}
                for row in rows
            ]
            for key, rows in files.items()
        }

    return replace(world, recorded=swapped(world.recorded), published=swapped(world.published))


def test_page_reads_the_same_with_channels_swapped(browser: Browser, tmp_path: Path) -> None:
    shape = Shape(days=40, posts=160, instances=("a",), missing=0, moved=0, nulls=0, contradictory=0, creators=7)
    world, read = world_of(shape, seed=1), list[str]()
    for each in (world, with_swapped_channels(world)):
        with open_report(browser, report_of(each), tmp_path) as report:
            report.open_all()
            words = re.sub(r"[\d,.+−±–#]+", "#", report.page.evaluate(_WORDS))
            read.append(re.sub(r"\s+", " ", words))
    assert read[0] == read[1]
    assert "Ads brought # of impressions and # of engagements for # of ad spend (# per engagement)" in read[0]
    assert not re.findall(r"\b(better|worse|higher|lower|lift|wins?)\b", read[0], re.IGNORECASE)
