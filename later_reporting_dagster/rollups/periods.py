"""Spans of time that posts are rolled up over: weeks, months, and windows up to the newest day that is there."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum


class Span(StrEnum):
    """What one file of a rolled-up table spans. A week is an ISO week: it begins on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    WINDOWS = "windows"


# How many days each window has; None: all that are there.
WINDOWS: Mapping[str, int | None] = {"7d": 7, "28d": 28, "90d": 90, "365d": 365, "all": None}


@dataclass(frozen=True, slots=True)
class Days:
    """The days `first` to `last`, both inclusive."""

    first: date
    last: date

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def __iter__(self) -> Iterator[date]:
        return (self.first + timedelta(days=number) for number in range(len(self)))

    def __contains__(self, day: object) -> bool:
        return isinstance(day, date) and self.first <= day <= self.last


def days_of(span: Span, first: date) -> Days:
    """The days of the span that begins on `first`.

    Raises:
        ValueError: none of this kind begins on that day, or windows are asked for, which have no partition.
    """
    if span is Span.DAY:
        return Days(first, first)
    if span is Span.WEEK and first.isoweekday() == 1:
        return Days(first, first + timedelta(days=6))
    if span is Span.MONTH and first.day == 1:
        return Days(first, first_day_of(Span.MONTH, first + timedelta(days=31)) - timedelta(days=1))
    raise ValueError(f"no {span} begins on {first}")


def first_day_of(span: Span, day: date) -> date:
    """The first day of the week or month that `day` is in; of days, the day."""
    if span is Span.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if span is Span.MONTH else day


def windows_of(landed: Collection[date]) -> dict[str, Days]:
    """The windows by name, as of the newest of the days that are there. None, when there are no days.

    A window of a number of days has just as many, whether all of them are there or not.
    """
    if not landed:
        return {}
    oldest, newest = min(landed), max(landed)
    return {
        name: Days(oldest if days is None else newest - timedelta(days=days - 1), newest)
        for name, days in WINDOWS.items()
    }


def previous_of(window: str, days: Days) -> Days | None:
    """As many days before a window's days; None for the one of all days, before which there is nothing."""
    if WINDOWS[window] is None:
        return None
    return Days(days.first - timedelta(days=len(days)), days.first - timedelta(days=1))
