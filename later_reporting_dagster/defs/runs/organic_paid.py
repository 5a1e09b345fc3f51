"""A run of a rollup: rolls its days, weeks or months up from whatever instances have landed."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, RECONCILES
from later_reporting_dagster.defs.metadata import column_lineage
from later_reporting_dagster.defs.organic_paid import Rollup
from later_reporting_dagster.defs.partitions import lake_partitions, newest_day, partition_key, registered_instances
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.runs.materializations import (
    failure_of,
    log_materialization,
    log_verdicts,
    provenance_tags,
)
from later_reporting_dagster.defs.runs.metadata import plotted_totals, preview, written_metadata
from later_reporting_dagster.defs.runs.verdicts import (
    Verdict,
    due_day,
    listed,
    reconciliation_verdict,
    rolled_up_verdict,
)
from later_reporting_dagster.lake import (
    POST_KEY,
    DayRead,
    Lake,
    LakeUnavailable,
    Partition,
    PartitionDamaged,
    schema_of,
)
from later_reporting_dagster.rollups import (
    BY_PUBLISH_DAY,
    DAILY,
    GRAIN,
    Days,
    Span,
    SumOutOfRange,
    days_of,
    first_day_of,
    organic_paid_by_publish_day,
    organic_paid_daily,
    organic_paid_over_days,
    rolled_up_schema,
    rows_schema,
    totals_that_differ,
)

ROLL_UP: Mapping[str, Callable[[pa.Table], pa.Table]] = {
    DAILY.name: organic_paid_daily,
    BY_PUBLISH_DAY.name: organic_paid_by_publish_day,
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


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of a partition's days: the rows of all of them, and which instances are there on each."""

    partition: Partition
    days: Days
    posts: pa.Table
    landed: Mapping[date, Set[str | None]]
    unread: Sequence[LakeUnavailable | PartitionDamaged]

    def missing(self, registered: Sequence[str]) -> dict[str, list[str]]:
        """The days that are over and not whole, each with the registered instances that it lacks."""
        over = [day for day in self.days if day <= newest_day(datetime.now(UTC))]
        lacking = {day: [each for each in registered if each not in self.landed.get(day, ())] for day in over}
        return {day.isoformat(): instances for day, instances in lacking.items() if instances}


def roll_up(
    context: AssetExecutionContext, later: LaterReportingResource, *, rollup: Rollup, due_hour_utc: int
) -> Iterator[dg.MaterializeResult[Any]]:
    """Rolls the run's partitions up and logs each; what failed is raised at the end, by name.

    Raises:
        Failure: at least one partition stayed as it was.
    """
    partitions, failed = lake_partitions(context)
    lake = later.lake()
    registered = registered_instances(context.instance)
    spans = f"{rollup.span}{'s' * (len(partitions) != 1)}"
    context.log.info(
        f"Rolling up {len(partitions)} {spans} of later/{rollup.source.asset},"
        f" {context.partition_keys[0]} to {context.partition_keys[-1]}"
    )
    rolled_up = changed = rows = 0
    incomplete: list[str] = []
    differences: dict[Any, list[str]] = {}
    provenance = provenance_tags(context, dg.AssetKey(["later", rollup.follows or rollup.source.asset]))
    for read in _read(lake, rollup, partitions):
        partition = read.partition
        try:
            for error in read.unread:
                raise error  # without it the partition would not be what it says
            if not any(read.landed.values()):
                failed[partition_key(partition)] = (
                    f"no instance of later/{rollup.source.asset} has landed for it: materialize that first"
                )
                continue
            table = ROLL_UP.get(rollup.asset, organic_paid_over_days)(read.posts)
            written = lake.write(rollup.asset, partition, table)
        except (LakeUnavailable, PartitionDamaged, SumOutOfRange) as error:
            failed[partition_key(partition)] = str(error)
            continue
        if differing := totals_that_differ(read.posts, table, once=_once(rollup)):
            differences[partition.day] = differing
        if read.missing(registered):
            incomplete.append(partition_key(partition))
        log_materialization(
            context,
            partition,
            data_version=written.content_hash,
            provenance=provenance,
            metadata={
                **written_metadata(written, preview=preview(table.select(ROLLUP_PREVIEW_COLUMNS))),
                **_days_metadata(rollup, read, registered),
                **plotted_totals(table),
                # Dagster+ looks at the newest materialization alone.
                **(column_lineage({rollup.source.asset: rollup.columns}) if partition == partitions[-1] else {}),
            },
        )
        rolled_up, changed, rows = rolled_up + 1, changed + written.changed, rows + read.posts.num_rows
    context.log.info(
        f"Rolled up {rolled_up} of {len(partitions)} {spans}, {changed} of them changed, from {rows:,} rows"
    )
    if incomplete:
        context.log.info(f"Not all that is due has landed for {len(incomplete)} of them: {listed(incomplete)}")

    def verdicts() -> Iterator[Verdict]:
        yield reconciliation_verdict(differences, partitions=rolled_up, what=str(rollup.span))
        yield _newest_due_day(rollup, lake=lake, due_hour_utc=due_hour_utc)

    log_verdicts(context, verdicts())
    if failed:
        raise failure_of(failed, landed=rolled_up)
    yield from ()


def verdicts_on_rollup(rollup: Rollup, *, wanted: Set[str], lake: Lake, due_hour_utc: int) -> Iterator[Verdict]:
    """The verdicts on all of a rollup that lies in the lake: each partition is read back, against its raw rows."""
    if RECONCILES in wanted:
        partitions = lake.partitions(rollup.asset)
        differences = {}
        for read in _read(lake, rollup, partitions):
            try:
                for error in read.unread:
                    raise error
                rolled_up = lake.read(rollup.asset, [read.partition], schema=schema_of(rollup.columns))
                differing = totals_that_differ(read.posts, rolled_up, once=_once(rollup))
            except PartitionDamaged as error:
                differing = [str(error)]
            if differing:
                differences[read.partition.day] = differing
        yield reconciliation_verdict(differences, partitions=len(partitions), what=str(rollup.span))
    if NEWEST_DUE_DAY in wanted:
        yield _newest_due_day(rollup, lake=lake, due_hour_utc=due_hour_utc)


def _read(lake: Lake, rollup: Rollup, partitions: Sequence[Partition]) -> Iterator[_Read]:
    """Reads the posts of each partition's days, one partition after the other."""
    schema = rolled_up_schema(rollup.table.metrics) if rollup.span is Span.DAY else rows_schema(rollup.table)
    spans = [days_of(rollup.span, partition.day) for partition in partitions]
    reads = lake.read_days(rollup.source.asset, [day for days in spans for day in days], schema=schema)
    for partition, days in zip(partitions, spans, strict=True):
        of_days: list[DayRead] = [next(reads) for _ in days]
        yield _Read(
            partition,
            days,
            posts=pa.concat_tables([schema.empty_table(), *(rows for day in of_days for rows in day.tables.values())]),
            landed={day.day: {partition.instance_id for partition in day.tables} for day in of_days},
            unread=[error for day in of_days for error in day.unread.values()],
        )


def _once(rollup: Rollup) -> list[str]:
    return [] if rollup.span is Span.DAY else [*dict.fromkeys([*POST_KEY, *GRAIN])]


def _days_metadata(rollup: Rollup, read: _Read, registered: Sequence[str]) -> dict[str, Any]:
    missing = read.missing(registered)
    if rollup.span is Span.DAY:
        return {
            "posts": read.posts.num_rows,
            "instances": len(read.landed[read.partition.day]),
            "missing_instances": dg.MetadataValue.json(missing.get(partition_key(read.partition), [])),
        }
    return {
        "posts": len(read.posts.group_by(list(POST_KEY)).aggregate([])),
        "days": sum(bool(instances) for instances in read.landed.values()),
        "first_day": read.days.first.isoformat(),
        "last_day": read.days.last.isoformat(),
        "instances": len({each for instances in read.landed.values() for each in instances}),
        "missing_days": dg.MetadataValue.json(missing),
    }


def _newest_due_day(rollup: Rollup, *, lake: Lake, due_hour_utc: int) -> Verdict:
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    first = first_day_of(rollup.span, due)
    within = "" if rollup.span is Span.DAY else f"{rollup.span} of {first}"
    return rolled_up_verdict(due, present=bool(lake.partitions(rollup.asset, days=[first])), within=within)
