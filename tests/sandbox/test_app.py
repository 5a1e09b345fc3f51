"""Tokens, instance scope, rate limit, error responses and latency of the sandbox application."""

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from later_reporting_dagster.sandbox import SandboxOptions, World, create_app, running_server
from tests.sandbox.clients import CREDENTIALS, authenticate

DAY = "/v2/posts/performance?startDate=2024-06-03&endDate=2024-06-03"


@dataclass
class Clock:
    now: float = 1_700_000_000.25

    def __call__(self) -> float:
        return self.now


@contextmanager
def sandbox_client(world: World, **arguments: object) -> Iterator[httpx.Client]:
    """Serve a sandbox while the block runs; yield a client of it."""
    with (
        running_server(create_app(world, **arguments)) as base_url,  # type: ignore[arg-type]
        httpx.Client(base_url=base_url) as client,
    ):
        yield client


def assert_problem(response: httpx.Response, status: int, problem_type: str) -> None:
    """Assert that a response has a problem body with the given type."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert list(response.json()) == ["type", "title", "detail"]
    assert response.json()["type"] == problem_type
    assert all(isinstance(value, str) and value for value in response.json().values())
    assert {"x-ratelimit-limit", "x-ratelimit-window"} <= set(response.headers)


# Tokens


def test_token_is_a_jwt_with_its_lifetime(world: World) -> None:
    with sandbox_client(world, clock=Clock()) as client:
        response = client.post("/oauth/token", json=CREDENTIALS)
    assert list(response.json()) == ["jwt"]
    header, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in response.json()["jwt"].split("."))
    assert json.loads(header) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(claims) == {"sub": "sandbox-client", "iat": 1_700_000_000, "exp": 1_700_000_000 + 43_200}
    assert len(signature) == 32


def test_token_is_rejected_from_its_exp_on(world: World) -> None:
    clock = Clock(now=1_000_000.0)
    with sandbox_client(world, clock=clock, options=SandboxOptions(token_lifetime_seconds=3)) as client:
        authenticate(client)
        clock.now += 2.99
        assert client.get(DAY).status_code == 200
        clock.now += 0.01
        assert_problem(client.get(DAY), 401, "ANL_00401")
        authenticate(client)
        assert client.get(DAY).status_code == 200


@pytest.mark.parametrize("path", [DAY, "/v2/instances"])
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer nonsense", "Bearer a.b.c", "Basic {token}", "{token}"]
)
def test_data_routes_require_a_bearer_token(
    api: httpx.Client, base_url: str, path: str, authorization: str | None
) -> None:
    token = api.headers["Authorization"].removeprefix("Bearer ")
    headers = {} if authorization is None else {"Authorization": authorization.format(token=token)}
    assert_problem(httpx.get(base_url + path, headers=headers), 401, "ANL_00401")


def test_forged_or_foreign_token_is_rejected(api: httpx.Client, world: World) -> None:
    token = api.headers["Authorization"].removeprefix("Bearer ")
    header, claims, signature = token.split(".")
    extended = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"exp": 2**40}
    forged = base64.urlsafe_b64encode(json.dumps(extended).encode()).rstrip(b"=").decode()
    unsigned = f"{header}.{forged}."
    for wrong in (f"{header}.{forged}.{signature}", unsigned, token[:-2], f"ü.{token}".encode("latin-1")):
        authorization = b"Bearer " + (wrong if isinstance(wrong, bytes) else wrong.encode())
        assert_problem(api.get(DAY, headers={"Authorization": authorization}), 401, "ANL_00401")  # type: ignore[dict-item]
    with sandbox_client(world, options=SandboxOptions(client_secret="another")) as other_sandbox:
        assert_problem(other_sandbox.get(DAY, headers={"Authorization": f"Bearer {token}"}), 401, "ANL_00401")


def test_endless_token_request_is_rejected_before_its_end(base_url: str) -> None:
    url = httpx.URL(base_url)
    with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
        connection.sendall(b"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n")
        connection.sendall(b" " * 20_000)  # more than the limit, but not more than the server reads before it responds
        response = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert response.startswith(b"HTTP/1.1 413 ")
    assert b'"ANL_00413"' in response


@pytest.mark.parametrize("wrong", [{"clientId": "other"}, {"clientSecret": "other"}, {"clientSecret": ""}])
def test_wrong_credentials_have_their_own_problem_type(base_url: str, wrong: dict[str, str]) -> None:
    response = httpx.post(f"{base_url}/oauth/token", json=CREDENTIALS | wrong)
    assert_problem(response, 401, "INVALID_CLIENT_CREDENTIALS")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"clientId": "sandbox-client"}',
        b'{"clientId": 1, "clientSecret": "x"}',
        b'{"clientId": null, "clientSecret": null}',
        b"clientId=sandbox-client&clientSecret=sandbox-secret",
        b'{"clientId": "\xff", "clientSecret": "x"}',
    ],
)
def test_malformed_token_request_is_rejected(base_url: str, body: bytes) -> None:
    assert_problem(httpx.post(f"{base_url}/oauth/token", content=body), 400, "ANL_00400")


# Instances and scope


def test_instances_are_paginated(world: World) -> None:
    with sandbox_client(world) as client:
        authenticate(client)
        all_instances = client.get("/v2/instances").json()
        second = client.get("/v2/instances?pageSize=3&pageNumber=2").json()
    names = ["instance_000", "instance_001", "instance_abc", "instance_def"]
    assert all_instances == {
        "data": {"instanceIds": names},
        "pagination": {"page": 1, "pageSize": 50, "totalItems": 4, "totalPages": 1},
    }
    assert second == {
        "data": {"instanceIds": ["instance_def"]},
        "pagination": {"page": 2, "pageSize": 3, "totalItems": 4, "totalPages": 2},
    }


def test_credentials_access_only_their_instance_scope(world: World) -> None:
    with sandbox_client(world, options=SandboxOptions(instance_scope=("instance_001",))) as client:
        authenticate(client)
        assert client.get("/v2/instances").json()["data"] == {"instanceIds": ["instance_001"]}
        assert {row["instanceId"] for row in client.get(DAY).json()["data"]} == {"instance_001"}
        assert client.get(f"{DAY}&instanceIds=instance_001").status_code == 200
        rejected = client.get(f"{DAY}&instanceIds=instance_001&instanceIds=instance_000")
        assert_problem(rejected, 403, "ANL_00403")
        assert "instance_000" in rejected.json()["detail"]


def test_empty_instance_scope_has_no_data(world: World) -> None:
    with sandbox_client(world, options=SandboxOptions(instance_scope=())) as client:
        authenticate(client)
        assert client.get("/v2/instances").json()["pagination"]["totalItems"] == 0
        assert client.get(DAY).json()["pagination"] == {"page": 1, "pageSize": 50, "totalItems": 0, "totalPages": 0}


def test_instance_scope_outside_the_world_is_rejected(world: World) -> None:
    with pytest.raises(ValueError, match="instance_9"):
        create_app(world, options=SandboxOptions(instance_scope=("instance_000", "instance_9")))


def test_instance_id_with_a_comma_can_be_queried(world: World) -> None:
    comma_world = World(
        first_day=world.first_day, last_day=world.last_day, instances=1, extra_instance_ids=("a,b|c/ü",)
    )
    with sandbox_client(comma_world) as client:
        authenticate(client)
        for name in ("instanceIds[]", "instanceIds"):
            repeated = [("instanceIds", "instance_000")] if name == "instanceIds" else []
            parameters = [("startDate", "2024-06-03"), ("endDate", "2024-06-05"), (name, "a,b|c/ü"), *repeated]
            rows = client.get("/v2/posts/performance", params=parameters).json()["data"]
            assert "a,b|c/ü" in {row["instanceId"] for row in rows}


# The rate limit


def test_every_response_has_rate_limit_headers_also_a_429(world: World) -> None:
    clock = Clock()
    with sandbox_client(
        world, clock=clock, options=SandboxOptions(requests_per_window=4, window_seconds=2.5)
    ) as client:
        authenticate(client)
        responses = [client.get(path) for path in (DAY, f"{DAY}&nonsense=1", "/nowhere", DAY, DAY)]
    assert [response.status_code for response in responses] == [200, 400, 404, 429, 429]
    for response in responses:
        assert response.headers["X-Ratelimit-Limit"] == "4"
        assert response.headers["X-Ratelimit-Window"] == "2.5"
        assert "Retry-After" not in response.headers
    assert responses[-1].text == "Too Many Requests"


def test_default_rate_limit_is_the_documented_one(world: World) -> None:
    clock = Clock()
    with sandbox_client(world, clock=clock) as client:
        statuses = [client.post("/oauth/token", json=CREDENTIALS).status_code for _ in range(121)]
        headers = client.get(DAY).headers
    assert statuses == [200] * 120 + [429]
    assert (headers["X-Ratelimit-Limit"], headers["X-Ratelimit-Window"]) == ("120", "60")


def test_rate_limit_window_slides(world: World) -> None:
    clock = Clock(now=1000.0)
    with sandbox_client(world, clock=clock, options=SandboxOptions(requests_per_window=2, window_seconds=10)) as client:

        def status_at(now: float) -> int:
            clock.now = now
            return client.post("/oauth/token", json=CREDENTIALS).status_code

        assert [status_at(1000), status_at(1009), status_at(1009.9)] == [200, 200, 429]
        # A fixed window would admit two; if rejected requests counted, none would be admitted.
        assert [status_at(1010), status_at(1010.1), status_at(1018.9), status_at(1019)] == [200, 429, 429, 200]


# Error responses


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/posts/performance/", 404),
        ("GET", "/v1/posts/performance", 404),
        ("POST", DAY, 405),
        ("DELETE", DAY, 405),
        ("GET", "/oauth/token", 405),
        ("GET", "/v2/instances?pageSize=0", 400),
        ("GET", "/v2/instances?startDate=2024-01-01", 400),
        ("GET", f"{DAY}&instanceIds=nobody", 403),
    ],
)
def test_undocumented_request_gets_a_problem_response(api: httpx.Client, method: str, path: str, status: int) -> None:
    assert_problem(api.request(method, path), status, f"ANL_00{status}")


# Latency


def test_latency_delays_each_response(world: World) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    with sandbox_client(world, options=SandboxOptions(latency_seconds=0.08), sleep=sleep) as client:
        authenticate(client)
        client.get(DAY)
        client.get("/nowhere")
    assert slept == [0.08] * 3
