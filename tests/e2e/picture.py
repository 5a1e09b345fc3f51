"""Take the README's screenshot of the UI, in about two minutes: `python -m tests.e2e.picture docs/dagster-ui.png`."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect

from tests.e2e.browser import chromium, open_ui
from tests.e2e.dagster_dev import dagster_dev


def take_screenshot(path: Path) -> None:
    """Fetch all days, the newest without one instance, and save the lineage graph once the rollups are updated."""
    with tempfile.TemporaryDirectory() as directory, dagster_dev(Path(directory)) as dagster:
        for asset in ("later/post_metrics_daily", "later/posts_published"):
            for first, last, rejected in ((0, -2, False), (-1, -1, asset == "later/posts_published")):
                dagster.reject(rejected=rejected)
                days = ("--start", str(dagster.days[first]), "--end", str(dagster.days[last]))
                dagster.run("later-reporting", "backfill", "--asset", asset, *days)
        days = ("--start", str(dagster.days[0]), "--end", str(dagster.days[-1]))
        dagster.run("later-reporting", "backfill", "--asset", "later/campaign_performance_daily", *days)
        module = "later_reporting_dagster.definitions"
        dagster.run("dagster", "asset", "materialize", "-m", module, "--select", "later/campaigns")
        with chromium() as browser, open_ui(browser, dagster, Path(directory) / "last-screenshot.png") as ui:
            ui.open("/asset-groups")
            sidebar = ui.page.get_by_role("button", name="panel_show_right", exact=True).last
            ui.page.get_by_role("button", name="Hide navigation").click()
            sidebar.click()
            ui.arrange_lineage("Expand all groups", "vertical orientation")
            # Large enough for all assets with their details. Reloading places them anew.
            ui.page.set_viewport_size({"width": 3400, "height": 1100})
            ui.page.reload()
            sidebar.click()
            # Both raw tables and both daily rollups. A week or month that has just begun has no materialized day yet.
            expect(ui.page.get_by_text("100% filled").nth(3)).to_be_visible()
            # The report is among the last to be updated.
            for unfinished in ("Never materialized", "Materializing"):
                expect(ui.page.get_by_text(unfinished)).to_have_count(0)
            ui.page.screenshot(path=path)


if __name__ == "__main__":
    take_screenshot(Path(sys.argv[1]))
