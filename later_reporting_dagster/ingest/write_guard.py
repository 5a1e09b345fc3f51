"""Reject a complete response that would remove too much from a partition, or that has too many bad rows."""

from dataclasses import dataclass

from later_reporting_dagster.ingest.partition_diff import PartitionDiff
from later_reporting_dagster.lake import ReplacementRejected

# Small partitions easily lose a large share of their rows or metric values. The minimum applies to rows and to metric
# values separately.
MIN_ROWS_TO_JUDGE = 20


class ShrankTooMuch(ReplacementRejected):
    """The partition would have fewer rows than the limit allows, or none of its metric values."""


class TooManyBadRows(ReplacementRejected):
    """The response has more bad rows than the limit allows; they are in quarantine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteGuard:
    """Limits on what a response may change without confirmation by the user.

    Attributes:
        shrink_limit_percent: by how many percent a partition's number of rows may fall; 100 disables `check_diff`.
        bad_rows_limit_percent: percentage of rows that may be bad; 100 disables `check_bad_rows`.
    """

    shrink_limit_percent: int = 50
    bad_rows_limit_percent: int = 100

    def check_diff(self, diff: PartitionDiff, *, bad_rows: int = 0, rows: str = "posts") -> None:
        """Check that a partition would not shrink too much, and that it would keep some metric values.

        The number of rows is checked if at least `MIN_ROWS_TO_JUDGE` rows are stored. The metric values are checked if
        at least `MIN_ROWS_TO_JUDGE` of them are stored.

        Args:
            diff: the difference between the stored and the new rows.
            bad_rows: number of bad rows in the response, for the message.
            rows: what the rows are, in the plural, for the message.

        Raises:
            ShrankTooMuch: the partition would have fewer rows than the limit allows, or it would have rows, but lose
                all values of the metrics that have values in the stored rows.
        """
        before, after = diff.rows_before, diff.rows_after
        if self.shrink_limit_percent == 100:
            return
        if before >= MIN_ROWS_TO_JUDGE and after * 100 < before * (100 - self.shrink_limit_percent):
            and_bad = f" and {bad_rows} bad rows" * bool(bad_rows)
            problem = f"{before} {rows} are stored, and the response has {after}{and_bad}"
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
        """Check how many rows are bad.

        Args:
            bad_rows: number of bad rows.
            total: number of all rows, good and bad.
            subject: what the counts mean, for the message, such as "rows of this partition are bad".

        Raises:
            TooManyBadRows: the limit is exceeded.
        """
        if bad_rows * 100 > total * self.bad_rows_limit_percent:
            raise TooManyBadRows(
                f"{bad_rows} of {total} {subject}: nothing was replaced, and the bad rows are in quarantine. List them"
                " with `later-reporting quarantine`; to write the other rows, raise LATER_BAD_ROWS_LIMIT_PERCENT"
                f" (bad_rows_limit_percent), now {self.bad_rows_limit_percent}"
            )
