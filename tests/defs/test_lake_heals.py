"""A lake heals itself: after any sequence of faults, ticks alone make each of its files what it should be."""

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import count, product
from pathlib import Path
from time import monotonic
from typing import Any

import dagster as dg
import msgspec
import pyarrow as pa
import pytest
from hypothesis import Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from starlette.requests import Request

from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.contract.days import days_between, due_day, newest_day
from later_reporting_dagster.defs.assets import raw_tables, rollups
from later_reporting_dagster.defs.events import day_materialization, partition_materialization, table_result
from later_reporting_dagster.defs.partitions import RANGE_START_TAG, range_tags
from later_reporting_dagster.ingest.daily_files import DailyFiles
from later_reporting_dagster.ingest.decide import Received
from later_reporting_dagster.ingest.slice_writer import SliceWriter
from later_reporting_dagster.lake import POSTS_SCHEMA, FileDamaged, Lake, LakeUnavailable, Partition, partition_path
from later_reporting_dagster.lake.coverage import COVERAGE_SCHEMA, RunRecords, read_records, record_files
from later_reporting_dagster.lake.parquet_file import content_hash_of, from_parquet, parse_metadata, to_parquet
from later_reporting_dagster.lake.paths import table_path
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, schema_of
from later_reporting_dagster.quality.outdated import describe_outdated, outdated
from later_reporting_dagster.report.report_data import REPORT, REPORT_PATH
from later_reporting_dagster.rollups.lake_rollups import roll_up_lake_periods, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import BY_CREATOR, DAILY, WEEKLY, first_day_of
from later_reporting_dagster.server.sandbox import World, create_app, running_server
from tests.conftest import FIRST_DAY, NO_RATE_LIMIT, Service, files, parameters, sandbox_settings
from tests.defs.conftest import RAW_ASSETS, Project, assert_success, current_definitions, list_instances
from tests.lake.conftest import SPOIL

NOW = datetime(2024, 3, 5, 13, tzinfo=UTC)
DAYS = days_between(FIRST_DAY, newest_day(NOW))
INSTANCES = ("instance_000", "007", "Zoë 😀 %2F")
WORLD = World(
    first_day=date(2024, 2, 28),
    last_day=date(2024, 3, 31),
    seed=25,
    instances=1,
    posts_per_day=3,
    extra_instance_ids=INSTANCES[1:],
)
# The window table reads both raw tables.
PERIODS, WINDOW = (DAILY, WEEKLY), BY_CREATOR
ROLLUPS = {table.name: table for table in (*PERIODS, WINDOW)}
# What has no partitions, besides the window table.
SINGLE = ("instances", "coverage", REPORT)
SENSORS = ("later_missing_files", "later_rollups")
# For how long a run that is paused waits to be resumed.
PATIENCE_SECONDS = 120
# After the last fault, each sensor has at most so many ticks: one an hour, then two a day.
HOURLY_ROUNDS, MOST_ROUNDS = 24, 40


class Clock:
    """The clock of the package and of Dagster. It goes on, and can be set."""

    def set(self, now: datetime) -> None:
        self._offset = now.timestamp() - monotonic()

    def advance(self, hours: float) -> None:
        self._offset += hours * 3600

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp(), UTC)

    def timestamp(self) -> float:
        return monotonic() + self._offset


class Restated:
    """What the server returns: the impressions of posts say which restatement of their partition they are of."""

    def __init__(self) -> None:
        self._newest = 0
        self._numbers: dict[tuple[str, str, str], int] = {}

    def restate(self, table: str, day: date, instance_id: str) -> None:
        self._newest += 1
        self._numbers[table, str(day), instance_id] = self._newest

    def transform(self, request: Request, document: Any) -> Any:
        query = parameters(request)
        published = query["dateBasis"] == ["post_date"]
        for post in document["data"]:
            day = (post["postDate"] if published else query["startDate"][0])[:10]
            key = ("posts_published" if published else "post_metrics_daily", day, post["instanceId"])
            post["impressions"] = 1_000_000 + self._numbers.get(key, 0)
        return document


def number_of(rows: pa.Table) -> int:
    """Return the number of the restatement that rows are of; 0 without rows."""
    numbers = {*rows["impressions"].to_pylist()}
    assert len(numbers) <= 1
    return max(numbers, default=1_000_000) - 1_000_000


class Killed(Exception):  # noqa: N818 - no error
    """The run was killed."""


# Where runs are killed and paused.
FETCH_POINTS = RECEIVED, WRITTEN, RECORDED = "response received", "raw file written", "response recorded"
FOLLOWING_POINTS = COMPUTED, FOLLOWED = "table or report made", "rollup written"


@dataclass(eq=False)
class Fault:
    """A run is killed when it comes to a point, or waits there until it is resumed."""

    point: str
    kills: bool
    reached: threading.Event = field(default_factory=threading.Event, repr=False)
    resumed: threading.Event = field(default_factory=threading.Event, repr=False)

    def hit(self) -> None:
        self.reached.set()
        assert self.kills or self.resumed.wait(PATIENCE_SECONDS)
        if self.kills:
            raise Killed


# Of the current run. AnyIO passes it on to the threads of the run.
FAULT: ContextVar[Fault | None] = ContextVar("FAULT", default=None)


def reach(point: str) -> None:
    if (fault := FAULT.get()) and fault.point == point:
        fault.hit()


def install_points(patch: pytest.MonkeyPatch) -> None:
    """Let runs come to the points."""

    def reaching(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            reach(point)
            return function(*arguments, **options)

        return called

    def save_unless_killed(records: RunRecords) -> None:
        if not ((fault := FAULT.get()) and fault.kills and fault.reached.is_set()):
            save(records)

    save = RunRecords.save
    patch.setattr(RunRecords, "save", save_unless_killed)
    patch.setattr(RunRecords, "add", reaching(WRITTEN, RunRecords.add))
    patch.setattr(SliceWriter, "_write_batch", reaching(RECEIVED, SliceWriter._write_batch))
    patch.setattr(raw_tables, "day_materialization", reaching(RECORDED, day_materialization))
    for name in ("write", "write_table", "write_file"):  # of rollups and dimensions, and of the report
        patch.setattr(Lake, name, reaching(COMPUTED, getattr(Lake, name)))
    patch.setattr(rollups, "partition_materialization", reaching(FOLLOWED, partition_materialization))
    patch.setattr(rollups, "table_result", reaching(FOLLOWED, table_result))


Run = Callable[[], dg.ExecuteInProcessResult]


def execute(run: Run) -> None:
    failures = [event.step_failure_data for event in run().all_events if event.is_step_failure]
    if failures:
        note(f"failed: {[each.error_display_string[:300] for each in failures]}")


@dataclass
class Ticks:
    """Evaluates sensors with their cursors as the daemon does, and launches what they request."""

    project: Project
    launch: Callable[[Run], object] = lambda run: run()
    cursors: Mapping[str, str | None] = field(default_factory=dict)

    def all(self) -> list[str]:
        return [each for name in SENSORS for each in self.sensor(name)]

    def sensor(self, name: str) -> list[str]:
        """Return what is requested."""
        data = self.project.sensor(name, cursor=self.cursors.get(name))
        self.cursors = {**self.cursors, name: data.cursor}
        requested = []
        for event in data.asset_events:
            self.project.instance.report_runless_asset_event(event)
        for request in data.run_requests or []:
            assets = [key.path[-1] for key in request.asset_selection or ()]
            what = ", ".join(assets) or str(request.job_name)
            requested.append(f"{what} {request.tags.get(RANGE_START_TAG, '')} by {name}")
            self.launch(partial(self.project.execute, request))
        return requested


@dataclass
class Environment:
    """What all sequences begin with.

    Attributes:
        folder: has a lake that is current, and the `DAGSTER_HOME` of its runs.
        ticks: of these runs.
        numbers: which restatement rows are of, by their hash.
    """

    folder: Path
    clock: Clock
    service: Service
    ticks: Ticks
    numbers: dict[str, int]


ways = st.sampled_from([*SPOIL])
days = st.sampled_from(DAYS)
spans = st.tuples(days, days).map(sorted)
instance_ids = st.sampled_from(INSTANCES)
raw_names = st.sampled_from(RAW_ASSETS)


def faults(*points: str) -> st.SearchStrategy[Fault | None]:
    return st.none() | st.builds(Fault, st.sampled_from(points), kills=st.booleans())


class LakeWithFaults(RuleBasedStateMachine):
    """A lake, its Dagster instance and a server, and what happens to them.

    Attributes:
        held: which restatement the file of a raw partition is of, if it was not lost since.
        recorded: the newest restatement of a raw partition that a run has recorded.
        obstacles: directories in place of files.
    """

    def __init__(self, environment: Environment, folder: Path, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.clock, self.service, self.numbers = environment.clock, environment.service, environment.numbers
        self.clock.set(NOW + timedelta(hours=1))
        self.restated = Restated()
        self.service.override, self.service.transform = lambda request: None, self.restated.transform
        shutil.copytree(environment.folder, folder)
        patch.setenv("LATER_LAKE_ROOT", str(folder / "lake"))
        patch.setenv("DAGSTER_HOME", str(folder / "home"))
        self.folder = folder
        self.project = Project(current_definitions(), dg.DagsterInstance.get(), folder / "lake")
        self.lake = self.project.lake
        self.ticks = replace(environment.ticks, project=self.project, launch=self.launch)
        self.fault: Fault | None = None
        self.paused: tuple[Fault, threading.Thread] | None = None
        self.held: dict[tuple[str, Partition], int] = {}
        self.recorded: dict[tuple[str, Partition], int] = {}
        self.obstacles: list[Path] = []

    # Runs

    def launch(self, run: Run) -> None:
        """Execute a run with the current fault. Only one run is paused at a time."""
        fault = self.fault
        if fault is None or (not fault.kills and self.paused):
            execute(run)
            return
        token = FAULT.set(fault)
        if fault.kills:
            execute(run)
        else:
            thread = threading.Thread(target=copy_context().run, args=(run,))
            thread.start()
            while thread.is_alive() and not fault.reached.wait(0.01):
                pass
            if fault.reached.is_set():
                self.paused = fault, thread
        FAULT.reset(token)

    def launch_with(self, fault: Fault | None, run: Run) -> None:
        self.fault = fault
        self.launch(run)
        self.fault = None

    @rule(tables=st.sampled_from([RAW_ASSETS, *((name,) for name in RAW_ASSETS)]), span=spans,
          only_missing=st.booleans(), fault=faults(*FETCH_POINTS))  # fmt: skip
    def fetch(self, tables: Sequence[str], span: Sequence[date], only_missing: bool, fault: Fault | None) -> None:
        run = partial(self.project.run, *tables, tags=range_tags(*span), config={"only_missing": only_missing})
        self.launch_with(fault, run)

    @rule(name=st.sampled_from([table.name for table in PERIODS]), span=spans, fault=faults(*FOLLOWING_POINTS))
    def roll_up(self, name: str, span: Sequence[date], fault: Fault | None) -> None:
        table = ROLLUPS[name]
        self.launch_with(fault, partial(self.project.run, table.name, tags=range_tags(*span, period=table.cadence)))

    @rule(name=st.sampled_from([WINDOW.name, *SINGLE]), fault=faults(*FOLLOWING_POINTS))
    def materialize(self, name: str, fault: Fault | None) -> None:
        self.launch_with(fault, partial(self.project.run, name))

    @precondition(lambda self: self.paused is not None)
    @rule(kills=st.booleans())
    def resume(self, kills: bool) -> None:
        assert self.paused
        fault, thread = self.paused
        self.paused, fault.kills = None, kills
        fault.resumed.set()
        thread.join()

    @precondition(lambda self: self.paused is not None)
    @rule()
    def overtake(self) -> None:
        """Let another run fetch newer posts than the one that is paused."""
        for key in product(RAW_ASSETS, DAYS, INSTANCES):
            self.restated.restate(*key)
        self.launch(partial(self.project.run, *RAW_ASSETS, tags=range_tags(DAYS[0], DAYS[-1])))

    # Ticks

    @rule(sensor=st.sampled_from(SENSORS), fault=faults(*FETCH_POINTS, *FOLLOWING_POINTS))
    def tick(self, sensor: str, fault: Fault | None) -> None:
        self.fault = fault
        try:
            note(f"requested: {self.ticks.sensor(sensor)}")
        except dg.DagsterError:
            # The daemon records a failed tick, and goes on.
            assert self.obstacles
        finally:
            self.fault = None

    @rule(hours=st.sampled_from([0.1, 1, 1, 3, 12]))
    def wait(self, hours: float) -> None:
        self.clock.advance(hours)

    # Faults and changes

    @rule(table=raw_names, span=spans, instance_id=instance_ids)
    def restate(self, table: str, span: Sequence[date], instance_id: str) -> None:
        for day in days_between(*span):
            self.restated.restate(table, day, instance_id)

    @rule(table=raw_names, day=days, chosen=st.sets(instance_ids, min_size=1), way=ways)
    def spoil_raw_files(self, table: str, day: date, chosen: set[str], way: str) -> None:
        for instance_id in sorted(chosen):
            file = Partition(day, instance_id)
            self.spoil(partition_path(table, file), way)
            self.held.pop((table, file), None)

    @rule(name=st.sampled_from([table.name for table in PERIODS]), day=days, way=ways)
    def spoil_rollup(self, name: str, day: date, way: str) -> None:
        table = ROLLUPS[name]
        self.spoil(partition_path(table.name, Partition(first_day_of(table.cadence, day))), way)

    @rule(path=st.sampled_from([REPORT_PATH, *map(table_path, (WINDOW.name, "instances", "coverage"))]), way=ways)
    def spoil_table(self, path: str, way: str) -> None:
        self.spoil(path, way)

    def spoil(self, name: str, way: str) -> None:
        path = self.project.root / name
        if path.is_file():
            SPOIL[way](path)
            if path.is_dir():
                self.obstacles.append(path)

    @precondition(lambda self: bool(self.obstacles))
    @rule()
    def remove_obstacles(self) -> None:
        for path in self.obstacles:
            path.rmdir()
        self.obstacles.clear()

    @rule(name=st.sampled_from([*ROLLUPS]), is_recorded=st.booleans())
    def downgrade(self, name: str, is_recorded: bool) -> None:
        """Replace a table by what an older release made of the same files; before 1.0, it did not record that."""
        table, lake = ROLLUPS[name], self.lake
        schema = schema_of(table.columns)
        paths = [partition_path(table.name, file) for file in lake.partitions(table.name)] or [table_path(table.name)]
        for path in paths:
            with suppress(FileDamaged, LakeUnavailable):
                if data := lake.storage.read(path):
                    made_from = parse_metadata(data).made_from
                    older = {} if made_from is None else msgspec.structs.replace(made_from, definition=0).key_values
                    rows = from_parquet(data, schema=schema).slice(1)
                    key_values = older if is_recorded else {}
                    file = to_parquet(rows, content_hash=content_hash_of(rows), key_values=key_values)
                    lake.storage.write(path, file)

    @rule(instance_id=instance_ids, undo=st.booleans())
    def retire(self, instance_id: str, undo: bool) -> None:
        (self.lake.retired.remove if undo else self.lake.retired.add)(instance_id)

    @rule(listed=st.sets(instance_ids, min_size=1))
    def change_listing(self, listed: set[str]) -> None:
        self.service.override = list_instances(*sorted(listed))

    # What has to hold

    @invariant()
    def no_file_is_replaced_by_an_older_response(self) -> None:
        for table in RAW_ASSETS:
            for file in self.lake.partitions(table):
                if (number := stored_number(self.lake, table, file)) is not None:
                    assert number >= self.held.get((table, file), 0), f"{table} {file}"
                    self.held[table, file] = number
            for record in read_records(self.lake, record_files(self.lake, table)):
                if record.content_hash:
                    key = table, record.partition
                    self.recorded[key] = max(self.recorded.get(key, 0), self.numbers[record.content_hash])

    def teardown(self) -> None:
        try:
            self.heal()
        finally:
            if self.paused:
                self.resume(kills=True)
            self.project.instance.dispose()
            shutil.rmtree(self.folder)

    def heal(self) -> None:
        if self.paused:
            self.resume(kills=False)
        self.remove_obstacles()
        self.service.override = lambda request: None
        for number in range(MOST_ROUNDS):
            self.clock.advance(1 if number < HOURLY_ROUNDS else 12)
            requested = self.ticks.all()
            self.no_file_is_replaced_by_an_older_response()
            note(f"round {number}: {requested}")
            if not requested and not [*self.wrong()]:
                break
        else:
            pytest.fail(f"after {MOST_ROUNDS} rounds: requested {requested}, wrong {[*self.wrong()]}")
        before = files(self.project.root)
        assert not [*self.ticks.all(), *self.ticks.all(), *self.ticks.all()]
        assert files(self.project.root) == before
        self.assert_nothing_changes()

    def wrong(self) -> Iterator[str]:
        """Yield what is not as it should be."""
        now, lake = self.clock.now(), self.lake
        marks = lake.retired.marks()
        expected_days = days_between(FIRST_DAY, due_day(now, due_hour_utc=12))
        for table, day, instance_id in product(RAW_ASSETS, expected_days, sorted(marks.in_numbers(INSTANCES))):
            file = Partition(day, instance_id)
            number = stored_number(lake, table, file)
            if number is None or number < self.recorded.get((table, file), 0):
                yield f"{table} {file} has {number}, not {self.recorded.get((table, file))}"
        newest = newest_day(now)
        found = outdated(lake, [*ROLLUPS.values()], start_date=FIRST_DAY, newest_day=newest, with_report=True)
        if found:
            yield describe_outdated(found)
        else:
            yield from self.different_from_scratch()

    def different_from_scratch(self) -> Iterator[str]:
        scratch = Lake(str(self.folder / "scratch"))
        for name in (*RAW_ASSETS, "_retired"):
            if (self.project.root / name).exists():
                shutil.copytree(self.project.root / name, self.folder / "scratch" / name)
        for table in PERIODS:
            all_days = [*dict.fromkeys(each.day for each in scratch.partitions(POST_METRICS_DAILY.name))]
            first_days = [*dict.fromkeys(first_day_of(table.cadence, day) for day in all_days)]
            stored = [each.day for each in self.lake.partitions(table.name)]
            if stored != first_days:
                yield f"{table.name} has {stored}, not {first_days}"
            for rollup in roll_up_lake_periods(scratch, table, first_days, memory_gb=1):
                rows = self.lake.read(table.name, [Partition(rollup.first_day)], schema=schema_of(table.columns))
                if rows != rollup.rows:
                    yield f"{table.name} of {rollup.first_day} is different"
        windows = roll_up_lake_windows(scratch, [WINDOW], memory_gb=1)
        if self.lake.read_table(WINDOW.name, schema=schema_of(WINDOW.columns)) != windows.tables[WINDOW.name]:
            yield f"{WINDOW.name} is different"
        shutil.rmtree(self.folder / "scratch")

    def assert_nothing_changes(self) -> None:
        """Assert that `coverage`, but for times of requests, and the report are what they would be if made again."""

        def made() -> tuple[pa.Table | None, bytes | None]:
            coverage = self.lake.read_table("coverage", schema=COVERAGE_SCHEMA.remove(requested_at))
            return coverage, self.lake.storage.read(REPORT_PATH)

        requested_at = COVERAGE_SCHEMA.get_field_index("requested_at")
        before = made()
        for name in ("coverage", REPORT):
            assert_success(self.project.run(name))
        assert made() == before


def stored_number(lake: Lake, table: str, file: Partition) -> int | None:
    """Return which restatement a file is of; None if it is missing or damaged."""
    try:
        rows = lake.read_table(table, file, schema=POSTS_SCHEMA)
    except (FileDamaged, LakeUnavailable):
        return None
    return None if rows is None else number_of(rows)


@pytest.fixture(scope="module")
def world() -> Iterator[Service]:
    service = Service(app=create_app(WORLD, options=NO_RATE_LIMIT))
    with running_server(service) as service.base_url:
        yield service


@pytest.fixture
def environment(
    world: Service, prepared_dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Environment:
    folder, clock, numbers = tmp_path / "prepared", Clock(), dict[str, int]()
    clock.set(NOW)
    monkeypatch.setattr("dagster._time._mockable_get_current_datetime", clock.now)
    monkeypatch.setattr("dagster._time._mockable_get_current_timestamp", clock.timestamp)
    for module in ("defs.component_base", "defs.runs", "ingest.slice_writer"):
        monkeypatch.setattr(f"later_reporting_dagster.{module}.utc_now", clock.now)
    monkeypatch.setitem(LaterClient.__init__.__kwdefaults__, "clock", clock.timestamp)
    install_points(monkeypatch)
    store = DailyFiles.store

    def noting_numbers(daily_files: DailyFiles, received: Mapping[Partition, Received], *arguments: Any) -> Any:
        numbers.update({content_hash_of(each.rows): number_of(each.rows) for each in received.values()})
        return store(daily_files, received, *arguments)

    monkeypatch.setattr(DailyFiles, "store", noting_numbers)
    tables = ",".join((*RAW_ASSETS, *ROLLUPS, *SINGLE))
    home = shutil.copytree(prepared_dagster_home, folder / "home")
    settings = sandbox_settings(world.base_url, lake_root=str(folder / "lake"))
    for name, value in {**settings, "LATER_TABLES": tables, "DAGSTER_HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    world.transform = Restated().transform
    with dg.DagsterInstance.get() as instance:
        ticks = Ticks(Project(current_definitions(), instance, folder / "lake"))
        while ticks.all():  # until nothing is left to do
            clock.advance(1)
    return Environment(folder, clock, world, ticks, numbers)


def test_lake_is_as_if_made_from_scratch_after_faults_and_ticks(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = count()
    run_state_machine_as_test(
        lambda: LakeWithFaults(environment, tmp_path / str(next(numbers)), monkeypatch),
        # A sequence takes some seconds, so a shorter one would take minutes to find.
        settings=settings(max_examples=settings().max_examples // 12, stateful_step_count=12, phases=[Phase.generate]),
    )
