"""Partitions: UTC days, and the weeks and months that are rolled up from them."""

from datetime import UTC, date, datetime

import dagster as dg
from dagster import AssetExecutionContext
from dagster_shared.check import CheckError

from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.rollups.periods import Span, first_day_of

RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
PARTITION_TAG = "dagster/partition"


def partitions_of(span: Span, start_date: date) -> dg.TimeWindowPartitionsDefinition:
    """Return the UTC days from `start_date` up to yesterday, or the ISO weeks or months of these days.

    The week and the month that are under way are partitions too.
    """
    first = first_day_of(span, start_date).isoformat()
    if span is Span.DAY:
        return dg.DailyPartitionsDefinition(start_date=first, timezone="UTC")
    if span is Span.WEEK:
        return dg.WeeklyPartitionsDefinition(start_date=first, day_offset=1, timezone="UTC", end_offset=1)
    return dg.MonthlyPartitionsDefinition(start_date=first, timezone="UTC", end_offset=1)


def range_tags(start: date, end: date, *, span: Span = Span.DAY) -> dict[str, str]:
    """Return the run tags for the days `start` to `end`, inclusive, or for the weeks or months that these are in."""
    return {RANGE_START_TAG: first_day_of(span, start).isoformat(), RANGE_END_TAG: first_day_of(span, end).isoformat()}


def partition_days(context: AssetExecutionContext) -> list[date]:
    """Return the first day of each partition that the run is to fill; of daily partitions, the days themselves.

    Raises:
        Failure: the run names no partition, one that does not exist, or a day that is not over: what is written of
            that would soon be wrong.
    """
    tags = context.run.tags
    wanted = f"{tags[RANGE_START_TAG]} to {tags[RANGE_END_TAG]}" if RANGE_START_TAG in tags else tags.get(PARTITION_TAG)
    if wanted is None:
        raise dg.Failure("The run names no partition: select those to fill, or a range.", allow_retries=False)
    try:
        days = [date.fromisoformat(key) for key in context.partition_keys]
    except (CheckError, dg.DagsterError, ValueError) as error:
        # Dagster's message runs over several lines, and differs by kind of range.
        raise dg.Failure(
            f"There is no partition {wanted}: {' '.join(str(error).split())}. A partition key is a day, YYYY-MM-DD.",
            allow_retries=False,
        ) from None
    if not days:
        raise dg.Failure(f"The range {wanted} holds no partition: its end comes before its start.", allow_retries=False)
    newest = newest_day(datetime.now(UTC))
    if max(days) > newest:
        raise dg.Failure(
            f"The day {max(days)} is not over yet: the newest partition is {newest} (UTC). End the range there.",
            allow_retries=False,
        )
    return days
