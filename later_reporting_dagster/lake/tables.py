"""The tables of the lake: name, layout and columns of each. Columns of metrics follow from the contract.

The rollups, and their columns, stand beside their SQL, in `rollups`. `paths` has the paths of the files.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from later_reporting_dagster.contract.metrics import CAMPAIGN_METRICS, DEFAULT_METRICS, METRICS, Metric
from later_reporting_dagster.contract.parameters import DateBasis
from later_reporting_dagster.contract.personal_data import personal_fields
from later_reporting_dagster.contract.rows import CreatorProfile, PostWithoutMetrics

# Arrow's names of the types that the lake stores.
ColumnType = Literal["string", "int64", "float64", "bool", "date32[day]", "timestamp[us, tz=UTC]"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        nullable: whether the column may be null, or absent from a file.
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


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the lake.

    Attributes:
        name: the name of the table and of its directory below the lake's root.
        columns: the columns that its files may have. When a partitioned table is read, a first column `date` is added:
            the first day of the row's partition.
        is_partitioned: False if the table is one file.
    """

    name: str
    columns: Sequence[Column]
    is_partitioned: bool = True


POST_KEY = ("instance_id", "campaign_id", "post_id")


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table of rows as the API returned them: one file for each UTC day, and of posts also for each instance.

    Attributes:
        rows: what its rows are, in the plural, for messages.
        key: the columns that identify a row.
        known_metrics: the metrics that its rows may have.
    """

    name: str
    date_basis: DateBasis
    rows: str = "posts"
    key: tuple[str, ...] = POST_KEY
    known_metrics: tuple[Metric, ...] = METRICS

    @property
    def table(self) -> Table:
        """The table with the columns of all known metrics; a metric that was not requested is null."""
        columns = post_columns if self.rows == "posts" else campaign_performance_columns
        return Table(self.name, columns(self.known_metrics))


POST_METRICS_DAILY = RawTable("post_metrics_daily", DateBasis.PERFORMANCE_DATE)
POSTS_PUBLISHED = RawTable("posts_published", DateBasis.POST_DATE)
RAW_TABLES = (POST_METRICS_DAILY, POSTS_PUBLISHED)
# It has one file a day, because the API does not state the instance of a campaign's performance (docs/api.md).
CAMPAIGN_PERFORMANCE_TABLE = "campaign_performance_daily"
CAMPAIGN_PERFORMANCE = RawTable(
    CAMPAIGN_PERFORMANCE_TABLE, DateBasis.PERFORMANCE_DATE, "campaigns", ("campaign_id",), CAMPAIGN_METRICS
)
# What is fetched day by day.
FETCHED_BY_DAY = (*RAW_TABLES, CAMPAIGN_PERFORMANCE)
# Each of these is one file; `ingest` has the columns of the last two, beside the code that computes them.
CAMPAIGNS_TABLE = "campaigns"
INSTANCES_TABLE = "instances"
COVERAGE_TABLE = "coverage"


def metric_column_type(metric: Metric) -> ColumnType:
    """Return the type of a metric's column. A sum of the column has the same type."""
    return "int64" if metric.kind.is_integer else "float64"


def _metric_column(metric: Metric) -> Column:
    description = f"{metric.description}; null when not available; 0 is a measured zero"
    return Column(metric.column, metric_column_type(metric), True, description, metric.unit)


_POST_ATTRIBUTES = (
    Column("instance_id", "string", False, "Later instance of the campaign; part of the row key"),
    Column("campaign_id", "int64", False, "Campaign of the post; part of the row key"),
    Column("post_id", "int64", False, "Post; part of the row key"),
    Column("creator_id", "int64", True, "Creator of the post"),
    Column("content_type", "string", True, "Content type as the API names it, such as instagram_reel"),
    Column("platform", "string", True, "Network, derived from content_type; null when the content type is unknown"),
    Column("content_url", "string", True, "URL of the post"),
    Column("content_image_url", "string", True, "URL of the post's image"),
    Column(
        "creator_content_type",
        "string",
        True,
        "Content type in the creator's profile, as the API names it, such as instagram_reel; shows the network of the"
        " profile",
    ),
    Column("creator_full_name", "string", True, "Full name of the creator"),
    Column("creator_handle_name", "string", True, "Handle of the creator on the network"),
    Column("creator_profile_image", "string", True, "URL of the creator's profile image"),
    Column("creator_profile_link", "string", True, "URL of the creator's profile"),
    Column("post_date", "timestamp[us, tz=UTC]", False, "When the post was published"),
)
# Those with personal data of creators, here and in rollups.
PERSONAL_COLUMNS = {*personal_fields(PostWithoutMetrics).values()} | {
    f"creator_{name}" for name in personal_fields(CreatorProfile).values()
}
_EXTRA = Column(
    "extra", "string", True, "JSON object of the fields that the contract does not define; null without any"
)
CAMPAIGN_COLUMNS = (
    Column("instance_id", "string", False, "Later instance of the campaign; part of the row key"),
    Column("campaign_id", "int64", False, "Campaign; part of the row key"),
    Column("campaign_name", "string", True, "Name of the campaign"),
    Column("description", "string", True, "Description of the campaign"),
    Column("status", "string", True, "Status as the API names it, such as live or draft"),
    Column("start_date", "timestamp[us, tz=UTC]", True, "Start of the campaign"),
    Column("first_post_date", "timestamp[us, tz=UTC]", True, "When the first post was published; null without posts"),
    Column("last_post_date", "timestamp[us, tz=UTC]", True, "When the last post was published; null without posts"),
    Column("first_seen", "date32[day]", False, "The first UTC day on which the API listed it"),
    Column("last_seen", "date32[day]", False, "The last UTC day on which the API listed it"),
    Column("listed_now", "bool", False, "Whether the API listed it when this table was last refreshed"),
    _EXTRA,
)


def post_columns(metrics: Iterable[Metric]) -> tuple[Column, ...]:
    """Return the columns of posts that were requested with `metrics`, in the order of `METRICS`."""
    return (*_POST_ATTRIBUTES, *map(_metric_column, metrics), _EXTRA)


def campaign_performance_columns(metrics: Iterable[Metric]) -> tuple[Column, ...]:
    """Return the columns of campaign performance that was requested with `metrics`, in the order of their contract."""
    return (Column("campaign_id", "int64", False, "Campaign; the row key"), *map(_metric_column, metrics), _EXTRA)


POST_COLUMNS = post_columns(DEFAULT_METRICS)
