"""The columns of the lake's tables: name, type, unit and meaning of each.

Does not import pyarrow, which is slow: Dagster definitions only show the columns, and are loaded far more often than a
file is read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from later_reporting_dagster.contract import DEFAULT_METRICS, Metric

# Arrow's names of the types that the lake stores.
ColumnType = Literal["string", "int64", "float64", "bool", "date32[day]", "timestamp[us, tz=UTC]"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        name: the name in the file.
        type: the Arrow type.
        nullable: whether the column may be null, or absent from a file.
        description: what the column holds.
        unit: the unit of the values; empty if they have none.
        computation: how a computed column is computed; empty for a raw column.
        source_columns: the raw columns that a computed column is computed from.
    """

    name: str
    type: ColumnType
    nullable: bool
    description: str
    unit: str = ""
    computation: str = ""
    source_columns: tuple[str, ...] = ()


def metric_column_type(metric: Metric) -> ColumnType:
    """Return the type of a metric's column. A sum of the column has the same type."""
    return "int64" if metric.kind.is_integer else "float64"


def _required(name: str, type_: ColumnType, description: str) -> Column:
    return Column(name, type_, nullable=False, description=description)


def _optional(name: str, type_: ColumnType, description: str) -> Column:
    return Column(name, type_, nullable=True, description=description)


def metric_column(metric: Metric) -> Column:
    """Return the column of a metric."""
    description = f"{metric.description}; null when not available; 0 is a measured zero"
    return Column(metric.column, metric_column_type(metric), True, description, metric.unit)


POST_KEY = ("instance_id", "campaign_id", "post_id")

_POST_ATTRIBUTES = (
    _required("instance_id", "string", "Later instance of the campaign; part of the row key"),
    _required("campaign_id", "int64", "Campaign of the post; part of the row key"),
    _required("post_id", "int64", "Post; part of the row key"),
    _optional("creator_id", "int64", "Creator of the post"),
    _optional("content_type", "string", "Content type as the API names it, such as instagram_reel"),
    _optional("platform", "string", "Network, derived from content_type; null when the content type is unknown"),
    _optional("content_url", "string", "URL of the post"),
    _optional("content_image_url", "string", "URL of the post's image"),
    _optional(
        "creator_content_type",
        "string",
        "Content type in the creator's profile, as the API names it, such as instagram_reel; shows the network of the"
        " profile",
    ),
    _optional("creator_full_name", "string", "Full name of the creator"),
    _optional("creator_handle_name", "string", "Handle of the creator on the network"),
    _optional("creator_profile_image", "string", "URL of the creator's profile image"),
    _optional("creator_profile_link", "string", "URL of the creator's profile"),
    _required("post_date", "timestamp[us, tz=UTC]", "When the post was published"),
)
EXTRA = _optional("extra", "string", "JSON object of the fields that the contract does not define; null without any")


def post_columns(metrics: Iterable[Metric]) -> tuple[Column, ...]:
    """Return the columns of posts that were requested with `metrics`, in the order of `METRICS`.

    Args:
        metrics: the requested metrics, in the order of `METRICS`.
    """
    return (*_POST_ATTRIBUTES, *(metric_column(metric) for metric in metrics), EXTRA)


POST_COLUMNS = post_columns(DEFAULT_METRICS)
