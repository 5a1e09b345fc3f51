"""Tests of the detection of the API version, with a real server."""

import pytest
from starlette.responses import JSONResponse

from later_reporting_dagster.client import ApiVersionChanged, QueryRejected, RetriesExhausted, RetryPolicy
from later_reporting_dagster.contract import CURSOR, PAGED
from tests.client.scripted_api import THREE_PAGES, fetch_instances, fetch_posts, page_body, problem, run_with

INSTANCES = "/v2/instances"


@pytest.fixture
def new_detecting_client(new_client):
    """A factory of clients that detect the API version."""
    return lambda **changes: new_client(**{"api_version": None} | changes)


@pytest.mark.parametrize("by_cursor", [False, True])
def test_version_is_detected_by_one_request_of_a_client(service, new_detecting_client, july, by_cursor):
    service.by_cursor, service.posts = by_cursor, THREE_PAGES

    async def fetch(client):
        results = [await client.fetch_posts(july) for _ in range(2)]
        return results, await client.api_version()

    results, version = run_with(new_detecting_client(), fetch)
    assert [len(result.items) for result in results] == [250, 250]
    assert version is (CURSOR if by_cursor else PAGED)
    assert [request.parameters for request in service.requests_to(INSTANCES)] == [[]]


def test_failed_detection_raises(service, new_detecting_client, july):
    service.faults.extend([problem(500, "ANL_00500")] * 2)
    with pytest.raises(RetriesExhausted, match="^instances: HTTP 500 "):
        fetch_posts(new_detecting_client(retry=RetryPolicy(max_attempts=2)), july)


@pytest.mark.parametrize("was_cursor", [False, True])
def test_version_that_changes_raises_and_the_next_client_detects_it(service, new_detecting_client, july, was_cursor):
    service.posts, service.by_cursor = THREE_PAGES, was_cursor

    async def change(request):
        service.by_cursor = not was_cursor

    service.faults.extend([None, None, change])
    before, now = ("cursor", "paged") if was_cursor else ("paged", "cursor")
    with pytest.raises(ApiVersionChanged) as raised:
        fetch_posts(new_detecting_client(concurrency=1), july)
    assert str(raised.value) == (
        f"the service responds in API version {now}, not in {before}. Run again: the next run detects the version."
        f" If LATER_API_VERSION is set, set it to {now} or auto."
    )
    assert len(fetch_posts(new_detecting_client(), july).items) == 250


@pytest.mark.parametrize("version", [PAGED, CURSOR], ids=str)
def test_page_of_the_other_version_raises_even_if_the_version_is_set(service, new_client, july, version):
    # As from a service that ignores unknown parameters.
    paged_body = page_body([], page=1, page_size=100, total_items=0)
    service.faults.append(JSONResponse({"data": [], "nextCursor": None} if version is PAGED else paged_body))
    with pytest.raises(ApiVersionChanged):
        fetch_posts(new_client(api_version=version), july)
    assert (len(service.requests_to()), service.requests_to(INSTANCES)) == (1, [])


@pytest.mark.parametrize(("status", "listings"), [(400, 2), (404, 1)])
def test_rejected_query_of_the_same_version_raises(service, new_detecting_client, july, status, listings):
    service.faults.extend([None, problem(status, "ANL_00400", detail="endDate is wrong")])
    with pytest.raises(QueryRejected, match="endDate is wrong"):
        fetch_posts(new_detecting_client(), july)
    assert len(service.requests_to(INSTANCES)) == listings


def test_set_version_is_not_detected(service, new_client, july):
    service.by_cursor = True
    with pytest.raises(QueryRejected, match="HTTP 400 ANL_00400"):
        fetch_posts(new_client(api_version=PAGED), july)
    assert service.requests_to(INSTANCES) == []
    assert fetch_instances(new_client(api_version=CURSOR)) == ("a", "b")
    assert len(service.requests_to(INSTANCES)) == 1
