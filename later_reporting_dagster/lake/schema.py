"""The schemas of the lake's posts, so that every file, reader and page of documentation says the same.

Which metrics were asked for decides which columns a file has, and nothing else does: files of different selections have
the columns that they share in the same order and of the same types, and read as one table.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

import pyarrow as pa

from later_reporting_dagster.contract import DOCUMENT_METRICS, CreatorProfile, Metric, Post, platform_of
from later_reporting_dagster.lake.columns import POST_KEY, Column, ColumnType, post_columns

_Group = TypeVar("_Group")

_ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date32[day]": pa.date32(),
    "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC"),
}


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of a dictionary's columns, without metadata."""
    return pa.schema([pa.field(column.name, _ARROW_TYPES[column.type], column.nullable) for column in columns])


@lru_cache
def posts_schema(metrics: tuple[Metric, ...], /) -> pa.Schema:
    """The schema of posts of which `metrics` were asked for. Read by that of all, any lake of posts is one table."""
    return schema_of(post_columns(metrics))


POSTS_SCHEMA = posts_schema(DOCUMENT_METRICS)

# The day of a row's partition, which stands in the path and not in the file.
DATE: pa.Field = pa.field("date", pa.date32(), nullable=False)


def dated(schema: pa.Schema) -> pa.Schema:
    """The schema of rows that are read with the day of their partition, in a column `date` before the others."""
    return schema.insert(0, DATE)


def day_column(days: Iterable[tuple[date, int]]) -> pa.Array:
    """The column `date` of tables that follow each other, each of one day and so many rows."""
    runs = [pa.repeat(pa.scalar(day, DATE.type), rows) for day, rows in days]
    return pa.concat_arrays(runs) if runs else pa.array([], DATE.type)


def posts_table(posts: Sequence[Post], *, metrics: tuple[Metric, ...] = DOCUMENT_METRICS) -> pa.Table:
    """Posts as rows of `posts_schema(metrics)`, sorted by `POST_KEY`; text sorts by code point, as Arrow sorts it.

    Nulls stay null and counts stay exact 64-bit integers. Instants are kept to the microsecond, in UTC. A metric that
    a post was not asked for is null.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit its column. Posts read by the contract always do.
    """
    return posts_tables({None: posts}, metrics=metrics)[None]


def posts_tables(
    posts: Mapping[_Group, Sequence[Post]], *, metrics: tuple[Metric, ...] = DOCUMENT_METRICS
) -> dict[_Group, pa.Table]:
    """The `posts_table` of each group. They are made together, as slices of one: most partitions are small.

    Raises:
        pyarrow.ArrowInvalid: as `posts_table`.
    """
    schema = posts_schema(metrics)
    ordered: list[Post] = []
    bounds: dict[_Group, tuple[int, int]] = {}
    for group, members in posts.items():
        rows = list(members)
        for name in reversed(POST_KEY):  # a stable sort by each part, the last one first: much faster than by tuples
            rows.sort(key=attrgetter(name))
        bounds[group] = (len(ordered), len(rows))
        ordered += rows
    columns = [pa.array(_values(ordered, field.name), field.type) for field in schema]
    table = pa.Table.from_arrays(columns, schema=schema)
    return {group: table.slice(start, count) for group, (start, count) in bounds.items()}


def _values(posts: Sequence[Post], column: str) -> list[Any]:
    attribute = column.removeprefix("creator_")
    if column == "platform":
        return [platform_of(post.content_type) for post in posts]
    if column != attribute and attribute in CreatorProfile.__struct_fields__:
        return [getattr(post.creator_profile, attribute, None) for post in posts]
    try:
        return list(map(attrgetter(column), posts))
    except AttributeError:  # not all were asked for the same metrics
        return [getattr(post, column, None) for post in posts]
