"""Tests of the checks of a cursor pagination, which has no totals."""

import json
from datetime import UTC, date, datetime, timedelta

import pytest

from later_reporting_dagster.client.cursor_state import (
    MAX_EMPTY_PAGES_IN_A_ROW,
    CursorState,
    is_suspiciously_full,
    is_suspiciously_short,
)
from later_reporting_dagster.contract import CursorPage, cursor_page_from_body
from tests.client.scripted_api import nest_metrics, post

JULY = datetime(2024, 7, 1, tzinfo=UTC)


def page(*rows: dict, cursor: str | None) -> CursorPage:
    body = {"data": [nest_metrics(row) for row in rows], "nextCursor": cursor}
    return cursor_page_from_body(json.dumps(body).encode())


def bad_row(number: int, **changes: object) -> dict:
    return post(number, **changes) | {"impressions": 0.5}


@pytest.fixture
def state(july):
    """The state of a pagination before its first page."""
    return CursorState(july)


def test_rows_until_separates_posts_and_bad_rows_of_all_pages(state):
    assert state.add(page(post(1), bad_row(2), cursor="c1")) is None
    assert state.add(page(bad_row(3), post(4), cursor=None)) is None
    posts, bad_rows = state.rows_until(date(2024, 7, 31))
    assert [each.post_id for each in posts] == [1, 4]
    assert [json.loads(row.raw)["postId"] for row in bad_rows] == [2, 3]
    assert (state.rows, state.pages) == (4, 2)


def test_rows_until_includes_the_last_day_and_rows_without_a_date(state):
    rows = [post(number, post_date=JULY + timedelta(hours=number)) for number in (23, 24, 47, 48)]
    bad_rows = [bad_row(10 + row["postId"], post_date=JULY + timedelta(hours=row["postId"])) for row in rows]
    state.add(page(*rows, *bad_rows, bad_row(99) | {"postDate": "not a date"}, cursor=None))
    posts, bad_rows_until = state.rows_until(date(2024, 7, 2))
    assert [each.post_id for each in posts] == [23, 24, 47]
    assert [json.loads(row.raw)["postId"] for row in bad_rows_until] == [33, 34, 57, 99]


def test_days_are_in_utc(state):
    state.add(page(post(1) | {"postDate": "2024-07-02T03:00:00.000+04:00"}, cursor=None))  # 23:00 of the day before
    assert state.latest == datetime(2024, 7, 1, 23, tzinfo=UTC)
    assert state.latest.date() == date(2024, 7, 1)
    assert len(state.rows_until(date(2024, 7, 1))[0]) == 1


@pytest.mark.parametrize(
    ("days", "in_order"), [((1, 2, 2, 3), True), ((1, 3, 2), False), ((2, 1, 2, 3), False), ((3, 1, 2), False)]
)
def test_order_and_latest_time_cover_all_pages(state, days, in_order):
    for number, day in enumerate(days):
        state.add(page(post(number, post_date=JULY + timedelta(days=day)), cursor=f"c{number}"))
    assert state.is_in_order is in_order
    assert state.latest == JULY + timedelta(days=max(days))


def test_empty_pages_are_limited_until_a_page_has_rows(state):
    def add_empty_pages(count: int, name: str) -> list[str | None]:
        return [state.add(page(cursor=f"{name}{number}")) for number in range(count)]

    assert add_empty_pages(MAX_EMPTY_PAGES_IN_A_ROW - 1, "a") == [None] * (MAX_EMPTY_PAGES_IN_A_ROW - 1)
    assert state.add(page(post(1), cursor="rows")) is None
    assert add_empty_pages(MAX_EMPTY_PAGES_IN_A_ROW, "b") == [None] * (MAX_EMPTY_PAGES_IN_A_ROW - 1) + [
        "10 empty pages in a row, each with a next cursor"
    ]


@pytest.mark.parametrize(("count", "is_full"), [(99, False), (100, True)])
def test_bad_rows_count_towards_a_full_page(count, is_full):
    rows = [bad_row(0), *map(post, range(1, count))]
    assert is_suspiciously_full(page(*rows, cursor=None)) is is_full
    assert is_suspiciously_short(page(*rows, cursor="c1")) is not is_full
    assert not is_suspiciously_full(page(*rows, cursor="c1"))
    assert not is_suspiciously_short(page(*rows, cursor=None))
