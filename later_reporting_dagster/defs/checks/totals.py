"""The checks that hold what Later totals, for campaigns and for instances, against posts and days."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import dagster as dg

from later_reporting_dagster.contract.days import days_between, newest_day
from later_reporting_dagster.defs.checks.check import MAX_NAMES, WARN, Check, CheckRun, CheckStep, Results, join_first
from later_reporting_dagster.defs.checks.posts import QUARANTINE_EMPTY, evaluate_quarantine
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGN_PERIODS_TABLE, CAMPAIGNS_TABLE
from later_reporting_dagster.lake.campaign_owners import CampaignOwners
from later_reporting_dagster.lake.quarantine import QuarantinedRow
from later_reporting_dagster.lake.tables import (
    CAMPAIGN_PERIODS,
    INSTANCE_PERFORMANCE_DAILY,
    PERIODS_TABLES,
    POST_METRICS_DAILY,
)
from later_reporting_dagster.rollups.raw_reconciliation import (
    TOLERANCE_PERCENT,
    AccountReconciliation,
    reconcile_accounts,
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
    needs=(POST_METRICS_DAILY.name,),
)
AD_SPEND_AGREES = Check(
    "ad_spend_agrees_with_days",
    "Ad spend of each campaign over the last 7 and 28 days equals the sum of these days in"
    f" {CAMPAIGN_PERFORMANCE_TABLE}, within rounding.",
    severity=WARN,
    nothing="No window has all of its days, and no row in quarantine",
    is_daily=True,
    needs=(CAMPAIGN_PERFORMANCE_TABLE,),
)
EVERY_CAMPAIGN_HAS_AN_INSTANCE = Check(
    "every_campaign_has_an_instance",
    "Each campaign with totals is of a known instance: by its row, the list of campaigns, or the posts that were ever"
    " recorded in it.",
    severity=WARN,
    nothing="There are no totals of campaigns",
    is_daily=True,
)

# Networks restate their results, and Later follows them at different times.
DAYS_BEFORE_COMPARISON = 3
POSTS_AGREE = Check(
    "posts_agree_with_later",
    "Impressions and engagements, organic and paid, of all posts of an instance are what Later totals in"
    f" {INSTANCE_PERFORMANCE_DAILY.name}: each day that was over for three days within 1 % or 10, and the last 28 of"
    " them together within 0.1 % (docs/numbers.md).",
    severity=WARN,
    nothing="No day can be compared: none has totals of Later that were requested within a day of its posts",
    is_daily=True,
    needs=(INSTANCE_PERFORMANCE_DAILY.name,),
)


def _evaluate_totals(run: CheckRun) -> Results:
    days = run.days(CAMPAIGN_PERFORMANCE_TABLE, TOTALS_AGREE)
    found = reconcile_campaigns(run.later.lake(), memory_gb=run.later.memory_gb, days=days)
    percents = {
        f"difference_percent/{name}": round(100 * (of_campaigns - of_posts) / (of_posts or 1), 6)
        for name, (of_campaigns, of_posts) in found.totals.items()
        if of_posts or not of_campaigns
    }
    examples = [
        "{metric} of campaign {campaign_id} on {date} ({of_campaign} and {of_posts} in posts)".format(**each)
        for each in found.examples
    ]
    yield TOTALS_AGREE.result(
        not found.differing,
        f"{found.differing} of {found.compared} days of campaigns differ from their posts by over"
        f" {TOLERANCE_PERCENT} %, such as {join_first(examples[:1])}. Materialize these days of both tables; if they"
        " differ again, the API's totals count other posts",
        otherwise=f"{found.compared} days of campaigns agree with their posts",
        looked_at={"compared": found.compared},
        failed_days=found.differing_days,
        differing=found.differing,
        unknown_campaigns=found.unknown,
        days_without_posts=found.without_posts,
        unreadable_files=found.unreadable_files,
        **percents,
        examples=dg.MetadataValue.json(examples),
    )


def _evaluate_spend(run: CheckRun) -> Results:
    compared = reconcile_ad_spend(run.later.lake(), memory_gb=run.later.memory_gb)
    texts = [
        "campaign {campaign_id} over {period} ({of_window} and {of_days} in days)".format(**each)
        for each in compared
        if each["differs"]
    ]
    yield AD_SPEND_AGREES.result(
        not texts,
        f"{len(texts)} of {len(compared)} windows of campaigns have another ad spend than their days, such as"
        f" {join_first(texts[:1])}. Materialize these days and {CAMPAIGN_PERIODS_TABLE}; if they differ again, the"
        " API's days do not add up",
        otherwise=f"{len(compared)} windows of campaigns agree with their days",
        looked_at={"compared": len(compared)},
        differing=len(texts),
        campaigns=dg.MetadataValue.json(texts[:MAX_NAMES]),
    )


def _evaluate_owners(run: CheckRun) -> Results:
    lake, schema = run.later.lake(), CAMPAIGN_PERIODS.schema
    rows = lake.read_intact_table(CAMPAIGN_PERIODS_TABLE, schema=schema) or schema.empty_table()
    owners = CampaignOwners(lake).of(zip(rows["campaign_id"].to_pylist(), rows["extra"].to_pylist(), strict=True))
    unknown = sorted(campaign_id for campaign_id, names in owners.items() if not names)
    yield EVERY_CAMPAIGN_HAS_AN_INSTANCE.result(
        not unknown,
        f"The instance of {len(unknown)} campaigns is not known, so they are in the totals even if it is retired, and"
        f" in those of no instance: {join_first(unknown)}. Fetch {CAMPAIGNS_TABLE}, or posts of the days"
        " on which they ran",
        otherwise=f"The instances of all {len(owners)} campaigns are known",
        looked_at={"campaigns": len(owners)},
        unknown=len(unknown),
    )


def _evaluate_accounts(run: CheckRun) -> Results:
    lake = run.later.lake()
    found = reconcile_accounts(
        lake,
        last_day=newest_day(run.component.now()) - timedelta(days=DAYS_BEFORE_COMPARISON),
        memory_gb=run.later.memory_gb,
        days=run.days(POST_METRICS_DAILY.name, POSTS_AGREE),
    )
    bad_rows = lake.quarantine.rows(POST_METRICS_DAILY.name) if found.differing else []
    quarantined = sum(any(_may_be_of(row, each) for each in found.differing) for row in bad_rows)
    yield evaluate_account_totals(found, quarantined=quarantined)


def evaluate_account_totals(found: AccountReconciliation, *, quarantined: int = 0) -> dg.AssetCheckResult:
    """Evaluate whether posts add up to Later's totals. The metadata has the days and periods that differ.

    `quarantined`: how many rows of posts of these days are in quarantine.
    """
    texts = [_describe(each) for each in found.differing]
    problem = (
        f"{len(texts)} sums of posts differ from Later's totals: {join_first(texts)}. Materialize these days of both"
        " tables; if they differ again, docs/questions.md says why they may"
    )
    if quarantined:
        problem += f". {quarantined} rows of these posts are in quarantine: see `later-reporting quarantine`"
    agreed = f"The posts of {found.compared} days of instances add up to Later's totals"
    return POSTS_AGREE.result(
        not texts or found.counts_by_campaign,
        problem,
        otherwise=agreed + ", if a post counts once for each of its campaigns" * found.counts_by_campaign,
        looked_at={"compared": found.compared},
        failed_days={day for each in found.differing for day in days_between(each["first_day"], each["last_day"])},
        differing=len(texts),
        counts_by_campaign=found.counts_by_campaign,
        unreadable_files=found.unreadable_files,
        examples=dg.MetadataValue.json(texts[:MAX_NAMES]),
    )


def _may_be_of(row: QuarantinedRow, difference: Mapping[str, Any]) -> bool:
    """Return whether a row may be of the days and the instance of a difference. Both may be unknown."""
    first, last = row.days
    is_of_days = first <= difference["last_day"] and difference["first_day"] <= last
    return is_of_days and (row.partition is None or row.partition.instance_id == difference["instance_id"])


def _describe(difference: Mapping[str, Any]) -> str:
    first, last = difference["first_day"], difference["last_day"]
    days = f"on {first}" if first == last else f"from {first} to {last}"
    lacking = f", of which {difference['lacking']} lack it" * bool(difference["lacking"])
    text = "{metric} of {instance_id} {days} ({of_later}, and {once} in posts{lacking})"
    return text.format(**{**difference, "days": days, "lacking": lacking})


TOTALS_STEPS = (
    *(
        CheckStep(name=f"{name}_checks", checks={name: [QUARANTINE_EMPTY]}, evaluate=partial(evaluate_quarantine, name))
        for name in (CAMPAIGNS_TABLE, *PERIODS_TABLES)
    ),
    CheckStep(
        name=f"{CAMPAIGN_PERFORMANCE_TABLE}_totals",
        checks={CAMPAIGN_PERFORMANCE_TABLE: [TOTALS_AGREE]},
        evaluate=_evaluate_totals,
        deps=[POST_METRICS_DAILY.name, CAMPAIGNS_TABLE],
    ),
    CheckStep(
        name=f"{CAMPAIGN_PERIODS_TABLE}_ad_spend",
        checks={CAMPAIGN_PERIODS_TABLE: [AD_SPEND_AGREES]},
        evaluate=_evaluate_spend,
        deps=[CAMPAIGN_PERFORMANCE_TABLE],
    ),
    CheckStep(
        name=f"{CAMPAIGN_PERIODS_TABLE}_owners",
        checks={CAMPAIGN_PERIODS_TABLE: [EVERY_CAMPAIGN_HAS_AN_INSTANCE]},
        evaluate=_evaluate_owners,
        deps=[CAMPAIGNS_TABLE],
    ),
    CheckStep(
        name=f"{POST_METRICS_DAILY.name}_accounts",
        checks={POST_METRICS_DAILY.name: [POSTS_AGREE]},
        evaluate=_evaluate_accounts,
        deps=[INSTANCE_PERFORMANCE_DAILY.name],
    ),
)
