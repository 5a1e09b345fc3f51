"""Workload: rollups of a lake, compared with a plain DuckDB group-by over the same columns of the same files."""

import os
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
from benchmarks.measurement import peak_megabytes
from benchmarks.synthetic_lake import DAYS, INSTANCES, write_lake
from later_reporting_dagster.contract import DEFAULT_METRICS
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.lake import POST_COLUMNS, Lake, partition_path
from later_reporting_dagster.rollups.lake_rollups import roll_up_lake_periods, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import DAILY, POST_TABLES, WINDOW_TABLES

MEMORY_GB = 1.2
# Rows of post_metrics_daily, the days on which a post earns, and the goals: seconds, and GB.
SHAPES = ((1_800_000, 1.5, 30, 1.4), (1_800_000, 20.0, 15, 1.4), (10_000_000, 20.0, 180, 2.0))
# The columns of posts that the daily rollup reads, and those that the others read.
READ_COLUMNS = {
    *("instance_id", "campaign_id", "post_id", "creator_id", "platform", "content_type"),
    *(metric.column for metric in DEFAULT_METRICS if metric.kind is not Kind.RATE or "_c" in metric.column),
}
POST_LABELS = {"content_url", "creator_handle_name", "creator_full_name", "creator_profile_link", "post_date"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Wall time, CPU time and peak memory of a process. The times exclude imports, the memory includes them."""

    seconds: float
    cpu_seconds: float
    peak_megabytes: float


def plain_group_by(lake: Lake, columns: set[str], raw_tables: Sequence[str]) -> Callable[[], object]:
    """Prepare a group-by by creator that sums each number and counts each text that the rollups read."""
    aggregates = ", ".join(
        f"{'sum' if column.type in ('int64', 'float64') else 'count'}({column.name})"
        for column in POST_COLUMNS
        if column.name in columns
    )
    files = {
        raw_table: [f"{lake.root}/{partition_path(raw_table, partition)}" for partition in lake.partitions(raw_table)]
        for raw_table in raw_tables
    }
    connection = duckdb.connect(config={"memory_limit": f"{MEMORY_GB}GB", "preserve_insertion_order": False})
    for raw_table, paths in files.items():
        connection.execute(f"SET VARIABLE {raw_table} = ?", [paths])
    scans = " UNION ALL ".join(
        f"SELECT {', '.join(sorted(columns))} FROM read_parquet(getvariable('{name}'), hive_partitioning = false)"
        for name in raw_tables
    )
    query = f"SELECT creator_id, {aggregates} FROM ({scans}) GROUP BY creator_id"
    return lambda: connection.execute(query).fetchall()


def plain_windows(lake: Lake) -> Callable[[], object]:
    """Prepare the plain group-by for the window rollups."""
    return plain_group_by(lake, READ_COLUMNS | POST_LABELS, ["post_metrics_daily", "posts_published"])


def windows(lake: Lake) -> Callable[[], object]:
    """Prepare the window rollups."""

    def work() -> None:
        made = roll_up_lake_windows(lake, (*WINDOW_TABLES, *POST_TABLES), memory_gb=MEMORY_GB)
        assert made.tables["posts"].num_rows

    return work


def plain_daily(lake: Lake) -> Callable[[], object]:
    """Prepare the plain group-by for the daily rollup."""
    return plain_group_by(lake, READ_COLUMNS, ["post_metrics_daily"])


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
    *, shapes: Sequence[tuple[int, float, int, float]] = SHAPES, days: int = DAYS, rounds: int = 3
) -> Table:
    """Time of the rollups over windows and of the daily rollup, compared with a plain group-by in DuckDB."""
    rows = []
    for size, days_per_post, goal_seconds, goal_gb in shapes:
        with TemporaryDirectory() as root:
            print(f"  {size:,} rows, {days_per_post:g} days per post", file=sys.stderr, flush=True)
            written = write_lake(Lake(root), rows=size, days_per_post=days_per_post, days=days)
            for rollup, goals in (
                ("windows and posts", (f"≤ {goal_seconds}", f"≤ {1000 * goal_gb:.0f}")),
                ("daily", ("", "")),
            ):
                name = rollup.split()[0]
                pairs = [(measure(f"plain {name}", root), measure(name, root)) for _ in range(rounds)]
                rows.append((rollup, f"{written:,}", f"{days_per_post:g}", *_compare(pairs, *goals)))
    return Table(
        title="Rollups of a lake, compared with a plain DuckDB group-by by creator over the same columns",
        columns=(
            *("rollup", "rows", "days per post", "wall s", "goal", "DuckDB s", "/ DuckDB"),
            *("CPU s", "DuckDB CPU s", "peak MB", "goal"),
        ),
        rows=rows,
        note=f"Medians of {rounds} rounds in which the two take turns, each in a fresh process: {days} days ×"
        f" {INSTANCES} instances; rows of post_metrics_daily, and one of posts_published for each post. The memory"
        f" limit is {MEMORY_GB:g} GB.",
    )


def _compare(rounds: Sequence[tuple[Cost, Cost]], goal_seconds: str, goal_megabytes: str) -> tuple[object, ...]:
    def median(value: Callable[[Cost, Cost], float]) -> float:
        return statistics.median(value(plain, rollup) for plain, rollup in rounds)

    return (
        median(lambda _, rollup: rollup.seconds),
        goal_seconds,
        median(lambda plain, _: plain.seconds),
        median(lambda plain, rollup: rollup.seconds / plain.seconds),
        median(lambda _, rollup: rollup.cpu_seconds),
        median(lambda plain, _: plain.cpu_seconds),
        f"{max(rollup.peak_megabytes for _, rollup in rounds):.0f}",
        goal_megabytes,
    )


def main(name: str, root: str) -> None:
    """Run an entry of `WORK` in this process and print its cost as JSON."""
    os.environ.pop("DAGSTER_HOME", None)
    work = WORK[name](Lake(root))
    started, cpu = time.perf_counter(), time.process_time()
    work()
    cost = Cost(
        seconds=time.perf_counter() - started, cpu_seconds=time.process_time() - cpu, peak_megabytes=peak_megabytes()
    )
    print(msgspec.json.encode(cost).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
