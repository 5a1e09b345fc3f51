"""The checks of campaigns, which hold what the API reports for campaigns against their posts."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import dagster as dg

from later_reporting_dagster.defs.checks.check import MAX_NAMES, WARN, Check, CheckRun, CheckStep, Results, join_first
from later_reporting_dagster.defs.checks.posts import QUARANTINE_EMPTY, evaluate_quarantine
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGN_PERIODS_TABLE, CAMPAIGNS_TABLE
from later_reporting_dagster.lake.tables import PERIODS_TABLES, POST_METRICS_DAILY
from later_reporting_dagster.rollups.raw_reconciliation import (
    TOLERANCE_PERCENT,
    CampaignReconciliation,
    reconcile_ad_spend,
    reconcile_campaigns,
)

TOTALS_AGREE = Check(
    "totals_agree_with_posts",
    "Impressions and engagements of each campaign and day equal those of its posts in"
    f" {POST_METRICS_DAILY.name}, within {TOLERANCE_PERCENT} %.",
    severity=WARN,
    nothing="No day of a campaign can be compared: no posts of the same day, or no metric that both report",
    is_daily=True,
)
AD_SPEND_AGREES = Check(
    "ad_spend_agrees_with_days",
    "Ad spend of each campaign over the last 7 and 28 days equals the sum of these days in"
    f" {CAMPAIGN_PERFORMANCE_TABLE}, within rounding.",
    severity=WARN,
    nothing="No window has all of its days",
    is_daily=True,
)


def _evaluate_table(name: str, run: CheckRun) -> Results:
    yield evaluate_quarantine(name, lake=run.later.lake())


def _evaluate_totals(run: CheckRun) -> Results:
    later = run.later
    yield evaluate_campaign_totals(reconcile_campaigns(later.lake(), memory_gb=later.memory_gb, days=run.days))


def _evaluate_spend(run: CheckRun) -> Results:
    yield evaluate_ad_spend(reconcile_ad_spend(run.later.lake(), memory_gb=run.later.memory_gb))


CAMPAIGN_STEPS = (
    *(
        CheckStep(name=f"{name}_checks", checks={name: [QUARANTINE_EMPTY]}, evaluate=partial(_evaluate_table, name))
        for name in (CAMPAIGNS_TABLE, *PERIODS_TABLES)
    ),
    CheckStep(
        name=f"{CAMPAIGN_PERFORMANCE_TABLE}_totals",
        checks={CAMPAIGN_PERFORMANCE_TABLE: [TOTALS_AGREE]},
        evaluate=_evaluate_totals,
        deps=[POST_METRICS_DAILY.name, CAMPAIGNS_TABLE],
        needs=[POST_METRICS_DAILY.name],
    ),
    CheckStep(
        name=f"{CAMPAIGN_PERIODS_TABLE}_ad_spend",
        checks={CAMPAIGN_PERIODS_TABLE: [AD_SPEND_AGREES]},
        evaluate=_evaluate_spend,
        deps=[CAMPAIGN_PERFORMANCE_TABLE],
        needs=[CAMPAIGN_PERFORMANCE_TABLE],
    ),
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


def evaluate_ad_spend(compared: Sequence[Mapping[str, Any]]) -> dg.AssetCheckResult:
    """Evaluate whether the ad spend of windows equals that of their days. The metadata has those that differ."""
    texts = [
        "campaign {campaign_id} over {period} ({of_window} and {of_days} in days)".format(**each)
        for each in compared
        if each["differs"]
    ]
    return AD_SPEND_AGREES.result(
        not texts,
        f"{len(texts)} of {len(compared)} windows of campaigns have another ad spend than their days, such as"
        f" {join_first(texts[:1])}. Materialize these days and {CAMPAIGN_PERIODS_TABLE}; if they differ again, the"
        " API's days do not add up",
        otherwise=f"{len(compared)} windows of campaigns agree with their days",
        looked_at={"compared": len(compared)},
        differing=len(texts),
        campaigns=dg.MetadataValue.json(texts[:MAX_NAMES]),
    )
