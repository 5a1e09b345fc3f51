"""Files that were requested without a metric that is requested now: sums over their days lack it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import Metric
from later_reporting_dagster.contract.days import day_ranges
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.coverage import stored_coverage
from later_reporting_dagster.lake.retired import rows_in_numbers

_MAX_RANGES = 5


class RequestedDay(NamedTuple):
    """The metrics with which some files of a day were requested, as names of columns."""

    table_name: str
    day: date
    metrics: frozenset[str]


def requested_days(lake: Lake, *, coverage: pa.Table | None = None) -> list[RequestedDay]:
    """Return the metrics of all files with rows, as far as `coverage` knows, that are in the numbers.

    `coverage`: the stored table, if the caller has read it.
    """
    columns = ["table_name", "date", "metrics"]
    stored = stored_coverage(lake) if coverage is None else coverage
    stored = stored.filter((pc.field("rows") > 0) & pc.field("metrics").is_valid())
    counted = rows_in_numbers(stored, lake.retired.marks())
    found = counted.group_by(columns).aggregate([]).select(columns)
    return [
        RequestedDay(row["table_name"], row["date"], frozenset(row["metrics"].split(","))) for row in found.to_pylist()
    ]


def days_without_metrics(
    requested: Iterable[RequestedDay], metrics: Iterable[Metric], *, days: Collection[date]
) -> dict[str, list[date]]:
    """Return, by column of these metrics, which of the days have a file that was requested without it."""
    found: dict[str, set[date]] = {}
    names = [metric.column for metric in metrics]
    for each in requested:
        for name in names if each.day in days else ():
            if name not in each.metrics:
                found.setdefault(name, set()).add(each.day)
    return {name: sorted(of_metric) for name, of_metric in found.items()}


def describe_days_without(metrics: Mapping[str, Sequence[date]]) -> str:
    """Return which metrics some days were requested without, and what fetches them; an empty text if there are none.

    Such as `requested without saves on 26 days (2024-03-01 to 2024-03-26), which its sums lack: fetch them with …`.
    """
    by_days: dict[tuple[date, ...], list[str]] = {}
    for column, days in metrics.items():
        by_days.setdefault(tuple(days), []).append(column)
    if not by_days:
        return ""
    texts = [f"{', '.join(columns)} on {_describe(days)}" for days, columns in by_days.items()]
    all_days = {day for days in by_days for day in days}
    command = f"later-reporting backfill --start {min(all_days)} --end {max(all_days)}"
    return f"requested without {'; '.join(texts)}, which sums lack: run `{command}`"


def _describe(days: Sequence[date]) -> str:
    ranges = day_ranges(days)
    more = f" and {len(ranges) - _MAX_RANGES} more" if len(ranges) > _MAX_RANGES else ""
    return f"{len(days)} day{'s' * (len(days) > 1)} ({', '.join(ranges[:_MAX_RANGES])}{more})"
