"""Tests of pagination by page numbers and by cursors with a real server."""

import contextlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from later_reporting_dagster.client import (
    InconsistentPages,
    MetricsRejected,
    PageFetched,
    PagesRefetched,
    QueryRejected,
    TooManyPosts,
)
from later_reporting_dagster.contract import CURSOR, DEFAULT_METRICS, PAGED
from tests.client.scripted_api import THREE_PAGES, fetch_posts, of_type, page_body, post, problem, run_with


def test_each_page_is_requested_once_with_one_token(service, new_client, july, events):
    service.posts = THREE_PAGES
    fetch_posts(new_client(), july)
    assert sorted(request.page for request in service.requests_to()) == [1, 2, 3]
    assert sorted(of_type(events, PageFetched), key=lambda event: event.page) == [
        PageFetched(page=number, rows=rows) for number, rows in enumerate((100, 100, 50), 1)
    ]
    assert len(service.requests_to("/oauth/token")) == 1
    assert {request.authorization for request in service.requests_to()} == {f"Bearer {next(iter(service.tokens))}"}


def test_instance_ids_with_special_characters_are_unchanged(service, new_client, july):
    ids = ("a|b", "../x", "a,b", "a b+c", "é日", "", "%2F", "&x=1#")
    service.posts = [post(number, instance_id=name) for number, name in enumerate(ids)]
    result = fetch_posts(new_client(), replace(july, instance_ids=ids))
    assert tuple(post.instance_id for post in result.items) == ids
    assert tuple(value for name, value in service.requests_to()[0].parameters if name == "instanceIds") == ids


def test_more_posts_than_pages_can_return_raise_after_one_request(service, new_client, july):
    service.posts = THREE_PAGES
    service.change_body = lambda number, body: page_body(body["data"], page=number, page_size=100, total_items=100_001)
    with pytest.raises(TooManyPosts, match="100001 items on 1001 pages") as raised:
        fetch_posts(new_client(), july)
    assert raised.value.total_items == 100_001
    assert len(service.requests_to()) == 1


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
    result = fetch_posts(new_client(), july)
    assert sorted(each.post_id for each in result.items) == list(range(950))
    directions = [dict(request.parameters)["sortDirection"] for request in service.requests_to()]
    assert (directions.count("ASC"), directions.count("DESC")) == (5, 5 + 1 - 1)


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
    assert first.parameters == [
        ("startDate", "2024-07-01"),
        ("endDate", "2024-07-31"),
        ("instanceIds", "a"),
        ("instanceIds", "b"),
        ("dateBasis", "post_date"),
        ("metrics", ",".join(metric.api_name for metric in DEFAULT_METRICS)),
        ("limit", "100"),
        ("sortProperty", "postDate"),
        ("sortDirection", "ASC"),
    ]
    assert [request.cursor for request in others] == ["c100", "c200"]
    for request in others:
        assert [pair for pair in request.parameters if pair[0] != "nextCursor"] == first.parameters
    assert of_type(events, PageFetched) == [
        PageFetched(page=number, rows=rows) for number, rows in enumerate((100, 100, 50), 1)
    ]


def test_too_many_pages_raise_without_a_total(service, new_cursor_client, july, monkeypatch):
    monkeypatch.setattr("later_reporting_dagster.client.pagination.MAX_PAGES", 2)
    service.posts = [post(0, contentType="unlisted"), *THREE_PAGES[1:]]
    with pytest.raises(TooManyPosts, match="the list has more than 2 pages or .* Query fewer days") as raised:
        fetch_posts(new_cursor_client(), july)
    assert raised.value.total_items is None
    assert raised.value.content_types == {"unlisted", "instagram_reel"}


def test_full_last_page_is_checked_from_the_other_end(service, new_cursor_client, july):
    service.posts = THREE_PAGES[:200]
    result = fetch_posts(new_cursor_client(), july)
    assert (len(result.items), len(service.requests_to())) == (200, 3)
    assert dict(service.requests_to()[-1].parameters)["sortDirection"] == "DESC"


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


def test_rejected_metrics_are_distinguished_from_other_rejections(service, new_cursor_client, july):
    service.faults.append(problem(400, "ANL_00400", detail="metrics not supported for these filters: replies"))
    with pytest.raises(MetricsRejected, match="replies") as raised:
        fetch_posts(new_cursor_client(), july)
    assert raised.value.status == 400
    assert raised.value.detail.endswith("metrics not supported for these filters: replies")
    service.faults.append(problem(400, "ANL_00400", detail="endDate is wrong"))
    with pytest.raises(QueryRejected) as raised:
        fetch_posts(new_cursor_client(), replace(july, instance_ids=("metrics",)))
    assert not isinstance(raised.value, MetricsRejected)


def test_verification_finds_an_omitted_row(service, new_cursor_client, july, events):
    service.posts = THREE_PAGES
    service.change_body = lambda number, body: (
        body | {"data": body["data"][:-1]} if len(service.requests_to()) == 3 else body
    )
    result = fetch_posts(new_cursor_client(verification_rates={CURSOR: 1.0}), july)
    assert len(result.items) == 250
    assert [event.reason for event in of_type(events, PagesRefetched)] == ["1 rows differ in a verification fetch"]
