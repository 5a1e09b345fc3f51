"""Dates of the rollups: calendar periods (day, week, month) and rolling windows."""

from collections.abc import Mapping
from datetime import date, timedelta
from enum import StrEnum


class Cadence(StrEnum):
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


def days_of(period: Cadence, first_day: date) -> list[date]:
    """Return the days of the day, week or month that begins on `first_day`; raise `ValueError` if none does."""
    if first_day_of(period, first_day) != first_day:
        raise ValueError(f"no {period} begins on {first_day}")
    days = (first_day + timedelta(days=number) for number in range(31))
    return [day for day in days if first_day_of(period, day) == first_day]


def first_day_of(period: Cadence, day: date) -> date:
    """Return the first day of the week or month that contains `day`; for days, `day` itself."""
    if period is Cadence.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period is Cadence.MONTH else day
