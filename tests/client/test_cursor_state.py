"""What a walk by cursor has seen tells whether it is one answer, although there is no total to hold it against."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from later_reporting_dagster.client.cursor_state import (
    EMPTY_PAGES_IN_A_ROW,
    Trail,
    is_suspiciously_full,
    is_suspiciously_short,
)
from later_reporting_dagster.contract import CursorPage, cursor_page_from_body
from tests.client.service import nested, post

JULY = datetime(2024, 7, 1, tzinfo=UTC)


def page(*rows: dict, cursor: str | None) -> CursorPage:
    body = {"data": [nested(row) for row in rows], "nextCursor": cursor}
    return cursor_page_from_body(json.dumps(body).encode())


def bad(number: int, **changes: object) -> dict:
    return post(number, **changes) | {"impressions": 0.5}


@pytest.fixture
def trail(july):
    return Trail(july)


def test_rows_of_all_pages_come_out_good_and_bad_apart(trail):
    assert trail.add(page(post(1), bad(2), cursor="c1")) is None
    assert trail.add(page(bad(3), post(4), cursor=None)) is None
    posts, bad_rows = trail.rows_until(date(2024, 7, 31))
    assert [each.post_id for each in posts] == [1, 4]
    assert [json.loads(row.raw)["postId"] for row in bad_rows] == [2, 3]
    assert (trail.rows, trail.pages) == (4, 2)


def test_the_days_until_one_have_all_that_is_of_it_and_what_is_of_no_day(trail):
    rows = [post(number, post_date=JULY + timedelta(hours=number)) for number in (23, 24, 47, 48)]
    bad_rows = [bad(10 + row["postId"], post_date=JULY + timedelta(hours=row["postId"])) for row in rows]
    trail.add(page(*rows, *bad_rows, bad(99) | {"postDate": "some day"}, cursor=None))
    posts, bad_ones = trail.rows_until(date(2024, 7, 2))
    assert [each.post_id for each in posts] == [23, 24, 47]
    assert [json.loads(row.raw)["postId"] for row in bad_ones] == [33, 34, 57, 99]


def test_days_are_utc_days(trail):
    trail.add(page(post(1) | {"postDate": "2024-07-02T03:00:00.000+04:00"}, cursor=None))  # 23:00 of the day before
    assert trail.latest == datetime(2024, 7, 1, 23, tzinfo=UTC)
    assert trail.latest.date() == date(2024, 7, 1)
    assert len(trail.rows_until(date(2024, 7, 1))[0]) == 1


@pytest.mark.parametrize(
    ("days", "in_order"), [((1, 2, 2, 3), True), ((1, 3, 2), False), ((2, 1, 2, 3), False), ((3, 1, 2), False)]
)
def test_the_order_of_days_and_the_latest_are_told_over_all_pages(trail, days, in_order):
    for place, day in enumerate(days):
        trail.add(page(post(place, post_date=JULY + timedelta(days=day)), cursor=f"c{place}"))
    assert trail.is_in_order is in_order
    assert trail.latest == JULY + timedelta(days=max(days))


def test_pages_without_rows_are_counted_until_one_has_some(trail):
    def empty_pages(count: int, name: str) -> list[str | None]:
        return [trail.add(page(cursor=f"{name}{number}")) for number in range(count)]

    assert empty_pages(EMPTY_PAGES_IN_A_ROW - 1, "a") == [None] * (EMPTY_PAGES_IN_A_ROW - 1)
    assert trail.add(page(post(1), cursor="rows")) is None
    assert empty_pages(EMPTY_PAGES_IN_A_ROW, "b") == [None] * (EMPTY_PAGES_IN_A_ROW - 1) + [
        "10 pages without a row, and yet there should be more"
    ]


@pytest.mark.parametrize(("count", "is_full"), [(99, False), (100, True)])
def test_bad_rows_fill_a_page_as_good_ones_do(count, is_full):
    rows = [bad(0), *map(post, range(1, count))]
    assert is_suspiciously_full(page(*rows, cursor=None)) is is_full
    assert is_suspiciously_short(page(*rows, cursor="c1")) is not is_full
    assert not is_suspiciously_full(page(*rows, cursor="c1"))
    assert not is_suspiciously_short(page(*rows, cursor=None))
