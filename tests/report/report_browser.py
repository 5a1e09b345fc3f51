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

WIDTHS = {375: 740, 1280: 800}

# Cells with numbers are lists of exact numbers, null for a dash; other cells are text.
_READ = """body => [...body.rows].map(row => [...row.cells].map(cell => {
  const found = [...cell.querySelectorAll('data, .null')];
  return found.length ? found.map(each => each.value === undefined ? null : Number(each.value))
    : (cell.querySelector('bdi') ?? cell).textContent.trim();
}))"""
# All tables by name: rows of cells by heading. A cell is a number, null or text; of two numbers, the first.
_READ_TABLES = """() => Object.fromEntries([...document.querySelectorAll('.table')].map(table => {
  const heads = [...table.querySelectorAll('thead th')].map(head => head.textContent.replace(/ [↑↓]$/, ''));
  const value = cell => {
    const found = cell.querySelector('data, .null');
    return found ? (found.value === undefined ? null : Number(found.value))
      : (cell.querySelector('bdi') ?? cell).textContent;
  };
  const rows = [...table.querySelectorAll('tbody tr, tfoot tr')].filter(row => !row.querySelector('[colspan]'));
  const cells = row => Object.fromEntries([...row.cells].map((cell, index) => [heads[index], value(cell)]));
  return [table.id.replace('table-', ''), rows.map(cells)];
}))"""
# Numbers whose text does not match their exact value.
_MISFORMATTED = """() => [...document.querySelectorAll('data, .null')].filter(each => {
  const text = each.textContent;
  if (each.className === 'null') return text !== '–' + each.title;
  const words = each.textContent.replace(/[^0-9.<-]/g, ''), value = Number(each.value);
  const size = { bn: 1e9, m: 1e6 }[text.match(/[bm]n?$/)?.[0]];
  if (size) return Math.abs(Number(words) * size - value) > 0.5000001e-2 * size;
  if (value === 0) return words !== '0';
  if (words.startsWith('<')) return !(value > 0 && value < 0.005);
  const decimals = words.split('.')[1]?.length ?? 0;
  return words === '0' || Math.abs(Number(words) - value) > 0.5000001 * 10 ** -decimals;
}).map(each => each.outerHTML)"""

# Numbers and chart labels that are partly outside of the visible or scrollable area.
_CUT_OFF = """() => [...document.querySelectorAll('data, .null, .detail, svg text, .bar')].filter(each => {
  const place = each.getBoundingClientRect();
  if (!place.width || each.classList.contains('unseen')) return false;
  const scroll = each.closest('.scroll'), inside = each.closest('svg') ?? scroll?.firstChild;
  const room = inside ? inside.getBoundingClientRect() : { left: 0, right: document.documentElement.clientWidth };
  const cell = each.closest('td, th, .bar');
  if (cell && cell.scrollWidth > cell.clientWidth + 1) return true;
  return place.left < room.left - 1 || place.right > room.right + 1;
}).map(each => each.textContent)"""
# Tables that are wider than their container without a hint, or that cannot be scrolled by keyboard.
_SCROLLS_WITHOUT_HINT = """() => [...document.querySelectorAll('.scroll')].filter(each => {
  const hint = each.parentElement.querySelector('.hint');
  return each.scrollWidth > each.clientWidth + 1 && (!hint.offsetWidth || each.tabIndex !== 0);
}).map(each => each.getAttribute('aria-label'))"""

_OPEN_ALL = """() => {
  document.querySelectorAll('details').forEach(each => { each.open = true; });
  const isClosed = each => !each.hidden && /^(Show all|More columns)/.test(each.textContent);
  [...document.querySelectorAll('button')].filter(isClosed).forEach(each => each.click());
}"""
_BARS = """bars => bars.map(bar =>
  [bar.title.split(':')[0], getComputedStyle(bar, '::before').width, bar.textContent])"""


@dataclass
class Report:
    """An open report, and its network requests and console messages since it was opened."""

    page: Page
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def choose(self, name: Literal["period", "instance", "campaign"], label: str) -> None:
        self.page.locator(f"#{name}").select_option(label=label)

    def rows(self, body: str) -> list[list[Any]]:
        """Return the rows of a table. A cell is a list of numbers and nulls, or text."""
        found: list[list[Any]] = self.page.locator(f"#{body}").evaluate(_READ)
        return found

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of all tables, by name: cells by heading, each a number, None or text."""
        found: dict[str, list[dict[str, Any]]] = self.page.evaluate(_READ_TABLES)
        return found

    def columns(self, table: str) -> dict[str, int]:
        """Return the places of the columns of a table, by their headings."""
        heads = self.page.locator(f"#table-{table} thead th").all_inner_texts()
        return {head: place for place, head in enumerate(heads)}

    def figure(self, name: str) -> float | None:
        found = self.page.locator(f"#figure-{name} data")
        return float(found.get_attribute("value") or "") if found.count() else None

    def tooltips(self) -> dict[str, str]:
        """Return the tooltip of each bar, by network and channel."""
        found = self.page.locator(".bar").evaluate_all("all => all.map(each => each.title.split(': '))")
        return {name: text for name, text in found}

    def missing(self) -> list[str]:
        return self.page.locator("#missing li:not(.aside)").all_inner_texts()

    def lines(self, chart: str) -> list[list[tuple[float, float]]]:
        """Return the points of the lines of a chart, in pixels."""
        paths = [each.get_attribute("d") or "" for each in self.page.locator(f"#chart-{chart} path").all()]
        return [[(float(x), float(y)) for x, y in re.findall(r"([\d.]+),([\d.]+)", path)] for path in paths]

    def height_of(self, chart: str, label: str) -> float:
        """Return the y of the grid line with this label, in pixels from the top."""
        labels = self.page.locator(f"#chart-{chart} .value").all_text_contents()
        return float(self.page.locator(f"#chart-{chart} .grid").nth(labels.index(label)).get_attribute("y1") or "")

    def bars(self) -> dict[str, tuple[float, str]]:
        """Return the width in pixels and the label of each bar, by network and channel."""
        found = self.page.locator(".bar").evaluate_all(_BARS)
        return {name: (float(width.removesuffix("px")), label) for name, width, label in found}

    def misformatted(self) -> list[str]:
        """Return numbers whose text does not match their exact value."""
        found: list[str] = self.page.evaluate(_MISFORMATTED)
        return found

    def cut_off(self) -> list[str]:
        """Return numbers that are cut off, and tables that scroll without a hint."""
        # Hints and widths of charts follow a change of size in the next frame.
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        found: list[str] = [*self.page.evaluate(_CUT_OFF), *self.page.evaluate(_SCROLLS_WITHOUT_HINT)]
        return found

    def download(self, table: str) -> list[list[str]]:
        with self.page.expect_download() as event:
            self.page.locator(f"[data-csv={table}]").click()
        text = event.value.path().read_bytes().decode("utf-8-sig")
        return list(csv.reader(io.StringIO(text, newline="")))

    def open_all(self) -> None:
        """Unfold all sections, and show all rows and columns of all tables."""
        self.page.evaluate(_OPEN_ALL)


@contextmanager
def open_report(
    browser: Browser,
    data: ReportData,
    directory: Path,
    *,
    width: int = 1280,
    scheme: Literal["light", "dark"] = "light",
) -> Iterator[Report]:
    """Open a report from a file. At the end, assert that it made no requests and wrote no console messages."""
    file = directory / "report.html"
    file.write_bytes(report_page(data))
    page = browser.new_page(viewport={"width": width, "height": WIDTHS[width]}, color_scheme=scheme)
    report = Report(page)
    page.on("request", lambda request: report.requests.append(request.url))
    page.on("console", lambda message: report.messages.append(message.text))
    page.on("pageerror", lambda error: report.messages.append(str(error)))
    try:
        page.goto(file.as_uri())
        yield report
        assert report.requests == [file.as_uri()]
        assert report.messages == []
    finally:
        page.close()
