"""The assets of campaigns: their dimension table, and their performance by UTC day, with the checks of both."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext
from pydantic import Field

from later_reporting_dagster.client import LaterError
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
from later_reporting_dagster.defs.materializations import already_logged, combined_failure, log_materialization
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
from later_reporting_dagster.ingest.background_stream import stream
from later_reporting_dagster.ingest.campaign_dimension import write_campaigns
from later_reporting_dagster.ingest.campaign_performance import RouteRefused, ingest_campaign_performance, refusal
from later_reporting_dagster.ingest.daily_fetch import diff_metadata
from later_reporting_dagster.ingest.partition_writer import PartitionResult, WrittenPartition
from later_reporting_dagster.ingest.progress import Progress, ProgressReporter
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGNS_TABLE,
    Lake,
    LakeUnavailable,
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
            _CampaignPerformanceFetch(context, config, later, settings).run()
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


class _CampaignPerformanceFetch:
    """One run of the daily performance: fetches its days, and logs each as soon as it is written."""

    def __init__(
        self,
        context: AssetExecutionContext,
        config: CampaignPerformanceConfig,
        later: LaterReportingResource,
        settings: DefinitionSettings,
    ) -> None:
        self._context = context
        self._config = config
        self._later = later
        self._settings = settings
        self._lake = later.lake()
        self._progress = Progress(CAMPAIGN_PERFORMANCE_TABLE)
        self._reporter = ProgressReporter(self._progress, log=context.log.info, warn=context.log.warning)
        self._failed: dict[str, str] = {}

    def run(self) -> None:
        """Fetch the run's days and log their materializations; only warn if the API refuses the route.

        Raises:
            Failure: a day failed, or the run selects no day that can be fetched.
            LakeUnavailable: the lake cannot be listed.
        """
        days = partition_first_days(self._context)
        if self._config.only_missing:
            present = {partition.day for partition in self._lake.partitions(CAMPAIGN_PERFORMANCE_TABLE, days=days)}
            days = [day for day in days if day not in present]
        self._progress.partitions = len(days)
        if days:
            self._context.log.info(f"Fetching campaigns of {len(days)} days, {days[0]} to {days[-1]}")
            try:
                for result in self._results(days):
                    self._record(result)
            except RouteRefused as refused:
                self._reporter.warn(_refusal_warning(self._context, CAMPAIGN_PERFORMANCE_TABLE, refused))
        if self._failed:
            log_check_results(
                self._context, _evaluate_newest_due_day(self._lake, due_hour_utc=self._settings.due_hour_utc)
            )
            raise combined_failure(self._failed, what="day", written=self._progress.written)

    def _results(self, days: Sequence[date]) -> Iterator[PartitionResult]:
        """Fetch in a background thread; yield the result of each day."""
        client = self._later.client(on_event=self._reporter.on_event)
        guard = self._later.write_guard(accept_shrinking=self._config.accept_shrinking)
        configured = self._later.configured_instances()

        async def fetch(emit: Callable[[PartitionResult], None]) -> None:
            async with client:
                await ingest_campaign_performance(
                    days,
                    instance_ids=configured,
                    client=client,
                    lake=self._lake,
                    metrics=self._settings.campaign_metrics,
                    on_result=emit,
                    warn=self._reporter.warn,
                    guard=guard,
                )

        yield from stream(fetch)

    def _record(self, result: PartitionResult) -> None:
        day = result.partition.day
        if not isinstance(result, WrittenPartition):
            self._failed[str(day)] = str(result.error)
            self._reporter.partition_failed()
            return
        self._reporter.partition_written(rows=result.file.rows)
        log_materialization(
            self._context,
            day,
            data_version=result.file.content_hash,
            metadata={
                **written_metadata(result.file),
                **({"bad_rows": result.bad_rows} if result.bad_rows else {}),
                **({} if result.diff is None else diff_metadata(result.diff)),
                "preview": preview(result.rows.drop_columns(["extra"])),
            },
        )


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
