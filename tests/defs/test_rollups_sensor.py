"""The sensor of rollups on a lake: what is outdated is made again, whatever the reason, and then nothing follows."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.partitions import selected_range
from later_reporting_dagster.defs.runs import rollup_run
from later_reporting_dagster.lake import Partition
from later_reporting_dagster.quality.outdated import Outdated
from tests.conftest import INSTANCE_IDS, Service
from tests.defs.conftest import DAYS, Project, assert_success, asset_key, fill_once, restate_one_post

RAW, DAILY, WEEKLY, WINDOW, REPORT = (
    *("post_metrics_daily", "organic_paid_daily", "organic_paid_weekly"),
    *("organic_paid_overall", "organic_paid_report"),
)
OF_WHOLE_LAKE = {WINDOW, "coverage", REPORT}


@pytest.fixture
def settings(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of all tests, with a table of each kind."""
    monkeypatch.setenv("LATER_TABLES", f"{RAW},coverage,{DAILY},{WEEKLY},{WINDOW},{REPORT}")


@dataclass
class Ticks:
    """Evaluates the sensor with its cursor, as the daemon does, and executes what it requests."""

    project: Project
    clock: pytest.MonkeyPatch
    now: datetime = datetime(2024, 3, 4, 13, tzinfo=UTC)
    cursor: str | None = None
    skipped: str | None = None
    requests: Sequence[dg.RunRequest] = field(default_factory=list)

    def tick(self, *, after: timedelta = timedelta(seconds=30)) -> list[set[str]]:
        """Return the assets of each run that is requested."""
        self.now += after
        self.clock.setattr("later_reporting_dagster.defs.component_base.utc_now", lambda: self.now)
        data = self.project.sensor("later_rollups", cursor=self.cursor)
        self.cursor, self.skipped = data.cursor, data.skip_message
        self.requests = [*(data.run_requests or [])]
        return [{key.path[-1] for key in request.asset_selection or ()} for request in self.requests]

    def run(self) -> None:
        for request in self.requests:
            assert_success(self.project.execute(request))

    def until_current(self) -> list[list[set[str]]]:
        """Tick, and execute what is requested, until nothing is; return what each tick has requested."""
        requested = []
        while runs := self.tick():
            requested.append(runs)
            self.run()
        return requested


@pytest.fixture
def ticks(project: Project, module_lake: Path, monkeypatch: pytest.MonkeyPatch) -> Ticks:
    """The sensor, for a lake whose rollups and report are current."""

    def fill(project: Project) -> bool:
        assert_success(project.fetch(RAW))
        return bool(Ticks(project, monkeypatch).until_current())

    ticks = Ticks(fill_once(project, module_lake, fill), monkeypatch)
    ticks.until_current()  # the lists of files, after the due hour
    return ticks


def restate(ticks: Ticks, service: Service) -> None:
    service.transform = restate_one_post(DAYS[-1], INSTANCE_IDS[0])
    assert_success(ticks.project.fetch(RAW))


def lose(ticks: Ticks, *days: date) -> None:
    for day in days:
        (ticks.project.root / DAILY / f"date={day}" / "part-0.parquet").unlink()


def test_first_fetch_is_followed_by_days_and_weeks_and_then_by_one_run_of_the_rest(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = Ticks(project, monkeypatch)
    assert ticks.tick() == []  # an empty lake
    assert_success(project.fetch(RAW))
    assert ticks.until_current() == [[{DAILY}, {WEEKLY}], [OF_WHOLE_LAKE]]
    assert ticks.skipped == "Looked at the lake: nothing is outdated"


def test_restated_day_is_rolled_up_and_an_unchanged_one_makes_no_run(ticks: Ticks, service: Service) -> None:
    restate(ticks, service)
    assert ticks.tick() == [{DAILY}, {WEEKLY}]
    assert selected_range(ticks.requests[0].tags) == (DAYS[-1], DAYS[-1])
    assert {request.tags["later/requested_by"] for request in ticks.requests} == {"later_rollups"}
    ticks.run()
    assert ticks.until_current() == [[OF_WHOLE_LAKE]]
    assert_success(ticks.project.fetch(RAW))
    assert (ticks.tick(), ticks.skipped) == ([], "Looked at the lake: nothing is outdated")
    assert (ticks.tick(), ticks.skipped) == ([], "Nothing was fetched since the lake was looked at, 0 minutes ago")


def test_lost_files_are_made_again_in_one_run_within_an_hour(ticks: Ticks) -> None:
    lose(ticks, DAYS[0], DAYS[2])
    assert ticks.tick() == []
    assert ticks.tick(after=timedelta(hours=1)) == [{DAILY}]
    assert selected_range(ticks.requests[0].tags) == (DAYS[2], DAYS[2])
    ticks.run()
    assert ticks.project.lake.file_versions(DAILY).keys() == {Partition(day): None for day in DAYS}.keys()


@pytest.mark.parametrize("asset", [DAILY, RAW])
def test_tick_waits_for_a_run_in_progress_unless_it_is_dead(
    asset: str, ticks: Ticks, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    restate(ticks, service)
    ticks.project.instance.report_engine_event("it works", ticks.project.start(asset))
    assert (ticks.tick(), ticks.skipped) == ([], f"Waits for runs of {asset}")
    later = datetime.now(UTC) + timedelta(minutes=61)  # by Dagster's clock
    monkeypatch.setattr("later_reporting_dagster.defs.runs.utc_now", lambda: later)
    assert ticks.tick() == [{DAILY}, {WEEKLY}]


def test_tick_waits_for_a_backfill_between_its_runs(ticks: Ticks, service: Service) -> None:
    backfill = PartitionBackfill(
        backfill_id="between_its_runs",
        status=BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=0.0,
        asset_selection=[asset_key(RAW)],
    )
    restate(ticks, service)
    ticks.project.instance.add_backfill(backfill)
    assert (ticks.tick(), ticks.skipped) == ([], f"Waits for runs of {RAW}")
    ticks.project.instance.update_backfill(backfill.with_status(BulkActionStatus.COMPLETED_SUCCESS))
    assert ticks.tick() == [{DAILY}, {WEEKLY}]


def test_lake_is_looked_at_after_a_run_without_events_also_if_a_tick_fails(ticks: Ticks) -> None:
    run = ticks.project.start(RAW)
    assert ticks.tick() == []
    lose(ticks, DAYS[1])
    ticks.project.instance.report_run_failed(run)
    table, aside = ticks.project.root / RAW, ticks.project.root.parent / "aside"
    table.rename(aside)
    table.write_bytes(b"not a directory")
    with pytest.raises(dg.DagsterError, match="Looking for outdated rollups failed"):
        ticks.tick()
    table.unlink()
    aside.rename(table)
    assert ticks.tick() == [{DAILY}]


def test_run_that_is_queued_for_six_hours_does_not_hold_back_the_others(ticks: Ticks, service: Service) -> None:
    restate(ticks, service)
    request = dg.RunRequest(asset_selection=[asset_key(WEEKLY)])
    ticks.project.record(request, dg.DagsterRunStatus.NOT_STARTED)
    assert ticks.tick() == []
    assert ticks.tick(after=timedelta(hours=5)) == []
    assert ticks.tick(after=timedelta(hours=1)) == [{DAILY}, OF_WHOLE_LAKE]


def test_requests_are_made_once_also_if_the_daemon_dies_before_it_stores_the_cursor(
    ticks: Ticks, service: Service
) -> None:
    restate(ticks, service)
    before = ticks.cursor
    assert ticks.tick() == [{DAILY}, {WEEKLY}]
    requests = ticks.requests
    runs = [ticks.project.record(request, dg.DagsterRunStatus.NOT_STARTED) for request in requests]
    ticks.cursor = before
    assert ticks.tick() == []
    for run, request in zip(runs, requests, strict=True):
        ticks.project.instance.report_run_canceled(run)
        assert_success(ticks.project.execute(request))
    assert ticks.until_current() == [[OF_WHOLE_LAKE]]


def test_of_two_code_locations_on_a_lake_each_notices_the_fetches_of_the_other_within_an_hour(
    ticks: Ticks, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        other = Ticks(replace(ticks.project, instance=instance), monkeypatch, now=ticks.now)
        other.until_current()  # the lists of files, after the due hour
        restate(other, service)
        assert ticks.tick() == []
        assert ticks.tick(after=timedelta(hours=1)) == [{DAILY}, {WEEKLY}]
        ticks.run()
        ticks.until_current()
        # What one has made, the other finds current.
        assert (other.tick(), other.skipped) == ([], "Looked at the lake: nothing is outdated")


def test_events_from_before_the_first_tick_make_no_rollup_outdated(ticks: Ticks) -> None:
    assert_success(ticks.project.fetch(RAW))
    assert ticks.until_current() == []
    ticks.cursor = None
    assert ticks.until_current() == [[{"coverage", REPORT}]]  # the lists of files, after the due hour
    assert ticks.skipped == "Looked at the lake: nothing is outdated"


def test_metric_that_is_requested_now_makes_rollups_outdated(ticks: Ticks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_METRICS", "impressions,engagements,likes")
    ticks.project = ticks.project.reloaded()
    assert ticks.tick(after=timedelta(hours=1)) == [{DAILY}, {WEEKLY}]
    assert selected_range(ticks.requests[0].tags) == (DAYS[0], DAYS[-1])
    ticks.run()
    ticks.until_current()
    monkeypatch.setenv("LATER_METRICS", "impressions,engagements")
    ticks.project = ticks.project.reloaded()
    assert ticks.tick(after=timedelta(hours=1)) == []


def test_asset_downstream_of_a_week_is_requested_for_the_week_that_changed(ticks: Ticks, service: Service) -> None:
    @dg.asset(
        deps=[asset_key(WEEKLY)],
        partitions_def=dg.WeeklyPartitionsDefinition("2024-02-26", day_offset=1, timezone="UTC"),
        automation_condition=dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed()),
    )
    def theirs() -> None: ...

    defs = dg.Definitions.merge(ticks.project.defs, dg.Definitions(assets=[theirs]))

    def evaluate(cursor: Any = None) -> Any:
        return dg.evaluate_automation_conditions(
            defs, ticks.project.instance, asset_selection=dg.AssetSelection.assets(theirs), cursor=cursor
        )

    assert_success(ticks.project.roll_up(WEEKLY))
    before = evaluate()
    restate(ticks, service)
    ticks.until_current()
    after = evaluate(before.cursor)
    assert after.get_requested_partitions(theirs.key) == {"2024-02-26"}
    assert evaluate(after.cursor).total_requested == 0


@pytest.mark.parametrize(
    ("days", "selected"), [([1, 2, 5], (5, 5)), ([2, 4, 5], (4, 5)), ([1, 2, 3], (1, 3)), ([], (1, 1))]
)
def test_run_selects_the_newest_outdated_days_that_adjoin(days: Sequence[int], selected: tuple[int, int]) -> None:
    files = [Outdated(DAILY, date(2024, 1, day), "missing", "") for day in days]
    tags, config = rollup_run(ComponentBase(start_date=date(2024, 1, 1)), [DAILY], files, requested_by="a command")
    assert selected_range(tags) == (date(2024, 1, selected[0]), date(2024, 1, selected[1]))
    assert config == {DAILY: {"outdated": True}}
