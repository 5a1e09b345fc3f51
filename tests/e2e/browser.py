"""Drive the Dagster UI in Chromium with Playwright. Elements are found by role and by text."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.e2e.dagster_dev import DagsterDev
from tests.services import WAIT_SECONDS

TIMEOUT = 1000 * WAIT_SECONDS  # milliseconds, as Playwright expects
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium while the block runs."""
    executable = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if executable is None:
        raise RuntimeError(f"no browser: put one of {', '.join(_CHROMIUM)} on the PATH, or run `make browser`")
    with sync_playwright() as playwright:
        expect.set_options(timeout=TIMEOUT)
        browser = playwright.chromium.launch(executable_path=executable)
        try:
            yield browser
        finally:
            browser.close()


@dataclass(frozen=True, slots=True)
class Ui:
    page: Page
    dagster: DagsterDev

    def open(self, path: str) -> None:
        self.page.goto(self.dagster.url + path)

    def launch_all(self) -> None:
        """Materialize all partitions of what the page shows, and open the run or the backfill."""
        self.page.get_by_role("button", name=re.compile("Materialize")).first.click()
        dialog = self.page.get_by_role("dialog").last
        dialog.get_by_text("All", exact=True).click()
        dialog.get_by_role("button", name=re.compile("^Launch")).click()
        # The UI announces it in a corner.
        announcement = self.page.get_by_role("listitem").filter(has_text=re.compile("Launched run|Created backfill"))
        announcement.get_by_text("View", exact=True).click()
        expect(self.page).to_have_url(re.compile("/runs/"))


@contextmanager
def open_ui(browser: Browser, dagster: DagsterDev, screenshot: Path) -> Iterator[Ui]:
    """Open the UI in a new page. Save a screenshot at the end, also after a failure."""
    # The catalog renders only the assets that fit into the window.
    page = browser.new_page(viewport={"width": 1400, "height": 2000})
    page.set_default_timeout(TIMEOUT)
    try:
        yield Ui(page, dagster)
    finally:
        page.screenshot(path=screenshot)
        print(f"last screenshot: {screenshot}")
        page.close()
