"""The rollups by day, week and month: organic and paid results side by side, over all instances in the lake.

Weekly and monthly rollups are computed from `post_metrics_daily`, because they count each post once. Their declared
upstream is `organic_paid_daily`, so they are updated after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.contract.days import due_day, newest_day
from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.checks import (
    NEWEST_DUE_DAY,
    RECONCILES,
    Check,
    CheckScope,
    build_asset_checks,
    join_first,
)
from later_reporting_dagster.defs.materializations import (
    already_logged,
    combined_failure,
    log_materialization,
    provenance_tags,
)
from later_reporting_dagster.defs.metadata import (
    code_references,
    code_version,
    column_lineage,
    plotted_totals,
    preview,
    table_metadata,
    written_metadata,
)
from later_reporting_dagster.defs.partitions import build_partitions_def, partition_first_days
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.ingest.dimensions import known_instances
from later_reporting_dagster.ingest.missing_files import missing_days
from later_reporting_dagster.lake import LakeUnavailable, Partition, schema_of
from later_reporting_dagster.rollups.lake_rollups import PeriodRollup, check_lake_periods, roll_up_lake_periods
from later_reporting_dagster.rollups.periods import Period, days_of, first_day_of
from later_reporting_dagster.rollups.rollup_tables import DAILY, Measures, RollupTable
from later_reporting_dagster.rollups.sql_engine import RollupFailed, rollup_sql

ROLLUPS_GROUP = "organic_paid"

TOTALS_RECONCILE = Check(name=RECONCILES, description="The totals equal the totals of the raw rows.")
DUE_PERIOD = Check(
    name=NEWEST_DUE_DAY,
    description="There is a file for the newest day that is due, or for the week or month that contains it.",
    is_daily=True,
)

PREVIEW_COLUMNS: Mapping[Measures, Sequence[str]] = {
    Measures.COMPARISON: (
        "posts",
        "organic_impressions",
        "paid_impressions",
        "organic_engagement_rate",
        "paid_engagement_rate",
        "paid_lift",
    ),
    Measures.COSTS: ("posts", "organic_spend", "paid_spend", "total_cpe", "total_cpm"),
    Measures.CAMPAIGNS: ("paid_ad_spend", "estimated_content_cost", "value_per_content_cost", "cost_per_click"),
}


def rollup_step(table: RollupTable, settings: DefinitionSettings) -> AssetStep:
    """Return the step of a rollup.

    A partition without raw files fails, and the run goes on with the others. A week or month that begins today has none
    yet, and becomes a file without rows.
    """

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        _RollupRun(context, later, table=table, settings=settings).run()
        yield already_logged(context)

    key, per_run = settings.asset_key(table.name), settings.rollup_partitions_per_run
    spec = dg.AssetSpec(
        key,
        deps=[_upstream(table, settings)],
        description=table.description,
        group_name=ROLLUPS_GROUP,
        kinds={"parquet"},
        tags=rollup_tags(table),
        partitions_def=build_partitions_def(table.period, settings.start_date),
        metadata={**table_metadata(key, table.columns), **code_references(rollup_step), **_lineage(table, settings)},
        code_version=code_version(table.columns, rollup_sql()),
        automation_condition=when_upstream_changes(key),
        freshness_policy=settings.freshness,
    )
    return AssetStep(
        name=settings.op_name(table.name),
        specs=[spec],
        run=run,
        backfill_policy=dg.BackfillPolicy.multi_run(per_run) if per_run else dg.BackfillPolicy.single_run(),
    )


def build_rollup_checks(table: RollupTable, settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the checks of a rollup: stored partitions are compared with their raw rows."""

    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()
        if RECONCILES in scope.selected:
            days = [partition.day for partition in lake.partitions(table.name) if scope.includes(partition.day)]
            differences = check_lake_periods(lake, table, days, memory_gb=later.memory_gb)
            yield _evaluate_reconciliation(differences, partitions=len(days), period=str(table.period))
        if NEWEST_DUE_DAY in scope.selected:
            due = due_day(datetime.now(UTC), due_hour_utc=settings.due_hour_utc)
            present = bool(lake.partitions(table.name, days=[first_day_of(table.period, due)]))
            yield evaluate_newest_due_period(table.period, due, present=present)

    return build_asset_checks(table.name, [TOTALS_RECONCILE, DUE_PERIOD], evaluate=evaluate, settings=settings)


def rollup_tags(table: RollupTable) -> dict[str, str]:
    """Return the tags that the catalog can be searched by."""
    return {"later/layer": "rollup", "later/date_basis": str(table.date_basis), "later/period": str(table.period)}


def _upstream_key(table: RollupTable, settings: DefinitionSettings) -> dg.AssetKey:
    is_from_days = table.period is not Period.DAY and DAILY.name in settings.tables
    return settings.asset_key(DAILY.name if is_from_days else table.raw_table)


def _upstream(table: RollupTable, settings: DefinitionSettings) -> dg.AssetDep:
    if table.period is Period.DAY:
        return dg.AssetDep(_upstream_key(table, settings))
    # The first and the current week or month contain days that are not partitions.
    mapping = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
    return dg.AssetDep(_upstream_key(table, settings), partition_mapping=mapping)


def _lineage(table: RollupTable, settings: DefinitionSettings) -> Mapping[str, dg.TableColumnLineage]:
    return column_lineage({settings.asset_key(table.raw_table): table.columns})


class _RollupRun:
    """One run of a rollup: computes, writes and logs its partitions."""

    def __init__(
        self,
        context: AssetExecutionContext,
        later: LaterReportingResource,
        *,
        table: RollupTable,
        settings: DefinitionSettings,
    ) -> None:
        self._context = context
        self._table = table
        self._settings = settings
        self._first_days = partition_first_days(context, period=table.period)
        self._lake = later.lake()
        self._memory_gb = later.memory_gb
        self._instances = known_instances(self._lake, configured=later.configured_instances())
        self._provenance = provenance_tags(context, _upstream_key(table, settings))
        self._written = self._changed = 0
        self._failed: dict[str, str] = {}
        self._incomplete: list[date] = []

    def run(self) -> None:
        """Roll up all partitions.

        Raises:
            Failure: a partition failed; raised at the end, with the reason of each.
        """
        log, table, first_days = self._context.log, self._table, self._first_days
        periods = f"{table.period}{'s' * (len(first_days) != 1)}"
        log.info(f"Rolling up {len(first_days)} {periods} of {table.raw_table}, {first_days[0]} to {first_days[-1]}")
        try:
            for rollup in roll_up_lake_periods(self._lake, table, first_days, memory_gb=self._memory_gb):
                self._write(rollup)
        except RollupFailed as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        log.info(f"Rolled up {self._written} of {len(first_days)} {periods}, {self._changed} of them changed")
        if self._incomplete:
            log.info(
                f"{len(self._incomplete)} of the {self._written} {periods} written lack instances:"
                f" {join_first(self._incomplete)}"
            )
        if self._failed:
            raise combined_failure(self._failed, what="partition", written=self._written)

    def _write(self, rollup: PeriodRollup) -> None:
        """Write a partition and log its materialization, or record why it failed."""
        first, rows = rollup.first_day, rollup.rows
        if first > newest_day(datetime.now(UTC)):
            # A backfill of all partitions fails if one of them is not materialized.
            rows = schema_of(self._table.columns).empty_table()
        if rollup.unreadable or rows is None:
            reasons = [str(error) for error in rollup.unreadable]
            no_files = f"{self._table.raw_table} has no files for it: materialize that first"
            self._failed[str(first)] = reasons[0] if reasons else no_files
            return
        try:
            written = self._lake.write(self._table.name, Partition(first), rows)
        except LakeUnavailable as error:
            self._failed[str(first)] = str(error)
            return
        if missing := self._missing_instances(rollup):
            self._incomplete.append(first)
        log_materialization(
            self._context,
            first,
            data_version=written.content_hash,
            provenance=self._provenance,
            metadata={
                **written_metadata(written),
                "preview": preview(rows.select([*self._table.grain, *PREVIEW_COLUMNS[self._table.measures]])),
                **_partition_metadata(self._table, rollup, missing=missing),
                **plotted_totals(rows),
                # Dagster+ reads column lineage from the newest materialization only.
                **(_lineage(self._table, self._settings) if first == self._first_days[-1] else {}),
            },
        )
        self._written += 1
        self._changed += written.changed

    def _missing_instances(self, rollup: PeriodRollup) -> dict[str, list[str]]:
        """Return the missing instances by day, for the days of a partition that are over; not for complete days."""
        first, newest = self._settings.start_date, newest_day(datetime.now(UTC))
        days = [day for day in days_of(self._table.period, rollup.first_day) if first <= day <= newest]
        by_day: dict[str, list[str]] = {}
        for name, lacking in missing_days(days, self._instances, rollup.partitions).items():
            for day in lacking:
                by_day.setdefault(day.isoformat(), []).append(name)
        return dict(sorted(by_day.items()))


def _evaluate_reconciliation(
    differences: Mapping[date, Sequence[str]], *, partitions: int, period: str
) -> dg.AssetCheckResult:
    """Evaluate whether partitions have the totals of their raw rows; those with differences are given by first day."""
    counted = f"{partitions} {period}{'s' * (partitions != 1)}"
    by_day = {str(day): [*differences[day]] for day in sorted(differences)}
    return TOTALS_RECONCILE.result(
        f"{len(differences)} of {counted} differ from their raw rows: materialize {join_first([*by_day])}"
        if differences
        else "",
        otherwise=f"{counted} equal{'s' * (partitions == 1)} {'its' if partitions == 1 else 'their'} raw rows",
        looked_at={f"{period}s": partitions},
        metadata={
            "differing": len(differences),
            **({"differences": dg.MetadataValue.json(by_day)} if differences else {}),
        },
    )


def evaluate_newest_due_period(period: Period, due: date, *, present: bool) -> dg.AssetCheckResult:
    """Evaluate whether the day `due`, or the week or month that contains it, has a file.

    A week or month has a file from its first rollup, so the check does not notice if later days of it are missing.
    """
    is_day = period is Period.DAY
    name = str(due) if is_day else f"The {period} of {first_day_of(period, due)}, which contains the due day {due},"
    return DUE_PERIOD.result(
        ""
        if present
        else f"{name} has no file: make sure that the raw table has {due}, then materialize this {period}",
        otherwise=f"{name} has a file",
        looked_at={f"{period}s": 1},
        metadata={"due_day": str(due)},
    )


def _partition_metadata(
    table: RollupTable, rollup: PeriodRollup, *, missing: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    metadata: dict[str, Any] = {"instances": len({raw_partition.instance_id for raw_partition in rollup.partitions})}
    if table.period is Period.DAY:
        names = [*missing.get(str(rollup.first_day), [])]
        return {**metadata, **({"missing_instances": dg.MetadataValue.json(names)} if names else {})}
    metadata["days"] = len({raw_partition.day for raw_partition in rollup.partitions})
    return {**metadata, **({"missing_days": dg.MetadataValue.json(dict(missing))} if missing else {})}
