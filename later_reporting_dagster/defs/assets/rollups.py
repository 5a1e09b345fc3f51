"""The rollups, organic beside paid: by day, week and month, and over rolling windows that end with the newest day.

Weekly and monthly rollups are computed from `post_metrics_daily`, not from days, because they count each post once.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from importlib.metadata import metadata
from typing import Any

import dagster as dg
from pydantic import Field

from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.defs.checks.check import to_evaluation
from later_reporting_dagster.defs.checks.posts import NOT_STALE, evaluate_staleness
from later_reporting_dagster.defs.component_base import AssetEvent, ComponentBase
from later_reporting_dagster.defs.dagster_private import planned_checks_of_run
from later_reporting_dagster.defs.events import (
    combined_failure,
    failures,
    nothing_to_log,
    partition_materialization,
    preview,
    provenance_tags,
    table_result,
    written_metadata,
)
from later_reporting_dagster.defs.partitions import build_partitions_def, partition_first_days
from later_reporting_dagster.lake import (
    CAMPAIGN_PERIODS_TABLE,
    CAMPAIGNS_TABLE,
    Lake,
    LakeUnavailable,
    Partition,
    schema_of,
)
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_NAMES, POSTS_PUBLISHED
from later_reporting_dagster.quality.instances import load_instances
from later_reporting_dagster.quality.missing_files import describe_missing, missing_files
from later_reporting_dagster.quality.outdated import outdated
from later_reporting_dagster.rollups.lake_rollups import roll_up_lake_periods, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import POSTS, Cadence, RollupTable, days_of, first_day_of
from later_reporting_dagster.rollups.sql_engine import query_sql


class PeriodsConfig(dg.Config):
    """Run config of a rollup by day, week or month; by default it makes the selected partitions."""

    outdated: bool = Field(
        default=False,
        description="Also roll up all other partitions that are outdated. The sensor names only the newest of them.",
    )


def period_asset(component: ComponentBase, table: RollupTable) -> dg.AssetsDefinition:
    """Return a rollup by day, week or month.

    A partition without raw files fails, and the run goes on with the others. A week or month that begins today has none
    yet, and becomes a file without rows.
    """
    upstream, per_run = component.asset_key(POST_METRICS_DAILY.name), component.rollup_partitions_per_run
    # The first and the current week or month contain days that are not partitions.
    mapping = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)

    @dg.multi_asset(
        **component.step(table.name),
        specs=[
            _rollup_spec(
                component,
                table,
                deps=[dg.AssetDep(upstream, partition_mapping=None if table.cadence is Cadence.DAY else mapping)],
                partitions_def=build_partitions_def(table.cadence, component.start_date),
            )
        ],
        backfill_policy=dg.BackfillPolicy.multi_run(per_run) if per_run else dg.BackfillPolicy.single_run(),
    )
    def rollup(context: dg.AssetExecutionContext, config: PeriodsConfig) -> Iterator[AssetEvent]:
        events = roll_up_periods(context, component, table, with_outdated=config.outdated)
        yield from component.execute(context, events)

    return rollup


def windows_asset(component: ComponentBase, tables: Sequence[RollupTable]) -> dg.AssetsDefinition:
    """Return all tables over windows in one step, because they read the same posts. Any subset can be materialized."""

    @dg.multi_asset(
        **component.step("organic_paid_by_window"),
        specs=[_rollup_spec(component, table, deps=component.dependencies(*table.sources)) for table in tables],
        can_subset=len(tables) > 1,
    )
    def windows(context: dg.AssetExecutionContext) -> Iterator[AssetEvent]:
        selected = [table for table in tables if component.asset_key(table.name) in context.selected_asset_keys]
        yield from component.execute(context, roll_up_windows(context, component, selected))

    return windows


def _rollup_spec(component: ComponentBase, table: RollupTable, **attributes: Any) -> dg.AssetSpec:
    return component.table_spec(
        table.name,
        table.columns,
        code_version=str(table.definition),
        description=table.description,
        group_name="organic_paid",
        kinds={"duckdb"},
        metadata={
            "definition": table.definition,
            "sql": dg.MetadataValue.md(f"```sql\n{query_sql(table).strip()}\n```"),
            "dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[_query_at_release(table)]),
        },
        tags={"later/layer": "rollup", "later/date_basis": str(table.date_basis), "later/period": str(table.cadence)},
        freshness_policy=component.freshness,
        **attributes,
    )


def _query_at_release(table: RollupTable) -> dg.UrlCodeReference:
    """Return the address of a query at the tag of this version."""
    package = metadata("later-reporting-dagster")
    urls = dict(url.split(", ", 1) for url in package.get_all("Project-URL") or [])
    path = f"later_reporting_dagster/rollups/{table.query}.sql"
    return dg.UrlCodeReference(url=f"{urls['Source']}/blob/v{package['Version']}/{path}", label=f"{table.query}.sql")


def roll_up_periods(
    context: dg.AssetExecutionContext, component: ComponentBase, table: RollupTable, *, with_outdated: bool
) -> Iterator[AssetEvent]:
    """Compute and write the partitions of a run, and yield their materializations.

    If some fail, such as those without raw files, it fails at its end, with the reason of each. Files from before the
    first partition, which a later start date left behind, are made again if outdated.

    Args:
        with_outdated: whether to make all other partitions that are outdated, too. Those that the run selects may then
            have no raw files, because it has to select some.
    """
    later, now = component.later(context), component.now()
    first_days = partition_first_days(context, now=now, period=table.cadence)
    provenance = provenance_tags(context, component.asset_key(POST_METRICS_DAILY.name))
    failed: dict[str, str] = {}
    without_files: list[str] = []
    written = changed = 0
    is_temporary = False
    with failures():
        newest, lake = newest_day(now), later.lake()
        begin = first_day_of(table.cadence, component.start_date)
        early = _outdated_before(lake, table, begin)
        if with_outdated:
            found = outdated(lake, [table], start_date=component.start_date, newest_day=newest)
            others = {file.first_day for file in found if file.first_day and file.first_day >= begin}
            first_days = sorted({*first_days, *others})
        instances = sorted(load_instances(lake, configured=later.configured_instances()).expected)
        for rollup in roll_up_lake_periods(lake, table, [*early, *first_days], memory_gb=later.memory_gb):
            first, rows = rollup.first_day, rollup.rows
            if first > newest:
                # A backfill of all partitions fails if one of them is not materialized.
                rows = schema_of(table.columns).empty_table()
            if rollup.unreadable and first in early:  # no run fetches it, and `is_current` names it
                context.log.warning(f"{first} of {table.name}, before the start date: {rollup.unreadable[0]}")
                continue
            if rollup.unreadable:
                failed[str(first)] = str(rollup.unreadable[0])
                is_temporary |= isinstance(rollup.unreadable[0], LakeUnavailable)
                continue
            if rows is None:
                without_files.append(str(first))
                continue
            try:
                file = lake.write(
                    table.name, Partition(first), rows, metadata=rollup.made_from.key_values, replaces_metadata=True
                )
            except LakeUnavailable as error:
                failed[str(first)], is_temporary = str(error), True
                continue
            days = [day for day in days_of(table.cadence, first) if component.start_date <= day <= newest]
            lacking = missing_files(
                POST_METRICS_DAILY.name, days=days, instances=instances, present={*rollup.partitions}
            )
            missing = describe_missing(lacking, instances=len(instances))
            written += 1
            changed += file.changed
            if first in early:
                context.log.info(f"Rolled up {first} of {table.name} again, which is before the start date")
                continue
            yield partition_materialization(
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
    context.log.info(
        f"Rolled up {written} of {len(first_days)} {table.cadence}s of {POST_METRICS_DAILY.name}, {first_days[0]} to"
        f" {first_days[-1]}; {changed} of them changed"
    )
    if not (with_outdated and written):
        no_files = f"{POST_METRICS_DAILY.name} has no files for it: materialize that first"
        failed |= dict.fromkeys(without_files, no_files)
    if failed:
        raise combined_failure(failed, asset=table.name, what="partition", written=written, is_temporary=is_temporary)
    yield nothing_to_log(context)


def _outdated_before(lake: Lake, table: RollupTable, first: date) -> list[date]:
    """Return the days, weeks or months before the first partition whose stored files are outdated."""
    stored = [partition.day for partition in lake.partitions(table.name) if partition.day < first]
    days = {day for first_day in stored for day in days_of(table.cadence, first_day)}
    found = outdated(lake, [table], start_date=first, newest_day=first, days=days) if days else []
    return [file.first_day for file in found if file.first_day and file.first_day < first]


def roll_up_windows(
    context: dg.AssetExecutionContext, component: ComponentBase, tables: Sequence[RollupTable]
) -> Iterator[AssetEvent]:
    """Compute and write tables.

    It fails at its end, with the reasons, if some cannot be written, or damaged files are not in them.
    """
    later = component.later(context)
    failed: dict[str, str] = {}
    left_out: list[str] = []
    is_temporary = False
    with failures():
        lake = later.lake()
        windows = roll_up_lake_windows(lake, tables, memory_gb=later.memory_gb)
        for name, unreadable in windows.contents.unreadable.items():
            for partition, reason in unreadable.items():
                # Only a damaged file is left out: what cannot be read at the moment would make smaller totals.
                if isinstance(reason, LakeUnavailable):
                    raise reason
                context.log.warning(f"Skipped {partition} of {name}: {reason}")
                left_out.append(str(reason))
        if windows.unreadable_campaigns:
            context.log.warning(f"Skipped {CAMPAIGNS_TABLE}: {windows.unreadable_campaigns}")
        needs_posts = any(CAMPAIGN_PERIODS_TABLE not in table.sources for table in tables)
        has_posts = any(windows.contents.partitions[name] for name in POSTS_NAMES)
        # If all instances are retired, the tables become empty.
        if needs_posts and not has_posts and not lake.retired.marks().retired:
            raise dg.Failure("There are no posts: materialize a raw table first.", allow_retries=False)
        for table in tables:
            if table.name not in windows.tables:
                failed[table.name] = windows.unreadable_periods
                continue
            key, rows = component.asset_key(table.name), windows.tables[table.name]
            try:
                made_from = windows.made_from[table.name].key_values
                written = lake.write_table(table.name, rows, metadata=made_from, replaces_metadata=True)
            except LakeUnavailable as error:
                failed[table.name], is_temporary = str(error), True
                continue
            state = "changed" if written.changed else "unchanged"
            context.log.info(f"Rolled up {key.to_user_string()}: {written.rows:,} rows, {state}")
            yield table_result(written, {"preview": preview(rows)}, key=key)
            if table.name == POSTS.name and {*NOT_STALE.needs} <= {*component.tables}:
                yield from _evaluated_staleness(context, component, lake)
    if failed:
        raise combined_failure(
            failed, asset=next(iter(failed)), what="table", written=len(tables) - len(failed), is_temporary=is_temporary
        )
    if left_out:
        files = f"{len(left_out)} damaged file{'s' * (len(left_out) > 1)}"
        raise dg.Failure(f"The tables are written, without {files}, such as {left_out[0]}", allow_retries=False)


def _evaluated_staleness(
    context: dg.AssetExecutionContext, component: ComponentBase, lake: Lake
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield whether files of published posts are stale, unless the run has the check of that, which comes later."""
    key = component.asset_key(POSTS_PUBLISHED.name)
    planned = planned_checks_of_run(context.instance, context.run.run_id)
    if dg.AssetCheckKey(key, NOT_STALE.name) not in planned:
        yield to_evaluation(evaluate_staleness(lake, component), key)
