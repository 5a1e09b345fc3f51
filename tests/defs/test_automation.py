"""Rollups follow by themselves: the days whose posts changed, once, and no others."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from tests.conftest import INSTANCE_IDS, Service
from tests.defs.conftest import DAYS, WINDOWS, Project, asset_key, enlarged, restated, without

RAW, ROLLUP = "posts_published", "organic_paid_by_publish_day"
METRICS, DAILY, WEEKLY, MONTHLY = (
    "post_metrics_daily",
    "organic_paid_daily",
    "organic_paid_weekly",
    "organic_paid_monthly",
)
REPORT, INSTANCES = "organic_paid_report", "instances"
WITHOUT_PARTITIONS = {*WINDOWS, REPORT, INSTANCES}
# The first week and month, of which the days before the first are no partitions.
WEEK, MONTH = date(2024, 2, 26), date(2024, 3, 1)
EVERY_DAY = set(DAYS)


@dataclass
class Automation:
    """The automation sensor's ticks, one after the other, without the runs that it requests."""

    project: Project
    cursor: Any = None

    def tick(self, *assets: str) -> Any:
        """What this tick requests of a rollup, or of several: no other one with partitions is requested."""
        result = self._ticked()
        found = [self._days(result, asset) for asset in assets or (ROLLUP,)]
        besides = sum(result.get_num_requested(asset_key(asset)) for asset in WITHOUT_PARTITIONS)
        assert result.total_requested == sum(map(len, found)) + besides
        return found if assets else found[0]

    def tick_of(self, *assets: str) -> set[str]:
        """Those of these assets without partitions that this tick requests."""
        result = self._ticked()
        return {asset for asset in assets if result.get_num_requested(asset_key(asset))}

    def _days(self, result: Any, asset: str) -> set[date]:
        return {date.fromisoformat(str(key)) for key in result.get_requested_partitions(asset_key(asset))}

    def _ticked(self) -> Any:
        result = dg.evaluate_automation_conditions(
            self.project.defs, self.project.instance, asset_selection=dg.AssetSelection.all(), cursor=self.cursor
        )
        self.cursor = result.cursor
        return result


@pytest.fixture
def automation(project: Project) -> Iterator[Automation]:
    """Automation soon after the days of the tests: each day costs each tick its time."""
    with freeze_time(datetime(2024, 3, 6, tzinfo=UTC)):
        yield Automation(project)


def test_days_are_rolled_up_once_when_they_were_fetched(automation: Automation, project: Project) -> None:
    assert automation.tick() == set()
    project.fetch(RAW, days=DAYS[:2])
    assert automation.tick() == set(DAYS[:2])
    assert automation.tick() == set()
    project.roll_up(ROLLUP, days=DAYS[:2])
    assert automation.tick() == set()


def test_days_that_were_fetched_before_the_first_tick_follow_unless_they_are_rolled_up(
    automation: Automation, project: Project
) -> None:
    project.fetch(RAW)
    project.roll_up(ROLLUP, days=DAYS[:2])
    assert automation.tick() == {DAYS[2]}
    project.roll_up(ROLLUP)
    assert [automation.tick() for _ in range(2)] == [set(), set()]


def test_a_fetch_that_changed_nothing_requests_nothing_and_a_restatement_its_day(
    automation: Automation, project: Project, service: Service
) -> None:
    project.fetch(RAW)
    automation.tick()
    project.roll_up(ROLLUP)
    automation.tick()
    assert project.fetch(RAW).success
    assert automation.tick() == set()
    service.edited = restated(DAYS[1], INSTANCE_IDS[0])
    project.fetch(RAW)
    assert automation.tick() == {DAYS[1]}
    project.roll_up(ROLLUP, days=[DAYS[1]])
    assert automation.tick() == set()


def test_days_with_a_refused_instance_are_rolled_up_and_again_when_it_heals(
    automation: Automation, project: Project, service: Service
) -> None:
    automation.tick()
    project.run(INSTANCES)
    service.instead = without(INSTANCE_IDS[0])
    assert not project.fetch(RAW).success
    assert automation.tick() == EVERY_DAY
    rolled_up = project.roll_up(ROLLUP)
    assert rolled_up.success
    assert [found["missing_instances"] for found in project.metadata(rolled_up).values()] == [[INSTANCE_IDS[0]]] * 3
    assert automation.tick() == set()
    service.instead = lambda request: None
    assert project.fetch(RAW, instances=[INSTANCE_IDS[0]]).success
    assert automation.tick() == EVERY_DAY


def test_a_rollup_that_fails_is_requested_again_when_its_posts_change(
    automation: Automation, project: Project, service: Service
) -> None:
    project.fetch(RAW)
    assert automation.tick() == EVERY_DAY
    (project.root / ROLLUP).write_bytes(b"a file where a directory is due")
    assert not project.roll_up(ROLLUP).success
    assert [automation.tick() for _ in range(3)] == [set(), set(), set()]
    service.edited = restated(DAYS[0], INSTANCE_IDS[0])
    project.fetch(RAW)
    assert automation.tick() == {DAYS[0]}


@pytest.mark.parametrize("under_way", [ROLLUP, RAW])
def test_a_change_while_a_run_is_under_way_is_requested_when_it_is_over(
    under_way: str, automation: Automation, project: Project, service: Service
) -> None:
    project.fetch(RAW)
    automation.tick()
    project.roll_up(ROLLUP)
    automation.tick()
    service.edited = restated(DAYS[2], INSTANCE_IDS[0])
    if under_way == ROLLUP:
        run = project.start(ROLLUP)
        project.fetch(RAW)
    else:  # the newest run of a day is the one that counts
        project.fetch(RAW)
        run = project.start(RAW)
    assert [automation.tick() for _ in range(2)] == [set(), set()]
    project.instance.report_run_canceled(run)
    assert automation.tick() == {DAYS[2]}
    assert automation.tick() == set()


def test_weeks_and_months_follow_their_days(automation: Automation, project: Project, service: Service) -> None:
    nothing: list[set[date]] = [set(), set(), set()]

    def tick() -> Any:
        return automation.tick(DAILY, WEEKLY, MONTHLY)

    tick()
    project.fetch(METRICS)
    assert tick() == [EVERY_DAY, set(), set()]
    project.roll_up(DAILY)
    assert tick() == [set(), {WEEK}, {MONTH}]
    assert project.roll_up(WEEKLY).success
    assert project.roll_up(MONTHLY).success
    assert tick() == nothing

    assert project.fetch(METRICS).success  # and nothing has changed
    assert tick() == nothing

    service.edited = enlarged
    project.fetch(METRICS, days=DAYS[:1], instances=[INSTANCE_IDS[0]])
    assert tick() == [{DAYS[0]}, set(), set()]
    project.roll_up(DAILY, days=DAYS[:1])
    assert tick() == [set(), {WEEK}, {MONTH}]


# What has no partitions: windows and the dimension follow the posts, the report the rollups.


def test_windows_and_the_dimension_follow_once_whatever_the_number_of_days(
    automation: Automation, project: Project, service: Service
) -> None:
    followers = (*WINDOWS, INSTANCES)
    assert automation.tick_of(*followers) == set()
    project.fetch(RAW)
    assert automation.tick_of(*followers) == set(followers)
    project.roll_up_windows()
    project.run(INSTANCES)
    assert automation.tick_of(*followers) == set()
    project.fetch(RAW)  # and nothing has changed
    assert automation.tick_of(*followers) == set()
    service.edited = restated(DAYS[0], INSTANCE_IDS[0])
    project.fetch(RAW)
    assert automation.tick_of(*followers) == set(followers)


def test_windows_wait_until_nothing_that_brings_posts_is_under_way(automation: Automation, project: Project) -> None:
    """A backfill may be several runs: the tables are made when the last one is over."""
    automation.tick_of(*WINDOWS)
    runs = [project.start(asset) for asset in (METRICS, RAW)]
    project.fetch(RAW, days=DAYS[:1])
    assert automation.tick_of(*WINDOWS) == set()
    project.instance.report_run_canceled(runs[0])
    assert automation.tick_of(*WINDOWS) == set()
    project.instance.report_run_canceled(runs[1])
    assert automation.tick_of(*WINDOWS) == set(WINDOWS)
    assert automation.tick_of(*WINDOWS) == set()


def test_windows_that_fail_are_not_requested_again_and_again(automation: Automation, project: Project) -> None:
    project.fetch(RAW)
    assert automation.tick_of(*WINDOWS) == set(WINDOWS)
    (project.root / "organic_paid_by_creator").write_bytes(b"a file where a directory is due")
    assert not project.roll_up_windows().success
    assert [automation.tick_of(*WINDOWS) for _ in range(3)] == [set(), set(), set()]


def test_the_report_follows_the_rollups_once_for_all_their_days(
    automation: Automation, project: Project, service: Service
) -> None:
    def ticks(count: int) -> list[bool]:
        return [bool(automation.tick_of(REPORT)) for _ in range(count)]

    assert ticks(1) == [False]
    project.fetch(RAW)
    assert ticks(1) == [False]  # what it shows is rolled up first
    project.roll_up(ROLLUP)
    assert ticks(3) == [True, False, False]
    assert project.run(REPORT).success
    project.roll_up(ROLLUP)  # and nothing has changed
    assert ticks(1) == [False]
    service.edited = restated(DAYS[1], INSTANCE_IDS[0])
    project.fetch(RAW)
    # While days are being rolled up it waits.
    run = project.start(ROLLUP, days=DAYS[2:])
    project.roll_up(ROLLUP, days=DAYS[:2])
    assert ticks(2) == [False, False]
    project.instance.report_run_canceled(run)
    assert ticks(2) == [True, False]


def test_the_automation_is_on_by_default(project: Project) -> None:
    sensor = project.defs.resolve_sensor_def("later_automation")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 30
