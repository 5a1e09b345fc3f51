"""A walk is believed only if its pages are one whole answer to what was asked."""

import json
import math
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.client.pagination import (
    FIRST,
    Place,
    as_walked,
    pages_in,
    places_after_first,
    problem_of,
    problem_of_page,
    without_overlap,
)
from later_reporting_dagster.contract import (
    ContentType,
    DateBasis,
    Page,
    Pagination,
    Platform,
    PostPerformanceQuery,
    SortDirection,
    SortProperty,
    page_from_body,
)
from tests.client.service import page_body, post

QUERY = PostPerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 2), instance_ids=("a", "b"))


def pages_of(rows: list[dict], *, size: int = 3) -> list[dict]:
    count = max(1, math.ceil(len(rows) / size))
    return [
        page_body(rows[(n - 1) * size : n * size], page=n, page_size=size, total_items=len(rows))
        for n in range(1, count + 1)
    ]


def problem_in(bodies: list[dict], query: PostPerformanceQuery = QUERY) -> str | None:
    return problem_of(query, [page_from_body(json.dumps(body).encode()) for body in bodies])


SEVEN = [post(number, instance_id="ab"[number % 2]) for number in range(7)]


def test_a_whole_answer_is_good():
    assert problem_in(pages_of(SEVEN)) is None
    assert problem_in(pages_of([])) is None


def test_an_answer_without_rows_may_have_one_page_or_none():
    (body,) = pages_of([])
    for total_pages in (0, 1):
        body["pagination"]["totalPages"] = total_pages
        assert problem_in([body]) is None


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([post(1), post(2), post(1)], "1 of 3 rows came twice"),
        ([{"bad": 1}, {"bad": 1}], "1 of 2 rows came twice"),
        ([post(1, instance_id="c")], "rows of instances that were not asked for: 'c'"),
        ([post(1, instance_id="c", impressions=0.5)], "rows of instances that were not asked for: 'c'"),
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
def test_a_doubled_or_foreign_row_is_named(rows, problem):
    assert problem_in(pages_of(rows)) == problem


def test_the_same_post_in_another_instance_or_campaign_is_another_row():
    assert problem_in(pages_of([post(1), post(1, instance_id="b"), post(1, campaignId=2)])) is None


@pytest.mark.parametrize(
    "post_date",
    [
        datetime(2024, 7, 1, tzinfo=UTC),
        datetime(2024, 7, 2, 23, 59, 59, 999000, tzinfo=UTC),
        datetime(2024, 7, 3, 1, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_the_days_of_a_query_are_utc_and_inclusive(post_date):
    assert problem_in(pages_of([post(1, post_date=post_date)])) is None


def test_by_performance_date_a_post_may_be_of_any_day_that_is_not_later():
    query = PostPerformanceQuery(
        start_date=date(2024, 7, 1), end_date=date(2024, 7, 1), date_basis=DateBasis.PERFORMANCE_DATE
    )
    assert problem_in(pages_of([post(1, post_date=datetime(2021, 1, 1, tzinfo=UTC), instance_id="c")]), query) is None
    later = post(1, post_date=datetime(2024, 7, 2, tzinfo=UTC))
    assert problem_in(pages_of([later]), query) == "a row of 2024-07-02T00:00:00+00:00, after 2024-07-01"


DAYS = {"start_date": date(2024, 7, 1), "end_date": date(2024, 7, 2)}


@pytest.mark.parametrize(
    ("filters", "row", "problem"),
    [
        ({"campaign_ids": (1,)}, post(1), None),
        ({"campaign_ids": (2,)}, post(1), "rows of campaigns that were not asked for: 1"),
        ({"platforms": (Platform.INSTAGRAM,)}, post(1), None),
        ({"platforms": (Platform.TIKTOK,)}, post(1), "rows of platforms that were not asked for: 'instagram_reel'"),
        ({"platforms": (Platform.TIKTOK,)}, post(1, contentType="x_post"), None),
        ({"platforms": (Platform.TIKTOK,)}, post(1, contentType=None), None),
        ({"content_types": (ContentType.INSTAGRAM_REEL,)}, post(1), None),
        ({"content_types": (ContentType.INSTAGRAM_REEL,)}, post(1, contentType=None), None),
        (
            {"content_types": (ContentType.TIKTOK,)},
            post(1),
            "rows of content types that were not asked for: 'instagram_reel'",
        ),
        ({}, post(1, instance_id="anything"), None),
    ],
)
def test_rows_fit_the_filters_of_the_query(filters, row, problem):
    assert problem_in(pages_of([row]), PostPerformanceQuery(**DAYS, **filters)) == problem


@pytest.mark.parametrize(
    ("page", "changes", "problem"),
    [
        (1, {"page": 2}, "page 2 was asked for, and page 3 answered"),
        (2, {"totalItems": 8}, "page 1 says 7 items by 3, page 3 says 8 by 3"),
        (1, {"pageSize": 50}, "page 1 says 7 items by 3, page 2 says 7 by 50"),
        (2, {"totalPages": 4}, "page 3 says that 7 items by 3 are 4 pages"),
    ],
)
def test_a_page_that_contradicts_itself_or_the_first_is_named(page, changes, problem):
    bodies = pages_of(SEVEN)
    bodies[page]["pagination"] |= {"page": page + 1} | changes
    if changes == {"page": 2}:
        bodies[page]["pagination"]["page"] = 3
    assert problem_in(bodies) == problem


@pytest.mark.parametrize("total_items", [-1, 2, 5])
def test_totals_that_the_rows_do_not_bear_out_are_no_answer(total_items):
    body = page_body(SEVEN[:3], page=1, page_size=3, total_items=total_items)
    assert problem_in([body]) is not None


@pytest.mark.parametrize("page_size", [0, -1])
def test_a_page_size_of_nothing_is_no_answer(page_size):
    pagination = Pagination(page=1, page_size=page_size, total_items=3, total_pages=1)
    assert pages_in(pagination) == 1
    assert problem_of_page(FIRST, pagination, rows=3, first=pagination) is not None


def test_beyond_the_last_page_that_can_be_asked_for_the_service_may_stop_counting_pages():
    for total_pages in (500, 700):
        pagination = Pagination(page=1, page_size=100, total_items=70_000, total_pages=total_pages)
        assert problem_of_page(FIRST, pagination, rows=100, first=pagination) is None


def good_pages() -> st.SearchStrategy[list[dict]]:
    return st.builds(
        lambda count, size: pages_of(
            [post(number, instance_id="ab"[number % 2]) for number in range(count)], size=size
        ),
        st.integers(1, 30),
        st.integers(1, 10),
    )


@given(good_pages(), st.data())
def test_no_single_row_can_be_lost_doubled_or_replaced_unnoticed(bodies, data):
    assert problem_in(bodies) is None
    rows = data.draw(st.sampled_from([body["data"] for body in bodies]))
    place = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(st.sampled_from([row for body in bodies for row in body["data"]]))
    match data.draw(st.sampled_from(["lose", "double", "replace", "swap for a foreign one"])):
        case "lose":
            del rows[place]
        case "double":
            rows.insert(place, other)
        case "replace" if other is not rows[place]:
            rows[place] = other
        case _:
            rows[place] = post(1000, instance_id="c")
    assert problem_in(bodies) is not None


@given(good_pages().filter(lambda bodies: len(bodies) > 1), st.data())
def test_no_page_can_be_lost_repeated_or_swapped_unnoticed(bodies, data):
    one, other = data.draw(st.permutations(range(len(bodies))).map(lambda order: order[:2]))
    match data.draw(st.sampled_from(["lose", "repeat", "swap"])):
        case "lose":
            bodies[one] = bodies[one] | {"data": []}
        case "repeat":
            bodies[one] = bodies[other]
        case "swap":
            bodies[one], bodies[other] = bodies[other], bodies[one]
    assert problem_in(bodies) is not None


def test_a_walk_asks_for_the_largest_pages_oldest_first():
    query = PostPerformanceQuery(
        **DAYS, instance_ids=("a",), page_number=4, sort_property=SortProperty.CPM, sort_direction=SortDirection.DESC
    )
    assert as_walked(query) == PostPerformanceQuery(
        **DAYS,
        instance_ids=("a",),
        page_size=100,
        page_number=1,
        sort_property=SortProperty.POST_DATE,
        sort_direction=SortDirection.ASC,
    )


@pytest.mark.parametrize(
    ("total_items", "from_the_beginning", "from_the_end"),
    [
        (0, 1, 0),
        (99, 1, 0),
        (100, 1, 1),
        (101, 2, 0),
        (250, 3, 0),
        (300, 3, 1),
        (50_000, 500, 1),
        (50_001, 500, 2),
        (55_465, 500, 56),
        (99_900, 500, 500),
        (100_000, 500, 500),
    ],
)
def test_what_lies_beyond_500_pages_is_reached_from_the_end(total_items, from_the_beginning, from_the_end):
    first = Pagination(page=1, page_size=100, total_items=total_items, total_pages=math.ceil(total_items / 100))
    places = [FIRST, *places_after_first(first, both_ends=True)]
    assert [place for place in places if not place.from_the_end] == [
        Place(number) for number in range(1, from_the_beginning + 1)
    ]
    assert [place.number for place in places if place.from_the_end] == list(range(1, from_the_end + 1))


def test_rows_beyond_a_full_last_page_are_told_by_the_other_end():
    """A total that leaves out the last page whole is seen by no count of what came."""
    rows = [post(number, instance_id="a") for number in range(9)]
    answered = [page_body(rows[n : n + 3], page=n // 3 + 1, page_size=3, total_items=6) for n in (0, 3)]
    from_the_end = page_body(rows[:5:-1], page=1, page_size=3, total_items=6)
    pages = [page_from_body(json.dumps(body).encode()) for body in (*answered, from_the_end)]
    assert problem_of(QUERY, pages[:2], pages[2:]) == "9 rows came of 6"


@pytest.mark.parametrize(("total_items", "both_ends"), [(100_001, True), (50_001, False)])
def test_more_than_that_cannot_be_reached(total_items, both_ends):
    first = Pagination(page=1, page_size=100, total_items=total_items, total_pages=math.ceil(total_items / 100))
    assert places_after_first(first, both_ends=both_ends) is None


def two_ends(
    count: int, head: int, tail: int, size: int = 2, bad: Collection[int] = ()
) -> tuple[list[Page], list[Page]]:
    """The first `head` rows, in their order, and the last `tail`, in the opposite one."""
    rows = [post(number) | ({"impressions": 0.5} if number in bad else {}) for number in range(count)]
    ends = (rows[:head], rows[count - tail :][::-1])
    return tuple(
        [
            page_from_body(
                json.dumps(
                    page_body(end[start : start + size], page=start // size + 1, page_size=size, total_items=count)
                ).encode()
            )
            for start in range(0, len(end), size)
        ]
        for end in ends
    )


def test_two_ends_that_overlap_are_one_answer(july):
    assert problem_of(july, *two_ends(10, 6, 6)) is None
    assert problem_of(july, *two_ends(10, 6, 4)) is None


def test_where_two_ends_overlap_each_row_comes_out_once():
    pages, from_the_end = two_ends(10, 6, 6, bad={5, 9})
    posts, bad_rows = without_overlap(pages, from_the_end)
    assert sorted(each.post_id for each in posts) == [0, 1, 2, 3, 4, 6, 7, 8]
    assert sorted(json.loads(row.raw)["postId"] for row in bad_rows) == [5, 9]
