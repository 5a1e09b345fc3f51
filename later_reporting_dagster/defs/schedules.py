"""The daily schedule: the newest day, and the days before it that Later may have restated, in one run."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg

from later_reporting_dagster.defs.jobs import posts_job
from later_reporting_dagster.defs.partitions import box_tags, registered_keys


def restated_days(now: datetime, *, start_date: date, restate_days: int) -> tuple[date, date] | None:
    """First and last of the `restate_days` days up to yesterday, from `start_date` on; None before there are any."""
    yesterday = now.astimezone(UTC).date() - timedelta(days=1)
    if yesterday < start_date:
        return None
    return max(start_date, yesterday - timedelta(days=restate_days - 1)), yesterday


def daily_schedule(*, start_date: date, restate_days: int) -> dg.ScheduleDefinition:
    """One run a day for both raw tables: the last `restate_days` days × all registered instances."""

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
        instance_keys = registered_keys(context.instance)
        if not instance_keys:
            return dg.SkipReason(
                "No instance is registered: run `later-reporting instances --sync`,"
                " or turn on the later_instances sensor."
            )
        days = restated_days(context.scheduled_execution_time, start_date=start_date, restate_days=restate_days)
        if days is None:
            return dg.SkipReason(f"The first partition, {start_date}, is not over yet.")
        return dg.RunRequest(tags=box_tags(*days, instance_keys))

    return later_posts_daily
