"""Which UTC days can be fetched, are restated, and are due (docs/api.md, "Freshness")."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

# A time that is further in the future is that of a clock that was wrong: it says nothing.
MAX_CLOCK_ERROR = timedelta(hours=1)


def utc_now() -> datetime:
    return datetime.now(UTC)


def newest_day(now: datetime) -> date:
    """Return the newest complete UTC day, which is the last partition: yesterday."""
    return now.astimezone(UTC).date() - timedelta(days=1)


def due_day(now: datetime, *, due_hour_utc: int) -> date:
    """Return the newest day that has to be in the lake: yesterday; until `due_hour_utc`, the day before yesterday."""
    newest = newest_day(now)
    return newest if now.astimezone(UTC).hour >= due_hour_utc else newest - timedelta(days=1)


def restated_days(newest: date, *, start_date: date, lookback_days: int) -> list[date]:
    """Return the last `lookback_days` days up to `newest`, without days before `start_date`."""
    first = max(start_date, newest - timedelta(days=lookback_days - 1))
    return days_between(first, newest)


def refetch_ages(lookback_days: int, factor: float, *, oldest: int) -> list[int]:
    """Return the ages up to `oldest`, in days, at which a day is fetched again once it is no longer restated daily.

    The first is the age of the last daily fetch, which a missed run may have left out.
    """
    ages = [lookback_days]
    while ages[-1] <= oldest:
        ages.append(max(round(ages[-1] * factor), ages[-1] + 1))
    return ages[:-1]


def due_since(day: date, *, today: date, ages: Sequence[int]) -> date | None:
    """Return when a day has reached the newest of the ages that it has reached; None if it has reached none."""
    return max((day + timedelta(days=age) for age in ages if day + timedelta(days=age) <= today), default=None)


def days_between(first: date, last: date) -> list[date]:
    """Return the days from `first` to `last`, both inclusive; an empty list if `last` is before `first`."""
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]


def expected_days(now: datetime, *, start_date: date, due_hour_utc: int) -> list[date]:
    """Return the days that have to be in the lake: every day from the start date to the newest due day."""
    return days_between(start_date, due_day(now, due_hour_utc=due_hour_utc))


def contiguous_ranges(days: Iterable[date]) -> list[tuple[date, date]]:
    ranges: list[tuple[date, date]] = []
    for day in sorted(days):
        if ranges and day == ranges[-1][1] + timedelta(days=1):
            ranges[-1] = ranges[-1][0], day
        else:
            ranges.append((day, day))
    return ranges


def day_ranges(days: Iterable[date]) -> list[str]:
    """Format days compactly: `2024-01-03`, or `2024-01-05 to 2024-01-09` for contiguous days."""
    return [str(first) if first == last else f"{first} to {last}" for first, last in contiguous_ranges(days)]


def parse_day_ranges(ranges: Iterable[str], *, earliest: date, latest: date) -> list[date]:
    """Return the days of ranges in the format of `day_ranges`, without days before `earliest` or after `latest`."""
    days: list[date] = []
    for text in ranges:
        first_day, separator, last_day = text.partition(" to ")
        try:
            first, last = _parse_day(first_day), _parse_day(last_day if separator else first_day)
        except ValueError:
            raise ValueError(
                f"{text[:30]!r} is neither a day, YYYY-MM-DD, nor a range, YYYY-MM-DD to YYYY-MM-DD"
            ) from None
        if last < first:
            raise ValueError(f"{text!r} ends before it starts")
        days += days_between(max(first, earliest), min(last, latest))
    return days


def _parse_day(text: str) -> date:
    day = date.fromisoformat(text)
    if str(day) != text:  # such as 20240103, or 2024-W01-3
        raise ValueError
    return day
