"""What an answer may take away, and how much of it may be bad."""

import re
from contextlib import nullcontext
from dataclasses import replace

import pytest

from later_reporting_dagster.ingest.partition_diff import Changes
from later_reporting_dagster.ingest.write_guard import Guard, ShrankTooMuch, TooManyBadRows


def changed(before: int, after: int, *, values_before: int = 0, values_kept: int = 0) -> Changes:
    return Changes(
        rows_before=before,
        rows_after=after,
        added=0,
        removed=0,
        restated=0,
        totals={},
        values_before=values_before,
        values_kept=values_kept,
    )


@pytest.mark.parametrize(
    ("limit", "before", "after", "refused"),
    [
        (50, 500, 0, True),
        (50, 500, 249, True),
        (50, 500, 250, False),
        (50, 21, 10, True),
        (50, 20, 10, False),
        (50, 20, 9, True),
        (50, 19, 0, False),
        (50, 0, 0, False),
        (0, 20, 19, True),
        (0, 20, 20, False),
        (0, 20, 30, False),
        (99, 500, 5, False),
        (99, 500, 4, True),
        (100, 500, 0, False),
    ],
)
def test_so_many_rows_may_be_gone(limit: int, before: int, after: int, refused: bool) -> None:
    with pytest.raises(ShrankTooMuch) if refused else nullcontext():
        Guard(shrink_limit_percent=limit).check_changes(changed(before, after))


@pytest.mark.parametrize(
    ("limit", "rows", "values_before", "values_kept", "refused"),
    [
        (50, 5, 20, 0, True),
        (50, 5, 20, 1, False),
        (50, 5, 19, 0, False),
        (50, 0, 20, 0, False),  # few rows that are gone take their values with them
        (0, 5, 20, 0, True),
        (100, 5, 20, 0, False),
    ],
)
def test_rows_may_not_stay_and_lose_all_their_values(
    limit: int, rows: int, values_before: int, values_kept: int, refused: bool
) -> None:
    found = changed(5, rows, values_before=values_before, values_kept=values_kept)
    with pytest.raises(ShrankTooMuch) if refused else nullcontext():
        Guard(shrink_limit_percent=limit).check_changes(found)


def test_it_says_how_many_there_were_and_how_to_accept_it() -> None:
    def refusal(changes: Changes, *, bad_rows: int = 0) -> str:
        with pytest.raises(ShrankTooMuch) as refused:
            Guard().check_changes(changes, bad_rows=bad_rows)
        return str(refused.value)

    accept = (
        ": nothing was replaced. Materialize it again, for the answer may have been wrong; if it is right, accept it:"
        " by --accept-shrinking of `later-reporting backfill`, or by accept_shrinking: true in the run config"
    )
    posts = "500 posts lie in the lake, and the answer has 0"
    assert refusal(changed(500, 0), bad_rows=3) == f"{posts} and 3 bad ones{accept}"
    assert refusal(changed(500, 0)) == f"{posts}{accept}"
    assert refusal(replace(changed(500, 499), values_before=900)) == (
        "the 500 posts in the lake have 900 values of metrics, and the 499 posts of the answer have 0 of the same"
        f" metrics{accept}"
    )


@pytest.mark.parametrize(
    ("limit", "bad", "of", "refused"),
    [
        (100, 7, 7, False),
        (50, 5, 10, False),
        (50, 6, 10, True),
        (0, 1, 1000, True),
        (0, 0, 1000, False),
        (0, 0, 0, False),
        (1, 10, 1000, False),
        (1, 11, 1000, True),
    ],
)
def test_so_many_rows_may_be_bad(limit: int, bad: int, of: int, refused: bool) -> None:
    guard = Guard(bad_rows_limit_percent=limit)
    line = (
        f"{bad} of {of} rows of it cannot be true: nothing was replaced, and they lie in quarantine. Look at them by"
        " `later-reporting quarantine`; to land the others without them, raise LATER_BAD_ROWS_LIMIT_PERCENT"
        f" (bad_rows_limit_percent), now {limit}"
    )
    with pytest.raises(TooManyBadRows, match=f"^{re.escape(line)}$") if refused else nullcontext():
        guard.check_bad_rows(bad, of=of, what="it")
