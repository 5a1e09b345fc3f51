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


def plan_requests(
    missing: Mapping[str, Collection[date]],
    cursor: Cursor,
    *,
    instances: Iterable[str],
    days_in_progress: Collection[date],
    today: date,
) -> tuple[dict[str, list[date]], Cursor]:
    """Return the days to request of each instance, in at most `MAX_RANGES` ranges, and the next cursor.

    The cursor forgets what is no longer missing.

    Args:
        missing: the missing days by instance.
        cursor: what was requested before.
        instances: the known instances.
        days_in_progress: the days that a run is fetching now.
        today: the UTC day of this tick.
    """
    before = {
        (attempt.instance_id, day): (attempt.requests, attempt.requested_on)
        for attempt in cursor.attempts
        for day in days_between(attempt.first, attempt.last)
    }
    requested: dict[str, list[date]] = {}
    attempts: list[Attempt] = []
    remaining = MAX_RANGES
    for name, days in missing.items():
        due = [day for day in days if day not in days_in_progress and _is_due(before.get((name, day)), today)]
        ranges = contiguous_ranges(due)[:remaining]
        remaining -= len(ranges)
        now = {day for first, last in ranges for day in days_between(first, last)}
        if now:
            requested[name] = sorted(now)
        by_request: dict[tuple[int, date], list[date]] = {}
        for day in days:
            requests, requested_on = before.get((name, day), (0, today))
            if day in now:
                by_request.setdefault((requests + 1, today), []).append(day)
            elif requests:
                by_request.setdefault((requests, requested_on), []).append(day)
        attempts += [
            Attempt(name, first, last, *request)
            for request, of_request in by_request.items()
            for first, last in contiguous_ranges(of_request)
        ]
    if len(attempts) > MAX_RANGES:
        attempts = [_combined([*of_instance]) for _, of_instance in groupby(attempts, lambda each: each.instance_id)]
    handled = [name for name in instances if name in cursor.instances or name in requested or not missing.get(name)]
    return requested, Cursor(handled, attempts)


def _is_due(request: tuple[int, date] | None, today: date) -> bool:
    """Return whether to request a day again: after 1 day, then after 2, 4, 8, up to `MAX_WAIT_DAYS`."""
    if request is None:
        return True
    requests, requested_on = request
    return today >= requested_on + timedelta(days=min(2 ** (requests - 1), MAX_WAIT_DAYS))


def _combined(attempts: Sequence[Attempt]) -> Attempt:
    return Attempt(
        attempts[0].instance_id,
        min(each.first for each in attempts),
        max(each.last for each in attempts),
        max(each.requests for each in attempts),
        max(each.requested_on for each in attempts),
    )
