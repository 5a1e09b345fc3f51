"""A run of a rollup: rolls its days up from whatever instances have landed."""

from collections.abc import Callable, Iterator, Mapping, Set
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, RECONCILES
from later_reporting_dagster.defs.organic_paid import Rollup
from later_reporting_dagster.defs.partitions import lake_partitions, partition_key, registered_instances
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.runs.materializations import (
    failure_of,
    log_materialization,
    log_verdicts,
    provenance_tags,
)
from later_reporting_dagster.defs.runs.metadata import preview, written_metadata
from later_reporting_dagster.defs.runs.verdicts import Verdict, due_day, reconciliation_verdict, rolled_up_verdict
from later_reporting_dagster.lake import DayRead, Lake, LakeUnavailable, Partition, PartitionDamaged, schema_of
from later_reporting_dagster.rollups import (
    ROLLED_UP_SCHEMA,
    SumOutOfRange,
    organic_paid_by_publish_day,
    organic_paid_daily,
    totals_that_differ,
)

ROLL_UP: Mapping[str, Callable[[pa.Table], pa.Table]] = {
    "organic_paid_daily": organic_paid_daily,
    "organic_paid_by_publish_day": organic_paid_by_publish_day,
}

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


def roll_up_days(
    context: AssetExecutionContext, later: LaterReportingResource, *, rollup: Rollup, due_hour_utc: int
) -> Iterator[dg.MaterializeResult[Any]]:
    """Rolls the run's days up and logs each; what failed is raised at the end, by name.

    Raises:
        Failure: at least one day stayed as it was.
    """
    days, failed = lake_partitions(context)
    lake = later.lake()
    registered = registered_instances(context.instance)
    rolled_up = 0
    differences: dict[Any, list[str]] = {}
    provenance = provenance_tags(context, dg.AssetKey(["later", rollup.source.asset]))
    for read in lake.read_days(rollup.source.asset, [day.day for day in days], schema=ROLLED_UP_SCHEMA):
        day = Partition(read.day)
        try:
            posts = _rows(read)
            if not read.tables:
                failed[partition_key(day)] = (
                    f"no instance of later/{rollup.source.asset} has landed for it: materialize that first"
                )
                continue
            table = ROLL_UP[rollup.asset](posts)
            written = lake.write(rollup.asset, day, table)
        except (LakeUnavailable, PartitionDamaged, SumOutOfRange) as error:
            failed[partition_key(day)] = str(error)
            continue
        if differing := totals_that_differ(posts, table):
            differences[day.day] = differing
        landed = {partition.instance_id for partition in read.tables}
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


def verdicts_on_rollup(rollup: Rollup, *, wanted: Set[str], lake: Lake, due_hour_utc: int) -> Iterator[Verdict]:
    """The verdicts on all of a rollup that lies in the lake: each day is read back and held against its raw rows."""
    if RECONCILES in wanted:
        days = lake.partitions(rollup.asset)
        differences = {}
        for read in lake.read_days(rollup.source.asset, [day.day for day in days], schema=ROLLED_UP_SCHEMA):
            try:
                posts = _rows(read)
                rolled_up = lake.read(rollup.asset, [Partition(read.day)], schema=schema_of(rollup.columns))
                differing = totals_that_differ(posts, rolled_up)
            except PartitionDamaged as error:
                differing = [str(error)]
            if differing:
                differences[read.day] = differing
        yield reconciliation_verdict(differences, days=len(days))
    if NEWEST_DUE_DAY in wanted:
        yield _newest_due_day(rollup, lake=lake, due_hour_utc=due_hour_utc)


def _rows(read: DayRead) -> pa.Table:
    """The raw rows of a day; an instance that cannot be read is raised, because without it the day is not the day."""
    for error in read.unread.values():
        raise error
    return pa.concat_tables([ROLLED_UP_SCHEMA.empty_table(), *read.tables.values()])


def _newest_due_day(rollup: Rollup, *, lake: Lake, due_hour_utc: int) -> Verdict:
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    return rolled_up_verdict(due, present=bool(lake.partitions(rollup.asset, days=[due])))
