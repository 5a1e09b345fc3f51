"""The checks of campaigns, which hold what the API reports for campaigns against their posts."""

from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.days import days_between, due_day
from later_reporting_dagster.defs.checks.check import (
    MAX_NAMES,
    NEWEST_DUE_DAY,
    WARN,
    Check,
    CheckScope,
    build_asset_checks,
    join_first,
)
from later_reporting_dagster.defs.checks.posts import QUARANTINE_EMPTY, evaluate_quarantine
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGNS_TABLE, Lake
from later_reporting_dagster.rollups.campaign_reconciliation import (
    TOLERANCE_PERCENT,
    CampaignReconciliation,
    reconcile_campaigns,
)
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN

DUE_DAY = Check(
    NEWEST_DUE_DAY,
    "The newest day that is due has a file, unless the API refuses the route.",
    severity=WARN,
    nothing="Not fetched yet",
    is_daily=True,
)
TOTALS_AGREE = Check(
    "totals_agree_with_posts",
    "Impressions, engagements and number of posts of each campaign and day equal those of its posts in"
    f" {BY_CAMPAIGN.raw_table}, within {TOLERANCE_PERCENT} %.",
    severity=WARN,
    nothing="No day of a campaign can be compared: no posts of the same day, or no metric that both report",
    is_daily=True,
)
SPEND_WITHIN_BOUNDS = Check(
    "ad_spend_is_within_bounds",
    "The ad spend of a campaign is at least the minimum of its posts' paid spend; and at most the maximum,"
    f" if all of its paid posts have bounds. Within {TOLERANCE_PERCENT} %, for campaigns whose whole life is in"
    f" {CAMPAIGN_PERFORMANCE_TABLE}.",
    severity=WARN,
    nothing="No campaign can be compared yet: its ad spend, its first post and bounds of its paid posts must be known,"
    f" and {CAMPAIGN_PERFORMANCE_TABLE} must have all days since the first post",
)


def campaign_checks(settings: DefinitionSettings) -> list[dg.AssetChecksDefinition]:
    """Return the checks of the assets of campaigns that are defined."""
    checks = []
    if CAMPAIGNS_TABLE in settings.tables:
        checks.append(_checks_of(CAMPAIGNS_TABLE, [QUARANTINE_EMPTY], settings))
    if CAMPAIGN_PERFORMANCE_TABLE in settings.tables:
        checks.append(_checks_of(CAMPAIGN_PERFORMANCE_TABLE, [QUARANTINE_EMPTY, DUE_DAY], settings))
        if BY_CAMPAIGN.raw_table in settings.tables:
            checks.append(build_campaign_totals_check(settings))
    return checks


def _checks_of(name: str, checks: list[Check], settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        yield evaluate_quarantine(name, lake=later.lake())
        if scope.has(DUE_DAY):
            yield evaluate_newest_due_day(later.lake(), due_hour_utc=settings.due_hour_utc)

    return build_asset_checks({name: checks}, evaluate=evaluate, settings=settings)


def build_campaign_totals_check(settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the check that compares campaigns with their posts, run daily at the due hour."""

    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        found = reconcile_campaigns(later.lake(), memory_gb=later.memory_gb, days=scope.partitions)
        yield evaluate_campaign_totals(found)

    return build_asset_checks(
        {CAMPAIGN_PERFORMANCE_TABLE: [TOTALS_AGREE]},
        evaluate=evaluate,
        settings=settings,
        step=f"{settings.op_name(CAMPAIGN_PERFORMANCE_TABLE)}_totals",
        deps=[BY_CAMPAIGN.raw_table, CAMPAIGNS_TABLE],
    )


def evaluate_newest_due_day(lake: Lake, *, due_hour_utc: int) -> dg.AssetCheckResult:
    """Evaluate whether the newest due day has a file. An account whose API refuses the route has no file of any day."""
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    days = {partition.day for partition in lake.partitions(CAMPAIGN_PERFORMANCE_TABLE)}
    return DUE_DAY.result(
        not days or due in days,
        f"{due} is missing: materialize it",
        otherwise=f"{due} has a file",
        looked_at={"days": len(days)},
        due_day=str(due),
    )


def evaluate_campaign_totals(found: CampaignReconciliation) -> dg.AssetCheckResult:
    """Evaluate whether the totals of campaigns equal those of their posts. The metadata has the differences."""
    percents = {
        f"difference_percent/{name}": round(100 * (of_campaigns - of_posts) / (of_posts or 1), 6)
        for name, (of_campaigns, of_posts) in found.totals.items()
        if of_posts or not of_campaigns
    }
    examples = [
        "{metric} of campaign {campaign_id} on {date} ({of_campaign} and {of_posts} in posts)".format(**each)
        for each in found.examples
    ]
    return TOTALS_AGREE.result(
        not found.differing,
        f"{found.differing} of {found.compared} days of campaigns differ from their posts by over"
        f" {TOLERANCE_PERCENT} %, such as {join_first(examples[:1])}. Materialize these days of both tables; if they"
        " differ again, the API's totals count other posts",
        otherwise=f"{found.compared} days of campaigns agree with their posts",
        looked_at={"compared": found.compared},
        differing=found.differing,
        unknown_campaigns=found.unknown,
        days_without_posts=found.without_posts,
        unreadable_files=found.unreadable_files,
        **percents,
        examples=dg.MetadataValue.json(examples),
    )


def evaluate_ad_spend(
    results: pa.Table, *, costs: pa.Table, campaigns: pa.Table, days: Collection[date]
) -> dg.AssetCheckResult:
    """Evaluate whether the ad spend of campaigns is within the bounds of their posts' paid spend.

    `days` are the days that campaign_performance_daily has.
    """
    below, above = list[str](), list[str]()
    compared = compared_with_maximum = 0
    for name, spend, minimum, maximum in _lifetime_spend(results, costs=costs, campaigns=campaigns, days={*days}):
        compared += 1
        compared_with_maximum += maximum is not None
        bounds = f"at least {minimum:.2f}" if maximum is None else f"{minimum:.2f} to {maximum:.2f}"
        line = f"{name}: {spend:.2f}, of posts {bounds}"
        if spend < minimum * (1 - TOLERANCE_PERCENT / 100):
            below.append(line)
        elif maximum is not None and spend > maximum * (1 + TOLERANCE_PERCENT / 100):
            above.append(line)
    outside = [*below, *above]
    return SPEND_WITHIN_BOUNDS.result(
        not outside,
        f"The ad spend of {len(outside)} of {compared} campaigns is outside: {join_first(outside)}",
        otherwise=f"The ad spend of {compared} campaigns is within the bounds of their posts' paid spend",
        looked_at={"compared": compared},
        compared_with_maximum=compared_with_maximum,
        below_minimum=len(below),
        above_maximum=len(above),
        examples=dg.MetadataValue.json(outside[:MAX_NAMES]),
    )


def _lifetime_spend(
    results: pa.Table, *, costs: pa.Table, campaigns: pa.Table, days: set[date]
) -> Iterator[tuple[str, float, float, float | None]]:
    """Yield each campaign whose ad spend can be compared: the costs in posts are those of its whole life.

    A tuple is instance and campaign, the ad spend, and what the paid posts cost at least, and at most; None if some of
    them have no bounds.
    """
    first_posts = {
        (row["instance_id"], row["campaign_id"]): row["first_post_date"]
        for row in campaigns.select(["instance_id", "campaign_id", "first_post_date"]).to_pylist()
    }
    results_of = _all_time_rows(results)
    for key, published in _all_time_rows(costs).items():
        recorded, first_post, spend = results_of.get(key), first_posts.get(key), published["paid_spend"]
        if recorded is None or first_post is None or recorded["paid_ad_spend"] is None or spend is None:
            continue
        first, last = recorded["first_day"], recorded["last_day"]
        first_day = first_post.date()
        # The table was made from other days if it was computed before they were fetched.
        is_current = recorded["days"] == sum(first <= day <= last for day in days)
        is_whole = first <= first_day <= last and days.issuperset(days_between(first_day, last))
        if is_current and is_whole and published["last_day"] <= last:
            uncertainty = spend * published["paid_spend_uncertainty_percent"] / 100
            is_bounded = published["paid_spend_posts"] == published["paid_posts"]
            maximum = spend + uncertainty if is_bounded else None
            yield f"campaign {key[1]} of {key[0]}", recorded["paid_ad_spend"], spend - uncertainty, maximum


def _all_time_rows(rows: pa.Table) -> dict[tuple[str, int], dict[str, Any]]:
    of_all_time = rows.filter(pc.field("time_window") == "all").to_pylist()
    return {(row["instance_id"], row["campaign_id"]): row for row in of_all_time}
