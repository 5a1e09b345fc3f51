"""The rollup assets: organic beside paid, one partition a day, made from whatever instances have landed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import AssetCheckExecutionContext, AssetExecutionContext

from later_reporting_dagster.defs.checks import (
    NEWEST_DUE_DAY,
    RECONCILES,
    ROLLUP_CHECKS,
    Verdict,
    checks_of,
    due_day,
    reconciliation_verdict,
    rolled_up_verdict,
    selected_checks,
)
from later_reporting_dagster.defs.materializations import (
    failure_of,
    log_materialization,
    log_verdicts,
    provenance_tags,
)
from later_reporting_dagster.defs.metadata import column_schema, preview, written_metadata
from later_reporting_dagster.defs.partitions import lake_partitions, partition_key, registered_instances
from later_reporting_dagster.defs.posts import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest import Source
from later_reporting_dagster.lake import Column, Lake, LakeUnavailable, PartitionDamaged
from later_reporting_dagster.rollups import (
    ORGANIC_PAID_BY_PUBLISH_DAY_COLUMNS,
    ORGANIC_PAID_BY_PUBLISH_DAY_SCHEMA,
    ORGANIC_PAID_DAILY_COLUMNS,
    ORGANIC_PAID_DAILY_SCHEMA,
    ROLLED_UP_SCHEMA,
    SumOutOfRange,
    organic_paid_by_publish_day,
    organic_paid_daily,
    totals_that_differ,
)

ROLLUP_PREVIEW_COLUMNS = (
    "instance_id",
    "campaign_id",
    "content_type",
    "posts",
    "organic_impressions",
    "paid_impressions",
    "organic_engagement_rate",
    "paid_engagement_rate",
    "paid_lift",
)


@dataclass(frozen=True, slots=True)
class Rollup:
    """A rolled-up table: what it is made from, and by which pure function."""

    asset: str
    source: Source
    roll_up: Callable[[pa.Table], pa.Table]
    columns: Sequence[Column]
    schema: pa.Schema
    description: str


ORGANIC_PAID_DAILY = Rollup(
    asset="organic_paid_daily",
    source=POST_METRICS_DAILY,
    roll_up=organic_paid_daily,
    columns=ORGANIC_PAID_DAILY_COLUMNS,
    schema=ORGANIC_PAID_DAILY_SCHEMA,
    description="What the day earned, organic beside paid, by instance, campaign, platform and content type.",
)
ORGANIC_PAID_BY_PUBLISH_DAY = Rollup(
    asset="organic_paid_by_publish_day",
    source=POSTS_PUBLISHED,
    roll_up=organic_paid_by_publish_day,
    columns=ORGANIC_PAID_BY_PUBLISH_DAY_COLUMNS,
    schema=ORGANIC_PAID_BY_PUBLISH_DAY_SCHEMA,
    description=(
        "What the posts published on the day have earned to date, organic beside paid, with the bounds of what was"
        " spent, by instance, campaign, platform and content type."
    ),
)


def when_posts_change() -> dg.AutomationCondition[Any]:
    """Roll a day up when any instance's posts of that day changed, or when it was never rolled up.

    A change that comes while a run is under way is kept until that run is over. A restatement that changed nothing has
    the same data version, and costs nothing here.
    """
    changed = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.data_version_changed())
    never_rolled_up = dg.AutomationCondition.missing() & dg.AutomationCondition.any_deps_match(
        ~dg.AutomationCondition.missing()
    )
    # A request tells of itself in the next tick, and there it would take a change with it that came in between.
    requested = ~changed & dg.AutomationCondition.newly_requested()
    due = (changed | never_rolled_up.newly_true()).since(requested)
    return (due & ~dg.AutomationCondition.in_progress()).with_label("posts_changed")


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
        days, failed = lake_partitions(context)
        lake = later.lake()
        registered = registered_instances(context.instance)
        rolled_up = 0
        differences: dict[Any, list[str]] = {}
        provenance = provenance_tags(context, dg.AssetKey(["later", rollup.source.asset]))
        for day in days:
            try:
                sources = lake.partitions(rollup.source.asset, days=[day.day])
                if not sources:
                    failed[partition_key(day)] = (
                        f"no instance of later/{rollup.source.asset} has landed for it: materialize that first"
                    )
                    continue
                posts = lake.read(rollup.source.asset, sources, schema=ROLLED_UP_SCHEMA)
                table = rollup.roll_up(posts)
                written = lake.write(rollup.asset, day, table)
            except (LakeUnavailable, PartitionDamaged, SumOutOfRange) as error:
                failed[partition_key(day)] = str(error)
                continue
            if differing := totals_that_differ(posts, table):
                differences[day.day] = differing
            landed = {partition.instance_id for partition in sources}
            missing = [instance_id for instance_id in registered if instance_id not in landed]
            log_materialization(
                context,
                day,
                data_version=written.content_hash,
                provenance=provenance,
                metadata={
                    **written_metadata(written, preview=preview(table.select(ROLLUP_PREVIEW_COLUMNS))),
                    "posts": posts.num_rows,
                    "instances": len(landed),
                    "missing_instances": dg.MetadataValue.json(missing),
                },
            )
            rolled_up += 1
        context.log.info(f"Rolled up {rolled_up} of {len(days)} days")

        def verdicts() -> Iterator[Verdict]:
            yield reconciliation_verdict(differences, days=rolled_up)
            yield _newest_due_day(rollup, lake=lake, due_hour_utc=due_hour_utc)

        log_verdicts(context, verdicts())
        if failed:
            raise failure_of(failed, landed=rolled_up)
        yield from ()

    return organic_paid


def rollup_checks(rollup: Rollup, *, due_hour_utc: int) -> dg.AssetChecksDefinition:
    """The checks of a rollup over its whole lake: each day is read back and held against its raw rows."""

    def verdicts(context: AssetCheckExecutionContext, later: LaterReportingResource) -> Iterator[Verdict]:
        lake = later.lake()
        wanted = selected_checks(context)
        if RECONCILES in wanted:
            days = lake.partitions(rollup.asset)
            differences = {}
            for day in days:
                sources = lake.partitions(rollup.source.asset, days=[day.day])
                try:
                    posts = lake.read(rollup.source.asset, sources, schema=ROLLED_UP_SCHEMA)
                    rolled_up = lake.read(rollup.asset, [day], schema=rollup.schema)
                    differing = totals_that_differ(posts, rolled_up)
                except PartitionDamaged as error:
                    differing = [str(error)]
                if differing:
                    differences[day.day] = differing
            yield reconciliation_verdict(differences, days=len(days))
        if NEWEST_DUE_DAY in wanted:
            yield _newest_due_day(rollup, lake=lake, due_hour_utc=due_hour_utc)

    return checks_of(dg.AssetKey(["later", rollup.asset]), ROLLUP_CHECKS, verdicts=verdicts, due_hour_utc=due_hour_utc)


def _newest_due_day(rollup: Rollup, *, lake: Lake, due_hour_utc: int) -> Verdict:
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    return rolled_up_verdict(due, present=bool(lake.partitions(rollup.asset, days=[due])))
