"""Tests of pagination by cursors with a real server."""

import itertools
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from later_reporting_dagster.client import (
    InconsistentPages,
    MetricsRejected,
    PageFetched,
    PagesRefetched,
    QueryRejected,
    RetriesExhausted,
    RetryPolicy,
    TooManyPosts,
)
from later_reporting_dagster.contract import CURSOR, DEFAULT_METRICS
from tests.client.scripted_api import THREE_PAGES, fetch_instances, fetch_posts, of_type, post, problem

JULY = datetime(2024, 7, 1, tzinfo=UTC)


# A post every 90 minutes: a page of 100 has six days and a quarter.
POSTS = [post(number, post_date=JULY + timedelta(minutes=90 * number)) for number in range(450)]


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


def test_failure_names_the_page(service, new_cursor_client, july):
    service.posts = THREE_PAGES
    service.faults.extend([None, *[problem(500, "ANL_00500")] * 2])
    with pytest.raises(RetriesExhausted, match="page 2.*Failed in 2 attempts"):
        fetch_posts(new_cursor_client(retry=RetryPolicy(max_attempts=2)), july)


def test_cursors_have_no_limit_of_500_pages(service, new_cursor_client, july):
    service.posts = [post(number, post_date=JULY + timedelta(seconds=number)) for number in range(50_050)]
    result = fetch_posts(new_cursor_client(), july)
    assert (len(result.posts), result.pages) == (50_050, 501)


def test_too_many_pages_raise_without_a_total(service, new_cursor_client, july, monkeypatch):
    monkeypatch.setattr("later_reporting_dagster.client.versioned_transport.MAX_PAGES", 2)
    service.posts = [post(0, contentType="unlisted"), *THREE_PAGES[1:]]
    with pytest.raises(TooManyPosts, match="page 3: the list has more than 2 pages or .* Query fewer days") as raised:
        fetch_posts(new_cursor_client(), july)
    assert raised.value.total_items is None
    assert raised.value.content_types == {"unlisted", "instagram_reel"}


def test_full_last_page_is_checked_from_the_other_end(service, new_cursor_client, july):
    service.posts = THREE_PAGES[:200]
    result = fetch_posts(new_cursor_client(), july)
    assert (len(result.posts), len(service.requests_to())) == (200, 3)
    assert dict(service.requests_to()[-1].parameters)["sortDirection"] == "DESC"


def test_empty_last_page_ends_the_pagination(service, new_cursor_client, july):
    service.posts = THREE_PAGES[:200]
    service.change_body = lambda number, body: body | {"nextCursor": f"c{number * 100}" if number < 3 else None}
    result = fetch_posts(new_cursor_client(), july)
    assert (len(result.posts), len(service.requests_to())) == (200, 3)


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
    assert [each.post_id for each in result.posts] == list(range(250))
    assert [event.reason for event in of_type(events, PagesRefetched)] == ["page 2 has other rows when fetched again"]


def test_short_page_that_stays_the_same_is_accepted(service, new_cursor_client, july):
    service.posts = THREE_PAGES
    service.change_body = lambda number, body: body | {"data": body["data"][:40]} if number == 2 else body
    result = fetch_posts(new_cursor_client(), july)
    assert (len(result.posts), len(service.requests_to())) == (190, 4)


EXPIRED_CURSOR = problem(400, "ANL_00400", detail="the cursor has expired")


def test_expired_cursor_restarts_the_pagination(service, new_cursor_client, july, events):
    service.posts = THREE_PAGES
    service.faults.extend([None, None, EXPIRED_CURSOR])
    result = fetch_posts(new_cursor_client(), july)
    assert [each.post_id for each in result.posts] == list(range(250))
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


def end_on(day):
    return lambda rows, latest: day


def test_end_date_callback_ends_the_result_on_its_day(service, new_cursor_client, july):
    service.posts = POSTS
    result = fetch_posts(new_cursor_client(), july, end_date_callback=end_on(date(2024, 7, 10)))
    assert result.query == replace(july, end_date=date(2024, 7, 10))
    assert [each.post_id for each in result.posts] == list(range(160))
    assert (result.total_items, result.pages) == (160, 2)


def test_end_date_callback_completes_the_last_day(service, new_cursor_client, july):
    service.posts = POSTS
    result = fetch_posts(new_cursor_client(), july, end_date_callback=end_on(date(2024, 7, 7)))  # partly on page 1
    assert [each.post_id for each in result.posts] == list(range(112))


def test_failure_after_end_date_callback_names_the_shorter_query(service, new_cursor_client, july):
    service.posts = POSTS
    service.faults.extend([None, EXPIRED_CURSOR] * 2)
    with pytest.raises(
        InconsistentPages, match="^posts of 2024-07-01 to 2024-07-10 .*the cursor of page 2 was rejected"
    ):
        fetch_posts(new_cursor_client(), july, end_date_callback=end_on(date(2024, 7, 10)))


def test_end_date_callback_applies_to_a_refetch(service, new_cursor_client, july):
    service.posts = POSTS
    service.faults.extend([None, EXPIRED_CURSOR])
    days = iter([july.end_date, *[date(2024, 7, 10)] * 9])
    result = fetch_posts(new_cursor_client(), july, end_date_callback=lambda rows, latest: next(days))
    assert [each.post_id for each in result.posts] == list(range(160))
    assert len(service.requests_to()) == 4


def test_end_date_callback_is_called_after_each_page(service, new_cursor_client, july):
    service.posts = POSTS
    calls = []

    def callback(rows, latest):
        calls.append((rows, latest))
        return july.end_date

    assert fetch_posts(new_cursor_client(), july, end_date_callback=callback).query == july
    assert calls == [(rows, JULY + timedelta(minutes=90 * (rows - 1))) for rows in (100, 200, 300, 400)]


def test_unordered_posts_are_fetched_to_the_end(service, new_cursor_client, july, events):
    service.posts = [POSTS[number * 7 % 450] for number in range(450)]

    async def require_the_shorter_range(request):
        assert request.query_params["endDate"] == "2024-07-10"
        service.posts = [POSTS[number * 7 % 160] for number in range(160)]

    service.faults.extend([None, require_the_shorter_range])
    result = fetch_posts(new_cursor_client(), july, end_date_callback=end_on(date(2024, 7, 10)))
    assert result.query == replace(july, end_date=date(2024, 7, 10))
    assert sorted(each.post_id for each in result.posts) == list(range(160))
    assert [event.reason for event in of_type(events, PagesRefetched)] == [
        "the posts are not in the order of their days"
    ]


def test_bad_row_without_date_is_kept_by_end_date_callback(service, new_cursor_client, july):
    service.posts = [*POSTS[:150], post(9000) | {"postDate": "not a date"}, *POSTS[150:]]
    result = fetch_posts(new_cursor_client(), july, end_date_callback=end_on(date(2024, 7, 10)))
    assert [row.reason.split(" must be ")[0] for row in result.bad_rows] == ["postDate"]


def test_verification_finds_an_omitted_row(service, new_cursor_client, july, events):
    service.posts = THREE_PAGES
    service.change_body = lambda number, body: (
        body | {"data": body["data"][:-1]} if len(service.requests_to()) == 3 else body
    )
    result = fetch_posts(new_cursor_client(verification_rates={CURSOR: 1.0}), july)
    assert len(result.posts) == 250
    assert [event.reason for event in of_type(events, PagesRefetched)] == ["1 rows differ in a verification fetch"]


def test_repeated_cursor_of_instances_raises(service, new_cursor_client):
    service.change_body = lambda number, body: {"data": {"instanceIds": [f"i{number}"]}, "nextCursor": "c100"}
    with pytest.raises(InconsistentPages, match="the cursor of page 2 repeats an earlier one"):
        fetch_instances(new_cursor_client())


def test_short_page_of_a_list_is_fetched_again(service, new_cursor_client, events):
    service.instance_ids = [f"i{number}" for number in range(150)]
    requests = itertools.count(1)
    service.change_body = lambda number, body: (
        body | {"data": {"instanceIds": body["data"]["instanceIds"][:40]}} if next(requests) == 1 else body
    )
    assert fetch_instances(new_cursor_client()) == tuple(service.instance_ids)
    assert [event.reason for event in of_type(events, PagesRefetched)] == ["page 1 has other rows when fetched again"]


def test_expired_cursor_of_instances_restarts_the_pagination(service, new_cursor_client, events):
    service.instance_ids = [f"i{number}" for number in range(150)]
    service.faults.extend([None, EXPIRED_CURSOR])
    assert fetch_instances(new_cursor_client()) == tuple(service.instance_ids)
    (refetched,) = of_type(events, PagesRefetched)
    assert refetched.reason.startswith("the cursor was rejected: instances: HTTP 400 ")
    service.faults.append(problem(400, "ANL_00400"))
    with pytest.raises(QueryRejected, match="^instances: HTTP 400 "):
        fetch_instances(new_cursor_client())
