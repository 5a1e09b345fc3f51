"""A lake whose partitions were asked for with different metrics is one table, and none is rewritten for that."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, Metric, metrics_named, post_type
from later_reporting_dagster.lake import (
    POSTS_SCHEMA,
    Lake,
    Partition,
    PartitionDamaged,
    content_hash_of,
    posts_schema,
    posts_table,
)
from later_reporting_dagster.lake.compaction import FEWEST_DAYS, OTHER_COLUMNS
from later_reporting_dagster.lake.partition_paths import compacted_path
from tests.lake.conftest import files_of, unreadable

Selection = tuple[Metric, ...]

FIRST = date(2024, 1, 1)
THREE = metrics_named("likes, impressions, paid_reach")
# Begun with the document's eleven, continued with all, then with three.
HISTORY = [DOCUMENT_METRICS, DOCUMENT_METRICS, METRICS, METRICS, THREE, THREE]
ALL_OF_IT = posts_schema(METRICS)

selections: st.SearchStrategy[Selection] = st.lists(st.sampled_from(METRICS), max_size=5, unique=True).map(
    lambda chosen: tuple(metric for metric in METRICS if metric in chosen)
)


def partition(number: int) -> Partition:
    return Partition(FIRST + timedelta(days=number), "instance_000")


def value_of(metric: Metric, number: int) -> int | float | None:
    """What a day's second post has of a metric; the first has nothing available."""
    return METRICS.index(metric) * 1000 + number if metric.kind.is_whole else number + 0.25


def posts_of_day(number: int, metrics: Selection) -> pa.Table:
    posted = datetime(2024, 1, 1, 12, tzinfo=UTC) + timedelta(days=number)
    identity: dict[str, Any] = {"instance_id": "instance_000", "campaign_id": 7, "post_date": posted}
    values = {metric.column: value_of(metric, number) for metric in metrics}
    silent, heard = post_type(metrics)(post_id=1, **identity), post_type(metrics)(post_id=2, **identity, **values)
    return posts_table([silent, heard], metrics=metrics)


def lake_of(root: Path, history: Sequence[Selection] = HISTORY) -> Lake:
    lake = Lake(str(root))
    for number, metrics in enumerate(history):
        before = files_of(root)
        lake.write("posts", partition(number), posts_of_day(number, metrics))
        assert before.items() <= files_of(root).items()  # what was there is what it was
    return lake


def expected_rows(history: Sequence[Selection] = HISTORY) -> list[dict[str, Any]]:
    """The one table, row by row: what was not asked for is null, as is what was not available."""
    return [
        {
            "post_id": post_id,
            **{
                metric.column: value_of(metric, number) if post_id == 2 and metric in asked_for else None
                for metric in METRICS
            },
        }
        for number, asked_for in enumerate(history)
        for post_id in (1, 2)
    ]


COLUMNS = ["post_id", *(metric.column for metric in METRICS)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return lake_of(tmp_path)


def test_each_file_has_the_columns_that_were_asked_for(lake: Lake) -> None:
    for number, metrics in enumerate(HISTORY):
        facts = lake.facts("posts", partition(number))
        assert facts is not None
        assert list(facts.columns) == posts_schema(metrics).names


def test_the_lake_reads_it_as_one_table(lake: Lake) -> None:
    table = lake.read("posts", lake.partitions("posts"), schema=ALL_OF_IT)
    table.validate(full=True)
    assert table.schema.equals(ALL_OF_IT)
    assert table.select(COLUMNS).to_pylist() == expected_rows()
    narrow = lake.read("posts", lake.partitions("posts"), schema=posts_schema(THREE))
    assert narrow.equals(table.select(narrow.column_names))


def test_arrow_reads_it_as_one_table(lake: Lake, tmp_path: Path) -> None:
    found = lake.dataset("posts", ALL_OF_IT).to_table(columns=COLUMNS)
    assert found.schema.equals(pa.schema([ALL_OF_IT.field(name) for name in COLUMNS]))
    assert sorted_rows(found.to_pylist()) == sorted_rows(expected_rows())
    assert lake.dataset("posts", ALL_OF_IT).count_rows(filter=pa.compute.field("likes") == 11_002) == 1
    plain = pq.read_table(tmp_path / "posts", schema=ALL_OF_IT, partitioning=None)
    assert sorted_rows(plain.select(COLUMNS).to_pylist()) == sorted_rows(expected_rows())


def test_pandas_reads_it_as_one_table(lake: Lake, tmp_path: Path) -> None:
    frame = pd.read_parquet(tmp_path / "posts", schema=ALL_OF_IT, partitioning=None, dtype_backend="pyarrow")
    assert list(frame.columns) == ALL_OF_IT.names
    rows = [
        {name: None if value is pd.NA else value for name, value in row.items()}
        for row in frame[COLUMNS].to_dict("records")
    ]
    assert sorted_rows(rows) == sorted_rows(expected_rows())
    assert {str(frame[metric.column].dtype) for metric in METRICS if metric.kind.is_whole} == {"int64[pyarrow]"}


def test_duckdb_reads_it_as_one_table(lake: Lake, tmp_path: Path) -> None:
    files = f"{tmp_path}/posts/*/*/*.parquet"
    with duckdb.connect(":memory:") as connection:
        found = connection.read_parquet(files, union_by_name=True, hive_partitioning=False).to_arrow_table()
    assert sorted(found.column_names) == sorted(ALL_OF_IT.names)
    assert {str(found.schema.field(metric.column).type) for metric in METRICS} == {"int64", "double"}
    assert sorted_rows(found.select(COLUMNS).to_pylist()) == sorted_rows(expected_rows())


def sorted_rows(rows: list[dict[str, Any]]) -> list[tuple[tuple[str, str], ...]]:
    return sorted(tuple((name, repr(value)) for name, value in row.items()) for row in rows)


# What is written


def test_the_same_answer_to_the_same_metrics_is_not_written_again_and_to_others_it_is(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    before = files_of(tmp_path)
    for number, metrics in enumerate(HISTORY):
        assert not lake.write("posts", partition(number), posts_of_day(number, metrics)).changed
    assert files_of(tmp_path) == before
    nothing = posts_table([], metrics=METRICS)
    assert lake.write("posts", partition(9), nothing).changed
    assert lake.write("posts", partition(9), posts_table([])).changed
    assert not lake.write("posts", partition(9), POSTS_SCHEMA.empty_table()).changed


@pytest.mark.parametrize(("before", "after"), [(DOCUMENT_METRICS, METRICS), (METRICS, THREE), (THREE, ())])
def test_a_review_sees_the_columns_that_both_have(before: Selection, after: Selection, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", partition(0), posts_of_day(0, before))
    seen: list[tuple[pa.Table, pa.Table]] = []
    new = posts_of_day(1, after)
    lake.write_all("posts", {partition(0): new}, review=lambda _, old, now: seen.append((old, now)))
    ((old, now),) = seen
    shared = tuple(metric for metric in before if metric in after)
    assert old.equals(posts_of_day(0, before).select(posts_schema(shared).names))
    assert now.equals(new)


# Compacted months


def compact(lake: Lake) -> list[Any]:
    return list(lake.compact("posts", closed_before=date(2024, 6, 1), now=datetime.now(UTC) + timedelta(hours=1)))


def read_without_daily_files(lake: Lake, days: int, schema: pa.Schema) -> dict[date, pa.Table]:
    """The days that are held by compacted months."""
    with unreadable(Path(lake.url("posts", partition(number))) for number in range(days)):
        found = list(lake.read_days("posts", [partition(number).day for number in range(days)], schema=schema))
    return {read.day: table for read in found for table in read.tables.values()}


def test_a_day_of_other_metrics_than_most_of_its_month_is_read_from_its_own_file(tmp_path: Path) -> None:
    history = [DOCUMENT_METRICS, *[METRICS] * 4, THREE]
    lake = lake_of(tmp_path, history)
    daily = files_of(tmp_path)
    (month,) = compact(lake)
    assert (month.days, month.rows) == (4, 8)
    assert month.left_out == dict.fromkeys((partition(0).day, partition(5).day), OTHER_COLUMNS)
    assert daily.items() <= files_of(tmp_path).items()
    path = tmp_path / compacted_path("posts", FIRST, "instance_000")
    assert pq.read_schema(path).names == ["date", *ALL_OF_IT.names]
    assert [month.changed for month in compact(lake)] == [False]
    for schema in (ALL_OF_IT, POSTS_SCHEMA, posts_schema(THREE)):
        held = read_without_daily_files(lake, 6, schema)
        assert held.keys() == {partition(number).day for number in range(1, 5)}
        for number in range(1, 5):
            assert held[partition(number).day].equals(lake.read("posts", [partition(number)], schema=schema))
    together = lake.read("posts", lake.partitions("posts"), schema=ALL_OF_IT)
    assert together.select(COLUMNS).to_pylist() == expected_rows(history)


@settings(max_examples=20)
@given(st.lists(st.sampled_from([DOCUMENT_METRICS, METRICS, THREE]), min_size=FEWEST_DAYS, max_size=8), selections)
def test_any_month_reads_the_same_after_compaction(
    tmp_path_factory: pytest.TempPathFactory, history: list[Selection], asked_for: Selection
) -> None:
    lake = lake_of(tmp_path_factory.mktemp("lake"), history)
    before = [lake.read("posts", lake.partitions("posts"), schema=posts_schema(each)) for each in (METRICS, asked_for)]
    (month,) = compact(lake)
    alike = max(map(history.count, history))
    assert month.days == (alike if alike >= FEWEST_DAYS else 0)
    after = [lake.read("posts", lake.partitions("posts"), schema=posts_schema(each)) for each in (METRICS, asked_for)]
    assert after == before


def test_what_contradicts_the_others_stays_with_its_daily_file(tmp_path: Path) -> None:
    lake = lake_of(tmp_path, [DOCUMENT_METRICS] * 4)
    other_type = posts_of_day(4, THREE)
    place = other_type.column_names.index("impressions")
    as_text = other_type.set_column(place, "impressions", other_type["impressions"].cast(pa.string()))
    needed = POSTS_SCHEMA.append(pa.field("needed", pa.int64(), nullable=False))
    lake.write("posts", partition(4), as_text)
    lake.write("posts", partition(5), needed.empty_table())
    (month,) = compact(lake)
    assert month.days == 4
    assert month.left_out == {partition(4).day: OTHER_COLUMNS, partition(5).day: OTHER_COLUMNS}
    with pytest.raises(PartitionDamaged, match="impressions as string"):
        lake.read("posts", lake.partitions("posts"), schema=POSTS_SCHEMA)


def test_the_documents_metrics_have_the_content_that_they_always_had() -> None:
    assert content_hash_of(POSTS_SCHEMA.empty_table()).startswith("536bfd0296bd")
