"""The tables of the lake: name, layout, columns and Arrow schema of each. Columns of metrics follow from the contract.

The rollups, and their columns, stand beside their SQL, in `rollups`. `paths` has the paths of the files.

The columns of a file of posts depend only on the requested metrics. In files with different metrics, the common columns
have the same order and types, so the files can be read as one table.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, TypeVar

import pyarrow as pa

from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.parameters import DateBasis, network_of
from later_reporting_dagster.contract.personal_data import personal_fields
from later_reporting_dagster.contract.route import (
    CAMPAIGNS_PERFORMANCE,
    INSTANCES_PERFORMANCE,
    PERFORMANCE_OVER_TIME,
    POSTS_PERFORMANCE,
    Route,
)
from later_reporting_dagster.contract.rows import CreatorProfile, Post
from later_reporting_dagster.lake.paths import Partition

# Arrow's names of the types that the lake stores.
ColumnType = Literal[
    "string",
    "int64",
    "float64",
    "bool",
    "date32[day]",
    "timestamp[us, tz=UTC]",
    "list<item: int64>",
    "list<item: string>",
]
INSTANT: ColumnType = "timestamp[us, tz=UTC]"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        nullable: whether the column may be null, or absent from a file.
        unit: the unit of the values; empty if they have none.
    """

    name: str
    type: ColumnType
    nullable: bool
    description: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the lake.

    Attributes:
        name: the name of the table and of its directory below the lake's root.
        columns: the columns that its files may have. When a partitioned table is read, a first column `date` is added:
            the first day of the row's partition.
        is_partitioned: False if the table is one file.
        definition: of a rollup, the version of its definition. Files of a lower one are not read.
        description: what it has, for tools that show tables.
    """

    name: str
    columns: Sequence[Column]
    is_partitioned: bool = True
    definition: int = 0
    description: str = ""

    @property
    def schema(self) -> pa.Schema:
        return schema_of(self.columns)


CAMPAIGN_PERFORMANCE_TABLE = "campaign_performance_daily"
# Each of these is one file; `quality` has the columns of the last two, beside the code that computes them.
CAMPAIGNS_TABLE = "campaigns"
CAMPAIGN_PERIODS_TABLE = "campaign_performance_periods"
# The API allows two years. 730 days are within two years whether or not there is a leap year.
MAX_QUERY_DAYS = 730
# The windows by name, with their lengths in days.
WINDOWS = {"7d": 7, "28d": 28, "90d": 90, "365d": 365, "730d": MAX_QUERY_DAYS}
# Windows of rollups too: the calendar month of the newest day, up to that day, and the month before.
MONTH_WINDOWS = ("this_month", "last_month")
# Calendar months of campaign_performance_periods: what was recorded in one, and the posts that were published in it.
RECORDED_MONTH, PUBLISHED_MONTH = "recorded_month", "published_month"
# The tables that have what the API totals for months: the fetched one, and the rollups that are made from it.
OF_MONTHS = (CAMPAIGN_PERIODS_TABLE, "campaign_results", "campaigns_monthly")
# Metadata of a file of periods: what was last fetched of each month since it ended. Earlier releases lack the first.
FETCHED_MONTHS = {RECORDED_MONTH: "recorded_months", PUBLISHED_MONTH: "months"}
INSTANCES_TABLE = "instances"
COVERAGE_TABLE = "coverage"


def metric_column_type(metric: Metric) -> ColumnType:
    """Return the type of a metric's column. A sum of the column has the same type."""
    return "int64" if metric.kind.is_integer else "float64"


def _metric_column(metric: Metric) -> Column:
    description = f"{metric.description}; null when not available; 0 is a measured zero"
    return Column(metric.column, metric_column_type(metric), True, description, metric.unit)


CONTENT_TYPE, NETWORK = "content_type", "platform"
_POST_ATTRIBUTES = (
    Column("instance_id", "string", False, "Later instance of the campaign; part of the row key"),
    Column("campaign_id", "int64", False, "Campaign of the post; part of the row key"),
    Column("post_id", "int64", False, "Post; part of the row key"),
    Column("creator_id", "int64", True, "Creator of the post"),
    Column(CONTENT_TYPE, "string", True, "Content type as the API names it, such as instagram_reel"),
    Column(NETWORK, "string", True, "Network, derived from content_type; null when the content type is unknown"),
    Column("content_url", "string", True, "URL of the post"),
    Column("content_image_url", "string", True, "URL of the post's image"),
    Column("creator_content_type", "string", True, "Content type of the creator's profile, such as instagram_reel"),
    Column("creator_full_name", "string", True, "Full name of the creator"),
    Column("creator_handle_name", "string", True, "Handle of the creator on the network"),
    Column("creator_profile_image", "string", True, "URL of the creator's profile image"),
    Column("creator_profile_link", "string", True, "URL of the creator's profile"),
    Column("post_date", INSTANT, True, "When the post was published; null in post_metrics_daily if it cannot be read"),
)
# Those with personal data of creators, here and in rollups.
PERSONAL_COLUMNS = {*personal_fields(Post)} | {f"creator_{name}" for name in personal_fields(CreatorProfile)}
_EXTRA = Column("extra", "string", True, "JSON object of the fields that have no column; null without any")
CAMPAIGN_COLUMNS = (
    Column("instance_id", "string", False, "Later instance of the campaign; part of the row key"),
    Column("campaign_id", "int64", False, "Campaign; part of the row key"),
    Column("campaign_name", "string", True, "Name of the campaign"),
    Column("description", "string", True, "Description of the campaign"),
    Column("status", "string", True, "Status as the API names it, such as live or draft"),
    Column("start_date", INSTANT, True, "Start of the campaign"),
    Column("first_post_date", INSTANT, True, "When the first post was published; null without posts"),
    Column("last_post_date", INSTANT, True, "When the last post was published; null without posts"),
    Column("first_seen", "date32[day]", False, "The first UTC day on which the API listed it"),
    Column("last_seen", "date32[day]", False, "The last UTC day on which the API listed it"),
    Column("listed_now", "bool", False, "Whether the API listed it when this table was last refreshed"),
    _EXTRA,
)


POST_KEY = ("instance_id", "campaign_id", "post_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTable:
    """The declaration of a table of rows as the API returned them: of what is fetched, stored, checked and shown.

    Attributes:
        route: the list of the API with its rows.
        key: the columns that identify a row of a day.
        attributes: the columns before those of the metrics.
        only_sums: whether only those are requested that add up over days.
        has_file_per_instance: whether a file has the rows of a day of one instance, or of all that the API answers for.
        days_per_query: the maximum; more than one if each row says its day.
        one_instance_per_query: whether instances are requested one by one, because no row says its instance.
        splits_by_content: whether a query can be narrowed to some platforms and content types.
        is_optional: whether the API may refuse its route to an account; its files are expected once there is one.
        has_rates_of_counts: whether the rates of a row follow from its counts.
        label: what the report calls it where it lists missing days.
    """

    name: str
    route: Route
    description: str
    date_basis: DateBasis
    key: tuple[str, ...]
    attributes: tuple[Column, ...]
    label: str
    only_sums: bool = False
    has_file_per_instance: bool = True
    days_per_query: int = 1
    one_instance_per_query: bool = False
    splits_by_content: bool = False
    is_optional: bool = False
    has_rates_of_counts: bool = False

    @property
    def rows(self) -> str:
        """What its rows are, in the plural: for messages, and the group of the asset."""
        return self.route.rows

    @property
    def known_metrics(self) -> tuple[Metric, ...]:
        """The metrics that its rows may have."""
        return self.route.metrics

    def is_expected(self, *, files: Collection[object]) -> bool:
        """Return whether days should have files, given those that there are."""
        return bool(files) or not self.is_optional

    def expected_files(self, days: Iterable[date], instances: Iterable[str | None]) -> list[Partition]:
        """Return the files that days of these instances should have, once there are any."""
        names: list[str | None] = [*instances] if self.has_file_per_instance else [None]
        all_days = [*days]
        return [Partition(day, name) for name in names for day in all_days]

    @property
    def table(self) -> Table:
        """The table with the columns of all known metrics; a metric that was not requested is null."""
        return Table(self.name, self.columns(self.known_metrics))

    def columns(self, metrics: Iterable[Metric]) -> tuple[Column, ...]:
        """Return the columns of rows that were requested with these metrics, in their order."""
        return (*self.attributes, *map(_metric_column, metrics), _EXTRA)


# docs/api.md, "Date basis"
POST_METRICS_DAILY = RawTable(
    name="post_metrics_daily",
    route=POSTS_PERFORMANCE,
    description="The metrics that posts of any age recorded on the day: one row per post and campaign"
    " (`dateBasis=performance_date`). Days can be summed.",
    date_basis=DateBasis.PERFORMANCE_DATE,
    key=POST_KEY,
    attributes=_POST_ATTRIBUTES,
    label="daily metrics",
    splits_by_content=True,
    has_rates_of_counts=True,
)
POSTS_PUBLISHED = replace(
    POST_METRICS_DAILY,
    name="posts_published",
    description="The posts published on the day, with their metrics to date (`dateBasis=post_date`)."
    " Metrics keep changing for weeks, so the newest days are fetched again every day.",
    date_basis=DateBasis.POST_DATE,
    days_per_query=MAX_QUERY_DAYS,
    label="published posts",
)
CAMPAIGN_PERFORMANCE = RawTable(
    name=CAMPAIGN_PERFORMANCE_TABLE,
    route=CAMPAIGNS_PERFORMANCE,
    description="What campaigns spent and returned on the day, as the API totals it: one row per campaign"
    " (`dateBasis=performance_date`). It has only metrics that can be summed over days.",
    date_basis=DateBasis.PERFORMANCE_DATE,
    key=("campaign_id",),
    attributes=(Column("campaign_id", "int64", False, "Campaign; the row key"),),
    label="campaign totals",
    only_sums=True,
    # The API does not state the instance of a campaign's performance (docs/api.md).
    has_file_per_instance=False,
    is_optional=True,
)
INSTANCE_PERFORMANCE_DAILY = RawTable(
    name="instance_performance_daily",
    route=PERFORMANCE_OVER_TIME,
    description="What Later itself totals for the instance and day over all of its content: at most one row"
    " (`dateBasis=performance_date`), and none for a day without results. Reach is that of the day, and never summed.",
    date_basis=DateBasis.PERFORMANCE_DATE,
    key=("instance_id",),
    attributes=(Column("instance_id", "string", False, "Later instance; the row key"),),
    label="daily totals of Later",
    days_per_query=100,  # of which a page has all
    one_instance_per_query=True,
    is_optional=True,
)
POSTS_TABLES = (POST_METRICS_DAILY, POSTS_PUBLISHED)
POSTS_NAMES = tuple(table.name for table in POSTS_TABLES)
RAW_TABLES = {table.name: table for table in (*POSTS_TABLES, CAMPAIGN_PERFORMANCE, INSTANCE_PERFORMANCE_DAILY)}
RAW_NAMES = tuple(RAW_TABLES)
# Those whose files have one instance each.
OF_INSTANCES = tuple(table.name for table in RAW_TABLES.values() if table.has_file_per_instance)


def post_columns(metrics: Iterable[Metric]) -> tuple[Column, ...]:
    """Return the columns of posts that were requested with `metrics`, in the order of `METRICS`."""
    return POSTS_PUBLISHED.columns(metrics)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodsTable:
    """The declaration of a table of what the API totals over windows and calendar months: one file.

    Attributes:
        by_day: what it totals by days. Of this, the route, rows, key, attributes and metrics hold, whether the route is
            optional, and whether an instance takes a query of its own; not what is said of files and days.
    """

    name: str
    description: str
    by_day: RawTable

    @property
    def key(self) -> tuple[str, ...]:
        return ("date_basis", "period", "first_day", "last_day", *self.by_day.key)

    @property
    def table(self) -> Table:
        """The table with the columns of all known metrics; a metric that was not requested is null."""
        return Table(self.name, self.columns(self.by_day.known_metrics), is_partitioned=False)

    @property
    def schema(self) -> pa.Schema:
        return self.table.schema

    def columns(self, metrics: Iterable[Metric]) -> tuple[Column, ...]:
        """Return the columns of rows that were requested with these metrics, in their order."""
        whose = [_INSTANCE_IDS] if self.by_day.one_instance_per_query else []
        return (*_PERIOD_COLUMNS, *self.by_day.columns(metrics), *whose, _FETCHED_AT)


_PERIOD_COLUMNS = (
    Column("date_basis", "string", False, "post_date for published_month, else performance_date; part of the key"),
    Column(
        "period",
        "string",
        False,
        "Window of 7d, 28d, 90d, 365d or 730d; previous_7d, … previous_365d, the same number of days before it; or"
        " a calendar month: recorded_month, what was recorded in it, or, of campaigns, published_month, what the posts"
        " that were published in it have earned to date; part of the key",
    ),
    Column("first_day", "date32[day]", False, "First UTC day of the period; part of the key"),
    Column("last_day", "date32[day]", False, "Last UTC day; of a window, the day before its fetch; part of the key"),
)
_INSTANCE_IDS = Column(
    "instance_ids",
    "list<item: string>",
    True,
    "Of scope all: the instances whose total it is, sorted; null if that is unknown, as in rows of earlier releases,"
    " and of scope instance",
)
_FETCHED_AT = Column("fetched_at", INSTANT, False, "When the row was requested; an equal response later keeps it")
CAMPAIGN_PERIODS = PeriodsTable(
    name=CAMPAIGN_PERIODS_TABLE,
    description="What the API totals for campaigns over whole periods: one row per campaign and period. Windows of"
    " days that end yesterday overlap; calendar months, of what was recorded in them, and of the posts published in"
    " them, add up.",
    by_day=replace(CAMPAIGN_PERFORMANCE, only_sums=False),
)
ACCOUNT_PERIODS = PeriodsTable(
    name="instance_performance_periods",
    description="What Later itself totals over whole periods: one row per instance and period, and one of all instances"
    " together, whose reach no sum has. A lake with one instance has all periods of it, and none of all.",
    by_day=replace(
        INSTANCE_PERFORMANCE_DAILY,
        route=INSTANCES_PERFORMANCE,
        key=("scope", "instance_id"),
        attributes=(
            Column("scope", "string", False, "instance, or all: of all instances together; part of the key"),
            Column("instance_id", "string", False, "Later instance; '' in scope all; part of the key"),
        ),
    ),
)
PERIODS_TABLES = {table.name: table for table in (CAMPAIGN_PERIODS, ACCOUNT_PERIODS)}


POST_COLUMNS = post_columns(DEFAULT_METRICS)


_Group = TypeVar("_Group")

_ARROW_TYPES: dict[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date32[day]": pa.date32(),
    "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC"),
    "list<item: int64>": pa.list_(pa.int64()),
    "list<item: string>": pa.list_(pa.string()),
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


def with_networks(rows: pa.Table) -> pa.Table:
    """Return rows as they were read, with the networks that were not known when they were written."""
    if not {CONTENT_TYPE, NETWORK} <= {*rows.column_names} or (
        rows[NETWORK].null_count == rows[CONTENT_TYPE].null_count
    ):
        return rows
    types = rows[CONTENT_TYPE].to_pylist()
    names = [name or network_of(type_) for name, type_ in zip(rows[NETWORK].to_pylist(), types, strict=True)]
    position = rows.schema.get_field_index(NETWORK)
    return rows.set_column(position, rows.schema.field(position), pa.array(names, pa.string()))


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
    """Return the rows of each group as rows of a raw table, sorted by key.

    Nulls stay null, counts stay exact 64-bit integers, and instants are in UTC, to the microsecond. They are
    slices of one table: most groups are partitions of few rows, and for few rows building a table takes longer than
    filling it.
    """
    ordered: list[Any] = []
    bounds: dict[_Group, tuple[int, int]] = {}
    for group, members in rows.items():
        of_group = list(members)
        # One stable sort for each attribute, from the last to the first, is much faster than one sort by tuples.
        for name in reversed(table.key):
            of_group.sort(key=attrgetter(name))
        bounds[group] = (len(ordered), len(of_group))
        ordered += of_group
    schema = schema_of(table.columns(metrics))
    columns = [pa.array(_values(ordered, field.name), field.type) for field in schema]
    together = pa.Table.from_arrays(columns, schema=schema)
    return {group: together.slice(start, count) for group, (start, count) in bounds.items()}


def posts_table(posts: Sequence[Post], *, metrics: tuple[Metric, ...] = DEFAULT_METRICS) -> pa.Table:
    """Return posts as rows of `posts_schema(metrics)`, sorted by key; see `rows_by_group`."""
    return rows_by_group(POSTS_PUBLISHED, {None: posts}, metrics=metrics)[None]


def _values(rows: Sequence[Any], column: str) -> list[Any]:
    """Return the values of a column; null for a metric that was not requested."""
    profile_field = column.removeprefix("creator_")
    if column == NETWORK:
        return [network_of(post.content_type) for post in rows]
    if column != profile_field and profile_field in CreatorProfile.__struct_fields__:
        return [getattr(post.creator_profile, profile_field, None) for post in rows]
    return [getattr(row, column, None) for row in rows]
