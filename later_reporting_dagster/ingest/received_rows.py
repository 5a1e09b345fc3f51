"""Which partition each row of a response belongs to, and which partitions it cannot be trusted for. No I/O."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date
from typing import Any

from later_reporting_dagster.client import ListResult
from later_reporting_dagster.contract import BadRow, DateBasis, PerformanceQuery
from later_reporting_dagster.lake import Partition, ReplacementRejected


class Unreadable(ReplacementRejected):
    """Most rows of a partition, or most values of one of its metrics, cannot be read."""


class RangeNotCovered(ReplacementRejected):
    """The first or the last day of a range, whose posts may be incomplete: the API's days are not those of UTC."""


@dataclass(slots=True)
class PartitionRows:
    """What a response has for a partition; `problem` is why it is not written."""

    items: list[Any] = field(default_factory=list)
    bad_rows: list[BadRow] = field(default_factory=list)
    problem: ReplacementRejected | None = None

    @property
    def total(self) -> int:
        return len(self.items) + len(self.bad_rows)

    @property
    def contradictory(self) -> set[Hashable]:
        """The keys that several rows have, with other values: the stored row stays."""
        return {row.row_key for row in self.bad_rows if row.row_key is not None}


@dataclass(slots=True)
class ReceivedRows:
    """The rows of a response.

    Attributes:
        by_partition: those of the partitions to write, which may have none.
        unassigned: the bad rows whose instance or day cannot be read.
        others: the number of rows of days and instances that are not to be written.
    """

    by_partition: dict[Partition, PartitionRows]
    unassigned: list[BadRow]
    others: int


def assign_rows(query: PerformanceQuery, result: ListResult, partitions: Sequence[Partition]) -> ReceivedRows:
    """Assign each row of a response to its partition, and find the partitions that must not be written."""
    found = ReceivedRows({partition: PartitionRows() for partition in partitions}, [], 0)
    # Looked up by a plain tuple, because creating a Partition for each post is slow.
    rows_of = {(partition.day, partition.instance_id): rows for partition, rows in found.by_partition.items()}
    is_for_all = any(partition.instance_id is None for partition in partitions)  # campaigns, of one day
    only_day = query.start_date if is_for_all or query.date_basis is DateBasis.PERFORMANCE_DATE else None
    for item in result.items:
        day = only_day or item.post_date.astimezone(UTC).date()
        rows = rows_of.get((day, None if is_for_all else item.instance_id))
        if rows is None:
            found.others += 1
        else:
            rows.items.append(item)
    for row in result.bad_rows:
        day, instance_id = _place(row, query, only_day)
        if day is None or (instance_id is None and not is_for_all):
            found.unassigned.append(row)
        elif (rows := rows_of.get((day, None if is_for_all else instance_id))) is not None:
            rows.bad_rows.append(row)
        else:
            found.others += 1
    _find_problems(query, result, found)
    return found


def _place(row: BadRow, query: PerformanceQuery, only_day: date | None) -> tuple[date | None, str | None]:
    """Return the day and the instance of a bad row, as far as they can be read or inferred from the query."""
    instance_id = row.instance_id or (query.instance_ids[0] if len(query.instance_ids) == 1 else None)
    if only_day is None and row.post_date is not None:
        return row.post_date.astimezone(UTC).date(), instance_id
    return query.start_date if query.start_date == query.end_date else None, instance_id


def _find_problems(query: PerformanceQuery, result: ListResult, found: ReceivedRows) -> None:
    """Mark the partitions that must not be written."""
    # Bad rows without a day, or without an instance, may be of any partition of their instance, or of the query.
    received = Counter(getattr(row, "instance_id", None) for row in (*result.items, *result.bad_rows))
    unassigned = Counter(row.instance_id for row in found.unassigned)
    of_any = [row for row in found.unassigned if row.instance_id is None]
    of_query = _mostly_bad(of_any, len(of_any), result.total_items)
    for partition, rows in found.by_partition.items():
        instance_id = partition.instance_id
        rows.problem = (
            of_query
            or _mostly_bad(found.unassigned, unassigned[instance_id], received[instance_id])
            or _mostly_bad(rows.bad_rows, len(rows.bad_rows), rows.total)
            or _unreadable_metric(query, rows.items, result.unreadable)
        )
        if result.outside and partition.day in (query.start_date, query.end_date):
            rows.problem = RangeNotCovered(
                f"a post of {result.outside[0].post_date.isoformat()} came in a response for {query.start_date} to"
                f" {query.end_date}: the days of this account are not those of UTC, so the first and the last day of a"
                " range may lack posts. Set LATER_WIDEN_DAYS to 1: each range is then asked for one day wider"
            )


def _mostly_bad(bad_rows: Sequence[BadRow], bad: int, total: int) -> Unreadable | None:
    if bad * 2 <= total:
        return None
    return Unreadable(f"{bad} of {total} rows cannot be used, because {bad_rows[0].reason}. Nothing was replaced")


def _unreadable_metric(
    query: PerformanceQuery, items: Sequence[Any], unreadable: Mapping[Hashable, Mapping[str, str]]
) -> Unreadable | None:
    """Return the problem if most of the values that were sent for a metric cannot be read."""
    columns = [unreadable[item.key] for item in items if item.key in unreadable] if unreadable else []
    for metric in query.metrics:
        excerpts = [of_row[metric.column] for of_row in columns if metric.column in of_row]
        if excerpts:
            sent = len(excerpts) + sum(_value(item, metric.column) is not None for item in items)
            if len(excerpts) * 2 > sent:
                return Unreadable(
                    f"{len(excerpts)} of {sent} values of {metric.column} cannot be read, such as {excerpts[0]}."
                    " Nothing was replaced"
                )
    return None


def _value(item: Any, column: str) -> object:
    metrics = getattr(item, "metrics", None)  # of campaigns
    return getattr(item, column) if metrics is None else metrics.get(column)
