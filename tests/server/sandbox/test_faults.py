"""Each fault of the sandbox is injected, and is the fault that it is named for."""

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pyarrow as pa
import pytest

from later_reporting_dagster.contract import CURSOR, PAGED
from later_reporting_dagster.server.sandbox import FAULTS, FaultSettings, parse_rates
from later_reporting_dagster.server.sandbox.faults import PAGE_FAULTS, RESPONSE_FAULTS
from tests.server.sandbox.conftest import WITHOUT_FAULTS, sandbox

MONTH = "/v2/posts/performance?startDate=2024-06-01&endDate=2024-06-30&sortDirection=ASC"
PAGES = {PAGED: f"{MONTH}&pageSize=50&pageNumber=2", CURSOR: f"{MONTH}&limit=50&metrics=impressions"}
SETTINGS = FaultSettings(huge_bytes=2**20, slow_seconds=0.01, retry_after_seconds=7)


def is_cut_gzip(sent: bytes, correct: bytes) -> bool:
    decompressor = zlib.decompressobj(wbits=31)
    return correct.startswith(decompressor.decompress(sent)) and not decompressor.eof


# By fault: whether it is a response, with its status and its body as it was sent, given the correct body.
IS_FAULTY: dict[str, tuple[int, Callable[[httpx.Response, bytes, bytes], bool]]] = {
    "http-429-seconds": (429, lambda response, *_: response.headers["retry-after"] == "7"),
    "http-429-date": (429, lambda response, *_: response.headers["retry-after"].endswith("GMT")),
    "http-429": (429, lambda response, *_: "retry-after" not in response.headers),
    "http-500": (500, lambda _, sent, __: b'"ANL_00500"' in sent),
    "http-503": (503, lambda _, sent, __: sent == b"upstream connect error"),
    "http-502-html": (502, lambda _, sent, __: sent.startswith(b"<!DOCTYPE html>")),
    "http-200-html": (200, lambda _, sent, __: sent.startswith(b"<!DOCTYPE html>")),
    "json-truncated": (200, lambda _, sent, correct: correct.startswith(sent) and sent != correct),
    "slow": (200, lambda _, sent, correct: sent == correct),
    "huge-body": (
        200,
        lambda _, sent, correct: len(sent) == 2**20 and sent.replace(b" ", b"") == correct.replace(b" ", b""),
    ),
    "token-revoked": (401, lambda _, sent, __: b'"ANL_00401"' in sent),
    "redirect": (302, lambda response, *_: "location" in response.headers),
    "wrong-content-type": (200, lambda response, *_: response.headers["content-type"] == "text/html"),
    "gzip": (200, lambda _, sent, correct: gzip.decompress(sent) == correct),
    "brotli": (200, lambda _, sent, correct: pa.decompress(sent, len(correct), "brotli", asbytes=True) == correct),
    "gzip-cut": (200, lambda _, sent, correct: is_cut_gzip(sent, correct)),
    # The connection is closed early.
    "connection-closed": (0, lambda *_: False),
    "body-cut": (0, lambda *_: False),
    # Not of this route, or not in this response.
    "token-route-down": (200, lambda _, sent, correct: sent == correct),
    "switch-api-version": (200, lambda _, sent, correct: sent == correct),
}


@pytest.mark.parametrize("name", [fault.name for fault in RESPONSE_FAULTS])
def test_response_fault_replaces_or_damages_a_response(name: str) -> None:
    status, is_faulty = IS_FAULTY[name]
    with sandbox({name: 1.0}, settings=SETTINGS) as (client, app):
        correct = client.get(PAGES[PAGED], headers=WITHOUT_FAULTS).content
        if status:
            with client.stream("GET", PAGES[PAGED]) as response:
                assert is_faulty(response, b"".join(response.iter_raw()), correct)
                assert response.status_code == status
                assert response.headers["x-ratelimit-limit"] == "100000"
        else:
            with pytest.raises(httpx.RemoteProtocolError):
                client.get(PAGES[PAGED])
        assert app.injected == {name: int(name != "token-route-down")}
        if name == "token-revoked":
            assert client.get("/v2/instances", headers=WITHOUT_FAULTS).status_code == 401


def test_token_route_fault_fails_token_requests() -> None:
    with sandbox() as (client, app):
        app.faults["token-route-down"] = 1.0
        body = {"clientId": "sandbox-client", "clientSecret": "sandbox-secret"}
        assert client.post("/oauth/token", json=body).status_code == 503
        assert client.get(MONTH).status_code == 200


@pytest.mark.parametrize("version", [PAGED, CURSOR], ids=str)
@pytest.mark.parametrize("name", [fault.name for fault in PAGE_FAULTS])
def test_page_fault_changes_a_page(name: str, version: Any) -> None:
    """Faults of the other API version are not injected."""
    with sandbox({name: 1.0}, api_version=version) as (client, app):
        path = PAGES[version]
        if version is CURSOR:
            cursor = client.get(path, headers=WITHOUT_FAULTS).json()["nextCursor"]
            path += f"&nextCursor={cursor}"
        before, changed, after = (
            client.get(path, headers=headers).json() for headers in (WITHOUT_FAULTS, {}, WITHOUT_FAULTS)
        )
        is_possible = version in FAULTS[name].api_versions
        changes_posts = name in ("post-inserted", "post-removed", "post-exchanged")
        assert app.injected == {name: int(is_possible)}
        assert (changed != before) == (is_possible and not changes_posts)
        assert changes_posts or after == before
        if changes_posts and version is PAGED:
            added = {"post-inserted": 1, "post-removed": -1, "post-exchanged": 0}[name]
            assert after["pagination"]["totalItems"] == before["pagination"]["totalItems"] + added
        if name.startswith("total-") and is_possible:
            is_higher = changed["pagination"]["totalItems"] > before["pagination"]["totalItems"]
            assert is_higher == (name == "total-too-high")
        if name.startswith(("total-", "cursor-")) and name != "cursor-expired":
            assert changed["data"] == before["data"]


@pytest.mark.parametrize(("before", "after"), [("pagination", "nextCursor"), ("nextCursor", "pagination")])
def test_switch_of_the_api_version_happens_once(before: str, after: str) -> None:
    version = PAGED if before == "pagination" else CURSOR
    with sandbox({"switch-api-version": 1.0}, api_version=version) as (client, app):
        bodies = [client.get("/v2/instances").json() for _ in range(3)]
        assert app.injected == {"switch-api-version": 1}
    assert [body.keys() - {"data"} for body in bodies] == [{before}, {after}, {after}]


def test_seed_selects_the_requests_in_any_order() -> None:
    def statuses(seed: int, paths: list[str]) -> dict[str, int]:
        with sandbox({"http-500": 0.3}, seed=seed) as (client, _):
            return {path: client.get(path).status_code for path in paths}

    paths = [f"{MONTH}&pageSize={size}" for size in range(1, 31)]
    assert statuses(1, paths) == statuses(1, paths[::-1]) != statuses(2, paths)


def test_only_successful_responses_have_faults() -> None:
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
