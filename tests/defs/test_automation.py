"""Automation: rollups of changed days are requested once, and no others."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.rollups.rollup_tables import BY_CREATOR, OVERALL
from tests.conftest import INSTANCE_IDS, Service
from tests.defs.conftest import DAYS, RAW_ASSETS, Project, assert_success, asset_key, reject_instance, restate_one_post

METRICS, PUBLISHED = RAW_ASSETS
DAILY, WEEKLY, MONTHLY = "organic_paid_daily", "organic_paid_weekly", "organic_paid_monthly"
REPORT, INSTANCES, COVERAGE = "organic_paid_report", "instances", "coverage"
# Two of the windows: each table slows down every tick.
OF_METRICS, OF_BOTH = OVERALL.name, BY_CREATOR.name
WINDOWS = (OF_METRICS, OF_BOTH)
WITHOUT_PARTITIONS = {*WINDOWS, REPORT, INSTANCES, COVERAGE}
# The first week and month; they begin before the first daily partition.
WEEK, MONTH = date(2024, 2, 26), date(2024, 3, 1)
EVERY_DAY = set(DAYS)


@dataclass
class Automation:
    """Evaluates automation conditions tick by tick, without executing the requested runs."""

    project: Project
    cursor: Any = None

    def tick(self, *assets: str) -> Any:
        """Return the requested days of one or several rollups, by default of `DAILY`; no raw table may be requested."""
        result = self._evaluate()
        keys = [result.get_requested_partitions(asset_key(asset)) for asset in assets or (DAILY,)]
        found = [{date.fromisoformat(str(key)) for key in of_asset} for of_asset in keys]
        derived = (DAILY, WEEKLY, MONTHLY, *WITHOUT_PARTITIONS)
        assert result.total_requested == sum(result.get_num_requested(asset_key(asset)) for asset in derived)
        return found if assets else found[0]

    def tick_assets(self, *assets: str) -> set[str]:
        """Return which of some assets are requested."""
        result = self._evaluate()
        return {asset for asset in assets if result.get_num_requested(asset_key(asset))}

    def _evaluate(self) -> Any:
        result = self.project.conditions(cursor=self.cursor)
        self.cursor = result.cursor
        return result


@pytest.fixture
def settings(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of all tests, with the tables named above only."""
    tables = (METRICS, PUBLISHED, DAILY, WEEKLY, MONTHLY, *WITHOUT_PARTITIONS)
    monkeypatch.setenv("LATER_TABLES", ",".join(tables))


@pytest.fixture
def automation(project: Project) -> Iterator[Automation]:
    """Automation a few days after `DAYS`: each further day would slow down every tick."""
    with freeze_time(datetime(2024, 3, 6, tzinfo=UTC)):
        yield Automation(project)


def test_rollup_follows_a_run_with_a_failed_instance_and_again_once_it_is_fetched(
    automation: Automation, project: Project, service: Service
) -> None:
    automation.tick()
    project.run(INSTANCES)
    service.override = reject_instance(INSTANCE_IDS[0])
    assert not project.run(METRICS, DAILY, tags=range_tags(DAYS[0], DAYS[-1])).success
    assert [automation.tick() for _ in range(2)] == [EVERY_DAY, set()]
    for day, found in project.metadata(project.roll_up(DAILY)).items():
        assert found["missing"] == f"1 file is missing: {day} (1 day): {INSTANCE_IDS[0]}"
    assert automation.tick() == set()
    service.override = lambda request: None
    assert project.fetch(METRICS, instances=[INSTANCE_IDS[0]]).success
    assert automation.tick() == EVERY_DAY


def test_failed_rollup_is_requested_again_only_when_posts_change(
    automation: Automation, project: Project, service: Service
) -> None:
    project.fetch(METRICS)
    assert automation.tick() == EVERY_DAY
    (project.root / DAILY).write_bytes(b"not a directory")
    assert not project.roll_up(DAILY).success
    assert [automation.tick() for _ in range(3)] == [set(), set(), set()]
    service.transform = restate_one_post(DAYS[2], INSTANCE_IDS[0])
    project.fetch(METRICS)
    assert automation.tick() == {DAYS[2]}


@pytest.mark.parametrize("in_progress", [DAILY, METRICS])
def test_change_during_a_run_is_requested_after_the_run(
    in_progress: str, automation: Automation, project: Project, service: Service
) -> None:
    project.fetch(METRICS)
    automation.tick()
    project.roll_up(DAILY)
    automation.tick()
    service.transform = restate_one_post(DAYS[2], INSTANCE_IDS[0])
    if in_progress == DAILY:
        run = project.start(DAILY)
        project.fetch(METRICS)
    else:  # only the newest run of a day counts
        project.fetch(METRICS)
        run = project.start(METRICS)
    assert [automation.tick() for _ in range(2)] == [set(), set()]
    project.instance.report_run_canceled(run)
    assert automation.tick() == {DAYS[2]}
    assert automation.tick() == set()


@pytest.mark.parametrize("selected", [[METRICS], [METRICS, DAILY]])
def test_change_between_a_request_and_the_next_tick_is_requested_too(
    selected: list[str], automation: Automation, project: Project, service: Service
) -> None:
    project.fetch(METRICS)
    assert automation.tick() == EVERY_DAY
    service.transform = restate_one_post(DAYS[2], INSTANCE_IDS[0])
    (project.root / DAILY).write_bytes(b"not a directory")
    assert project.run(*selected, tags=range_tags(DAYS[0], DAYS[-1])).success is (DAILY not in selected)
    assert automation.tick() == {DAYS[2]}


def test_weekly_and_monthly_rollups_follow_the_posts_of_their_days(
    automation: Automation, project: Project, service: Service
) -> None:
    nothing: list[set[date]] = [set(), set(), set()]

    def tick() -> Any:
        return automation.tick(DAILY, WEEKLY, MONTHLY)

    tick()
    project.fetch(METRICS)
    assert tick() == [EVERY_DAY, {WEEK}, {MONTH}]
    for rollup in (DAILY, WEEKLY, MONTHLY):
        assert project.roll_up(rollup).success
    assert tick() == nothing

    assert project.fetch(METRICS).success  # unchanged
    assert tick() == nothing

    service.transform = restate_one_post(DAYS[0], INSTANCE_IDS[0])
    project.fetch(METRICS, days=DAYS[:1], instances=[INSTANCE_IDS[0]])
    assert tick() == [{DAYS[0]}, {WEEK}, {MONTH}]


# Unpartitioned assets: windows and the dimension depend on posts, the report on rollups.


def test_windows_instances_and_coverage_are_requested_once_for_any_number_of_days(
    automation: Automation, project: Project, service: Service
) -> None:
    def fetch_posts() -> None:
        for raw in RAW_ASSETS:
            project.fetch(raw)

    downstream = (*WINDOWS, INSTANCES, COVERAGE)
    assert automation.tick_assets(*downstream) == set()
    fetch_posts()
    assert automation.tick_assets(*downstream) == set(downstream)
    project.run(*WINDOWS)
    project.run(INSTANCES, COVERAGE)
    assert automation.tick_assets(*downstream) == set()
    fetch_posts()  # unchanged
    assert automation.tick_assets(*downstream) == set()
    service.transform = restate_one_post(DAYS[0], INSTANCE_IDS[0])
    fetch_posts()
    assert automation.tick_assets(*downstream) == set(downstream)


def test_coverage_is_requested_at_the_due_hour(automation: Automation, project: Project) -> None:
    assert automation.tick_assets(COVERAGE) == set()
    with freeze_time(datetime(2024, 3, 6, 12, 1, tzinfo=UTC)):
        assert automation.tick_assets(COVERAGE) == {COVERAGE}
        assert automation.tick_assets(COVERAGE) == set()


def test_windows_wait_until_no_fetch_is_in_progress(automation: Automation, project: Project) -> None:
    """A backfill can be several runs: the tables are requested after the last one."""
    automation.tick_assets(*WINDOWS)
    runs = [project.start(asset) for asset in RAW_ASSETS]
    for raw in RAW_ASSETS:
        project.fetch(raw, days=DAYS[:1])
    assert automation.tick_assets(*WINDOWS) == set()
    project.instance.report_run_canceled(runs[0])
    assert automation.tick_assets(*WINDOWS) == {OF_METRICS}
    project.instance.report_run_canceled(runs[1])
    assert automation.tick_assets(*WINDOWS) == {OF_BOTH}
    assert automation.tick_assets(*WINDOWS) == set()


def test_report_is_requested_once_after_its_rollups(automation: Automation, project: Project, service: Service) -> None:
    def ticks(count: int) -> list[bool]:
        return [bool(automation.tick_assets(REPORT)) for _ in range(count)]

    assert ticks(1) == [False]
    project.fetch(METRICS)
    assert ticks(1) == [False]  # the rollups come first
    project.run(*WINDOWS)
    assert ticks(3) == [True, False, False]
    assert project.run(REPORT).success
    project.run(*WINDOWS)  # unchanged
    assert ticks(1) == [False]
    service.transform = restate_one_post(DAYS[1], INSTANCE_IDS[0])
    project.fetch(METRICS)
    # It waits while a rollup is in progress.
    run = project.start(DAILY, days=DAYS[2:])
    project.run(*WINDOWS)
    assert ticks(2) == [False, False]
    project.instance.report_run_canceled(run)
    assert ticks(2) == [True, False]


# Runs and backfills that update the asset together with its upstream.


def test_nothing_is_requested_after_a_run_of_raw_tables_and_rollups(
    automation: Automation, project: Project, service: Service
) -> None:
    assets = (METRICS, DAILY, *WINDOWS, INSTANCES)
    automation.tick()
    for _ in range(2):
        assert_success(project.run(*assets, tags=range_tags(DAYS[0], DAYS[-1])))
        assert [automation.tick_assets(DAILY, *WINDOWS, INSTANCES) for _ in range(2)] == [set(), set()]
        service.transform = restate_one_post(DAYS[1], INSTANCE_IDS[0])


# Schedules

START = date(2024, 3, 1)


@pytest.mark.parametrize(
    ("at", "days"),
    [
        (datetime(2024, 6, 15, 6, tzinfo=UTC), (date(2024, 5, 18), date(2024, 6, 14))),
        (datetime(2024, 3, 3, 6, tzinfo=UTC), (START, date(2024, 3, 2))),  # not before the first partition
        (datetime(2024, 3, 1, 23, 59, tzinfo=UTC), None),
    ],
)
def test_schedule_requests_one_run_of_the_newest_days(
    at: datetime, days: tuple[date, date] | None, tmp_path: Path
) -> None:
    defs = LaterReportingComponent(start_date=START).build_definitions()
    resources = {"later_reporting": LaterReportingResource(lake_root=str(tmp_path))}
    with dg.build_schedule_context(scheduled_execution_time=at, resources=resources) as context:
        tick = defs.resolve_schedule_def("later_posts_daily").evaluate_tick(context)
    if days is None:
        assert not tick.run_requests
        assert tick.skip_message == "The first partition, 2024-03-01, is not over yet."
    else:
        (requested,) = tick.run_requests or ()
        assert range_tags(*days).items() <= requested.tags.items()
        assert (requested.partition_key, requested.run_key, requested.run_config) == (None, None, {})


def test_schedules_run_their_jobs_in_utc() -> None:
    repository = LaterReportingComponent().build_definitions().get_repository_def()
    schedules = {each.name: (each.cron_schedule, each.job_name) for each in repository.schedule_defs}
    assert schedules == {
        "later_posts_daily": ("0 6 * * *", "later_posts"),
        "later_checks_daily": ("0 12 * * *", "later_checks"),
    }
    assert {each.execution_timezone for each in repository.schedule_defs} == {"UTC"}
    (sensor,) = [each for each in repository.sensor_defs if each.name == "later_instances"]
    assert sensor.minimum_interval_seconds == 3600
    assert [target.job_name for target in sensor.targets] == ["later_posts", "later_coverage"]


def test_schedule_fetches_nothing_to_a_lake_that_was_filled_and_is_empty(tmp_path: Path) -> None:
    defs = LaterReportingComponent(start_date=START).build_definitions()
    resources = {"later_reporting": LaterReportingResource(lake_root=str(tmp_path / "lake"))}
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        event = dg.AssetMaterialization(dg.AssetKey(["later", METRICS]), partition=str(START))
        instance.report_runless_asset_event(event)
        at = datetime(2024, 6, 15, 6, tzinfo=UTC)
        with dg.build_schedule_context(instance, scheduled_execution_time=at, resources=resources) as context:
            tick = defs.resolve_schedule_def("later_posts_daily").evaluate_tick(context)
    assert not tick.run_requests
    assert "is the disk mounted, and LATER_LAKE_ROOT right?" in str(tick.skip_message)


STOPPED_BY_DEFAULT = {"later_posts_daily", "later_instances"}


@pytest.mark.parametrize("automation", ["", "running", "stopped"])
def test_schedules_and_sensors_have_the_initial_state_that_is_set(
    automation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_AUTOMATION", automation)
    repository = LaterReportingComponent.from_environment().build_definitions().get_repository_def()
    states = {each.name: each.default_status.value for each in repository.schedule_defs}
    states |= {each.name: each.default_status.value for each in repository.sensor_defs}
    assert states.keys() > STOPPED_BY_DEFAULT
    assert states == {
        name: automation.upper() or ("STOPPED" if name in STOPPED_BY_DEFAULT else "RUNNING") for name in states
    }


def test_tables_that_are_not_fetched_have_the_schedule_of_their_checks_only() -> None:
    defs = LaterReportingComponent(tables=DAILY).build_definitions()
    assert [each.name for each in defs.schedules or []] == ["later_checks_daily"]
    assert not LaterReportingComponent(tables=REPORT).build_definitions().schedules
