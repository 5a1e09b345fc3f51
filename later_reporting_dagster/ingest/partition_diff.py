"""What a restatement changed: pure questions to the rows of a partition before and after.

Compared are the columns that both have: a metric that was not asked for before has not changed, nor has one that is not
asked for any more.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import METRICS, metrics_in
from later_reporting_dagster.lake import POST_KEY

# A sum of 64-bit counts may need more than 64 bits.
_EXACT = pa.decimal128(19, 0)
# Sums of money differ in their last binary digits for no reason but the order of their rows.
_MONEY_DIGITS = 6
_METRICS = frozenset(metric.api_name for metric in METRICS)


@dataclass(frozen=True, slots=True)
class Totals:
    """A metric's total before and after; None where no row has it, which is not a total of 0."""

    before: int | float | None
    after: int | float | None

    @property
    def change(self) -> int | float | None:
        """By how much it grew; None when it was not available before, or is not any more."""
        if self.before is None or self.after is None:
            return None
        return (
            self.after - self.before if isinstance(self.after, int) else round(self.after - self.before, _MONEY_DIGITS)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a restatement changed in a partition of posts.

    Attributes:
        rows_before: how many rows there were.
        rows_after: how many there are.
        added: rows whose key was not there.
        removed: rows whose key is there no more.
        restated: rows that have another value, of whatever column, under the same key.
        totals: of each metric that adds up, by column.
        values_before: how many values of metrics there were, of those too that do not add up.
        values_kept: how many there are of the metrics that had any.
    """

    rows_before: int
    rows_after: int
    added: int
    removed: int
    restated: int
    totals: Mapping[str, Totals]
    values_before: int
    values_kept: int


def changes_between(old: pa.Table, new: pa.Table) -> Changes:
    """What changes when a partition's rows `old` become `new`, both of posts, of whichever metrics."""
    shared_names = [name for name in new.column_names if name in old.column_names]
    metrics = metrics_in(shared_names)
    old, new = old.select(shared_names), new.select(shared_names)
    before = {key: row for row, key in enumerate(_keys(old))}
    shared = [(before[key], row) for row, key in enumerate(_keys(new)) if key in before]
    was, now = (pa.array(rows, pa.int64()) for rows in (zip(*shared, strict=True) if shared else ([], [])))
    # Mostly the same posts are there, in the same order.
    same = len(shared) == old.num_rows == new.num_rows and was.equals(now)
    had = [metric.column for metric in metrics if old[metric.column].null_count < old.num_rows]
    return Changes(
        rows_before=old.num_rows,
        rows_after=new.num_rows,
        added=new.num_rows - len(shared),
        removed=old.num_rows - len(shared),
        restated=_restated(old, new) if same else _restated(old.take(was), new.take(now)),
        totals={
            metric.column: Totals(_total(old[metric.column]), _total(new[metric.column]))
            for metric in metrics
            if metric.kind.adds_up
        },
        values_before=sum(old.num_rows - old[name].null_count for name in had),
        values_kept=sum(new.num_rows - new[name].null_count for name in had),
    )


def _keys(posts: pa.Table) -> "zip[tuple[str | int, ...]]":
    return zip(*(posts[name].to_pylist() for name in POST_KEY), strict=True)


def _restated(old: pa.Table, new: pa.Table) -> int:
    """How many rows differ, row by row, in any column."""
    differs: pa.ChunkedArray | None = None
    for name, before, after in zip(new.column_names, old.columns, new.columns, strict=True):
        if before.equals(after):
            continue
        if name == "extra":
            before, after = _without_metrics(before), _without_metrics(after)
        other = pc.or_(pc.xor(before.is_null(), after.is_null()), pc.fill_null(pc.not_equal(before, after), False))
        differs = other if differs is None else pc.or_(differs, other)
    return 0 if differs is None else int(pc.sum(differs).as_py())


def _without_metrics(extras: pa.ChunkedArray) -> pa.ChunkedArray:
    """Unknown fields without metrics, which lie there for as long as they are not asked for: that changes no post."""

    def left(extra: str | None) -> str | None:
        if extra is None or _METRICS.isdisjoint(fields := json.loads(extra)):
            return extra
        others = {name: value for name, value in fields.items() if name not in _METRICS}
        return json.dumps(others, sort_keys=True, separators=(",", ":")) if others else None

    return pa.chunked_array([pa.array([left(extra) for extra in extras.to_pylist()], pa.string())])


def _total(values: pa.ChunkedArray) -> int | float | None:
    if pa.types.is_int64(values.type):
        total = pc.sum(values.cast(_EXACT)).as_py()
        return None if total is None else int(total)
    found: float | None = pc.sum(values).as_py()
    return found
