"""Break a lake under a running daemon, and wait until it has healed."""

import math
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa
from dagster._core.scheduler.instigation import InstigatorTick, InstigatorType, TickStatus

from later_reporting_dagster.cli.demo import DAGSTER_YAML
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition, schema_of
from later_reporting_dagster.lake.coverage import intact_files
from later_reporting_dagster.quality.missing_files import missing_days
from later_reporting_dagster.quality.outdated import outdated
from later_reporting_dagster.rollups.lake_rollups import roll_up_lake_periods, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import DAILY, OVERALL
from tests.crash.restated_sandbox import NO_RESPONSE, more_impressions
from tests.defs.conftest import list_instances
from tests.e2e.dagster_dev import INSTANCES, DagsterDev, running_dagster, running_process
from tests.services import wait_until

MODULE = "tests.e2e.recovery_definitions"
RAW, COVERAGE, REPORT = "post_metrics_daily", "coverage", "organic_paid_report"
ROLLUPS = (DAILY, OVERALL)
# One asset of each kind, because each run is a process that takes seconds.
ASSETS = (RAW, COVERAGE, *(table.name for table in ROLLUPS), REPORT)
SENSORS = ("later_instances", "later_outdated", "later_automation")


@dataclass
class Recovery:
    """A daemon whose lake is broken again and again."""

    dagster: DagsterDev
    folder: Path
    instance: dg.DagsterInstance
    broken_at: float
    instances: Sequence[str] = ()

    @property
    def lake(self) -> Lake:
        return Lake(self.dagster.environment["LATER_LAKE_ROOT"])

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

    # Break

    def list_instances(self, *instances: str, stalled: date | None = None) -> None:
        """Make the API list these instances from now on, and send no posts of the day `stalled`."""
        self.instances, listed = instances, list_instances(*instances)
        self.dagster.service.override = lambda request: (
            NO_RESPONSE if str(stalled) in request.url.query else listed(request)
        )

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
        self.broken_at = time.time()
        os.kill(int(pid), signal.SIGKILL)
        hold.unlink()
        held.unlink()
        wait_until("Dagster sees that the run is dead", lambda: self.instance.get_run_by_id(run_id).is_finished)

    # Heal

    def runs_of(self, asset: str, status: dg.DagsterRunStatus) -> list[dg.DagsterRun]:
        """Return the runs of an asset since something was broken."""
        since = datetime.fromtimestamp(self.broken_at, UTC)
        runs = self.instance.get_runs(dg.RunsFilter(statuses=[status], created_after=since))
        return [run for run in runs if dg.AssetKey(["later", asset]) in (run.asset_selection or ())]

    def ticks(self, sensor: str) -> list[InstigatorTick]:
        """Return the ticks of a sensor since something was broken, in order."""
        states = self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        return sorted(
            (
                tick
                for state in states
                if state.name == sensor
                for tick in self.instance.get_ticks(state.instigator_origin_id, state.selector_id, after=self.broken_at)
            ),
            key=lambda tick: tick.timestamp,
        )

    def is_whole(self) -> bool:
        """Return whether no file is missing, damaged or outdated."""
        instances = {*self.instances} - self.lake.retired.ids()
        return not missing_days(self.days, instances, intact_files(self.lake, [RAW])[RAW]) and not outdated(
            self.lake, ROLLUPS, start_date=self.days[0], newest_day=self.days[-1], with_report=True
        )

    def is_idle(self) -> bool:
        """Return whether no run is in progress, and each sensor has since had a tick that requests none."""
        ends = [each.backfill_end_timestamp or math.inf for each in self.instance.get_backfills()]
        ends += [each.end_time or math.inf for each in self.instance.get_run_records(limit=200)]
        ended = max([self.broken_at, *ends])
        by_api, outdated, automation = SENSORS
        # The conditions follow what the other sensors report.
        reported = max(self.first_idle_tick(by_api, since=ended), self.first_idle_tick(outdated, since=ended))
        return self.first_idle_tick(automation, since=reported) < math.inf

    def first_idle_tick(self, sensor: str, *, since: float) -> float:
        """Return when the first tick that has requested nothing ended; infinity if there is none yet."""
        ticks = [tick for tick in self.ticks(sensor) if tick.timestamp > since and tick.status is TickStatus.SKIPPED]
        return (ticks[0].end_timestamp or math.inf) if ticks else math.inf

    def wait_until_healed(self) -> None:
        """Wait until nothing is left to do; then compare each rollup with one that is computed from the raw files."""
        wait_until("the lake is whole, and nothing follows", lambda: self.is_idle() and self.is_whole())
        for fresh in roll_up_lake_periods(self.lake, DAILY, self.days, memory_gb=1):
            stored = self.lake.read(DAILY.name, [Partition(fresh.first_day)], schema=schema_of(DAILY.columns))
            assert stored == fresh.rows, fresh.first_day
        overall = roll_up_lake_windows(self.lake, [OVERALL], memory_gb=1).tables[OVERALL.name]
        assert self.lake.read_table(OVERALL.name, schema=overall.schema) == overall


@contextmanager
def running_recovery(directory: Path, *, storage: str = "") -> Iterator[Recovery]:
    """Run Dagster with a lake that is complete for all instances but the last, which the API does not list."""
    folder = directory / "recovery"
    folder.mkdir()
    yaml = DAGSTER_YAML.read_text() + storage
    # The newest day is due at any hour at which the tests run.
    variables = {"LATER_TABLES": ",".join(ASSETS), "RECOVERY_FOLDER": str(folder), "LATER_DUE_HOUR_UTC": "0"}
    command = ["python", "-m", "tests.e2e.fast_daemon", "run", "-m", MODULE]
    with (
        running_dagster(directory, module=MODULE, dagster_yaml=yaml, variables=variables) as dagster,
        dg.DagsterInstance.from_config(str(directory / "dagster-home")) as instance,
    ):
        recovery = Recovery(dagster, folder, instance, broken_at=time.time())
        recovery.list_instances(*INSTANCES[:-1])
        with running_process(command, dagster.environment, log=folder / "daemon.log"):
            recovery.wait_until_healed()
            yield recovery
