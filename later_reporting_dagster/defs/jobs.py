"""The job that fetches posts with its daily schedule, and the job that evaluates all checks."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from later_reporting_dagster.contract.days import newest_day, restated_days
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.ingest.raw_tables import RAW_TABLES


def build_posts_job(settings: DefinitionSettings) -> Any:
    """Return the job that fetches the raw tables.

    It runs in process: its one or two steps wait for the network, and a process per step would only cost time. It has
    no checks: Dagster would plan a step per check and partition, and then skip it. The assets log their results.
    """
    return dg.define_asset_job(
        f"{settings.name}_posts",
        selection=dg.AssetSelection.assets(
            *(settings.asset_key(name) for name in _raw_names(settings))
        ).without_checks(),
        executor_def=dg.in_process_executor,
        description="Fetches the raw tables for a range of days.",
    )


def posts_run_config(settings: DefinitionSettings, **config: Any) -> dict[str, Any]:
    """Return run config for the posts job that sets these fields of `PostsConfig` for all raw assets."""
    return {"ops": {settings.op_name(name): {"config": config} for name in _raw_names(settings)}}


def build_daily_schedule(settings: DefinitionSettings, posts_job: Any) -> dg.ScheduleDefinition:
    """Return the schedule: one run a day of the posts job over the last `restate_days` days."""

    @dg.schedule(
        name=f"{settings.name}_posts_daily",
        job=posts_job,
        cron_schedule="0 6 * * *",
        execution_timezone="UTC",
        description=(
            f"Fetches the last {settings.restate_days} days of all instances in one run. Files are only written, and"
            " rollups only updated, if posts have changed."
        ),
    )
    def posts_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        newest = newest_day(context.scheduled_execution_time)
        days = restated_days(newest, start_date=settings.start_date, restate_days=settings.restate_days)
        if not days:
            return dg.SkipReason(f"The first partition, {settings.start_date}, is not over yet.")
        return dg.RunRequest(tags=range_tags(days[0], days[-1]))

    return posts_daily


def checks_job_name(settings: DefinitionSettings) -> str:
    """Return the name of the job that evaluates all checks."""
    return f"{settings.name}_checks"


def build_checks_job(settings: DefinitionSettings, keys: Sequence[dg.AssetKey]) -> Any:
    """Return the job that evaluates all checks of these assets over all of their partitions."""
    return dg.define_asset_job(
        checks_job_name(settings),
        selection=dg.AssetSelection.checks_for_assets(*keys),
        executor_def=dg.in_process_executor,
        description="Evaluates all asset checks over the whole lake.",
    )


def _raw_names(settings: DefinitionSettings) -> list[str]:
    return [raw_table.name for raw_table in RAW_TABLES if raw_table.name in settings.tables]
