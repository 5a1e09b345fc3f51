"""The sensor that reads the lake: what a run has not rolled up is requested again, without a person."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from later_reporting_dagster.defs import sensors
from later_reporting_dagster.defs.assets import posts
from later_reporting_dagster.defs.partitions import MAX_BLOCKS, runs_of, selected_range
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import Partition
from later_reporting_dagster.quality.attempts import parse_cursor
from later_reporting_dagster.quality.outdated import MAX_REQUESTS, Outdated
from later_reporting_dagster.rollups.rollup_tables import DAILY, OVERALL
from tests.conftest import INSTANCE_IDS, Service
from tests.defs.conftest import DAYS, Project, assert_success, fill_once, freeze_clock, restate_one_post
from tests.services import wait_until

RAW, ROLLUP, WINDOW, REPORT = "post_metrics_daily", DAILY.name, OVERALL.name, "organic_paid_report"
ALL_DAYS = (DAYS[0], DAYS[-1])
Requests = dict[str, tuple[date, date] | None]


@dataclass
class Sensor:
    """Evaluates the sensor every five minutes, as the daemon does."""

    project: Project
    clock: pytest.MonkeyPatch
    now: datetime
    cursor: str | None = None

    def tick(self) -> Requests:
        """Return the range of partitions that is requested of each asset, None for an asset without partitions."""
        self.now += timedelta(minutes=5)
        freeze_clock(self.clock, self.now)
        with dg.build_sensor_context(
            instance=self.project.instance,
            definitions=self.project.defs,
            resources={"later_reporting": LaterReportingResource.from_environment()},
            cursor=self.cursor,
        ) as context:
            data = self.project.defs.resolve_sensor_def("later_outdated").evaluate_tick(context)
        self.cursor = data.cursor
        requests: Requests = {}
        for request in data.run_requests or []:
            assert request.run_key is None
            for key in request.asset_selection or ():
                requests[key.path[-1]] = selected_range(request.tags)
        return requests

    def run(self) -> list[Requests]:
        """Tick, and run what is requested, until nothing is left; return what each tick has requested."""
        requested = []
        for _ in range(10):
            requests = self.tick()
            requested.append(requests)
            for asset, days in requests.items():
                result = self.project.roll_up(asset, days=days) if days else self.project.run(asset)
                assert_success(result)
            if not parse_cursor(self.cursor).attempts:
                return requested
        raise AssertionError(requested)


@pytest.fixture
def settings(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of all tests, with one table of each kind."""
    monkeypatch.setenv("LATER_TABLES", f"{RAW},{ROLLUP},{WINDOW},{REPORT}")


@pytest.fixture
def sensor(project: Project, module_lake: Path, monkeypatch: pytest.MonkeyPatch) -> Sensor:
    """The sensor, for a lake whose rollups and report are current."""

    def fill(project: Project) -> bool:
        made = [project.fetch(RAW), project.roll_up(ROLLUP), project.run(WINDOW), project.run(REPORT)]
        return all(result.success for result in made)

    sensor = Sensor(fill_once(project, module_lake, fill), monkeypatch, now=datetime(2024, 3, 4, 13, tzinfo=UTC))
    assert [sensor.tick() for _ in range(2)] == [{}, {}]
    return sensor


def restate(sensor: Sensor, service: Service) -> None:
    service.transform = restate_one_post(DAYS[-1], INSTANCE_IDS[0])
    assert_success(sensor.project.fetch(RAW))


def test_restated_day_is_left_to_the_condition_for_one_tick_and_the_report_comes_last(
    sensor: Sensor, service: Service
) -> None:
    restate(sensor, service)
    of_day = {ROLLUP: (DAYS[-1], DAYS[-1]), WINDOW: None}
    assert sensor.run() == [{}, of_day, {}, {REPORT: None}, {}]
    restate(sensor, service)
    assert sensor.tick() == {}
    for made in (sensor.project.roll_up(ROLLUP), sensor.project.run(WINDOW), sensor.project.run(REPORT)):
        assert_success(made)
    assert [sensor.tick() for _ in range(2)] == [{}, {}]


def test_rollup_that_cannot_be_written_is_repeated_and_heals_once_it_can(sensor: Sensor, service: Service) -> None:
    path = Path(sensor.project.lake.url(ROLLUP, Partition(DAYS[-1])))
    path.unlink()
    path.mkdir()
    restate(sensor, service)
    assert sensor.tick() == {}
    for _ in range(2):
        assert ROLLUP in sensor.tick()
        assert not sensor.project.roll_up(ROLLUP).success
        assert ROLLUP not in sensor.tick()
    path.rmdir()
    assert (DAYS[-1], DAYS[-1]) in [requests.get(ROLLUP) for requests in sensor.run()]


def test_restated_files_of_a_killed_fetch_are_rolled_up(
    sensor: Sensor, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed between writing files and logging their days, so no event tells that they changed."""

    restated, lake = Partition(DAYS[-1], INSTANCE_IDS[0]), sensor.project.lake
    before = lake.file_versions(RAW)[restated]

    def kill(*_: Any, **__: Any) -> None:
        wait_until("the restated file", lambda: lake.file_versions(RAW)[restated] != before)
        raise KeyboardInterrupt

    service.transform = restate_one_post(DAYS[-1], INSTANCE_IDS[0])
    with monkeypatch.context() as killed:
        killed.setattr(posts, "day_materialization", kill)
        assert not sensor.project.fetch(RAW).success
    assert sensor.run()[1] == {ROLLUP: (DAYS[-1], DAYS[-1]), WINDOW: None}


def test_rollup_is_requested_five_times_from_the_same_files_with_growing_waits(
    sensor: Sensor, service: Service
) -> None:
    restate(sensor, service)
    requested = [ROLLUP in sensor.tick() for _ in range(50)]
    assert [tick for tick, is_requested in enumerate(requested) if is_requested] == [1, 3, 7, 14, 27]
    assert requested.count(True) == MAX_REQUESTS
    service.transform = restate_one_post(DAYS[0], INSTANCE_IDS[0])
    assert_success(sensor.project.fetch(RAW))
    assert [ROLLUP in sensor.tick() for _ in range(2)] == [False, True]


@pytest.mark.parametrize("asset", [ROLLUP, RAW])
def test_nothing_is_requested_while_a_run_is_in_progress_unless_it_is_dead(
    asset: str, sensor: Sensor, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    restate(sensor, service)
    run = sensor.project.start(asset)
    sensor.project.instance.report_engine_event("it works", run)
    assert ROLLUP not in [*sensor.tick(), *sensor.tick(), *sensor.tick()]
    monkeypatch.setattr(sensors, "DEAD_AFTER_SECONDS", -60)
    assert ROLLUP in sensor.tick()
    monkeypatch.undo()


def test_metric_that_is_requested_now_makes_rollups_outdated(sensor: Sensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_METRICS", "impressions,engagements,likes")
    sensor.project = sensor.project.reloaded()
    assert sensor.run()[1] == {ROLLUP: ALL_DAYS, WINDOW: None}
    monkeypatch.setenv("LATER_METRICS", "impressions,engagements")
    sensor.project = sensor.project.reloaded()
    assert sensor.run() == [{}]


@pytest.mark.parametrize(
    ("days", "runs"), [([1, 2, 5], [(1, 2), (5, 5)]), ([*range(1, 2 * MAX_BLOCKS + 2, 2)], [(1, 2 * MAX_BLOCKS + 1)])]
)
def test_run_has_neighbouring_partitions_or_all_between_if_there_are_many_gaps(
    days: Sequence[int], runs: list[tuple[int, int]]
) -> None:
    files = [Outdated(ROLLUP, date(2024, 1, day), "missing", "") for day in days]
    requested = [selected_range(tags) for _, tags in runs_of(files, date(2024, 1, 1))]
    assert requested == [(date(2024, 1, first), date(2024, 1, last)) for first, last in runs]
