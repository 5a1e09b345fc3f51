"""A table whose partitions were requested with different metrics: read as one table, without rewriting a file."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS, Metric, parse_metrics, post_type
from later_reporting_dagster.lake import (
    POSTS_SCHEMA,
    Lake,
    Partition,
    Table,
    open_dataset,
    post_columns,
    posts_schema,
    posts_table,
)
from tests.lake.conftest import files_of

Metrics = tuple[Metric, ...]

FIRST = date(2024, 1, 1)
THREE = parse_metrics("likes, impressions, paid_reach")
# The metrics of each day: first the eleven of the API reference, then all, then three.
METRICS_BY_DAY = [DEFAULT_METRICS, DEFAULT_METRICS, METRICS, METRICS, THREE, THREE]
ALL_COLUMNS = posts_schema(METRICS)


def partition(number: int) -> Partition:
    return Partition(FIRST + timedelta(days=number), "instance_000")


def value_of(metric: Metric, number: int) -> int | float | None:
    """Return the metric of a day's second post; the first post has no metrics."""
    return METRICS.index(metric) * 1000 + number if metric.kind.is_integer else number + 0.25


def posts_of_day(number: int, metrics: Metrics) -> pa.Table:
    posted = datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(days=number)
    identity: dict[str, Any] = {"instance_id": "instance_000", "campaign_id": 7, "post_date": posted}
    values = {metric.column: value_of(metric, number) for metric in metrics}
    post = post_type(metrics)
    return posts_table([post(post_id=1, **identity), post(post_id=2, **identity, **values)], metrics=metrics)


def lake_of(root: Path, metrics_by_day: Sequence[Metrics] = METRICS_BY_DAY) -> Lake:
    lake = Lake(str(root))
    for number, metrics in enumerate(metrics_by_day):
        before = files_of(root)
        lake.write("posts", partition(number), posts_of_day(number, metrics))
        assert before.items() <= files_of(root).items()  # earlier files are unchanged
    return lake


def expected_rows(metrics_by_day: Sequence[Metrics] = METRICS_BY_DAY) -> list[dict[str, Any]]:
    """Return the expected rows: a metric is null when it was not requested or is not available."""
    return [
        {
            "post_id": post_id,
            **{
                metric.column: value_of(metric, number) if post_id == 2 and metric in requested else None
                for metric in METRICS
            },
        }
        for number, requested in enumerate(metrics_by_day)
        for post_id in (1, 2)
    ]


COLUMNS = ["post_id", *(metric.column for metric in METRICS)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with the days of METRICS_BY_DAY."""
    return lake_of(tmp_path)


def test_lake_reads_one_table(lake: Lake) -> None:
    table = lake.read("posts", lake.partitions("posts"), schema=ALL_COLUMNS)
    table.validate(full=True)
    assert table.schema.equals(ALL_COLUMNS)
    assert table.select(COLUMNS).to_pylist() == expected_rows()
    narrow = lake.read("posts", lake.partitions("posts"), schema=posts_schema(THREE))
    assert narrow.equals(table.select(narrow.column_names))


def test_arrow_reads_one_table(lake: Lake, tmp_path: Path) -> None:
    dataset = open_dataset(lake, Table("posts", post_columns(METRICS)))
    found = dataset.to_table(columns=COLUMNS)
    assert found.schema.equals(pa.schema([ALL_COLUMNS.field(name) for name in COLUMNS]))
    assert sorted_rows(found.to_pylist()) == sorted_rows(expected_rows())
    plain = pq.read_table(tmp_path / "posts", schema=ALL_COLUMNS, partitioning=None)
    assert sorted_rows(plain.select(COLUMNS).to_pylist()) == sorted_rows(expected_rows())


def test_duckdb_reads_one_table(lake: Lake, tmp_path: Path) -> None:
    files = f"{tmp_path}/posts/*/*/*.parquet"
    with duckdb.connect(":memory:") as connection:
        found = connection.read_parquet(files, union_by_name=True, hive_partitioning=False).to_arrow_table()
    assert sorted(found.column_names) == sorted(ALL_COLUMNS.names)
    assert {str(found.schema.field(metric.column).type) for metric in METRICS} == {"int64", "double"}
    assert sorted_rows(found.select(COLUMNS).to_pylist()) == sorted_rows(expected_rows())


def sorted_rows(rows: list[dict[str, Any]]) -> list[tuple[tuple[str, str], ...]]:
    return sorted(tuple((name, repr(value)) for name, value in row.items()) for row in rows)


def test_write_changes_the_file_only_for_other_rows_or_metrics(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    before = files_of(tmp_path)
    for number, metrics in enumerate(METRICS_BY_DAY):
        assert not lake.write("posts", partition(number), posts_of_day(number, metrics)).changed
    assert files_of(tmp_path) == before
    nothing = posts_table([], metrics=METRICS)
    assert lake.write("posts", partition(9), nothing).changed
    assert lake.write("posts", partition(9), posts_table([])).changed
    assert not lake.write("posts", partition(9), POSTS_SCHEMA.empty_table()).changed


def test_replacement_check_receives_the_common_columns(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", partition(0), posts_of_day(0, METRICS))
    checked: list[tuple[pa.Table, pa.Table]] = []
    new = posts_of_day(1, THREE)
    lake.write_all("posts", {partition(0): new}, check_replacement=lambda _, old, now: checked.append((old, now)))
    ((old, now),) = checked
    assert old.equals(posts_of_day(0, METRICS).select(posts_schema(THREE).names))
    assert now.equals(new)
