"""Which files are missing, how a message names them, and how many of them are requested together."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import TypeVar

from later_reporting_dagster.contract.days import contiguous_ranges, days_between
from later_reporting_dagster.lake.paths import Partition, days_by_instance

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


def days_to_request(
    missing: Mapping[InstanceId, Collection[date]], *, days_in_progress: Collection[date]
) -> dict[InstanceId, list[date]]:
    """Return the days to request of each instance, in at most `MAX_RANGES` ranges, without those in progress."""
    requested: dict[InstanceId, list[date]] = {}
    remaining = MAX_RANGES
    for name, days in missing.items():
        due = [day for day in days if day not in days_in_progress]
        ranges = contiguous_ranges(due)[:remaining]
        remaining -= len(ranges)
        if ranges:
            requested[name] = [day for first, last in ranges for day in days_between(first, last)]
    return requested
