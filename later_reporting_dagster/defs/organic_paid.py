"""The rollup assets: organic beside paid, made from whatever instances have landed, one partition a day, week or month.

Weeks and months read the posts of their days, because a post counts once in them; they follow the daily rollup, which
tells the days whose posts changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster import AssetCheckExecutionContext, AssetExecutionContext

from later_reporting_dagster.contract import Metric
from later_reporting_dagster.defs.checks import ROLLUP_CHECKS, checks_of, selected_checks
from later_reporting_dagster.defs.metadata import column_lineage, table_metadata
from later_reporting_dagster.defs.posts import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.source import Source
from later_reporting_dagster.lake import Column
from later_reporting_dagster.rollups import BY_PUBLISH_DAY, DAILY, MONTHLY, WEEKLY, RolledUp, Span

if TYPE_CHECKING:
    from later_reporting_dagster.defs.runs.verdicts import Verdict

ROLLUPS_GROUP = "organic_paid"


@dataclass(frozen=True, slots=True)
class Rollup:
    """A rolled-up table of partitions: what it has, what it is made from, and the rollup of days that it follows."""

    table: RolledUp
    source: Source
    follows: str | None = None

    def of(self, metrics: Iterable[Metric]) -> "Rollup":
        """The rollup with the sums of `metrics` beside those of the document's."""
        return replace(self, table=self.table.of(metrics))

    @property
    def asset(self) -> str:
        """The table's name."""
        return self.table.name

    @property
    def columns(self) -> Sequence[Column]:
        """Its dictionary."""
        return self.table.columns

    @property
    def span(self) -> Span:
        """What one of its partitions spans."""
        return self.table.span


ORGANIC_PAID_DAILY = Rollup(DAILY, POST_METRICS_DAILY)
ORGANIC_PAID_BY_PUBLISH_DAY = Rollup(BY_PUBLISH_DAY, POSTS_PUBLISHED)
ORGANIC_PAID_WEEKLY = Rollup(WEEKLY, POST_METRICS_DAILY, follows=DAILY.name)
ORGANIC_PAID_MONTHLY = Rollup(MONTHLY, POST_METRICS_DAILY, follows=DAILY.name)


def when_posts_change() -> dg.AutomationCondition[Any]:
    """Roll a partition up when any of what it comes from changed, or when it was never rolled up.

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
    rollup: Rollup, *, partitions_def: dg.TimeWindowPartitionsDefinition, due_hour_utc: int
) -> dg.AssetsDefinition:
    """The asset of a rollup. Any number of partitions is one run; one without raw partitions fails alone."""

    @dg.asset(
        key=["later", rollup.asset],
        deps=[_followed(rollup)],
        description=rollup.table.description,
        group_name=ROLLUPS_GROUP,
        kinds={"parquet"},
        tags=rollup_tags(rollup.table),
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        metadata={
            **table_metadata(rollup.asset, rollup.columns),
            **column_lineage({rollup.source.asset: rollup.columns}),
        },
        automation_condition=when_posts_change(),
    )
    def organic_paid(
        context: AssetExecutionContext, later: LaterReportingResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        # Needs Arrow, which the definitions load without.
        from later_reporting_dagster.defs.runs.organic_paid import roll_up

        yield from roll_up(context, later, rollup=rollup, due_hour_utc=due_hour_utc)

    return organic_paid


def rollup_tags(table: RolledUp) -> dict[str, str]:
    """Tags to search the catalog by."""
    bases = "both" if len(table.bases) > 1 else str(table.bases[0])
    return {"later/layer": "rollup", "later/date_basis": bases, "later/span": str(table.span)}


def _followed(rollup: Rollup) -> dg.AssetDep:
    if rollup.follows is None:
        return dg.AssetDep(dg.AssetKey(["later", rollup.source.asset]))
    # The first week and the one under way have days that are no partitions.
    within = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
    return dg.AssetDep(dg.AssetKey(["later", rollup.follows]), partition_mapping=within)


def rollup_checks(rollup: Rollup, *, due_hour_utc: int) -> dg.AssetChecksDefinition:
    """The checks of a rollup over its whole lake: each partition is read back and held against its raw rows."""

    def verdicts(context: AssetCheckExecutionContext, later: LaterReportingResource) -> "Iterator[Verdict]":
        from later_reporting_dagster.defs.runs.organic_paid import verdicts_on_rollup

        return verdicts_on_rollup(rollup, wanted=selected_checks(context), lake=later.lake(), due_hour_utc=due_hour_utc)

    return checks_of(dg.AssetKey(["later", rollup.asset]), ROLLUP_CHECKS, verdicts=verdicts, due_hour_utc=due_hour_utc)
