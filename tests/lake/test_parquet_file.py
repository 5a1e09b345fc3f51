from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import DEFAULT_METRICS, Post
from later_reporting_dagster.contract.parameters import network_of
from later_reporting_dagster.contract.rows import CreatorProfile
from later_reporting_dagster.lake import POSTS_SCHEMA, FileDamaged, posts_table
from later_reporting_dagster.lake.parquet_file import (
    content_hash_of,
    from_parquet,
    has_rows,
    parse_metadata,
    to_parquet,
)
from later_reporting_dagster.lake.tables import POSTS_PUBLISHED, rows_by_group
from tests.client.scripted_api import post_parser
from tests.contract.test_post import rows as json_rows
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
        ("names", pa.list_(pa.field("element", pa.string()))),  # as Parquet calls an item
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
            "names": st.none() | st.lists(st.text(max_size=3), min_size=1, max_size=3),
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


@given(ROWS, st.data())
def test_a_column_is_a_dictionary_in_memory_and_plain_texts_in_the_file(
    values: list[dict[str, object]], data: st.DataObject
) -> None:
    table = table_of(values)
    text = SCHEMA.get_field_index("text")
    schema = SCHEMA.set(text, pa.field("text", pa.dictionary(pa.int32(), pa.string())))
    cut = data.draw(st.integers(0, len(values)))
    encoded = pa.concat_tables([table.slice(0, cut).cast(schema), table.slice(cut).cast(schema)])
    assert content_hash_of(encoded) == content_hash_of(table)
    file = parquet_of(encoded)
    assert file == parquet_of(table)
    read = from_parquet(file, schema=schema)
    assert read.schema.equals(schema, check_metadata=True)
    assert read.to_pylist() == table.to_pylist()
    assert from_parquet(file, schema=SCHEMA).equals(table)
    without = from_parquet(parquet_of(table.drop_columns(["text"])), schema=schema)
    assert without.schema.equals(schema)
    assert without["text"].null_count == len(table)
    assert has_rows(file, content_hash_of(table), expected=encoded)
    assert has_rows(file, content_hash_of(table))


def test_content_hash_is_stable_across_versions() -> None:
    table = table_of(
        [
            {"key": "a", "count": 1, "money": 0.5, "when": datetime(2024, 1, 3, tzinfo=UTC), "text": "é"},
            {"key": "b", "count": None, "money": None, "when": None, "text": None},
        ]
    )
    without_added_types = table.drop_columns(["listed", "day", "names"])
    assert content_hash_of(without_added_types) == "7f6517c48419322c40ceb4e9a597ec7b6374b15aca9ed36d9011de30e024bdd7"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pa.table({"a": pa.array([0])}), pa.table({"a": pa.array([None], pa.int64())})),
        (pa.table({"a": pa.array([0])}), pa.table({"a": pa.array([0.0])})),
        (pa.table({"a": pa.array([0])}), pa.table({"a": pa.array([False])})),
        (pa.table({"a": pa.array([0])}), pa.table({"b": pa.array([0])})),
        (pa.table({"a": pa.array([0])}), pa.table({"a": pa.array([0], pa.date32())})),
        (pa.table({"a": pa.array(["xy", "z"])}), pa.table({"a": pa.array(["x", "yz"])})),
        (pa.table({"a": pa.array([1, 2])}), pa.table({"a": pa.array([2, 1])})),
    ],
)
def test_content_hash_distinguishes(left: pa.Table, right: pa.Table) -> None:
    assert content_hash_of(left) != content_hash_of(right)


def test_metadata_with_a_flipped_bit_that_is_no_text_is_damaged() -> None:
    data = to_parquet(rows(3), content_hash="0" * 64, key_values={})
    at = data.index(b"0" * 64)
    with pytest.raises(FileDamaged, match="metadata is not text"):
        parse_metadata(data[:at] + b"\xff" + data[at + 1 :])


def test_metadata_are_parquet_key_values_with_a_prefix() -> None:
    table = rows(3)
    data = parquet_of(table, fetched_at="2024-01-04T05:00:00Z", queries='["…"]')
    assert pq.ParquetFile(pa.BufferReader(data)).metadata.metadata == {
        b"later_reporting.content_hash": content_hash_of(table).encode(),
        b"later_reporting.fetched_at": b"2024-01-04T05:00:00Z",
        b"later_reporting.queries": '["…"]'.encode(),
    }
    metadata = parse_metadata(data)
    assert (metadata.rows, metadata.content_hash) == (3, content_hash_of(table))
    assert metadata.key_values == {"fetched_at": "2024-01-04T05:00:00Z", "queries": '["…"]'}


# Posts as rows of a table

posts = st.lists(json_rows().map(post_parser()), max_size=4)


@given(posts)
def test_posts_table_holds_all_values_sorted_by_key(sample: list[Post]) -> None:
    table = posts_table(sample)
    assert table.schema.equals(POSTS_SCHEMA, check_metadata=True)
    table.validate(full=True)
    expected = sorted(sample, key=lambda each: each.key)
    for row, each in zip(table.to_pylist(), expected, strict=True):
        profile = each.creator_profile or CreatorProfile()
        for name in set(POSTS_SCHEMA.names) - {"platform"}:
            is_of_creator = name.startswith("creator_") and name != "creator_id"
            assert row[name] == (getattr(profile, name[len("creator_") :]) if is_of_creator else getattr(each, name))
        assert row["platform"] == network_of(each.content_type)


@given(st.lists(posts, max_size=4))
def test_rows_by_group_equals_posts_table_of_each_group(groups: list[list[Post]]) -> None:
    together = rows_by_group(POSTS_PUBLISHED, dict(enumerate(groups)), metrics=DEFAULT_METRICS)
    assert list(together) == list(range(len(groups)))
    for table, members in zip(together.values(), groups, strict=True):
        table.validate(full=True)
        assert table.equals(posts_table(members), check_metadata=True)
