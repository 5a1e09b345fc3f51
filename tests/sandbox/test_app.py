"""What surrounds the data: tokens, scope, the rate limit, problems, and the seams for tests and faults."""

import base64
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from later_reporting_dagster.sandbox import SandboxOptions, World, create_app, running_sandbox
from tests.sandbox.conftest import CREDENTIALS, sign_in

DAY = "/v2/posts/performance?startDate=2024-06-03&endDate=2024-06-03"


@dataclass
class Clock:
    now: float = 1_700_000_000.25

    def __call__(self) -> float:
        return self.now


@contextmanager
def serving(world: World, **arguments: object) -> Iterator[httpx.Client]:
    with (
        running_sandbox(create_app(world, **arguments)) as base_url,  # type: ignore[arg-type]
        httpx.Client(base_url=base_url) as client,
    ):
        yield client


def assert_problem(answer: httpx.Response, status: int, problem_type: str) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert list(answer.json()) == ["type", "title", "detail"]
    assert answer.json()["type"] == problem_type
    assert all(isinstance(value, str) and value for value in answer.json().values())
    assert {"x-ratelimit-limit", "x-ratelimit-window"} <= set(answer.headers)


# Tokens


def test_a_token_is_a_jwt_that_tells_its_own_life(world: World) -> None:
    with serving(world, clock=Clock()) as client:
        answer = client.post("/oauth/token", json=CREDENTIALS)
    assert list(answer.json()) == ["jwt"]
    header, claims, signature = (base64.urlsafe_b64decode(part + "==") for part in answer.json()["jwt"].split("."))
    assert json.loads(header) == {"alg": "HS256", "typ": "JWT"}
    assert json.loads(claims) == {"sub": "sandbox-client", "iat": 1_700_000_000, "exp": 1_700_000_000 + 43_200}
    assert len(signature) == 32


def test_a_token_is_refused_from_the_moment_of_its_exp(world: World) -> None:
    clock = Clock(now=1_000_000.0)
    with serving(world, clock=clock, options=SandboxOptions(token_lifetime_seconds=3)) as client:
        sign_in(client)
        clock.now += 2.99
        assert client.get(DAY).status_code == 200
        clock.now += 0.01
        assert_problem(client.get(DAY), 401, "ANL_00401")
        sign_in(client)
        assert client.get(DAY).status_code == 200


@pytest.mark.parametrize("path", [DAY, "/v2/instances"])
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer nonsense", "Bearer a.b.c", "Basic {token}", "{token}"]
)
def test_data_routes_want_a_bearer_token(
    api: httpx.Client, base_url: str, path: str, authorization: str | None
) -> None:
    token = api.headers["Authorization"].removeprefix("Bearer ")
    headers = {} if authorization is None else {"Authorization": authorization.format(token=token)}
    assert_problem(httpx.get(base_url + path, headers=headers), 401, "ANL_00401")


def test_a_token_that_was_tampered_with_or_comes_from_elsewhere_is_refused(api: httpx.Client, world: World) -> None:
    token = api.headers["Authorization"].removeprefix("Bearer ")
    header, claims, signature = token.split(".")
    longer = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"exp": 2**40}
    forged = base64.urlsafe_b64encode(json.dumps(longer).encode()).rstrip(b"=").decode()
    unsigned = f"{header}.{forged}."
    for wrong in (f"{header}.{forged}.{signature}", unsigned, token[:-2], f"ü.{token}".encode("latin-1")):
        authorization = b"Bearer " + (wrong if isinstance(wrong, bytes) else wrong.encode())
        assert_problem(api.get(DAY, headers={"Authorization": authorization}), 401, "ANL_00401")  # type: ignore[dict-item]
    with serving(world, options=SandboxOptions(client_secret="another")) as elsewhere:
        assert_problem(elsewhere.get(DAY, headers={"Authorization": f"Bearer {token}"}), 401, "ANL_00401")


def test_a_token_request_without_end_is_refused_before_it_ends(base_url: str) -> None:
    address = httpx.URL(base_url)
    with socket.create_connection((address.host, address.port or 0), timeout=10) as connection:
        connection.sendall(b"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n")
        connection.sendall(b" " * 20_000)  # more than is allowed, and no more than is read before the response
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"ANL_00413"' in answer


@pytest.mark.parametrize("wrong", [{"clientId": "other"}, {"clientSecret": "other"}, {"clientSecret": ""}])
def test_wrong_credentials_have_a_type_of_their_own(base_url: str, wrong: dict[str, str]) -> None:
    answer = httpx.post(f"{base_url}/oauth/token", json=CREDENTIALS | wrong)
    assert_problem(answer, 401, "INVALID_CLIENT_CREDENTIALS")


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
def test_a_malformed_token_request_is_refused(base_url: str, body: bytes) -> None:
    assert_problem(httpx.post(f"{base_url}/oauth/token", content=body), 400, "ANL_00400")


# Instances and scope


def test_instances_are_listed_in_pages(world: World) -> None:
    with serving(world) as client:
        sign_in(client)
        everything = client.get("/v2/instances").json()
        second = client.get("/v2/instances?pageSize=3&pageNumber=2").json()
    names = ["instance_000", "instance_001", "instance_abc", "instance_def"]
    assert everything == {
        "data": {"instanceIds": names},
        "pagination": {"page": 1, "pageSize": 50, "totalItems": 4, "totalPages": 1},
    }
    assert second == {
        "data": {"instanceIds": ["instance_def"]},
        "pagination": {"page": 2, "pageSize": 3, "totalItems": 4, "totalPages": 2},
    }


def test_credentials_reach_the_instances_of_their_scope_only(world: World) -> None:
    with serving(world, options=SandboxOptions(instance_scope=("instance_001",))) as client:
        sign_in(client)
        assert client.get("/v2/instances").json()["data"] == {"instanceIds": ["instance_001"]}
        assert {row["instanceId"] for row in client.get(DAY).json()["data"]} == {"instance_001"}
        assert client.get(f"{DAY}&instanceIds=instance_001").status_code == 200
        refused = client.get(f"{DAY}&instanceIds=instance_001&instanceIds=instance_000")
        assert_problem(refused, 403, "ANL_00403")
        assert "instance_000" in refused.json()["detail"]


def test_an_empty_scope_reaches_nothing(world: World) -> None:
    with serving(world, options=SandboxOptions(instance_scope=())) as client:
        sign_in(client)
        assert client.get("/v2/instances").json()["pagination"]["totalItems"] == 0
        assert client.get(DAY).json()["pagination"] == {"page": 1, "pageSize": 50, "totalItems": 0, "totalPages": 0}


def test_a_scope_outside_the_world_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="instance_9"):
        create_app(world, options=SandboxOptions(instance_scope=("instance_000", "instance_9")))


def test_an_instance_id_with_a_comma_can_be_asked_for(world: World) -> None:
    odd = World(first_day=world.first_day, last_day=world.last_day, instances=1, further_instances=("a,b|c/ü",))
    with serving(odd) as client:
        sign_in(client)
        for name in ("instanceIds[]", "instanceIds"):
            again = [("instanceIds", "instance_000")] if name == "instanceIds" else []
            parameters = [("startDate", "2024-06-03"), ("endDate", "2024-06-05"), (name, "a,b|c/ü"), *again]
            rows = client.get("/v2/posts/performance", params=parameters).json()["data"]
            assert "a,b|c/ü" in {row["instanceId"] for row in rows}


# The rate limit


def test_every_answer_tells_the_limit_and_over_it_is_429(world: World) -> None:
    clock = Clock()
    with serving(world, clock=clock, options=SandboxOptions(requests_per_window=4, window_seconds=2.5)) as client:
        sign_in(client)
        seen = [client.get(path) for path in (DAY, f"{DAY}&nonsense=1", "/nowhere", DAY, DAY)]
    assert [answer.status_code for answer in seen] == [200, 400, 404, 429, 429]
    for answer in seen:
        assert answer.headers["X-Ratelimit-Limit"] == "4"
        assert answer.headers["X-Ratelimit-Window"] == "2.5"
        assert "Retry-After" not in answer.headers
    assert seen[-1].text == "Too Many Requests"


def test_the_default_limit_is_the_documented_one(world: World) -> None:
    clock = Clock()
    with serving(world, clock=clock) as client:
        statuses = [client.post("/oauth/token", json=CREDENTIALS).status_code for _ in range(121)]
        headers = client.get(DAY).headers
    assert statuses == [200] * 120 + [429]
    assert (headers["X-Ratelimit-Limit"], headers["X-Ratelimit-Window"]) == ("120", "60")


def test_the_window_slides(world: World) -> None:
    clock = Clock(now=1000.0)
    with serving(world, clock=clock, options=SandboxOptions(requests_per_window=2, window_seconds=10)) as client:

        def status_at(now: float) -> int:
            clock.now = now
            return client.post("/oauth/token", json=CREDENTIALS).status_code

        assert [status_at(1000), status_at(1009), status_at(1009.9)] == [200, 200, 429]
        # A fixed window would admit two here; a refused request, were it counted, would admit none.
        assert [status_at(1010), status_at(1010.1), status_at(1018.9), status_at(1019)] == [200, 429, 429, 200]


# Problems


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
def test_a_request_that_is_not_of_the_api_is_a_problem(api: httpx.Client, method: str, path: str, status: int) -> None:
    assert_problem(api.request(method, path), status, f"ANL_00{status}")


# Latency, work, independence


def test_latency_is_waited_for_before_each_answer(world: World) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    with serving(world, options=SandboxOptions(latency_seconds=0.08), sleep=sleep) as client:
        sign_in(client)
        client.get(DAY)
        client.get("/nowhere")
    assert waited == [0.08] * 3
