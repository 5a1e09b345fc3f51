import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from later_reporting_dagster.lake import (
    POST_COLUMNS,
    Column,
    Lake,
    LibraryNotInstalled,
    Partition,
    Table,
    partition_path,
    read_frame,
    schema_of,
)
from tests.lake.awkward_lake import COLUMNS, DAYS, PARTITIONS, POSTS, Row, lake_at, rows_of


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return lake_at(str(tmp_path / "lake"))


def pandas_rows(frame: pd.DataFrame, names: list[str]) -> list[Row]:
    return [
        {
            name: None if value is pd.NA else value.date() if isinstance(value, pd.Timestamp) else value
            for name, value in row.items()
        }
        for row in frame[names].astype(object).to_dict("records")
    ]


# Each type, and how its library converts some columns to Python rows.
KINDS: dict[type, Callable[[Any, list[str]], list[Row]]] = {
    pd.DataFrame: pandas_rows,
    pa.Table: lambda table, names: table.select(names).to_pylist(),
    ds.Dataset: lambda dataset, names: dataset.to_table(columns=names).to_pylist(),
    pl.DataFrame: lambda frame, names: frame.select(names).to_dicts(),
    pl.LazyFrame: lambda frame, names: frame.select(names).collect().to_dicts(),
    duckdb.DuckDBPyRelation: lambda relation, names: relation.select(*names).to_arrow_table().to_pylist(),
}
LAZY = (ds.Dataset, pl.LazyFrame, duckdb.DuckDBPyRelation)


def rows_in(frame: Any, names: list[str] = COLUMNS) -> list[Row]:
    (kind,) = (kind for kind in KINDS if isinstance(frame, kind))
    return KINDS[kind](frame, names)


every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")


@every_kind
@pytest.mark.parametrize(
    "partitions",
    [
        pytest.param([each for each in PARTITIONS if each.instance_id == "007"], id="an instance"),
        pytest.param(PARTITIONS, id="all"),
    ],
)
def test_frame_has_exactly_the_rows_of_the_partitions(kind: type, partitions: list[Partition], lake: Lake) -> None:
    loaded = read_frame(kind, lake, POSTS, partitions)
    assert isinstance(loaded, kind)
    rows = rows_in(loaded)
    expected = [row for partition in partitions for row in rows_of(partition)]
    assert sorted(map(repr, rows)) == sorted(map(repr, expected))
    if kind not in LAZY:
        assert rows == expected


@every_kind
def test_frame_of_an_unpartitioned_table_has_all_rows_and_no_date(kind: type, lake: Lake) -> None:
    window = Table("window", POST_COLUMNS, is_partitioned=False)
    columns = COLUMNS[1:]
    assert rows_in(read_frame(kind, lake, window, []), columns) == []
    lake.write_table("window", lake.read(POSTS.name, PARTITIONS[:1], schema=schema_of(POST_COLUMNS)))
    expected = [{name: row[name] for name in columns} for row in rows_of(PARTITIONS[0])]
    assert rows_in(read_frame(kind, lake, window, []), columns) == expected


@pytest.mark.parametrize(
    "rows",
    [
        lambda lake: read_frame(ds.Dataset, lake, POSTS, PARTITIONS).to_table(
            filter=(ds.field("date") > pa.scalar(DAYS[0])) & (ds.field("instance_id") == "007")
        ),
        lambda lake: (
            read_frame(pl.LazyFrame, lake, POSTS, PARTITIONS)
            .filter((pl.col("date") > DAYS[0]) & (pl.col("instance_id") == "007"))
            .collect()
        ),
        lambda lake: (
            read_frame(duckdb.DuckDBPyRelation, lake, POSTS, PARTITIONS)
            .filter(f"date > DATE '{DAYS[0]}' AND instance_id = '007'")
            .to_arrow_table()
        ),
    ],
    ids=["arrow", "polars", "duckdb"],
)
def test_lazy_frame_opens_no_file_that_its_filter_excludes(
    rows: Callable[[Lake], Any], lake: Lake, tmp_path: Path
) -> None:
    for partition in PARTITIONS:
        if partition.day == DAYS[0] or partition.instance_id != "007":
            (tmp_path / "lake" / partition_path(POSTS.name, partition)).write_bytes(b"no Parquet")
    assert len(rows(lake)) == 3 * 2


def test_pandas_columns_have_nullable_types(lake: Lake) -> None:
    types = read_frame(pd.DataFrame, lake, POSTS, PARTITIONS).dtypes
    assert {str(types[name]) for name in ("post_id", "impressions")} == {"Int64"}
    assert str(types["cpm"]) == "Float64"
    assert types["extra"] == pd.StringDtype(na_value=pd.NA)
    assert str(types["post_date"]) == "datetime64[us, UTC]"
    assert types["date"].kind == "M"


def test_pandas_booleans_keep_nulls(lake: Lake) -> None:
    flags = Table("flags", (Column("flag", "bool", True, "A flag"),), is_partitioned=False)
    lake.write_table(flags.name, pa.table({"flag": [True, None]}))
    assert read_frame(pd.DataFrame, lake, flags, [])["flag"].dtype == pd.BooleanDtype()


def test_duckdb_relations_can_be_joined_and_named_in_sql(lake: Lake) -> None:
    of_instance = [each for each in PARTITIONS if each.instance_id == "007"]
    day = read_frame(duckdb.DuckDBPyRelation, lake, POSTS, PARTITIONS[:1])
    instance = read_frame(duckdb.DuckDBPyRelation, lake, POSTS, of_instance)
    assert day.set_alias("d").join(instance.set_alias("i"), "d.post_id = i.post_id").count("*").fetchall() == [(9,)]
    assert duckdb.sql("SELECT count(*) FROM day JOIN instance USING (post_id)").fetchall() == [(9,)]


@pytest.mark.parametrize("kind", [dict, Any, pd.DataFrame | None, pl.Series])
def test_unsupported_type_is_rejected_with_the_supported_ones(kind: Any, lake: Lake) -> None:
    with pytest.raises(TypeError, match="is not supported: use one of pandas.DataFrame, pyarrow.Table, ") as rejected:
        read_frame(kind, lake, POSTS, PARTITIONS)
    assert "\n" not in str(rejected.value)
    assert str(rejected.value).endswith(", polars.DataFrame, polars.LazyFrame, duckdb.DuckDBPyRelation")


def test_missing_library_is_reported_with_its_installation(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(LibraryNotInstalled) as missing:
        read_frame(pl.DataFrame, lake, POSTS, PARTITIONS)
    assert str(missing.value) == "polars is not installed: pip install polars"
