from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.lake import POSTS_SCHEMA, FileDamaged
from later_reporting_dagster.lake.parquet_file import (
    content_hash_of,
    from_parquet,
    has_content,
    parse_metadata,
    to_parquet,
)
from tests.lake.conftest import rows

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        ("count", pa.int64()),
        ("money", pa.float64()),
        ("listed", pa.bool_()),
        ("day", pa.date32()),
        ("when", pa.timestamp("us", "UTC")),
        ("text", pa.string()),
    ]
)
INT64 = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.text(max_size=4),
            "count": st.none() | INT64,
            "money": st.none() | st.floats(allow_nan=False),
            "listed": st.none() | st.booleans(),
            "day": st.none() | st.dates(),
            "when": st.none() | st.datetimes(timezones=st.just(UTC)),
            "text": st.none() | st.text(max_size=4),
        }
    ),
    max_size=8,
)


def table_of(values: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(values, schema=SCHEMA)


def parquet_of(table: pa.Table, **key_values: str) -> bytes:
    return to_parquet(table, content_hash=content_hash_of(table), key_values=key_values)


@given(ROWS)
def test_to_parquet_and_from_parquet_round_trip(values: list[dict[str, object]]) -> None:
    table = table_of(values)
    read = from_parquet(parquet_of(table), schema=SCHEMA)
    assert read.equals(table)
    assert read.schema.equals(SCHEMA, check_metadata=True)


@given(ROWS, ROWS)
def test_content_hashes_are_equal_exactly_for_equal_tables(
    left: list[dict[str, object]], right: list[dict[str, object]]
) -> None:
    one, other = table_of(left), table_of(right)
    same = repr(one.to_pylist()) == repr(other.to_pylist())  # repr distinguishes 0.0 and -0.0
    assert (content_hash_of(one) == content_hash_of(other)) == same


@given(ROWS, st.data())
def test_content_hash_and_bytes_do_not_depend_on_chunks(values: list[dict[str, object]], data: st.DataObject) -> None:
    table = table_of(values)
    cut = data.draw(st.integers(0, len(values)))
    padded = pa.concat_tables([table, table.slice(0, cut), table.slice(cut), table]).slice(len(values), len(values))
    assert content_hash_of(padded) == content_hash_of(table)
    assert parquet_of(padded) == parquet_of(table)


def test_content_hash_is_stable_across_versions() -> None:
    table = table_of(
        [
            {"key": "a", "count": 1, "money": 0.5, "when": datetime(2024, 1, 3, tzinfo=UTC), "text": "é"},
            {"key": "b", "count": None, "money": None, "when": None, "text": None},
        ]
    )
    without_added_types = table.drop_columns(["listed", "day"])
    assert content_hash_of(without_added_types) == "7f6517c48419322c40ceb4e9a597ec7b6374b15aca9ed36d9011de30e024bdd7"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pa.table({"a": pa.array([0])}), pa.table({"a": pa.array([None], pa.int64())})),
        (pa.table({"a": pa.array([""])}), pa.table({"a": pa.array([None], pa.string())})),
        (pa.table({"a": pa.array([0])}), pa.table({"a": pa.array([0.0])})),
        (pa.table({"a": pa.array([0])}), pa.table({"a": pa.array([False])})),
        (pa.table({"a": pa.array([False])}), pa.table({"a": pa.array([None], pa.bool_())})),
        (pa.table({"a": pa.array([0])}), pa.table({"b": pa.array([0])})),
        (pa.table({"a": pa.array([0])}), pa.table({"a": pa.array([0], pa.date32())})),
        (pa.table({"a": pa.array(["xy", "z"])}), pa.table({"a": pa.array(["x", "yz"])})),
        (pa.table({"a": pa.array([1, 2])}), pa.table({"a": pa.array([2, 1])})),
        (pa.table({"a": pa.array([], pa.int64())}), pa.table({"a": pa.array([], pa.float64())})),
    ],
)
def test_content_hash_distinguishes(left: pa.Table, right: pa.Table) -> None:
    assert content_hash_of(left) != content_hash_of(right)


def test_content_hash_rejects_other_column_types() -> None:
    with pytest.raises(TypeError, match="int64, float64, bool, days, instants and strings only"):
        content_hash_of(pa.table({"a": [b"bytes"]}))


def test_metadata_are_parquet_key_values_with_a_prefix() -> None:
    table = rows(3)
    data = parquet_of(table, fetched_at="2024-01-04T05:00:00Z", queries="[…]")
    assert pq.ParquetFile(pa.BufferReader(data)).metadata.metadata == {
        b"later_reporting.content_hash": content_hash_of(table).encode(),
        b"later_reporting.fetched_at": b"2024-01-04T05:00:00Z",
        b"later_reporting.queries": "[…]".encode(),
    }
    metadata = parse_metadata(data)
    assert (metadata.rows, metadata.bytes, metadata.content_hash) == (3, len(data), content_hash_of(table))
    assert metadata.key_values == {"fetched_at": "2024-01-04T05:00:00Z", "queries": "[…]"}


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (pa.field("impressions", pa.float64()), "column impressions is int64, not double"),
        (pa.field("saves", pa.int64(), nullable=False), "column saves is missing"),
    ],
)
def test_from_parquet_raises_on_a_missing_or_mistyped_column(field: pa.Field, reason: str) -> None:
    with pytest.raises(FileDamaged, match=reason):
        from_parquet(parquet_of(rows()), schema=pa.schema([field]))


@pytest.mark.parametrize("size", [0, 3, 11, 100, -100, -1])
def test_truncated_file_is_neither_intact_nor_readable(size: int) -> None:
    table = rows()
    truncated = parquet_of(table)[:size]
    assert not has_content(truncated, content_hash_of(table))
    with pytest.raises(FileDamaged, match="cannot be read as Parquet"):
        from_parquet(truncated, schema=POSTS_SCHEMA)
    with pytest.raises(FileDamaged, match="cannot be read as Parquet"):
        parse_metadata(truncated)
