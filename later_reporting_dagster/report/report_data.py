"""What a report is made of: figures from the SQL that the rollups share, and what the lake has and lacks."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from importlib.resources import files as files_of_package
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, DateBasis, Metric, platform_of
from later_reporting_dagster.ingest.raw_tables import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.lake import Files, Lake, LakeUnavailable, Partition, Table, open_database, post_columns
from later_reporting_dagster.rollups.lake_rollups import landed_days
from later_reporting_dagster.rollups.periods import WINDOWS
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN
from later_reporting_dagster.rollups.sql_engine import (
    LandedDays,
    failures,
    periods,
    prepare_windows,
    rendered,
    rendered_sql,
)

if TYPE_CHECKING:
    import duckdb

METRICS_TABLE, PUBLISHED_TABLE = POST_METRICS_DAILY.asset, POSTS_PUBLISHED.asset
# Table -> instance -> the days that have a file.
Landed = Mapping[str, Mapping[str, frozenset[date]]]

# The periods that the report offers, in days, with the name of their window.
PERIODS: Mapping[int, str] = {days: name for name, days in WINDOWS.items() if days is not None}
# Older days are in no period, nor in the one before it.
MAXIMUM_DAYS = 2 * max(PERIODS)

# The tables that report.sql makes, less their prefix.
TABLES = ("headline", "content", "creators", "spend", "coverage", "days", "profiles")

# What the headline says of a period beside the one before it. Of those in `DIFFERENCES` the change is a difference, of
# the others a percentage.
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
    """A creator on one network: `network` is None where the content type names none that is known."""

    network: str | None
    handle: str | None
    link: str | None


@dataclass(frozen=True, slots=True)
class Creator:
    """A creator of an instance as last seen. Names and links are data from the API, and may hold anything."""

    number: int
    instance_id: str
    creator_id: int | None
    name: str | None
    profiles: Sequence[Profile]


@dataclass(frozen=True, slots=True)
class SetAside:
    """Rows of a table in quarantine, of one day and instance where they tell these, for one reason."""

    table: str
    day: date | None
    instance_id: str | None
    reason: str
    rows: int


@dataclass(frozen=True, slots=True)
class Unread:
    """A partition, or a whole day where `instance_id` is None, that lies in the lake and cannot be read."""

    table: str
    day: date
    instance_id: str | None


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that a report shows. Tables have a row a scope, which is all instances, one, or one of its campaigns.

    Attributes:
        as_of: the newest day that is there; ages count back from it.
        instances: ids of those that should be there or are, sorted.
        tables: by name what `report.sql` makes: `report_…`.
        creators: those of the table `creators`.
        metrics: those whose coverage is told.
        landed: table -> instance -> the days that are there.
        set_aside: what lies in quarantine.
        unread: what cannot be read.
    """

    as_of: date
    instances: Sequence[str]
    tables: Mapping[str, pa.Table]
    creators: Sequence[Creator]
    metrics: Sequence[Metric]
    landed: Landed
    set_aside: Sequence[SetAside] = ()
    unread: Sequence[Unread] = ()

    @cached_property
    def first_day(self) -> date:
        """The oldest day that is there, of those that the report looks at."""
        return min((day for there in self.landed.values() for day in _days(there)), default=self.as_of)

    @property
    def days(self) -> int:
        """How many days there are from the first to the newest."""
        return (self.as_of - self.first_day).days + 1

    @property
    def period(self) -> int:
        """How many days the report opens with: four weeks, or one while there are no two times four to compare."""
        return 28 if self.days >= 2 * 28 else 7

    def newest_day(self, table: str) -> date:
        """Return the newest day of a table, with which its periods end."""
        return max(_days(self.landed[table]), default=self.as_of)

    @cached_property
    def campaigns(self) -> Sequence[tuple[str, int]]:
        """The campaigns that anything was reported of, each with its instance, sorted."""
        scopes = [self.tables[name].select(["instance_id", "campaign_id"]) for name in ("headline", "spend")]
        found = {(row["instance_id"], row["campaign_id"]) for rows in scopes for row in rows.to_pylist()}
        return sorted((instance_id, campaign) for instance_id, campaign in found if campaign is not None)


def days_looked_at(partitions: Collection[Partition]) -> list[Partition]:
    """Return those of a table's partitions that a report is made from."""
    newest = max((partition.day for partition in partitions), default=date.min)
    return [partition for partition in partitions if (newest - partition.day).days < MAXIMUM_DAYS]


def read_report(
    lake: Lake,
    partitions: Mapping[str, Collection[Partition]],
    *,
    memory_gb: float,
    metrics: Iterable[Metric] = DOCUMENT_METRICS,
    registered: Iterable[str] = (),
    set_aside: Iterable[SetAside] = (),
) -> ReportData:
    """Read and compute all that a report shows. A damaged file is left out and named.

    Args:
        lake: where the posts lie.
        partitions: by table those to report on, at least one.
        memory_gb: how much memory the work may take.
        metrics: whose coverage is told, beside those of the API reference.
        registered: the instances that should be there; one of which nothing is there is missed by name.
        set_aside: what lies in quarantine.

    Raises:
        LakeUnavailable: the lake cannot be read.
        RollupFailed: a sum does not fit its column, or the work its memory.
    """
    chosen = {*DOCUMENT_METRICS, *metrics}
    told = tuple(metric for metric in METRICS if metric in chosen)
    wanted = {table: days_looked_at(partitions.get(table, ())) for table in (METRICS_TABLE, PUBLISHED_TABLE)}
    with open_database(lake, memory_gb=memory_gb) as database:

        def work(files: Files) -> tuple[dict[str, pa.Table], Files]:
            for error in chain.from_iterable(errors.values() for errors in files.unreadable.values()):
                if isinstance(error, LakeUnavailable):
                    raise error  # it is there for a moment only
            with failures(), _rows_at_hand(database.connection, told):
                return _tables(database.connection, landed_days(files), told), files

        # The columns of metrics that were not asked for are null in every file.
        tables, files = database.read([(Table(name, post_columns(told)), of) for name, of in wanted.items()], work)
    landed = {table: _by_instance(files.partitions[table]) for table in wanted}
    return ReportData(
        as_of=max(partition.day for of in wanted.values() for partition in of),
        instances=sorted({*registered, *(name for there in landed.values() for name in there)}),
        tables=tables,
        creators=_creators(tables["profiles"]),
        metrics=told,
        landed=landed,
        set_aside=sorted(set_aside, key=repr),
        unread=sorted(
            (Unread(table, each.day, each.instance_id) for table, of in files.unreadable.items() for each in of),
            key=repr,
        ),
    )


@contextmanager
def _rows_at_hand(connection: "duckdb.DuckDBPyConnection", metrics: Sequence[Metric]) -> Iterator[None]:
    """Put tables in the place of the raw tables' views, which stay as `…_files`, while the block runs.

    Each row is read several times, and a lake may have thousands of small files.
    """
    columns = {
        METRICS_TABLE: [*_KEYS, *_RECORDED],
        PUBLISHED_TABLE: [*_KEYS, *_PROFILE, *(metric.column for metric in metrics)],
    }
    try:
        for table, names in columns.items():
            connection.execute(f"DROP VIEW IF EXISTS {table}_files; ALTER VIEW {table} RENAME TO {table}_files")
            connection.execute(f"CREATE TABLE {table} AS SELECT {', '.join(names)} FROM {table}_files")
        yield
    finally:
        for table in columns:
            connection.execute(f"DROP TABLE IF EXISTS {table}")


def _tables(
    connection: "duckdb.DuckDBPyConnection", landed: LandedDays, metrics: Sequence[Metric]
) -> dict[str, pa.Table]:
    prepare_windows(connection, BY_CAMPAIGN, landed)
    is_recorded = pc.field("date_basis") == str(DateBasis.PERFORMANCE_DATE)
    shown = pc.field("window").isin([*PERIODS.values()]) & (is_recorded | ~pc.field("is_previous"))
    connection.register("periods", periods(landed).filter(shown))
    connection.execute(rendered("windows.sql", BY_CAMPAIGN))
    names = tuple(metric.column for metric in metrics)
    context = {"measures_compared": COMPARED_MEASURES, "differences": DIFFERENCES, "metric_columns": names}
    sql = files_of_package(__package__).joinpath("report.sql").read_text("utf-8")
    connection.execute(rendered_sql(sql, BY_CAMPAIGN, **context))
    return {table: connection.sql(f"FROM report_{table} ORDER BY ALL").to_arrow_table() for table in TABLES}


def _by_instance(partitions: Iterable[Partition]) -> dict[str, frozenset[date]]:
    found: dict[str, set[date]] = {}
    for partition in partitions:
        found.setdefault(str(partition.instance_id), set()).add(partition.day)
    return {instance_id: frozenset(days) for instance_id, days in sorted(found.items())}


def _days(there: Mapping[str, Iterable[date]]) -> Iterable[date]:
    return (day for days in there.values() for day in days)


def _creators(profiles: pa.Table) -> list[Creator]:
    """The creators, each with its name and profiles as the newest of their posts say."""
    creators = []
    rows = sorted(profiles.to_pylist(), key=lambda row: (row["creator"], row["creator_content_type"] or ""))
    for number, group in groupby(rows, key=itemgetter("creator")):
        of = sorted(group, key=lambda row: [*row["newest"].values()], reverse=True)
        names = [row["newest"]["name"] for row in of if row["newest"]["name"]]
        found: dict[str | None, Profile] = {}
        for row in of:
            network = platform_of(row["creator_content_type"])
            handle, link = row["newest"]["handle"], row["newest"]["link"]
            if handle or link:
                found.setdefault(network, Profile(network, handle or None, link or None))
        ordered = sorted(found.values(), key=lambda profile: profile.network or "~")
        name = names[0] if names else None
        creators.append(Creator(number, of[0]["instance_id"], of[0]["creator_id"], name, ordered))
    return creators
