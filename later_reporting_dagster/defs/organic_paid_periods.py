"""The rollups by day, week and month: organic beside paid, made from whatever instances lie in the lake.

Weeks and months read the posts of their days, because a post counts once in them; they follow the daily rollup, which
has a new data version for each day whose posts changed.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.contract.days import due_day, newest_day
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, RECONCILES, checks_of, first_of, log_check_results
from later_reporting_dagster.defs.materializations import failure_of, log_materialization, provenance_tags
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
from later_reporting_dagster.lake import Lake, LakeUnavailable, Partition
from later_reporting_dagster.rollups.lake_rollups import RolledUpDays, roll_up_days_of, totals_that_differ
from later_reporting_dagster.rollups.periods import Span, days_of, first_day_of
from later_reporting_dagster.rollups.rollup_tables import DAILY, RolledUp
from later_reporting_dagster.rollups.sql_engine import RAW, RollupFailed

ROLLUPS_GROUP = "organic_paid"

ROLLUP_CHECKS: Mapping[str, str] = {
    RECONCILES: "Its totals equal those of the raw rows it comes from.",
    NEWEST_DUE_DAY: "The newest day that is due has been rolled up.",
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


def rollup_key(table: RolledUp) -> dg.AssetKey:
    """Return the key of a table's asset."""
    return dg.AssetKey(["later", table.name])


def rollup_asset(
    table: RolledUp,
    *,
    partitions_def: dg.TimeWindowPartitionsDefinition,
    freshness: dg.FreshnessPolicy,
    due_hour_utc: int,
) -> dg.AssetsDefinition:
    """Return the asset of a rollup. Any number of partitions is one run; one without raw rows fails alone."""

    @dg.asset(
        key=rollup_key(table),
        deps=[_upstream(table)],
        description=table.description,
        group_name=ROLLUPS_GROUP,
        kinds={"parquet"},
        tags=rollup_tags(table),
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        metadata={**table_metadata(table.name, table.columns), **column_lineage({_raw(table): table.columns})},
        automation_condition=when_upstream_changes(),
        freshness_policy=freshness,
    )
    def roll_up(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        _roll_up(context, later, table=table, due_hour_utc=due_hour_utc)
        yield from ()

    return roll_up


def rollup_tags(table: RolledUp) -> dict[str, str]:
    """Return tags to search the catalog by."""
    bases = "both" if len(table.bases) > 1 else str(table.bases[0])
    return {"later/layer": "rollup", "later/date_basis": bases, "later/span": str(table.span)}


def rollup_checks(table: RolledUp, *, due_hour_utc: int) -> dg.AssetChecksDefinition:
    """Return the checks of a rollup over its whole lake: each partition is read back and held against its raw rows."""

    def evaluate(later: LaterReportingResource, selected: Set[str]) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()
        if RECONCILES in selected:
            days = [partition.day for partition in lake.partitions(table.name)]
            found = totals_that_differ(lake, table, days, memory_gb=later.memory_limit_gb())
            yield _evaluate_reconciliation(found, partitions=len(days), what=str(table.span))
        if NEWEST_DUE_DAY in selected:
            yield _evaluate_freshness(table, lake=lake, due_hour_utc=due_hour_utc)

    return checks_of(
        rollup_key(table), ROLLUP_CHECKS, evaluate=evaluate, due_hour_utc=due_hour_utc, daily=[NEWEST_DUE_DAY]
    )


def _upstream(table: RolledUp) -> dg.AssetDep:
    if table.span is Span.DAY:
        return dg.AssetDep(dg.AssetKey(["later", _raw(table)]))
    # The first week and the one under way have days that are no partitions.
    within = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
    return dg.AssetDep(rollup_key(DAILY), partition_mapping=within)


def _raw(table: RolledUp) -> str:
    return RAW[table.bases[0]]


def _roll_up(
    context: AssetExecutionContext, later: LaterReportingResource, *, table: RolledUp, due_hour_utc: int
) -> None:
    """Roll the run's partitions up and log each.

    Raises:
        Failure: at least one partition stayed as it was; named at the end, when the others are written.
    """
    days = partition_days(context)
    lake = later.lake()
    instances = known_instances(lake, named=later.named_instances())
    spans = f"{table.span}{'s' * (len(days) != 1)}"
    context.log.info(f"Rolling up {len(days)} {spans} of later/{_raw(table)}, {days[0]} to {days[-1]}")
    rolled_up = changed = posts = 0
    failed: dict[str, str] = {}
    incomplete: list[date] = []
    differences: dict[date, Sequence[str]] = {}
    provenance = provenance_tags(context, _upstream(table).asset_key)
    for each in _rolled_up_days(lake, table, days, memory_gb=later.memory_limit_gb()):
        if each.unreadable or each.rows is None:
            reasons = [str(error) for error in each.unreadable]
            missing = f"later/{_raw(table)} has no files for it: materialize that first"
            failed[str(each.first)] = reasons[0] if reasons else missing
            continue
        try:
            written = lake.write(table.name, Partition(each.first), each.rows)
        except LakeUnavailable as error:
            failed[str(each.first)] = str(error)
            continue
        if each.differences:
            differences[each.first] = each.differences
        if lacking := _missing(table, each, instances):
            incomplete.append(each.first)
        log_materialization(
            context,
            each.first,
            data_version=written.content_hash,
            provenance=provenance,
            metadata={
                **written_metadata(written),
                "preview": preview(each.rows.select(_PREVIEW_COLUMNS)),
                **_days_metadata(table, each, lacking),
                **plotted_totals(each.rows),
                # Dagster+ looks at the newest materialization alone.
                **(column_lineage({_raw(table): table.columns}) if each.first == days[-1] else {}),
            },
        )
        rolled_up, changed, posts = rolled_up + 1, changed + written.changed, posts + each.raw_rows
    context.log.info(f"Rolled up {rolled_up} of {len(days)} {spans}, {changed} of them changed, from {posts:,} rows")
    if incomplete:
        context.log.info(f"Some instances are missing for {len(incomplete)} of them: {first_of(incomplete)}")

    def results() -> Iterator[dg.AssetCheckResult]:
        yield _evaluate_reconciliation(differences, partitions=rolled_up, what=str(table.span))
        yield _evaluate_freshness(table, lake=lake, due_hour_utc=due_hour_utc)

    log_check_results(context, results())
    if failed:
        raise failure_of(failed, what="partition", written=rolled_up)


def _rolled_up_days(lake: Lake, table: RolledUp, firsts: Sequence[date], *, memory_gb: float) -> Iterator[RolledUpDays]:
    """Yield each partition as `roll_up_days_of` does, so that what is written need not be held until the end."""
    try:
        yield from roll_up_days_of(lake, table, firsts, memory_gb=memory_gb)
    except RollupFailed as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _evaluate_reconciliation(
    differences: Mapping[date, Sequence[str]], *, partitions: int, what: str
) -> dg.AssetCheckResult:
    """Return whether the rolled-up partitions have the totals of their raw rows, and what differs."""
    counted = f"{partitions} {what}{'s' * (partitions != 1)}"
    shown = {str(day): [*differences[day]] for day in sorted(differences)}
    return dg.AssetCheckResult(
        check_name=RECONCILES,
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


def _evaluate_freshness(table: RolledUp, *, lake: Lake, due_hour_utc: int) -> dg.AssetCheckResult:
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    present = bool(lake.partitions(table.name, days=[first_day_of(table.span, due)]))
    return evaluate_rollup_freshness(table.span, due, present=present)


def evaluate_rollup_freshness(span: Span, due: date, *, present: bool) -> dg.AssetCheckResult:
    """Return whether the day `due`, or the week or month in which it lies, has been rolled up."""
    what = str(due) if span is Span.DAY else f"The {span} of {first_day_of(span, due)}, with {due} in it,"
    return dg.AssetCheckResult(
        check_name=NEWEST_DUE_DAY,
        passed=present,
        description=(
            f"{what} is rolled up" if present else f"{what} is not rolled up: materialize it, or see its raw day"
        ),
        metadata={"due_day": str(due)},
    )


def _missing(table: RolledUp, rolled_up: RolledUpDays, instances: Sequence[str]) -> dict[str, list[str]]:
    """Return the days that are over and lack any of `instances`, each with those."""
    files: dict[date, set[str | None]] = {}
    for partition in rolled_up.files:
        files.setdefault(partition.day, set()).add(partition.instance_id)
    over = [day for day in days_of(table.span, rolled_up.first) if day <= newest_day(datetime.now(UTC))]
    lacking = {day: [each for each in instances if each not in files.get(day, ())] for day in over}
    return {day.isoformat(): names for day, names in lacking.items() if names}


def _days_metadata(table: RolledUp, rolled_up: RolledUpDays, missing: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    instances = len({partition.instance_id for partition in rolled_up.files})
    if table.span is Span.DAY:
        names = [*missing.get(str(rolled_up.first), [])]
        return {
            "posts": rolled_up.raw_rows,
            "instances": instances,
            **({"missing_instances": dg.MetadataValue.json(names)} if names else {}),
        }
    return {
        "rows": rolled_up.raw_rows,
        "instances": instances,
        "days": len({partition.day for partition in rolled_up.files}),
        **({"missing_days": dg.MetadataValue.json(dict(missing))} if missing else {}),
    }
