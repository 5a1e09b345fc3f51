"""The assets of campaigns: their dimension table, and their performance by UTC day."""

from collections.abc import Iterator
from contextlib import closing

import dagster as dg

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.defs.assets.fetched_days import FetchConfig, FetchOutcome, refusal_warning, written_days
from later_reporting_dagster.defs.checks.all_checks import evaluate_skipped_checks
from later_reporting_dagster.defs.component_base import AssetEvent, ComponentBase
from later_reporting_dagster.defs.event_loop import wait_for
from later_reporting_dagster.defs.events import day_materialization, failures, nothing_to_log, preview, table_result
from later_reporting_dagster.defs.partitions import build_partitions_def, partition_first_days
from later_reporting_dagster.ingest.campaign_performance import refusal
from later_reporting_dagster.ingest.campaigns import write_campaigns
from later_reporting_dagster.ingest.fetch_days import DayFetch, files_of_day
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGNS_TABLE,
    campaign_performance_columns,
)
from later_reporting_dagster.lake.parquet_file import content_hash_of
from later_reporting_dagster.lake.tables import CAMPAIGN_PERFORMANCE
from later_reporting_dagster.rollups.rollup_tables import Cadence


def campaigns_asset(component: ComponentBase) -> dg.AssetsDefinition:
    """Return the dimension of campaigns. If the API refuses the route, it logs a warning and writes nothing."""

    @dg.multi_asset(
        name=component.op_name(CAMPAIGNS_TABLE),
        specs=[
            component.table_spec(
                CAMPAIGNS_TABLE,
                CAMPAIGN_COLUMNS,
                description="All campaigns that the API has ever listed: name, description, status and dates.",
                group_name="campaigns",
                tags={"later/layer": "dimension"},
                freshness_policy=component.freshness,
            )
        ],
        pool=component.pool,
        required_resource_keys={component.resource_key},
    )
    def campaigns(context: dg.AssetExecutionContext) -> Iterator[AssetEvent]:
        yield from component.execute(context, list_campaigns(context, component))

    return campaigns


def list_campaigns(context: dg.AssetExecutionContext, component: ComponentBase) -> Iterator[AssetEvent]:
    """Fetch the list of campaigns, and update the dimension."""
    later = component.later(context)
    with failures():
        configured = later.configured_instances()
        try:
            listed = wait_for(lambda: later.fetch_campaigns(configured))
        except LaterError as error:
            if (refused := refusal(error)) is None:
                raise
            context.log.warning(refusal_warning(context, refused))
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


def campaign_performance_asset(component: ComponentBase) -> dg.AssetsDefinition:
    """Return the performance of campaigns by day. A backfill of any number of days is one run.

    If a day fails, the others are written, and the run fails at its end. If the API refuses the route, the run logs a
    warning and writes nothing.
    """

    @dg.multi_asset(
        name=component.op_name(CAMPAIGN_PERFORMANCE_TABLE),
        specs=[
            component.table_spec(
                CAMPAIGN_PERFORMANCE_TABLE,
                campaign_performance_columns(component.campaign_metrics),
                description=(
                    "What campaigns spent and returned on the day, as the API totals it: one row per campaign"
                    " (`dateBasis=performance_date`). Days can be summed."
                ),
                group_name="campaigns",
                tags={"later/layer": "raw", "later/date_basis": str(CAMPAIGN_PERFORMANCE.date_basis)},
                partitions_def=build_partitions_def(Cadence.DAY, component.start_date),
                freshness_policy=component.freshness,
            )
        ],
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=component.pool,
        required_resource_keys={component.resource_key},
    )
    def campaign_performance(context: dg.AssetExecutionContext, config: FetchConfig) -> Iterator[AssetEvent]:
        yield from component.execute(context, fetch_campaign_performance(context, config, component))

    return campaign_performance


def fetch_campaign_performance(
    context: dg.AssetExecutionContext, config: FetchConfig, component: ComponentBase
) -> Iterator[AssetEvent]:
    """Fetch the run's days, and yield their materializations; if a day failed, also its checks."""
    later = component.later(context)
    with failures():
        lake = later.lake()
        fetch = DayFetch(
            table=CAMPAIGN_PERFORMANCE,
            days=partition_first_days(context, now=component.now()),
            instance_ids=later.configured_instances(),
            only_missing=config.only_missing,
            metrics=component.campaign_metrics,
            guard=later.write_guard(accept_shrinking=config.accept_shrinking),
        )
        outcome = FetchOutcome()
        with closing(written_days(context, component, fetch, outcome)) as fetched:
            for day in fetched:
                yield day_materialization(context, day, files=files_of_day(day, CAMPAIGN_PERFORMANCE, lake), lake=lake)
        if outcome.failed:
            yield from evaluate_skipped_checks(context, later, component)
            raise outcome.failure()
        yield nothing_to_log(context)
