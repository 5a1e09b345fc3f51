"""Tests of the versioned transport, which detects the API version, with a real server."""

import asyncio
import logging

import pytest
from starlette.responses import JSONResponse

from later_reporting_dagster.client import (
    ApiVersionChanged,
    QueryRejected,
    RetriesExhausted,
    RetryPolicy,
    UnexpectedResponse,
    VersionCache,
)
from later_reporting_dagster.contract import CURSOR, PAGED
from tests.client.scripted_api import THREE_PAGES, fetch_instances, fetch_posts, of_type, page_body, problem, run_with


@pytest.fixture
def new_detecting_client(new_client):
    """A factory of clients that detect the API version, and log its changes."""
    return lambda **changes: new_client(**{"api_version": None, "on_event": None} | changes)


@pytest.mark.parametrize("by_cursor", [False, True])
def test_version_is_detected_by_one_request_and_cached(
    service, new_detecting_client, july, tmp_path, by_cursor, caplog
):
    service.by_cursor, service.posts = by_cursor, THREE_PAGES
    path = tmp_path / "new folder" / "version"
    for requests in (1, 0):
        del service.requests[:]
        result = fetch_posts(new_detecting_client(version_cache=VersionCache(path)), july)
        assert len(result.posts) == 250
        assert len(service.requests_to("/v2/instances")) == requests
        assert len(service.requests_to()) == 3
    assert path.read_text() == ("cursor" if by_cursor else "paged")
    assert caplog.records == []


@pytest.mark.parametrize(("by_cursor", "requests"), [(False, 1), (True, 3)])
def test_fetch_instances_tries_the_paged_version_first(service, new_detecting_client, by_cursor, requests):
    service.by_cursor = by_cursor
    cache = VersionCache()
    assert fetch_instances(new_detecting_client(version_cache=cache)) == ("a", "b")
    assert len(service.requests_to("/v2/instances")) == requests
    assert cache.load() is (CURSOR if by_cursor else PAGED)
    assert fetch_instances(new_detecting_client(version_cache=cache)) == ("a", "b")
    assert len(service.requests_to("/v2/instances")) == requests + 1


def test_failed_detection_raises(service, new_detecting_client, july):
    service.faults.extend([problem(500, "ANL_00500")] * 2)
    with pytest.raises(RetriesExhausted, match="^instances: HTTP 500 "):
        fetch_posts(new_detecting_client(retry=RetryPolicy(max_attempts=2)), july)


def test_probe_detects_the_version(service, new_detecting_client, july):
    service.by_cursor = True

    async def probe_and_fetch(client):
        probed = await client.probe()
        await client.fetch_posts(july)
        return probed.api_version, await client.api_version()

    assert run_with(new_detecting_client(), probe_and_fetch) == (CURSOR, CURSOR)
    assert len(service.requests_to("/v2/instances")) == 1


@pytest.mark.parametrize("was_cursor", [False, True])
@pytest.mark.parametrize("pages_before", [0, 1, 2])
def test_version_change_is_detected_without_losing_rows(
    service, new_detecting_client, july, tmp_path, caplog, was_cursor, pages_before
):
    service.posts, service.by_cursor = THREE_PAGES, was_cursor
    path = tmp_path / "version"
    path.write_text("cursor" if was_cursor else "paged")

    async def change(request):
        service.by_cursor = not was_cursor

    service.faults.extend([None] * pages_before + [change])
    client = new_detecting_client(version_cache=VersionCache(path), concurrency=1)
    with caplog.at_level(logging.WARNING):
        result = fetch_posts(client, july)
    assert [each.post_id for each in result.posts] == list(range(250))
    before, now = ("cursor", "paged") if was_cursor else ("paged", "cursor")
    assert [record.getMessage() for record in caplog.records] == [str(ApiVersionChanged(before, now))]
    assert path.read_text() == now
    # The pages before the change, the rejected one, all pages again, and perhaps one more that was in flight.
    assert pages_before + 1 + 3 <= len(service.requests_to()) <= pages_before + 2 + 3
    assert len(service.requests_to("/v2/instances")) == 1


def test_version_change_during_concurrent_queries_is_reported_once(service, new_detecting_client, july, caplog):
    service.posts = THREE_PAGES

    async def change(request):
        service.by_cursor = True

    service.faults.extend([None] * 6 + [change])

    async def fetch_concurrently(client):
        return await asyncio.gather(*(client.fetch_posts(july) for _ in range(8)))

    with caplog.at_level(logging.INFO, logger="later_reporting_dagster"):
        results = run_with(new_detecting_client(), fetch_concurrently)
    assert [len(result.posts) for result in results] == [250] * 8
    assert sum("API version" in record.getMessage() for record in caplog.records) == 1


def test_version_change_is_an_event_instead_of_a_warning_with_on_event(
    service, new_detecting_client, july, caplog, events
):
    service.by_cursor = True
    cache = VersionCache()
    cache.store(PAGED)
    with caplog.at_level(logging.WARNING):
        fetch_posts(new_detecting_client(on_event=events.append, version_cache=cache), july)
    assert of_type(events, ApiVersionChanged) == [ApiVersionChanged("paged", "cursor")]
    assert caplog.records == []


@pytest.mark.parametrize("by_cursor", [False, True])
def test_envelope_of_the_other_version_needs_no_detection_request(service, new_detecting_client, july, by_cursor):
    # As from a service that ignores unknown parameters.
    service.by_cursor = by_cursor
    paged_body = page_body([], page=1, page_size=100, total_items=0)
    service.faults.append(JSONResponse({"data": [], "nextCursor": None} if by_cursor else paged_body))
    cache = VersionCache()
    cache.store(PAGED if by_cursor else CURSOR)
    result = fetch_posts(new_detecting_client(version_cache=cache), july)
    assert (result.posts, len(service.requests_to())) == ([], 2)
    assert service.requests_to("/v2/instances") == []


def test_rejected_query_without_version_change_raises(service, new_detecting_client, july):
    async def reject(request):
        return problem(400, "ANL_00400", detail="endDate is wrong") if "performance" in request.url.path else None

    service.faults.extend([None, reject])
    with pytest.raises(QueryRejected, match="endDate is wrong"):
        fetch_posts(new_detecting_client(), july)
    assert len(service.requests_to("/v2/instances")) == 2


def test_alternating_versions_raise(service, new_detecting_client, july):
    async def change(request):
        service.by_cursor = not service.by_cursor

    service.faults.extend([None] + [change, None] * 20)
    with pytest.raises(UnexpectedResponse, match="^posts of 2024-07-01 .*responds in alternating API versions"):
        fetch_posts(new_detecting_client(), july)


def test_set_version_is_not_detected(service, new_client, july):
    service.by_cursor = True
    with pytest.raises(QueryRejected, match="HTTP 400 ANL_00400"):
        fetch_posts(new_client(api_version=PAGED), july)
    assert service.requests_to("/v2/instances") == []
    service.faults.extend([JSONResponse({"data": [], "nextCursor": None})] * 2)
    with pytest.raises(RetriesExhausted, match="not a page of posts in API version paged, but in version cursor"):
        fetch_posts(new_client(api_version=PAGED, retry=RetryPolicy(max_attempts=2)), july)


def test_unusable_cache_takes_one_detection_request(service, new_detecting_client, july, tmp_path):
    for path in (tmp_path, tmp_path / "invalid"):
        (tmp_path / "invalid").write_bytes(b"\xff")
        cache = VersionCache(path)
        assert cache.load() is None
        fetch_posts(new_detecting_client(version_cache=cache), july)
        assert cache.load() is PAGED
    assert len(service.requests_to("/v2/instances")) == 2
