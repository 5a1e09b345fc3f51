"""The rollups, organic beside paid: by day, week and month, and over rolling windows that end with the newest day.

Weekly and monthly rollups are computed from `post_metrics_daily`, not from days, because they count each post once.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.defs.asset_steps import AssetStep, table_spec
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.component_settings import ComponentSettings
from later_reporting_dagster.defs.events import (
    already_logged,
    combined_failure,
    log_materialization,
    preview,
    provenance_tags,
    table_result,
    written_metadata,
)
from later_reporting_dagster.defs.partitions import build_partitions_def, partition_first_days
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import CAMPAIGNS_TABLE, LakeUnavailable, Partition, schema_of
from later_reporting_dagster.quality.instances import known_instances
from later_reporting_dagster.quality.missing_files import describe_missing, missing_days
from later_reporting_dagster.rollups.lake_rollups import roll_up_lake_periods, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import (
    PERIOD_TABLES,
    RAW_TABLE_NAMES,
    SINGLE_TABLES,
    Cadence,
    RollupTable,
    days_of,
)
from later_reporting_dagster.rollups.sql_engine import rollup_definition


def rollup_steps(settings: ComponentSettings) -> list[AssetStep]:
    """Return the steps of the rollups that are defined: one for each by day, week or month, and one for all others."""
    periods = settings.rollups(PERIOD_TABLES)
    windows = settings.rollups(SINGLE_TABLES)
    return [
        *(period_step(table, settings) for table in periods),
        *([windows_step(windows, settings)] if windows else []),
    ]


def period_step(table: RollupTable, settings: ComponentSettings) -> AssetStep:
    """Return the step of a rollup by day, week or month.

    A partition without raw files fails, and the run goes on with the others. A week or month that begins today has none
    yet, and becomes a file without rows.
    """
    upstream = settings.asset_key(table.raw_table)

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        _roll_up_periods(context, later, table=table, settings=settings, upstream=upstream)
        yield already_logged(context)

    # The first and the current week or month contain days that are not partitions.
    mapping = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
    spec = _rollup_spec(
        table,
        settings,
        deps=[dg.AssetDep(upstream, partition_mapping=None if table.cadence is Cadence.DAY else mapping)],
        partitions_def=build_partitions_def(table.cadence, settings.start_date),
    )
    per_run = settings.rollup_partitions_per_run
    return AssetStep(
        name=settings.op_name(table.name),
        specs=[spec],
        run=run,
        backfill_policy=dg.BackfillPolicy.multi_run(per_run) if per_run else dg.BackfillPolicy.single_run(),
    )


def windows_step(tables: Sequence[RollupTable], settings: ComponentSettings) -> AssetStep:
    """Return one step for all window tables, because they read the same posts. Any subset can be materialized."""

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        selected = [table for table in tables if settings.asset_key(table.name) in context.selected_asset_keys]
        yield from _roll_up_windows(context, later, tables=selected, settings=settings)

    specs = [_rollup_spec(table, settings, deps=settings.dependencies(*table.sources)) for table in tables]
    return AssetStep(name=settings.op_name("organic_paid_by_window"), specs=specs, run=run)


def _rollup_spec(table: RollupTable, settings: ComponentSettings, **attributes: Any) -> dg.AssetSpec:
    tags = {"later/date_basis": str(table.date_basis), "later/period": str(table.cadence)}
    return table_spec(
        settings,
        table.name,
        table.columns,
        sql=rollup_definition(),
        description=table.description,
        group_name="organic_paid",
        tags={"later/layer": "rollup", **tags},
        automation_condition=when_upstream_changes(settings.asset_key(table.name)),
        freshness_policy=settings.freshness,
        **attributes,
    )


def _roll_up_periods(
    context: AssetExecutionContext,
    later: LaterReportingResource,
    *,
    table: RollupTable,
    settings: ComponentSettings,
    upstream: dg.AssetKey,
) -> None:
    """Compute, write and log the partitions of a run. If some fail, it fails at its end, with the reason of each."""
    first_days, provenance = partition_first_days(context, period=table.cadence), provenance_tags(context, upstream)
    newest, lake = newest_day(datetime.now(UTC)), later.lake()
    instances = known_instances(lake, configured=later.configured_instances())
    failed: dict[str, str] = {}
    written = changed = 0
    for rollup in roll_up_lake_periods(lake, table, first_days, memory_gb=later.memory_gb):
        first, rows = rollup.first_day, rollup.rows
        if first > newest:
            # A backfill of all partitions fails if one of them is not materialized.
            rows = schema_of(table.columns).empty_table()
        if rollup.unreadable or rows is None:
            reasons = [str(error) for error in rollup.unreadable]
            no_files = f"{table.raw_table} has no files for it: materialize that first"
            failed[str(first)] = reasons[0] if reasons else no_files
            continue
        try:
            file = lake.write(table.name, Partition(first), rows)
        except LakeUnavailable as error:
            failed[str(first)] = str(error)
            continue
        days = [day for day in days_of(table.cadence, first) if settings.start_date <= day <= newest]
        missing = describe_missing(missing_days(days, instances, rollup.partitions), instances=len(instances))
        log_materialization(
            context,
            first,
            data_version=file.content_hash,
            provenance=provenance,
            metadata={
                "dagster/partition_row_count": file.rows,
                **written_metadata(file),
                "preview": preview(rows),
                **({"missing": missing} if missing else {}),
            },
        )
        written += 1
        changed += file.changed
    context.log.info(
        f"Rolled up {written} of {len(first_days)} {table.cadence}s of {table.raw_table}, {first_days[0]} to"
        f" {first_days[-1]}; {changed} of them changed"
    )
    if failed:
        raise combined_failure(failed, what="partition", written=written)


def _roll_up_windows(
    context: AssetExecutionContext,
    later: LaterReportingResource,
    *,
    tables: Sequence[RollupTable],
    settings: ComponentSettings,
) -> Iterator[dg.MaterializeResult[Any]]:
    lake = later.lake()
    windows = roll_up_lake_windows(lake, tables, memory_gb=later.memory_gb)
    for name, unreadable in windows.contents.unreadable.items():
        for partition, reason in unreadable.items():
            # Only a damaged file is left out: what cannot be read at the moment would make smaller totals.
            if isinstance(reason, LakeUnavailable):
                raise reason
            context.log.warning(f"Skipped {partition} of {name}: {reason}")
    if windows.campaigns.error:
        context.log.warning(f"Skipped {CAMPAIGNS_TABLE}: {windows.campaigns.error}")
    if not any(windows.contents.partitions[name] for name in RAW_TABLE_NAMES.values()):
        raise dg.Failure("There are no posts: materialize a raw table first.", allow_retries=False)
    failed: dict[str, str] = {}
    for table in tables:
        key, rows = settings.asset_key(table.name), windows.tables[table.name]
        try:
            written = lake.write_table(table.name, rows)
        except LakeUnavailable as error:
            failed[table.name] = str(error)
            continue
        state = "changed" if written.changed else "unchanged"
        context.log.info(f"Rolled up {key.to_user_string()}: {written.rows:,} rows, {state}")
        yield table_result(written, {"preview": preview(rows)}, key=key)
    if failed:
        raise combined_failure(failed, what="table", written=len(tables) - len(failed))
