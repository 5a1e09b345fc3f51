"""Workload: time to read daily files, compared with compacted months."""

import time
from datetime import UTC, date, datetime, timedelta
from tempfile import TemporaryDirectory

import pyarrow as pa

from benchmarks.markdown_table import Table
from later_reporting_dagster.contract import Post
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition, posts_table
from later_reporting_dagster.rollups.rollup_tables import DAILY

TABLE_NAME = "posts_published"
DAYS = [date(2025, 1, 1) + timedelta(days=number) for number in range(365)]
INSTANCES = [f"instance_{number:03}" for number in range(8)]
ROWS_PER_FILE, ROUNDS = 20, 5
ROLLUP_COLUMNS = pa.schema(
    field
    for field in POSTS_SCHEMA
    if field.name in {*DAILY.grain, *(name for each in DAILY.columns for name in each.source_columns)}
)


def compaction() -> Table:
    """Time to read a year of daily files, compared with compacted months."""
    rows = []
    with TemporaryDirectory() as root:
        lake = Lake(root)
        _write_year(lake)
        for state in ("daily files", "compacted months"):
            if state == "compacted months":
                # Compaction skips files that are younger: their modification time does not prove their content.
                time.sleep(4)
                months = list(lake.compact(TABLE_NAME, closed_before=date(2026, 1, 1), now=datetime.now(UTC)))
                files, size = len(months), sum(month.bytes for month in months)
            else:
                daily = [lake.read_metadata(TABLE_NAME, partition) for partition in lake.partitions(TABLE_NAME)]
                files, size = len(daily), sum(facts.bytes for facts in daily if facts)
            for columns, schema in (("all columns", POSTS_SCHEMA), ("columns of a rollup", ROLLUP_COLUMNS)):
                rows.append((state, f"{files:,}", f"{size / 1e6:.1f}", columns, *_read_seconds(lake, schema)))
    return Table(
        title="A year × 8 instances × 20 rows, read through `Lake.read`; fastest of 5",
        columns=("from", "files", "MB", "read", "wall s", "CPU s"),
        rows=rows,
    )


def _write_year(lake: Lake) -> None:
    """Write the partitions, one day at a time."""
    for number, day in enumerate(DAYS):
        lake.write_all(
            TABLE_NAME,
            {
                Partition(day, instance_id): posts_table(
                    [_post(number * ROWS_PER_FILE + each, day, instance_id) for each in range(ROWS_PER_FILE)]
                )
                for instance_id in INSTANCES
            },
        )


def _read_seconds(lake: Lake, schema: pa.Schema) -> tuple[float, float]:
    """Return the wall and CPU seconds to read all partitions: the fastest of several rounds."""
    partitions = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCES]
    seconds = []
    for _ in range(ROUNDS):
        started, cpu = time.perf_counter(), time.process_time()
        assert lake.read(TABLE_NAME, partitions, schema=schema).num_rows == len(partitions) * ROWS_PER_FILE
        seconds.append((time.perf_counter() - started, time.process_time() - cpu))
    return min(wall for wall, _ in seconds), min(cpu for _, cpu in seconds)


def _post(number: int, day: date, instance_id: str) -> Post:
    values = {"impressions": number * 7919 % 100_000, "engagements": number * 104_729 % 5_000}
    return Post(
        instance_id=instance_id,
        campaign_id=number % 50,
        post_id=number,
        post_date=datetime(day.year, day.month, day.day, number % 24, number % 60, tzinfo=UTC),
        creator_id=number % 900,
        content_type="instagram_reel",
        content_url=f"https://www.instagram.com/p/{number:012x}/",
        engagement_rate=round(100 * values["engagements"] / (values["impressions"] or 1), 2),
        **values,
    )
