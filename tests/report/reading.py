"""A report as it is opened from a file: what is in its tables, with no network and no complaint."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page

from later_reporting_dagster.report.report_data import ReportData
from later_reporting_dagster.report.report_page import report_page

WIDTHS = {375: 812, 768: 1024, 1280: 800}

# Of each cell that holds numbers, what they are exactly: null where it says that there is none.
_READ = """body => [...body.rows].map(row => [...row.cells].map(cell => {
  const found = [...cell.querySelectorAll('data, .null')];
  return found.length ? found.map(each => each.value === undefined ? null : Number(each.value))
    : (cell.querySelector('bdi') ?? cell).textContent.trim();
}))"""
# The figures, and whether each reads as what it is.
_MISWRITTEN = """() => [...document.querySelectorAll('data, .null')].filter(each => {
  if (each.className === 'null') return !/^(not available|no paid activity|too few posts)$/.test(each.textContent);
  const words = each.textContent.replace(/[^0-9.<-]/g, ''), value = Number(each.value);
  if (each.textContent.endsWith('bn')) return Math.abs(Number(words) * 1e9 - value) > 0.5000001e7;
  if (value === 0) return words !== '0';
  if (words.startsWith('<')) return !(value > 0 && value < 0.005);
  const decimals = words.split('.')[1]?.length ?? 0;
  return words === '0' || Math.abs(Number(words) - value) > 0.5000001 * 10 ** -decimals;
}).map(each => each.outerHTML)"""

# Numbers, in words or in pictures, of which something is outside of what can be seen or scrolled to.
_CUT = """() => [...document.querySelectorAll('data, .null, .interval, svg text')].filter(each => {
  const place = each.getBoundingClientRect();
  if (!place.width || each.classList.contains('unseen')) return false;
  const scroll = each.closest('.scroll'), inside = each.closest('svg') ?? scroll?.firstChild;
  const room = inside ? inside.getBoundingClientRect() : { left: 0, right: document.documentElement.clientWidth };
  const cell = each.closest('td, th');
  if (cell && cell.scrollWidth > cell.clientWidth + 1) return true;
  return place.left < room.left - 1 || place.right > room.right + 1;
}).map(each => each.textContent)"""
# Tables that are wider than their place and do not say so, or cannot be scrolled by keyboard.
_SCROLLS_SILENTLY = """() => [...document.querySelectorAll('.scroll')].filter(each => {
  const hint = each.parentElement.querySelector('.hint');
  return each.scrollWidth > each.clientWidth + 1 && (!hint.offsetWidth || each.tabIndex !== 0);
}).map(each => each.getAttribute('aria-label'))"""


@dataclass
class Report:
    """A page, and all that it asked for or complained of since."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def pick(self, name: Literal["period", "instance", "campaign"], label: str) -> None:
        """Picks an entry of a filter."""
        self.page.locator(f"#{name}").select_option(label=label)

    def rows(self, body: str) -> list[list[Any]]:
        """The rows of a table: lists of numbers and nulls, or text."""
        found: list[list[Any]] = self.page.locator(f"#{body}").evaluate(_READ)
        return found

    def figure(self, name: str) -> float | None:
        """A headline figure."""
        return self._number(f"#figure-{name}")

    def before(self, name: str) -> float | None:
        """What the headline figure was in the period before."""
        return self._number(f"#change-{name}")

    def _number(self, place: str) -> float | None:
        found = self.page.locator(f"{place} data")
        return float(found.get_attribute("value") or "") if found.count() else None

    def missing(self) -> list[str]:
        """What is said to be missing."""
        return self.page.locator("#missing li:not(.aside)").all_inner_texts()

    def miswritten(self) -> list[str]:
        """Figures whose words are not their numbers."""
        found: list[str] = self.page.evaluate(_MISWRITTEN)
        return found

    def cut(self) -> list[str]:
        """Numbers that are not to be seen whole, and tables that scroll without a sign of it."""
        self.drawn()
        found: list[str] = [*self.page.evaluate(_CUT), *self.page.evaluate(_SCROLLS_SILENTLY)]
        return found

    def download(self, table: str) -> list[list[str]]:
        """The rows of a table's download, its heading included."""
        with self.page.expect_download() as event:
            self.page.locator(f"[data-csv={table}]").click()
        text = event.value.path().read_bytes().decode("utf-8-sig")
        return list(csv.reader(io.StringIO(text, newline="")))

    def words_in(self, picture: str) -> list[str]:
        """The texts of a picture, in reading order."""
        self.drawn()
        return self.page.locator(f"#picture-{picture} svg text").all_text_contents()

    def drawn(self) -> None:
        """Waits until the pictures are there, and two frames more: Vega draws in its own time."""
        self.page.wait_for_function("document.querySelectorAll('.picture svg').length === 8")
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 60)))")


@contextmanager
def opened(
    browser: Browser,
    data: ReportData,
    directory: Path,
    *,
    width: int = 1280,
    scheme: Literal["light", "dark"] = "light",
) -> Iterator[Report]:
    """Opens the report's page from a file; when the block ends, it has asked and complained of nothing."""
    file = directory / "report.html"
    file.write_bytes(report_page(data))
    page = browser.new_page(viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme)
    report = Report(page)
    page.on("request", lambda request: report.requests.append(request.url))
    page.on("console", lambda message: report.complaints.append(message.text))
    page.on("pageerror", lambda error: report.complaints.append(str(error)))
    try:
        page.goto(file.as_uri())
        report.drawn()
        yield report
        assert report.requests == [file.as_uri()]
        assert report.complaints == []
    finally:
        page.close()
