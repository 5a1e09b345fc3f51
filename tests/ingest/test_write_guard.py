"""The write guard limits how much a response may remove from a partition, and how many of its rows may be bad."""

from contextlib import nullcontext

import pytest

from later_reporting_dagster.ingest.write_guard import PartitionDiff, ShrankTooMuch, TooManyBadRows, WriteGuard


def diff(before: int, after: int, *, values_before: int = 0, values_after: int = 0) -> PartitionDiff:
    return PartitionDiff(
        rows_before=before,
        rows_after=after,
        added=0,
        removed=0,
        restated=0,
        totals={},
        values_before=values_before,
        values_after=values_after,
    )


@pytest.mark.parametrize(
    ("limit", "before", "after", "rejected"),
    [
        (50, 500, 249, True),
        (50, 500, 250, False),
        (50, 20, 10, False),
        (50, 20, 9, True),
        (50, 19, 0, False),
        (50, 0, 0, False),
        (0, 20, 19, True),
        (0, 20, 20, False),
        (100, 500, 0, False),
    ],
)
def test_check_diff_limits_the_share_of_removed_rows(limit: int, before: int, after: int, rejected: bool) -> None:
    with pytest.raises(ShrankTooMuch) if rejected else nullcontext():
        WriteGuard(shrink_limit_percent=limit).check_diff(diff(before, after))


@pytest.mark.parametrize(
    ("limit", "rows", "values_before", "values_after", "rejected"),
    [
        (50, 5, 20, 0, True),
        (50, 5, 20, 1, False),
        (50, 5, 19, 0, False),
        (50, 0, 20, 0, False),  # all rows are removed, and too few of them to judge
        (0, 5, 20, 0, True),
        (100, 5, 20, 0, False),
    ],
)
def test_check_diff_rejects_rows_that_lose_all_metric_values(
    limit: int, rows: int, values_before: int, values_after: int, rejected: bool
) -> None:
    found = diff(5, rows, values_before=values_before, values_after=values_after)
    with pytest.raises(ShrankTooMuch) if rejected else nullcontext():
        WriteGuard(shrink_limit_percent=limit).check_diff(found)


@pytest.mark.parametrize(
    ("limit", "bad", "total", "rejected"),
    [
        (100, 7, 7, False),
        (50, 6, 10, True),
        (0, 1, 1000, True),
        (0, 0, 0, False),
        (1, 10, 1000, False),
        (1, 11, 1000, True),
    ],
)
def test_check_bad_rows_limits_the_share_of_bad_rows(limit: int, bad: int, total: int, rejected: bool) -> None:
    guard = WriteGuard(bad_rows_limit_percent=limit)
    with pytest.raises(TooManyBadRows, match=f"^{bad} of {total} rows are bad") if rejected else nullcontext():
        guard.check_bad_rows(bad, total=total, subject="rows are bad")
