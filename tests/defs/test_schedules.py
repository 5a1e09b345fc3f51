"""The daily schedule: one run for the newest days of all instances, or a reason why not."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.defs.schedules import daily_schedule, restated_days
from tests.defs.conftest import KEYS

START = date(2024, 3, 1)
SCHEDULE = daily_schedule(start_date=START, restate_days=28)


def tick(instance: dg.DagsterInstance, at: datetime) -> dg.RunRequest | dg.SkipReason:
    asked: dg.RunRequest | dg.SkipReason = SCHEDULE(
        dg.build_schedule_context(instance=instance, scheduled_execution_time=at)
    )
    return asked


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def test_one_run_covers_the_newest_days_of_all_instances(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("later_instance", KEYS)
    request = tick(instance, datetime(2024, 6, 15, 6, tzinfo=UTC))
    assert isinstance(request, dg.RunRequest)
    assert request.tags == {
        "dagster/asset_partition_range_start": f"2024-05-18|{KEYS[0]}",
        "dagster/asset_partition_range_end": f"2024-06-14|{KEYS[-1]}",
    }
    assert request.partition_key is None


def test_it_never_goes_before_the_first_partition(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("later_instance", KEYS[:1])
    request = tick(instance, datetime(2024, 3, 3, 6, tzinfo=UTC))
    assert isinstance(request, dg.RunRequest)
    assert request.tags["dagster/asset_partition_range_start"] == f"2024-03-01|{KEYS[0]}"
    assert request.tags["dagster/asset_partition_range_end"] == f"2024-03-02|{KEYS[0]}"


def test_without_instances_it_says_how_to_register_them(instance: dg.DagsterInstance) -> None:
    skipped = tick(instance, datetime(2024, 6, 15, 6, tzinfo=UTC))
    assert isinstance(skipped, dg.SkipReason)
    assert "later-reporting instances --sync" in (skipped.skip_message or "")
    assert "later_instances" in (skipped.skip_message or "")


def test_before_the_first_day_is_over_it_waits(instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("later_instance", KEYS)
    skipped = tick(instance, datetime(2024, 3, 1, 23, 59, tzinfo=UTC))
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message == "The first partition, 2024-03-01, is not over yet."


def test_it_runs_every_morning_in_utc_and_is_off_until_turned_on() -> None:
    assert (SCHEDULE.cron_schedule, SCHEDULE.execution_timezone) == ("0 6 * * *", "UTC")
    assert SCHEDULE.default_status is dg.DefaultScheduleStatus.STOPPED
    assert SCHEDULE.job_name == "later_posts"


@given(st.integers(-30, 900).map(lambda days: START + timedelta(days=days)), st.integers(0, 23), st.integers(1, 730))
def test_restated_days_end_yesterday_and_begin_no_earlier_than_the_first(
    today: date, hour: int, restate_days: int
) -> None:
    now = datetime(today.year, today.month, today.day, hour, tzinfo=UTC)
    days = restated_days(now, start_date=START, restate_days=restate_days)
    wanted = [day for day in (today - timedelta(days=age) for age in range(1, restate_days + 1)) if day >= START]
    assert days == ((wanted[-1], wanted[0]) if wanted else None)


def test_yesterday_is_that_of_utc() -> None:
    assert restated_days(datetime.fromisoformat("2024-03-05T08:00:00+09:00"), start_date=START, restate_days=1) == (
        date(2024, 3, 3),
        date(2024, 3, 3),
    )
