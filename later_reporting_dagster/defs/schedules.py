"""The daily schedule: the newest day, and the days before it that Later may have restated, in one run."""

from datetime import date

import dagster as dg

from later_reporting_dagster.contract.days import newest_day, restated_days
from later_reporting_dagster.defs.jobs import posts_job
from later_reporting_dagster.defs.partitions import range_tags


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
