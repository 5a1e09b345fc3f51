"""The check that holds posts against what Later itself totals for each instance."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

import dagster as dg

from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.defs.checks.check import MAX_NAMES, WARN, Check, CheckRun, CheckStep, Results, join_first
from later_reporting_dagster.lake.coverage import newest_requests
from later_reporting_dagster.lake.quarantine import QuarantinedRow
from later_reporting_dagster.lake.tables import INSTANCE_PERFORMANCE_DAILY, POST_METRICS_DAILY
from later_reporting_dagster.rollups.raw_reconciliation import AccountReconciliation, reconcile_accounts

# Networks restate their results, and Later follows them at different times.
DAYS_BEFORE_COMPARISON = 3
POSTS_AGREE = Check(
    "posts_agree_with_later",
    "Impressions and engagements, organic and paid, of all posts of an instance are what Later totals in"
    f" {INSTANCE_PERFORMANCE_DAILY.name}: each day that was over for three days within 1 % or 10, and the last 28 of"
    " them together within 0.1 % (docs/differences.md).",
    severity=WARN,
    nothing="No day can be compared: none has totals of Later that were requested within a day of its posts",
    is_daily=True,
)


def _evaluate_accounts(run: CheckRun) -> Results:
    lake = run.later.lake()
    found = reconcile_accounts(
        lake,
        last_day=newest_day(run.component.now()) - timedelta(days=DAYS_BEFORE_COMPARISON),
        memory_gb=run.later.memory_gb,
        requests=newest_requests(lake),
        days=run.days,
    )
    bad_rows = lake.quarantine.rows(POST_METRICS_DAILY.name) if found.differing else []
    quarantined = sum(any(_may_be_of(row, each) for each in found.differing) for row in bad_rows)
    yield evaluate_account_totals(found, quarantined=quarantined)


ACCOUNT_STEPS = (
    CheckStep(
        name=f"{POST_METRICS_DAILY.name}_accounts",
        checks={POST_METRICS_DAILY.name: [POSTS_AGREE]},
        evaluate=_evaluate_accounts,
        deps=[INSTANCE_PERFORMANCE_DAILY.name],
        needs=[INSTANCE_PERFORMANCE_DAILY.name],
    ),
)


def evaluate_account_totals(found: AccountReconciliation, *, quarantined: int = 0) -> dg.AssetCheckResult:
    """Evaluate whether posts add up to Later's totals. The metadata has the days and periods that differ.

    `quarantined`: how many rows of posts of these days are in quarantine.
    """
    texts = [_describe(each) for each in found.differing]
    problem = (
        f"{len(texts)} sums of posts differ from Later's totals: {join_first(texts)}. Materialize these days of both"
        " tables; if they differ again, docs/differences.md says why they may"
    )
    if quarantined:
        problem += f". {quarantined} rows of these posts are in quarantine: see `later-reporting quarantine`"
    agreed = f"The posts of {found.compared} days of instances add up to Later's totals"
    return POSTS_AGREE.result(
        not texts or found.counts_by_campaign,
        problem,
        otherwise=agreed + ", if a post counts once for each of its campaigns" * found.counts_by_campaign,
        looked_at={"compared": found.compared},
        differing=len(texts),
        counts_by_campaign=found.counts_by_campaign,
        unreadable_files=found.unreadable_files,
        examples=dg.MetadataValue.json(texts[:MAX_NAMES]),
    )


def _may_be_of(row: QuarantinedRow, difference: Mapping[str, Any]) -> bool:
    """Return whether a row may be of the days and the instance of a difference. Both may be unknown."""
    first, last = (row.partition.day, row.partition.day) if row.partition else row.day_range or (date.min, date.max)
    is_of_days = first <= difference["last_day"] and difference["first_day"] <= last
    return is_of_days and (row.partition is None or row.partition.instance_id == difference["instance_id"])


def _describe(difference: Mapping[str, Any]) -> str:
    first, last = difference["first_day"], difference["last_day"]
    days = f"on {first}" if first == last else f"from {first} to {last}"
    lacking = f", of which {difference['lacking']} lack it" * bool(difference["lacking"])
    text = "{metric} of {instance_id} {days} ({of_later}, and {once} in posts{lacking})"
    return text.format(**{**difference, "days": days, "lacking": lacking})
