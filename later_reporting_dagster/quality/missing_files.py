"""Which expected files are missing, how a message names them, and which of them to request now."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import TypeVar

import msgspec

from later_reporting_dagster.contract.days import contiguous_ranges, days_between
from later_reporting_dagster.lake.paths import Partition, days_by_instance
from later_reporting_dagster.quality.attempts import Attempt, Cursor

# None in tables whose files have the rows of all instances.
InstanceId = TypeVar("InstanceId", bound="str | None")

_MAX_NAMES, _MAX_GAPS = 5, 20
# A run fetches no more ranges than these: its config would be too large.
MAX_RANGES = 2_000


def missing_days(
    days: Iterable[date], instances: Iterable[InstanceId], present: Iterable[Partition]
) -> dict[InstanceId, list[date]]:
    """Return the days without a file of each instance that lacks any."""
    found, expected = days_by_instance(present), set(days)
    lacking = {name: expected - found.get(name, set()) for name in instances}
    return {name: sorted(lacks) for name, lacks in lacking.items() if lacks}


def describe_missing(missing: Mapping[InstanceId, Sequence[date]], *, instances: int) -> str:
    """Return how many files are missing, and each gap; an empty text if none is.

    Such as `5 files are missing: 2024-01-05 to 2024-01-09 (5 days): instance_000`.
    """
    by_gap: dict[tuple[date, date], list[str]] = {}
    for name, days in missing.items():
        for gap in contiguous_ranges(days):
            by_gap.setdefault(gap, []).extend([] if name is None else [name])
    count = sum(map(len, missing.values()))
    gaps = [_describe_gap(*gap, by_gap[gap], instances) for gap in sorted(by_gap)[:_MAX_GAPS]]
    more = f"; {len(by_gap) - _MAX_GAPS} more gaps" if len(by_gap) > _MAX_GAPS else ""
    return f"{count} file{'s are' if count > 1 else ' is'} missing: {'; '.join(gaps)}{more}" if count else ""


def _describe_gap(first: date, last: date, names: Sequence[str], instances: int) -> str:
    length = (last - first).days + 1
    days = f"{first} (1 day)" if length == 1 else f"{first} to {last} ({length} days)"
    if not names:
        return days
    if len(names) <= _MAX_NAMES:
        return f"{days}: {', '.join(names)}"
    return f"{days}: {'all ' if len(names) == instances else f'{len(names)} of '}{instances} instances"


def plan_fetches(
    missing: Mapping[str, Collection[date]],
    cursor: Cursor,
    *,
    instances: Iterable[str],
    days_in_progress: Collection[date],
    failures: Mapping[Partition, datetime],
    now: datetime,
) -> tuple[dict[str, list[date]], Cursor]:
    """Return the days to request of each instance, in at most `MAX_RANGES` ranges, and the next cursor.

    The cursor forgets what is no longer missing. `failures`: when the last fetch of a pair failed, if it did.
    """
    before = {
        (attempt.name, day): attempt
        for attempt in cursor.attempts
        if attempt.first and attempt.last
        for day in days_between(attempt.first, attempt.last)
    }
    for (name, day), last in before.items():
        failed_at = failures.get(Partition(day, name))
        if failed_at is not None and failed_at >= last.since:
            before[name, day] = msgspec.structs.replace(last, failed=True)

    def is_due(name: str, day: date) -> bool:
        return (name, day) not in before or before[name, day].is_due(now)

    requested: dict[str, list[date]] = {}
    attempts: list[Attempt] = []
    remaining = MAX_RANGES
    for name, days in missing.items():
        due = [day for day in days if day not in days_in_progress and is_due(name, day)]
        ranges = contiguous_ranges(due)[:remaining]
        remaining -= len(ranges)
        due_now = {day for first, last in ranges for day in days_between(first, last)}
        if due_now:
            requested[name] = sorted(due_now)
        by_request: dict[tuple[int, datetime, bool], list[date]] = {}
        for day in days:
            attempt = before.get((name, day))
            if day in due_now:
                by_request.setdefault((attempt.requests + 1 if attempt else 1, now, False), []).append(day)
            elif attempt:
                request = (attempt.requests, attempt.since, attempt.failed)
                by_request.setdefault(request, []).append(day)
        attempts += [
            Attempt(name, first, last, *request)
            for request, of_request in by_request.items()
            for first, last in contiguous_ranges(of_request)
        ]
    handled = [name for name in instances if name in cursor.instances or name in requested or not missing.get(name)]
    return requested, Cursor(attempts, handled)
