"""Pagination by page numbers and by cursors: the pages form one complete and consistent list, or are fetched again."""

import contextlib
import json
import math
import re
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse

from later_reporting_dagster.client import (
    InconsistentPages,
    MetricsRejected,
    PageFetched,
    PagesRefetched,
    QueryRejected,
    TooManyPosts,
)
from later_reporting_dagster.client.pagination import (
    Inconsistency,
    find_page_inconsistency,
    merge_ends,
    remaining_pages,
)
from later_reporting_dagster.client.route import FIRST_PAGE, PageRequest, posts_route
from later_reporting_dagster.contract import CURSOR, PAGED, ContentType, DateBasis, PerformanceQuery, Platform
from later_reporting_dagster.contract.page import Pagination, posts_page_from_body
from tests.client.scripted_api import THREE_PAGES, fetch_posts, of_type, page_body, post, run_with
from tests.conftest import problem


def test_more_posts_than_max_posts_raise_after_one_request(service, new_client, july):
    service.posts = THREE_PAGES
    assert len(fetch_posts(new_client(), july, max_posts=250).items) == 250
    del service.requests[:]
    with pytest.raises(TooManyPosts) as raised:
        fetch_posts(new_client(), july, max_posts=249)
    assert str(raised.value) == (
        "posts of 2024-07-01 to 2024-07-31 by post_date, instances 'a', 'b': 250 items on 3 pages are too"
        " many for one query. Query fewer days or instances."
    )
    assert raised.value.total_items == 250
    assert len(service.requests_to()) == 1


def test_too_many_bytes_raise_with_the_stated_total(service, new_client, july, monkeypatch):
    monkeypatch.setattr("later_reporting_dagster.client.pagination.MAX_BYTES", 30_000)
    service.posts = THREE_PAGES
    with pytest.raises(TooManyPosts, match="the list has more than .* or 30000 bytes. Query fewer days") as raised:
        fetch_posts(new_client(), july)
    assert raised.value.total_items == 250


def test_posts_beyond_the_last_page_number_are_fetched_from_the_other_end(service, new_client, july, monkeypatch):
    monkeypatch.setattr("later_reporting_dagster.client.pagination.MAX_PAGE_NUMBER", 5)
    service.posts = [post(number, post_date=datetime(2024, 7, 1, tzinfo=UTC)) for number in range(950)]
    bad = [10, 460, 900]  # the second one is on pages from both ends
    for number in bad:
        service.posts[number]["impressions"] = 0.5
    result = fetch_posts(new_client(), july)
    assert sorted(json.loads(row.raw)["postId"] for row in result.bad_rows) == bad
    assert sorted([*bad, *(each.post_id for each in result.items)]) == list(range(950))
    directions = [dict(request.parameters)["sortDirection"] for request in service.requests_to()]
    assert (directions.count("ASC"), directions.count("DESC")) == (5, 5)


def test_posts_that_arrive_between_pages_are_neither_lost_nor_duplicated(service, new_client, july, events):
    service.posts = THREE_PAGES[10:]

    async def arrive(request):
        service.posts = THREE_PAGES

    service.faults.extend([None, arrive])
    result = fetch_posts(new_client(concurrency=1), july)
    assert [post.post_id for post in result.items] == list(range(250))
    changed = "page 1 states 240 items in pages of 100, page 2 states 250 in pages of 100"
    assert of_type(events, PagesRefetched) == [PagesRefetched(changed)]


def test_exchanged_post_is_detected_by_verification(service, new_client, july, events):
    """A post of page 1 is removed, and another one appended: the totals stay the same."""

    async def exchange(request):
        service.posts = [*THREE_PAGES[1:], post(250)]

    service.posts = THREE_PAGES
    service.faults.extend([None, exchange])
    result = fetch_posts(new_client(concurrency=1, verification_rates={PAGED: 1.0}), july)
    assert [post.post_id for post in result.items] == [*range(1, 251)]
    assert len(service.requests_to()) == 4 * 3
    assert of_type(events, PagesRefetched) == [PagesRefetched("2 rows differ in a verification fetch")]


def test_verification_rate_selects_the_share_of_queries(service, new_client, july):
    service.posts = THREE_PAGES
    draws = iter([0.49, 0.5, 0.51])
    client = new_client(verification_rates={PAGED: 0.5}, random=lambda: next(draws))

    async def results(client):
        counts = []
        for _ in range(3):
            await client.fetch_posts(july)
            counts.append(len(service.requests_to()) - sum(counts))
        return counts

    assert run_with(client, results) == [6, 3, 3]


# That there are no more than 100 posts is checked by a second page, from the other end.
@pytest.mark.parametrize(("count", "requests"), [(0, 1), (99, 1), (100, 4), (101, 4)])
def test_single_page_is_not_verified(service, new_client, july, count, requests):
    service.posts = THREE_PAGES[:count]
    fetch_posts(new_client(verification_rates={PAGED: 1.0}), july)
    assert len(service.requests_to()) == requests


def test_inconsistent_pages_are_fetched_again_once_and_not_to_their_end(service, new_client, july, events):
    service.posts = [post(number, post_date=datetime(2024, 7, 1, tzinfo=UTC)) for number in range(5000)]
    service.change_body = lambda number, body: body | {"data": body["data"][: 99 if number > 1 else 100]}
    with pytest.raises(InconsistentPages, match="page . has 99 rows instead of 100"):
        fetch_posts(new_client(concurrency=2), july)
    assert len(of_type(events, PagesRefetched)) == 1
    assert len(service.requests_to()) < 15


@pytest.fixture
def new_cursor_client(service, new_client):
    """A factory of clients of a service with the cursor version, which they need not detect."""
    service.by_cursor = True
    return lambda **changes: new_client(**{"api_version": CURSOR} | changes)


def test_requests_differ_only_in_the_cursor(service, new_cursor_client, july, events):
    service.posts = THREE_PAGES
    fetch_posts(new_cursor_client(), july)
    first, *others = service.requests_to()
    assert first.query.startswith(
        "startDate=2024-07-01&endDate=2024-07-31&instanceIds=a&instanceIds=b&dateBasis=post_date&metrics=engagements%2C"
    )
    assert first.query.endswith("&limit=100&sortProperty=postDate&sortDirection=ASC")
    assert [request.cursor for request in others] == ["c100", "c200"]
    for request in others:
        assert [pair for pair in request.parameters if pair[0] != "nextCursor"] == first.parameters
    assert len(of_type(events, PageFetched)) == 3


def test_too_many_pages_raise_without_a_total(service, new_cursor_client, july, monkeypatch):
    monkeypatch.setattr("later_reporting_dagster.client.pagination.MAX_PAGES", 2)
    service.posts = [post(0, contentType="unlisted"), *THREE_PAGES[1:]]
    with pytest.raises(TooManyPosts, match="the list has more than 2 pages or .* Query fewer days") as raised:
        fetch_posts(new_cursor_client(), july)
    assert raised.value.total_items is None
    assert raised.value.content_types == {"unlisted", "instagram_reel"}


@pytest.mark.parametrize(("max_posts", "requests"), [(250, 3), (199, 2), (99, 1)])
def test_more_posts_than_max_posts_raise_after_so_many(service, new_cursor_client, july, max_posts, requests):
    service.posts = THREE_PAGES
    with contextlib.nullcontext() if max_posts == 250 else pytest.raises(TooManyPosts, match=f"more than {max_posts} "):
        fetch_posts(new_cursor_client(), july, max_posts=max_posts)
    assert len(service.requests_to()) == requests


def test_bad_rows_count_towards_a_full_page(service, new_cursor_client, july):
    service.posts = [post(0, impressions=0.5), *map(post, range(1, 100))]
    result = fetch_posts(new_cursor_client(), july)
    assert (len(result.items), len(result.bad_rows), len(service.requests_to())) == (99, 1, 2)


def test_empty_last_page_ends_the_pagination(service, new_cursor_client, july):
    service.posts = THREE_PAGES[:200]
    service.change_body = lambda number, body: body | {"nextCursor": f"c{number * 100}" if number < 3 else None}
    result = fetch_posts(new_cursor_client(), july)
    assert (len(result.items), len(service.requests_to())) == (200, 3)


@pytest.mark.parametrize(
    ("change_body", "problem_text"),
    [
        (lambda number, body: body | {"data": [post(1), *body["data"][1:]]} if number > 1 else body, "are duplicates"),
        (lambda number, body: body | {"nextCursor": "c100"}, "the cursor of page 2 repeats an earlier one"),
        (lambda number, body: body | {"nextCursor": None}, "50 rows are missing after the last page|150 rows|100 rows"),
        (lambda number, body: body | {"data": [*body["data"], post(9999)]}, "page 1 has 101 rows"),
        (
            lambda number, body: {"data": [], "nextCursor": f"c{number}00"},
            "10 empty pages in a row, each with a next cursor",
        ),
    ],
)
def test_inconsistent_pages_in_both_fetches_raise(service, new_cursor_client, july, events, change_body, problem_text):
    service.posts, service.change_body = THREE_PAGES, change_body
    with pytest.raises(InconsistentPages, match=problem_text):
        fetch_posts(new_cursor_client(), july)
    assert len(of_type(events, PagesRefetched)) == 1


def test_short_page_that_differs_when_fetched_again_restarts_the_pagination(service, new_cursor_client, july, events):
    service.posts = THREE_PAGES
    service.change_body = lambda number, body: (
        body | {"data": body["data"][:40]} if len(service.requests_to()) == 2 else body
    )
    result = fetch_posts(new_cursor_client(), july)
    assert [each.post_id for each in result.items] == list(range(250))
    assert [event.reason for event in of_type(events, PagesRefetched)] == ["page 2 has other rows when fetched again"]


def test_short_page_that_stays_the_same_is_accepted(service, new_cursor_client, july):
    service.posts = THREE_PAGES
    service.change_body = lambda number, body: body | {"data": body["data"][:40]} if number == 2 else body
    result = fetch_posts(new_cursor_client(), july)
    assert (len(result.items), len(service.requests_to())) == (190, 4)


EXPIRED_CURSOR = problem(400, "ANL_00400", detail="the cursor has expired")


def test_expired_cursor_restarts_the_pagination(service, new_cursor_client, july, events):
    service.posts = THREE_PAGES
    service.faults.extend([None, None, EXPIRED_CURSOR])
    result = fetch_posts(new_cursor_client(), july)
    assert [each.post_id for each in result.items] == list(range(250))
    assert [request.cursor for request in service.requests_to()] == [None, "c100", "c200", None, "c100", "c200"]
    (refetched,) = of_type(events, PagesRefetched)
    assert refetched.reason.startswith("the cursor of page 3 was rejected: posts of 2024-07-01")


@pytest.mark.parametrize("member", ["title", "detail"])
def test_rejected_metrics_are_distinguished_from_other_rejections(service, new_cursor_client, july, member):
    body = dict.fromkeys(("type", "title", "detail")) | {member: "metrics not supported for these filters: replies"}
    service.faults.append(JSONResponse(body, 400))
    with pytest.raises(MetricsRejected, match="replies") as raised:
        fetch_posts(new_cursor_client(), july)
    assert raised.value.status == 400
    assert raised.value.detail == body[member]
    service.faults.append(problem(400, "ANL_00400", detail="endDate is wrong"))
    with pytest.raises(QueryRejected) as raised:
        fetch_posts(new_cursor_client(), replace(july, instance_ids=("metrics",)))
    assert not isinstance(raised.value, MetricsRejected)


# The checks of a list, without a server


THIRTY = [post(number, instance_id="ab"[number % 2]) for number in range(30)]
QUERY = PerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 2), instance_ids=("a", "b"))


def page_bodies(rows: list[dict], *, size: int = 3) -> list[dict]:
    starts = range(0, max(1, len(rows)), size)
    return [
        page_body(rows[start : start + size], page=number, page_size=size, total_items=len(rows))
        for number, start in enumerate(starts, 1)
    ]


def inconsistency_in(bodies: list[dict], *, from_end: tuple[dict, ...] = (), query: PerformanceQuery = QUERY) -> str:
    """Return why the pages are inconsistent, by the checks of each page and those of the list; "" if they are not."""
    pages, last_pages = (
        [posts_page_from_body(json.dumps(body).encode()) for body in each] for each in (bodies, from_end)
    )
    first = pages[0].pagination
    for number, page in enumerate(pages, start=1):
        if found := find_page_inconsistency(PageRequest(number), page.pagination, rows=page.rows, first=first):
            return found
    try:
        merge_ends(posts_route(query), pages, last_pages, total_items=first.total_items)
    except Inconsistency as error:
        return str(error)
    return ""


@pytest.mark.parametrize("total_pages", [0, 1])
def test_empty_list_may_state_one_page_or_none(total_pages):
    (body,) = page_bodies([])
    body["pagination"]["totalPages"] = total_pages
    assert inconsistency_in([body]) == ""


OF_DAY_1 = {"end_date": date(2024, 7, 1), "date_basis": DateBasis.PERFORMANCE_DATE}
OF_TIKTOK = {"content_types": (ContentType.TIKTOK,)}
UNREQUESTED = "rows of instances that were not requested: 'c'"


@pytest.mark.parametrize(
    ("query", "rows", "problem_text"),
    [
        ({}, [post(1), post(2), post(1)], "1 of 3 rows are duplicates"),
        ({}, [{"bad": 1}, {"bad": 1}], "1 of 2 rows are duplicates"),
        ({}, [post(1), post(1, instance_id="b"), post(1, campaignId=2)], ""),
        ({}, [post(1, instance_id="c")], UNREQUESTED),
        ({}, [post(1, instance_id="c", impressions=0.5)], UNREQUESTED),
        ({"instance_ids": ()}, [post(1, instance_id="anything")], ""),
        # Days are in UTC and inclusive.
        ({}, [post(1, postDate="2024-07-01T00:00:00Z")], ""),
        ({}, [post(1, postDate="2024-07-02T23:59:59.999Z")], ""),
        ({}, [post(1, postDate="2024-07-03T01:00:00+02:00")], ""),
        ({}, [post(1, postDate="2024-06-30T23:59:00Z")], "a row of 2024-06-30.*, before 2024-07-01"),
        ({}, [post(1, postDate="2024-07-03T00:00:00Z")], "a row of 2024-07-03.*, after 2024-07-02"),
        ({}, [post(1, postDate="2024-07-03T00:00:00Z", impressions=0.5)], "a row of 2024-07-03.*, after .*"),
        # By performance date, posts may be older, but not newer.
        (OF_DAY_1, [post(1, postDate="2021-01-01T00:00:00Z")], ""),
        (OF_DAY_1, [post(1, postDate="2024-07-02T00:00:00Z")], "a row of 2024-07-02.*, after 2024-07-01"),
        (
            {"platforms": (Platform.TIKTOK,)},
            [post(1)],
            "rows of content types that were not requested: 'instagram_reel'",
        ),
        ({"platforms": (Platform.TIKTOK,)}, [post(1, contentType="x_post"), post(2, contentType=None)], ""),
        (OF_TIKTOK, [post(1, contentType=None)], ""),
        (OF_TIKTOK, [post(1)], "rows of content types that were not requested: 'instagram_reel'"),
    ],
)
def test_row_that_repeats_or_was_not_requested_is_found(query, rows, problem_text):
    assert re.fullmatch(problem_text, inconsistency_in(page_bodies(rows), query=replace(QUERY, **query)))


@pytest.mark.parametrize(
    ("page", "changes", "problem_text"),
    [
        (1, {"page": 3}, "page 2 was requested, but page 3 was returned"),
        (2, {"totalItems": 8}, "page 1 states 7 items in pages of 3, page 3 states 8 in pages of 3"),
        (1, {"pageSize": 50}, "page 1 states 7 items in pages of 3, page 2 states 7 in pages of 50"),
        (2, {"totalPages": 4}, "page 3 states 4 pages for 7 items in pages of 3"),
        (0, {"pageSize": 0}, "page 1 states 3 pages for 7 items in pages of 0"),
    ],
)
def test_page_that_contradicts_itself_or_page_1_is_found(page, changes, problem_text):
    bodies = page_bodies(THIRTY[:7])
    bodies[page]["pagination"] |= {"page": page + 1} | changes
    assert inconsistency_in(bodies) == problem_text


@pytest.mark.parametrize("total_pages", [500, 700])
def test_total_pages_may_stop_at_the_last_page_that_can_be_requested(total_pages):
    pagination = Pagination(page=1, page_size=100, total_items=70_000, total_pages=total_pages)
    assert find_page_inconsistency(FIRST_PAGE, pagination, rows=100, first=pagination) is None


CONSISTENT = st.builds(
    lambda count, size: page_bodies(THIRTY[:count], size=size), st.integers(1, 30), st.integers(1, 10)
)


@given(CONSISTENT, st.data())
def test_any_lost_duplicated_or_replaced_row_is_found(bodies, data):
    assert inconsistency_in(bodies) == ""
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
    assert inconsistency_in(bodies) != ""


@given(CONSISTENT.filter(lambda bodies: len(bodies) > 1), st.data())
def test_any_lost_repeated_or_swapped_page_is_found(bodies, data):
    one, other = data.draw(st.permutations(range(len(bodies))).map(lambda order: order[:2]))
    match data.draw(st.sampled_from(["lose", "repeat", "swap"])):
        case "lose":
            bodies[one] = bodies[one] | {"data": []}
        case "repeat":
            bodies[one] = bodies[other]
        case "swap":
            bodies[one], bodies[other] = bodies[other], bodies[one]
    assert inconsistency_in(bodies) != ""


@pytest.mark.parametrize(
    ("total_items", "from_start", "from_end"),
    [(0, 1, 0), (100, 1, 1), (101, 2, 0), (50_000, 500, 1), (50_001, 500, 2), (55_465, 500, 56), (100_000, 500, 500)],
)
def test_remaining_pages_beyond_500_are_fetched_from_the_end(total_items, from_start, from_end):
    pages = [FIRST_PAGE, *remaining(total_items, both_ends=True)]
    assert [page for page in pages if not page.from_end] == [PageRequest(number) for number in range(1, from_start + 1)]
    assert [page.number for page in pages if page.from_end] == list(range(1, from_end + 1))


@pytest.mark.parametrize(("total_items", "both_ends"), [(100_001, True), (50_001, False)])
def test_remaining_pages_of_too_long_a_list_are_none(total_items, both_ends):
    assert remaining(total_items, both_ends=both_ends) is None


def remaining(total_items, *, both_ends):
    pages = math.ceil(total_items / 100)
    first = Pagination(page=1, page_size=100, total_items=total_items, total_pages=pages)
    return remaining_pages(first, both_ends=both_ends)


def test_first_page_from_the_end_shows_rows_after_a_full_last_page():
    """A total that omits a whole last page agrees with the rows of the other pages."""
    rows = [post(number) for number in range(9)]
    from_end = page_body(rows[:5:-1], page=1, page_size=3, total_items=6)
    assert inconsistency_in(page_bodies(rows[:6]), from_end=(from_end,)) == "received 9 rows of 6"
    repeated = page_body([rows[5], rows[5], rows[4]], page=1, page_size=3, total_items=6)
    assert inconsistency_in(page_bodies(rows[:6]), from_end=(repeated,)) == "1 of 3 rows are duplicates"
