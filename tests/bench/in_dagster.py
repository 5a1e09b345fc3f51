"""The same through a Dagster instance on SQLite, with the settings that Dagster has by itself.

Dagster and the definitions are imported when a box is landed, because they read the environment.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import pyarrow.parquet as pq

from tests.bench.workload import CREDENTIALS, SOURCES, Box, Figures


def range_run(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """Lands a box by one run in this process."""
    started = time.perf_counter()
    _prepare(box, base_url=base_url, root=root)
    from later_reporting_dagster.cli import launch
    from later_reporting_dagster.defs.partitions import INSTANCES, box_tags

    with launch.dagster_instance() as instance:
        instance.add_dynamic_partitions(str(INSTANCES.name), list(box.instance_ids))
        asked_at = time.time()
        outcome = launch.run(
            launch.later_posts,
            instance=instance,
            assets=[SOURCES[date_basis]],
            tags=box_tags(box.start, box.end, box.instance_ids),
        )
        assert outcome.succeeded, outcome
        record = instance.get_run_record_by_id(outcome.run_id)
        assert record is not None
        assert record.start_time is not None
    seconds = time.perf_counter() - started
    rows = _rows_in(root, date_basis)
    return Figures(rows=rows, seconds=seconds, creating_seconds=record.start_time - asked_at)


def backfill(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """Lands a box by a backfill as the UI stores it, which a daemon of its own then carries out.

    Measured from the start of the daemon to the end of the last run.
    """
    _prepare(box, base_url=base_url, root=root)
    import dagster as dg
    from dagster._core.execution.backfill import PartitionBackfill
    from dagster._core.utils import make_new_backfill_id

    from later_reporting_dagster.definitions import defs
    from later_reporting_dagster.defs.partitions import INSTANCES

    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(str(INSTANCES.name), list(box.instance_ids))
        started = time.time()
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id=make_new_backfill_id(),
            asset_graph=defs.resolve_asset_graph(),
            partition_names=[f"{cell.start}|{cell.instance_ids[0]}" for cell in box.cells],
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
        of_the_backfill = dg.RunsFilter.for_backfill(backfill.backfill_id)
        with _daemon(root) as daemon:
            while True:
                assert daemon.poll() is None, (root / "daemon.log").read_text()
                records = instance.get_run_records(of_the_backfill)
                runs = tuple(_box_of(record.dagster_run.tags, box) for record in records)
                if all(record.end_time for record in records) and sum(len(run.cells) for run in runs) == len(box.cells):
                    break
                time.sleep(0.5)
        failed = [record.dagster_run.run_id for record in records if not record.dagster_run.is_success]
        assert not failed, (failed, (root / "daemon.log").read_text())
        ended = max(record.end_time or 0.0 for record in records)
    return Figures(rows=_rows_in(root, date_basis), seconds=ended - started, runs=runs)


def _rows_in(root: Path, date_basis: str) -> int:
    """What lies in the lake, by the files themselves."""
    files = (root / "lake" / SOURCES[date_basis]).rglob("*.parquet")
    return sum(pq.read_metadata(file).num_rows for file in files)


def _prepare(box: Box, *, base_url: str, root: Path) -> None:
    """Makes a Dagster home, and the environment of a user whose settings point at the sandbox."""
    home = root / "dagster-home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    os.environ |= {
        "DAGSTER_HOME": str(home),
        "LATER_BASE_URL": base_url,
        "LATER_CLIENT_ID": CREDENTIALS["clientId"],
        "LATER_CLIENT_SECRET": CREDENTIALS["clientSecret"],
        "LATER_LAKE_ROOT": str(root / "lake"),
        "LATER_START_DATE": str(box.start),
        "LATER_REQUESTS_PER_MINUTE": "1000000",
    }


@contextmanager
def _daemon(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Runs Dagster's daemon while the block runs, and ends it with all the processes that it started."""
    command = [sys.executable, "-m", "dagster._daemon", "run", "-m", "later_reporting_dagster.definitions"]
    with (root / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield daemon
        finally:
            with suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


def _box_of(tags: Mapping[str, str], box: Box) -> Box:
    """The box of a run, from its tags: instances are in the order in which they were registered."""
    from later_reporting_dagster.defs.partitions import RANGE_END_TAG, RANGE_START_TAG

    alone = tags.get("dagster/partition", "")
    first_day, _, first = tags.get(RANGE_START_TAG, alone).partition("|")
    last_day, _, last = tags.get(RANGE_END_TAG, alone).partition("|")
    return Box(
        start=date.fromisoformat(first_day),
        end=date.fromisoformat(last_day),
        instance_ids=box.instance_ids[box.instance_ids.index(first) : box.instance_ids.index(last) + 1],
    )
