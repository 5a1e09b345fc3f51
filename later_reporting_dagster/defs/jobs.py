"""The job that fetches posts with its daily schedule, and the job that evaluates all checks."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg

from later_reporting_dagster.contract.days import newest_day, restated_days
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.ingest.raw_tables import RAW_TABLES

POSTS_JOB = "later_posts"
CHECKS_JOB = "later_checks"

# In process: its one or two steps wait for the network, and a process per step would only cost time.
# Without checks: Dagster would plan a step per check and partition, and then skip it. The assets log their results.
posts_job = dg.define_asset_job(
    POSTS_JOB,
    selection=dg.AssetSelection.assets(
        *(dg.AssetKey(["later", raw_table.name]) for raw_table in RAW_TABLES)
    ).without_checks(),
    executor_def=dg.in_process_executor,
    description="Fetches both raw tables for a range of days.",
)


def posts_run_config(**config: Any) -> dict[str, Any]:
    """Return run config for `later_posts` that sets these fields of `PostsConfig` for both raw assets."""
    return {"ops": {f"later__{raw_table.name}": {"config": config} for raw_table in RAW_TABLES}}


def build_daily_schedule(*, start_date: date, restate_days: int) -> dg.ScheduleDefinition:
    """Return the schedule: one run a day of `later_posts` over the last `restate_days` days."""

    @dg.schedule(
        name="later_posts_daily",
        job=posts_job,
        cron_schedule="0 6 * * *",
        execution_timezone="UTC",
        description=(
            f"Fetches the last {restate_days} days of all instances in one run. Files are only written, and rollups"
            " only updated, if posts have changed."
        ),
    )
    def later_posts_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        newest = newest_day(context.scheduled_execution_time)
        days = restated_days(newest, start_date=start_date, restate_days=restate_days)
        if not days:
            return dg.SkipReason(f"The first partition, {start_date}, is not over yet.")
        return dg.RunRequest(tags=range_tags(days[0], days[-1]))

    return later_posts_daily


def build_checks_job(keys: Sequence[dg.AssetKey]) -> Any:
    """Return the job that evaluates all checks of these assets over all of their partitions."""
    return dg.define_asset_job(
        CHECKS_JOB,
        selection=dg.AssetSelection.checks_for_assets(*keys),
        executor_def=dg.in_process_executor,
        description="Evaluates all asset checks over the whole lake.",
    )
