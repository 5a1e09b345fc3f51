"""Tests of the client with a real server, mostly in both API versions, and of the detection of the version."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from socket import socket

import pytest
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.client import (
    AccessToken,
    ApiVersionChanged,
    InconsistentPages,
    QueryRejected,
    RequestsUsedUp,
    RetriesExhausted,
    UnexpectedResponse,
)
from later_reporting_dagster.client.client import Probe
from later_reporting_dagster.contract import CURSOR, PAGED
from later_reporting_dagster.contract.route import INSTANCES_PERFORMANCE, POSTS_PERFORMANCE, PageRequest
from tests.client.raw_server import raw_server
from tests.client.scripted_api import THREE_PAGES, fetch_instances, fetch_posts, of_type, page_body, run_with
from tests.conftest import problem


@pytest.mark.parametrize(("posts", "pages"), [(0, 1), (250, 3)])
def test_fetch_posts_returns_every_post_once_in_the_order_of_the_api(
    service, new_client_of_each_version, july, posts, pages
):
    service.posts = THREE_PAGES[:posts]
    result = fetch_posts(new_client_of_each_version(), july)
    assert [(each.post_id, each.impressions, each.engagements, each.cpm) for each in result.items] == [
        (number, number * 10, 0, None) for number in range(posts)
    ]
    assert (result.total_items, result.pages) == (posts, pages)
    assert (len(service.requests_to()), result.bad_rows) == (pages, [])


@pytest.mark.parametrize("personal_data", [True, False])
def test_fetch_instances_returns_ids_of_all_pages(service, new_client_of_each_version, personal_data):
    service.instance_ids = [f"i{number}" for number in range(250)]
    assert fetch_instances(new_client_of_each_version(personal_data=personal_data)) == tuple(service.instance_ids)
    assert len(service.requests_to("/v2/instances")) == 3


def test_instances_that_differ_in_two_lists_raise_with_the_way_around(service, new_client):
    service.instance_ids = ["a", "b"]
    service.change_body = lambda number, body: body | {"pagination": {"totalItems": 3}}
    with pytest.raises(InconsistentPages, match="received 2 rows of 3.* set LATER_INSTANCE_IDS"):
        fetch_instances(new_client())


def test_list_without_a_token_names_no_way_around_the_list(new_client, events):
    with socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RetriesExhausted, match=f"^token: ConnectError.* 8 attempts at {host}: try again later.$"):
            fetch_instances(new_client(base_url=f"http://{host}"))
    retries = of_type(events, "retry")
    assert [event.attempts for event in retries] == [1, 2, 3, 4, 5, 6, 7]
    assert [event.is_serious for event in retries] == [False, False, True, True, True, True, True]
    assert {event.host for event in retries} == {host}


def test_totals_of_more_instances_than_fit_a_url_are_refused(service, new_client, july):
    service.faults.extend([JSONResponse({"data": {"impressions": 1}})] * 2)
    many = replace(july, instance_ids=tuple(f"{number:0300d}" for number in range(20)))  # one is in the second part
    with pytest.raises(InconsistentPages, match="1 rows are those of other instances, too"):
        run_with(new_client(), lambda client: client.fetch(INSTANCES_PERFORMANCE, many))


@pytest.mark.parametrize("count", [49, 50, 100, 101, 200, 250])
@pytest.mark.parametrize("max_page_size", [50, 100])
@pytest.mark.parametrize("end", ["an empty page", "a refusal"])
def test_list_without_a_total_goes_on_after_a_full_page(service, new_client, count, max_page_size, end):
    service.instance_ids, service.max_page_size = [f"i{number}" for number in range(count)], max_page_size

    async def refuse_after_last(request):
        number = int(request.query_params["pageNumber"])
        return problem(400, "ANL_00400") if (number - 1) * max_page_size >= count else None

    service.change_body = lambda number, body: {"data": body["data"]}
    if end == "a refusal":
        service.faults.extend([refuse_after_last] * 9)
    assert fetch_instances(new_client()) == tuple(service.instance_ids)


def test_full_page_that_every_page_number_returns_is_no_list(service, new_client):
    listed = [f"i{number}" for number in range(100)]
    service.change_body = lambda number, body: {"data": listed}
    with pytest.raises(InconsistentPages, match="page 2 has the rows of page 1, which was full.* LATER_INSTANCE_IDS"):
        fetch_instances(new_client())
    listed += [f"i{number}" for number in range(100, 120)]  # the server has no pages
    assert fetch_instances(new_client()) == tuple(listed)


@pytest.mark.parametrize("end", [{"nextCursor": ""}, {"nextCursor": None}])
def test_list_by_cursor_that_ends_before_its_total_is_inconsistent(service, new_client, end):
    service.by_cursor, service.instance_ids = True, [f"i{number}" for number in range(250)]
    service.change_body = lambda number, body: {"data": body["data"], "pagination": {"totalItems": 250}} | end
    with pytest.raises(InconsistentPages, match="the list ended after 100 rows of 250"):
        fetch_instances(new_client(api_version=CURSOR))


LISTINGS = {
    "without pagination": JSONResponse({"data": {"instanceIds": ["a", "b"]}}),
    "refused": problem(403, "ANL_00403"),
    "failing": problem(500, "ANL_00500"),
    "of another form": JSONResponse({"items": ["a", "b"]}),
    "HTML": Response("<html>"),
    "with a cursor beside totals": JSONResponse({"data": [], "pagination": {"totalItems": 0}, "nextCursor": None}),
}


@pytest.mark.parametrize("by_cursor", [False, True])
@pytest.mark.parametrize("listing", LISTINGS)
def test_page_of_posts_shows_the_version_if_the_list_of_instances_does_not(
    service, new_detecting_client, july, by_cursor, listing
):
    service.by_cursor, service.posts = by_cursor, THREE_PAGES
    service.faults.append(LISTINGS[listing])
    client = new_detecting_client()
    assert len(fetch_posts(client, july).items) == 250
    assert len(service.requests_to(INSTANCES)) == 1
    assert len(service.requests_to()) == 1 + 3


def test_version_that_nothing_shows_raises_with_the_way_around(service, new_detecting_client, july):
    service.change_body = lambda number, body: {"data": []}
    with pytest.raises(UnexpectedResponse, match="set LATER_API_VERSION"):
        fetch_posts(new_detecting_client(), july)


def probe(client):
    return run_with(client, lambda client: client.probe())


def test_probe_returns_version_rate_limit_and_server_time(service, new_client):
    service.headers = {"X-Ratelimit-Limit": "120", "X-Ratelimit-Window": "60"}
    probed = probe(new_client())
    assert (probed.api_version, probed.limit, probed.window_seconds) == (PAGED, 120, 60.0)
    assert abs((probed.server_time - datetime.now(UTC)).total_seconds()) < 60
    assert len(service.requests) == 2
    # Valid in both API versions, so the envelope shows the version.
    assert service.requests_to("/v2/instances")[0].url.query == ""


def test_probe_of_a_response_without_headers_has_no_limit_and_no_time(new_client):
    body = json.dumps(page_body([], page=1, page_size=1, total_items=0) | {"data": {"instanceIds": []}}).encode()
    with raw_server(
        lambda request: [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)]
    ) as base_url:
        client = new_client(base_url=base_url, credentials=AccessToken("ready"))
        assert probe(client) == Probe(PAGED, None, None, None)


def test_client_sends_at_most_max_requests_with_those_of_tokens_and_retries(service, new_client_of_each_version, july):
    service.faults.extend(problem(503, "ANL_00503") for _ in range(9))
    client = new_client_of_each_version(max_requests=4)
    with pytest.raises(RequestsUsedUp):
        fetch_posts(client, july)
    assert (len(service.requests), client.requests) == (4, 4)
    assert [request.url.path for request in service.requests].count("/oauth/token") == 1


def test_fetch_page_returns_one_page_of_a_size_even_if_its_totals_are_wrong(service, new_client, july):
    service.posts = THREE_PAGES
    service.change_body = lambda page, body: body | {"pagination": body["pagination"] | {"totalItems": 7}}
    page = run_with(
        new_client(), lambda client: client.fetch_page(POSTS_PERFORMANCE, july, PageRequest(2), page_size=30)
    )
    assert [each.post_id for each in page.items] == [*range(30, 60)]
    assert (page.stated_total, len(service.requests_to())) == (7, 1)


@pytest.mark.parametrize(("lifetime", "seconds"), [(3600.0, 3600.0), (None, None)])
def test_token_seconds_is_what_the_token_states(lifetime, seconds, service, new_client):
    service.token_lifetime = lifetime
    client = new_client()
    assert client.token_seconds is None
    probe(client)
    assert client.token_seconds == seconds


INSTANCES = "/v2/instances"


@pytest.fixture
def new_detecting_client(new_client):
    return lambda **changes: new_client(**{"api_version": None} | changes)


@pytest.mark.parametrize("by_cursor", [False, True])
def test_version_is_detected_by_one_request_of_a_client(service, new_detecting_client, july, by_cursor):
    service.by_cursor, service.posts = by_cursor, THREE_PAGES

    async def fetch(client):
        results = [await client.fetch(POSTS_PERFORMANCE, july) for _ in range(2)]
        return results, await client.api_version()

    results, version = run_with(new_detecting_client(), fetch)
    assert [len(result.items) for result in results] == [250, 250]
    assert version is (CURSOR if by_cursor else PAGED)
    assert [request.url.query for request in service.requests_to(INSTANCES)] == [""]


@pytest.mark.parametrize("version", [PAGED, CURSOR], ids=str)
def test_page_of_the_other_version_raises_even_if_the_version_is_set(service, new_client, july, version):
    # As from a service that ignores unknown parameters.
    paged_body = page_body([], page=1, page_size=100, total_items=0)
    service.faults.append(JSONResponse({"data": [], "nextCursor": None} if version is PAGED else paged_body))
    before, now = ("paged", "cursor") if version is PAGED else ("cursor", "paged")
    with pytest.raises(ApiVersionChanged) as raised:
        fetch_posts(new_client(api_version=version), july)
    assert str(raised.value) == (
        f"the service responds in API version {now}, not in {before}. Run again: the next run detects the version."
        f" If LATER_API_VERSION is set, set it to {now} or auto."
    )
    assert (len(service.requests_to()), service.requests_to(INSTANCES)) == (1, [])


@pytest.mark.parametrize("status", [400, 404, 422])
def test_rejected_query_costs_no_other_request(service, new_detecting_client, july, status):
    service.faults.extend([None, *[problem(status, "ANL_00400", detail="endDate is wrong")] * 3])

    async def fetch(client):
        for _ in range(3):
            with pytest.raises(QueryRejected, match="endDate is wrong"):
                await client.fetch(POSTS_PERFORMANCE, july)

    run_with(new_detecting_client(), fetch)
    assert (len(service.requests_to()), len(service.requests_to(INSTANCES))) == (3, 1)


def test_set_version_is_not_detected(service, new_client, july):
    service.by_cursor = True
    with pytest.raises(QueryRejected, match="HTTP 400 ANL_00400"):
        fetch_posts(new_client(api_version=PAGED), july)
    assert service.requests_to(INSTANCES) == []
    assert fetch_instances(new_client(api_version=CURSOR)) == ("a", "b")
    assert len(service.requests_to(INSTANCES)) == 1
