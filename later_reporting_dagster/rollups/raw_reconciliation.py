"""Compare the fetched tables: the totals of campaigns with their posts and days, and posts with their days."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa

from later_reporting_dagster.contract import DEFAULT_METRICS
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.coverage import newest_requests
from later_reporting_dagster.lake.database import LakeDatabase, ViewContents
from later_reporting_dagster.lake.tables import (
    CAMPAIGN_PERFORMANCE,
    CAMPAIGN_PERIODS,
    INSTANCE_PERFORMANCE_DAILY,
    POST_COLUMNS,
    POST_METRICS_DAILY,
    POSTS_PUBLISHED,
    Table,
)
from later_reporting_dagster.rollups.lake_rollups import campaign_relations
from later_reporting_dagster.rollups.sql_engine import open_rollup_database, register_stored_files
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
SETTLED_METRICS = [metric.column for metric in DEFAULT_METRICS if metric.kind.adds_up_over_days]
_QUARANTINED = pa.schema(
    {**{"table_name": pa.string(), "campaign_id": pa.int64()}, **{"first_day": pa.date32(), "last_day": pa.date32()}}
)
_METRICS_DAILY, _PUBLISHED = (Table(each.name, POST_COLUMNS) for each in (POST_METRICS_DAILY, POSTS_PUBLISHED))


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignReconciliation:
    """The comparison of campaigns with their posts. All numbers but those of `totals` are of (day, campaign) pairs.

    Attributes:
        compared: pairs with at least one total that both tables report.
        differing: pairs with a total that differs by more than the tolerance; `differing_days` are their days.
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
    differing_days: Sequence[date]
    unreadable_files: int = 0


def reconcile_campaigns(
    lake: Lake, *, memory_gb: float, days: Collection[date] | None = None
) -> CampaignReconciliation:
    """Compare the days that both tables have, of `days` or of all. Skip files that cannot be read."""
    marks, campaign_days = lake.retired.marks(), lake.partitions(CAMPAIGN_PERFORMANCE.name, days=days)
    posts = lake.file_versions(POST_METRICS_DAILY.name, days={each.day for each in campaign_days}, marks=marks)
    with open_rollup_database(lake, memory_gb=memory_gb) as database:
        sql = f"SELECT DISTINCT campaign_id, extra FROM {CAMPAIGN_PERFORMANCE.name}"  # noqa: S608
        rows = database.read(
            [(CAMPAIGN_PERFORMANCE.table, campaign_days)], lambda _contents: database.connection.sql(sql).fetchall()
        )
        campaigns, error = campaign_relations(lake, rows, marks=marks, database=database)
        (found,), unreadable = _query(
            database,
            "campaign_reconciliation.sql",
            {"compared": COMPARED_METRICS, "tolerance_percent": TOLERANCE_PERCENT, "max_examples": MAX_EXAMPLES},
            files={CAMPAIGN_PERFORMANCE.table: campaign_days, _METRICS_DAILY: posts},
            relations=campaigns,
        )
    totals = {each["metric"]: (each["of_campaign"], each["of_posts"]) for each in found.pop("sums")}
    return CampaignReconciliation(
        **found,
        totals={name: totals[name] for name in COMPARED_METRICS if name in totals},
        unreadable_files=unreadable + bool(error),
    )


def reconcile_ad_spend(lake: Lake, *, memory_gb: float) -> list[dict[str, Any]]:
    """Compare the newest windows of 7 and 28 days with the days of campaigns, if all of these are stored.

    A window is left out for a campaign of which it, or one of its days, has a row in quarantine.

    Returns:
        Of each campaign and window: period, campaign_id, first_day, last_day, of_window, of_days and differs.
    """
    schema = CAMPAIGN_PERIODS.schema
    bad_rows = [
        {"table_name": name, "campaign_id": row.id_in("campaignId"), "first_day": row.days[0], "last_day": row.days[1]}
        for name in (CAMPAIGN_PERIODS.name, CAMPAIGN_PERFORMANCE.name)
        for row in lake.quarantine.rows(name)
    ]
    with open_rollup_database(lake, memory_gb=memory_gb) as database:
        rows, _ = _query(
            database,
            "ad_spend_of_windows.sql",
            {},
            files={CAMPAIGN_PERFORMANCE.table: lake.partitions(CAMPAIGN_PERFORMANCE.name)[-MAX_SPEND_DAYS:]},
            relations={
                CAMPAIGN_PERIODS.name: lake.read_intact_table(CAMPAIGN_PERIODS.name, schema=schema)
                or schema.empty_table(),
                "quarantined": pa.Table.from_pylist(bad_rows, _QUARANTINED),
            },
        )
    return rows


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
    lake: Lake, *, last_day: date, memory_gb: float, days: Collection[date] | None = None
) -> AccountReconciliation:
    """Compare the days that both tables have, of `days` or of all, up to `last_day`. Skip files that cannot be read."""
    marks = lake.retired.marks()
    accounts = lake.file_versions(INSTANCE_PERFORMANCE_DAILY.name, days=days, marks=marks)
    accounts = {each: version for each, version in accounts.items() if each.day <= last_day}
    posts = lake.file_versions(POST_METRICS_DAILY.name, days={each.day for each in accounts}, marks=marks)
    with open_rollup_database(lake, memory_gb=memory_gb) as database:
        (found,), unreadable = _query(
            database,
            "account_reconciliation.sql",
            {"last_day": last_day, "compared_columns": COMPARED_METRICS, **ACCOUNT_TOLERANCES},
            files={INSTANCE_PERFORMANCE_DAILY.table: accounts, _METRICS_DAILY: posts},
            relations={
                "requests": newest_requests(
                    lake, {INSTANCE_PERFORMANCE_DAILY.name: accounts, POST_METRICS_DAILY.name: posts}
                )
            },
        )
    differing = [each for each in found["differences"] if each["differs"]]
    return AccountReconciliation(
        compared=found["compared"],
        differing=differing,
        counts_by_campaign=bool(differing) and not any(each["differs_by_campaign"] for each in found["differences"]),
        unreadable_files=unreadable,
    )


def sum_settled_posts(
    lake: Lake, *, settled_after_days: int, memory_gb: float, published: Collection[date] | None = None
) -> dict[str, Any]:
    """Sum the days of settled posts, and their metrics to date. Files that cannot be read are skipped.

    A post is settled once `settled_after_days` days have been recorded after the day on which it was published.
    `published` are the publish days of the posts to compare; default: all.

    Returns:
        The number of `posts` and of `posts_that_differ`, the publish days of the latter (`days_that_differ`), and of
        each metric `{name}_of_days` and `{name}_to_date`.
    """
    marks = lake.retired.marks()
    posts = lake.file_versions(POSTS_PUBLISHED.name, days=published, marks=marks)
    first = date.min if published is None else min(published, default=date.max)
    days = lake.file_versions(POST_METRICS_DAILY.name, marks=marks) if posts else {}
    with open_rollup_database(lake, memory_gb=memory_gb) as database:
        (sums,), _ = _query(
            database,
            "settled_posts.sql",
            {
                "settled_after_days": settled_after_days,
                "compared": SETTLED_METRICS,
                "tolerance_percent": TOLERANCE_PERCENT,
            },
            files={_PUBLISHED: posts, _METRICS_DAILY: [each for each in days if each.day >= first]},
            relations={"requests": newest_requests(lake, {POSTS_PUBLISHED.name: posts})},
        )
    return sums


def _query(
    database: LakeDatabase,
    template: str,
    variables: Mapping[str, Any],
    *,
    files: Mapping[Table, Collection[Partition]],
    relations: Mapping[str, pa.Table],
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a query over these files and relations, and how many files cannot be read."""
    for name, rows in relations.items():
        database.connection.register(name, rows)

    def compute(contents: ViewContents) -> tuple[list[dict[str, Any]], int]:
        register_stored_files(database.connection, contents.partitions)
        found = database.connection.sql(render(template, variables))
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
        return rows, sum(map(len, contents.unreadable.values()))

    return database.read([*files.items()], compute)
