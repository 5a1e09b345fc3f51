"""Compare the totals of campaigns, as the API reports them by day, with the posts of the same day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from later_reporting_dagster.contract import DEFAULT_METRICS
from later_reporting_dagster.lake import CAMPAIGNS_TABLE, Lake, Table, ViewContents, open_database, post_columns
from later_reporting_dagster.rollups import sql_engine
from later_reporting_dagster.rollups.lake_rollups import CAMPAIGN_PERFORMANCE, read_campaigns
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN

if TYPE_CHECKING:
    import duckdb

# Allowed difference in percent of the posts' total: both tables are fetched at different times.
TOLERANCE_PERCENT = 1
MAX_EXAMPLES = 20
# The number of posts is that of the rows of the day.
COMPARED_METRICS = ("posts_count", "impressions", "engagements", "paid_impressions", "paid_engagements")
_POSTS = Table(BY_CAMPAIGN.raw_table, post_columns(DEFAULT_METRICS))


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
    lake: Lake, *, memory_gb: float, days: tuple[date, date] | None = None
) -> CampaignReconciliation:
    """Compare the days that both tables have, from the first to the last of `days`. Skip files that cannot be read."""
    campaigns = read_campaigns(lake)
    first, last = days or (date.min, date.max)
    campaign_days = [each for each in lake.partitions(CAMPAIGN_PERFORMANCE.name) if first <= each.day <= last]
    compared = {partition.day for partition in campaign_days}
    posts = [partition for partition in lake.partitions(_POSTS.name) if partition.day in compared]
    with open_database(lake, memory_gb=memory_gb) as database:

        def reconcile(contents: ViewContents) -> CampaignReconciliation:
            database.connection.register(CAMPAIGNS_TABLE, campaigns.rows)
            sql_engine.register_stored_files(database.connection, contents.partitions)
            skipped = sum(map(len, contents.unreadable.values())) + bool(campaigns.error)
            with sql_engine.translated_errors():
                return _reconcile(database.connection, unreadable_files=skipped)

        return database.read([(CAMPAIGN_PERFORMANCE, campaign_days), (_POSTS, posts)], reconcile)


def _reconcile(connection: "duckdb.DuckDBPyConnection", *, unreadable_files: int) -> CampaignReconciliation:
    variables = {"compared_columns": COMPARED_METRICS[1:], "tolerance_percent": TOLERANCE_PERCENT}
    connection.execute(sql_engine.render("campaign_reconciliation.sql", BY_CAMPAIGN, **variables)).fetchall()
    (counts,) = sql_engine.query_rows(connection, "FROM campaign_counts")
    totals = sql_engine.query_rows(
        connection,
        "SELECT metric, sum(of_campaign) AS of_campaign, sum(of_posts) AS of_posts FROM compared_totals GROUP BY ALL",
    )
    by_metric = {each["metric"]: (each["of_campaign"], each["of_posts"]) for each in totals}
    return CampaignReconciliation(
        **counts,
        totals={name: by_metric[name] for name in COMPARED_METRICS if name in by_metric},
        examples=sql_engine.query_rows(
            connection,
            f"SELECT * EXCLUDE (differs) FROM compared_totals WHERE differs ORDER BY ALL LIMIT {MAX_EXAMPLES}",
        ),
        unreadable_files=unreadable_files,
    )
