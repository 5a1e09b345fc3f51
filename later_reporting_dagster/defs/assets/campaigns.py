"""The dimension table of campaigns, and what the API totals over whole periods. That by day is in raw_tables.py."""

from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import timedelta

import dagster as dg
from pydantic import Field

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.defs.assets.raw_tables import event_log, refusal_warning
from later_reporting_dagster.defs.checks.all_checks import evaluate_skipped_checks
from later_reporting_dagster.defs.component_base import AssetEvent, ComponentBase
from later_reporting_dagster.defs.event_loop import wait_for
from later_reporting_dagster.defs.events import combined_failure, failures, nothing_to_log, preview, table_result
from later_reporting_dagster.ingest.campaigns import write_campaigns
from later_reporting_dagster.ingest.periods import ingest_periods, periods_to_fetch, queries_of
from later_reporting_dagster.ingest.periods_file import PeriodsFile, read_periods
from later_reporting_dagster.ingest.progress import Progress, RouteRefused, refusal
from later_reporting_dagster.lake import CAMPAIGN_COLUMNS, CAMPAIGNS_TABLE
from later_reporting_dagster.lake.parquet_file import content_hash_of
from later_reporting_dagster.lake.tables import PeriodsTable
from later_reporting_dagster.quality.instances import load_instances


def campaigns_asset(component: ComponentBase) -> dg.AssetsDefinition:
    """Return the dimension of campaigns. If the API refuses the route, it logs a warning and writes nothing."""

    @dg.multi_asset(
        **component.step(CAMPAIGNS_TABLE),
        specs=[
            component.table_spec(
                CAMPAIGNS_TABLE,
                CAMPAIGN_COLUMNS,
                description="All campaigns that the API has ever listed: name, description, status and dates.",
                group_name="campaigns",
                kinds={"later"},
                tags={"later/layer": "dimension"},
                freshness_policy=component.freshness,
            )
        ],
        pool=component.pool,
    )
    def campaigns(context: dg.AssetExecutionContext) -> Iterator[AssetEvent]:
        yield from component.execute(context, list_campaigns(context, component))

    return campaigns


def list_campaigns(context: dg.AssetExecutionContext, component: ComponentBase) -> Iterator[AssetEvent]:
    """Fetch the list of campaigns, and update the dimension."""
    later = component.later(context)
    with failures():
        configured = later.configured_instances()
        instances = load_instances(later.lake(), configured=configured)
        try:
            log = event_log(context, Progress(CAMPAIGNS_TABLE))
            listed = wait_for(lambda: later.fetch_campaigns(instances.filter, on_event=log))
        except LaterError as error:
            if (refused := refusal(error)) is None:
                raise
            warning = refusal_warning(context, refused)
            later.fetches.append(Progress(CAMPAIGNS_TABLE, warnings=[warning]))
            context.log.warning(warning)
            yield nothing_to_log(context)
            return
        rows, written = write_campaigns(
            later.lake(), listed.items, listed.bad_rows, instance_ids=configured, today=component.now().date()
        )
        context.log.info(f"The API lists {len(listed.items)} of {rows.num_rows} known campaigns")
        yield table_result(
            written,
            {"preview": preview(rows.select(["campaign_id", "campaign_name", "status", "start_date"]))},
            # Without `last_seen`, which changes every day: rollups and the report would follow.
            data_version=content_hash_of(rows.drop_columns(["last_seen"])),
        )


class PeriodsConfig(dg.Config):
    """Run config of a fetch of periods."""

    all_months: bool = Field(
        default=False,
        description="Also fetch the months that are stored and older than the last three. Use it if instances, or"
        " metrics of campaigns, were added.",
    )
    allow_row_loss: bool = Field(
        default=False, description="Also replace periods that lose more rows than LATER_MAX_ROW_LOSS_PERCENT allows."
    )


def periods_asset(component: ComponentBase, table: PeriodsTable) -> dg.AssetsDefinition:
    """Return the totals of campaigns, or of accounts, over whole periods.

    If a period fails, it keeps its rows, the others are written, and the run fails at its end. If the API refuses the
    route, the run logs a warning and writes nothing.
    """

    @dg.multi_asset(
        **component.step(table.name),
        specs=[
            component.table_spec(
                table.name,
                table.columns(component.metrics_of(table.by_day)),
                description=table.description,
                group_name=table.by_day.rows,
                kinds={"later"},
                tags={"later/layer": "raw"},
                freshness_policy=component.freshness,
            )
        ],
        pool=component.pool,
    )
    def periods(context: dg.AssetExecutionContext, config: PeriodsConfig) -> Iterator[AssetEvent]:
        yield from component.execute(context, fetch_periods(context, config, component, table))

    return periods


def fetch_periods(
    context: dg.AssetExecutionContext, config: PeriodsConfig, component: ComponentBase, table: PeriodsTable
) -> Iterator[AssetEvent]:
    """Fetch the windows, the newest months and the older months whose turn it is, and update the table."""
    later, progress = component.later(context), Progress(table.name)
    later.fetches.append(progress)
    with failures():
        lake, newest = later.lake(), newest_day(component.now())
        instances = load_instances(lake, configured=later.configured_instances(), listed=later.remembered_list)
        file = PeriodsFile(
            periods=table,
            lake=lake,
            instances=instances,
            stored=read_periods(lake, table),
            metrics=component.metrics_of(table.by_day),
        )
        limits = later.write_limits(allow_row_loss=config.allow_row_loss)

        async def fetch() -> None:
            async with later.client(on_event=event_log(context, progress)) as client:
                # Campaigns need no list: a month only records which instances it was fetched for.
                with nullcontext() if table.by_day.one_instance_per_query else suppress(LaterError):
                    file.instances = replace(instances, listed=await later.fetch_list(client, progress))
                periods = periods_to_fetch(
                    file.stored,
                    table,
                    start_date=component.start_date,
                    newest=newest,
                    ages=component.refetch_ages(newest + timedelta(days=1)),
                    instances=file.instances,
                    all_months=config.all_months,
                )
                asked = queries_of(table, periods, file.instances)
                await ingest_periods(asked, file, client=client, limits=limits, progress=progress)

        try:
            wait_for(fetch)
        except RouteRefused as refused:
            progress.warnings.append(refusal_warning(context, refused))
        for warning in progress.warnings:
            context.log.warning(warning)
        context.log.info(
            f"{progress.written} of {progress.slices} periods fetched; {progress.rows_text()};"
            f" {progress.requests} requests"
        )
        if file.written is not None and file.rows is not None:
            yield table_result(file.written, {"preview": preview(file.rows.select([*table.key]))})
        elif not file.failed:
            yield nothing_to_log(context)
        if file.failed:
            yield from evaluate_skipped_checks(context, later, component)
            raise combined_failure(
                file.failed,
                asset=table.name,
                what="period",
                written=progress.written,
                is_temporary=progress.temporary > 0,
            )
