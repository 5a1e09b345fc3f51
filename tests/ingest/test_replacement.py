"""Which slice each row belongs to, and which rows may replace nothing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest

from later_reporting_dagster.client import ListResult
from later_reporting_dagster.contract import BadRow, DateBasis, PerformanceQuery, Post
from later_reporting_dagster.ingest.decide import Reason
from later_reporting_dagster.ingest.query_plan import partitions_of
from later_reporting_dagster.ingest.replacement import ReceivedRows, SliceRows, assign_rows
from later_reporting_dagster.lake import Partition
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
    assigned = sum(rows.total for rows in found.by_slice.values())
    assert assigned + len(found.unassigned) + found.others == result.total_items
    return found


def failed(found: ReceivedRows) -> dict[tuple[int, str], Reason]:
    return {
        (partition.day.day, str(partition.instance_id)): rows.problem.reason
        for partition, rows in found.by_slice.items()
        if rows.problem
    }


def rows_of(found: ReceivedRows, day: int, instance_id: str) -> SliceRows:
    return found.by_slice[Partition(date(2024, 7, day), instance_id)]


def test_rows_belong_to_their_utc_day_or_to_the_day_that_was_asked_for() -> None:
    found = received(BY_DATE, [*posts(1), *posts(3, "b"), *posts(4, "c")], bad("a", 1) + bad("a", 9))
    assert (rows_of(found, 1, "a").total, rows_of(found, 3, "b").total, found.others) == (2, 1, 2)
    found = received(BY_DAY, posts(9, count=2), bad(None, 9))
    assert (rows_of(found, 2, "a").total, found.others, found.unassigned) == (3, 0, [])


def test_a_row_outside_of_the_range_fails_its_first_and_last_day() -> None:
    found = received(BY_DATE, [*posts(2), *posts(4)])
    assert failed(found) == {(day, name): Reason.RANGE for day in (1, 3) for name in "ab"}
    assert (problem := rows_of(found, 1, "a").problem) is not None
    assert "LATER_PADDING_DAYS" in problem.text


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
    assert failed(found) == dict.fromkeys(expected, Reason.UNREADABLE)


@pytest.mark.parametrize(("unreadable", "fails"), [(2, False), (3, True)])
def test_mostly_unreadable_values_of_a_metric_fail_the_partition(unreadable: int, fails: bool) -> None:
    # Null is no value that was sent.
    items = [*posts(2, count=unreadable), *posts(2, first=10, count=2, engagements=5), *posts(2, first=20, count=50)]
    found = received(BY_DAY, items, unreadable={each.key: {"engagements": '"12 k"'} for each in items[:unreadable]})
    assert failed(found) == ({(2, "a"): Reason.UNREADABLE} if fails else {})
    if fails:
        assert (problem := rows_of(found, 2, "a").problem) is not None
        assert problem.text.startswith('3 of 5 values of engagements cannot be read, such as "12 k"')
