"""Compare the rows of a partition with those that would replace them, and reject a loss of too much, or bad rows.

Only columns that both tables have are compared: a metric that is newly requested, or no longer requested, is not a
change. Nor is one among the unknown fields of `extra`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import METRICS, Metric
from later_reporting_dagster.lake import ReplacementRejected
from later_reporting_dagster.lake.tables import POST_KEY


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
    """Return what changes when the rows `old` of a partition are replaced by `new`."""
    common_columns = [name for name in new.column_names if name in old.column_names and name != "extra"]
    metrics = [metric for metric in known_metrics if metric.column in common_columns]
    old, new = old.select(common_columns), new.select(common_columns)
    old_rows = {row_key: row for row, row_key in enumerate(_keys(old, key))}
    matches = [(old_rows[row_key], row) for row, row_key in enumerate(_keys(new, key)) if row_key in old_rows]
    in_old, in_new = (pa.array(rows, pa.int64()) for rows in (zip(*matches, strict=True) if matches else ([], [])))
    # Usually both have the same posts in the same order, and `take` can be skipped.
    is_same_order = len(matches) == old.num_rows == new.num_rows and in_old.equals(in_new)
    had_values = [metric.column for metric in metrics if old[metric.column].null_count < old.num_rows]
    return PartitionDiff(
        rows_before=old.num_rows,
        rows_after=new.num_rows,
        added=new.num_rows - len(matches),
        removed=old.num_rows - len(matches),
        restated=_count_differing_rows(old, new)
        if is_same_order
        else _count_differing_rows(old.take(in_old), new.take(in_new)),
        values_before=sum(old.num_rows - old[name].null_count for name in had_values),
        values_after=sum(new.num_rows - new[name].null_count for name in had_values),
    )


def _keys(rows: pa.Table, key: Sequence[str]) -> "zip[tuple[str | int, ...]]":
    return zip(*(rows[name].to_pylist() for name in key), strict=True)


def _count_differing_rows(old: pa.Table, new: pa.Table) -> int:
    """Count the rows that differ in any column; row n of `old` is compared with row n of `new`."""
    differs: pa.ChunkedArray | None = None
    for before, after in zip(old.columns, new.columns, strict=True):
        if before.equals(after):
            continue
        column = pc.or_(pc.xor(before.is_null(), after.is_null()), pc.fill_null(pc.not_equal(before, after), False))
        differs = column if differs is None else pc.or_(differs, column)
    return 0 if differs is None else int(pc.sum(differs).as_py())


# Small partitions easily lose a large share of their rows or metric values. The minimum applies to rows and to metric
# values separately.
MIN_ROWS_TO_JUDGE = 20


class ShrankTooMuch(ReplacementRejected):
    """The partition would lose more rows than the limit allows, or all of its metric values."""


class TooManyBadRows(ReplacementRejected):
    """The response has more bad rows than the limit allows; they are in quarantine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteGuard:
    """Limits on what a response may change without confirmation by the user.

    Attributes:
        shrink_limit_percent: how many percent of a partition's rows may be removed; 100 disables `check_diff`.
        bad_rows_limit_percent: percentage of rows that may be bad; 100 disables `check_bad_rows`.
    """

    shrink_limit_percent: int = 50
    bad_rows_limit_percent: int = 100

    @property
    def accepts_shrinking(self) -> bool:
        return self.shrink_limit_percent == 100

    def check_diff(self, diff: PartitionDiff, *, bad_rows: int = 0, rows: str = "posts") -> None:
        """Raise `ShrankTooMuch` if a partition would lose too many rows, or all of its metric values but not its rows.

        Rows and metric values are checked if at least `MIN_ROWS_TO_JUDGE` of them are stored.
        """
        before, after = diff.rows_before, diff.rows_after
        if self.accepts_shrinking:
            return
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
            " wrong. If the next response is the same and is right, accept it with"
            " `later-reporting backfill --accept-shrinking`, or with accept_shrinking: true in the run config"
        )

    def check_bad_rows(self, bad_rows: int, *, total: int, subject: str) -> None:
        """Raise `TooManyBadRows` if more rows are bad than the limit allows."""
        if bad_rows * 100 > total * self.bad_rows_limit_percent:
            raise TooManyBadRows(
                f"{bad_rows} of {total} {subject}: nothing was replaced, and the bad rows are in quarantine. List them"
                " with `later-reporting quarantine`; to write the other rows, raise LATER_BAD_ROWS_LIMIT_PERCENT"
                f" (bad_rows_limit_percent), now {self.bad_rows_limit_percent}"
            )
