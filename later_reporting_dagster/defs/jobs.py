"""The job that fetches posts and campaigns with its daily schedule, and the job that evaluates all checks."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from later_reporting_dagster.contract.days import day_ranges, newest_day, restated_days
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE
from later_reporting_dagster.lake.tables import RAW_TABLES


def build_posts_job(settings: DefinitionSettings) -> Any:
    """Return the job that fetches the raw tables and the campaigns, and checks them.

    It runs in process: its steps wait for the network or take a moment, and a process per step would only cost time.
    """
    return dg.define_asset_job(
        posts_job_name(settings),
        selection=dg.AssetSelection.assets(*(settings.asset_key(name) for name in settings.fetched_tables)),
        executor_def=dg.in_process_executor,
        description="Fetches the raw tables and the campaigns for a range of days.",
    )


def posts_job_name(settings: DefinitionSettings) -> str:
    """Return the name of the job that fetches the raw tables and the campaigns."""
    return f"{settings.name}_posts"


def missing_files_request(
    settings: DefinitionSettings, days: Mapping[str, Sequence[date]], *, with_campaigns: bool
) -> dg.RunRequest:
    """Return the request of a run of the posts job that fetches missing files.

    It has no run key: Dagster runs each key once, so a file that is lost twice would not be fetched.

    Args:
        settings: the settings of the component.
        days: the days to fetch of each instance; at least one.
        with_campaigns: whether to replace the days of campaign performance that have a file.
    """
    pairs = {name: day_ranges(of_instance) for name, of_instance in days.items()}
    configs: dict[str, dict[str, Any]] = {
        **{raw_table.name: {"pairs": pairs, "only_missing": True} for raw_table in RAW_TABLES},
        CAMPAIGN_PERFORMANCE_TABLE: {"only_missing": not with_campaigns},
    }
    every_day = [day for of_instance in days.values() for day in of_instance]
    return dg.RunRequest(
        tags=range_tags(min(every_day), max(every_day)),
        run_config={
            "ops": {
                settings.op_name(name): {"config": configs[name]} for name in settings.fetched_tables if name in configs
            }
        },
    )


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
