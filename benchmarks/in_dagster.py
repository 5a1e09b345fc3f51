"""The same through a Dagster instance on SQLite, with the settings that Dagster has by itself.

Dagster and the definitions are imported when a box is fetched, because they read the environment.
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

from benchmarks.workload import CREDENTIALS, SOURCES, Box, Figures

UNLIMITED = 1_000_000
# The service's own limit, and the default setting.
PACED = 120


def run(box: Box, *, base_url: str, date_basis: str, root: Path, requests_per_minute: int = UNLIMITED) -> Figures:
    """Fetches a box by one run in this process; its time has the imports and the planned events in it."""
    started, cpu = time.perf_counter(), time.process_time()
    prepare(base_url=base_url, root=root, start=box.start, requests_per_minute=requests_per_minute)
    from later_reporting_dagster.cli import in_process_runs
    from later_reporting_dagster.defs.partitions import range_tags

    with in_process_runs.dagster_instance() as instance:
        asked_at = time.time()
        tags = range_tags(box.start, box.end)
        outcome = in_process_runs.materialize([SOURCES[date_basis]], instance=instance, tags=tags)
        assert outcome.succeeded, outcome
        record = instance.get_run_record_by_id(outcome.run_id)
        assert record is not None
        assert record.start_time is not None
    return Figures(
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        creating_seconds=record.start_time - asked_at,
        rows=_rows_in(root, date_basis),
    )


def paced_run(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """The same under the rate limit."""
    return run(box, base_url=base_url, date_basis=date_basis, root=root, requests_per_minute=PACED)


def backfill(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """Fetches a box by a backfill as the UI stores it, which a daemon of its own then carries out.

    Measured from the start of the daemon to the end of the last run.
    """
    prepare(base_url=base_url, root=root, start=box.start)
    import dagster as dg
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.utils import make_new_backfill_id

    from later_reporting_dagster.definitions import defs

    with dg.DagsterInstance.get() as instance:
        started = time.time()
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id=make_new_backfill_id(),
            asset_graph=defs.resolve_asset_graph(),
            partition_names=[str(day) for day in box.days],
            asset_selection=[dg.AssetKey(["later", SOURCES[date_basis]])],
            backfill_timestamp=started,
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(backfill)
        with running_daemon(root) as still_runs:
            while still_runs():
                stored = instance.get_backfill(backfill.backfill_id)
                if stored and stored.status.value.startswith(("COMPLETED", "FAILED")):
                    break
                time.sleep(0.5)
        records = instance.get_run_records(dg.RunsFilter.for_backfill(backfill.backfill_id))
        failed = [record.dagster_run.run_id for record in records if not record.dagster_run.is_success]
        assert records, (root / "daemon.log").read_text()
        assert not failed, (failed, (root / "daemon.log").read_text())
        ended = max(record.end_time or 0.0 for record in records)
    return Figures(rows=_rows_in(root, date_basis), seconds=ended - started, runs=len(records))


def _rows_in(root: Path, date_basis: str) -> int:
    """What lies in the lake, by the files themselves."""
    files = (root / "lake" / SOURCES[date_basis]).rglob("*.parquet")
    return sum(pq.read_metadata(file).num_rows for file in files)


def prepare(*, base_url: str, root: Path, start: date, requests_per_minute: int = UNLIMITED) -> None:
    """Makes a Dagster home, and the environment of a user whose settings point at the sandbox."""
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
def running_daemon(root: Path) -> Iterator[Callable[[], bool]]:
    """Runs Dagster's daemon while the block runs, and ends it with all the processes that it started.

    Yields a function that returns True, and raises once the daemon has ended by itself.
    """
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "later_reporting_dagster.definitions"]
    with (root / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

        def still_runs() -> bool:
            assert daemon.poll() is None, (root / "daemon.log").read_text()
            return True

        try:
            yield still_runs
        finally:
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
