"""What a person sees and does in the browser, with Dagster, its daemon and the API all running for real."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.browser import GRAY, GREEN, RED, Ui, window
from tests.e2e.dagster_dev import GONE_INSTANCE, GOOD_INSTANCES, DagsterDev, until

ASSETS = (
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
CHECKS = (
    "newest_due_day_is_present",
    "no_unknown_fields",
    "quarantine_is_empty",
    "rates_agree_with_counts",
    "rows_belong_to_partition",
    "rows_unique_by_key",
)


@dataclass(frozen=True)
class Backfill:
    """A backfill of `post_metrics_daily` over some days × all instances, launched by hand, whose runs are over."""

    days: Sequence[date]
    address: str


@pytest.fixture(scope="module")
def backfill(browser: Browser, dagster: DagsterDev, tmp_path_factory: pytest.TempPathFactory) -> Backfill:
    """The newest three days, so that the newest due day is among them at any hour."""
    days = dagster.days[-3:]
    with window(browser, dagster, tmp_path_factory.mktemp("backfill") / "seen-last.png") as ui:
        ui.launch("post_metrics_daily", days=days)
        address = ui.page.url.removeprefix(dagster.url)
    done = {(day, instance) for day in days for instance in (*GOOD_INSTANCES, GONE_INSTANCE)}
    # The daemon looks at its backfills every thirty seconds.
    until(
        "the backfill's runs are over",
        lambda: _cells(dagster, "materializedPartitions") | _cells(dagster, "failedPartitions") == done,
        seconds=180,
    )
    return Backfill(days, address)


def test_one_partition_is_materialized_by_hand(ui: Ui, dagster: DagsterDev) -> None:
    day, instance = dagster.days[4], GOOD_INSTANCES[1]
    ui.open("/assets")
    for asset in ASSETS:
        expect(ui.page.get_by_role("link", name=f"later / {asset}").first).to_be_visible()

    ui.launch("posts_published", days=[day], instances=[instance])

    ui.expect_text(re.compile("^Success$"))
    ui.open_partition("posts_published", day, instance)
    ui.expect_text(re.compile("^Materialized$"))
    ui.expect_colour(instance, GREEN)
    ui.expect_colour(GOOD_INSTANCES[0], GRAY)
    assert [path.parts[-3:-1] for path in dagster.files("posts_published")] == [
        (f"date={day}", f"instance_id={instance}")
    ]


def test_in_a_backfill_the_instance_that_fails_is_red_and_the_others_are_green(
    ui: Ui, dagster: DagsterDev, backfill: Backfill
) -> None:
    days = backfill.days
    assert _cells(dagster, "materializedPartitions") == {(day, name) for day in days for name in GOOD_INSTANCES}
    assert _cells(dagster, "failedPartitions") == {(day, GONE_INSTANCE) for day in days}

    for day in days:
        ui.open_partition("post_metrics_daily", day)
        for instance in GOOD_INSTANCES:
            ui.expect_colour(instance, GREEN)
        ui.expect_colour(GONE_INSTANCE, RED)

    ui.row(GONE_INSTANCE).click()
    ui.expect_text("failed, and did not materialize this asset.")
    ui.page.get_by_role("link", name=re.compile("^[0-9a-f]{8}$")).click()
    ui.expect_text(re.compile("^Failure$"))
    ui.expect_text(re.compile(r"\d partitions? failed and stayed as before; \d landed\."))
    ui.expect_text(f"{days[-1]}|{GONE_INSTANCE}: instance '{GONE_INSTANCE}' is not within reach of these credentials")


def test_a_partition_tells_what_it_holds(ui: Ui, dagster: DagsterDev, backfill: Backfill) -> None:
    file = dagster.files("post_metrics_daily")[0]
    rows = pq.ParquetFile(file).metadata.num_rows

    ui.open_partition("post_metrics_daily", backfill.days[0], GOOD_INSTANCES[0])

    expect(ui.page.get_by_role("row", name=f"rows {rows}", exact=True)).to_be_visible()
    expect(ui.page.get_by_role("row", name=re.compile("^content_hash [0-9a-f]{64}"))).to_be_visible()
    expect(ui.page.get_by_role("row", name=f"path {file}")).to_be_visible()
    preview = ui.page.get_by_role("row", name=re.compile("^preview ")).get_by_role("table")
    expect(preview.get_by_role("columnheader", name="creator_handle_name")).to_be_visible()
    expect(preview.get_by_role("row")).to_have_count(1 + min(rows, 5))


def test_checks_tell_what_is_wrong_and_can_be_run_alone(ui: Ui, dagster: DagsterDev, backfill: Backfill) -> None:
    ui.open_asset("post_metrics_daily", tab="Checks")
    told = {check: ui.page.get_by_text(re.compile(f"^{check}.*(Succeeded|Failed)$")) for check in CHECKS}
    for check in CHECKS:
        expect(told[check]).to_have_text(
            re.compile("Failed$" if check == "newest_due_day_is_present" else "Succeeded$")
        )

    told["newest_due_day_is_present"].click()
    ui.expect_text(re.compile(rf"^\d{{4}}-\d\d-\d\d is missing for {GONE_INSTANCE}: materialize it$"))

    told["rows_unique_by_key"].click()
    expect(ui.page).to_have_url(re.compile("rows_unique_by_key"))
    ui.page.get_by_role("button", name="execute Execute", exact=True).click()
    ui.follow_what_was_launched()
    ui.expect_text(re.compile("^Success$"))
    run_id = ui.page.url.rpartition("/")[-1]

    ui.open_asset("post_metrics_daily", tab="Checks")
    told["rows_unique_by_key"].click()
    expect(ui.page.locator(f"a[href*='/runs/{run_id}']")).to_be_visible()
    ui.expect_text(re.compile("^Passed$"))
    # A run of the asset looks at what it landed, a run of the check at the whole lake.
    ui.expect_text(re.compile(rf"^All \d+ rows of {len(dagster.files('post_metrics_daily'))} partitions$"))


def test_a_backfill_tells_how_many_partitions_failed(ui: Ui, backfill: Backfill) -> None:
    ui.open(backfill.address)

    ui.expect_text(re.compile(r"^Status\s*Failed$"))
    # Targeted, in progress, succeeded, failed.
    ui.expect_text(re.compile(r"^later / post_metrics_daily.*100% completed\s*12\s*0\s*9\s*3$"))


def test_the_rollup_follows_the_days_that_changed_and_no_others(
    ui: Ui, dagster: DagsterDev, backfill: Backfill
) -> None:
    before = _eventually_rolled_up(dagster, backfill.days)
    assert before.keys() == {*backfill.days}

    # The first of these days is new, the second is fetched again and is as it was.
    new, again = dagster.days[-4:-2]
    fetched = dagster.run(
        *("later-reporting", "backfill", "--asset", "later/post_metrics_daily"),
        *("--start", str(new), "--end", str(again), "--instances", ",".join(GOOD_INSTANCES)),
    )
    assert fetched.returncode == 0, fetched.stderr

    after = _eventually_rolled_up(dagster, [new, *backfill.days])
    assert (after - before).keys() == {new}
    for day in (new, again):
        ui.open_partition("organic_paid_daily", day)
        ui.expect_text(re.compile("^Materialized$"))
        ui.expect_colour(str(day), GREEN)
        expect(ui.page.get_by_text(re.compile("Unsynced"))).to_have_count(0)
    ui.expect_colour(str(dagster.days[0]), GRAY)
    files = dagster.files("organic_paid_daily")
    assert [file.parent.name for file in files] == [f"date={day}" for day in sorted(after)]


def test_the_report_follows_and_shows_its_pictures(ui: Ui, dagster: DagsterDev, backfill: Backfill) -> None:
    page = Path(dagster.environment["LATER_LAKE_ROOT"]) / "organic_paid_report" / "report.html"
    until("the report is written", page.exists, seconds=120)

    ui.open_asset("organic_paid_report")
    expect(ui.page.get_by_role("row", name=re.compile("^path ")).filter(has_text=str(page))).to_be_visible()
    ui.page.get_by_text("[Show Markdown]").click()
    dialog = ui.page.get_by_role("dialog")
    expect(dialog.get_by_role("row", name=re.compile("^Organic impressions [0-9,]+ not available$"))).to_be_visible()
    pictures = dialog.get_by_role("img", name=re.compile(" by | each "))
    expect(pictures).to_have_count(6)
    for picture in pictures.all():
        assert picture.evaluate("image => image.complete && image.naturalWidth > 0")


def _cells(dagster: DagsterDev, status: str) -> set[tuple[date, str]]:
    """The (day, instance) of `post_metrics_daily` that have a status, as GraphQL tells it."""
    data = dagster.ask(
        """{ assetNodes(assetKeys: [{path: ["later", "post_metrics_daily"]}]) {
          assetPartitionStatuses { ... on MultiPartitionStatuses { ranges {
            primaryDimStartKey primaryDimEndKey
            secondaryDim { ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } }
          } } }
        } }"""
    )
    return {
        (day, instance)
        for found in data["assetNodes"][0]["assetPartitionStatuses"]["ranges"]
        for day in dagster.days
        if found["primaryDimStartKey"] <= str(day) <= found["primaryDimEndKey"]
        for instance in found["secondaryDim"][status]
    }


def _eventually_rolled_up(dagster: DagsterDev, days: Sequence[date]) -> Counter[date]:
    """Waits until `days` are rolled up and no run is under way; then tells how often each day has been."""

    def materialized() -> Counter[date] | None:
        data = dagster.ask(
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
        found = Counter(date.fromisoformat(event["partition"]) for event in events)
        return found if {*days} <= found.keys() and not data["runsOrError"]["results"] else None

    return until(f"rolled up: {', '.join(map(str, days))}", materialized, seconds=120)
