"""Which files are missing, how a message names them, and how many of them are requested together."""

from collections.abc import Collection, Container, Iterable, Sequence
from datetime import date

from later_reporting_dagster.contract.days import contiguous_ranges, days_between
from later_reporting_dagster.lake.garbage_collection import paused_collection
from later_reporting_dagster.lake.paths import Partition, days_by_instance
from later_reporting_dagster.lake.tables import RAW_TABLES
from later_reporting_dagster.rollups.rollup_tables import Cadence, days_of, first_day_of

_MAX_NAMES, _MAX_GAPS = 5, 20
# A run fetches no more ranges than these: its config would be too large.
MAX_RANGES = 2_000


def missing_files(
    table_name: str, *, days: Iterable[date], instances: Iterable[str | None], present: Collection[Partition]
) -> list[Partition]:
    """Return the files of a table that these days should have and lack, given those that count as present."""
    table = RAW_TABLES.get(table_name)
    if table and not table.is_expected(files=present):
        return []
    return absent_files(table_name, days=days, instances=instances, present=present)


@paused_collection()
def absent_files(
    table_name: str, *, days: Iterable[date], instances: Iterable[str | None], present: Collection[Partition]
) -> list[Partition]:
    """Return the files that these days lack, also of an optional table without any. A rollup has one for each day."""
    table = RAW_TABLES.get(table_name)
    expected = table.expected_files(days, instances) if table else map(Partition, days)
    return [file for file in expected if file not in present]


def describe_missing(missing: Iterable[Partition], *, instances: int, cadence: Cadence = Cadence.DAY) -> str:
    """Return how many files are missing, and each gap; an empty text if none is.

    Such as `5 files are missing: 2024-01-05 to 2024-01-09 (5 days): instance_000`. Of a table by week or month, days
    are the first ones of its partitions.
    """
    by_gap: dict[tuple[date, date], list[str]] = {}
    count = 0
    for name, first_days in days_by_instance(missing).items():
        count += len(first_days)
        for gap in contiguous_ranges(day for first_day in first_days for day in days_of(cadence, first_day)):
            by_gap.setdefault(gap, []).extend([] if name is None else [name])
    gaps = [_describe_gap(*gap, by_gap[gap], instances, cadence) for gap in sorted(by_gap)[:_MAX_GAPS]]
    more = f"; {len(by_gap) - _MAX_GAPS} more gaps" if len(by_gap) > _MAX_GAPS else ""
    return f"{count} file{'s are' if count > 1 else ' is'} missing: {'; '.join(gaps)}{more}" if count else ""


def _describe_gap(first: date, last: date, names: Sequence[str], instances: int, cadence: Cadence) -> str:
    keys = sorted({first_day_of(cadence, day) for day in days_between(first, last)})
    gap = f"{keys[0]} (1 {cadence})" if len(keys) == 1 else f"{keys[0]} to {keys[-1]} ({len(keys)} {cadence}s)"
    if not names:
        return gap
    if len(names) <= _MAX_NAMES:
        return f"{gap}: {', '.join(names)}"
    return f"{gap}: {'all ' if len(names) == instances else f'{len(names)} of '}{instances} instances"


def days_to_request(missing: Iterable[Partition], *, days_in_progress: Container[date]) -> dict[str | None, list[date]]:
    """Return the days to request of each instance, in at most `MAX_RANGES` ranges, without those in progress."""
    requested: dict[str | None, list[date]] = {}
    remaining = MAX_RANGES
    for name, days in days_by_instance(file for file in missing if file.day not in days_in_progress).items():
        ranges = contiguous_ranges(days)[:remaining]
        remaining -= len(ranges)
        if ranges:
            requested[name] = [day for first, last in ranges for day in days_between(first, last)]
    return requested
