"""When an answer stays out of the lake although it is whole: it takes too much away, or too much of it is bad."""

from dataclasses import dataclass

from later_reporting_dagster.ingest.partition_diff import Changes
from later_reporting_dagster.lake import NotReplaced

# Of fewer rows, or values of metrics, a large share is gone too easily to be suspicious.
FEWEST_TO_JUDGE = 20


class ShrankTooMuch(NotReplaced):
    """An answer would have taken so much from a partition that it may well be a fault of the service."""


class TooManyBadRows(NotReplaced):
    """Too many rows of an answer cannot be true. They lie in quarantine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What may be lost without anybody's word.

    Attributes:
        shrink_limit_percent: how many of 100 rows may be gone; 100 lets all go, and all values of metrics too.
        bad_rows_limit_percent: how many of 100 rows may be bad; 100 only sets them aside.
    """

    shrink_limit_percent: int = 50
    bad_rows_limit_percent: int = 100

    def check_changes(self, changes: Changes, *, bad_rows: int = 0) -> None:
        """Looks at what a replacement changes; `bad_rows` is how many the answer has beside the new rows.

        Raises:
            ShrankTooMuch: there were rows enough to judge, and more of them than the limit allows would be gone; or
                there were values enough, and none would be left of any metric.
        """
        before, after = changes.rows_before, changes.rows_after
        if self.shrink_limit_percent == 100:
            return
        if before >= FEWEST_TO_JUDGE and after * 100 < before * (100 - self.shrink_limit_percent):
            and_bad = f" and {bad_rows} bad ones" * bool(bad_rows)
            what = f"{before} posts lie in the lake, and the answer has {after}{and_bad}"
        elif after and changes.values_before >= FEWEST_TO_JUDGE and not changes.values_kept:
            what = (
                f"the {before} posts in the lake have {changes.values_before} values of metrics, and the {after} posts"
                " of the answer have 0 of the same metrics"
            )
        else:
            return
        raise ShrankTooMuch(
            f"{what}: nothing was replaced. Materialize it again, for the answer may have been wrong; if it is right,"
            " accept it: by --accept-shrinking of `later-reporting backfill`, or by accept_shrinking: true in the run"
            " config"
        )

    def check_bad_rows(self, bad_rows: int, *, of: int, what: str) -> None:
        """Looks at how many rows are bad, `of` all of them.

        Args:
            bad_rows: the bad ones.
            of: all rows, the good ones and the bad ones.
            what: of what they are, for people.

        Raises:
            TooManyBadRows: they are more than the limit allows.
        """
        if bad_rows * 100 > of * self.bad_rows_limit_percent:
            raise TooManyBadRows(
                f"{bad_rows} of {of} rows of {what} cannot be true: nothing was replaced, and they lie in quarantine."
                " Look at them by `later-reporting quarantine`; to land the others without them, raise"
                f" LATER_BAD_ROWS_LIMIT_PERCENT (bad_rows_limit_percent), now {self.bad_rows_limit_percent}"
            )
