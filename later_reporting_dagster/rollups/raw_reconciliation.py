"""Compare the fetched tables: the totals of campaigns with their posts and days, and posts with their days."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from later_reporting_dagster.contract import DEFAULT_METRICS
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.database import ViewContents
from later_reporting_dagster.lake.tables import (
    CAMPAIGN_PERFORMANCE,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGN_PERIODS,
    CAMPAIGN_PERIODS_TABLE,
    INSTANCE_PERFORMANCE_DAILY,
    POST_COLUMNS,
    POST_METRICS_DAILY,
    POSTS_PUBLISHED,
    Table,
)
from later_reporting_dagster.rollups import sql_engine
from later_reporting_dagster.rollups.lake_rollups import read_campaigns, register_campaign_periods, register_campaigns
from later_reporting_dagster.rollups.templates import render

# Allowed difference in percent: tables are fetched at different times, networks restate late, and money is rounded
# again for each day.
TOLERANCE_PERCENT = 1
MAX_EXAMPLES = 20
# The days of the windows whose ad spend is compared, and some more: the windows may be those of an earlier run.
MAX_SPEND_DAYS = 60
# Of what Later totals for an account: networks restate late, and a difference that is small on each day adds up.
ACCOUNT_TOLERANCES = {
    "seconds_between_requests": 24 * 3600,
    "day_percent": 1,
    "day_minimum": 10,
    "days_together": 28,
    "together_percent": 0.1,
}
COMPARED_METRICS = ("impressions", "engagements", "paid_impressions", "paid_engagements")
_POSTS = Table(POST_METRICS_DAILY.name, POST_COLUMNS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignReconciliation:
    """The comparison of campaigns with their posts. All numbers but those of `totals` are of (day, campaign) pairs.

    Attributes:
        compared: pairs with at least one total that both tables report.
        differing: pairs with a total that differs by more than the tolerance.
        unknown: pairs whose campaign is neither in `campaigns` nor in the posts.
        without_posts: pairs that cannot be compared, because an instance of the campaign has no posts file of the day.
        totals: by metric, the sum that the API reports for campaigns, and the sum over their posts, where both tables
            report the metric; metrics that are never compared are left out.
        examples: the first differences: date, campaign_id, metric, of_campaign and of_posts.
        unreadable_files: number of files that were skipped.
    """

    compared: int
    differing: int
    unknown: int
    without_posts: int
    totals: Mapping[str, tuple[int, int]]
    examples: Sequence[Mapping[str, Any]]
    unreadable_files: int = 0


def reconcile_campaigns(
    lake: Lake, *, memory_gb: float, days: Collection[date] | None = None
) -> CampaignReconciliation:
    """Compare the days that both tables have, of `days` or of all. Skip files that cannot be read."""
    campaigns = read_campaigns(lake)
    campaign_days = lake.partitions(CAMPAIGN_PERFORMANCE_TABLE, days=days)
    posts = lake.file_versions(_POSTS.name, days={partition.day for partition in campaign_days}, with_retired=False)
    with sql_engine.open_rollup_database(lake, memory_gb=memory_gb) as database:
        connection = database.connection
        register_campaigns(connection, campaigns)

        def reconcile(contents: ViewContents) -> CampaignReconciliation:
            sql_engine.register_stored_files(connection, contents.partitions)
            variables = {"compared_columns": COMPARED_METRICS, "tolerance_percent": TOLERANCE_PERCENT}
            connection.execute(render("campaign_reconciliation.sql", variables)).fetchall()
            (counts,) = sql_engine.query_rows(connection, "FROM campaign_counts")
            sums = "SELECT metric, sum(of_campaign), sum(of_posts) FROM compared_totals GROUP BY ALL"
            totals = {metric: tuple(sums) for metric, *sums in connection.sql(sums).fetchall()}
            differing = (
                f"SELECT * EXCLUDE (differs) FROM compared_totals WHERE differs ORDER BY ALL LIMIT {MAX_EXAMPLES}"
            )
            return CampaignReconciliation(
                **counts,
                totals={name: totals[name] for name in COMPARED_METRICS if name in totals},
                examples=sql_engine.query_rows(connection, differing),
                unreadable_files=sum(map(len, contents.unreadable.values())) + bool(campaigns.error),
            )

        return database.read([(CAMPAIGN_PERFORMANCE.table, campaign_days), (_POSTS, posts)], reconcile)


def reconcile_ad_spend(lake: Lake, *, memory_gb: float) -> list[dict[str, Any]]:
    """Compare the newest windows of 7 and 28 days with the days of campaigns, if all of these are stored.

    Returns:
        Of each campaign and window: period, campaign_id, first_day, last_day, of_window, of_days and differs.
    """
    days = lake.partitions(CAMPAIGN_PERFORMANCE_TABLE)[-MAX_SPEND_DAYS:]
    periods = lake.read_intact_table(CAMPAIGN_PERIODS_TABLE, schema=CAMPAIGN_PERIODS.schema)
    with sql_engine.open_rollup_database(lake, memory_gb=memory_gb) as database:
        register_campaign_periods(database.connection, periods)

        def reconcile(contents: ViewContents) -> list[dict[str, Any]]:
            sql_engine.register_stored_files(database.connection, contents.partitions)
            return sql_engine.query_rows(database.connection, render("ad_spend_of_windows.sql", {}))

        return database.read([(CAMPAIGN_PERFORMANCE.table, days)], reconcile)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountReconciliation:
    """The comparison of posts with what Later totals for each instance and day.

    Attributes:
        compared: number of (day, instance) pairs with a metric that can be compared.
        differing: days and periods whose sums differ: first_day, last_day, instance_id, metric, of_later, the sums of
            the posts, counted `once` and `by_campaign`, and how many of them are `lacking` the metric.
        counts_by_campaign: whether all of them agree if a post counts once for each of its campaigns.
        unreadable_files: number of files that were skipped.
    """

    compared: int
    differing: Sequence[Mapping[str, Any]]
    counts_by_campaign: bool
    unreadable_files: int


def reconcile_accounts(
    lake: Lake, *, last_day: date, memory_gb: float, requests: pa.Table, days: Collection[date] | None = None
) -> AccountReconciliation:
    """Compare the days that both tables have, of `days` or of all, up to `last_day`. Skip files that cannot be read.

    `requests` is that of `sum_settled_posts`.
    """
    accounts = lake.file_versions(INSTANCE_PERFORMANCE_DAILY.name, days=days, with_retired=False)
    posts = lake.file_versions(_POSTS.name, days={partition.day for partition in accounts}, with_retired=False)
    with sql_engine.open_rollup_database(lake, memory_gb=memory_gb) as database:
        connection = database.connection
        connection.register("requests", requests)

        def reconcile(contents: ViewContents) -> AccountReconciliation:
            sql_engine.register_stored_files(connection, contents.partitions)
            variables = {"last_day": last_day, "compared_columns": COMPARED_METRICS, **ACCOUNT_TOLERANCES}
            connection.execute(render("account_reconciliation.sql", variables)).fetchall()
            count = "SELECT count(DISTINCT (date, instance_id)) FROM compared_accounts"
            ((compared,),) = connection.sql(count).fetchall()
            found = sql_engine.query_rows(connection, "FROM account_differences ORDER BY ALL")
            differing = [row for row in found if row["differs"]]
            return AccountReconciliation(
                compared=compared,
                differing=differing,
                counts_by_campaign=bool(differing) and not any(row["differs_by_campaign"] for row in found),
                unreadable_files=sum(map(len, contents.unreadable.values())),
            )

        return database.read([(INSTANCE_PERFORMANCE_DAILY.table, accounts), (_POSTS, posts)], reconcile)


SETTLED_METRICS = [metric.column for metric in DEFAULT_METRICS if metric.kind.adds_up_over_days]


def sum_settled_posts(
    lake: Lake,
    *,
    settled_after_days: int,
    memory_gb: float,
    requests: pa.Table,
    published: Collection[date] | None = None,
) -> dict[str, Any]:
    """Sum the days of settled posts, and their metrics to date. Files that cannot be read are skipped.

    A post is settled once `settled_after_days` days have been recorded after the day on which it was published.
    `published` are the publish days of the posts to compare; default: all. `requests` has when the files were last
    requested, as far as that is known: table_name, date, instance_id, requested_at.

    Returns:
        The number of `posts` and of `posts_that_differ`, and of each metric `{name}_of_days` and `{name}_to_date`.
    """
    posts = lake.file_versions(POSTS_PUBLISHED.name, days=published, with_retired=False)
    first = date.min if published is None else min(published, default=date.max)
    days = lake.file_versions(POST_METRICS_DAILY.name, with_retired=False) if posts else {}
    tables = {
        POSTS_PUBLISHED: posts,
        POST_METRICS_DAILY: {partition: version for partition, version in days.items() if partition.day >= first},
    }
    variables = {"settled_after_days": settled_after_days, "compared": SETTLED_METRICS}
    sql = render("settled_posts.sql", variables | {"tolerance_percent": TOLERANCE_PERCENT})
    with sql_engine.open_rollup_database(lake, memory_gb=memory_gb) as database:
        database.connection.register("requests", requests)

        def compare(files: ViewContents) -> dict[str, Any]:
            sql_engine.register_stored_files(database.connection, files.partitions)
            (sums,) = sql_engine.query_rows(database.connection, sql)
            return sums

        return database.read([(Table(each.name, POST_COLUMNS), files) for each, files in tables.items()], compare)
