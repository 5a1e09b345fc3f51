"""The sensor that reads the lake: what a run has not rolled up is requested again, without a person."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy

from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.partitions import selected_range
from later_reporting_dagster.defs.runs import MAX_BLOCKS, runs_of
from later_reporting_dagster.lake import Partition
from later_reporting_dagster.quality.outdated import Outdated
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN, DAILY, OVERALL
from tests.conftest import INSTANCE_IDS, Service
from tests.defs.conftest import DAYS, Project, assert_success, fill_once, restate_one_post
from tests.services import postgres_storage, running_postgres

RAW, ROLLUP, WINDOW, REPORT = "post_metrics_daily", DAILY.name, OVERALL.name, "organic_paid_report"
OTHER_WINDOW = BY_CAMPAIGN.name
ALL_DAYS = (DAYS[0], DAYS[-1])
WINDOWS = {WINDOW: None, OTHER_WINDOW: None}
Requests = dict[str, tuple[date, date] | None]


@dataclass
class Sensor:
    """Evaluates the sensor some minutes after the last run, as the daemon does."""

    project: Project
    clock: pytest.MonkeyPatch
    launched: list[dg.RunRequest] = field(default_factory=list)

    def tick(self, *, minutes: float = 6) -> Requests:
        """Return the range of partitions that is requested of each asset, None for an asset without partitions."""
        now = datetime.now(UTC) + timedelta(minutes=minutes)
        self.clock.setattr("later_reporting_dagster.defs.runs.utc_now", lambda: now)
        data = self.project.sensor("later_outdated")
        assert data.cursor is None
        self.launched = [*(data.run_requests or [])]
        requests: Requests = {}
        for request in self.launched:
            assert request.run_key is None
            for key in request.asset_selection or ():
                requests[key.path[-1]] = selected_range(request.tags)
        return requests

    def run(self) -> list[Requests]:
        """Tick, and run what is requested, until nothing is left; return what each tick has requested."""
        requested = []
        while requests := self.tick():
            requested.append(requests)
            for request in self.launched:
                assert_success(self.project.execute(request))
        return requested


@pytest.fixture
def settings(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of all tests, with one or two tables of each kind."""
    monkeypatch.setenv("LATER_TABLES", f"{RAW},{ROLLUP},{WINDOW},{OTHER_WINDOW},{REPORT}")


@pytest.fixture
def sensor(project: Project, module_lake: Path, monkeypatch: pytest.MonkeyPatch) -> Sensor:
    """The sensor, for a lake whose rollups and report are current."""

    def fill(project: Project) -> bool:
        made = [project.fetch(RAW), project.roll_up(ROLLUP), project.run(WINDOW, OTHER_WINDOW), project.run(REPORT)]
        return all(result.success for result in made)

    sensor = Sensor(fill_once(project, module_lake, fill), monkeypatch)
    assert sensor.tick() == {}
    return sensor


def restate(sensor: Sensor, service: Service) -> None:
    service.transform = restate_one_post(DAYS[-1], INSTANCE_IDS[0])
    assert_success(sensor.project.fetch(RAW))


def test_restated_day_is_left_to_the_condition_for_five_minutes_and_the_report_comes_last(
    sensor: Sensor, service: Service
) -> None:
    restate(sensor, service)
    assert sensor.tick(minutes=4) == {}
    assert sensor.run() == [{ROLLUP: (DAYS[-1], DAYS[-1]), **WINDOWS}, {REPORT: None}]
    restate(sensor, service)
    for made in (sensor.project.roll_up(ROLLUP), sensor.project.run(WINDOW, OTHER_WINDOW), sensor.project.run(REPORT)):
        assert_success(made)
    assert sensor.tick() == {}


def test_rollup_that_always_fails_is_requested_once_an_hour_and_three_times_a_day(
    sensor: Sensor, service: Service
) -> None:
    restate(sensor, service)
    requested, failing = [], {ROLLUP, WINDOW}
    for hour in range(29):
        requested.append({*sensor.tick(minutes=60 * hour + 6)})
        for request in sensor.launched:
            names = {key.path[-1] for key in request.asset_selection or ()}
            if names & failing:
                sensor.project.record(request)
            if names - failing:  # also beside one that fails
                assert_success(sensor.project.run(*names - failing))
    assert {hour: names for hour, names in enumerate(requested) if names} == {
        0: {ROLLUP, WINDOW, OTHER_WINDOW},
        **dict.fromkeys([1, 2], failing),
        3: {REPORT},  # which does not wait for what cannot be made today
        **dict.fromkeys([24, 25, 26], failing),
    }
    # From other files, it is another request.
    service.transform = restate_one_post(DAYS[0], INSTANCE_IDS[0])
    assert_success(sensor.project.fetch(RAW))
    assert sensor.tick(minutes=60 * 29.5)[ROLLUP] == ALL_DAYS


@pytest.mark.services
@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/Los_Angeles"])
def test_time_zone_of_postgresql_shifts_no_wait(zone: str, sensor: Sensor, tmp_path: Path) -> None:
    Path(sensor.project.lake.url(ROLLUP, Partition(DAYS[0]))).unlink()
    with running_postgres() as url:
        engine = sqlalchemy.create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(f"ALTER DATABASE dagster SET TimeZone = '{zone}'"))
        engine.dispose()
        (tmp_path / "dagster.yaml").write_text(postgres_storage(url))
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            sensor.project = replace(sensor.project, instance=instance)
            instance.report_run_failed(sensor.project.start(RAW))
            assert [ROLLUP in sensor.tick(minutes=minutes) for minutes in (4, 6)] == [False, True]
            sensor.project.record(sensor.launched[0])
            assert [ROLLUP in sensor.tick(minutes=minutes) for minutes in (7, 59, 70)] == [False, False, True]


@pytest.mark.parametrize("asset", [ROLLUP, RAW])
def test_nothing_is_requested_while_a_run_is_in_progress_unless_it_is_dead(
    asset: str, sensor: Sensor, service: Service
) -> None:
    restate(sensor, service)
    run = sensor.project.start(asset)
    sensor.project.instance.report_engine_event("it works", run)
    assert ROLLUP not in sensor.tick()
    assert ROLLUP not in sensor.tick(minutes=59)
    assert ROLLUP in sensor.tick(minutes=61)


def test_nothing_is_requested_of_an_empty_lake(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Sensor(project, monkeypatch).tick() == {}


def test_metric_that_is_requested_now_makes_rollups_outdated(sensor: Sensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_METRICS", "impressions,engagements,likes")
    sensor.project = sensor.project.reloaded()
    assert sensor.run()[0] == {ROLLUP: ALL_DAYS, **WINDOWS}
    monkeypatch.setenv("LATER_METRICS", "impressions,engagements")
    sensor.project = sensor.project.reloaded()
    assert sensor.run() == []


@pytest.mark.parametrize(
    ("days", "runs"), [([1, 2, 5], [(1, 2), (5, 5)]), ([*range(1, 2 * MAX_BLOCKS + 2, 2)], [(1, 2 * MAX_BLOCKS + 1)])]
)
def test_run_has_neighbouring_partitions_or_all_between_if_there_are_many_gaps(
    days: Sequence[int], runs: list[tuple[int, int]]
) -> None:
    files = [Outdated(ROLLUP, date(2024, 1, day), "missing", "") for day in days]
    settings = ComponentBase(start_date=date(2024, 1, 1))
    requested = [selected_range(tags) for _, tags in runs_of(files, settings)]
    assert requested == [(date(2024, 1, first), date(2024, 1, last)) for first, last in runs]
