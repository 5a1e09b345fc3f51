"""Tests of pagination by page numbers with a real server."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from later_reporting_dagster.client import InconsistentPages, PageFetched, PagesRefetched, TooManyPosts
from later_reporting_dagster.contract import PAGED, DateBasis
from tests.client.scripted_api import THREE_PAGES, fetch_posts, of_type, page_body, post, run_with


def test_each_page_is_requested_once_with_100_posts(service, new_client, july, events):
    service.posts = THREE_PAGES
    fetch_posts(new_client(), replace(july, date_basis=DateBasis.PERFORMANCE_DATE))
    assert sorted(request.page for request in service.requests_to()) == [1, 2, 3]
    assert service.requests_to()[0].parameters == [
        ("startDate", "2024-07-01"),
        ("endDate", "2024-07-31"),
        ("instanceIds", "a"),
        ("instanceIds", "b"),
        ("dateBasis", "performance_date"),
        ("pageSize", "100"),
        ("pageNumber", "1"),
        ("sortProperty", "postDate"),
        ("sortDirection", "ASC"),
    ]
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


def moving_total(service):
    """Return a function that changes the total on the last page, in the first fetch only."""

    def change_total(number, body):
        if number == 3 and sum(request.page == 3 for request in service.requests_to()) == 1:
            body["pagination"]["totalItems"] += 1
        return body

    return change_total


def test_pages_are_fetched_again_if_the_total_changes(service, new_client, july, events):
    service.posts = THREE_PAGES
    service.change_body = moving_total(service)
    result = fetch_posts(new_client(), july)
    assert [post.post_id for post in result.items] == list(range(250))
    assert len(service.requests_to()) == 6
    changed = "page 1 states 250 items in pages of 100, page 3 states 251 in pages of 100"
    assert of_type(events, PagesRefetched) == [PagesRefetched(changed)]


def test_posts_that_arrive_between_pages_are_neither_lost_nor_duplicated(service, new_client, july):
    service.posts = THREE_PAGES[10:]

    async def arrive(request):
        service.posts = THREE_PAGES

    service.faults.extend([None, arrive])
    result = fetch_posts(new_client(concurrency=1), july)
    assert [post.post_id for post in result.items] == list(range(250))


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


def test_pages_that_contradict_the_totals_in_both_fetches_raise(service, new_client, july, events):
    service.posts = THREE_PAGES
    service.change_body = lambda number, body: body | {"data": body["data"][1:]}
    with pytest.raises(InconsistentPages, match="page 1 has 99 rows"):
        fetch_posts(new_client(), july)
    assert len(of_type(events, PagesRefetched)) == 1


def test_fetch_stops_at_the_first_inconsistent_page(service, new_client, july):
    service.posts = [post(number, post_date=datetime(2024, 7, 1, tzinfo=UTC)) for number in range(5000)]
    service.change_body = lambda number, body: body | {"data": body["data"][: 99 if number > 1 else 100]}
    with pytest.raises(InconsistentPages):
        fetch_posts(new_client(concurrency=2), july)
    assert len(service.requests_to()) < 15
