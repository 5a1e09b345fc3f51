"""The rollups by day, week and month: organic beside paid, made from whatever instances lie in the lake.

Weeks and months read the posts of their days, because a post counts once in them; they follow the daily rollup, which
has a new data version for each day whose posts changed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import AssetCheckExecutionContext, AssetExecutionContext

from later_reporting_dagster.contract import Metric
from later_reporting_dagster.contract.days import due_day, newest_day
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.checks import (
    NEWEST_DUE_DAY,
    RECONCILES,
    CheckResult,
    checks_of,
    evaluate_rollup_freshness,
    first_of,
    log_check_results,
    selected_checks,
)
from later_reporting_dagster.defs.events import failure_of, log_materialization, provenance_tags
from later_reporting_dagster.defs.metadata import (
    column_lineage,
    plotted_totals,
    preview,
    table_metadata,
    written_metadata,
)
from later_reporting_dagster.defs.partitions import partition_days
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.instance_dimension import known_instances
from later_reporting_dagster.ingest.source import POST_METRICS_DAILY, POSTS_PUBLISHED, Source
from later_reporting_dagster.lake import (
    POST_KEY,
    Column,
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
    MONTHLY,
    WEEKLY,
    Days,
    RolledUp,
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

ROLLUPS_GROUP = "organic_paid"

ROLLUP_CHECKS: Mapping[str, str] = {
    RECONCILES: "Its totals equal those of the raw rows it comes from.",
    NEWEST_DUE_DAY: "The newest day that is due has been rolled up.",
}

_ROLL_UP: Mapping[str, Callable[[pa.Table], pa.Table]] = {
    DAILY.name: organic_paid_daily,
    BY_PUBLISH_DAY.name: organic_paid_by_publish_day,
}
_PREVIEW_COLUMNS = (
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
    """A table of partitions that is rolled up: its columns, its raw table, and the daily rollup that it follows."""

    table: RolledUp
    source: Source
    follows: str | None = None

    def of(self, metrics: Iterable[Metric]) -> "Rollup":
        """Return the rollup with the sums of `metrics` beside those of the default metrics."""
        return replace(self, table=self.table.of(metrics))

    @property
    def asset(self) -> str:
        """The table's name."""
        return self.table.name

    @property
    def columns(self) -> Sequence[Column]:
        """The table's columns."""
        return self.table.columns

    @property
    def span(self) -> Span:
        """What one partition spans."""
        return self.table.span

    @property
    def key(self) -> dg.AssetKey:
        """The asset's key."""
        return dg.AssetKey(["later", self.asset])


ORGANIC_PAID_DAILY = Rollup(DAILY, POST_METRICS_DAILY)
ORGANIC_PAID_BY_PUBLISH_DAY = Rollup(BY_PUBLISH_DAY, POSTS_PUBLISHED)
ORGANIC_PAID_WEEKLY = Rollup(WEEKLY, POST_METRICS_DAILY, follows=DAILY.name)
ORGANIC_PAID_MONTHLY = Rollup(MONTHLY, POST_METRICS_DAILY, follows=DAILY.name)
ROLLUPS = (ORGANIC_PAID_DAILY, ORGANIC_PAID_BY_PUBLISH_DAY, ORGANIC_PAID_WEEKLY, ORGANIC_PAID_MONTHLY)


def rollup_asset(
    rollup: Rollup,
    *,
    partitions_def: dg.TimeWindowPartitionsDefinition,
    freshness: dg.FreshnessPolicy,
    due_hour_utc: int,
) -> dg.AssetsDefinition:
    """Return the asset of a rollup. Any number of partitions is one run; one without raw rows fails alone."""

    @dg.asset(
        key=rollup.key,
        deps=[_upstream(rollup)],
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
        automation_condition=when_upstream_changes(),
        freshness_policy=freshness,
    )
    def organic_paid(
        context: AssetExecutionContext, later: LaterReportingResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        _roll_up(context, later, rollup=rollup, due_hour_utc=due_hour_utc)
        yield from ()

    return organic_paid


def rollup_tags(table: RolledUp) -> dict[str, str]:
    """Return tags to search the catalog by."""
    bases = "both" if len(table.bases) > 1 else str(table.bases[0])
    return {"later/layer": "rollup", "later/date_basis": bases, "later/span": str(table.span)}


def rollup_checks(rollup: Rollup, *, due_hour_utc: int) -> dg.AssetChecksDefinition:
    """Return the checks of a rollup over its whole lake: each partition is read back and held against its raw rows."""

    def evaluate(context: AssetCheckExecutionContext, later: LaterReportingResource) -> Iterator[CheckResult]:
        return _evaluate(rollup, selected=selected_checks(context), lake=later.lake(), due_hour_utc=due_hour_utc)

    return checks_of(rollup.key, ROLLUP_CHECKS, evaluate=evaluate, due_hour_utc=due_hour_utc, daily=[NEWEST_DUE_DAY])


def _upstream(rollup: Rollup) -> dg.AssetDep:
    if rollup.follows is None:
        return dg.AssetDep(dg.AssetKey(["later", rollup.source.asset]))
    # The first week and the one under way have days that are no partitions.
    within = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
    return dg.AssetDep(dg.AssetKey(["later", rollup.follows]), partition_mapping=within)


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of a partition's days: the rows of all of them, and the instances that have a file on each."""

    first: date
    days: Days
    posts: pa.Table
    files: Mapping[date, Set[str | None]]
    unread: Sequence[LakeUnavailable | PartitionDamaged]

    def missing(self, instances: Sequence[str]) -> dict[str, list[str]]:
        """Return the days that are over and lack any of `instances`, each with those."""
        over = [day for day in self.days if day <= newest_day(datetime.now(UTC))]
        lacking = {day: [each for each in instances if each not in self.files.get(day, ())] for day in over}
        return {day.isoformat(): names for day, names in lacking.items() if names}


def _roll_up(
    context: AssetExecutionContext, later: LaterReportingResource, *, rollup: Rollup, due_hour_utc: int
) -> None:
    """Roll the run's partitions up and log each.

    Raises:
        Failure: at least one partition stayed as it was; named at the end, when the others are written.
    """
    days = partition_days(context)
    lake = later.lake()
    instances = known_instances(lake, named=later.named_instances())
    spans = f"{rollup.span}{'s' * (len(days) != 1)}"
    context.log.info(f"Rolling up {len(days)} {spans} of later/{rollup.source.asset}, {days[0]} to {days[-1]}")
    rolled_up = changed = rows = 0
    failed: dict[str, str] = {}
    incomplete: list[date] = []
    differences: dict[date, list[str]] = {}
    provenance = provenance_tags(context, dg.AssetKey(["later", rollup.follows or rollup.source.asset]))
    for read in _read(lake, rollup, days):
        try:
            for error in read.unread:
                raise error  # without it the partition would not be what it says
            if not any(read.files.values()):
                failed[str(read.first)] = f"later/{rollup.source.asset} has no files for it: materialize that first"
                continue
            table = _ROLL_UP.get(rollup.asset, organic_paid_over_days)(read.posts)
            written = lake.write(rollup.asset, Partition(read.first), table)
        except (LakeUnavailable, PartitionDamaged, SumOutOfRange) as error:
            failed[str(read.first)] = str(error)
            continue
        if differing := totals_that_differ(read.posts, table, once=_once(rollup)):
            differences[read.first] = differing
        if missing := read.missing(instances):
            incomplete.append(read.first)
        log_materialization(
            context,
            read.first,
            data_version=written.content_hash,
            provenance=provenance,
            metadata={
                **written_metadata(written),
                "preview": preview(table.select(_PREVIEW_COLUMNS)),
                **_days_metadata(rollup, read, missing),
                **plotted_totals(table),
                # Dagster+ looks at the newest materialization alone.
                **(column_lineage({rollup.source.asset: rollup.columns}) if read.first == days[-1] else {}),
            },
        )
        rolled_up, changed, rows = rolled_up + 1, changed + written.changed, rows + read.posts.num_rows
    context.log.info(f"Rolled up {rolled_up} of {len(days)} {spans}, {changed} of them changed, from {rows:,} rows")
    if incomplete:
        context.log.info(f"Some instances are missing for {len(incomplete)} of them: {first_of(incomplete)}")

    def results() -> Iterator[CheckResult]:
        yield _evaluate_reconciliation(differences, partitions=rolled_up, what=str(rollup.span))
        yield _evaluate_freshness(rollup, lake=lake, due_hour_utc=due_hour_utc)

    log_check_results(context, results())
    if failed:
        raise failure_of(failed, what="partition", written=rolled_up)


def _evaluate(rollup: Rollup, *, selected: Set[str], lake: Lake, due_hour_utc: int) -> Iterator[CheckResult]:
    if RECONCILES in selected:
        days = [partition.day for partition in lake.partitions(rollup.asset)]
        differences: dict[date, list[str]] = {}
        for read in _read(lake, rollup, days):
            try:
                for error in read.unread:
                    raise error
                rolled_up = lake.read(rollup.asset, [Partition(read.first)], schema=schema_of(rollup.columns))
                differing = totals_that_differ(read.posts, rolled_up, once=_once(rollup))
            except PartitionDamaged as error:
                differing = [str(error)]
            if differing:
                differences[read.first] = differing
        yield _evaluate_reconciliation(differences, partitions=len(days), what=str(rollup.span))
    if NEWEST_DUE_DAY in selected:
        yield _evaluate_freshness(rollup, lake=lake, due_hour_utc=due_hour_utc)


def _evaluate_reconciliation(differences: Mapping[date, Sequence[str]], *, partitions: int, what: str) -> CheckResult:
    """Return whether the rolled-up partitions have the totals of their raw rows, and what differs."""
    counted = f"{partitions} {what}{'s' * (partitions != 1)}"
    shown = {str(day): [*differences[day]] for day in sorted(differences)}
    return CheckResult(
        RECONCILES,
        passed=not differences,
        description=(
            f"{len(differences)} of {counted} differ from their raw rows: materialize {first_of([*shown])}"
            if differences
            else f"{counted} equal{'s' * (partitions == 1)} {'its' if partitions == 1 else 'their'} raw rows"
        ),
        metadata={
            f"{what}s": partitions,
            "differing": len(differences),
            **({"differences": dg.MetadataValue.json(shown)} if differences else {}),
        },
    )


def _evaluate_freshness(rollup: Rollup, *, lake: Lake, due_hour_utc: int) -> CheckResult:
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    first = first_day_of(rollup.span, due)
    within = "" if rollup.span is Span.DAY else f"{rollup.span} of {first}"
    return evaluate_rollup_freshness(due, present=bool(lake.partitions(rollup.asset, days=[first])), within=within)


def _read(lake: Lake, rollup: Rollup, firsts: Sequence[date]) -> Iterator[_Read]:
    """Read the posts of each partition's days, one partition after the other."""
    schema = rolled_up_schema(rollup.table.metrics) if rollup.span is Span.DAY else rows_schema(rollup.table)
    spans = [days_of(rollup.span, first) for first in firsts]
    reads = lake.read_days(rollup.source.asset, [day for days in spans for day in days], schema=schema)
    for first, days in zip(firsts, spans, strict=True):
        of_days: list[DayRead] = [next(reads) for _ in days]
        yield _Read(
            first,
            days,
            posts=pa.concat_tables([schema.empty_table(), *(rows for day in of_days for rows in day.tables.values())]),
            files={day.day: {partition.instance_id for partition in day.tables} for day in of_days},
            unread=[error for day in of_days for error in day.unread.values()],
        )


def _once(rollup: Rollup) -> list[str]:
    return [] if rollup.span is Span.DAY else [*dict.fromkeys([*POST_KEY, *GRAIN])]


def _days_metadata(rollup: Rollup, read: _Read, missing: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    if rollup.span is Span.DAY:
        names = [*missing.get(str(read.first), [])]
        return {
            "posts": read.posts.num_rows,
            "instances": len(read.files[read.first]),
            **({"missing_instances": dg.MetadataValue.json(names)} if names else {}),
        }
    return {
        "posts": len(read.posts.group_by(list(POST_KEY)).aggregate([])),
        "instances": len({each for instances in read.files.values() for each in instances}),
        "days": sum(bool(instances) for instances in read.files.values()),
        **({"missing_days": dg.MetadataValue.json(dict(missing))} if missing else {}),
    }
