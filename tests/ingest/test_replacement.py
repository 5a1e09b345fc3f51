"""Which partition each row belongs to, and what may replace stored rows."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest

from later_reporting_dagster.client import ListResult
from later_reporting_dagster.contract import METRICS, BadRow, DateBasis, PerformanceQuery, Post, parse_metrics
from later_reporting_dagster.contract.rows import with_metrics
from later_reporting_dagster.ingest.query_plan import partitions_of
from later_reporting_dagster.ingest.replacement import (
    InDoubt,
    PartitionDiff,
    PartitionRows,
    RangeNotCovered,
    ReceivedRows,
    ShrankTooMuch,
    TooManyBadRows,
    Unreadable,
    WouldEmpty,
    WriteGuard,
    assign_rows,
    diff_partitions,
    with_stored_rows,
)
from later_reporting_dagster.lake import Partition, posts_table
from later_reporting_dagster.lake.tables import POSTS_PUBLISHED
from tests.lake.conftest import post

BY_DATE = PerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 3), instance_ids=("a", "b"))
BY_DAY = PerformanceQuery(
    start_date=date(2024, 7, 2), end_date=date(2024, 7, 2), instance_ids=("a",), date_basis=DateBasis.PERFORMANCE_DATE
)


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2024, 7, day, hour, tzinfo=UTC)


def posts(day: int, instance_id: str = "a", *, first: int = 0, count: int = 1, **fields: Any) -> list[Post]:
    return [post(instance_id=instance_id, post_id=first + n, post_date=at(day), **fields) for n in range(count)]


def bad(instance_id: str | None = None, day: int | None = None, count: int = 1) -> list[BadRow]:
    when = None if day is None else at(day)
    return [
        BadRow(reason="postId is missing", raw=f"{n}", instance_id=instance_id, post_date=when) for n in range(count)
    ]


def received(
    query: PerformanceQuery,
    items: Sequence[Post] = (),
    bad_rows: Sequence[BadRow] = (),
    *,
    unreadable: Mapping[Any, Mapping[str, str]] | None = None,
) -> ReceivedRows:
    result = ListResult([*items], [*bad_rows], pages=1, unreadable=unreadable or {})
    found = assign_rows(query, result, partitions_of(query))
    assigned = sum(rows.total for rows in found.by_partition.values())
    assert assigned + len(found.unassigned) + found.others == result.total_items
    return found


def failed(found: ReceivedRows) -> dict[tuple[int, str], type[Exception]]:
    return {
        (partition.day.day, str(partition.instance_id)): type(rows.problem)
        for partition, rows in found.by_partition.items()
        if rows.problem
    }


def rows_of(found: ReceivedRows, day: int, instance_id: str) -> PartitionRows:
    return found.by_partition[Partition(date(2024, 7, day), instance_id)]


def test_rows_belong_to_their_utc_day_or_to_the_day_that_was_asked_for() -> None:
    found = received(BY_DATE, [*posts(1), *posts(3, "b"), *posts(4, "c")], bad("a", 1) + bad("a", 9))
    assert (rows_of(found, 1, "a").total, rows_of(found, 3, "b").total, found.others) == (2, 1, 2)
    found = received(BY_DAY, posts(9, count=2), bad(None, 9))
    assert (rows_of(found, 2, "a").total, found.others, found.unassigned) == (3, 0, [])


def test_a_row_outside_of_the_range_fails_its_first_and_last_day() -> None:
    found = received(BY_DATE, [*posts(2), *posts(4)])
    assert failed(found) == {(day, name): RangeNotCovered for day in (1, 3) for name in "ab"}
    assert "LATER_WIDEN_DAYS" in str(rows_of(found, 1, "a").problem)


@pytest.mark.parametrize(
    ("bad_rows", "expected"),
    [
        (bad("a", 1, 2), {}),
        (bad("a", 1, 3), {(1, "a")}),
        # Without a day or an instance, they may be those of any partition.
        (bad("a", None, 4), {}),
        (bad("a", None, 5), {(1, "a"), (2, "a"), (3, "a")}),
        (bad("a", None, 50), {(1, "a"), (2, "a"), (3, "a")}),
        (bad(None, None, 6), {}),
        (bad(None, None, 7), {(day, name) for day in (1, 2, 3) for name in "ab"}),
    ],
)
def test_mostly_bad_rows_fail_all_partitions_that_they_may_belong_to(
    bad_rows: list[BadRow], expected: set[tuple[int, str]]
) -> None:
    found = received(BY_DATE, [*posts(1, count=2), *posts(2, count=2), *posts(1, "b", count=2)], bad_rows)
    assert failed(found) == dict.fromkeys(expected, Unreadable)


@pytest.mark.parametrize(("unreadable", "fails"), [(2, False), (3, True)])
def test_mostly_unreadable_values_of_a_metric_fail_the_partition(unreadable: int, fails: bool) -> None:
    # Null is no value that was sent.
    items = [*posts(2, count=unreadable), *posts(2, first=10, count=2, engagements=5), *posts(2, first=20, count=50)]
    found = received(BY_DAY, items, unreadable={each.key: {"engagements": '"12 k"'} for each in items[:unreadable]})
    assert failed(found) == ({(2, "a"): Unreadable} if fails else {})
    if fails:
        problem = str(rows_of(found, 2, "a").problem)
        assert problem.startswith('3 of 5 values of engagements cannot be read, such as "12 k"')


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
    assert diff_partitions(table_of(before), table_of(after)).restated == 0


def test_diff_counts_values_after_of_metrics_that_had_values() -> None:
    old = table_of({"post_id": 1, "impressions": 3, "cpm": 1.0}, {"post_id": 2, "impressions": 4})
    new = table_of({"post_id": 1, "paid_impressions": 3}, {"post_id": 2, "cpm": 0.0})
    found = diff_partitions(old, new)
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
    forward, backward = diff_partitions(old, new), diff_partitions(new, old)
    assert (forward.added, forward.removed, forward.restated) == (1, 1, 1)
    assert (forward.values_before, forward.values_after) == (2, 2)
    assert (backward.values_before, backward.values_after) == (2, 2)
    assert diff_partitions(old, old.drop_columns(["cpm"])).restated == 0


def test_diff_counts_rows() -> None:
    old, new = (
        table_of(*({"post_id": number, "cpm": value} for number, value in rows))
        for rows in ([(1, 1.0), (2, None), (3, 0.0), (4, None)], [(4, None), (3, None), (2, 0.0), (5, 1.0), (6, 1.0)])
    )
    found = diff_partitions(old, new)
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
def test_check_diff_limits_the_share_of_removed_rows_and_values(
    limit: int, rows: tuple[int, int], values: tuple[int, int], rejected: bool
) -> None:
    before, left = rows
    added = 1 if left else 0  # which makes up for no removed row
    found = PartitionDiff(rows_before=before, rows_after=left + added, added=added, removed=before - left, restated=0,
                          values_before=values[0], values_after=values[1])  # fmt: skip
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


# What may replace stored rows


def check(before: pa.Table, received: PartitionRows, *, is_confirmed: bool = False, limit: int = 50) -> PartitionDiff:
    rows = posts_table(received.items)
    if received.kept:
        rows = with_stored_rows(rows, before, received.kept, POSTS_PUBLISHED)
    return WriteGuard(shrink_limit_percent=limit).check_replacement(
        before, rows, received, table=POSTS_PUBLISHED, is_confirmed=is_confirmed
    )


STORED = posts_table(posts(1, count=6))


@pytest.mark.parametrize(
    ("received", "options", "error"),
    [
        (PartitionRows(posts(1, count=6)), {}, None),
        (PartitionRows(posts(1, count=1)), {}, None),
        (PartitionRows(), {}, WouldEmpty),
        (PartitionRows(), {"is_confirmed": True}, None),
        (PartitionRows(), {"limit": 100}, None),
        # Rows without a day may be those that are missing.
        (PartitionRows(posts(1, count=6), unplaced=3), {}, None),
        (PartitionRows(posts(1, count=5), unplaced=1), {}, InDoubt),
        (PartitionRows(posts(1, count=5), unplaced=1), {"is_confirmed": True}, InDoubt),
        (PartitionRows(posts(1, count=5), unplaced=1), {"limit": 100}, None),
        # Rows that stay hide nothing.
        (PartitionRows(kept={("a", 7, 0), ("a", 7, 1)}), {}, WouldEmpty),
        (PartitionRows(kept={("a", 7, number) for number in range(6)}), {}, None),
        (PartitionRows(posts(1, first=4, count=2), kept={("a", 7, number) for number in range(4)}), {}, None),
    ],
)
def test_rows_that_may_not_be_gone_are_in_doubt(
    received: PartitionRows, options: dict[str, Any], error: type[Exception] | None
) -> None:
    with pytest.raises(error) if error else nullcontext():
        check(STORED, received, **options)


def test_rows_that_stay_hide_no_loss_of_the_others() -> None:
    before = posts_table(posts(1, count=60))
    received = PartitionRows(posts(1, first=40, count=5), kept={("a", 7, number) for number in range(40)})
    with pytest.raises(ShrankTooMuch, match="20 posts are stored, and the response has 5 of them"):
        check(before, received)


def test_a_stored_row_that_stays_is_there_once() -> None:
    new = posts_table(posts(1, first=4, count=4))
    rows = with_stored_rows(new, STORED, {("a", 7, 1), ("a", 7, 5), ("a", 7, 99)}, POSTS_PUBLISHED)
    assert rows["post_id"].to_pylist() == [1, 4, 5, 6, 7]
    assert rows.schema == new.schema
