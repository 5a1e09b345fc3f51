"""The one schema of the lake's posts, so that every file, reader and page of documentation says the same."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from later_reporting_dagster.contract import CreatorProfile, Post, platform_of
from later_reporting_dagster.lake.columns import POST_COLUMNS, POST_KEY, Column, ColumnType

_Group = TypeVar("_Group")

_ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC"),
}


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of a dictionary's columns, without metadata."""
    return pa.schema([pa.field(column.name, _ARROW_TYPES[column.type], column.nullable) for column in columns])


POSTS_SCHEMA: pa.Schema = schema_of(POST_COLUMNS)


def posts_table(posts: Sequence[Post]) -> pa.Table:
    """Posts as rows of `POSTS_SCHEMA`, sorted by `POST_KEY`; text sorts by code point, as Arrow sorts it.

    Nulls stay null and counts stay exact 64-bit integers. Instants are kept to the microsecond, in UTC.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit its column. Posts read by the contract always do.
    """
    return posts_tables({None: posts})[None]


def posts_tables(posts: Mapping[_Group, Sequence[Post]]) -> dict[_Group, pa.Table]:
    """The `posts_table` of each group. They are made together, as slices of one: most partitions are small.

    Raises:
        pyarrow.ArrowInvalid: as `posts_table`.
    """
    ordered: list[Post] = []
    bounds: dict[_Group, tuple[int, int]] = {}
    for group, members in posts.items():
        rows = list(members)
        for name in reversed(POST_KEY):  # a stable sort by each part, the last one first: much faster than by tuples
            rows.sort(key=attrgetter(name))
        bounds[group] = (len(ordered), len(rows))
        ordered += rows
    blocks = (ordered[start : start + _BLOCK] for start in range(0, len(ordered) or 1, _BLOCK))
    table = pa.concat_tables(map(_rows, blocks)).combine_chunks()
    return {group: table.slice(start, count) for group, (start, count) in bounds.items()}


def _rows(posts: Sequence[Post]) -> pa.Table:
    creators = [post.creator_profile or _NOBODY for post in posts]
    values = _values(Post.__struct_fields__, posts) | _values(_OF_CREATOR, creators)
    platforms = {content_type: platform_of(content_type) for content_type in set(values["content_type"])}
    values["platform"] = [platforms[content_type] for content_type in values["content_type"]]
    columns: dict[str, pa.Array] = {}
    for type_, names in _NAMES_OF_TYPE.items():
        # Columns of one type are made together: most partitions are small, and there each call is what costs.
        together = pa.array(list(chain.from_iterable(values[name] for name in names)), type=type_)
        columns |= {name: together.slice(index * len(posts), len(posts)) for index, name in enumerate(names)}
    return pa.Table.from_arrays([columns[name] for name in POSTS_SCHEMA.names], schema=POSTS_SCHEMA)


def _values(names: Sequence[str], structs: Sequence[msgspec.Struct]) -> dict[str, Sequence[Any]]:
    columns = zip(*map(msgspec.structs.astuple, structs), strict=True) if structs else [()] * len(names)
    return dict(zip(names, columns, strict=True))


# Few enough posts for what is made of them to stay in the processor's cache, and for their tuples not to wake the
# garbage collector, which would look through all posts time and again.
_BLOCK = 500
_NAMES_OF_TYPE: dict[pa.DataType, list[str]] = {}
for _field in POSTS_SCHEMA:
    _NAMES_OF_TYPE.setdefault(_field.type, []).append(_field.name)
_NOBODY = CreatorProfile()
_OF_CREATOR = tuple(f"creator_{attribute}" for attribute in CreatorProfile.__struct_fields__)
