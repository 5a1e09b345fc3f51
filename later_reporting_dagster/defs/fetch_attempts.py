"""Which missing (day, instance) pairs the sensor requests now, and its cursor: what it has requested before."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, timedelta
from itertools import groupby

import msgspec

from later_reporting_dagster.contract.days import contiguous_ranges, days_between

# The longest wait between two requests of a pair.
MAX_WAIT_DAYS = 32
# Beyond this number of ranges, the cursor keeps one range for each instance, and a run fetches no more than these.
MAX_RANGES = 2_000


class Attempt(msgspec.Struct, frozen=True):
    """Days of an instance that were requested together.

    Attributes:
        instance_id: the instance.
        first: the first day.
        last: the last day.
        requests: how often they were requested.
        requested_on: the UTC day of the last request.
    """

    instance_id: str
    first: date
    last: date
    requests: int
    requested_on: date

    def is_due(self, today: date) -> bool:
        """Return whether to request the days again: after 1 day, then after 2, 4, 8, up to `MAX_WAIT_DAYS`."""
        return today >= self.requested_on + timedelta(days=min(2 ** (self.requests - 1), MAX_WAIT_DAYS))


class Cursor(msgspec.Struct, frozen=True):
    """The state of the sensor.

    Attributes:
        instances: the instances whose history was requested or is complete.
        attempts: what was requested and is still missing.
    """

    instances: list[str] = []
    attempts: list[Attempt] = []


def parse_cursor(text: str | None) -> Cursor:
    """Return the cursor in a text; an empty one if it is not a cursor, because it can be edited in the UI."""
    try:
        return msgspec.json.decode(text or "{}", type=Cursor)
    except msgspec.MsgspecError:
        return Cursor()


def pairs_to_request(
    missing: Mapping[str, Collection[date]], cursor: Cursor, *, days_in_progress: Collection[date], today: date
) -> dict[str, list[date]]:
    """Return the days to request of each instance, at most `MAX_RANGES` ranges.

    Args:
        missing: the missing days by instance.
        cursor: what was requested before.
        days_in_progress: the days that a run is fetching now.
        today: the UTC day of this tick.
    """
    waiting: dict[str, list[Attempt]] = {}
    for attempt in cursor.attempts:
        if not attempt.is_due(today):
            waiting.setdefault(attempt.instance_id, []).append(attempt)
    requested: dict[str, list[date]] = {}
    remaining = MAX_RANGES
    for name, days in missing.items():
        waits = waiting.get(name, ())
        due = [
            day
            for day in days
            if day not in days_in_progress and not any(each.first <= day <= each.last for each in waits)
        ]
        ranges = contiguous_ranges(due)[:remaining]
        remaining -= len(ranges)
        if ranges:
            requested[name] = [day for first, last in ranges for day in days_between(first, last)]
    return requested


def next_cursor(
    cursor: Cursor,
    instances: Iterable[str],
    missing: Mapping[str, Collection[date]],
    requested: Mapping[str, Collection[date]],
    *,
    today: date,
) -> Cursor:
    """Return the cursor after a tick. It forgets what is no longer missing.

    Args:
        cursor: the cursor before the tick.
        instances: the known instances.
        missing: the missing days by instance.
        requested: the days that this tick requests.
        today: the UTC day of this tick.
    """
    attempts = [
        attempt
        for name, days in missing.items()
        for attempt in _attempts(
            name,
            days,
            set(requested.get(name, ())),
            [attempt for attempt in cursor.attempts if attempt.instance_id == name],
            today,
        )
    ]
    if len(attempts) > MAX_RANGES:
        attempts = [_combined([*of_instance]) for _, of_instance in groupby(attempts, lambda each: each.instance_id)]
    handled = [name for name in instances if name in cursor.instances or name in requested or not missing.get(name)]
    return Cursor(handled, attempts)


def _attempts(
    name: str, days: Collection[date], requested: Collection[date], before: Sequence[Attempt], today: date
) -> list[Attempt]:
    """Return the attempts of one instance, in ranges of contiguous days that were requested equally often."""
    by_request: dict[tuple[int, date], list[date]] = {}
    for day in days:
        attempt = next((each for each in before if each.first <= day <= each.last), None)
        requests = attempt.requests if attempt else 0
        if day in requested:
            by_request.setdefault((requests + 1, today), []).append(day)
        elif attempt:
            by_request.setdefault((requests, attempt.requested_on), []).append(day)
    return [
        Attempt(name, first, last, *request)
        for request, of_request in by_request.items()
        for first, last in contiguous_ranges(of_request)
    ]


def _combined(attempts: Sequence[Attempt]) -> Attempt:
    return Attempt(
        attempts[0].instance_id,
        min(each.first for each in attempts),
        max(each.last for each in attempts),
        max(each.requests for each in attempts),
        max(each.requested_on for each in attempts),
    )
