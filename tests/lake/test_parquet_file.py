from datetime import UTC, datetime
from itertools import accumulate
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.lake import POSTS_SCHEMA, PartitionDamaged, content_hash_of
from later_reporting_dagster.lake.parquet_file import facts_of, from_parquet, is_faithful, to_parquet
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


def parquet_of(table: pa.Table, **facts: str) -> bytes:
    return to_parquet(table, content_hash=content_hash_of(table), facts=facts)


@given(ROWS)
def test_a_table_comes_back_from_its_file_as_it_was(values: list[dict[str, object]]) -> None:
    table = table_of(values)
    back = from_parquet(parquet_of(table), schema=SCHEMA)
    assert back.equals(table)
    assert back.schema.equals(SCHEMA, check_metadata=True)


@given(ROWS, ROWS)
def test_two_tables_have_one_hash_exactly_when_they_hold_the_same(
    left: list[dict[str, object]], right: list[dict[str, object]]
) -> None:
    one, other = table_of(left), table_of(right)
    same = repr(one.to_pylist()) == repr(other.to_pylist())  # by repr, for which 0.0 and -0.0 are two
    assert (content_hash_of(one) == content_hash_of(other)) == same


@given(ROWS, st.data())
def test_the_hash_and_the_file_do_not_depend_on_chunks(values: list[dict[str, object]], data: st.DataObject) -> None:
    table = table_of(values)
    cut = data.draw(st.integers(0, len(values)))
    padded = pa.concat_tables([table.slice(0, cut), table.slice(cut), table]).slice(0, len(values))
    assert content_hash_of(padded) == content_hash_of(table)
    assert parquet_of(padded) == parquet_of(table)


@given(st.lists(ROWS, max_size=4))
def test_slices_of_one_table_have_the_hashes_and_the_files_of_tables_of_their_own(groups: list[list[Any]]) -> None:
    alone = [table_of(values) for values in groups]
    whole = table_of([row for values in groups for row in values])
    starts = accumulate(map(len, groups), initial=0)
    slices = [whole.slice(start, len(values)) for start, values in zip(starts, groups, strict=False)]
    assert [content_hash_of(table) for table in slices] == [content_hash_of(table) for table in alone]
    assert [parquet_of(table) for table in slices] == [parquet_of(table) for table in alone]


def test_the_hash_of_a_table_is_this_one_whatever_the_version_of_anything() -> None:
    table = table_of(
        [
            {"key": "a", "count": 1, "money": 0.5, "when": datetime(2024, 1, 3, tzinfo=UTC), "text": "é"},
            {"key": "b", "count": None, "money": None, "when": None, "text": None},
        ]
    )
    older_types = table.drop_columns(["listed", "day"])
    assert content_hash_of(older_types) == "7f6517c48419322c40ceb4e9a597ec7b6374b15aca9ed36d9011de30e024bdd7"


def test_the_hash_does_not_depend_on_where_blocks_of_rows_begin_in_memory() -> None:
    table = rows(70_000)  # more than one block
    assert content_hash_of(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == content_hash_of(table)
    assert content_hash_of(table.slice(0, 69_999)) != content_hash_of(table)


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
def test_the_hash_tells_apart(left: pa.Table, right: pa.Table) -> None:
    assert content_hash_of(left) != content_hash_of(right)


def test_a_column_type_that_the_lake_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="int64, float64, bool, days, instants and strings only"):
        content_hash_of(pa.table({"a": [b"bytes"]}))


def test_facts_are_in_the_files_own_metadata_under_the_projects_name() -> None:
    table = rows(3)
    data = parquet_of(table, fetched_at="2024-01-04T05:00:00Z", queries="[…]")
    assert pq.ParquetFile(pa.BufferReader(data)).metadata.metadata == {
        b"later_reporting.content_hash": content_hash_of(table).encode(),
        b"later_reporting.fetched_at": b"2024-01-04T05:00:00Z",
        b"later_reporting.queries": "[…]".encode(),
    }
    facts = facts_of(data)
    assert (facts.rows, facts.bytes, facts.content_hash) == (3, len(data), content_hash_of(table))
    assert facts.facts == {"fetched_at": "2024-01-04T05:00:00Z", "queries": "[…]"}


def test_the_same_rows_and_facts_give_the_same_bytes_in_whatever_order_the_facts_come() -> None:
    assert parquet_of(rows(), a="1", b="2") == parquet_of(rows(), b="2", a="1")
    assert parquet_of(rows(), a="1") != parquet_of(rows(), a="2")


def test_any_reader_finds_the_exact_schema_in_a_file_with_and_without_rows() -> None:
    for count in (0, 5):
        assert pq.ParquetFile(pa.BufferReader(parquet_of(rows(count)))).schema_arrow.equals(POSTS_SCHEMA)


def test_a_small_file_is_small() -> None:
    assert len(parquet_of(rows(20))) < 4_000


@pytest.mark.parametrize(("count", "codec"), [(0, "SNAPPY"), (20, "SNAPPY"), (256, "SNAPPY"), (257, "ZSTD")])
def test_a_file_is_compressed_for_speed_when_it_is_small_and_for_size_when_it_is_large(count: int, codec: str) -> None:
    footer = pq.ParquetFile(pa.BufferReader(parquet_of(rows(count)))).metadata
    assert {footer.row_group(0).column(column).compression for column in range(footer.num_columns)} == {codec}


def test_a_schema_of_fewer_columns_reads_just_those_in_its_own_order() -> None:
    schema = pa.schema([POSTS_SCHEMA.field("impressions"), POSTS_SCHEMA.field("post_id")])
    assert from_parquet(parquet_of(rows()), schema=schema).equals(rows().select(["impressions", "post_id"]))


def test_a_column_younger_than_the_file_is_null() -> None:
    younger = POSTS_SCHEMA.append(pa.field("saves", pa.int64()))
    table = from_parquet(parquet_of(rows(2)), schema=younger)
    assert table.column("saves").to_pylist() == [None, None]
    assert table.schema.equals(younger)


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (pa.field("impressions", pa.float64()), "it holds impressions as int64, not double"),
        (pa.field("saves", pa.int64(), nullable=False), "it has no column saves"),
    ],
)
def test_a_file_that_breaks_the_schema_is_refused_not_converted(field: pa.Field, reason: str) -> None:
    with pytest.raises(PartitionDamaged, match=reason):
        from_parquet(parquet_of(rows()), schema=pa.schema([field]))


def test_a_file_is_faithful_only_to_its_own_rows_schema_and_hash() -> None:
    table = rows()
    content_hash = content_hash_of(table)
    data = parquet_of(table)
    assert is_faithful(data, table, content_hash=content_hash)
    assert not is_faithful(data, table, content_hash="another")
    assert not is_faithful(parquet_of(table.slice(1)), table, content_hash=content_hash)
    lax = table.cast(pa.schema([field.with_nullable(True) for field in POSTS_SCHEMA]))
    assert not is_faithful(data, lax, content_hash=content_hash)


def test_a_file_whose_values_differ_from_its_stated_hash_is_not_faithful() -> None:
    table, other = rows(20), rows(20, cpe=1.0)
    forged = to_parquet(other, content_hash=content_hash_of(table), facts={})
    assert not is_faithful(forged, table, content_hash=content_hash_of(table))


def test_a_number_that_equals_nothing_is_faithful_all_the_same() -> None:
    table = pa.table({"a": [float("nan")]})
    assert is_faithful(parquet_of(table), table, content_hash=content_hash_of(table))


@pytest.mark.parametrize("size", [0, 3, 11, 100, -100, -1])
def test_a_file_cut_off_anywhere_is_not_faithful_and_not_readable(size: int) -> None:
    table = rows()
    cut = parquet_of(table)[:size]
    assert not is_faithful(cut, table, content_hash=content_hash_of(table))
    with pytest.raises(PartitionDamaged, match="cannot be read as Parquet"):
        from_parquet(cut, schema=POSTS_SCHEMA)
    with pytest.raises(PartitionDamaged, match="cannot be read as Parquet"):
        facts_of(cut)


def test_a_value_that_rots_is_noticed_by_the_checksum_of_its_page() -> None:
    numbers = Random(0)
    table = pa.table({"a": [numbers.getrandbits(62) for _ in range(20)]})
    data = bytearray(parquet_of(table))
    column = pq.ParquetFile(pa.BufferReader(bytes(data))).metadata.row_group(0).column(0)
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    with pytest.raises(PartitionDamaged, match="cannot be read as Parquet: .*checksum"):
        from_parquet(bytes(data), schema=table.schema)
