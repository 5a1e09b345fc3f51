"""Takes the README's picture of the UI, in about two minutes: `python -m tests.e2e.picture docs/dagster-ui.png`."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.browser import SECONDS, chromium, window
from tests.e2e.dagster_dev import dagster_dev


def take(picture: Path) -> None:
    """Fetches all days of a Dagster with one instance that fails, and takes the lineage once the rollups followed."""
    with tempfile.TemporaryDirectory() as directory, dagster_dev(Path(directory)) as dagster:
        for asset in ("later/post_metrics_daily", "later/posts_published"):
            first, *_, last = map(str, dagster.days)
            dagster.run("later-reporting", "backfill", "--asset", asset, "--start", first, "--end", last)
        with chromium() as browser, window(browser, dagster, Path(directory) / "seen-last.png") as ui:
            ui.open("/asset-groups")
            sidebar = ui.page.get_by_role("button", name="panel_show_right", exact=True).last
            ui.page.get_by_role("button", name="Hide navigation").click()
            sidebar.click()
            ui.expand_groups()
            # Large enough for all assets; they are placed anew when the page is.
            ui.page.set_viewport_size({"width": 1500, "height": 1750})
            ui.page.reload()
            sidebar.click()
            # A week or a month that has just begun has no day yet.
            expect(ui.page.get_by_text("100% filled").nth(1)).to_be_visible(timeout=180 * SECONDS)
            # The report is the last to follow.
            expect(ui.page.get_by_text("Never materialized")).to_have_count(0, timeout=180 * SECONDS)
            ui.page.screenshot(path=picture)


if __name__ == "__main__":
    take(Path(sys.argv[1]))
