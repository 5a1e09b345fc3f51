"""Which partition each row of a response belongs to, and whether the rows may replace the stored ones. No I/O."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import pyarrow as pa

from later_reporting_dagster.client import ListResult
from later_reporting_dagster.contract import METRICS, BadRow, DateBasis, Metric, PerformanceQuery
from later_reporting_dagster.lake import LakeUnavailable, ReplacementRejected
from later_reporting_dagster.lake.tables import POST_KEY, RawTable

# What is written whole: a `Partition`, or a `Period`. Both have a day and an instance, or None for all.
Unit = Any

# Small partitions easily lose a large share of their rows or metric values. The minimum applies to rows and to metric
# values separately.
MIN_ROWS_TO_JUDGE = 20
ACCEPT_SHRINKING = "`later-reporting backfill --accept-shrinking`, or with accept_shrinking: true in the run config"
# Why it is not sure that stored rows are gone.
NOTHING_LEFT = "no stored row would be left of what this run fetches of it"
NOT_LISTED = "the API does not list the instance"
NOT_SURE = "a second response does not say that there are none"


class Unreadable(ReplacementRejected):
    """Most rows of a partition, or most values of one of its metrics, cannot be read."""


class RangeNotCovered(ReplacementRejected):
    """The first or the last day of a range, whose posts may be incomplete: the API's days are not those of UTC."""


class ShrankTooMuch(ReplacementRejected):
    """The partition would lose more rows than the limit allows, or all of its metric values."""


class TooManyBadRows(ReplacementRejected):
    """The response has more bad rows than the limit allows; they are in quarantine."""


class InDoubt(ReplacementRejected):
    """Stored rows are not in the response, and it is not sure that they are gone."""


class WouldEmpty(InDoubt):
    """The stored rows of a partition would be replaced by none."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"rows are stored, and the response has none: nothing was replaced, because {why}. If they were really"
            f" deleted, accept it with {ACCEPT_SHRINKING}"
        )


@dataclass(slots=True)
class PartitionRows:
    """What a response has for a partition.

    Attributes:
        problem: why it must not replace the stored rows.
        kept: the keys whose stored row stays: the response has several values for them, or was not asked for them.
        unplaced: how many bad rows, without a day or an instance, may be of this partition.
    """

    items: list[Any] = field(default_factory=list)
    bad_rows: list[BadRow] = field(default_factory=list)
    problem: ReplacementRejected | LakeUnavailable | None = None
    kept: set[Hashable] = field(default_factory=set)
    unplaced: int = 0

    @property
    def total(self) -> int:
        return len(self.items) + len(self.bad_rows)


@dataclass(slots=True)
class ReceivedRows:
    """The rows of a response.

    Attributes:
        by_partition: those of the partitions to write, or of the only period, which may have none.
        unassigned: the bad rows whose instance or day cannot be read.
        others: the number of rows of days and instances that are not to be written.
    """

    by_partition: dict[Unit, PartitionRows]
    unassigned: list[BadRow]
    others: int


def assign_rows(query: PerformanceQuery, result: ListResult, partitions: Sequence[Unit]) -> ReceivedRows:
    """Assign each row of a response to its partition, and find the partitions that must not be written.

    All rows of a response for campaigns or a period are those of its only partition or period.
    """
    found = ReceivedRows({partition: PartitionRows() for partition in partitions}, [], 0)
    # Looked up by a plain tuple, because creating a Partition for each post is slow.
    rows_of = {(partition.day, partition.instance_id): rows for partition, rows in found.by_partition.items()}
    is_for_all = any(partition.instance_id is None for partition in partitions)
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
    """Mark the partitions that must not be written."""
    # Bad rows without a day, or without an instance, may be of any partition of their instance, or of the query.
    received = Counter(getattr(row, "instance_id", None) for row in (*result.items, *result.bad_rows))
    unassigned = Counter(row.instance_id for row in found.unassigned)
    of_any = [row for row in found.unassigned if row.instance_id is None]
    outside = query.rows_outside((*result.items, *result.bad_rows))
    of_query = _mostly_bad(of_any, len(of_any), result.total_items)
    for partition, rows in found.by_partition.items():
        instance_id = partition.instance_id
        rows.unplaced = unassigned[instance_id] + len(of_any)
        rows.problem = (
            of_query
            or _mostly_bad(found.unassigned, unassigned[instance_id], received[instance_id])
            or _mostly_bad(rows.bad_rows, len(rows.bad_rows), rows.total)
            or _unreadable_metric(query, rows.items, result.unreadable)
        )
        if outside and partition.day in (query.start_date, query.end_date):
            rows.problem = RangeNotCovered(
                f"a post of {outside[0].post_date.isoformat()} came in a response for {query.start_date} to"
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
            sent = len(excerpts) + sum(getattr(item, metric.column, None) is not None for item in items)
            if len(excerpts) * 2 > sent:
                return Unreadable(
                    f"{len(excerpts)} of {sent} values of {metric.column} cannot be read, such as {excerpts[0]}."
                    " Nothing was replaced"
                )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionDiff:
    """The difference between the old and the new rows of a partition.

    Attributes:
        restated: rows whose key is in both tables, with a different value in any column but `extra`.
        values_before: non-null metric values in the old table, of the metrics whose column both tables have.
        values_after: non-null values in the new table, of those metrics that have a value in the old table.
    """

    rows_before: int
    rows_after: int
    added: int
    removed: int
    restated: int
    values_before: int
    values_after: int


def diff_partitions(
    old: pa.Table, new: pa.Table, *, key: Sequence[str] = POST_KEY, known_metrics: tuple[Metric, ...] = METRICS
) -> PartitionDiff:
    """Return what changes when the rows `old` of a partition are replaced by `new`.

    Only columns that both have are compared: a metric that is newly requested, or no longer requested, is no change.
    Nor is one among the unknown fields of `extra`.
    """
    common = [name for name in new.column_names if name in old.column_names and name != "extra"]
    before, after = (_by_key(rows.select(common), key) for rows in (old, new))
    in_both = before.keys() & after.keys()
    had_values = [each.column for each in known_metrics if each.column in common and _values(old, each.column)]
    return PartitionDiff(
        rows_before=old.num_rows,
        rows_after=new.num_rows,
        added=len(after) - len(in_both),
        removed=len(before) - len(in_both),
        restated=sum(before[row_key] != after[row_key] for row_key in in_both),
        values_before=sum(_values(old, name) for name in had_values),
        values_after=sum(_values(new, name) for name in had_values),
    )


def _by_key(rows: pa.Table, key: Sequence[str]) -> dict[Hashable, tuple[object, ...]]:
    values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
    return dict(zip(keys_of(rows, key), values, strict=True))


def _values(rows: pa.Table, column: str) -> int:
    return int(rows.num_rows - rows[column].null_count)


def keys_of(rows: pa.Table, key: Sequence[str]) -> list[Hashable]:
    """Return the key of each row: a tuple, or the value of a single column."""
    columns = [rows[name].to_pylist() for name in key]
    return [*zip(*columns, strict=True)] if len(columns) > 1 else columns[0]


def with_stored_rows(new: pa.Table, stored: pa.Table, kept: Set[Hashable], table: RawTable) -> pa.Table:
    """Return the new rows with the stored ones of the kept keys, sorted by key."""
    missing = kept - {*keys_of(new, table.key)}
    rows = pa.concat_tables([new, _select(stored, table, lambda key: key in missing)])
    return rows.sort_by([(name, "ascending") for name in table.key])


def _select(rows: pa.Table, table: RawTable, is_selected: Callable[[Hashable], bool]) -> pa.Table:
    return rows.filter(pa.array(map(is_selected, keys_of(rows, table.key)), pa.bool_()))


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteGuard:
    """Limits on what a response may change without confirmation by the user.

    Attributes:
        shrink_limit_percent: how many percent of a partition's rows may be removed; at 100, it accepts any loss.
        bad_rows_limit_percent: percentage of rows that may be bad; 100 disables `check_bad_rows`.
    """

    shrink_limit_percent: int = 50
    bad_rows_limit_percent: int = 100

    @property
    def accepts_shrinking(self) -> bool:
        return self.shrink_limit_percent == 100

    def check_received(self, rows: PartitionRows) -> None:
        """Raise if the rows of a response must replace nothing, whatever is stored."""
        self.check_bad_rows(len(rows.bad_rows), total=rows.total, subject="rows of this partition are bad")
        if rows.problem is not None:
            raise rows.problem

    def check_replacement(
        self, old: pa.Table, new: pa.Table, received: PartitionRows, *, table: RawTable, is_confirmed: bool
    ) -> PartitionDiff:
        """Compare the stored rows with those that would replace them; raise if too many would go, or maybe wrongly.

        The rows of kept keys are in neither side: they would hide what is lost of the others.

        `is_confirmed`: whether it is sure that there are none, if the response has none.
        """
        if kept := received.kept:
            old, new = (_select(rows, table, lambda key: key not in kept) for rows in (old, new))
        diff = diff_partitions(old, new, key=table.key, known_metrics=table.known_metrics)
        if self.accepts_shrinking:
            return diff
        self.check_diff(diff, bad_rows=len(received.bad_rows), rows=table.rows)
        if diff.removed and not diff.rows_after and not is_confirmed:
            raise WouldEmpty(NOT_SURE)
        if diff.removed and received.unplaced:
            raise InDoubt(
                f"{diff.removed} stored {table.rows} are not in the response, but may be among its {received.unplaced}"
                " rows without a day or an instance: nothing was replaced. If they were really deleted, accept it with"
                f" {ACCEPT_SHRINKING}"
            )
        return diff

    def check_diff(self, diff: PartitionDiff, *, bad_rows: int = 0, rows: str = "posts") -> None:
        """Raise `ShrankTooMuch` if a partition would lose too many rows, or all of its metric values but not its rows.

        Rows and metric values are checked if at least `MIN_ROWS_TO_JUDGE` of them are stored.
        """
        before, after = diff.rows_before, diff.rows_after
        if before >= MIN_ROWS_TO_JUDGE and diff.removed * 100 > before * self.shrink_limit_percent:
            and_bad = f" and {bad_rows} bad rows" * bool(bad_rows)
            problem = f"{before} {rows} are stored, and the response has {before - diff.removed} of them{and_bad}"
        elif after and diff.values_before >= MIN_ROWS_TO_JUDGE and not diff.values_after:
            problem = (
                f"the {before} stored {rows} have {diff.values_before} metric values, and the {after} {rows} of the"
                " response have none of the same metrics"
            )
        else:
            return
        raise ShrankTooMuch(
            f"{problem}: nothing was replaced. Materialize the partition again, because the response may have been"
            f" wrong. If the next response is the same and is right, accept it with {ACCEPT_SHRINKING}"
        )

    def check_bad_rows(self, bad_rows: int, *, total: int, subject: str) -> None:
        """Raise `TooManyBadRows` if more rows are bad than the limit allows."""
        if bad_rows * 100 > total * self.bad_rows_limit_percent:
            raise TooManyBadRows(
                f"{bad_rows} of {total} {subject}: nothing was replaced, and the bad rows are in quarantine. List them"
                " with `later-reporting quarantine`; to write the other rows, raise LATER_BAD_ROWS_LIMIT_PERCENT"
                f" (bad_rows_limit_percent), now {self.bad_rows_limit_percent}"
            )
