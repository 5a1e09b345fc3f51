"""The Dagster UI in a browser, with a real webserver, daemon and API."""

import re
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect

from tests.e2e.browser import GRAY, GREEN, Ui
from tests.e2e.dagster_dev import INSTANCES, REJECTED_INSTANCE, DagsterDev, wait_until

pytestmark = pytest.mark.e2e

ASSETS = (
    "instances",
    "post_metrics_daily",
    "posts_published",
    "organic_paid_daily",
    "organic_paid_by_publish_day",
    "organic_paid_weekly",
    "organic_paid_monthly",
    "organic_paid_by_campaign",
    "organic_paid_by_creator",
    "organic_paid_by_platform",
    "organic_paid_report",
)
CONFIG = "ops:\n  later__post_metrics_daily:\n    config:\n      "


@pytest.fixture(scope="module")
def fetched(dagster: DagsterDev) -> Sequence[date]:
    """The oldest three days of `post_metrics_daily`, fetched by `later-reporting backfill`."""
    days = dagster.days[:3]
    _fetch(dagster, days)
    return days


def test_ui_materializes_one_day_of_all_instances(ui: Ui, dagster: DagsterDev) -> None:
    day = dagster.days[4]
    ui.open("/assets")
    for asset in ASSETS:
        expect(ui.page.get_by_role("link", name=f"later / {asset}").first).to_be_visible()

    ui.launch("posts_published", days=[day])

    ui.expect_text(re.compile("^Success$"))
    ui.open_partition("posts_published", day)
    ui.expect_text(re.compile("^Materialized$"))
    ui.expect_colour(str(day), GREEN)
    ui.expect_colour(str(dagster.days[5]), GRAY)
    assert [path.parts[-3:-1] for path in dagster.files("posts_published")] == [
        (f"date={day}", f"instance_id={instance}") for instance in INSTANCES
    ]


def test_ui_shows_a_rejected_instance_until_its_days_are_materialized_again(ui: Ui, dagster: DagsterDev) -> None:
    # At any hour, the newest due day is among the last three.
    days = dagster.days[-3:]
    dagster.reject(rejected=True)
    try:
        ui.launch("post_metrics_daily", days=days)
        ui.open_only_run(status="Failure")
    finally:
        dagster.reject(rejected=False)

    ui.expect_text(re.compile(r"3 files failed and were not changed; 9 written\."))
    for day in days:
        ui.expect_text(re.compile(f"{day} {REJECTED_INSTANCE}: .*HTTP 403"))

    ui.open_partition("post_metrics_daily", days[0])
    for day in days:
        ui.expect_colour(str(day), GREEN)
    expect(ui.page.get_by_role("row", name="instances 3", exact=True)).to_be_visible()
    missing = ui.page.get_by_role("row", name=re.compile("^missing_instances "))
    expect(missing).to_contain_text(REJECTED_INSTANCE)

    ui.open_check("post_metrics_daily", "every_instance_is_present", result="Failed")
    # Other days may be missing, too.
    ui.expect_text(re.compile(rf"^\d+ files are missing: .*\d days\): {REJECTED_INSTANCE}\."))
    ui.open_check("post_metrics_daily", "newest_due_day_is_present", result="Failed")
    ui.expect_text(re.compile(rf"^\d{{4}}-\d\d-\d\d is missing for {REJECTED_INSTANCE}: materialize it$"))

    requests = dagster.service.data_requests
    ui.launch("post_metrics_daily", days=days, config=f"{CONFIG}only_missing: true")
    ui.open_only_run(status="Success")

    assert dagster.service.data_requests - requests == len(days)
    ui.open_check("post_metrics_daily", "newest_due_day_is_present", result="Succeeded")
    ui.open_partition("post_metrics_daily", days[0])
    expect(ui.page.get_by_role("row", name="instances 4", exact=True)).to_be_visible()
    expect(missing).to_have_count(0)


def test_ui_shows_the_metadata_of_a_partition(ui: Ui, dagster: DagsterDev, fetched: Sequence[date]) -> None:
    day = fetched[0]
    files = [file for file in dagster.files("post_metrics_daily") if file.parts[-3] == f"date={day}"]
    rows = sum(pq.ParquetFile(file).metadata.num_rows for file in files)

    ui.open_partition("post_metrics_daily", day)

    expect(ui.page.get_by_role("row", name=f"dagster/partition_row_count {rows}", exact=True)).to_be_visible()
    expect(ui.page.get_by_role("row", name=f"dagster/uri {files[0].parents[1]}", exact=True)).to_be_visible()
    expect(ui.page.get_by_role("row", name=f"instances {len(INSTANCES)}", exact=True)).to_be_visible()
    preview = ui.page.get_by_role("row", name=re.compile("^preview ")).get_by_role("table")
    expect(preview.get_by_role("columnheader", name="creator_handle_name")).to_be_visible()
    expect(preview.get_by_role("row")).to_have_count(1 + min(rows, 5))


def test_ui_runs_a_single_check_over_the_whole_lake(ui: Ui, dagster: DagsterDev, fetched: Sequence[date]) -> None:
    ui.open_check("post_metrics_daily", "rows_unique_by_key", result="Succeeded")
    ui.page.get_by_role("button", name="execute Execute", exact=True).click()
    ui.open_launched_run()
    ui.expect_text(re.compile("^Success$"))
    run_id = ui.page.url.rpartition("/")[-1]

    ui.open_check("post_metrics_daily", "rows_unique_by_key", result="Succeeded")
    expect(ui.page.locator(f"a[href*='/runs/{run_id}']")).to_be_visible()
    # A run of the asset checks only what it fetched. A run of the check reads the whole lake.
    ui.expect_text(re.compile(rf"^All \d+ rows of {len(dagster.files('post_metrics_daily'))} files$"))


def test_rollup_is_updated_for_changed_days_only(ui: Ui, dagster: DagsterDev, fetched: Sequence[date]) -> None:
    before = _wait_for_rollup(dagster, fetched)

    # The first of these days is fetched again without changes, the second is new.
    again, new = dagster.days[2:4]
    _fetch(dagster, [again, new])

    after = _wait_for_rollup(dagster, [*fetched, new])
    assert {day: after[day] - before[day] for day in dagster.days[:4]} == {**dict.fromkeys(fetched, 0), new: 1}
    for day in (again, new):
        ui.open_partition("organic_paid_daily", day)
        ui.expect_text(re.compile("^Materialized$"))
        ui.expect_colour(str(day), GREEN)
        expect(ui.page.get_by_text(re.compile("Unsynced"))).to_have_count(0)
    assert {file.parent.name for file in dagster.files("organic_paid_daily")} == {f"date={day}" for day in after}


def test_report_is_updated_and_shows_its_kpis(ui: Ui, dagster: DagsterDev, fetched: Sequence[date]) -> None:
    page = Path(dagster.environment["LATER_LAKE_ROOT"]) / "organic_paid_report" / "report.html"
    wait_until("the report is written", page.exists)

    ui.open_asset("organic_paid_report")
    expect(ui.page.get_by_role("row", name=re.compile("^Organic impressions [0-9,]+ "))).to_be_visible()
    ui.open_asset("organic_paid_report", tab="Events")
    expect(ui.page.get_by_role("row", name=re.compile("^dagster.uri ")).first).to_contain_text(str(page))


def _fetch(dagster: DagsterDev, days: Sequence[date]) -> None:
    range_ = ("--start", str(days[0]), "--end", str(days[-1]))
    fetched = dagster.run("later-reporting", "backfill", "--asset", "later/post_metrics_daily", *range_)
    assert fetched.returncode == 0, fetched.stderr


def _wait_for_rollup(dagster: DagsterDev, days: Sequence[date]) -> Counter[date]:
    """Wait until `days` are rolled up and no run is active; return the number of materializations of each day."""

    def materialized() -> Counter[date] | None:
        data = dagster.graphql(
            """{
              runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED]}) {
                ... on Runs { results { id } }
              }
              assetNodes(assetKeys: [{path: ["later", "organic_paid_daily"]}]) {
                assetMaterializations { partition }
              }
            }"""
        )
        events = data["assetNodes"][0]["assetMaterializations"]
        counts = Counter(date.fromisoformat(event["partition"]) for event in events)
        return counts if {*days} <= counts.keys() and not data["runsOrError"]["results"] else None

    return wait_until(f"rolled up: {', '.join(map(str, days))}", materialized)
