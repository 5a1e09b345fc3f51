"""Each fault of the sandbox is injected, and is the fault that it is named for."""

import gzip
from collections.abc import Callable
from typing import Any

import httpx
import pyarrow as pa
import pytest

from later_reporting_dagster.contract import CURSOR, PAGED
from later_reporting_dagster.sandbox import FAULTS, FaultSettings, SandboxOptions, parse_rates
from later_reporting_dagster.sandbox.faults import PageFault
from tests.sandbox.conftest import WITHOUT_FAULTS, sandbox

MONTH = "/v2/posts/performance?startDate=2024-06-01&endDate=2024-06-30&sortDirection=ASC"
PAGES = {PAGED: f"{MONTH}&pageSize=50&pageNumber=2", CURSOR: f"{MONTH}&limit=50&metrics=impressions"}
SETTINGS = FaultSettings(huge_bytes=2**20, slow_seconds=0.01, retry_after_seconds=7)

IS_FAULTY: dict[str, Callable[[httpx.Response, bytes], bool]] = {
    "http-429-seconds": lambda response, _: response.headers["retry-after"] == "7",
    "http-429-date": lambda response, _: response.headers["retry-after"].endswith("GMT"),
    "http-429": lambda response, _: response.status_code == 429 and "retry-after" not in response.headers,
    "http-500": lambda response, _: (response.status_code, response.json()["type"]) == (500, "ANL_00500"),
    "http-503": lambda response, _: response.status_code == 503,
    "http-502-html": lambda response, _: response.status_code == 502 and response.text.startswith("<!DOCTYPE html>"),
    "http-200-html": lambda response, _: response.status_code == 200 and response.text.startswith("<!DOCTYPE html>"),
    "json-truncated": lambda response, correct: correct.startswith(response.content) and response.content != correct,
    "slow": lambda response, correct: response.content == correct,
    "huge-body": lambda response, _: len(response.content) == 2**20,
    "token-revoked": lambda response, _: response.status_code == 401,
    "redirect": lambda response, _: response.status_code == 302,
    "wrong-content-type": lambda response, _: response.headers["content-type"] == "text/html",
    "gzip": lambda response, correct: gzip.decompress(response.content) == correct,
    "brotli": lambda response, correct: (
        pa.decompress(response.content, len(correct), "brotli", asbytes=True) == correct
    ),
}


def raw(response: httpx.Response) -> httpx.Response:
    """Return a response whose body is as it was sent, not decoded."""
    body = b"".join(response.iter_raw())
    headers = [pair for pair in response.headers.items() if pair[0] != "content-encoding"]
    return httpx.Response(response.status_code, headers=headers, content=body)


@pytest.mark.parametrize("name", IS_FAULTY)
def test_response_fault_replaces_or_damages_a_response(name: str) -> None:
    with sandbox({name: 1.0}, settings=SETTINGS) as (client, app):
        correct = client.get(PAGES[PAGED], headers=WITHOUT_FAULTS).content
        with client.stream("GET", PAGES[PAGED]) as response:
            assert IS_FAULTY[name](raw(response), correct)
        assert app.injected == {name: 1}
        if name == "token-revoked":
            assert client.get("/v2/instances", headers=WITHOUT_FAULTS).status_code == 401


@pytest.mark.parametrize("name", ["connection-closed", "body-cut", "gzip-cut"])
def test_response_fault_ends_a_response_early(name: str) -> None:
    with sandbox({name: 1.0}) as (client, app):
        if name == "gzip-cut":
            with client.stream("GET", MONTH) as response, pytest.raises(EOFError):
                gzip.decompress(raw(response).content)
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                client.get(MONTH)
        assert app.injected == {name: 1}


def test_token_route_fault_leaves_other_routes_up() -> None:
    with sandbox({"token-route-down": 1.0}) as (client, _):
        assert client.post("/oauth/token", json={}).status_code == 400
        assert client.get(MONTH).status_code == 200


def page_keys(body: Any) -> list[tuple[str, int, int]]:
    return [(row["instanceId"], row["campaignId"], row["postId"]) for row in body["data"]]


@pytest.mark.parametrize("version", [PAGED, CURSOR], ids=str)
@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if isinstance(fault, PageFault)])
def test_page_fault_changes_a_page(name: str, version: Any) -> None:
    """Faults of the other API version are not injected."""
    with sandbox({name: 1.0}, api_version=version) as (client, app):
        path = PAGES[version]
        if version is CURSOR:
            cursor = client.get(path, headers=WITHOUT_FAULTS).json()["nextCursor"]
            path += f"&nextCursor={cursor}"
        before = client.get(path, headers=WITHOUT_FAULTS).json()
        changed = client.get(path).json()
        is_possible = version in FAULTS[name].api_versions
        assert app.injected == {name: int(is_possible)}
        if name not in ("post-inserted", "post-removed", "post-exchanged"):  # perhaps of another page
            assert (changed != before) == is_possible
        if "total" in name and is_possible:
            assert (changed["pagination"]["totalItems"] > before["pagination"]["totalItems"]) == (
                name in ("total-too-high", "total-changing")
            )
        elif name.startswith("cursor-") and name != "cursor-expired" and is_possible:
            assert page_keys(changed) == page_keys(before)


@pytest.mark.parametrize(("before", "after"), [("pagination", "nextCursor"), ("nextCursor", "pagination")])
def test_switch_of_the_api_version_happens_once(before: str, after: str) -> None:
    version = PAGED if before == "pagination" else CURSOR
    with sandbox({"switch-api-version": 1.0}, api_version=version) as (client, _):
        bodies = [client.get("/v2/instances", headers={"X-Sandbox-Faults": state}).json() for state in ("off", "", "")]
    assert [body.keys() - {"data"} for body in bodies] == [{before}, {after}, {after}]


def test_seed_selects_the_requests_in_any_order() -> None:
    def statuses(seed: int, paths: list[str]) -> dict[str, int]:
        with sandbox({"http-500": 0.3}, seed=seed) as (client, _):
            return {path: client.get(path).status_code for path in paths}

    paths = [f"{MONTH}&pageSize={size}" for size in range(1, 31)]
    assert statuses(1, paths) == statuses(1, paths[::-1]) != statuses(2, paths)


def test_only_successful_responses_have_faults_and_a_429_does_not_count_for_the_rate_limit() -> None:
    with sandbox({"http-429": 1.0}, options=SandboxOptions(requests_per_window=4)) as (client, app):
        assert {client.get(MONTH).status_code for _ in range(6)} == {429}
        assert client.get(MONTH, headers=WITHOUT_FAULTS).status_code == 200
        assert app.injected == {"http-429": 6}
    with sandbox({"http-200-html": 1.0}) as (client, app):
        assert client.get(f"{MONTH}&nonsense=1").status_code == 400
        assert app.injected == {"http-200-html": 0}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["http-500"], "'http-500': expected a fault and its probability, such as http-429-seconds:0.05"),
        (["http-500:nan"], "from 0 to 1, not nan"),
        (["http-500:0.1", "http-500:0.1"], "http-500 is given twice"),
        (["http-500:0.6", "http-503:0.6"], "add up to 1.2, more than 1"),
        (["http-599:0.1"], r"unknown fault 'http-599'; use one of http-429-seconds, .*, page-short"),
    ],
)
def test_invalid_rates_are_rejected(texts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rates(texts, known=FAULTS, kind="fault")
