"""Calendar periods."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.rollups.periods import Cadence, days_of, first_day_of

DATES = st.dates(date(2000, 1, 1), date(2100, 12, 31))


@given(DATES)
def test_first_day_of_finds_the_iso_week_and_the_month_of_a_day(day: date) -> None:
    week = days_of(Cadence.WEEK, first_day_of(Cadence.WEEK, day))
    assert day in week
    assert {each.isocalendar()[:2] for each in week} == {day.isocalendar()[:2]}
    assert [each.isoweekday() for each in week] == [1, 2, 3, 4, 5, 6, 7]
    month = days_of(Cadence.MONTH, first_day_of(Cadence.MONTH, day))
    assert day in month
    assert {(each.year, each.month) for each in month} == {(day.year, day.month)}
    assert (month[-1] + timedelta(days=1)).day == 1
    assert days_of(Cadence.DAY, first_day_of(Cadence.DAY, day)) == [day]


@pytest.mark.parametrize(("period", "first_day"), [(Cadence.WEEK, date(2024, 3, 5)), (Cadence.MONTH, date(2024, 3, 2))])
def test_days_of_rejects_a_day_on_which_no_period_begins(period: Cadence, first_day: date) -> None:
    with pytest.raises(ValueError, match=f"no {period} begins on {first_day}"):
        days_of(period, first_day)
