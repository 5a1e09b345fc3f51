"""Compute the data of a report: results, from SQL shared with the rollups, and which days and rows are missing."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS, Metric, platform_of
from later_reporting_dagster.ingest.raw_tables import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.lake import (
    Lake,
    LakeUnavailable,
    Partition,
    Table,
    ViewContents,
    open_database,
    post_columns,
)
from later_reporting_dagster.report.report_sql import prepare_windows, render
from later_reporting_dagster.rollups.campaign_inputs import (
    CAMPAIGN_PERFORMANCE,
    Campaigns,
    read_campaigns,
    register_campaigns,
)
from later_reporting_dagster.rollups.lake_rollups import stored_days
from later_reporting_dagster.rollups.periods import WINDOWS
from later_reporting_dagster.rollups.sql_engine import StoredDays, translated_errors, window_ranges_table

if TYPE_CHECKING:
    import duckdb

METRICS_TABLE, PUBLISHED_TABLE = POST_METRICS_DAILY.name, POSTS_PUBLISHED.name
# Raw table -> instance -> days that have a file.
DaysByTable = Mapping[str, Mapping[str, frozenset[date]]]

# The periods that a reader can choose: length in days -> name of the window.
WINDOW_BY_DAYS: Mapping[int, str] = {days: name for name, days in WINDOWS.items() if days is not None}
# The longest period and the one before it; older days are not read.
MAX_DAYS = 2 * max(WINDOW_BY_DAYS)

# The tables that report.sql creates, without their prefix `report_`.
TABLES = (
    "kpis",
    "content",
    "creators",
    "spend",
    "campaigns",
    "unassigned_campaigns",
    "campaign_days",
    "coverage",
    "days",
    "profiles",
)

# What Later reports for each campaign; the names of the columns of campaign_results.sql.
CAMPAIGN_MEASURES = (
    "paid_ad_spend",
    "estimated_content_cost",
    "estimated_value_generated",
    "estimated_roi",
    "paid_return_on_ad_spend",
    "cost_per_click",
    "tracking_links_conversions",
    "tracking_links_conversion_value",
    "affiliate_links_conversions",
    "affiliate_links_sales",
)

# Measures that are compared with the previous period. For those in `DIFFERENCES`, the change is a difference; for the
# others, a percentage.
COMPARED_MEASURES = (
    "organic_impressions",
    "paid_impressions",
    "paid_share_of_impressions",
    "organic_engagements",
    "paid_engagements",
    "paid_share_of_engagements",
    "organic_engagement_rate",
    "paid_engagement_rate",
    "paid_lift",
    "organic_estimated_value",
)
DIFFERENCES = frozenset(name for name in COMPARED_MEASURES if name.endswith(("_rate", "_lift")) or "_share_" in name)

_KEYS = ("date", "instance_id", "campaign_id", "post_id", "creator_id", "platform", "content_type")
_PROFILE = ("creator_content_type", "creator_full_name", "creator_handle_name", "creator_profile_link")
_RECORDED = ("engagements", "impressions", "estimated_value_generated", "paid_engagements", "paid_impressions")


@dataclass(frozen=True, slots=True)
class Profile:
    """A creator's profile on one network. `network` is None if the content type belongs to no known network."""

    network: str | None
    handle: str | None
    link: str | None


@dataclass(frozen=True, slots=True)
class Creator:
    """A creator of an instance. Names and links are unchecked text from the API; `number` is from `report.sql`."""

    number: int
    instance_id: str
    creator_id: int | None
    name: str | None
    profiles: Sequence[Profile]


@dataclass(frozen=True, slots=True)
class CampaignDetails:
    """What the table `campaigns` has about a campaign: unchecked text from the API."""

    name: str | None
    status: str | None


@dataclass(frozen=True, slots=True)
class QuarantinedRows:
    """A number of quarantined rows of a raw table that share a reason. Day and instance are None if unknown."""

    table: str
    day: date | None
    instance_id: str | None
    reason: str
    rows: int


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """A stored partition that cannot be read; a whole day if `instance_id` is None."""

    table: str
    day: date
    instance_id: str | None


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        as_of: the newest day that has a file. On the page, days are ages: days before `as_of`.
        instances: sorted ids of the instances that have files or are registered.
        tables: the tables that `report.sql` creates, by name. A row belongs to a scope: all instances (`instance_id`
            and `campaign_id` are null), one instance, or one campaign of an instance.
        creators: the creators in the table `creators`.
        metrics: metrics whose coverage is shown.
        days_by_table: raw table -> instance -> days that have a file.
        campaign_details: details by instance and campaign id; empty if the table `campaigns` is absent or unreadable.
        are_campaigns_unreadable: whether the table `campaigns` exists and cannot be read.
        has_campaign_totals: whether the table campaign_performance_daily has any file.
        quarantined: rows in quarantine.
        unreadable: files that could not be read.
    """

    as_of: date
    instances: Sequence[str]
    tables: Mapping[str, pa.Table]
    creators: Sequence[Creator]
    metrics: Sequence[Metric]
    days_by_table: DaysByTable
    campaign_details: Mapping[tuple[str, int], CampaignDetails] = field(default_factory=dict)
    are_campaigns_unreadable: bool = False
    has_campaign_totals: bool = False
    quarantined: Sequence[QuarantinedRows] = ()
    unreadable: Sequence[UnreadableFile] = ()

    @cached_property
    def first_day(self) -> date:
        """The oldest day, within the report's range, that has a file."""
        return min(
            (day for by_instance in self.days_by_table.values() for day in _days(by_instance)), default=self.as_of
        )

    @property
    def days(self) -> int:
        """Number of days from the first to the newest."""
        return (self.as_of - self.first_day).days + 1

    @cached_property
    def metrics_days(self) -> int:
        """Number of days from the first to the newest in post_metrics_daily.

        A period of n days can be compared with the previous one if this is at least 2 n.
        """
        days = [*_days(self.days_by_table[METRICS_TABLE])]
        return (max(days) - min(days)).days + 1 if days else 0

    @property
    def initial_period(self) -> int:
        """Length in days of the period that the page opens with: 28 if the 28 days before can be compared, else 7."""
        return 28 if self.metrics_days >= 2 * 28 else 7

    def newest_day(self, table: str) -> date:
        """Return the newest day of a raw table. The periods of the table end with it."""
        return max(_days(self.days_by_table[table]), default=self.as_of)

    @cached_property
    def campaigns(self) -> Sequence[tuple[str, int]]:
        """Instance and id of each campaign that has results or totals, sorted."""
        scopes = [self.tables[name].select(["instance_id", "campaign_id"]) for name in ("kpis", "spend", "campaigns")]
        found = {(row["instance_id"], row["campaign_id"]) for rows in scopes for row in rows.to_pylist()}
        return sorted((instance_id, campaign) for instance_id, campaign in found if campaign is not None)


def report_partitions(partitions: Collection[Partition]) -> list[Partition]:
    """Return the partitions of a raw table that are recent enough for a report."""
    newest = max((partition.day for partition in partitions), default=date.min)
    return [partition for partition in partitions if (newest - partition.day).days < MAX_DAYS]


def read_report(
    lake: Lake,
    partitions: Mapping[str, Collection[Partition]],
    *,
    memory_gb: float,
    metrics: Iterable[Metric] = DEFAULT_METRICS,
    registered: Iterable[str] = (),
    quarantined: Iterable[QuarantinedRows] = (),
) -> ReportData:
    """Read the raw tables and compute everything that a report shows. Damaged files are left out and listed.

    Args:
        lake: has the raw tables.
        partitions: stored partitions by raw table; at least one.
        memory_gb: memory limit of the queries.
        metrics: metrics whose coverage is shown, in addition to the metrics of the API reference.
        registered: instances that are expected; one without any file is listed as missing.
        quarantined: rows in quarantine.

    Raises:
        LakeUnavailable: the lake cannot be read.
        RollupFailed: a query does not fit in memory.
    """
    wanted = {*DEFAULT_METRICS, *metrics}
    shown = tuple(metric for metric in METRICS if metric in wanted)
    recent = {table: report_partitions(partitions.get(table, ())) for table in (METRICS_TABLE, PUBLISHED_TABLE)}
    campaigns = read_campaigns(lake)
    totals = lake.partitions(CAMPAIGN_PERFORMANCE.name)
    read = recent | {CAMPAIGN_PERFORMANCE.name: _in_longest_period(totals, recent)}
    tables, contents = _compute_tables(lake, read, shown, campaigns=campaigns, memory_gb=memory_gb)
    days = {table: _days_by_instance(contents.partitions[table]) for table in recent}
    return ReportData(
        as_of=max(partition.day for members in recent.values() for partition in members),
        instances=sorted({*registered, *chain(*days.values()), *tables["campaigns"]["instance_id"].to_pylist()}),
        tables=tables,
        creators=_creators(tables["profiles"]),
        metrics=shown,
        days_by_table=days,
        campaign_details=_campaign_details(campaigns),
        are_campaigns_unreadable=bool(campaigns.error),
        has_campaign_totals=bool(totals),
        quarantined=sorted(quarantined, key=repr),
        unreadable=_unreadable_files(contents),
    )


def _unreadable_files(contents: ViewContents) -> list[UnreadableFile]:
    found = (
        UnreadableFile(table, partition.day, partition.instance_id)
        for table, errors in contents.unreadable.items()
        for partition in errors
    )
    return sorted(found, key=repr)


def _in_longest_period(
    totals: Iterable[Partition], raw_partitions: Mapping[str, Collection[Partition]]
) -> list[Partition]:
    """Return the partitions of campaign totals in the longest period, which ends as in report.sql."""
    ending = raw_partitions[METRICS_TABLE] or raw_partitions[PUBLISHED_TABLE]
    newest = max(partition.day for partition in ending)
    return [partition for partition in totals if 0 <= (newest - partition.day).days < max(WINDOW_BY_DAYS)]


def _compute_tables(
    lake: Lake,
    partitions: Mapping[str, Sequence[Partition]],
    metrics: Sequence[Metric],
    *,
    campaigns: Campaigns,
    memory_gb: float,
) -> tuple[dict[str, pa.Table], ViewContents]:
    """Return the tables that report.sql creates, and the partitions that they are computed from."""
    with open_database(lake, memory_gb=memory_gb) as database:

        def compute(contents: ViewContents) -> tuple[dict[str, pa.Table], ViewContents]:
            for errors in contents.unreadable.values():
                for error in errors.values():
                    if isinstance(error, LakeUnavailable):
                        raise error  # temporary, unlike damage: the next run reads a complete lake
            days = [partition.day for partition in contents.partitions[CAMPAIGN_PERFORMANCE.name]]
            register_campaigns(database.connection, campaigns.rows, days)
            with translated_errors(), _rows_in_memory(database.connection, metrics):
                return _run_sql(database.connection, stored_days(contents), metrics), contents

        # A column that no file has, because the metric was not requested, is null.
        columns = post_columns(metrics)
        tables = {name: Table(name, columns) for name in (METRICS_TABLE, PUBLISHED_TABLE)}
        tables[CAMPAIGN_PERFORMANCE.name] = CAMPAIGN_PERFORMANCE
        return database.read([(tables[name], members) for name, members in partitions.items()], compute)


@contextmanager
def _rows_in_memory(connection: "duckdb.DuckDBPyConnection", metrics: Sequence[Metric]) -> Iterator[None]:
    """Replace the views of the raw tables by tables with their rows. The views are renamed to `…_files`.

    The queries read each row several times, and a lake may have thousands of small files.
    """
    columns = {
        METRICS_TABLE: [*_KEYS, *_RECORDED],
        PUBLISHED_TABLE: [*_KEYS, *_PROFILE, *(metric.column for metric in metrics)],
    }
    created = []
    try:
        for table, names in columns.items():
            connection.execute(f"DROP VIEW IF EXISTS {table}_files; ALTER VIEW {table} RENAME TO {table}_files")
            connection.execute(f"CREATE TABLE {table} AS SELECT {', '.join(names)} FROM {table}_files")
            created.append(table)
        yield
    finally:
        # Only these: after an error in CREATE TABLE there is no relation of that name, and DROP TABLE would raise
        # another error. The next call of `compute` gets new views.
        for table in created:
            connection.execute(f"DROP TABLE {table}")


def _run_sql(
    connection: "duckdb.DuckDBPyConnection", stored: StoredDays, metrics: Sequence[Metric]
) -> dict[str, pa.Table]:
    prepare_windows(connection, stored)
    ranges = window_ranges_table(stored).filter(pc.field("time_window").isin([*WINDOW_BY_DAYS.values()]))
    connection.register("window_ranges", ranges.rename_columns({"time_window": "window"}))
    connection.execute(render("window_inputs.sql"))
    context = {
        "compared_measures": COMPARED_MEASURES,
        "differences": DIFFERENCES,
        "campaign_measures": CAMPAIGN_MEASURES,
        "metric_columns": tuple(metric.column for metric in metrics),
    }
    connection.execute(render("report.sql", **context))
    return {table: connection.sql(f"FROM report_{table} ORDER BY ALL").to_arrow_table() for table in TABLES}


def _days_by_instance(partitions: Iterable[Partition]) -> dict[str, frozenset[date]]:
    found: dict[str, set[date]] = {}
    for partition in partitions:
        found.setdefault(str(partition.instance_id), set()).add(partition.day)
    return {instance_id: frozenset(days) for instance_id, days in sorted(found.items())}


def _days(by_instance: Mapping[str, Iterable[date]]) -> Iterable[date]:
    return (day for days in by_instance.values() for day in days)


def _campaign_details(campaigns: Campaigns) -> dict[tuple[str, int], CampaignDetails]:
    rows = campaigns.rows.select(["instance_id", "campaign_id", "campaign_name", "status"]).to_pylist()
    return {
        (row["instance_id"], row["campaign_id"]): CampaignDetails(row["campaign_name"], row["status"]) for row in rows
    }


def _creators(profiles: pa.Table) -> list[Creator]:
    """Return the creators, each with the name and the profiles of their newest posts."""
    creators = []
    rows = sorted(profiles.to_pylist(), key=lambda row: (row["creator"], row["creator_content_type"] or ""))
    for number, group in groupby(rows, key=itemgetter("creator")):
        newest_first = sorted(group, key=lambda row: [*row["newest"].values()], reverse=True)
        names = [row["newest"]["name"] for row in newest_first if row["newest"]["name"]]
        found: dict[str | None, Profile] = {}
        for row in newest_first:
            network = platform_of(row["creator_content_type"])
            handle, link = row["newest"]["handle"], row["newest"]["link"]
            if handle or link:
                found.setdefault(network, Profile(network, handle or None, link or None))
        ordered = sorted(found.values(), key=lambda profile: profile.network or "~")
        name = names[0] if names else None
        creators.append(Creator(number, newest_first[0]["instance_id"], newest_first[0]["creator_id"], name, ordered))
    return creators
