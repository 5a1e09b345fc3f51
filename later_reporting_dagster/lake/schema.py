"""The one schema of the lake's posts, so that every file, reader and page of documentation says the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa

from later_reporting_dagster.contract import METRICS, CreatorProfile, Kind, Metric, Post, platform_of

INSTANT = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table's dictionary: what it holds, and in what unit where one applies."""

    name: str
    type: pa.DataType
    nullable: bool
    description: str
    unit: str = ""

    @property
    def field(self) -> pa.Field:
        """The column as Arrow sees it."""
        return pa.field(self.name, self.type, self.nullable)


def schema_of(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of a dictionary's columns, without metadata."""
    return pa.schema([column.field for column in columns])


def _key(name: str, type_: pa.DataType, description: str) -> Column:
    return Column(name, type_, nullable=False, description=description)


def _fact(name: str, type_: pa.DataType, description: str) -> Column:
    return Column(name, type_, nullable=True, description=description)


def _metric(metric: Metric) -> Column:
    type_ = pa.int64() if metric.kind is Kind.COUNT else pa.float64()
    return Column(
        metric.column, type_, True, f"{metric.description}; null when not available, 0 is measured", metric.unit
    )


POST_KEY = ("instance_id", "campaign_id", "post_id")

POST_COLUMNS: tuple[Column, ...] = (
    _key("instance_id", pa.string(), "The Later instance that the campaign belongs to; part of the row key"),
    _key("campaign_id", pa.int64(), "The campaign; part of the row key"),
    _key("post_id", pa.int64(), "The post; part of the row key"),
    _fact("creator_id", pa.int64(), "The creator who posted"),
    _fact("content_type", pa.string(), "Kind of content as the API names it, such as instagram_reel"),
    _fact("platform", pa.string(), "Network, derived from content_type; null when that names none that is known"),
    _fact("content_url", pa.string(), "Where the post is"),
    _fact("content_image_url", pa.string(), "Where its picture is"),
    _fact("creator_content_type", pa.string(), "Kind of content that the creator's profile belongs to"),
    _fact("creator_full_name", pa.string(), "The creator's name"),
    _fact("creator_handle_name", pa.string(), "The creator's handle on the network"),
    _fact("creator_profile_image", pa.string(), "Where the creator's picture is"),
    _fact("creator_profile_link", pa.string(), "Where the creator's profile is"),
    _key("post_date", INSTANT, "When the post was published"),
    *(_metric(metric) for metric in METRICS),
    _fact("extra", pa.string(), "JSON of just the fields that the contract does not know; null when there were none"),
)
POSTS_SCHEMA: pa.Schema = schema_of(POST_COLUMNS)


def posts_table(posts: Sequence[Post]) -> pa.Table:
    """Posts as rows of `POSTS_SCHEMA`, sorted by `POST_KEY`; text sorts by code point, as Arrow sorts it.

    Nulls stay null and counts stay exact 64-bit integers. Instants are kept to the microsecond, in UTC.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit its column. Posts read by the contract always do.
    """
    ordered = list(posts)
    for name in reversed(POST_KEY):  # a stable sort by each part, the last one first: much faster than by tuples
        ordered.sort(key=attrgetter(name))
    if len(ordered) <= _BLOCK:
        return _rows(ordered)
    blocks = (ordered[start : start + _BLOCK] for start in range(0, len(ordered), _BLOCK))
    return pa.concat_tables(map(_rows, blocks)).combine_chunks()


def _rows(posts: Sequence[Post]) -> pa.Table:
    creators = [post.creator_profile or _NOBODY for post in posts]
    values = _values(Post.__struct_fields__, posts) | _values(_OF_CREATOR, creators)
    platforms = {content_type: platform_of(content_type) for content_type in set(values["content_type"])}
    values["platform"] = [platforms[content_type] for content_type in values["content_type"]]
    columns: dict[str, pa.Array] = {}
    for type_, names in _NAMES_OF_TYPE.items():
        # Columns of one type are made together: most partitions are small, and there each call is what costs.
        together = pa.array([value for name in names for value in values[name]], type=type_)
        columns |= {name: together.slice(index * len(posts), len(posts)) for index, name in enumerate(names)}
    return pa.Table.from_arrays([columns[name] for name in POSTS_SCHEMA.names], schema=POSTS_SCHEMA)


def _values(names: Sequence[str], structs: Sequence[msgspec.Struct]) -> dict[str, Sequence[Any]]:
    columns = zip(*map(msgspec.structs.astuple, structs), strict=True) if structs else [()] * len(names)
    return dict(zip(names, columns, strict=True))


# Few enough posts for what is made of them to stay in the processor's cache, and for their tuples not to wake the
# garbage collector, which would look through all posts time and again.
_BLOCK = 500
_NAMES_OF_TYPE: dict[pa.DataType, list[str]] = {}
for _column in POST_COLUMNS:
    _NAMES_OF_TYPE.setdefault(_column.type, []).append(_column.name)
_NOBODY = CreatorProfile()
_OF_CREATOR = tuple(f"creator_{attribute}" for attribute in CreatorProfile.__struct_fields__)
