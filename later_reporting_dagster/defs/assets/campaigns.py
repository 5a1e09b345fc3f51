"""The assets of campaigns: their dimension table, and their performance by UTC day."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.client import LaterClient, LaterError
from later_reporting_dagster.defs.asset_steps import AssetStep, table_spec
from later_reporting_dagster.defs.assets.fetched_days import Emit, FetchConfig, FetchRun, fetched_step
from later_reporting_dagster.defs.checks.all_checks import evaluate_skipped_checks
from later_reporting_dagster.defs.component_settings import ComponentSettings
from later_reporting_dagster.defs.events import already_logged, preview, table_result
from later_reporting_dagster.defs.partitions import partition_first_days
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.campaign_performance import RouteRefused, ingest_campaign_performance, refusal
from later_reporting_dagster.ingest.campaigns import write_campaigns
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGNS_TABLE,
    Partition,
    campaign_performance_columns,
)
from later_reporting_dagster.lake.parquet_file import content_hash_of
from later_reporting_dagster.lake.tables import CAMPAIGN_PERFORMANCE


def campaign_steps(settings: ComponentSettings) -> list[AssetStep]:
    """Return the steps of the assets of campaigns that are defined."""
    steps = {CAMPAIGNS_TABLE: campaigns_step, CAMPAIGN_PERFORMANCE_TABLE: campaign_performance_step}
    return [step(settings) for name, step in steps.items() if name in settings.tables]


def campaigns_step(settings: ComponentSettings) -> AssetStep:
    """Return the step of the dimension. If the API refuses the route, it logs a warning and writes nothing."""

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        configured = later.configured_instances()
        try:
            fetched = asyncio.run(later.fetch_campaigns(configured))
        except LaterError as error:
            if (refused := refusal(error)) is None:
                raise
            context.log.warning(_refusal_warning(context, CAMPAIGNS_TABLE, refused))
            yield already_logged(context)
            return
        rows, written = write_campaigns(
            later.lake(), fetched.items, fetched.bad_rows, instance_ids=configured, today=datetime.now(UTC).date()
        )
        context.log.info(f"The API lists {len(fetched.items)} of {rows.num_rows} known campaigns")
        yield table_result(
            written,
            {"preview": preview(rows.select(["campaign_id", "campaign_name", "status", "start_date"]))},
            # Without `last_seen`, which changes every day: rollups and the report would follow.
            data_version=content_hash_of(rows.drop_columns(["last_seen"])),
        )

    spec = table_spec(
        settings,
        CAMPAIGNS_TABLE,
        CAMPAIGN_COLUMNS,
        description="All campaigns that the API has ever listed: name, description, status and dates.",
        group_name="campaigns",
        tags={"later/layer": "dimension"},
        freshness_policy=settings.freshness,
    )
    return AssetStep(name=settings.op_name(CAMPAIGNS_TABLE), specs=[spec], run=run, pool=settings.pool)


def campaign_performance_step(settings: ComponentSettings) -> AssetStep:
    """Return the step of the daily performance.

    If a day fails, the others are written, and the run fails at its end. If the API refuses the route, the run logs a
    warning and writes nothing.
    """

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        _fetch_campaign_performance(context, later, settings=settings)
        yield already_logged(context)

    columns = campaign_performance_columns(settings.campaign_metrics)
    description = (
        "What campaigns spent and returned on the day, as the API totals it: one row per campaign"
        " (`dateBasis=performance_date`). Days can be summed."
    )
    return fetched_step(settings, CAMPAIGN_PERFORMANCE, columns, description=description, config=FetchConfig, run=run)


def _fetch_campaign_performance(
    context: AssetExecutionContext, later: LaterReportingResource, *, settings: ComponentSettings
) -> None:
    config = FetchConfig(**context.op_execution_context.op_config)
    fetch_run = FetchRun(context, later, CAMPAIGN_PERFORMANCE_TABLE)
    days = [Partition(day) for day in partition_first_days(context)]
    configured = later.configured_instances()

    async def fetch(client: LaterClient, emit: Emit) -> None:
        await ingest_campaign_performance(
            [partition.day for partition in fetch_run.plan(days, only_missing=config.only_missing)],
            instance_ids=configured,
            client=client,
            lake=fetch_run.lake,
            metrics=settings.campaign_metrics,
            on_result=emit,
            warn=fetch_run.warn,
            guard=later.write_guard(accept_shrinking=config.accept_shrinking),
        )

    try:
        fetch_run.run(fetch)
    except RouteRefused as refused:
        fetch_run.warn(_refusal_warning(context, CAMPAIGN_PERFORMANCE_TABLE, refused))
    if fetch_run.failed:
        for evaluation in evaluate_skipped_checks(context, later, settings):
            context.log_event(evaluation)
        raise fetch_run.failure()


def _refusal_warning(context: AssetExecutionContext, table_name: str, refused: RouteRefused) -> str:
    return (
        f"{context.asset_key.to_user_string()} was not updated, because the API refuses its route: {refused} All other"
        f" tables work without it. To request it no more, set LATER_TABLES (tables) to -{table_name}."
    )
