"""A table as whatever somebody computes with: the same rows, exact, with nulls, and no more of them than were asked."""

import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from later_reporting_dagster.lake import POST_COLUMNS, Lake, Partition, Table, partition_path, schema_of
from later_reporting_dagster.reading import NotInstalled, frame
from tests.reading.conftest import COLUMNS, DAYS, INSTANCES, PARTITIONS, POSTS, Row, rows_of


def of_pandas(frame: pd.DataFrame, names: list[str]) -> list[Row]:
    return [
        {
            name: None if value is pd.NA else value.date() if isinstance(value, pd.Timestamp) else value
            for name, value in row.items()
        }
        for row in frame[names].astype(object).to_dict("records")
    ]


# Each type, and how columns of it are had as plain Python, by that library alone.
KINDS: dict[type, Callable[[Any, list[str]], list[Row]]] = {
    pd.DataFrame: of_pandas,
    pa.Table: lambda table, names: table.select(names).to_pylist(),
    ds.Dataset: lambda dataset, names: dataset.to_table(columns=names).to_pylist(),
    pl.DataFrame: lambda frame, names: frame.select(names).to_dicts(),
    pl.LazyFrame: lambda frame, names: frame.select(names).collect().to_dicts(),
    duckdb.DuckDBPyRelation: lambda relation, names: relation.select(*names).to_arrow_table().to_pylist(),
}
LAZY = (ds.Dataset, pl.LazyFrame, duckdb.DuckDBPyRelation)


def rows_in(made: Any, names: list[str] = COLUMNS) -> list[Row]:
    (kind,) = (kind for kind in KINDS if isinstance(made, kind))
    return KINDS[kind](made, names)


every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")


@every_kind
@pytest.mark.parametrize(
    "partitions",
    [
        pytest.param(PARTITIONS[:1], id="one"),
        pytest.param([each for each in PARTITIONS if each.instance_id == "007"], id="an instance"),
        pytest.param(PARTITIONS[2:5], id="a range"),
        pytest.param(PARTITIONS, id="all"),
    ],
)
def test_it_has_the_rows_of_just_these_partitions_exactly(kind: type, partitions: list[Partition], lake: Lake) -> None:
    loaded = frame(kind, lake, POSTS, partitions)
    assert isinstance(loaded, kind)
    rows = rows_in(loaded)
    expected = [row for partition in partitions for row in rows_of(partition)]
    assert sorted(map(repr, rows)) == sorted(map(repr, expected))
    if kind not in LAZY:
        assert rows == expected


@every_kind
def test_a_table_without_partitions_has_the_columns_and_no_rows(kind: type, lake: Lake) -> None:
    assert rows_in(frame(kind, lake, POSTS, [])) == []
    assert rows_in(frame(kind, lake, POSTS, [Partition(date(2020, 1, 1), "007")])) == []


@every_kind
def test_a_table_that_has_no_partitions_is_had_whole_and_without_a_date(kind: type, lake: Lake) -> None:
    window = Table("window", POST_COLUMNS, is_partitioned=False)
    columns = COLUMNS[1:]
    assert rows_in(frame(kind, lake, window, []), columns) == []
    lake.write_table("window", lake.read(POSTS.name, PARTITIONS[:1], schema=schema_of(POST_COLUMNS)))
    expected = [{name: row[name] for name in columns} for row in rows_of(PARTITIONS[0])]
    assert rows_in(frame(kind, lake, window, []), columns) == expected


@every_kind
def test_no_file_of_another_partition_is_opened(kind: type, lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "lake" / partition_path(POSTS.name, PARTITIONS[0])).write_bytes(b"no Parquet")
    assert len(rows_in(frame(kind, lake, POSTS, PARTITIONS[1:]))) == 3 * len(PARTITIONS[1:])


@pytest.mark.parametrize(
    "rows",
    [
        lambda lake: frame(ds.Dataset, lake, POSTS, PARTITIONS).to_table(
            filter=(ds.field("date") > pa.scalar(DAYS[0])) & (ds.field("instance_id") == "007")
        ),
        lambda lake: (
            frame(pl.LazyFrame, lake, POSTS, PARTITIONS)
            .filter((pl.col("date") > DAYS[0]) & (pl.col("instance_id") == "007"))
            .collect()
        ),
        lambda lake: (
            frame(duckdb.DuckDBPyRelation, lake, POSTS, PARTITIONS)
            .filter(f"date > DATE '{DAYS[0]}' AND instance_id = '007'")
            .to_arrow_table()
        ),
    ],
    ids=["arrow", "polars", "duckdb"],
)
def test_what_is_lazy_opens_no_file_that_its_filter_leaves_out(
    rows: Callable[[Lake], Any], lake: Lake, tmp_path: Path
) -> None:
    for partition in PARTITIONS:
        if partition.day == DAYS[0] or partition.instance_id != "007":
            (tmp_path / "lake" / partition_path(POSTS.name, partition)).write_bytes(b"no Parquet")
    assert len(rows(lake)) == 3 * 2


def test_pandas_has_types_with_a_null_of_their_own(lake: Lake) -> None:
    types = frame(pd.DataFrame, lake, POSTS, PARTITIONS).dtypes
    assert {str(types[name]) for name in ("post_id", "impressions")} == {"Int64"}
    assert str(types["cpm"]) == "Float64"
    assert types["extra"] == pd.StringDtype(na_value=pd.NA)
    assert str(types["post_date"]) == "datetime64[us, UTC]"
    assert types["date"].kind == "M"


def test_instants_are_in_utc(lake: Lake) -> None:
    rows = frame(pl.DataFrame, lake, POSTS, PARTITIONS[:1])
    assert rows["post_date"].to_list()[0] == datetime(2024, 1, 3, tzinfo=UTC)
    assert rows.schema["post_date"] == pl.Datetime("us", "UTC")


def test_relations_can_be_joined_and_named_in_sql(lake: Lake) -> None:
    day = frame(duckdb.DuckDBPyRelation, lake, POSTS, PARTITIONS[:1])
    instance = frame(duckdb.DuckDBPyRelation, lake, POSTS, [each for each in PARTITIONS if each.instance_id == "007"])
    assert day.set_alias("d").join(instance.set_alias("i"), "d.post_id = i.post_id").count("*").fetchall() == [(9,)]
    assert duckdb.sql("SELECT count(*) FROM day JOIN instance USING (post_id)").fetchall() == [(9,)]


@pytest.mark.parametrize("kind", [dict, Any, pd.DataFrame | None, pd.Series, pl.Series, list[pa.Table]])
def test_another_type_is_refused_with_those_that_are_known(kind: Any, lake: Lake) -> None:
    with pytest.raises(TypeError, match="is none of pandas.DataFrame, pyarrow.Table, ") as refused:
        frame(kind, lake, POSTS, PARTITIONS)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(", polars.DataFrame, polars.LazyFrame, duckdb.DuckDBPyRelation")


def test_a_library_that_is_missing_is_a_line_that_says_how_to_install_it(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(NotInstalled) as missing:
        frame(pl.DataFrame, lake, POSTS, PARTITIONS)
    assert str(missing.value) == (
        "polars is not installed: pip install 'later-reporting-dagster[polars]', or polars alone"
    )


@pytest.mark.parametrize("instance_id", INSTANCES)
def test_ids_stay_text(instance_id: str, lake: Lake) -> None:
    found = frame(pd.DataFrame, lake, POSTS, [Partition(DAYS[0], instance_id)])
    assert found["instance_id"].tolist() == [instance_id] * 3
