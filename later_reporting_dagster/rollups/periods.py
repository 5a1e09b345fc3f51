"""Dates of the rollups: calendar periods (day, week, month) and rolling windows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum


class Period(StrEnum):
    """The time that one file of a rollup table covers. A week is an ISO week: Monday to Sunday.

    `WINDOWS` and `POSTS` have one file: of rolling windows, and of the posts of the last year.
    """

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    WINDOWS = "windows"
    POSTS = "posts"


# Window name -> its length in days; None: all days that have a file.
WINDOWS: Mapping[str, int | None] = {"7d": 7, "28d": 28, "90d": 90, "365d": 365, "all": None}


@dataclass(frozen=True, slots=True)
class DateRange:
    """The days from `first` to `last`, both inclusive."""

    first: date
    last: date

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=number) for number in range(len(self)))

    def __contains__(self, day: object) -> bool:
        return isinstance(day, date) and self.first <= day <= self.last


def days_of(period: Period, first_day: date) -> DateRange:
    """Return the days of the period that begins on `first_day`.

    Raises:
        ValueError: no such period begins on that day; or `period` is WINDOWS: window tables have no partitions.
    """
    if period is Period.DAY:
        return DateRange(first_day, first_day)
    if period is Period.WEEK and first_day.isoweekday() == 1:
        return DateRange(first_day, first_day + timedelta(days=6))
    if period is Period.MONTH and first_day.day == 1:
        next_month = first_day_of(Period.MONTH, first_day + timedelta(days=31))
        return DateRange(first_day, next_month - timedelta(days=1))
    raise ValueError(f"no {period} begins on {first_day}")


def first_day_of(period: Period, day: date) -> date:
    """Return the first day of the week or month that contains `day`; for days, `day` itself."""
    if period is Period.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period is Period.MONTH else day
