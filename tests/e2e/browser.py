"""Dagster's UI as a person uses it, in the Chromium of the distribution: found by role and by text."""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.e2e.dagster_dev import DagsterDev

SECONDS = 1000
PATIENCE = 90 * SECONDS  # a page asks for news by itself, some of it every fifteen seconds, and a machine may be busy
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# What the UI says of a partition by colour alone.
GREEN, GRAY = "green", "gray"


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, while the block runs."""
    executable = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if executable is None:
        raise RuntimeError(f"no browser: one of {', '.join(_CHROMIUM)} must be on the PATH, see `make browser`")
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE)
        browser = playwright.chromium.launch(executable_path=executable, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass(frozen=True, slots=True)
class Ui:
    """A window on Dagster."""

    page: Page
    dagster: DagsterDev

    def open(self, path: str) -> None:
        """Opens a page of the UI, as from a bookmark."""
        self.page.goto(self.dagster.url + path)

    def open_asset(self, asset: str, *, tab: str = "Overview") -> None:
        """Opens an asset of `later` from the catalog, and one of its tabs."""
        self.open("/assets")
        self.page.get_by_role("link", name=f"later / {asset}").first.click()
        self.page.get_by_role("tab", name=tab, exact=True).click()

    def arrange_lineage(self, *settings: str) -> None:
        """Choose these items of the lineage's settings, one after the other."""
        for setting in settings:
            self.page.get_by_role("button", name="settings", exact=True).last.click()
            self.page.get_by_role("menuitem", name=re.compile(setting)).click()
        self.page.keyboard.press("Escape")

    def launch(self, asset: str, *, days: Sequence[date], config: str = "") -> None:
        """Materialize days, the first to the last, through the dialog, with a run config in YAML; look at the run."""
        self.open_asset(asset)
        self.page.get_by_role("button", name=re.compile("Materialize")).first.click()
        dialog = self.page.get_by_role("dialog").filter(has_text=f"materialize later / {asset}")
        chosen = dialog.get_by_role("textbox").first
        chosen.fill(f"[{days[0]}...{days[-1]}]" if len(days) > 1 else str(days[0]))
        chosen.press("Enter")
        if config:
            dialog.get_by_text("Config", exact=True).click()
            dialog.get_by_role("button", name="Add config").click()
            self.type_config(config)
            self.page.get_by_role("button", name="Save config").click()
        dialog.get_by_role("button", name=re.compile("^Launch")).click()
        self.follow_what_was_launched()

    def type_config(self, config: str) -> None:
        """Type YAML into the config editor, and leave the cursor at its end, which is where the schema beside it is."""
        editor = self.page.locator(".CodeMirror").last
        editor.click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(config)

    def follow_what_was_launched(self) -> None:
        """Opens the run or the backfill that the UI tells of in its corner."""
        told = self.page.get_by_role("listitem").filter(has_text=re.compile("Launched run|Created backfill"))
        told.get_by_text("View", exact=True).click()
        expect(self.page).to_have_url(re.compile("/runs/"))

    def open_partition(self, asset: str, day: date) -> None:
        """Open the partitions of an asset, and one of them."""
        self.open_asset(asset, tab="Partitions")
        self.row(str(day)).click()

    def open_check(self, asset: str, check: str, *, result: str) -> None:
        """Open a check of an asset, once its last result is `result`."""
        self.open_asset(asset, tab="Checks")
        self.page.get_by_text(re.compile(f"^{check}.*{result}$")).click()
        expect(self.page).to_have_url(re.compile(check))

    def row(self, key: str) -> Locator:
        """Return a partition in the list of partitions."""
        return self.page.locator("[data-tooltip]").filter(has_text=re.compile(f"^{key}")).locator("..")

    def expect_colour(self, key: str, colour: str) -> None:
        """Wait until the one dot beside a partition has a colour."""
        dots = self.row(key).locator("[style*='--color-accent-']")
        expect(dots).to_have_count(1)
        expect(dots).to_have_attribute("style", re.compile(f"--color-accent-{colour}"))

    def expect_text(self, text: str | re.Pattern[str]) -> None:
        """Waits until a text is to be seen."""
        expect(self.page.get_by_text(text).first).to_be_visible()


@contextmanager
def window(browser: Browser, dagster: DagsterDev, picture: Path) -> Iterator[Ui]:
    """Opens a window; in the end, whatever the end is, takes a picture of what was to be seen last."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(PATIENCE)
    try:
        yield Ui(page, dagster)
    finally:
        page.screenshot(path=picture)
        print(f"seen last: {picture}")
        page.close()
