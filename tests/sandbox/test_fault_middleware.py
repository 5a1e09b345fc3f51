"""Selection of the requests with faults, and responses sent with delays or closed connections."""

import http.client
import socket
from functools import partial
from urllib.parse import urlsplit

import pytest

from later_reporting_dagster.sandbox import FaultSettings, SandboxOptions
from tests.sandbox.clients import DAY, MONTH, WITHOUT_FAULTS, FaultClient, StartSandbox, row_key, unique_keys


def statuses_by_request(start_sandbox: StartSandbox, *, seed: int, paths: list[str]) -> dict[tuple[str, int], int]:
    """Return the status of the first and second request of each path."""
    client = start_sandbox({"http-500": 0.2, "http-503": 0.2}, seed=seed)
    statuses = {(path, attempt): client.get(path).status for attempt in range(2) for path in paths}
    assert client.app.injected == {name: [*statuses.values()].count(int(name[5:])) for name in client.app.injected}
    return statuses


def test_seed_selects_the_requests_in_any_order(start_sandbox: StartSandbox) -> None:
    paths = [f"{DAY}&pageSize={size}" for size in range(1, 61)]
    statuses = statuses_by_request(start_sandbox, seed=1, paths=paths)
    assert statuses_by_request(start_sandbox, seed=1, paths=paths[::-1]) == statuses
    assert statuses_by_request(start_sandbox, seed=2, paths=paths) != statuses
    faults = sum(status != 200 for status in statuses.values())
    assert 25 < faults < 75  # 48 of 120 are expected
    # A request that failed once does not fail each time.
    assert {statuses[path, 1] for path in paths if statuses[path, 0] == 500} >= {200, 500}


def test_response_without_fault_equals_that_of_the_plain_app(start_sandbox: StartSandbox, base_url: str) -> None:
    client = start_sandbox({"http-500": 0.0})
    plain = FaultClient(base_url, client.app, client.headers)
    for path in (DAY, f"{MONTH}&pageNumber=3", "/v2/instances", "/v2/posts/performance?nonsense=1", "/nowhere"):
        response, expected = client.get(path), plain.get(path)
        assert (response.status, response.body) == (expected.status, expected.body)
    assert client.post_token().status == 200


def test_header_disables_faults_of_a_request(start_sandbox: StartSandbox) -> None:
    client = start_sandbox({"http-500": 1.0})
    assert client.get(DAY).status == 500
    assert client.get(DAY, **WITHOUT_FAULTS).status == 200
    assert client.app.injected == {"http-500": 1}


def test_fault_replaces_only_successful_responses(start_sandbox: StartSandbox) -> None:
    client = start_sandbox({"http-200-html": 1.0})
    assert client.get("/v2/posts/performance?nonsense=1").status == 400
    assert client.get(DAY, Authorization="Bearer wrong").status == 401
    assert client.app.injected == {"http-200-html": 0}


@pytest.mark.parametrize(
    ("name", "statuses", "next_status", "injected"), [("http-429", {429}, 200, 4), ("http-500", {500, 429}, 429, 2)]
)
def test_only_429_fault_does_not_count_for_the_rate_limit(
    start_sandbox: StartSandbox, name: str, statuses: set[int], next_status: int, injected: int
) -> None:
    client = start_sandbox({name: 1.0}, options=SandboxOptions(requests_per_window=3))  # the token request counts
    assert {client.get(DAY).status for _ in range(4)} == statuses
    assert client.get(DAY, **WITHOUT_FAULTS).status == next_status
    assert client.app.injected == {name: injected}


def test_revoked_token_stays_invalid_until_a_new_one_is_issued(start_sandbox: StartSandbox) -> None:
    client = start_sandbox({"token-revoked": 1.0}, clock=lambda: 1_700_000_000)
    response = client.get(DAY)
    assert (response.status, response.json()["type"]) == (401, "ANL_00401")
    assert client.get("/v2/instances", **WITHOUT_FAULTS).status == 401
    assert client.get(DAY, **WITHOUT_FAULTS).status == 401
    assert client.app.injected == {"token-revoked": 1}
    client.authenticate()  # in the same second, so the new token equals the revoked one
    assert client.get(DAY, **WITHOUT_FAULTS).status == 200


def test_token_route_down_leaves_other_routes_up(start_sandbox: StartSandbox) -> None:
    client = start_sandbox({"token-route-down": 1.0})
    assert client.post_token().status == 503
    assert client.get(DAY).status == 200
    assert client.app.injected == {"token-route-down": 1}


def test_huge_body_is_padded_and_has_no_content_length(start_sandbox: StartSandbox) -> None:
    size = 5 * 2**20 + 11
    client = start_sandbox({"huge-body": 1.0}, settings=FaultSettings(huge_bytes=size))
    response, expected = client.get(DAY), client.get(DAY, **WITHOUT_FAULTS)
    assert response.headers["content-length"] is None
    assert len(response.body) == size
    assert response.json() == expected.json()
    assert FaultSettings().huge_bytes == 200 * 2**20


def test_slow_response_is_correct_and_late(start_sandbox: StartSandbox) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    client = start_sandbox({"slow": 1.0}, sleep=sleep)
    response, expected = client.get(DAY), client.get(DAY, **WITHOUT_FAULTS)
    assert (response.status, response.body) == (200, expected.body)
    assert slept == [45.0]


# Closed connections


def received_bytes(client: FaultClient, path: str) -> bytes:
    """Return all bytes of a response until the server closes the connection."""
    url = urlsplit(client.base_url)
    with socket.create_connection((str(url.hostname), url.port), timeout=10) as connection:
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: sandbox",
            *(f"{name}: {value}" for name, value in client.headers.items()),
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return b"".join(iter(partial(connection.recv, 65536), b""))


def test_connection_is_closed_before_the_first_byte(
    start_sandbox: StartSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    client = start_sandbox({"connection-closed": 1.0})
    assert received_bytes(client, DAY) == b""
    with pytest.raises(http.client.RemoteDisconnected):
        client.post_token()
    assert client.app.injected == {"connection-closed": 2}
    assert not caplog.records  # the server logs no error


def test_connection_is_closed_within_the_body(start_sandbox: StartSandbox, caplog: pytest.LogCaptureFixture) -> None:
    client = start_sandbox({"body-cut": 1.0})
    expected = client.get(DAY, **WITHOUT_FAULTS)
    head, _, body = received_bytes(client, DAY).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"content-length: {len(expected.body)}\r\n".encode() in head + b"\r\n"
    assert len(body) < len(expected.body)
    assert expected.body.startswith(body)
    assert not client.get(DAY).is_complete
    assert not caplog.records


# Added and removed posts


@pytest.mark.parametrize(
    ("name", "removed", "added"), [("post-removed", 3, 0), ("post-inserted", 0, 3), ("post-exchanged", 3, 3)]
)
def test_posts_are_added_and_removed_up_to_the_maximum(
    start_sandbox: StartSandbox, base_url: str, name: str, removed: int, added: int
) -> None:
    client = start_sandbox({name: 1.0}, settings=FaultSettings(max_changes=3))
    all_posts = FaultClient(base_url, client.app, client.headers).fetch_pages(MONTH)
    before = client.fetch_pages(MONTH, **WITHOUT_FAULTS)
    for _ in range(5):
        client.get(f"{MONTH}&pageNumber=1")
    after = client.fetch_pages(MONTH, **WITHOUT_FAULTS)
    lost, found = unique_keys(before) - unique_keys(after), unique_keys(after) - unique_keys(before)
    assert len(after) == len(before) - removed + added
    # An added post may be removed again.
    assert (len(lost), len(found)) == (removed, added) or (name == "post-exchanged" and 0 < len(lost) == len(found) < 3)
    assert [row for row in all_posts if row in after] == after == client.fetch_pages(MONTH)
    assert client.app.injected == {name: 3}
    assert not lost & {*map(row_key, client.fetch_pages(f"{MONTH}&dateBasis=performance_date"))}
