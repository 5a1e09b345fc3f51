"""The rollup assets: organic beside paid, one partition a day, made from whatever instances have landed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import AssetCheckExecutionContext, AssetExecutionContext

from later_reporting_dagster.defs.checks import ROLLUP_CHECKS, checks_of, selected_checks
from later_reporting_dagster.defs.metadata import column_schema
from later_reporting_dagster.defs.posts import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.source import Source
from later_reporting_dagster.lake import Column
from later_reporting_dagster.rollups import ORGANIC_PAID_BY_PUBLISH_DAY_COLUMNS, ORGANIC_PAID_DAILY_COLUMNS

if TYPE_CHECKING:
    from later_reporting_dagster.defs.runs.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Rollup:
    """A rolled-up table: what it is made from, and what it has."""

    asset: str
    source: Source
    columns: Sequence[Column]
    description: str


ORGANIC_PAID_DAILY = Rollup(
    asset="organic_paid_daily",
    source=POST_METRICS_DAILY,
    columns=ORGANIC_PAID_DAILY_COLUMNS,
    description="What the day earned, organic beside paid, by instance, campaign, platform and content type.",
)
ORGANIC_PAID_BY_PUBLISH_DAY = Rollup(
    asset="organic_paid_by_publish_day",
    source=POSTS_PUBLISHED,
    columns=ORGANIC_PAID_BY_PUBLISH_DAY_COLUMNS,
    description=(
        "What the posts published on the day have earned to date, organic beside paid, with the bounds of what was"
        " spent, by instance, campaign, platform and content type."
    ),
)


def when_posts_change() -> dg.AutomationCondition[Any]:
    """Roll a day up when any instance's posts of that day changed, or when it was never rolled up.

    A change that comes while a run is under way, of the rollup or of the day's posts, is kept until that run is over:
    a backfill is a run an instance, and each would roll all days up again. A restatement that changed nothing has the
    same data version, and costs nothing here.
    """
    changed = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
    never_rolled_up = dg.AutomationCondition.missing() & dg.AutomationCondition.any_deps_match(
        ~dg.AutomationCondition.missing()
    )
    return latched(changed, never_rolled_up, label="posts_changed")


def latched(
    changed: dg.AutomationCondition[Any], never_made: dg.AutomationCondition[Any], *, label: str
) -> dg.AutomationCondition[Any]:
    """Once for what changed, or was never made; kept until no run is under way, of it or of what it is made from."""
    # A request tells of itself in the next tick, and there it would take a change with it that came in between.
    requested = ~changed & dg.AutomationCondition.newly_requested()
    due = (changed | never_made.newly_true()).since(requested)
    under_way = dg.AutomationCondition.in_progress() | dg.AutomationCondition.any_deps_in_progress()
    return (due & ~under_way).with_label(label)


def rollup_asset(
    rollup: Rollup, *, partitions_def: dg.DailyPartitionsDefinition, due_hour_utc: int
) -> dg.AssetsDefinition:
    """The asset of a rollup. Any number of days is one run; a day without raw partitions fails alone."""

    @dg.asset(
        key=["later", rollup.asset],
        deps=[dg.AssetKey(["later", rollup.source.asset])],
        description=rollup.description,
        group_name="organic_paid",
        kinds={"parquet"},
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        metadata=column_schema(rollup.columns),
        automation_condition=when_posts_change(),
    )
    def organic_paid(
        context: AssetExecutionContext, later: LaterReportingResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        # Needs Arrow, which the definitions load without.
        from later_reporting_dagster.defs.runs.organic_paid import roll_up_days

        yield from roll_up_days(context, later, rollup=rollup, due_hour_utc=due_hour_utc)

    return organic_paid


def rollup_checks(rollup: Rollup, *, due_hour_utc: int) -> dg.AssetChecksDefinition:
    """The checks of a rollup over its whole lake: each day is read back and held against its raw rows."""

    def verdicts(context: AssetCheckExecutionContext, later: LaterReportingResource) -> "Iterator[Verdict]":
        from later_reporting_dagster.defs.runs.organic_paid import verdicts_on_rollup

        return verdicts_on_rollup(rollup, wanted=selected_checks(context), lake=later.lake(), due_hour_utc=due_hour_utc)

    return checks_of(dg.AssetKey(["later", rollup.asset]), ROLLUP_CHECKS, verdicts=verdicts, due_hour_utc=due_hour_utc)
