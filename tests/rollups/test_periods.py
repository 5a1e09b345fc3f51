from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.rollups.periods import WINDOWS, Days, Span, days_of, first_day_of, previous_of, windows_of

DATES = st.dates(date(2000, 1, 1), date(2100, 12, 31))


@given(DATES)
def test_each_day_is_in_one_iso_week_and_one_month(day: date) -> None:
    week = days_of(Span.WEEK, first_day_of(Span.WEEK, day))
    assert day in week
    assert {each.isocalendar()[:2] for each in week} == {day.isocalendar()[:2]}
    assert [each.isoweekday() for each in week] == [1, 2, 3, 4, 5, 6, 7]
    month = days_of(Span.MONTH, first_day_of(Span.MONTH, day))
    assert day in month
    assert {(each.year, each.month) for each in month} == {(day.year, day.month)}
    assert (month.last + timedelta(days=1)).day == 1
    assert days_of(Span.DAY, first_day_of(Span.DAY, day)) == Days(day, day)


@pytest.mark.parametrize(
    ("span", "first"), [(Span.WEEK, date(2024, 3, 5)), (Span.MONTH, date(2024, 3, 2)), (Span.WINDOWS, date(2024, 3, 4))]
)
def test_a_span_begins_on_its_own_days_only(span: Span, first: date) -> None:
    with pytest.raises(ValueError, match=f"no {span} begins on {first}"):
        days_of(span, first)


@given(st.sets(DATES, min_size=1, max_size=5))
def test_windows_end_with_the_newest_day_and_have_their_length(landed: set[date]) -> None:
    windows = windows_of(landed)
    assert windows.keys() == WINDOWS.keys()
    assert {days.last for days in windows.values()} == {max(landed)}
    assert {name: len(days) for name, days in windows.items() if name != "all"} == {
        f"{length}d": length for length in (7, 28, 90, 365)
    }
    assert windows["all"] == Days(min(landed), max(landed))


def test_nothing_landed_has_no_windows() -> None:
    assert windows_of([]) == {}


@given(DATES)
def test_the_period_before_has_as_many_days_and_ends_the_day_before(day: date) -> None:
    for name, days in windows_of([day]).items():
        before = previous_of(name, days)
        if name == "all":
            assert before is None
        else:
            assert before is not None
            assert len(before) == len(days)
            assert before.last + timedelta(days=1) == days.first


def test_days_are_inclusive_and_hold_days_only() -> None:
    days = Days(date(2024, 2, 28), date(2024, 3, 1))
    assert [*days] == [date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]
    assert date(2024, 3, 1) in days
    assert date(2024, 3, 2) not in days
    assert "2024-03-01" not in days
