"""Whether the rows of a response replace the stored ones: a table with a row for each case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from later_reporting_dagster.contract import METRICS, BadRow, Post, parse_metrics
from later_reporting_dagster.contract.rows import with_metrics
from later_reporting_dagster.ingest.decide import (
    AskAgain,
    Decision,
    Newer,
    Policy,
    Reason,
    Received,
    Reject,
    RowDiff,
    Stored,
    Unchanged,
    Write,
    WriteLimits,
    decide,
    diff_rows,
    too_many_bad_rows,
    too_much_lost,
    with_stored_rows,
)
from later_reporting_dagster.lake import LakeUnavailable, posts_table, schema_of
from later_reporting_dagster.lake.parquet_file import content_hash_of
from later_reporting_dagster.lake.tables import INSTANCE_PERFORMANCE_DAILY, POSTS_PUBLISHED, RawTable
from tests.lake.conftest import post

NOW = datetime(2024, 7, 10, 12, tzinfo=UTC)
BEFORE, LATER, NEXT_YEAR = NOW - timedelta(hours=1), NOW + timedelta(minutes=5), NOW + timedelta(days=365)
LATEST = NOW + timedelta(hours=1)


def posts(*numbers: int, **fields: Any) -> pa.Table:
    return posts_table([post(instance_id="a", campaign_id=7, post_id=number, **fields) for number in numbers])


def up_to(count: int, **fields: Any) -> pa.Table:
    return posts(*range(count), **fields)


def keys(*numbers: int) -> frozenset[tuple[str, int, int]]:
    return frozenset(("a", 7, number) for number in numbers)


def stored(rows: pa.Table | None, *at: datetime, content_hash: str | None = None) -> Stored:
    if content_hash is None:
        content_hash = "" if rows is None else content_hash_of(rows)
    return Stored(rows=rows, content_hash=content_hash, requested_at=at or [BEFORE])


@dataclass(frozen=True)
class Got:
    """A response, by default of rows that were stored before, and the policy for it."""

    rows: pa.Table
    bad: int = 0
    unplaced: int = 0
    kept: frozenset[Any] = frozenset()
    problem: Reject | None = None
    limits: WriteLimits = field(default_factory=WriteLimits)
    confirmed: bool = False
    table: RawTable = POSTS_PUBLISHED


ANY_LOSS, NO_BAD_ROWS = WriteLimits(max_row_loss_percent=100), WriteLimits(max_bad_rows_percent=0)
PROBLEM = Reject(Reason.UNREADABLE, "3 of 5 values of engagements cannot be read")
EQUAL, OTHER = up_to(5, impressions=3), up_to(5, impressions=4)
# Their hash, in a file whose rows something else has altered.
HASH = content_hash_of(EQUAL)
LIKES = posts_table(
    [
        with_metrics(Post, METRICS)(
            instance_id="a", campaign_id=7, post_id=number, post_date=NOW, impressions=3, likes=number
        )
        for number in range(5)
    ],
    metrics=parse_metrics("impressions, likes"),
)


def account(**metrics: float | None) -> pa.Table:
    """What the API totals for an instance over a period."""
    metrics_of = parse_metrics("impressions, engagements")
    row = {"instance_id": "a", "extra": None, "impressions": None, "engagements": None} | metrics
    return pa.Table.from_pylist([row], schema_of(INSTANCE_PERFORMANCE_DAILY.columns(metrics_of)))


OF_ACCOUNT: Mapping[str, Any] = {"table": INSTANCE_PERFORMANCE_DAILY}
EARNED, ZEROS, NULLS = account(impressions=5, engagements=0), account(impressions=0, engagements=0), account()

CASES: Sequence[tuple[str, Stored, Got, Any]] = [
    # what | stored | received and allowed | decision; a reason alone is that of a Reject
    ("the file cannot be read now", Stored(error=LakeUnavailable("gone")), Got(EQUAL), Reason.LAKE),
    ("too many bad rows", stored(OTHER), Got(EQUAL, bad=1, limits=NO_BAD_ROWS), Reason.BAD_ROWS),
    ("too many bad rows, and no file", stored(None), Got(EQUAL, bad=1, limits=NO_BAD_ROWS), Reason.BAD_ROWS),
    ("a problem of the rows", stored(None), Got(EQUAL, problem=PROBLEM), Reason.UNREADABLE),
    ("no file", Stored(), Got(EQUAL), Write),
    ("no file, and no rows", Stored(), Got(up_to(0)), Write),
    ("not Parquet, or other columns", stored(None), Got(EQUAL), Write),
    ("the same, of a later time", stored(None, LATER), Got(EQUAL), Write),
    ("equal rows", stored(EQUAL, BEFORE), Got(EQUAL), Unchanged),
    ("equal rows, of a later time", stored(EQUAL, LATER), Got(EQUAL), Unchanged),
    ("rows that were altered", stored(OTHER, content_hash=HASH), Got(EQUAL), Write),
    ("the same, of a later time", stored(OTHER, LATER, content_hash=HASH), Got(EQUAL), Write),
    ("a row was removed, of a later time", stored(up_to(4), LATER, content_hash=HASH), Got(EQUAL), Write),
    ("requested later", stored(OTHER, LATER), Got(EQUAL), Newer),
    ("an equal response of another run was later", stored(OTHER, BEFORE, LATER), Got(EQUAL), Newer),
    ("requested later, as all rows of it are gone", stored(OTHER, LATER), Got(up_to(0)), Newer),
    ("a clock that was wrong", stored(OTHER, NEXT_YEAR), Got(EQUAL), Write),
    ("requested at the same time", stored(OTHER, NOW), Got(EQUAL), Write),
    ("no time is known", Stored(rows=OTHER), Got(EQUAL), Write),
    ("half of the rows are gone", stored(up_to(40)), Got(up_to(20)), Write),
    ("more than half are gone", stored(up_to(40)), Got(up_to(19)), Reason.ROW_LOSS),
    ("the same, confirmed", stored(up_to(40)), Got(up_to(19), confirmed=True), Reason.ROW_LOSS),
    ("new rows make up for none", stored(up_to(40)), Got(posts(*range(21, 90))), Reason.ROW_LOSS),
    ("all of many rows are gone", stored(up_to(40)), Got(up_to(0)), Reason.ROW_LOSS),
    ("all of few rows are gone", stored(up_to(19)), Got(up_to(0)), AskAgain(Reason.WOULD_EMPTY, "")),
    ("the same, confirmed", stored(up_to(19)), Got(up_to(0), confirmed=True), Write),
    ("most of few rows are gone", stored(up_to(19)), Got(up_to(1)), AskAgain(Reason.ROW_LOSS, "")),
    ("the same, confirmed", stored(up_to(19)), Got(up_to(1), confirmed=True), Write),
    ("new rows make up for none", stored(up_to(3)), Got(posts(2, 5, 6, 7)), AskAgain(Reason.ROW_LOSS, "")),
    ("half of few rows are gone", stored(up_to(2)), Got(up_to(1)), Write),
    ("a row is replaced", stored(up_to(1)), Got(posts(5)), Write),
    ("the missing row may be a bad one", stored(up_to(5)), Got(up_to(4), unplaced=1), AskAgain(Reason.UNPLACED, "")),
    ("the same, confirmed", stored(up_to(5)), Got(up_to(4), unplaced=1, confirmed=True), AskAgain(Reason.UNPLACED, "")),
    ("no row is missing", stored(up_to(5)), Got(up_to(6), unplaced=3), Write),
    ("the missing row is kept", stored(EQUAL), Got(up_to(4, impressions=3), kept=keys(4)), Unchanged),
    ("all rows are kept", stored(EQUAL), Got(up_to(0), kept=keys(*range(5))), Unchanged),
    ("a kept row hides no loss", stored(up_to(5)), Got(up_to(0), kept=keys(0)), AskAgain(Reason.WOULD_EMPTY, "")),
    ("40 kept rows hide no loss of 15 in 20", stored(up_to(60)), Got(posts(*range(40, 45)), kept=keys(*range(40))),
     Reason.ROW_LOSS),
    ("a kept row of which nothing is stored", Stored(), Got(up_to(4), kept=keys(9)), Write),
    ("all values of a metric are gone", stored(up_to(20, cpm=1.0)), Got(up_to(20)), Reason.VALUES),
    ("of too few values", stored(up_to(19, cpm=1.0)), Got(up_to(19)), Write),
    ("a metric is newly requested", stored(EQUAL), Got(LIKES), Write),
    ("a metric is no longer requested", stored(LIKES), Got(EQUAL), Write),
    ("totals of an account: an object of nulls", stored(EARNED), Got(NULLS, **OF_ACCOUNT), AskAgain(Reason.VALUES, "")),
    ("the same, confirmed", stored(EARNED), Got(NULLS, confirmed=True, **OF_ACCOUNT), AskAgain(Reason.VALUES, "")),
    ("zeros", stored(EARNED), Got(ZEROS, **OF_ACCOUNT), AskAgain(Reason.WOULD_EMPTY, "")),
    ("the same, confirmed", stored(EARNED), Got(ZEROS, confirmed=True, **OF_ACCOUNT), Write),
    ("zeros after nulls", stored(NULLS), Got(ZEROS, **OF_ACCOUNT), Write),
    ("results after zeros", stored(ZEROS), Got(EARNED, **OF_ACCOUNT), Write),
    ("any loss is accepted: of results", stored(EARNED), Got(NULLS, limits=ANY_LOSS, **OF_ACCOUNT), Write),
    ("any loss is accepted: of most of few rows", stored(up_to(19)), Got(up_to(1), limits=ANY_LOSS), Write),
    ("any loss is accepted: of all rows", stored(up_to(40)), Got(up_to(0), limits=ANY_LOSS), Write),
    ("of rows that may be bad ones", stored(up_to(5)), Got(up_to(4), unplaced=1, limits=ANY_LOSS), Write),
    ("of all values", stored(up_to(20, cpm=1.0)), Got(up_to(20), limits=ANY_LOSS), Write),
    ("but no problem of the rows", stored(OTHER), Got(EQUAL, problem=PROBLEM, limits=ANY_LOSS), Reason.UNREADABLE),
]  # fmt: skip


def decision_of(before: Stored, got: Got) -> Decision:
    received = Received(
        rows=got.rows,
        requested_at=NOW,
        bad_rows=[BadRow(reason="postId is missing", raw="{}")] * got.bad,
        unplaced=got.unplaced,
        kept=got.kept,
        problem=got.problem,
    )
    policy = Policy(table=got.table, limits=got.limits, latest=LATEST, is_confirmed=got.confirmed)
    return decide(received, before, policy)


@pytest.mark.parametrize(("before", "got", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_decide(before: Stored, got: Got, expected: Any) -> None:
    match decision_of(before, got):
        case Reject(reason, text):
            assert reason is expected
            assert text
        case AskAgain(reason, text):
            assert AskAgain(reason, "") == expected
            assert text
        case decision:
            assert type(decision) is expected


def test_what_is_written_has_the_kept_rows_and_their_hash() -> None:
    decision = decision_of(stored(EQUAL), Got(posts(0, 1, 6, impressions=9), kept=keys(1, 4), confirmed=True))
    assert isinstance(decision, Write)
    assert decision.rows["post_id"].to_pylist() == [0, 1, 4, 6]
    assert decision.rows["impressions"].to_pylist() == [9, 9, 3, 9]
    assert decision.content_hash == content_hash_of(decision.rows)
    # Kept rows are in neither side: of the others, post 0 is restated, 2 and 3 are removed, and 6 is added.
    assert decision.diff is not None
    diff = decision.diff
    assert (diff.rows_before, diff.rows_after, diff.restated, diff.removed, diff.added) == (3, 2, 1, 2, 1)


@pytest.mark.parametrize(("before", "expected"), [(None, None), (OTHER, 5)])
def test_a_diff_has_what_could_be_read(before: pa.Table | None, expected: int | None) -> None:
    decision = decision_of(stored(before), Got(EQUAL))
    assert isinstance(decision, Write)
    assert (decision.diff and decision.diff.restated) == expected


def test_texts_say_what_is_stored_and_what_to_do() -> None:
    lost = decision_of(stored(up_to(60)), Got(posts(*range(40, 45)), kept=keys(*range(40))))
    assert isinstance(lost, Reject)
    assert lost.text.startswith("20 posts are stored, and the response has 5 of them: nothing was replaced")
    assert "--allow-row-loss" in lost.text


# Differences, and how much may be removed or bad

IDENTITY: dict[str, Any] = {
    "instance_id": "instance_000",
    "campaign_id": 7,
    "post_date": datetime(2024, 1, 3, tzinfo=UTC),
}


def table_of(*given: dict[str, Any]) -> pa.Table:
    return posts_table([post(**fields) for fields in given])


def test_diff_ignores_unknown_fields() -> None:
    before, after = ({"post_id": 1, "extra": extra} for extra in ('{"likes":5}', None))
    assert diff_rows(table_of(before), table_of(after)).restated == 0


def test_diff_counts_values_after_of_metrics_that_had_values() -> None:
    old = table_of({"post_id": 1, "impressions": 3, "cpm": 1.0}, {"post_id": 2, "impressions": 4})
    new = table_of({"post_id": 1, "paid_impressions": 3}, {"post_id": 2, "cpm": 0.0})
    found = diff_rows(old, new)
    assert (found.values_before, found.values_after) == (3, 1)


def test_diff_ignores_a_metric_that_only_one_side_has() -> None:
    old = table_of({"post_id": 1, "impressions": 3, "cpm": 1.0}, {"post_id": 2, "impressions": 4})
    new = posts_table(
        [
            with_metrics(Post, METRICS)(**(IDENTITY | {"post_id": each, "impressions": 5, "likes": 6}))
            for each in (1, 3)
        ],
        metrics=parse_metrics("impressions, likes"),
    )
    forward, backward = diff_rows(old, new), diff_rows(new, old)
    assert (forward.added, forward.removed, forward.restated) == (1, 1, 1)
    assert (forward.values_before, forward.values_after) == (2, 2)
    assert (backward.values_before, backward.values_after) == (2, 2)
    assert diff_rows(old, old.drop_columns(["cpm"])).restated == 0


def test_diff_counts_rows() -> None:
    old, new = (
        table_of(*({"post_id": number, "cpm": value} for number, value in rows))
        for rows in ([(1, 1.0), (2, None), (3, 0.0), (4, None)], [(4, None), (3, None), (2, 0.0), (5, 1.0), (6, 1.0)])
    )
    found = diff_rows(old, new)
    assert (found.rows_before, found.rows_after, found.added, found.removed, found.restated) == (4, 5, 2, 1, 2)


@pytest.mark.parametrize(
    ("limit", "rows", "values", "rejected"),  # of rows: stored, and stored ones that are left
    [
        (50, (500, 249), (0, 0), True),
        (50, (500, 250), (0, 0), False),
        (50, (20, 10), (0, 0), False),
        (50, (20, 9), (0, 0), True),
        (50, (19, 0), (0, 0), False),
        (0, (20, 19), (0, 0), True),
        (0, (20, 20), (0, 0), False),
        (100, (500, 0), (0, 0), False),
        # Rows that lose all values of their metrics.
        (50, (5, 5), (20, 0), True),
        (50, (5, 5), (20, 1), False),
        (50, (5, 5), (19, 0), False),
        (50, (5, 0), (20, 0), False),  # all rows are removed, and too few of them to judge
        (0, (5, 5), (20, 0), True),
    ],
)
def test_too_much_lost_limits_the_share_of_removed_rows_and_values(
    limit: int, rows: tuple[int, int], values: tuple[int, int], rejected: bool
) -> None:
    before, left = rows
    added = 1 if left else 0  # which makes up for no removed row
    found = RowDiff(rows_before=before, rows_after=left + added, added=added, removed=before - left, restated=0,
                          values_before=values[0], values_after=values[1])  # fmt: skip
    decision = too_much_lost(WriteLimits(max_row_loss_percent=limit), found)
    assert (decision is not None) == rejected


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
def test_too_many_bad_rows_limits_the_share_of_bad_rows(limit: int, bad: int, total: int, rejected: bool) -> None:
    limits = WriteLimits(max_bad_rows_percent=limit)
    decision = too_many_bad_rows(limits, bad, total=total, subject="rows are bad")
    assert (decision is not None) == rejected
    if decision is not None:
        assert decision.text.startswith(f"{bad} of {total} rows are bad")


def test_a_stored_row_that_stays_is_there_once() -> None:
    new, before = posts(4, 5, 6, 7), up_to(6)
    rows = with_stored_rows(new, before, keys(1, 5, 99), POSTS_PUBLISHED)
    assert rows["post_id"].to_pylist() == [1, 4, 5, 6, 7]
    assert rows.schema == new.schema
