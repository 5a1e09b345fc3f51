"""Break a lake under a running daemon, and wait until it has healed.

The sensors tick every few seconds, so runs take as long as several ticks; with the real intervals, a tick rarely finds
a run in progress. So only ticks that find none are counted, and those that request something.
"""

import json
import math
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pyarrow as pa
from dagster._core.scheduler.instigation import InstigatorTick, InstigatorType, TickStatus
from dagster._core.storage.tags import BACKFILL_ID_TAG

from later_reporting_dagster.cli.demo import DAGSTER_YAML
from later_reporting_dagster.defs.partitions import selected_range
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition, schema_of
from later_reporting_dagster.lake.coverage import intact_files
from later_reporting_dagster.quality.missing_files import missing_files
from later_reporting_dagster.quality.outdated import outdated
from later_reporting_dagster.rollups.lake_rollups import roll_up_lake_periods, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import DAILY, OVERALL, RollupTable
from tests.crash.restated_sandbox import NO_RESPONSE, more_impressions
from tests.defs.conftest import list_instances
from tests.e2e.dagster_dev import INSTANCES, DagsterDev, running_dagster, running_process
from tests.services import wait_until

MODULE = "tests.e2e.recovery_definitions"
RAW, COVERAGE, REPORT = "post_metrics_daily", "coverage", "organic_paid_report"
ROLLUPS = (DAILY, OVERALL)
# One asset of each kind, because each run is a process that takes seconds.
ASSETS = (RAW, COVERAGE, *(table.name for table in ROLLUPS), REPORT)
# Of jobs whose runs do not name assets.
JOBS = {"later_posts": {RAW}, "later_coverage": {COVERAGE}}
SENSORS = BY_API, OF_ROLLUPS = ("later_missing_files", "later_rollups")
# The longest that a tick can take: then Dagster ends it.
TICK_SECONDS = 60.0


@dataclass(frozen=True)
class Run:
    """A run, with the times of its request and of its end.

    Attributes:
        makes_outdated: whether it makes all that is outdated of its assets, and not only its days.
    """

    run_id: str
    status: dg.DagsterRunStatus
    assets: Collection[str]
    days: tuple[date, date] | None
    makes_outdated: bool
    backfill: str | None
    created: float
    ended: float

    @classmethod
    def of(cls, record: dg.RunRecord) -> "Run":
        run = record.dagster_run
        ops: Mapping[str, Any] = dict(run.run_config).get("ops", {})
        return cls(
            run_id=run.run_id,
            status=run.status,
            assets=JOBS.get(run.job_name) or {key.path[-1] for key in run.asset_selection or ()},
            days=selected_range(run.tags),
            makes_outdated=any(op.get("config", {}).get("outdated") for op in ops.values()),
            backfill=run.tags.get(BACKFILL_ID_TAG),
            created=record.create_timestamp.timestamp(),
            ended=math.inf if record.end_time is None else record.end_time,
        )

    @property
    def succeeded(self) -> bool:
        return self.status is dg.DagsterRunStatus.SUCCESS

    def materializes(self, asset: str, day: date | None = None) -> bool:
        if asset not in self.assets:
            return False
        return day is None or self.makes_outdated or (self.days is not None and self.days[0] <= day <= self.days[1])


class Request(NamedTuple):
    """A run that a sensor has requested, and at which tick since something was broken."""

    sensor: str
    tick: int
    run: Run


@dataclass
class Recovery:
    """A daemon whose lake is broken again and again."""

    dagster: DagsterDev
    folder: Path
    daemon: ExitStack
    instance: dg.DagsterInstance
    definitions: dict[str, int] = field(default_factory=dict)
    broken_at: float = 0.0
    instances: Sequence[str] = ()

    @property
    def lake(self) -> Lake:
        return Lake(self.dagster.environment["LATER_LAKE_ROOT"])

    @property
    def tables(self) -> list[RollupTable]:
        return [replace(table, definition=self.definitions.get(table.name, table.definition)) for table in ROLLUPS]

    @property
    def days(self) -> list[date]:
        return self.dagster.days

    def raw_file(self, day: date) -> Path:
        return Path(self.lake.url(RAW, Partition(day, INSTANCES[0])))

    def rollup_file(self, day: date) -> Path:
        return Path(self.lake.url(DAILY.name, Partition(day)))

    def raw_rows(self, *days: date) -> pa.Table:
        partitions = [each for each in self.lake.partitions(RAW) if not days or each.day in days]
        return self.lake.read(RAW, partitions, schema=POSTS_SCHEMA)

    def stored(self, day: date) -> pa.Table:
        return self.lake.read(DAILY.name, [Partition(day)], schema=schema_of(DAILY.columns))

    def definitions_of_files(self) -> Counter[int]:
        """Return how many daily rollups were made by each version of their definition."""
        footers = self.lake.read_all_metadata(DAILY.name, self.lake.partitions(DAILY.name)).values()
        made = [each.made_from for each in footers if not isinstance(each, Exception)]
        return Counter(made_from.definition for made_from in made if made_from)

    def start_daemon(self) -> None:
        command = ["python", "-m", "tests.e2e.fast_daemon", "run", "-m", MODULE]
        log = self.folder / "daemon.log"
        self.daemon.enter_context(running_process(command, self.dagster.environment, log=log))
        self.breaking()

    def restart_daemon(self, definitions: dict[str, int]) -> None:
        """Stop the daemon, and start it with other versions of definitions."""
        self.definitions = definitions
        (self.folder / "definitions.json").write_text(json.dumps(definitions))
        self.daemon.close()
        self.start_daemon()

    # Break

    def list_instances(self, *instances: str, stalled: date | None = None) -> None:
        """Make the API list these instances from now on, and send no posts of the day `stalled`."""
        self.instances, listed = instances, list_instances(*instances)
        self.dagster.service.override = lambda request: (
            NO_RESPONSE if str(stalled) in request.url.query else listed(request)
        )

    def breaking(self) -> None:
        """Count ticks from now on."""
        self.broken_at = time.time()

    def restate(self, number: int) -> None:
        """Make the API return other metrics from now on."""
        self.dagster.service.transform = more_impressions(number)

    @contextmanager
    def kill_run_of(self, asset: str) -> Iterator[None]:
        """Kill the run that materializes an asset next, once it has written files and before it has logged them."""
        hold, held = self.folder / f"hold-{asset}", self.folder / f"held-{asset}"
        hold.touch()
        yield
        run_id = wait_until(f"a run of {asset} writes", lambda: held.exists() and held.read_text())
        logged = [re.search(r"pid: (\d+)", entry.user_message) for entry in self.instance.all_logs(run_id)]
        (pid,) = {found[1] for found in logged if found}
        self.breaking()
        os.kill(int(pid), signal.SIGKILL)
        hold.unlink()
        held.unlink()
        wait_until("Dagster sees that the run is dead", lambda: self.instance.get_run_by_id(run_id).is_finished)

    # Heal

    def runs(self) -> list[Run]:
        return [Run.of(record) for record in self.instance.get_run_records(limit=200)]

    def runs_of(self, asset: str, status: dg.DagsterRunStatus) -> list[Run]:
        """Return the runs of an asset since something was broken."""
        runs = [run for run in self.runs() if run.materializes(asset) and run.created > self.broken_at]
        return [run for run in runs if run.status is status]

    def ticks(self, sensor: str) -> list[InstigatorTick]:
        """Return the ticks of a sensor since something was broken, in order.

        A tick that had begun before is one of them if it has requested something: it may have seen what was broken.
        """
        states = self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        return sorted(
            (
                tick
                for state in states
                if state.name == sensor
                for tick in self.instance.get_ticks(
                    state.instigator_origin_id, state.selector_id, after=self.broken_at - TICK_SECONDS
                )
                if tick.timestamp > self.broken_at or (tick.run_ids and (tick.end_timestamp or 0.0) > self.broken_at)
            ),
            key=lambda tick: tick.timestamp,
        )

    def is_whole(self) -> bool:
        """Return whether no file is missing, damaged or outdated."""
        instances = {*self.lake.retired.marks().in_numbers(self.instances)}
        present = intact_files(self.lake, [RAW])[RAW]
        return not missing_files(RAW, days=self.days, instances=instances, present=present) and not outdated(
            self.lake, self.tables, start_date=self.days[0], newest_day=self.days[-1], with_report=True
        )

    def is_idle(self) -> bool:
        """Return whether no run is in progress, and each sensor has since had a tick that requests none."""
        backfills = [each.backfill_end_timestamp or math.inf for each in self.instance.get_backfills()]
        ended = max([self.broken_at, *backfills, *(run.ended for run in self.runs())])
        return all(self.first_idle_tick(sensor, since=ended) < math.inf for sensor in SENSORS)

    def first_idle_tick(self, sensor: str, *, since: float) -> float:
        """Return when the first tick that has requested nothing ended; infinity if there is none yet."""
        ticks = [tick for tick in self.ticks(sensor) if tick.timestamp > since and tick.status is TickStatus.SKIPPED]
        return (ticks[0].end_timestamp or math.inf) if ticks else math.inf

    def wait_until_healed(self) -> None:
        """Wait until nothing is left to do; then compare each rollup with one that is computed from the raw files."""
        wait_until("the lake is whole, and nothing follows", lambda: self.is_idle() and self.is_whole())
        for fresh in roll_up_lake_periods(self.lake, DAILY, self.days, memory_gb=1):
            assert self.stored(fresh.first_day) == fresh.rows, fresh.first_day
        overall = roll_up_lake_windows(self.lake, [OVERALL], memory_gb=1).tables[OVERALL.name]
        assert self.lake.read_table(OVERALL.name, schema=overall.schema) == overall

    def requests(self) -> Iterator[Request]:
        """Yield all runs that sensors have requested since something was broken."""
        runs = self.runs()
        for sensor in SENSORS:
            number = 0
            for tick in self.ticks(sensor):
                is_idle = not any(run.created <= tick.timestamp < run.ended for run in runs)
                number += is_idle or bool(tick.run_ids)
                for run in runs:
                    if {run.run_id, run.backfill} & {*tick.run_ids}:
                        yield Request(sensor, number, run)

    def assert_healed(self, asset: str, *days: date, by: str, ticks: int) -> None:
        """Assert that the first run of an asset that succeeded, or of days of it, was requested by these ticks."""
        for day in days or (None,):
            made = [each for each in self.requests() if each.run.succeeded and each.run.materializes(asset, day)]
            first = min(made, key=lambda each: each.run.created, default=None)
            assert first is not None, self.log()
            assert first.sensor == by, self.log()
            assert first.tick <= ticks, self.log()

    def has_failed_tick(self, sensor: str) -> bool:
        return any(tick.status is TickStatus.FAILURE for tick in self.ticks(sensor))

    def log(self) -> str:
        """Return what sensors have requested, and after how many seconds, for messages."""
        requests = sorted(self.requests(), key=lambda each: each.run.created)
        return "\n".join(
            f"{run.created - self.broken_at:.1f} to {run.ended - self.broken_at:.1f} s: {sensor}, tick {tick}:"
            f" {' '.join(run.assets)} {' to '.join(map(str, run.days or ()))}: {run.status.value}"
            for sensor, tick, run in requests
        )


@contextmanager
def running_recovery(directory: Path, *, storage: str = "", lake: Path | None = None) -> Iterator[Recovery]:
    """Run Dagster with a lake that is complete for all instances but the last, which the API does not list."""
    folder = directory / "recovery"
    folder.mkdir()
    # The newest day is due at any hour at which the tests run.
    variables = {"LATER_TABLES": ",".join(ASSETS), "RECOVERY_FOLDER": str(folder), "LATER_DUE_HOUR_UTC": "0"}
    if lake:
        variables["LATER_LAKE_ROOT"] = str(lake)
    with (
        running_dagster(
            directory, module=MODULE, dagster_yaml=DAGSTER_YAML.read_text() + storage, variables=variables
        ) as dagster,
        dg.DagsterInstance.from_config(str(directory / "dagster-home")) as instance,
        ExitStack() as daemon,
    ):
        recovery = Recovery(dagster, folder, daemon, instance)
        recovery.list_instances(*INSTANCES[:-1])
        recovery.start_daemon()
        recovery.wait_until_healed()
        yield recovery
