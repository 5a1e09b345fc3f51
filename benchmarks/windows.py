"""The rollups of a lake, beside DuckDB's bare group-by of the same columns of the same files, in fresh processes."""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from tempfile import TemporaryDirectory

import duckdb
import msgspec

from benchmarks.tables import Table
from benchmarks.world import DAYS, FIRST_DAY, write_world
from later_reporting_dagster.lake import POST_COLUMNS, Lake, partition_path
from later_reporting_dagster.rollups.lake_rollups import roll_up_days_of, roll_up_windows_of
from later_reporting_dagster.rollups.rollup_tables import BY_WINDOW, DAILY, RolledUp

ROWS, ROUNDS = (1_000_000, 4_000_000, 20_000_000), 3
MEMORY_GB = 2.0
GOALS = {"windows": 5.0, "daily": 2.0}
GOAL_GB = 2.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one process took for its work, its imports not counted, but its memory."""

    seconds: float
    cpu_seconds: float
    peak_megabytes: float


def bare(lake: Lake, tables: Sequence[RolledUp], assets: Sequence[str]) -> Callable[[], object]:
    """Return what runs a bare group-by by creator: every number that the tables read summed, every text counted."""
    read = {name for table in tables for column in table.columns for name in column.made_from}
    read |= {name for table in tables for name in table.grain}
    if any(table.labels for table in tables):
        read.add("post_date")  # of the newest post, whose labels they are
    read.discard("creator_id")
    of_each = ", ".join(
        f"{'sum' if column.type in ('int64', 'float64') else 'count'}({column.name})"
        for column in POST_COLUMNS
        if column.name in read
    )
    columns = ", ".join(column.name for column in POST_COLUMNS if column.name in read | {"creator_id"})
    files = {
        asset: [f"{lake.root}/{partition_path(asset, partition)}" for partition in lake.partitions(asset)]
        for asset in assets
    }
    connection = duckdb.connect(config={"memory_limit": f"{MEMORY_GB}GB", "preserve_insertion_order": False})
    for asset, paths in files.items():
        connection.execute(f"SET VARIABLE {asset} = ?", [paths])
    scans = " UNION ALL ".join(
        f"SELECT {columns} FROM read_parquet(getvariable('{asset}'), hive_partitioning = false)" for asset in assets
    )
    return lambda: connection.execute(f"SELECT creator_id, {of_each} FROM ({scans}) GROUP BY creator_id").fetchall()


def bare_windows(lake: Lake) -> Callable[[], object]:
    """Return the bare group-by of what the tables of windows read."""
    return bare(lake, BY_WINDOW, ["post_metrics_daily", "posts_published"])


def windows(lake: Lake) -> Callable[[], object]:
    """Return what makes the tables of windows and reconciles them."""

    def work() -> None:
        made = roll_up_windows_of(lake, BY_WINDOW, memory_gb=MEMORY_GB)
        assert not any(made.differences.values()), made.differences

    return work


def bare_daily(lake: Lake) -> Callable[[], object]:
    """Return the bare group-by of what the daily table reads."""
    return bare(lake, [DAILY], ["post_metrics_daily"])


def daily(lake: Lake) -> Callable[[], object]:
    """Return what makes the daily table of the year and reconciles it."""
    days = [FIRST_DAY + timedelta(days=number) for number in range(DAYS)]

    def work() -> None:
        for made in roll_up_days_of(lake, DAILY, days, memory_gb=MEMORY_GB):
            assert made.rows is not None
            assert not made.differences, made.differences

    return work


WORK: Mapping[str, Callable[[Lake], Callable[[], object]]] = {
    "bare windows": bare_windows, "windows": windows, "bare daily": bare_daily, "daily": daily,
}  # fmt: skip


def measured(what: str, root: str) -> Cost:
    """Do the work in a process of its own, and return what it took."""
    command = [sys.executable, "-m", "benchmarks.windows", what, root]
    return msgspec.json.decode(subprocess.run(command, check=True, capture_output=True).stdout, type=Cost)


def windows_workload() -> Table:
    """Worlds of several sizes: the tables of windows of each, and the daily table of the largest."""
    rows = []
    for size in ROWS:
        with TemporaryDirectory() as root:
            print(f"  {size:,} rows", file=sys.stderr, flush=True)
            written = write_world(Lake(root), rows=size)
            for what in ("windows", "daily"):
                rounds = [(measured(f"bare {what}", root), measured(what, root)) for _ in range(ROUNDS)]
                rows.append((what, f"{written:,}", *_compared(rounds, goal=GOALS[what])))
    return Table(
        title="Rollups of a lake, beside DuckDB's bare group-by by creator over the same columns of the same files",
        columns=("rollup", "raw rows", "wall s", "bare s", "/ bare", "goal", "CPU s", "bare CPU s", "peak MB", "goal"),
        rows=rows,
        note=f"Medians of {ROUNDS} rounds in which the two took turns, each in a process of its own: {DAYS} days × 10"
        " instances. Windows are all of them, by campaign, creator and platform, with the periods before them; daily"
        " is `organic_paid_daily` of all days, which reads `post_metrics_daily` alone. Both have their reconciliation"
        f" in them, a second query. They may take {MEMORY_GB:g} GB of memory.",
    )


def _compared(rounds: Sequence[tuple[Cost, Cost]], *, goal: float) -> tuple[object, ...]:
    def median(of: Callable[[Cost, Cost], float]) -> float:
        return statistics.median(of(bare, ours) for bare, ours in rounds)

    return (
        median(lambda _, ours: ours.seconds),
        median(lambda bare, _: bare.seconds),
        median(lambda bare, ours: ours.seconds / bare.seconds),
        f"≤ {goal:g}",
        median(lambda _, ours: ours.cpu_seconds),
        median(lambda bare, _: bare.cpu_seconds),
        f"{max(ours.peak_megabytes for _, ours in rounds):.0f}",
        f"≤ {1000 * GOAL_GB:.0f}",
    )


def main(what: str, root: str) -> None:
    """Do one work in this process, and print what it took as JSON."""
    os.environ.pop("DAGSTER_HOME", None)
    work = WORK[what](Lake(root))
    started, cpu = time.perf_counter(), time.process_time()
    work()
    cost = Cost(
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        peak_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )
    print(msgspec.json.encode(cost).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
