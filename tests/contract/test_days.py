"""Tests of fetchable, restated and due days, at the edges of days, months and the first partition."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract.days import (
    day_ranges,
    days_between,
    expected_days,
    parse_day_ranges,
    restated_days,
)


def test_restated_days_end_with_the_newest_day_and_never_precede_the_first_partition() -> None:
    newest = date(2024, 3, 1)
    assert restated_days(newest, start_date=date(2020, 1, 1), lookback_days=2) == [date(2024, 2, 29), newest]
    assert restated_days(newest, start_date=newest, lookback_days=28) == [newest]
    assert restated_days(newest, start_date=newest + timedelta(days=1), lookback_days=28) == []


@pytest.mark.parametrize(("hour", "newest"), [(11, date(2024, 3, 1)), (12, date(2024, 3, 2))])
def test_expected_days_end_with_the_newest_due_day(hour: int, newest: date) -> None:
    now, start_date = datetime(2024, 3, 3, hour, tzinfo=UTC), date(2024, 2, 20)
    assert expected_days(now, start_date=start_date, due_hour_utc=12) == days_between(start_date, newest)
    assert expected_days(now, start_date=newest + timedelta(days=1), due_hour_utc=12) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((text, "is neither a day, YYYY-MM-DD, nor a range") for text in ("", "2024-01-01 to ", "2024-02-30")),
        *((text, "is neither a day, YYYY-MM-DD, nor a range") for text in ("2026-W01-1", "20240101", "٢٠٢٤-٠١-٠١")),
        ("x" * 1_000_000, f"^'{'x' * 30}' is neither a day"),
        ("2024-01-09 to 2024-01-05", "'2024-01-09 to 2024-01-05' ends before it starts"),
    ],
)
def test_parse_day_ranges_names_what_is_no_range(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_day_ranges(["2024-01-01", text], earliest=date.min, latest=date.max)


def test_parse_day_ranges_leaves_out_days_that_are_no_partitions() -> None:
    partitions = {"earliest": date(2024, 2, 28), "latest": date(2024, 3, 1)}
    assert parse_day_ranges(["0001-01-01 to 9999-12-31"], **partitions) == days_between(*partitions.values())
    assert parse_day_ranges(["2023-01-01", "2024-02-29", "2024-03-02 to 2024-03-05"], **partitions) == [
        date(2024, 2, 29)
    ]


@given(st.sets(st.dates(date(2023, 12, 20), date(2024, 3, 5)), max_size=30))
def test_day_ranges_name_each_day_once(days: set[date]) -> None:
    ranges = day_ranges(days)
    assert parse_day_ranges(ranges, earliest=date.min, latest=date.max) == sorted(days)
    assert len(ranges) == sum(day - timedelta(days=1) not in days for day in days)
