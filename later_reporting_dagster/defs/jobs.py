"""Jobs: what the schedule and the sensor launch, with the schedule, and all checks together."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import dagster as dg

from later_reporting_dagster.contract.days import newest_day, restated_days
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.ingest.raw_tables import SOURCES

POSTS_JOB = "later_posts"
CHECKS_JOB = "later_checks"

# A run is one or two steps that wait for the network: a process for each would only cost its start. Without the steps
# of the checks, which Dagster would plan for every partition and then skip: the assets log their own results.
posts_job = dg.define_asset_job(
    POSTS_JOB,
    selection=dg.AssetSelection.assets(*(dg.AssetKey(["later", source.asset]) for source in SOURCES)).without_checks(),
    executor_def=dg.in_process_executor,
    description="Fetches both raw tables for a range of days.",
)


def daily_schedule(*, start_date: date, restate_days: int) -> dg.ScheduleDefinition:
    """Return the schedule: one run a day for both raw tables, over the last `restate_days` days."""

    @dg.schedule(
        name="later_posts_daily",
        job=posts_job,
        cron_schedule="0 6 * * *",
        execution_timezone="UTC",
        description=(
            f"Fetches the last {restate_days} days of all instances in one run. What did not change is not written"
            " again, and rolls nothing up."
        ),
    )
    def later_posts_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        newest = newest_day(context.scheduled_execution_time)
        days = restated_days(newest, start_date=start_date, restate_days=restate_days)
        if not days:
            return dg.SkipReason(f"The first partition, {start_date}, is not over yet.")
        return dg.RunRequest(tags=range_tags(days[0], days[-1]))

    return later_posts_daily


def checks_job(keys: Sequence[dg.AssetKey]) -> Any:
    """Return the job that evaluates all checks of these assets over all that lies in the lake."""
    return dg.define_asset_job(
        CHECKS_JOB,
        selection=dg.AssetSelection.checks_for_assets(*keys),
        executor_def=dg.in_process_executor,
        description="Evaluates all asset checks over all that lies in the lake.",
    )


def posts_config(**config: Any) -> dict[str, Any]:
    """Return the run config of `later_posts` that gives both raw assets these fields of `PostsConfig`."""
    return {"ops": {f"later__{source.asset}": {"config": config} for source in SOURCES}}
