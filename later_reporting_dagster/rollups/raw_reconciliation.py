"""Compare the fetched tables: the totals of campaigns with their posts and days, and posts with their days."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from operator import itemgetter
from typing import Any

import pyarrow as pa

from later_reporting_dagster.contract import DEFAULT_METRICS
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.coverage import newest_requests
from later_reporting_dagster.lake.database import ViewContents
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
# A query reads no more files than these at once: DuckDB keeps 4 KB of each, and a state for each of their posts.
_MAX_FILES = 10_000
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
        # Of the fields without a column, only the one that `CampaignOwners` reads: others change every day.
        named = "json_object('instanceId', json_extract(extra, '$.instanceId'))"
        sql = f"SELECT DISTINCT campaign_id, {named} FROM {CAMPAIGN_PERFORMANCE.name}"  # noqa: S608
        rows = database.read(
            [(CAMPAIGN_PERFORMANCE.table, campaign_days)], lambda _contents: database.connection.sql(sql).fetchall()
        )
        campaigns, error = campaign_relations(lake, rows, marks=marks, database=database)
    found, unreadable = _query(
        lake,
        "campaign_reconciliation.sql",
        {"compared": COMPARED_METRICS, "tolerance_percent": TOLERANCE_PERCENT, "max_examples": MAX_EXAMPLES},
        memory_gb=memory_gb,
        files={CAMPAIGN_PERFORMANCE.table: campaign_days, _METRICS_DAILY: posts},
        relations=campaigns,
        part_by=lambda each: each.day,
    )
    sums = [each for part in found for each in part["sums"]]
    totals = {
        name: tuple(sum(each[side] for each in sums if each["metric"] == name) for side in ("of_campaign", "of_posts"))
        for name in COMPARED_METRICS
        if any(each["metric"] == name for each in sums)
    }
    return CampaignReconciliation(
        **{name: sum(part[name] for part in found) for name in ("compared", "differing", "unknown", "without_posts")},
        totals=totals,
        examples=[each for part in found for each in part["examples"]][:MAX_EXAMPLES],
        differing_days=[day for part in found for day in part["differing_days"]],
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
    rows, _ = _query(
        lake,
        "ad_spend_of_windows.sql",
        {},
        memory_gb=memory_gb,
        files={CAMPAIGN_PERFORMANCE.table: lake.partitions(CAMPAIGN_PERFORMANCE.name)[-MAX_SPEND_DAYS:]},
        relations={
            CAMPAIGN_PERIODS.name: lake.read_intact_table(CAMPAIGN_PERIODS.name, schema=schema) or schema.empty_table(),
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
    files = {INSTANCE_PERFORMANCE_DAILY.name: accounts, POST_METRICS_DAILY.name: posts}
    found, unreadable = _query(
        lake,
        "account_reconciliation.sql",
        {"last_day": last_day, "compared_columns": COMPARED_METRICS, **ACCOUNT_TOLERANCES},
        memory_gb=memory_gb,
        files={INSTANCE_PERFORMANCE_DAILY.table: accounts, _METRICS_DAILY: posts},
        relations={"requests": newest_requests(lake, files)},
        part_by=_instance,
    )
    differing = [each for part in found for each in part["differing"]]
    return AccountReconciliation(
        compared=sum(part["compared"] for part in found),
        differing=sorted(differing, key=itemgetter("first_day", "last_day", "instance_id", "metric")),
        counts_by_campaign=bool(differing) and all(part["agrees_by_campaign"] for part in found),
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
    found, _ = _query(
        lake,
        "settled_posts.sql",
        {"settled_after_days": settled_after_days, "compared": SETTLED_METRICS, "tolerance_percent": TOLERANCE_PERCENT},
        memory_gb=memory_gb,
        files={_PUBLISHED: posts, _METRICS_DAILY: [each for each in days if each.day >= first]},
        relations={"requests": newest_requests(lake, {POSTS_PUBLISHED.name: posts})},
        part_by=_instance,
    )
    differing = {day for part in found for day in part.pop("days_that_differ")}
    known = {name: [part[name] for part in found if part[name] is not None] for name in found[0]}
    return {name: sum(values) if values else None for name, values in known.items()} | {
        "days_that_differ": sorted(differing)
    }


def _instance(file: Partition) -> str:
    return file.instance_id or ""


def _query(
    lake: Lake,
    template: str,
    variables: Mapping[str, Any],
    *,
    memory_gb: float,
    files: Mapping[Table, Collection[Partition]],
    relations: Mapping[str, pa.Table],
    part_by: Callable[[Partition], Any] = lambda _file: None,
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of a query over these files and relations, and how many files cannot be read.

    `part_by`: what is never compared across, such as the instance of a file. The query is run for parts of the files.
    """

    def compute(contents: ViewContents) -> tuple[list[dict[str, Any]], int]:
        register_stored_files(database.connection, contents.partitions)
        found = database.connection.sql(render(template, variables))
        rows = [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
        return rows, sum(map(len, contents.unreadable.values()))

    results: list[tuple[list[dict[str, Any]], int]] = []
    for part in _parts(files, part_by):
        with open_rollup_database(lake, memory_gb=memory_gb) as database:
            for name, rows in relations.items():
                database.connection.register(name, rows)
            results.append(database.read(part, compute))
    return [row for rows, _ in results for row in rows], sum(unreadable for _, unreadable in results)


def _parts(
    files: Mapping[Table, Collection[Partition]], part_by: Callable[[Partition], Any]
) -> list[list[tuple[Table, list[Partition]]]]:
    """Return the files in parts, in the order of their keys, with no key in two parts; without any, one without."""
    by_key: dict[Any, dict[Table, list[Partition]]] = {}
    for table, of_table in files.items():
        for file in of_table:
            by_key.setdefault(part_by(file), {}).setdefault(table, []).append(file)
    parts: list[list[tuple[Table, list[Partition]]]] = []
    size = _MAX_FILES
    for key in sorted(by_key):
        of_key = by_key[key]
        if size + sum(map(len, of_key.values())) > _MAX_FILES:
            parts.append([(table, []) for table in files])
            size = 0
        for table, of_part in parts[-1]:
            of_part += of_key.get(table, ())
            size += len(of_key.get(table, ()))
    return parts or [[(table, []) for table in files]]
