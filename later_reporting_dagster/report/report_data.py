"""Read the data of a report: results from the rollup tables of a lake, and which days and rows are missing."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined

from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.database import ViewContents
from later_reporting_dagster.lake.paths import days_by_instance
from later_reporting_dagster.lake.tables import (
    ACCOUNT_PERIODS,
    CAMPAIGN_COLUMNS,
    CAMPAIGNS_TABLE,
    MONTH_WINDOWS,
    RAW_TABLES,
    WINDOWS,
    Table,
)
from later_reporting_dagster.rollups.rollup_tables import (
    BY_CAMPAIGN,
    BY_CREATOR,
    BY_PLATFORM,
    CAMPAIGN_RESULTS,
    CAMPAIGNS_MONTHLY,
    DAILY,
    DAILY_BY_CAMPAIGN,
    MONTHLY,
    OVERALL,
    POSTS,
)
from later_reporting_dagster.rollups.sql_engine import open_rollup_database
from later_reporting_dagster.rollups.templates import CONSTANTS, render

# The name of the report's folder and asset, and its file.
REPORT, REPORT_FILE = "organic_paid_report", "report.html"
REPORT_PATH = f"{REPORT}/{REPORT_FILE}"
# The tables that the queries read: rollups, what Later totals for accounts, and the list of campaigns.
_SINGLE_TABLES = (BY_CAMPAIGN, BY_PLATFORM, BY_CREATOR, OVERALL, POSTS, CAMPAIGN_RESULTS, CAMPAIGNS_MONTHLY)
_PERIOD_TABLES = (DAILY, DAILY_BY_CAMPAIGN, MONTHLY)
SHOWN_TABLES = (*(table.name for table in (*_PERIOD_TABLES, *_SINGLE_TABLES)), *(ACCOUNT_PERIODS.name, CAMPAIGNS_TABLE))
# The fetched tables whose missing days a report lists: name -> label.
FETCHED_TABLES = {name: table.label for name, table in RAW_TABLES.items()}
# The tables of the page: each is the query of a file, some of which read those before.
_QUERIES = (
    *("results", "months", "networks", "book", "creators", "posts", "days", "who", "peaks", "later", "silent"),
    *("newest_posts", "campaigns"),
)
# What the metadata of the asset shows of `results`.
KEY_FIGURES = (
    *("organic_impressions", "paid_impressions", "paid_share_of_impressions"),
    *("organic_engagements", "paid_engagements", "organic_engagement_rate", "paid_engagement_rate"),
    *("cost", "creators_cost", "ad_spend", "paid_cpm", "ad_spend_per_engagement", "return_on_ad_spend"),
)
MAX_DAYS = max(WINDOWS.values())
# So many creators of each instance and window are on the page: those with the most impressions.
MOST_CREATORS = 100
_SQL = Environment(loader=PackageLoader(__package__, "."), undefined=StrictUndefined, autoescape=False)
_VARIABLES = {
    **CONSTANTS,
    "most_creators": MOST_CREATORS,
    "most_months": 13,
    # Creators to book again: with fewer ranked posts, luck ranks first.
    "minimum_ranked_posts": 5,
    "most_booked": 20,
    "notable_percent": 10,
}


@dataclass(frozen=True, slots=True)
class QuarantinedRows:
    """A number of quarantined rows of a raw table that share a reason. Day and instance are None if unknown."""

    table: str
    day: date | None
    instance_id: str | None
    reason: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        as_of: the newest day of the results. On the page, days are ages: days before it.
        instances: sorted ids of the instances that have results or should have files.
        tables: the tables of the page, by the names of their queries.
        missing: by fetched table and instance (None for campaign totals), the days that should have a file and have
            none.
        outdated: sentences about tables that no longer match the files that they are made from, and about files that
            the lake contradicts.
        labels: names of instances by id; others are shown by their id.
        is_demo: whether the data are invented, which the page then says.
        fetched_at: when the newest file was requested; None if unknown.
    """

    as_of: date
    instances: Sequence[str]
    tables: Mapping[str, pa.Table]
    missing: Mapping[str, Mapping[str | None, Set[date]]]
    quarantined: Sequence[QuarantinedRows] = ()
    outdated: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    is_demo: bool = False
    fetched_at: datetime | None = None

    @property
    def windows(self) -> dict[str, tuple[date, date]]:
        """The first and the last day of the windows of the key figures.

        Those of days are up to the first one that has all days of files, shortest first. A month has results.
        """
        names = ["time_window", "instance_id", "days", "first_day", "last_day"]
        rows = self.tables["results"].select(names).to_pylist()
        # Without the table of all posts, rows of all instances have no days.
        of_all = {row["time_window"]: row for row in rows if row["instance_id"] is None and row["days"] is not None}
        days = [of_all[name]["days"] if name in of_all else 0 for name in WINDOWS]
        lengths = [*WINDOWS.items()][: days.index(max(days)) + 1]
        months = [name for name in MONTH_WINDOWS if name in of_all]
        return {name: (self.as_of - timedelta(days=length - 1), self.as_of) for name, length in lengths} | {
            name: (of_all[name]["first_day"], of_all[name]["last_day"]) for name in months
        }

    @property
    def oldest_age(self) -> int | None:
        """The age of the oldest day with results; None if there are none by day."""
        return max(self.tables["days"]["oldest_age"].to_pylist(), default=None)

    @property
    def initial_window(self) -> str:
        """The window that the page opens with: 28 days, or 7 if the lake has fewer than 28."""
        rows = self.tables["results"].select(["instance_id", "days"]).to_pylist()
        days = [row["days"] or 0 for row in rows if row["instance_id"] is None]
        return "28d" if max(days, default=0) >= WINDOWS["28d"] else "7d"

    @property
    def key_figures(self) -> dict[str, Any]:
        """The figures that the page opens with, of all instances and campaigns; None if not available."""
        rows = self.tables["results"].to_pylist()
        found = (row for row in rows if row["instance_id"] is None and row["time_window"] == self.initial_window)
        figures: dict[str, Any] = next(found, {})
        return {name: figures.get(name) for name in KEY_FIGURES}


def read_report(
    lake: Lake,
    *,
    memory_gb: float,
    missing: Mapping[str, Collection[Partition]],
    quarantined: Collection[QuarantinedRows] = (),
    outdated: Iterable[str] = (),
    labels: Mapping[str, str] | None = None,
    is_demo: bool = False,
    fetched_at: datetime | None = None,
) -> ReportData | None:
    """Read everything that a report shows; None if the key figures have not been materialized.

    Args:
        lake: has the rollup tables. Tables that it lacks are empty in the report.
        missing: the partitions that should have a file and have none, by fetched table.
        labels: names of instances by id.
    """
    stored = {table: lake.partitions(table.name) for table in _PERIOD_TABLES}
    newest = max((partition.day for partition in stored[DAILY]), default=date.min)
    campaigns = Table(CAMPAIGNS_TABLE, CAMPAIGN_COLUMNS, is_partitioned=False)
    with open_rollup_database(lake, memory_gb=memory_gb) as database:
        for table in (*(table.table for table in (*_SINGLE_TABLES, ACCOUNT_PERIODS)), campaigns):
            database.add_view(table)

        def compute(_: ViewContents) -> dict[str, pa.Table]:
            execute = database.connection.execute
            execute(render("macros.sql", {}))
            execute(f"CREATE OR REPLACE VIEW silent_platforms AS {render('silent_platforms.sql', {})}")
            execute(_render("facts"))
            execute(f"CREATE OR REPLACE TABLE ranks AS {_render('ranks')}")
            for name in _QUERIES:
                execute(f"CREATE OR REPLACE TABLE report_{name} AS {_render(name)}")
            return {
                name: database.connection.sql(f"FROM report_{name} ORDER BY ALL").to_arrow_table() for name in _QUERIES
            }

        views = [
            (table.table, [each for each in partitions if (newest - each.day).days < MAX_DAYS])
            for table, partitions in stored.items()
        ]
        tables = database.read(views, compute)
    last_days = [day for day in tables["results"]["last_day"].to_pylist() if day is not None]
    if not last_days:
        return None
    days_missing = {name: days_by_instance(missing.get(name, ())) for name in FETCHED_TABLES}
    named = {name for rows in tables.values() for name in rows["instance_id"].to_pylist()}
    named.update(*days_missing.values(), (rows.instance_id for rows in quarantined))
    return ReportData(
        as_of=max(last_days),
        instances=sorted(name for name in named if name is not None),
        tables=tables,
        missing=days_missing,
        quarantined=sorted(quarantined, key=repr),
        outdated=[*outdated],
        labels=labels or {},
        is_demo=is_demo,
        fetched_at=fetched_at,
    )


def _render(name: str) -> str:
    return _SQL.get_template(f"{name}.sql").render(_VARIABLES)
