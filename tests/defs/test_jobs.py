"""The daily schedule: one run for the newest days, or a skip reason."""

from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract.days import newest_day, restated_days
from later_reporting_dagster.defs.jobs import build_daily_schedule, build_posts_job
from later_reporting_dagster.defs.settings import DefinitionSettings

START = date(2024, 3, 1)
SETTINGS = DefinitionSettings(start_date=START)
SCHEDULE = build_daily_schedule(SETTINGS, build_posts_job(SETTINGS))


def tick(at: datetime) -> dg.RunRequest | dg.SkipReason:
    result: dg.RunRequest | dg.SkipReason = SCHEDULE(dg.build_schedule_context(scheduled_execution_time=at))
    return result


@pytest.mark.parametrize(
    ("at", "first", "last"),
    [
        (datetime(2024, 6, 15, 6, tzinfo=UTC), "2024-05-18", "2024-06-14"),
        (datetime(2024, 3, 3, 6, tzinfo=UTC), "2024-03-01", "2024-03-02"),  # not before the first partition
    ],
)
def test_schedule_requests_one_run_of_the_newest_days(at: datetime, first: str, last: str) -> None:
    request = tick(at)
    assert isinstance(request, dg.RunRequest)
    assert request.tags == {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    assert (request.partition_key, request.run_key, request.run_config) == (None, None, {})


def test_schedule_skips_before_the_first_day_is_over() -> None:
    skipped = tick(datetime(2024, 3, 1, 23, 59, tzinfo=UTC))
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "The first partition, 2024-03-01, is not over yet."


def test_schedule_is_daily_and_stopped_by_default() -> None:
    assert (SCHEDULE.cron_schedule, SCHEDULE.execution_timezone) == ("0 6 * * *", "UTC")
    assert SCHEDULE.default_status is dg.DefaultScheduleStatus.STOPPED
    assert SCHEDULE.job_name == "later_posts"


@given(st.integers(-30, 900).map(lambda days: START + timedelta(days=days)), st.integers(0, 23), st.integers(1, 730))
def test_restated_days_end_yesterday_and_respect_the_start_date(today: date, hour: int, restate_days: int) -> None:
    newest = newest_day(datetime(today.year, today.month, today.day, hour, tzinfo=UTC))
    expected = [day for day in (today - timedelta(days=age) for age in range(1, restate_days + 1)) if day >= START]
    assert restated_days(newest, start_date=START, restate_days=restate_days) == expected[::-1]
