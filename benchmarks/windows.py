"""Workload: rollups of a lake, compared with a plain DuckDB group-by over the same columns of the same files."""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import duckdb
import msgspec

from benchmarks.markdown_table import Table
from benchmarks.synthetic_lake import DAYS, INSTANCES, write_lake
from later_reporting_dagster.lake import POST_COLUMNS, Lake, partition_path
from later_reporting_dagster.rollups.lake_rollups import roll_up_lake_periods, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import DAILY, POST_TABLES, WINDOW_TABLES, RollupTable

MEMORY_GB = 2.0
MAX_RATIOS = {"windows": 5.0, "daily": 2.0}
MAX_GB = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Wall time, CPU time and peak memory of a process. The times exclude imports, the memory includes them."""

    seconds: float
    cpu_seconds: float
    peak_megabytes: float


def plain_group_by(lake: Lake, tables: Sequence[RollupTable], raw_tables: Sequence[str]) -> Callable[[], object]:
    """Prepare a group-by by creator that sums each number and counts each text that the rollups read."""
    names = {name for table in tables for column in table.columns for name in column.source_columns}
    names |= {name for table in tables for name in table.grain}
    if any(table.labels for table in tables):
        names.add("post_date")  # labels are those of the newest post
    names.discard("creator_id")
    aggregates = ", ".join(
        f"{'sum' if column.type in ('int64', 'float64') else 'count'}({column.name})"
        for column in POST_COLUMNS
        if column.name in names
    )
    columns = ", ".join(column.name for column in POST_COLUMNS if column.name in names | {"creator_id"})
    files = {
        raw_table: [f"{lake.root}/{partition_path(raw_table, partition)}" for partition in lake.partitions(raw_table)]
        for raw_table in raw_tables
    }
    connection = duckdb.connect(config={"memory_limit": f"{MEMORY_GB}GB", "preserve_insertion_order": False})
    for raw_table, paths in files.items():
        connection.execute(f"SET VARIABLE {raw_table} = ?", [paths])
    scans = " UNION ALL ".join(
        f"SELECT {columns} FROM read_parquet(getvariable('{raw_table}'), hive_partitioning = false)"
        for raw_table in raw_tables
    )
    query = f"SELECT creator_id, {aggregates} FROM ({scans}) GROUP BY creator_id"
    return lambda: connection.execute(query).fetchall()


def plain_windows(lake: Lake) -> Callable[[], object]:
    """Prepare the plain group-by for the window rollups."""
    return plain_group_by(lake, WINDOW_TABLES, ["post_metrics_daily", "posts_published"])


def windows(lake: Lake) -> Callable[[], object]:
    """Prepare the window rollups."""

    def work() -> None:
        made = roll_up_lake_windows(lake, (*WINDOW_TABLES, *POST_TABLES), memory_gb=MEMORY_GB)
        assert all(rows.num_rows for name, rows in made.tables.items() if name != "campaign_results")

    return work


def plain_daily(lake: Lake) -> Callable[[], object]:
    """Prepare the plain group-by for the daily rollup."""
    return plain_group_by(lake, [DAILY], ["post_metrics_daily"])


def daily(lake: Lake) -> Callable[[], object]:
    """Prepare the daily rollup of all days."""
    days = sorted({partition.day for partition in lake.partitions("post_metrics_daily")})

    def work() -> None:
        for made in roll_up_lake_periods(lake, DAILY, days, memory_gb=MEMORY_GB):
            assert made.rows is not None

    return work


# Each entry prepares work on a lake and returns the function to measure.
WORK: Mapping[str, Callable[[Lake], Callable[[], object]]] = {
    "plain windows": plain_windows, "windows": windows, "plain daily": plain_daily, "daily": daily,
}  # fmt: skip


def measure(name: str, root: str) -> Cost:
    """Run an entry of `WORK` in a fresh process and measure it."""
    command = [sys.executable, "-m", "benchmarks.windows", name, root]
    return msgspec.json.decode(subprocess.run(command, check=True, capture_output=True).stdout, type=Cost)


def windows_workload(
    *, sizes: Sequence[int] = (1_000_000, 4_000_000, 20_000_000), days: int = DAYS, rounds: int = 3
) -> Table:
    """Time of the window and daily rollups for several sizes, compared with a plain group-by in DuckDB."""
    rows = []
    for size in sizes:
        with TemporaryDirectory() as root:
            print(f"  {size:,} rows", file=sys.stderr, flush=True)
            written = write_lake(Lake(root), rows=size, days=days)
            for rollup in ("windows", "daily"):
                pairs = [(measure(f"plain {rollup}", root), measure(rollup, root)) for _ in range(rounds)]
                rows.append((rollup, f"{written:,}", *_compare(pairs, max_ratio=MAX_RATIOS[rollup])))
    return Table(
        title="Rollups of a lake, compared with a plain DuckDB group-by by creator over the same columns",
        columns=(
            *("rollup", "raw rows", "wall s", "DuckDB s", "/ DuckDB", "goal"),
            *("CPU s", "DuckDB CPU s", "peak MB", "goal"),
        ),
        rows=rows,
        note=f"Medians of {rounds} rounds in which the two take turns, each in a fresh process: {days} days ×"
        f" {INSTANCES} instances. Windows are all tables over windows and about posts: comparison, costs, results of"
        " campaigns and benchmarks; daily is `organic_paid_daily` for all days, which reads only `post_metrics_daily`."
        f" The memory limit of DuckDB is {MEMORY_GB:g} GB.",
    )


def _compare(rounds: Sequence[tuple[Cost, Cost]], *, max_ratio: float) -> tuple[object, ...]:
    def median(value: Callable[[Cost, Cost], float]) -> float:
        return statistics.median(value(plain, rollup) for plain, rollup in rounds)

    return (
        median(lambda _, rollup: rollup.seconds),
        median(lambda plain, _: plain.seconds),
        median(lambda plain, rollup: rollup.seconds / plain.seconds),
        f"≤ {max_ratio:g}",
        median(lambda _, rollup: rollup.cpu_seconds),
        median(lambda plain, _: plain.cpu_seconds),
        f"{max(rollup.peak_megabytes for _, rollup in rounds):.0f}",
        f"≤ {1000 * MAX_GB:.0f}",
    )


def main(name: str, root: str) -> None:
    """Run an entry of `WORK` in this process and print its cost as JSON."""
    os.environ.pop("DAGSTER_HOME", None)
    work = WORK[name](Lake(root))
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
