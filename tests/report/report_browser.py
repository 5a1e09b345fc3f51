"""Open a report in a browser, from a file, and read its tables. Network requests and console messages are errors."""

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, Page

from later_reporting_dagster.report.report_data import ReportData
from later_reporting_dagster.report.report_page import report_page

# By width, the height of the window.
WIDTHS = {320: 700, 390: 844, 700: 900, 1000: 800, 1400: 900}

# All tables by name: rows of cells by heading, with what stands beside the name as `detail`. A cell is a number, null
# or text; of two numbers, the first.
_READ_TABLES = """() => Object.fromEntries([...document.querySelectorAll('.table')].map(table => {
  const heads = [...table.querySelectorAll('thead th')].map(head => head.textContent);
  const value = cell => {
    const found = cell.querySelector('data, .null');
    return found ? (found.value === undefined ? null : Number(found.value))
      : (cell.querySelector('bdi') ?? cell).textContent.replace(/\\s+/g, ' ').trim();
  };
  const rows = [...table.querySelectorAll('tbody tr, tfoot tr')];
  const cells = row => Object.fromEntries([...row.cells].map((cell, index) => [heads[index], value(cell)]));
  const detail = row => row.querySelector('th .detail')?.textContent ?? null;
  return [table.id, rows.map(row => ({ ...cells(row), detail: detail(row) }))];
}))"""
# Numbers whose text does not match their exact value.
_MISFORMATTED = """() => [...document.querySelectorAll('data, .null')].filter(each => {
  const text = each.textContent;
  if (each.classList.contains('null')) return /[0-9]/.test(each.firstChild.textContent);
  const words = text.replace(/[^0-9.<-]/g, ''), value = Number(each.value);
  const size = { bn: 1e9, M: 1e6, K: 1e3 }[text.match(/(bn|M|K)(?![a-z])/)?.[0]] ?? 1;
  const decimals = words.split('.')[1]?.length ?? 0;
  if (words.includes('<')) return !(Math.abs(value) < 10 ** -decimals);
  // A rank is rounded down: the median of 85.9 is above 85 of 100.
  const allowed = each.closest('[data-label="Median rank"]') ? 1 : 0.5000001 * 10 ** -decimals * size;
  return Number(words) === 0 && value !== 0 && size === 1 && !each.closest('[data-label="Median rank"]')
    || Math.abs(Number(words) * size - value) > allowed;
}).map(each => each.outerHTML)"""

# Numbers and labels of the chart that are partly outside of the visible area.
_CUT_OFF = """() => [...document.querySelectorAll('data, .null, svg text, .change')].filter(each => {
  const place = each.getBoundingClientRect();
  if (!place.width || each.classList.contains('unseen')) return false;
  const around = each.closest('svg, .card, td, th')?.getBoundingClientRect();
  const room = around ?? { left: 0, right: document.documentElement.clientWidth };
  return place.left < room.left - 1 || place.right > room.right + 1;
}).map(each => each.textContent)"""

# The number of columns of impressions that the label of the highest one covers.
_COVERED_COLUMNS = """() => {
  const boxes = selector => [...document.querySelectorAll(selector)].map(each => each.getBoundingClientRect());
  const labels = boxes('#chart text.label.strong, #chart text.label.strong + text.muted');
  return boxes('#chart rect:is(.organic, .paid):not(.spend)').filter(column => labels.some(label =>
    label.left < column.right && column.left < label.right && label.top < column.bottom && column.top < label.bottom
  )).length;
}"""

_OPEN_ALL = """() => {
  document.querySelectorAll('details').forEach(each => { each.open = true; });
  const isClosed = each => !each.hidden && /^(Show all|Show$)/.test(each.textContent);
  [...document.querySelectorAll('button')].filter(isClosed).forEach(each => each.click());
}"""


@dataclass
class Report:
    """An open report, and its network requests and console messages since it was opened."""

    page: Page
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of all tables, by name: cells by heading, each a number, None or text."""
        found: dict[str, list[dict[str, Any]]] = self.page.evaluate(_READ_TABLES)
        return found

    def figure(self, name: str) -> float | None:
        found = self.page.locator(f"#figure-{name} data")
        return float(found.get_attribute("value") or "") if found.count() else None

    def text(self, name: str) -> str:
        """Return the text of an element, with ordinary spaces."""
        return re.sub(r"\s+", " ", self.page.locator(f"#{name}").inner_text())

    def missing(self) -> list[str]:
        """Return what is missing, a fact and its consequence each, also those in "Data received"."""
        found = self.page.locator("#missing p:not(.aside), #all-missing li").all_text_contents()
        return [re.sub(r"\s+", " ", text).strip() for text in found]

    def columns(self, kind: str) -> list[tuple[float, float]]:
        """Return the x and the height of each column of the chart, in pixels."""
        found = self.page.locator(f"#chart rect.{kind}").all()
        return [(float(each.get_attribute("x") or ""), float(each.get_attribute("height") or "")) for each in found]

    def covered_columns(self) -> int:
        """Return the number of columns of impressions that the label of the highest one covers."""
        return int(self.page.evaluate(_COVERED_COLUMNS))

    def tips(self) -> list[str]:
        """Return the values of each day of the chart."""
        return [each.get_attribute("data-tip") or "" for each in self.page.locator("#chart rect.day").all()]

    def misformatted(self) -> list[str]:
        """Return numbers whose text does not match their exact value."""
        found: list[str] = self.page.evaluate(_MISFORMATTED)
        return found

    def wait_for_the_chart(self) -> None:
        """Wait until the chart has followed a change of its width: one frame measures it, the next one draws it."""
        frame = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
        self.page.evaluate(frame)
        self.page.evaluate(frame)

    def cut_off(self) -> list[str]:
        """Return numbers that are cut off."""
        self.wait_for_the_chart()
        found: list[str] = self.page.evaluate(_CUT_OFF)
        return found

    def download(self, table: str) -> list[list[str]]:
        with self.page.expect_download() as event:
            self.page.locator(f"[data-csv={table}]").last.click()
        text = event.value.path().read_bytes().decode("utf-8-sig")
        return list(csv.reader(io.StringIO(text, newline="")))

    def open_all(self) -> None:
        """Unfold all sections, and show all rows of all tables."""
        self.page.evaluate(_OPEN_ALL)


@contextmanager
def open_report(
    browser: Browser,
    data: ReportData,
    directory: Path,
    *,
    width: int = 1400,
    scheme: Literal["light", "dark"] = "light",
    fragment: str = "",
) -> Iterator[Report]:
    """Write a report to a file, and open it as `open_page` does."""
    file = directory / "report.html"
    file.write_bytes(report_page(data))
    with open_page(browser, file, width=width, scheme=scheme, fragment=fragment) as report:
        yield report


@contextmanager
def open_page(
    browser: Browser, file: Path, *, width: int = 1400, scheme: Literal["light", "dark"] = "light", fragment: str = ""
) -> Iterator[Report]:
    """Open a report from a file. At the end, assert that it made no requests, wrote no messages, and has not failed."""
    page = browser.new_page(viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme)
    report = Report(page)
    page.on("request", lambda request: report.requests.append(request.url))
    page.on("console", lambda message: report.messages.append(message.text))
    page.on("pageerror", lambda error: report.messages.append(str(error)))
    try:
        page.goto(file.as_uri() + fragment)
        yield report
        assert [url.split("#")[0] for url in report.requests] == [file.as_uri()]
        assert report.messages == []
        assert not page.locator("#failed").is_visible()
    finally:
        page.close()
