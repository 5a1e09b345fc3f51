"""Methods: Dagster runs and backfills, with Dagster's default settings and a SQLite instance.

Dagster and the definitions are imported within the functions, because they read the environment.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.measurement import CREDENTIALS, TABLE_NAMES, Measurement, PartitionRange

UNLIMITED = 1_000_000
DEFAULT_REQUESTS_PER_MINUTE = 120
"""The limit of the API and the default of the setting."""


def run(
    partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path, requests_per_minute: int = UNLIMITED
) -> Measurement:
    """Fetch partitions by one run in this process. The time includes imports and planned events."""
    started, cpu = time.perf_counter(), time.process_time()
    prepare(base_url=base_url, root=root, start=partitions.start, requests_per_minute=requests_per_minute)
    from later_reporting_dagster.cli import in_process_runs
    from later_reporting_dagster.cli.project import ENVIRONMENT_MODULE, load_project
    from later_reporting_dagster.defs.partitions import range_tags

    project = load_project(ENVIRONMENT_MODULE, name=None)
    with in_process_runs.dagster_instance() as instance:
        created_at = time.time()
        tags = range_tags(partitions.start, partitions.end)
        outcome = in_process_runs.materialize(project, [TABLE_NAMES[date_basis]], instance=instance, tags=tags)
        assert outcome.succeeded, outcome
        (record,) = instance.get_run_records(limit=1)
        assert record.start_time is not None
    return Measurement(
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        creating_seconds=record.start_time - created_at,
        rows=_count_rows(root, date_basis),
    )


def paced_run(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> Measurement:
    """Fetch partitions by one run under the default rate limit."""
    return run(
        partitions, base_url=base_url, date_basis=date_basis, root=root, requests_per_minute=DEFAULT_REQUESTS_PER_MINUTE
    )


def backfill(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> Measurement:
    """Fetch partitions by a backfill as the UI stores it, executed by a daemon process.

    The time is from the start of the daemon to the end of the last run.
    """
    prepare(base_url=base_url, root=root, start=partitions.start)
    import dagster as dg
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.utils import make_new_backfill_id

    from later_reporting_dagster.definitions import defs

    with dg.DagsterInstance.get() as instance:
        started = time.time()
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id=make_new_backfill_id(),
            asset_graph=defs.resolve_asset_graph(),
            partition_names=[str(day) for day in partitions.days],
            asset_selection=[dg.AssetKey(["later", TABLE_NAMES[date_basis]])],
            backfill_timestamp=started,
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(backfill)
        with running_daemon(root) as assert_running:
            while True:
                assert_running()
                stored = instance.get_backfill(backfill.backfill_id)
                if stored and stored.status.value.startswith(("COMPLETED", "FAILED")):
                    break
                time.sleep(0.5)
        records = instance.get_run_records(dg.RunsFilter.for_backfill(backfill.backfill_id))
        failed = [record.dagster_run.run_id for record in records if not record.dagster_run.is_success]
        assert records, (root / "daemon.log").read_text()
        assert not failed, (failed, (root / "daemon.log").read_text())
        ended = max(record.end_time or 0.0 for record in records)
        events = sum(len(instance.all_logs(record.dagster_run.run_id)) for record in records)
    return Measurement(rows=_count_rows(root, date_basis), seconds=ended - started, runs=len(records), events=events)


def _count_rows(root: Path, date_basis: str) -> int:
    """Return the number of rows in the Parquet files of a table."""
    files = (root / "lake" / TABLE_NAMES[date_basis]).rglob("*.parquet")
    return sum(pq.read_metadata(file).num_rows for file in files)


def prepare(*, base_url: str, root: Path, start: date, requests_per_minute: int = UNLIMITED) -> None:
    """Create a Dagster home, and set the environment variables for the sandbox."""
    home = root / "dagster-home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    os.environ |= {
        "DAGSTER_HOME": str(home),
        "LATER_BASE_URL": base_url,
        "LATER_CLIENT_ID": CREDENTIALS["clientId"],
        "LATER_CLIENT_SECRET": CREDENTIALS["clientSecret"],
        "LATER_LAKE_ROOT": str(root / "lake"),
        "LATER_START_DATE": str(start),
        "LATER_REQUESTS_PER_MINUTE": str(requests_per_minute),
    }


@contextmanager
def running_daemon(root: Path) -> Iterator[Callable[[], None]]:
    """Run Dagster's daemon while the block runs, then kill it and its child processes.

    Yields:
        A function that raises an error with the daemon's log if the daemon has stopped.
    """
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "later_reporting_dagster.definitions"]
    with (root / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

        def assert_running() -> None:
            assert daemon.poll() is None, (root / "daemon.log").read_text()

        try:
            yield assert_running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
