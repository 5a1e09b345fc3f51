"""Tokens, instance scope, limits and error responses of the application, over synthetic posts."""

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from later_reporting_dagster.server import Client, http_server
from later_reporting_dagster.server.app import RateLimitMiddleware
from later_reporting_dagster.server.sandbox import SandboxOptions, World, create_app, running_server
from later_reporting_dagster.server.tokens import TOKEN_SECONDS
from tests.client.scripted_api import FakeTime
from tests.server.lake_store.clients import assert_problem, authenticate
from tests.services import WAIT_SECONDS

WORLD = World(first_day=date(2024, 6, 1), last_day=date(2024, 6, 30), instances=2, posts_per_day=6)
CLIENT = Client(SandboxOptions().client_id, SandboxOptions().client_secret)
CREDENTIALS = {"clientId": CLIENT.client_id, "clientSecret": CLIENT.client_secret}
DAY = "/v2/posts/performance?startDate=2024-06-03&endDate=2024-06-03"


@contextmanager
def served(*, clock: FakeTime | None = None, **options: Any) -> Iterator[httpx.Client]:
    """Serve the application while the block runs; yield a client of it."""
    app = create_app(WORLD, options=SandboxOptions(**options), clock=clock or FakeTime())
    with running_server(app) as base_url, httpx.Client(base_url=base_url) as client:
        yield client


@pytest.fixture(scope="module")
def app_api() -> Iterator[httpx.Client]:
    with served(requests_per_window=1_000_000) as client:
        authenticate(client, CLIENT)
        yield client


def connected(base_url: httpx.URL | str) -> socket.socket:
    url = httpx.URL(base_url)
    return socket.create_connection((url.host, url.port or 0), timeout=WAIT_SECONDS)


def read_to_end(connection: socket.socket) -> bytes:
    """Return what a server sends until it closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            received += part
    return received


# Tokens


def test_token_is_rejected_from_its_exp_on() -> None:
    clock = FakeTime(now=1_000_000.0)
    with served(clock=clock) as client:
        authenticate(client, CLIENT)
        clock.now += TOKEN_SECONDS - 0.01
        assert client.get(DAY).status_code == 200
        clock.now += 0.01
        assert_problem(client.get(DAY), 401, "ANL_00401")
        authenticate(client, CLIENT)
        assert client.get(DAY).status_code == 200


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer nonsense", "Basic {token}", "{token}"])
def test_data_routes_require_a_bearer_token(app_api: httpx.Client, authorization: str | None) -> None:
    token = app_api.headers["Authorization"].removeprefix("Bearer ")
    headers = {} if authorization is None else {"Authorization": authorization.format(token=token)}
    for path in (DAY, "/v2/instances", "/v2/campaigns", f"/v2/campaigns/performance{DAY.partition('performance')[2]}"):
        assert_problem(httpx.get(f"{app_api.base_url}{path}", headers=headers), 401, "ANL_00401")


def test_forged_or_foreign_token_is_rejected(app_api: httpx.Client) -> None:
    token = app_api.headers["Authorization"].removeprefix("Bearer ")
    header, claims, signature = token.split(".")
    extended = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"exp": 2**40}
    forged = base64.urlsafe_b64encode(json.dumps(extended).encode()).rstrip(b"=").decode()
    unsigned, no_claims = f"{header}.{forged}.", f"{header}.W10.{signature}"
    for wrong in (f"{header}.{forged}.{signature}", unsigned, token[:-2], f"ü.{token}", no_claims, ".."):
        headers = {b"Authorization": f"Bearer {wrong}".encode("latin-1")}
        assert_problem(app_api.get(DAY, headers=headers), 401, "ANL_00401")
    for other in ({"client_secret": "another"}, {"client_id": "another"}):
        with served(**other) as other_server:
            assert_problem(other_server.get(DAY, headers={"Authorization": f"Bearer {token}"}), 401, "ANL_00401")


def test_endless_token_request_is_rejected_before_its_end(app_api: httpx.Client) -> None:
    with connected(app_api.base_url) as connection:
        connection.sendall(b"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n")
        connection.sendall(b" " * 20_000)  # more than the limit, but not more than the server reads before it responds
        response = read_to_end(connection)
    assert response.startswith(b"HTTP/1.1 413 ")
    assert b'"ANL_00413"' in response


def test_token_request_that_is_aborted_is_no_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    ended = threading.Event()
    app = create_app(WORLD, options=SandboxOptions())

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        finally:
            ended.set()

    with running_server(observed) as base_url:
        with connected(base_url) as connection:
            connection.sendall(b"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert ended.wait(WAIT_SECONDS)
    assert caplog.records == []


@pytest.mark.parametrize("wrong", [{"clientId": "other"}, {"clientSecret": "other"}])
def test_wrong_credentials_have_their_own_problem_type(app_api: httpx.Client, wrong: dict[str, str]) -> None:
    response = httpx.post(f"{app_api.base_url}/oauth/token", json=CREDENTIALS | wrong)
    assert_problem(response, 401, "INVALID_CLIENT_CREDENTIALS")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"clientId": "sandbox-client"}',
        b'{"clientId": 1, "clientSecret": "x"}',
        b"clientId=sandbox-client&clientSecret=sandbox-secret",
        b'{"clientId": "\xff", "clientSecret": "x"}',
        b'{"clientId": "a", "clientSecret": "b", "other": ' + 8_000 * b"[",
    ],
)
def test_malformed_token_request_is_rejected(app_api: httpx.Client, body: bytes) -> None:
    assert_problem(httpx.post(f"{app_api.base_url}/oauth/token", content=body), 400, "ANL_00400")


# The rate limit


def test_every_response_has_rate_limit_headers_also_a_429() -> None:
    clock = FakeTime()
    with served(clock=clock, requests_per_window=4, window_seconds=2.5) as client:
        authenticate(client, CLIENT)
        responses = [client.get(path) for path in (DAY, f"{DAY}&nonsense=1", "/nowhere", DAY, DAY)]
    assert [response.status_code for response in responses] == [200, 400, 404, 429, 429]
    for response in responses:
        assert response.headers["X-Ratelimit-Limit"] == "4"
        assert response.headers["X-Ratelimit-Window"] == "2.5"
        assert "Retry-After" not in response.headers
    assert responses[-1].text == "Too Many Requests"


def test_rate_limit_window_slides() -> None:
    clock = FakeTime(now=1000.0)
    with served(clock=clock, requests_per_window=2, window_seconds=10) as client:

        def status_at(now: float) -> int:
            clock.now = now
            return client.post("/oauth/token", json=CREDENTIALS).status_code

        assert [status_at(1000), status_at(1009), status_at(1009.9)] == [200, 200, 429]
        # A fixed window would admit two; if rejected requests counted, none would be admitted.
        assert [status_at(1010), status_at(1010.1), status_at(1018.9), status_at(1019)] == [200, 429, 429, 200]


def test_rate_limit_forgets_addresses_that_are_silent_for_a_window() -> None:
    clock = FakeTime(now=1000.0)
    middleware = RateLimitMiddleware(PlainTextResponse("hello"), requests=5, window_seconds=10, clock=clock)

    async def request_from(address: str) -> None:
        transport = httpx.ASGITransport(middleware, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/")).status_code == 200

    for number in range(100):
        clock.now += 1
        asyncio.run(request_from(f"10.0.0.{number}"))
    assert len(middleware._admitted) <= 10


# Error responses


def test_undocumented_request_gets_a_problem_response(app_api: httpx.Client) -> None:
    for method, path, status in (
        ("GET", "/v2/posts/performance/", 404),
        ("POST", DAY, 405),
        ("GET", "/oauth/token", 405),
        ("GET", "/v2/instances?pageSize=0", 400),
        ("GET", "/v2/instances?startDate=2024-01-01", 400),
        ("GET", f"{DAY}&instanceIds=nobody", 403),
    ):
        assert_problem(app_api.request(method, path), status, f"ANL_00{status}")


# Limits of connections, read from plain sockets


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def hello_url() -> Iterator[str]:
    with running_server(PlainTextResponse("hello")) as base_url:
        yield base_url


def test_endless_request_head_is_refused(hello_url: str) -> None:
    with connected(hello_url) as connection:
        with suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000)
        assert b" 200 " not in read_to_end(connection)


def test_connection_without_a_request_is_closed(monkeypatch: pytest.MonkeyPatch, hello_url: str) -> None:
    monkeypatch.setattr(http_server, "FIRST_REQUEST_SECONDS", 0.2)
    with connected(hello_url) as connection:
        connection.sendall(REQUEST[:20])
        assert read_to_end(connection) == b""


def test_connections_beyond_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch, hello_url: str) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 2)
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(connected(hello_url)) for _ in range(3))
        assert read_to_end(third) == b""
        for connection in (first, second):
            connection.sendall(REQUEST)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
