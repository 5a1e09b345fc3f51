"""Which slice each row of a response belongs to, and which rows may replace nothing, whatever is stored. No I/O."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from later_reporting_dagster.client import ListResult
from later_reporting_dagster.contract import BadRow, DateBasis, PerformanceQuery
from later_reporting_dagster.ingest.decide import Reason, Reject
from later_reporting_dagster.ingest.slices import Slice


@dataclass(slots=True)
class SliceRows:
    """What a response has for a slice.

    Attributes:
        problem: why it must not replace the stored rows.
        kept: the keys whose stored row stays: the response has several values for them, or was not asked for them.
        unplaced: how many bad rows, without a day or an instance, may be of this slice.
    """

    items: list[Any] = field(default_factory=list)
    bad_rows: list[BadRow] = field(default_factory=list)
    problem: Reject | None = None
    kept: set[Hashable] = field(default_factory=set)
    unplaced: int = 0

    @property
    def total(self) -> int:
        return len(self.items) + len(self.bad_rows)


@dataclass(slots=True)
class ReceivedRows:
    """The rows of a response.

    Attributes:
        by_slice: those of the slices to write, which may have none.
        unassigned: the bad rows whose instance or day cannot be read.
        others: the number of rows of days and instances that are not to be written.
    """

    by_slice: dict[Slice, SliceRows]
    unassigned: list[BadRow]
    others: int


def assign_rows(query: PerformanceQuery, result: ListResult, slices: Sequence[Slice]) -> ReceivedRows:
    """Assign each row of a response to its slice, and find the slices that must not be written.

    All rows of a response for campaigns or a period are those of its only slice.
    """
    found = ReceivedRows({each: SliceRows() for each in slices}, [], 0)
    # Looked up by a plain tuple, because creating a Partition for each post is slow.
    rows_of = {(each.day, each.instance_id): rows for each, rows in found.by_slice.items()}
    is_for_all = any(each.instance_id is None for each in slices)
    is_of_day = is_for_all or query.start_date == query.end_date
    by_post_date = query.date_basis is DateBasis.POST_DATE and not is_for_all
    for item in result.items:
        day = item.post_date.astimezone(UTC).date() if by_post_date else getattr(item, "day", query.start_date)
        rows = rows_of.get((day, None if is_for_all else item.instance_id))
        if rows is None:
            found.others += 1
        else:
            rows.items.append(item)
    only_instance = query.instance_ids[0] if len(query.instance_ids) == 1 else None
    for row in result.bad_rows:
        day_of_row = query.start_date if is_of_day else row.first_day
        if by_post_date and row.post_date is not None:
            day_of_row = row.post_date.astimezone(UTC).date()
        instance_id = None if is_for_all else row.instance_id or only_instance
        if day_of_row is None or (instance_id is None and not is_for_all):
            found.unassigned.append(row)
        elif (rows := rows_of.get((day_of_row, instance_id))) is not None:
            rows.bad_rows.append(row)
            if row.row_key is not None:
                rows.kept.add(row.row_key)
        else:
            found.others += 1
    _find_problems(query, result, found)
    return found


def _find_problems(query: PerformanceQuery, result: ListResult, found: ReceivedRows) -> None:
    """Mark the slices that must not be written."""
    # Bad rows without a day, or without an instance, may be of any slice of their instance, or of the query.
    received = Counter(getattr(row, "instance_id", None) for row in (*result.items, *result.bad_rows))
    unassigned = Counter(row.instance_id for row in found.unassigned)
    of_any = [row for row in found.unassigned if row.instance_id is None]
    outside = query.rows_outside((*result.items, *result.bad_rows))
    of_query = _mostly_bad(of_any, len(of_any), result.total_items)
    for each, rows in found.by_slice.items():
        instance_id = each.instance_id
        rows.unplaced = unassigned[instance_id] + len(of_any)
        rows.problem = (
            of_query
            or _mostly_bad(found.unassigned, unassigned[instance_id], received[instance_id])
            or _mostly_bad(rows.bad_rows, len(rows.bad_rows), rows.total)
            or _unreadable_metric(query, rows.items, result.unreadable)
        )
        if outside and each.day in (query.start_date, query.end_date):
            rows.problem = Reject(
                Reason.RANGE,
                f"a post of {outside[0].post_date.isoformat()} came in a response for {query.start_date} to"
                f" {query.end_date}: the days of this account are not those of UTC, so the first and the last day of a"
                " range may lack posts. Set LATER_PADDING_DAYS to 1: each range is then asked for one day wider",
            )


def _mostly_bad(bad_rows: Sequence[BadRow], bad: int, total: int) -> Reject | None:
    if bad * 2 <= total:
        return None
    text = f"{bad} of {total} rows cannot be used, because {bad_rows[0].reason}. Nothing was replaced"
    return Reject(Reason.UNREADABLE, text)


def _unreadable_metric(
    query: PerformanceQuery, items: Sequence[Any], unreadable: Mapping[Hashable, Mapping[str, str]]
) -> Reject | None:
    """Return the problem if most of the values that were sent for a metric cannot be read."""
    columns = [unreadable[item.key] for item in items if item.key in unreadable] if unreadable else []
    for metric in query.metrics:
        excerpts = [of_row[metric.column] for of_row in columns if metric.column in of_row]
        if excerpts:
            sent = len(excerpts) + sum(getattr(item, metric.column, None) is not None for item in items)
            if len(excerpts) * 2 > sent:
                return Reject(
                    Reason.UNREADABLE,
                    f"{len(excerpts)} of {sent} values of {metric.column} cannot be read, such as {excerpts[0]}."
                    " Nothing was replaced",
                )
    return None
