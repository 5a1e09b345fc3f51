"""Partitions: UTC days, and the ISO weeks and calendar months of the rollups."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.rollups.rollup_tables import Cadence, first_day_of

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
PARTITION_TAG = "dagster/partition"


def build_partitions_def(period: Cadence, start_date: date) -> dg.TimeWindowPartitionsDefinition:
    """Return the UTC days from `start_date` to yesterday, or the ISO weeks or calendar months that contain them.

    The current week and current month are also partitions, even on their first day, when none of their days is over.
    """
    first = first_day_of(period, start_date).isoformat()
    if period is Cadence.DAY:
        return dg.DailyPartitionsDefinition(start_date=first, timezone="UTC")
    if period is Cadence.WEEK:
        return dg.WeeklyPartitionsDefinition(start_date=first, day_offset=1, timezone="UTC", end_offset=1)
    return dg.MonthlyPartitionsDefinition(start_date=first, timezone="UTC", end_offset=1)


def range_tags(start: date, end: date, *, period: Cadence = Cadence.DAY) -> dict[str, str]:
    """Return the run tags that select the days `start` to `end`, inclusive, or their weeks or months."""
    first, last = first_day_of(period, start), first_day_of(period, end)
    return {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}


def selected_range(tags: Mapping[str, str]) -> tuple[date, date] | None:
    """Return the first and last day that the tags of a run select; None if they select none."""
    first, last = tags.get(RANGE_START_TAG), tags.get(RANGE_END_TAG)
    try:
        if first and last:
            return date.fromisoformat(first), date.fromisoformat(last)
        day = date.fromisoformat(tags[PARTITION_TAG])
    except (KeyError, ValueError):
        return None
    return day, day


def partition_first_days(context: AssetExecutionContext, *, now: datetime, period: Cadence = Cadence.DAY) -> list[date]:
    """Return the first day of each partition of the run. A run of none, or of one that is not over, fails."""
    is_partitioned = context.has_partition_key or context.has_partition_key_range
    first_days = [date.fromisoformat(key) for key in context.partition_keys] if is_partitioned else []
    if not first_days:
        advice = "select one, or a range that does not end before it starts"
        raise dg.Failure(f"The run selects no partition: {advice}.", allow_retries=False)
    # Dagster accepts ranges that end in the future.
    yesterday = newest_day(now)
    newest = yesterday if period is Cadence.DAY else first_day_of(period, yesterday + timedelta(days=1))
    if max(first_days) > newest:
        raise dg.Failure(
            f"There is no partition {max(first_days)} yet: the newest is {newest} (UTC). Select nothing later.",
            allow_retries=False,
        )
    return first_days
