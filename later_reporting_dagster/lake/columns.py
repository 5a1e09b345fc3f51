"""The dictionaries of the lake's tables: each column's name, type, unit and meaning.

The definitions show them in the UI, and a code location loads more often than it reads a file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from later_reporting_dagster.contract import DOCUMENT_METRICS, Metric

# All types that the lake's tables have, as Arrow names them.
ColumnType = Literal["string", "int64", "float64", "bool", "date32[day]", "timestamp[us, tz=UTC]"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table's dictionary: what it holds, and in what unit where one applies.

    Of a column that is computed, `computed` says how, and `made_from` names the columns of posts that it comes from.
    """

    name: str
    type: ColumnType
    nullable: bool
    description: str
    unit: str = ""
    computed: str = ""
    made_from: tuple[str, ...] = ()


def type_of(metric: Metric) -> ColumnType:
    """The type of a metric's column, and of its sum's."""
    return "int64" if metric.kind.is_whole else "float64"


def _key(name: str, type_: ColumnType, description: str) -> Column:
    return Column(name, type_, nullable=False, description=description)


def _fact(name: str, type_: ColumnType, description: str) -> Column:
    return Column(name, type_, nullable=True, description=description)


def _metric(metric: Metric) -> Column:
    description = f"{metric.description}; null when not available, 0 is measured"
    return Column(metric.column, type_of(metric), True, description, metric.unit)


POST_KEY = ("instance_id", "campaign_id", "post_id")

_IDENTITY = (
    _key("instance_id", "string", "The Later instance that the campaign belongs to; part of the row key"),
    _key("campaign_id", "int64", "The campaign; part of the row key"),
    _key("post_id", "int64", "The post; part of the row key"),
    _fact("creator_id", "int64", "The creator who posted"),
    _fact("content_type", "string", "Kind of content as the API names it, such as instagram_reel"),
    _fact("platform", "string", "Network, derived from content_type; null when that names none that is known"),
    _fact("content_url", "string", "Where the post is"),
    _fact("content_image_url", "string", "Where its picture is"),
    _fact("creator_content_type", "string", "Kind of content that the creator's profile belongs to"),
    _fact("creator_full_name", "string", "The creator's name"),
    _fact("creator_handle_name", "string", "The creator's handle on the network"),
    _fact("creator_profile_image", "string", "Where the creator's picture is"),
    _fact("creator_profile_link", "string", "Where the creator's profile is"),
    _key("post_date", "timestamp[us, tz=UTC]", "When the post was published"),
)
_EXTRA = _fact("extra", "string", "JSON of just the fields that the contract does not know; null when there were none")


def post_columns(metrics: Iterable[Metric]) -> tuple[Column, ...]:
    """The columns of posts of which `metrics` were asked for, these in the order of the metric table."""
    return (*_IDENTITY, *(_metric(metric) for metric in metrics), _EXTRA)


POST_COLUMNS = post_columns(DOCUMENT_METRICS)
