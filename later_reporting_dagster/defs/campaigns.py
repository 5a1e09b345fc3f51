"""The assets of campaigns: their dimension table, and their performance by UTC day, with the checks of both."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext
from pydantic import Field

from later_reporting_dagster.client import LaterClient, LaterError
from later_reporting_dagster.contract.days import due_day
from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.checks import (
    NEWEST_DUE_DAY,
    WARN,
    Check,
    CheckScope,
    build_asset_checks,
    log_check_results,
)
from later_reporting_dagster.defs.daily_fetch import DailyFetch
from later_reporting_dagster.defs.materializations import already_logged
from later_reporting_dagster.defs.metadata import (
    code_references,
    code_version,
    preview,
    table_metadata,
    written_metadata,
)
from later_reporting_dagster.defs.partitions import build_partitions_def, partition_first_days
from later_reporting_dagster.defs.posts_checks import QUARANTINE_EMPTY, evaluate_quarantine
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.ingest.campaign_performance import RouteRefused, ingest_campaign_performance, refusal
from later_reporting_dagster.ingest.dimensions import write_campaigns
from later_reporting_dagster.ingest.partition_writer import PartitionResult
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERFORMANCE,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGNS_TABLE,
    Lake,
    LakeUnavailable,
    Partition,
    campaign_performance_columns,
    content_hash_of,
)
from later_reporting_dagster.rollups.periods import Period

CAMPAIGN_TABLES = (CAMPAIGNS_TABLE, CAMPAIGN_PERFORMANCE_TABLE)
CAMPAIGNS_GROUP = "campaigns"
DUE_DAY = Check(
    name=NEWEST_DUE_DAY,
    description="The newest day that is due has a file, unless the API refuses the route.",
    severity=WARN,
    nothing="Not fetched yet",
    is_daily=True,
)


class CampaignPerformanceConfig(dg.Config):
    """Run config of a fetch; by default it fetches every selected day. A day is one file with all campaigns."""

    only_missing: bool = Field(default=False, description="Fetch only the days that have no file in the lake.")
    accept_shrinking: bool = Field(
        default=False,
        description="Also replace files that lose more campaigns than LATER_SHRINK_LIMIT_PERCENT allows, or all values"
        " of their metrics. Use it if campaigns or values were really deleted.",
    )


def campaigns_step(settings: DefinitionSettings) -> AssetStep:
    """Return the step of the dimension. If the API refuses the route, it logs a warning and writes nothing."""

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        configured = later.configured_instances()
        try:
            fetched = asyncio.run(later.fetch_campaigns(configured))
            rows, written = write_campaigns(
                later.lake(), fetched.items, fetched.bad_rows, instance_ids=configured, today=datetime.now(UTC).date()
            )
        except (LaterError, LakeUnavailable) as error:
            refused = refusal(error) if isinstance(error, LaterError) else None
            if refused is None:
                raise dg.Failure(str(error), allow_retries=False) from None
            context.log.warning(_refusal_warning(context, CAMPAIGNS_TABLE, refused))
            yield already_logged(context)
            return
        context.log.info(f"The API lists {len(fetched.items)} of {rows.num_rows} known campaigns")
        names = ["campaign_id", "campaign_name", "status", "start_date"]
        yield dg.MaterializeResult(
            # Without `last_seen`, which changes every day: rollups and the report would follow.
            data_version=dg.DataVersion(content_hash_of(rows.drop_columns(["last_seen"]))),
            metadata={**written_metadata(written, is_partition=False), "preview": preview(rows.select(names))},
        )

    key = settings.asset_key(CAMPAIGNS_TABLE)
    spec = dg.AssetSpec(
        key,
        description="All campaigns that the API has ever listed: name, description, status and dates.",
        group_name=CAMPAIGNS_GROUP,
        kinds={"parquet"},
        tags={"later/layer": "dimension"},
        metadata={**table_metadata(key, CAMPAIGN_COLUMNS), **code_references(campaigns_step)},
        code_version=code_version(CAMPAIGN_COLUMNS),
        freshness_policy=settings.freshness,
    )
    return AssetStep(name=settings.op_name(CAMPAIGNS_TABLE), specs=[spec], run=run, pool=settings.pool)


def campaign_performance_step(settings: DefinitionSettings) -> AssetStep:
    """Return the step of the daily performance. A backfill of any number of days is one run.

    If a day fails, the others are written, and the run fails at its end. If the API refuses the route, the run logs a
    warning and writes nothing.
    """

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        config = CampaignPerformanceConfig(**context.op_execution_context.op_config)
        try:
            _fetch_campaign_performance(context, config, later, settings=settings)
        except (LaterError, LakeUnavailable) as error:
            # The message is complete; a stack trace would hide it.
            raise dg.Failure(f"The fetch stopped: {error}", allow_retries=False) from None
        yield already_logged(context)

    key = settings.asset_key(CAMPAIGN_PERFORMANCE_TABLE)
    columns = campaign_performance_columns(settings.campaign_metrics)
    spec = dg.AssetSpec(
        key,
        description=(
            "What campaigns spent and returned on the day, as the API totals it: one row per campaign"
            " (`dateBasis=performance_date`). Days can be summed."
        ),
        group_name=CAMPAIGNS_GROUP,
        kinds={"parquet"},
        tags={"later/layer": "raw", "later/date_basis": "performance_date"},
        partitions_def=build_partitions_def(Period.DAY, settings.start_date),
        metadata={**table_metadata(key, columns), **code_references(campaign_performance_step)},
        code_version=code_version(columns),
        freshness_policy=settings.freshness,
    )
    return AssetStep(
        name=settings.op_name(CAMPAIGN_PERFORMANCE_TABLE),
        specs=[spec],
        run=run,
        config=CampaignPerformanceConfig,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=settings.pool,
    )


def _fetch_campaign_performance(
    context: AssetExecutionContext,
    config: CampaignPerformanceConfig,
    later: LaterReportingResource,
    *,
    settings: DefinitionSettings,
) -> None:
    """Fetch the run's days and log their materializations; only warn if the API refuses the route.

    Raises:
        Failure: a day failed, or the run selects no day that can be fetched.
        LakeUnavailable: the lake cannot be listed.
    """
    daily = DailyFetch(context, later, CAMPAIGN_PERFORMANCE)
    days = [Partition(day) for day in partition_first_days(context)]
    guard = later.write_guard(accept_shrinking=config.accept_shrinking)
    configured = later.configured_instances()

    async def fetch(client: LaterClient, emit: Callable[[PartitionResult], None]) -> None:
        await ingest_campaign_performance(
            [partition.day for partition in daily.plan(days, only_missing=config.only_missing)],
            instance_ids=configured,
            client=client,
            lake=daily.lake,
            metrics=settings.campaign_metrics,
            on_result=emit,
            warn=daily.reporter.warn,
            guard=guard,
        )

    try:
        daily.run(fetch)
    except RouteRefused as refused:
        daily.reporter.warn(_refusal_warning(context, CAMPAIGN_PERFORMANCE_TABLE, refused))
    if daily.failed:
        log_check_results(context, _evaluate_newest_due_day(daily.lake, due_hour_utc=settings.due_hour_utc))
        raise daily.failure()


def build_campaign_checks(table_name: str, settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the checks of one of the two tables."""

    def evaluate(later: LaterReportingResource, _scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()
        yield evaluate_quarantine(table_name, lake=lake)
        if table_name == CAMPAIGN_PERFORMANCE_TABLE:
            yield from _evaluate_newest_due_day(lake, due_hour_utc=settings.due_hour_utc)

    checks = [QUARANTINE_EMPTY, *([DUE_DAY] if table_name == CAMPAIGN_PERFORMANCE_TABLE else [])]
    return build_asset_checks(table_name, checks, evaluate=evaluate, settings=settings)


def _evaluate_newest_due_day(lake: Lake, *, due_hour_utc: int) -> Iterator[dg.AssetCheckResult]:
    """Evaluate whether the newest due day has a file. An account whose API refuses the route has no file of any day."""
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    days = {partition.day for partition in lake.partitions(CAMPAIGN_PERFORMANCE_TABLE)}
    yield DUE_DAY.result(
        f"{due} is missing: materialize it" if days and due not in days else "",
        otherwise=f"{due} has a file",
        looked_at={"days": len(days)},
        metadata={"due_day": str(due)},
    )


def _refusal_warning(context: AssetExecutionContext, table_name: str, refused: RouteRefused) -> str:
    return (
        f"{context.asset_key.to_user_string()} was not updated, because the API refuses its route: {refused} All other"
        f" tables work without it. To request it no more, set LATER_TABLES (tables) to -{table_name}."
    )
