"""Workload: time to read daily files, compared with compacted months."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from benchmarks.markdown_table import Table
from benchmarks.synthetic_lake import DAYS, FIRST_DAY, write_published_posts
from benchmarks.windows import READ_COLUMNS
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake

TABLE_NAME = "posts_published"
INSTANCES, POSTS_PER_DAY = 8, 20
ROLLUP_COLUMNS = pa.schema(field for field in POSTS_SCHEMA if field.name in READ_COLUMNS)


def compaction(*, days: int = DAYS, rounds: int = 5) -> Table:
    """Time to read daily files, compared with compacted months."""
    rows = []
    with TemporaryDirectory() as root:
        lake = Lake(root)
        written = write_published_posts(lake, instances=INSTANCES, posts_per_day=POSTS_PER_DAY, days=days)
        for state in ("daily files", "compacted months"):
            if state == "compacted months":
                # Compaction skips files that are seconds old: their modification time does not prove their content.
                later = datetime.now(UTC) + timedelta(minutes=1)
                restate_days = (later.date() - FIRST_DAY).days - days
                copies = lake.compact(TABLE_NAME, restate_days=restate_days, now=later)
                sizes = [path.stat().st_size for path in Path(root, "_compacted").rglob("*.parquet")]
                files, size = copies.files, sum(sizes)
            else:
                daily = lake.file_versions(TABLE_NAME).values()
                files, size = len(daily), sum(version.bytes for version in daily)
            for columns, schema in (("all columns", POSTS_SCHEMA), ("columns of a rollup", ROLLUP_COLUMNS)):
                seconds = [_read_seconds(lake, schema, rows=written) for _ in range(rounds)]
                fastest = min(wall for wall, _ in seconds), min(cpu for _, cpu in seconds)
                rows.append((state, f"{files:,}", f"{size / 1e6:.1f}", columns, *fastest))
    return Table(
        title=f"{days} days × {INSTANCES} instances × {POSTS_PER_DAY} rows, read by `Lake.read`; fastest of {rounds}",
        columns=("from", "files", "MB", "read", "wall s", "CPU s"),
        rows=rows,
    )


def _read_seconds(lake: Lake, schema: pa.Schema, *, rows: int) -> tuple[float, float]:
    """Return the wall and CPU seconds to read all partitions."""
    partitions = [*lake.partitions(TABLE_NAME)]
    started, cpu = time.perf_counter(), time.process_time()
    assert lake.read(TABLE_NAME, partitions, schema=schema).num_rows == rows
    return time.perf_counter() - started, time.process_time() - cpu
