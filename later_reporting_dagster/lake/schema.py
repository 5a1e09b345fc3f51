"""Arrow schemas of the lake's tables, whose columns `tables` declares, and the conversion of rows to Arrow.

The columns of a file of posts depend only on the requested metrics. In files with different metrics, the common columns
have the same order and types, so the files can be read as one table.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

import pyarrow as pa

from later_reporting_dagster.contract import DEFAULT_METRICS, Metric, Post
from later_reporting_dagster.contract.parameters import platform_of
from later_reporting_dagster.contract.rows import CreatorProfile
from later_reporting_dagster.lake.tables import (
    POST_KEY,
    Column,
    ColumnType,
    RawTable,
    campaign_performance_columns,
    post_columns,
)

_Group = TypeVar("_Group")

_ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date32[day]": pa.date32(),
    "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC"),
}
# The day of a row's partition. In a daily file, it is in the path, not in the columns.
DATE: pa.Field = pa.field("date", pa.date32(), nullable=False)


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """Return the Arrow schema of `columns`, without metadata."""
    return pa.schema([pa.field(column.name, _ARROW_TYPES[column.type], column.nullable) for column in columns])


@lru_cache
def posts_schema(metrics: tuple[Metric, ...], /) -> pa.Schema:
    """Return the schema of posts that were requested with `metrics`.

    Every file of posts can be read with the schema `posts_schema(METRICS)`: a metric that was not requested for a file
    is null in its rows.
    """
    return schema_of(post_columns(metrics))


POSTS_SCHEMA = posts_schema(DEFAULT_METRICS)


def with_date_field(schema: pa.Schema) -> pa.Schema:
    """Return `schema` with a first column `date`: the day of the row's partition."""
    return schema.insert(0, DATE)


def with_date_column(rows: pa.Table, row_counts: Iterable[tuple[date, int]]) -> pa.Table:
    """Return concatenated partitions with a first column `date`, given the day and the number of rows of each."""
    runs = [pa.repeat(pa.scalar(day, DATE.type), count) for day, count in row_counts]
    return rows.add_column(0, DATE, pa.concat_arrays(runs) if runs else pa.array([], DATE.type))


def rows_by_group(
    table: RawTable, rows: Mapping[_Group, Sequence[Any]], *, metrics: tuple[Metric, ...]
) -> dict[_Group, pa.Table]:
    """Return the posts or campaigns of each group as rows of a raw table, sorted by key.

    Nulls stay null, counts stay exact 64-bit integers, and instants are in UTC, to the microsecond. A metric that was
    not requested for a post is null. Posts are slices of one table: most groups are partitions of few rows, and for few
    rows building a table takes longer than filling it.
    """
    if table.rows == "posts":
        return _posts_by_group(rows, metrics)
    schema = schema_of(campaign_performance_columns(metrics))
    return {
        group: pa.Table.from_pylist(
            [
                {**campaign.metrics, "campaign_id": campaign.campaign_id, "extra": campaign.extra}
                for campaign in sorted(campaigns, key=attrgetter("campaign_id"))
            ],
            schema=schema,
        )
        for group, campaigns in rows.items()
    }


def posts_table(posts: Sequence[Post], *, metrics: tuple[Metric, ...] = DEFAULT_METRICS) -> pa.Table:
    """Return posts as rows of `posts_schema(metrics)`, sorted by key; see `rows_by_group`."""
    return _posts_by_group({None: posts}, metrics)[None]


def _posts_by_group(posts: Mapping[_Group, Sequence[Post]], metrics: tuple[Metric, ...]) -> dict[_Group, pa.Table]:
    ordered: list[Post] = []
    bounds: dict[_Group, tuple[int, int]] = {}
    for group, members in posts.items():
        rows = list(members)
        # One stable sort for each attribute, from the last to the first, is much faster than one sort by tuples.
        for name in reversed(POST_KEY):
            rows.sort(key=attrgetter(name))
        bounds[group] = (len(ordered), len(rows))
        ordered += rows
    schema = posts_schema(metrics)
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
    except AttributeError:  # posts that were requested with different metrics
        return [getattr(post, column, None) for post in posts]
