"""Pagination by page numbers and by cursors: the pages form one complete and consistent list, or are fetched again."""

import asyncio
import contextlib
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.client import ClientEvent, InconsistentPages, QueryRejected, TooManyRows
from later_reporting_dagster.client.pagination import Inconsistency, PageReader, fetch_numbered_pages
from later_reporting_dagster.contract import CURSOR, PAGED, ContentType, DateBasis, PerformanceQuery, Platform
from later_reporting_dagster.contract.route import PERFORMANCE_OVER_TIME, POSTS_PERFORMANCE, Route
from tests.client.scripted_api import THREE_PAGES, fetch_posts, of_type, page_body, post, run_with
from tests.conftest import problem


def test_more_posts_than_max_rows_raise_after_one_request(service, new_client, july):
    service.posts = THREE_PAGES
    assert len(fetch_posts(new_client(), july, max_rows=250).items) == 250
    del service.requests[:]
    with pytest.raises(TooManyRows) as raised:
        fetch_posts(new_client(), july, max_rows=249)
    assert str(raised.value) == (
        "posts of 2024-07-01 to 2024-07-31 by post_date, instances 'a', 'b': 250 items on 3 pages are too"
        " many for one query. Query fewer days or instances, or try later."
    )
    assert raised.value.total_items == 250
    assert len(service.requests_to()) == 1


def test_too_many_bytes_raise_with_the_stated_total(service, new_client, july, monkeypatch):
    monkeypatch.setattr("later_reporting_dagster.client.pagination.MAX_BYTES", 30_000)
    service.posts = THREE_PAGES
    with pytest.raises(TooManyRows, match="the list has more than .* or 30000 bytes. Query fewer days") as raised:
        fetch_posts(new_client(), july)
    assert raised.value.total_items == 250


def test_more_pages_than_can_be_requested_raise_after_one_request(service, new_client, july, monkeypatch):
    monkeypatch.setattr("later_reporting_dagster.client.pagination.MAX_PAGE_NUMBER", 2)
    service.posts = THREE_PAGES[:199]
    assert len(fetch_posts(new_client(), july).items) == 199
    del service.requests[:]
    # The page after a full last page could not be requested.
    service.posts = THREE_PAGES[:200]
    with pytest.raises(TooManyRows, match="200 items on 2 pages are too many"):
        fetch_posts(new_client(), july)
    assert len(service.requests_to()) == 1


def test_posts_that_arrive_between_pages_are_neither_lost_nor_duplicated(service, new_client, july, events):
    service.posts = THREE_PAGES[10:]

    async def arrive(request):
        service.posts = THREE_PAGES

    service.faults.extend([None, arrive])
    result = fetch_posts(new_client(concurrency=1), july)
    assert [post.post_id for post in result.items] == list(range(250))
    changed = "page 1 states 240 items, page 2 states 250"
    assert of_type(events, "refetch") == [ClientEvent("refetch", changed)]


def test_exchanged_post_is_detected_by_verification(service, new_client, july, events):
    """A post of page 1 is removed, and another one appended: the totals stay the same."""

    async def exchange(request):
        service.posts = [*THREE_PAGES[1:], post(250)]

    service.posts = THREE_PAGES
    service.faults.extend([None, exchange])
    result = fetch_posts(new_client(concurrency=1, verification_rates={PAGED: 1.0}), july)
    assert [post.post_id for post in result.items] == [*range(1, 251)]
    assert len(service.requests_to()) == 4 * 3
    assert of_type(events, "refetch") == [ClientEvent("refetch", "2 rows differ in a verification fetch")]


def test_verification_rate_selects_the_share_of_queries(service, new_client, july):
    service.posts = THREE_PAGES
    draws = iter([0.49, 0.5, 0.51])
    client = new_client(verification_rates={PAGED: 0.5}, random=lambda: next(draws))

    async def request_counts(client):
        counts = []
        for _ in range(3):
            await client.fetch(POSTS_PERFORMANCE, july)
            counts.append(len(service.requests_to()) - sum(counts))
        return counts

    assert run_with(client, request_counts) == [6, 3, 3]


# That there are no more than 100 posts is checked by a second page.
@pytest.mark.parametrize(("count", "requests"), [(0, 1), (99, 1), (100, 4), (101, 4)])
def test_single_page_is_not_verified(service, new_client, july, count, requests):
    service.posts = THREE_PAGES[:count]
    fetch_posts(new_client(verification_rates={PAGED: 1.0}), july)
    assert len(service.requests_to()) == requests


def test_inconsistent_pages_are_fetched_again_once_and_not_to_their_end(service, new_client, july, events):
    service.posts = [post(number, post_date=datetime(2024, 7, 1, tzinfo=UTC)) for number in range(4950)]
    service.change_body = lambda number, body: page_body(
        body["data"], page=number, page_size=100, total_items=4950 + number
    )
    with pytest.raises(InconsistentPages, match="page 1 states 4951 items, page . states 495"):
        fetch_posts(new_client(concurrency=2), july)
    assert len(of_type(events, "refetch")) == 1
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
    assert first.url.query.startswith(
        "startDate=2024-07-01&endDate=2024-07-31&instanceIds=a&instanceIds=b&dateBasis=post_date&metrics=engagements%2C"
    )
    assert first.url.query.endswith("&limit=100&sortProperty=postDate&sortDirection=ASC")
    assert [request.query_params.get("nextCursor") for request in others] == ["c100", "c200"]
    for request in others:
        sent = request.query_params.multi_items()
        assert [pair for pair in sent if pair[0] != "nextCursor"] == first.query_params.multi_items()
    assert len(of_type(events, "page")) == 3


def test_too_many_pages_raise_without_a_total(service, new_cursor_client, july, monkeypatch):
    monkeypatch.setattr("later_reporting_dagster.client.pagination.MAX_PAGES", 2)
    service.posts = [post(0, contentType="unlisted"), *THREE_PAGES[1:]]
    with pytest.raises(TooManyRows, match="the list has more than 2 pages or .* Query fewer days") as raised:
        fetch_posts(new_cursor_client(), july)
    assert raised.value.total_items is None
    assert raised.value.content_types == {"unlisted", "instagram_reel"}


@pytest.mark.parametrize(("max_rows", "requests"), [(250, 3), (199, 2), (99, 1)])
def test_more_posts_than_max_rows_raise_after_so_many(service, new_cursor_client, july, max_rows, requests):
    service.posts = THREE_PAGES
    with contextlib.nullcontext() if max_rows == 250 else pytest.raises(TooManyRows, match=f"more than {max_rows} "):
        fetch_posts(new_cursor_client(), july, max_rows=max_rows)
    assert len(service.requests_to()) == requests


def test_bad_rows_count_towards_a_full_page(service, new_cursor_client, july):
    service.posts = [post(0, impressions=-1), *map(post, range(1, 100))]
    result = fetch_posts(new_cursor_client(), july)
    assert (len(result.items), len(result.bad_rows), len(service.requests_to())) == (99, 1, 2)


@pytest.mark.parametrize(
    ("change_body", "problem_text"),
    [
        (lambda number, body: body | {"data": [post(1), *body["data"][1:]]} if number > 1 else body, "are duplicates"),
        (lambda number, body: body | {"nextCursor": "c100"}, "the cursor of page 2 repeats an earlier one"),
        (lambda number, body: body | {"nextCursor": None}, "50 rows are missing after the last page|150 rows|100 rows"),
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
    assert len(of_type(events, "refetch")) == 1


def test_short_page_that_differs_when_fetched_again_restarts_the_pagination(service, new_cursor_client, july, events):
    service.posts = THREE_PAGES
    service.change_body = lambda number, body: (
        body | {"data": body["data"][:40]} if len(service.requests_to()) == 2 else body
    )
    result = fetch_posts(new_cursor_client(), july)
    assert [each.post_id for each in result.items] == list(range(250))
    assert [event.reason for event in of_type(events, "refetch")] == ["page 2 has other rows when fetched again"]


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
    assert [request.query_params.get("nextCursor") for request in service.requests_to()] == [
        None,
        "c100",
        "c200",
        None,
        "c100",
        "c200",
    ]
    (refetched,) = of_type(events, "refetch")
    assert refetched.reason.startswith("the cursor of page 3 was rejected: posts of 2024-07-01")


# The checks of a list, without a server


THIRTY = [post(number, instance_id="ab"[number % 2]) for number in range(30)]
QUERY = PerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 2), instance_ids=("a", "b"))


def page_bodies(rows: list[dict], *, size: int = 3) -> list[dict]:
    starts = range(0, max(1, len(rows)), size)
    return [
        page_body(rows[start : start + size], page=number, page_size=size, total_items=len(rows))
        for number, start in enumerate(starts, 1)
    ]


def inconsistency_in(bodies: list[dict], *, route: Route = POSTS_PERFORMANCE, query: PerformanceQuery = QUERY) -> str:
    """Return why the pages are inconsistent, by the checks of each page and those of the list; "" if they are not."""

    class ReadyPages(PageReader):
        async def read_unverified(self, page):
            after_last = bodies[0] | {"data": [], "pagination": bodies[0]["pagination"] | {"page": page.number}}
            body = bodies[page.number - 1] if page.number <= len(bodies) else after_last
            return route.parse_page(json.dumps(body).encode(), query, PAGED)

    try:
        return asyncio.run(fetch_numbered_pages(ReadyPages(None, route, query, PAGED))).problem or ""
    except Inconsistency as error:
        return str(error)


OF_DAY_1 = {"end_date": date(2024, 7, 1), "date_basis": DateBasis.PERFORMANCE_DATE}
OF_TIKTOK = {"content_types": (ContentType.TIKTOK,)}
UNREQUESTED = "rows of instances that were not requested: 'c'"
FAR = "a row of 2024-0.*, more than a day outside of the range"


@pytest.mark.parametrize(
    ("query", "rows", "problem_text"),
    [
        ({}, [post(1), post(2), post(1)], "1 of 3 rows are duplicates"),
        ({}, [{"bad": 1}, {"bad": 1}], ""),
        ({}, [post(1), post(1, instance_id="b"), post(1, campaignId=2)], ""),
        ({}, [post(1, instance_id="c")], UNREQUESTED),
        ({}, [post(1, instance_id="a ")], UNREQUESTED.replace("'c'", "'a '")),
        ({}, [post(1, instance_id="c", impressions=-1)], UNREQUESTED),
        ({"instance_ids": ()}, [post(1, instance_id="anything")], ""),
        # Days are in UTC and inclusive, and a day outside may be that of another time zone.
        ({}, [post(1, postDate="2024-06-30T00:00:00Z")], ""),
        ({}, [post(1, postDate="2024-07-03T23:59:59.999Z")], ""),
        ({}, [post(1, postDate="2024-07-04T01:00:00+02:00")], ""),
        ({}, [post(1, postDate="2024-06-29T23:59:00Z")], FAR),
        ({}, [post(1, postDate="2024-07-04T00:00:00Z")], FAR),
        ({}, [post(1, postDate="2024-07-04T00:00:00Z", impressions=-1)], FAR),
        # By performance date, posts may be of any date.
        (OF_DAY_1, [post(1, postDate="2021-01-01T00:00:00Z")], ""),
        (OF_DAY_1, [post(1, postDate="2024-08-02T00:00:00Z")], ""),
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
        (1, {"page": "3"}, "page 2 was requested, but page 3 was returned"),
        (2, {"totalItems": 8}, "page 1 states 7 items, page 3 states 8"),
        (1, {"totalItems": "7", "page": 2.0}, ""),
        *((page, {name: value}, "") for page in (0, 1) for name in ("page", "pageSize", "totalPages")
          for value in (None, str(page + 1), "?")),
    ],
)  # fmt: skip
def test_page_that_contradicts_page_1_is_found(page, changes, problem_text):
    bodies = page_bodies(THIRTY[:7])
    bodies[page]["pagination"] |= {"page": page + 1} | changes
    assert inconsistency_in(bodies) == problem_text


def test_day_of_totals_that_comes_on_two_pages_is_refused():
    days = ("2024-07-01", "2024-07-02", "2024-07-01")
    bodies = page_bodies([{"startDate": day, "endDate": day, "impressions": 1} for day in days], size=2)
    problem_text = inconsistency_in(bodies, route=PERFORMANCE_OVER_TIME, query=replace(QUERY, instance_ids=("a",)))
    assert problem_text == "the bucket 2024-07-01 to 2024-07-01 came twice"


CONSISTENT = st.builds(
    lambda count, size: page_bodies(THIRTY[:count], size=size), st.integers(1, 30), st.integers(1, 10)
)


@given(CONSISTENT, st.data())
def test_any_lost_duplicated_or_replaced_row_is_found(bodies, data):
    assert inconsistency_in(bodies) == ""
    posts = [row for body in bodies for row in body["data"]]
    rows = data.draw(st.sampled_from([body["data"] for body in bodies]))
    index = data.draw(st.integers(0, len(rows) - 1))
    other = data.draw(st.sampled_from(posts))
    match data.draw(st.sampled_from(["lose", "duplicate", "replace", "replace by an unrequested row"])):
        case "lose":
            del rows[index]
        case "duplicate":
            rows.insert(index, other)
        case "replace" if other is not rows[index]:
            rows[index] = other
        case _:
            rows[index] = post(1000, instance_id="c")
    # A larger page may have all rows.
    assert inconsistency_in(bodies) != "" or sorted(map(str, bodies[0]["data"])) == sorted(map(str, posts))


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


# What is accepted


# With 100 or 200 rows, the one that comes twice is alone on the last page of the list or of the reverse one.
@pytest.mark.parametrize(
    ("count", "position"), [(250, 0), (250, 149), (250, 249), (100, 99), (100, 0), (200, 199), (200, 0)]
)
def test_equal_row_that_comes_twice_is_one(service, new_client_of_each_version, july, events, count, position):
    service.posts = [*THREE_PAGES[:position], THREE_PAGES[position], *THREE_PAGES[position:count]]
    result = fetch_posts(new_client_of_each_version(), july)
    assert [each.post_id for each in result.items] == list(range(count))
    assert (result.bad_rows, result.oddities) == ([], {"equal row twice": 1})
    assert [event.reason for event in of_type(events, "refetch")] == [f"1 of {count + 1} rows are duplicates"]
    directions = [request.query_params["sortDirection"] for request in service.requests_to()]
    assert directions == sorted(directions)


def test_rows_without_a_key_that_are_equal_are_two(service, new_client_of_each_version, july):
    service.posts = [{"bad": 1}, {"bad": 1}]
    result = fetch_posts(new_client_of_each_version(), july)
    assert (len(result.bad_rows), len(service.requests_to()), result.oddities) == (2, 1, {})


@pytest.mark.parametrize("change", [-1, 1, 40])
def test_total_that_is_wrong_is_accepted_if_the_reverse_list_has_the_same_rows(service, new_client, july, change):
    service.posts = THREE_PAGES
    service.change_body = lambda number, body: page_body(
        body["data"], page=number, page_size=100, total_items=250 + change
    )
    result = fetch_posts(new_client(), july)
    assert [each.post_id for each in result.items] == list(range(250))
    assert result.oddities == {"another number of rows than the total": 1}


@pytest.mark.parametrize("fault", ["rows that are left out of pages", "no rows", "an order that cannot be reversed"])
def test_total_that_is_wrong_is_refused_if_rows_may_be_missing(service, new_client, july, fault):
    service.posts = THREE_PAGES

    def change_body(number, body):
        match fault:
            case "no rows":
                return body | {"data": []}
            case "rows that are left out of pages":
                return body | {"data": body["data"][:-1]}
        rows = THREE_PAGES[number * 100 - 100 : number * 100]
        return page_body(rows, page=number, page_size=100, total_items=251)

    service.change_body = change_body
    with pytest.raises(InconsistentPages, match="received .* rows of 25"):
        fetch_posts(new_client(), july)


EMPTY = {
    "204": Response(status_code=204),
    "data is null": JSONResponse({"data": None, "pagination": {"totalItems": 0}, "nextCursor": None}),
    "no total": JSONResponse({"data": []}),
    "nothing": JSONResponse({"data": None}),
}


@pytest.mark.parametrize("fault", EMPTY)
def test_page_that_may_be_empty_is_asked_for_again(service, new_client_of_each_version, july, fault):
    service.posts = THREE_PAGES[:1]
    service.faults.append(EMPTY[fault])
    is_sure = fault == "no total" and service.by_cursor  # the end of a list
    client = new_client_of_each_version()
    assert fetch_posts(client, july).total_items == (0 if is_sure else 1)
    service.faults.extend([EMPTY[fault]] * 2)
    result = fetch_posts(new_client_of_each_version(), july)
    assert (result.total_items, result.is_surely_empty) == (0, is_sure)


def test_list_without_rows_is_surely_empty_by_its_total_or_its_end(service, new_client_of_each_version, july):
    assert fetch_posts(new_client_of_each_version(), july).is_surely_empty
    service.posts = THREE_PAGES[:1]
    assert not fetch_posts(new_client_of_each_version(), july).is_surely_empty


@pytest.mark.parametrize("status", [400, 404])
def test_page_after_a_full_last_page_may_be_refused(service, new_client, july, status):
    service.posts = THREE_PAGES[:200]
    service.faults.extend([None, None, problem(status, "ANL_00")])
    assert len(fetch_posts(new_client(concurrency=1), july).items) == 200
    service.faults.extend([None, problem(status, "ANL_00"), None])
    with pytest.raises(QueryRejected):
        fetch_posts(new_client(concurrency=1), july)


def test_status_of_a_success_is_noted(service, new_client, july):
    async def created(request):
        return JSONResponse(page_body([post(1)], page=1, page_size=100, total_items=1), 201)

    service.faults.append(created)
    result = fetch_posts(new_client(), july)
    assert (len(result.items), result.oddities) == (1, {"status 201": 1})
