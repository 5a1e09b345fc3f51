"""Tests of the checks that pages form one complete and consistent list."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.client.pagination import (
    Inconsistency,
    count_pages,
    find_page_inconsistency,
    merge_ends,
    remaining_pages,
)
from later_reporting_dagster.client.route import FIRST_PAGE, PageRequest, posts_route
from later_reporting_dagster.contract import ContentType, DateBasis, PerformanceQuery, Platform
from later_reporting_dagster.contract.page import Page, Pagination, posts_page_from_body
from tests.client.scripted_api import page_body, post

QUERY = PerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 2), instance_ids=("a", "b"))


def page_bodies(rows: list[dict], *, size: int = 3) -> list[dict]:
    count = max(1, math.ceil(len(rows) / size))
    return [
        page_body(rows[(n - 1) * size : n * size], page=n, page_size=size, total_items=len(rows))
        for n in range(1, count + 1)
    ]


def find_inconsistency(query: PerformanceQuery, pages: Sequence[Page], from_end: Sequence[Page] = ()) -> str | None:
    """Return why the pages are inconsistent, by the checks of each page and those of the list."""
    first = pages[0].pagination
    for ordered, is_end in ((pages, False), (from_end, True)):
        for number, page in enumerate(ordered, start=1):
            request = PageRequest(number, from_end=is_end)
            if problem := find_page_inconsistency(request, page.pagination, rows=page.rows, first=first):
                return problem
    try:
        merge_ends(posts_route(query), pages, from_end, total_items=first.total_items)
    except Inconsistency as error:
        return str(error)
    return None


def inconsistency_in(bodies: list[dict], query: PerformanceQuery = QUERY) -> str | None:
    return find_inconsistency(query, [posts_page_from_body(json.dumps(body).encode()) for body in bodies])


SEVEN = [post(number, instance_id="ab"[number % 2]) for number in range(7)]


def test_empty_list_may_state_one_page_or_none():
    assert inconsistency_in(page_bodies([])) is None
    (body,) = page_bodies([])
    for total_pages in (0, 1):
        body["pagination"]["totalPages"] = total_pages
        assert inconsistency_in([body]) is None


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([post(1), post(2), post(1)], "1 of 3 rows are duplicates"),
        ([{"bad": 1}, {"bad": 1}], "1 of 2 rows are duplicates"),
        ([post(1, instance_id="c")], "rows of instances that were not requested: 'c'"),
        ([post(1, instance_id="c", impressions=0.5)], "rows of instances that were not requested: 'c'"),
        (
            [post(1, post_date=datetime(2024, 6, 30, 23, 59, 59, 999000, tzinfo=UTC))],
            "a row of 2024-06-30T23:59:59.999000+00:00, before 2024-07-01",
        ),
        ([post(1, post_date=datetime(2024, 7, 3, tzinfo=UTC))], "a row of 2024-07-03T00:00:00+00:00, after 2024-07-02"),
        (
            [post(1, post_date=datetime(2024, 7, 3, tzinfo=UTC), impressions=0.5)],
            "a row of 2024-07-03T00:00:00+00:00, after 2024-07-02",
        ),
    ],
)
def test_duplicate_or_unrequested_row_is_found(rows, problem):
    assert inconsistency_in(page_bodies(rows)) == problem


def test_post_of_another_instance_or_campaign_is_not_a_duplicate():
    assert inconsistency_in(page_bodies([post(1), post(1, instance_id="b"), post(1, campaignId=2)])) is None


@pytest.mark.parametrize(
    "post_date",
    [
        datetime(2024, 7, 1, tzinfo=UTC),
        datetime(2024, 7, 2, 23, 59, 59, 999000, tzinfo=UTC),
        datetime(2024, 7, 3, 1, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_days_of_a_query_are_in_utc_and_inclusive(post_date):
    assert inconsistency_in(page_bodies([post(1, post_date=post_date)])) is None


def test_query_by_performance_date_accepts_older_posts_but_no_newer_ones():
    query = PerformanceQuery(
        start_date=date(2024, 7, 1), end_date=date(2024, 7, 1), date_basis=DateBasis.PERFORMANCE_DATE
    )
    older = post(1, post_date=datetime(2021, 1, 1, tzinfo=UTC), instance_id="c")
    assert inconsistency_in(page_bodies([older]), query) is None
    later = post(1, post_date=datetime(2024, 7, 2, tzinfo=UTC))
    assert inconsistency_in(page_bodies([later]), query) == "a row of 2024-07-02T00:00:00+00:00, after 2024-07-01"


DAYS = {"start_date": date(2024, 7, 1), "end_date": date(2024, 7, 2)}


@pytest.mark.parametrize(
    ("filters", "row", "problem"),
    [
        ({"platforms": (Platform.TIKTOK,)}, post(1), "rows of content types that were not requested: 'instagram_reel'"),
        ({"platforms": (Platform.TIKTOK,)}, post(1, contentType="x_post"), None),
        ({"platforms": (Platform.TIKTOK,)}, post(1, contentType=None), None),
        ({"content_types": (ContentType.INSTAGRAM_REEL,)}, post(1, contentType=None), None),
        (
            {"content_types": (ContentType.TIKTOK,)},
            post(1),
            "rows of content types that were not requested: 'instagram_reel'",
        ),
        ({}, post(1, instance_id="anything"), None),
    ],
)
def test_rows_have_to_match_the_filters_of_the_query(filters, row, problem):
    assert inconsistency_in(page_bodies([row]), PerformanceQuery(**DAYS, **filters)) == problem


@pytest.mark.parametrize(
    ("page", "changes", "problem"),
    [
        (1, {"page": 3}, "page 2 was requested, but page 3 was returned"),
        (2, {"totalItems": 8}, "page 1 states 7 items in pages of 3, page 3 states 8 in pages of 3"),
        (1, {"pageSize": 50}, "page 1 states 7 items in pages of 3, page 2 states 7 in pages of 50"),
        (2, {"totalPages": 4}, "page 3 states 4 pages for 7 items in pages of 3"),
    ],
)
def test_page_that_contradicts_itself_or_page_1_is_found(page, changes, problem):
    bodies = page_bodies(SEVEN)
    bodies[page]["pagination"] |= {"page": page + 1} | changes
    assert inconsistency_in(bodies) == problem


@pytest.mark.parametrize("page_size", [0, -1])
def test_page_size_below_one_is_inconsistent(page_size):
    pagination = Pagination(page=1, page_size=page_size, total_items=3, total_pages=1)
    assert count_pages(pagination) == 1
    assert find_page_inconsistency(FIRST_PAGE, pagination, rows=3, first=pagination) is not None


def test_total_pages_may_stop_at_the_last_page_that_can_be_requested():
    for total_pages in (500, 700):
        pagination = Pagination(page=1, page_size=100, total_items=70_000, total_pages=total_pages)
        assert find_page_inconsistency(FIRST_PAGE, pagination, rows=100, first=pagination) is None


def consistent_bodies() -> st.SearchStrategy[list[dict]]:
    return st.builds(
        lambda count, size: page_bodies(
            [post(number, instance_id="ab"[number % 2]) for number in range(count)], size=size
        ),
        st.integers(1, 30),
        st.integers(1, 10),
    )


@given(consistent_bodies(), st.data())
def test_any_lost_duplicated_or_replaced_row_is_found(bodies, data):
    assert inconsistency_in(bodies) is None
    rows = data.draw(st.sampled_from([body["data"] for body in bodies]))
    index = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(st.sampled_from([row for body in bodies for row in body["data"]]))
    match data.draw(st.sampled_from(["lose", "duplicate", "replace", "replace by an unrequested row"])):
        case "lose":
            del rows[index]
        case "duplicate":
            rows.insert(index, other)
        case "replace" if other is not rows[index]:
            rows[index] = other
        case _:
            rows[index] = post(1000, instance_id="c")
    assert inconsistency_in(bodies) is not None


@given(consistent_bodies().filter(lambda bodies: len(bodies) > 1), st.data())
def test_any_lost_repeated_or_swapped_page_is_found(bodies, data):
    one, other = data.draw(st.permutations(range(len(bodies))).map(lambda order: order[:2]))
    match data.draw(st.sampled_from(["lose", "repeat", "swap"])):
        case "lose":
            bodies[one] = bodies[one] | {"data": []}
        case "repeat":
            bodies[one] = bodies[other]
        case "swap":
            bodies[one], bodies[other] = bodies[other], bodies[one]
    assert inconsistency_in(bodies) is not None


@pytest.mark.parametrize(
    ("total_items", "from_start", "from_end"),
    [(0, 1, 0), (100, 1, 1), (101, 2, 0), (50_000, 500, 1), (50_001, 500, 2), (55_465, 500, 56), (100_000, 500, 500)],
)
def test_remaining_pages_beyond_500_are_fetched_from_the_end(total_items, from_start, from_end):
    first = Pagination(page=1, page_size=100, total_items=total_items, total_pages=math.ceil(total_items / 100))
    pages = [FIRST_PAGE, *remaining_pages(first, both_ends=True)]
    assert [page for page in pages if not page.from_end] == [PageRequest(number) for number in range(1, from_start + 1)]
    assert [page.number for page in pages if page.from_end] == list(range(1, from_end + 1))


def test_first_page_from_the_end_shows_rows_after_a_full_last_page():
    """A total that omits a whole last page agrees with the rows of the other pages."""
    rows = [post(number, instance_id="a") for number in range(9)]
    from_start = [page_body(rows[n : n + 3], page=n // 3 + 1, page_size=3, total_items=6) for n in (0, 3)]
    from_end = page_body(rows[:5:-1], page=1, page_size=3, total_items=6)
    pages = [posts_page_from_body(json.dumps(body).encode()) for body in (*from_start, from_end)]
    assert find_inconsistency(QUERY, pages[:2], pages[2:]) == "received 9 rows of 6"


@pytest.mark.parametrize(("total_items", "both_ends"), [(100_001, True), (50_001, False)])
def test_remaining_pages_of_too_long_a_list_are_none(total_items, both_ends):
    first = Pagination(page=1, page_size=100, total_items=total_items, total_pages=math.ceil(total_items / 100))
    assert remaining_pages(first, both_ends=both_ends) is None


def test_merge_ends_returns_each_row_of_the_overlap_once():
    rows = [post(number) | ({"impressions": 0.5} if number in (5, 9) else {}) for number in range(10)]
    bodies = [page_body(each, page=1, page_size=6, total_items=10) for each in (rows[:6], rows[:3:-1])]
    pages, from_end = ([posts_page_from_body(json.dumps(body).encode())] for body in bodies)
    result = merge_ends(posts_route(QUERY), pages, from_end, total_items=10)
    assert sorted(each.post_id for each in result.items) == [0, 1, 2, 3, 4, 6, 7, 8]
    assert sorted(json.loads(row.raw)["postId"] for row in result.bad_rows) == [5, 9]
