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
GREEN, RED, GRAY = "green", "red", "gray"


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

    def expand_groups(self) -> None:
        """Shows the assets inside the groups of the lineage, as large as they fit."""
        self.page.get_by_role("button", name="settings", exact=True).last.click()
        self.page.get_by_role("menuitem", name=re.compile("Expand all groups")).click()
        self.page.keyboard.press("Escape")

    def launch(self, asset: str, *, days: Sequence[date], instances: Sequence[str] | None = None) -> None:
        """Materializes days (the first to the last) × instances (None: all) through the dialog, and looks at it."""
        self.open_asset(asset)
        self.page.get_by_role("button", name=re.compile("Materialize")).first.click()
        dialog = self.page.get_by_role("dialog").filter(has_text=f"materialize later / {asset}")
        chosen = dialog.get_by_role("textbox").first
        chosen.fill(f"[{days[0]}...{days[-1]}]" if len(days) > 1 else str(days[0]))
        chosen.press("Enter")
        if instances is None:
            dialog.get_by_role("button", name="All", exact=True).last.click()
        else:
            dialog.get_by_text("Select a partition or create one").click()
            for instance in instances:
                self.page.get_by_role("menuitem", name=instance).click()
            self.page.keyboard.press("Escape")
        dialog.get_by_role("button", name=re.compile("^Launch")).click()
        self.follow_what_was_launched()

    def follow_what_was_launched(self) -> None:
        """Opens the run or the backfill that the UI tells of in its corner."""
        told = self.page.get_by_role("listitem").filter(has_text=re.compile("Launched run|Created backfill"))
        told.get_by_text("View", exact=True).click()
        expect(self.page).to_have_url(re.compile("/runs/"))

    def open_partition(self, asset: str, day: date, instance: str | None = None) -> None:
        """Opens the partitions of an asset, and in them a day, and of it an instance."""
        self.open_asset(asset, tab="Partitions")
        self.row(str(day)).click()
        if instance is not None:
            self.row(instance).click()

    def row(self, key: str) -> Locator:
        """A day or an instance in the lists of partitions."""
        return self.page.locator("[data-tooltip]").filter(has_text=re.compile(f"^{key}")).locator("..")

    def expect_colour(self, key: str, colour: str) -> None:
        """Waits until the one dot beside a day or an instance has a colour."""
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
