"""The checks that hold what the API reports for campaigns against their posts."""

from collections.abc import Collection, Iterator, Set
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.defs.checks import MAX_NAMES, WARN, Check, CheckScope, build_asset_checks, join_first
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGNS_TABLE
from later_reporting_dagster.rollups.campaign_reconciliation import (
    TOLERANCE_PERCENT,
    CampaignReconciliation,
    reconcile_campaigns,
)
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN

CAMPAIGN_TOTALS_TABLES = (CAMPAIGN_PERFORMANCE_TABLE, BY_CAMPAIGN.raw_table)
TOTALS_AGREE = Check(
    name="totals_agree_with_posts",
    description="Impressions, engagements and number of posts of each campaign and day equal those of its posts in"
    f" {BY_CAMPAIGN.raw_table}, within {TOLERANCE_PERCENT} %.",
    severity=WARN,
    nothing="No day of a campaign can be compared: no posts of the same day, or no metric that both report",
    is_daily=True,
)
SPEND_WITHIN_BOUNDS = Check(
    name="ad_spend_is_within_bounds",
    description="The ad spend of a campaign is at least the minimum of its posts' paid spend; and at most the maximum,"
    f" if all of its paid posts have bounds. Within {TOLERANCE_PERCENT} %, for campaigns whose whole life is in"
    f" {CAMPAIGN_PERFORMANCE_TABLE}.",
    severity=WARN,
    nothing="No campaign can be compared yet: its ad spend, its first post and bounds of its paid posts must be known,"
    f" and {CAMPAIGN_PERFORMANCE_TABLE} must have all days since the first post",
)
_ONE_DAY = timedelta(days=1)


def build_campaign_totals_check(settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the check that compares campaigns with their posts, run daily at the due hour."""

    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        found = reconcile_campaigns(later.lake(), memory_gb=later.memory_gb, days=scope.partitions)
        yield evaluate_campaign_totals(found)

    return build_asset_checks(
        CAMPAIGN_PERFORMANCE_TABLE,
        [TOTALS_AGREE],
        evaluate=evaluate,
        settings=settings,
        step="totals",
        deps=[BY_CAMPAIGN.raw_table, CAMPAIGNS_TABLE],
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
        f"{found.differing} of {found.compared} days of campaigns differ from their posts by over"
        f" {TOLERANCE_PERCENT} %, such as {examples[0]}. Materialize these days of both tables; if they differ"
        " again, the API's totals count other posts"
        if found.differing
        else "",
        otherwise=f"{found.compared} days of campaigns agree with their posts",
        looked_at={"compared": found.compared},
        metadata={
            "differing": found.differing,
            "unknown_campaigns": found.unknown,
            "days_without_posts": found.without_posts,
            "unreadable_files": found.unreadable_files,
            **percents,
            **({"examples": dg.MetadataValue.json(examples)} if examples else {}),
        },
    )


@dataclass(frozen=True, slots=True)
class _Spend:
    """The ad spend of a campaign over its whole life, and the bounds of its posts' paid spend.

    Attributes:
        name: instance and campaign.
        spend: ad spend.
        minimum: what the posts with bounds cost at least.
        maximum: what the paid posts cost at most; None if some have no bounds.
    """

    name: str
    spend: float
    minimum: float
    maximum: float | None

    @property
    def is_below(self) -> bool:
        return self.spend < self.minimum * (1 - TOLERANCE_PERCENT / 100)

    @property
    def is_above(self) -> bool:
        return self.maximum is not None and self.spend > self.maximum * (1 + TOLERANCE_PERCENT / 100)

    def __str__(self) -> str:
        bounds = f"at least {self.minimum:.2f}" if self.maximum is None else f"{self.minimum:.2f} to {self.maximum:.2f}"
        return f"{self.name}: {self.spend:.2f}, of posts {bounds}"


def evaluate_ad_spend(
    results: pa.Table, *, costs: pa.Table, campaigns: pa.Table, days: Collection[date]
) -> dg.AssetCheckResult:
    """Evaluate whether the ad spend of campaigns is within the bounds of their posts' paid spend.

    Args:
        results: the rows of campaign_results.
        costs: the rows of costs_by_campaign.
        campaigns: the table of campaigns.
        days: the days that campaign_performance_daily has.
    """
    compared = [*_lifetime_spend(results, costs=costs, campaigns=campaigns, days=frozenset(days))]
    below = [str(each) for each in compared if each.is_below]
    above = [str(each) for each in compared if each.is_above]
    outside = [*below, *above]
    return SPEND_WITHIN_BOUNDS.result(
        f"The ad spend of {len(outside)} of {len(compared)} campaigns is outside: {join_first(outside)}"
        if outside
        else "",
        otherwise=f"The ad spend of {len(compared)} campaigns is within the bounds of their posts' paid spend",
        looked_at={"compared": len(compared)},
        metadata={
            "compared_with_maximum": sum(each.maximum is not None for each in compared),
            "below_minimum": len(below),
            "above_maximum": len(above),
            **({"percent_outside": 100 * len(outside) / len(compared)} if compared else {}),
            **({"examples": dg.MetadataValue.json(outside[:MAX_NAMES])} if outside else {}),
        },
    )


def _lifetime_spend(results: pa.Table, *, costs: pa.Table, campaigns: pa.Table, days: Set[date]) -> Iterator[_Spend]:
    """Yield the campaigns whose ad spend can be compared: the costs in posts are those of their whole life."""
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
        life = {first_day + number * _ONE_DAY for number in range((last - first_day).days + 1)}
        # The table was made from other days if it was computed before they were fetched.
        is_current = recorded["days"] == sum(first <= day <= last for day in days)
        if is_current and first <= first_day <= last and published["last_day"] <= last and life <= days:
            uncertainty = spend * published["paid_spend_uncertainty_percent"] / 100
            is_bounded = published["paid_spend_posts"] == published["paid_posts"]
            yield _Spend(
                f"campaign {key[1]} of {key[0]}",
                recorded["paid_ad_spend"],
                spend - uncertainty,
                spend + uncertainty if is_bounded else None,
            )


def _all_time_rows(rows: pa.Table) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the rows of the window `all`, by instance and campaign."""
    of_all_time = rows.filter(pc.field("time_window") == "all").to_pylist()
    return {(row["instance_id"], row["campaign_id"]): row for row in of_all_time}
