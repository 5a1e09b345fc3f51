"""Drive the Dagster UI in Chromium with Playwright. Elements are found by role and by text."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

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


@contextmanager
def open_ui(browser: Browser, url: str, screenshot: Path) -> Iterator[Page]:
    """Open the UI in a new page. Save a screenshot at the end, also after a failure."""
    # The catalog renders only the assets that fit into the window.
    page = browser.new_page(base_url=url, viewport={"width": 1400, "height": 2000})
    page.set_default_timeout(TIMEOUT)
    try:
        yield page
    finally:
        page.screenshot(path=screenshot)
        print(f"last screenshot: {screenshot}")
        page.close()
