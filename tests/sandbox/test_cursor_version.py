"""The cursor API version: the same posts as in the paged version, and no parameters of the other version."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from later_reporting_dagster.contract.api_version import CURSOR, PAGED
from later_reporting_dagster.contract.metrics import DEFAULT_METRICS
from later_reporting_dagster.sandbox import FaultMiddleware, FaultSettings, World, create_app, running_server
from tests.sandbox.clients import NO_RATE_LIMIT, Row, authenticate, unique_keys

CURSOR_OPTIONS = replace(NO_RATE_LIMIT, api_version=CURSOR)
DAYS = "startDate=2024-06-01&endDate=2024-06-20"
METRIC_NAMES = {metric.api_name for metric in DEFAULT_METRICS}
QUERY = f"{DAYS}&metrics=impressions,cpe"
POSTS = "/v2/posts/performance"


@pytest.fixture(scope="module")
def cursor_api(world: World) -> Iterator[httpx.Client]:
    """An authenticated client of a sandbox in the cursor API version."""
    with running_server(create_app(world, options=CURSOR_OPTIONS)) as url, httpx.Client(base_url=url) as client:
        authenticate(client)
        yield client


def fetch_pages(client: httpx.Client, query: str) -> list[Row]:
    """Return the rows of all pages of a query."""
    rows: list[Row] = []
    cursor: str | None = ""
    while cursor is not None:
        page = {"nextCursor": cursor} if cursor else {}
        body = client.get(f"{POSTS}?{query}&{httpx.QueryParams(page)}").raise_for_status().json()
        assert body.keys() == {"data", "nextCursor"}
        rows += body["data"]
        cursor = body["nextCursor"]
    return rows


def flatten_metrics(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "metrics"} | row["metrics"]


@pytest.mark.parametrize("more", ["", "&sortProperty=cpm", "&sortProperty=postDate&sortDirection=ASC&platform=tiktok"])
@pytest.mark.parametrize("basis", ["post_date", "performance_date"])
@pytest.mark.parametrize("limit", [7, 100])
def test_posts_and_their_order_equal_those_of_the_paged_version(
    cursor_api: httpx.Client, fetch_all_posts: Any, basis: str, more: str, limit: int
) -> None:
    query = f"{DAYS}&dateBasis={basis}{more}"
    rows = fetch_pages(cursor_api, f"{query}&limit={limit}&metrics={','.join(METRIC_NAMES)}")
    assert [flatten_metrics(row) for row in rows] == fetch_all_posts(query)
    assert len(unique_keys(rows)) == len(rows) > 50


def test_rows_have_only_the_requested_metrics(cursor_api: httpx.Client) -> None:
    for row in fetch_pages(cursor_api, f"{QUERY}&limit=100"):
        assert list(row["metrics"]) == ["impressions", "cpe"]
        assert not METRIC_NAMES & row.keys()


def test_metric_that_a_filtered_content_type_lacks_is_rejected(cursor_api: httpx.Client) -> None:
    names = "metrics=replies,likes,navigationTapBack"
    for filters, unsupported in (
        ("", "replies, navigationTapBack"),
        ("&platform=instagram", "replies, navigationTapBack"),
        ("&platform=twitter", "navigationTapBack"),
        ("&contentType=instagram_story,instagram_reel", "replies, navigationTapBack"),
    ):
        detail = rejection_detail(cursor_api, f"{POSTS}?{DAYS}&{names}{filters}")
        assert detail == f"metrics not supported for these filters: {unsupported}"


def rejection_detail(client: httpx.Client, path: str) -> str:
    """Assert that a request gets a 400; return the detail of its problem body."""
    response = client.get(path)
    assert (response.status_code, response.json()["type"]) == (400, "ANL_00400"), response.text
    detail: str = response.json()["detail"]
    return detail


@pytest.mark.parametrize("parameter", ["pageSize=10", "pageNumber=1", "limit=0", "limit=101", "limit=ten", "page=1"])
def test_cursor_version_rejects_other_parameters(cursor_api: httpx.Client, parameter: str) -> None:
    name = parameter.partition("=")[0]
    assert name in rejection_detail(cursor_api, f"{POSTS}?{QUERY}&{parameter}")
    assert name in rejection_detail(cursor_api, f"/v2/instances?{parameter}")


@pytest.mark.parametrize("parameter", ["limit=10", "nextCursor=x", "metrics=impressions"])
def test_paged_version_rejects_cursor_parameters(api: httpx.Client, parameter: str) -> None:
    name = parameter.partition("=")[0]
    assert f"unknown parameter: {name}" in rejection_detail(api, f"{POSTS}?{DAYS}&{parameter}")
    assert f"unknown parameter: {name}" in rejection_detail(api, f"/v2/instances?{parameter}")


def test_metrics_are_required_and_must_be_known(cursor_api: httpx.Client) -> None:
    assert rejection_detail(cursor_api, f"{POSTS}?{DAYS}").startswith(
        "metrics is required, of engagements, impressions"
    )
    detail = rejection_detail(cursor_api, f"{POSTS}?{DAYS}&metrics=impressions,smiles")
    assert detail == "metrics not supported for these filters: smiles"


@pytest.mark.parametrize(
    "other",
    [
        "startDate=2024-06-02&endDate=2024-06-20&metrics=impressions,cpe&limit=10",
        f"{QUERY}&limit=11",
        f"{DAYS}&metrics=impressions&limit=10",
        f"{QUERY}&limit=10&platform=tiktok",
        f"{QUERY}&limit=10&sortDirection=ASC",
        f"{QUERY}&limit=10&instanceIds=instance_000",
    ],
)
def test_cursor_is_valid_only_for_its_query(cursor_api: httpx.Client, other: str) -> None:
    query = f"{QUERY}&limit=10"
    cursor = cursor_api.get(f"{POSTS}?{query}").json()["nextCursor"]
    assert cursor_api.get(f"{POSTS}?{query}&nextCursor={cursor}").status_code == 200
    assert "nextCursor is invalid" in rejection_detail(cursor_api, f"{POSTS}?{other}&nextCursor={cursor}")


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "é", "A" * 24, "!!!!"])
def test_unknown_cursor_is_rejected(cursor_api: httpx.Client, cursor: str) -> None:
    parameters = httpx.QueryParams({"nextCursor": cursor})
    assert "nextCursor is invalid" in rejection_detail(cursor_api, f"{POSTS}?{QUERY}&{parameters}")
    assert "nextCursor is invalid" in rejection_detail(cursor_api, f"/v2/instances?{parameters}")


def test_instances_are_paginated_by_cursor(cursor_api: httpx.Client, world: World) -> None:
    first = cursor_api.get("/v2/instances?limit=3").json()
    second = cursor_api.get(f"/v2/instances?limit=3&nextCursor={first['nextCursor']}").json()
    assert (*first["data"]["instanceIds"], *second["data"]["instanceIds"]) == world.instance_ids
    assert second["nextCursor"] is None


# Faults of this form


def fault_app(world: World, name: str, *, api_version: Any = CURSOR, **settings: Any) -> FaultMiddleware:
    options = replace(NO_RATE_LIMIT, api_version=api_version)
    return FaultMiddleware(world, faults={name: 1.0}, options=options, settings=FaultSettings(**settings))


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("cursor-missing", {"data"}, {"data"}),
        ("cursor-null-early", {"data", "nextCursor"}, {"data", "nextCursor"}),
        ("cursor-repeated", {"data", "nextCursor"}, {"data", "nextCursor"}),
        ("cursor-expired", {"data", "nextCursor"}, {"type", "title", "detail"}),
    ],
)
def test_cursor_fault_changes_pages(world: World, name: str, first: set[str], second: set[str]) -> None:
    app = fault_app(world, name)
    query = f"{POSTS}?{QUERY}&limit=10"
    with running_server(app) as url, httpx.Client(base_url=url) as client:
        authenticate(client)
        correct = client.get(query, headers={"X-Sandbox-Faults": "off"}).json()
        page_1 = client.get(query).json()
        page_2 = client.get(f"{query}&nextCursor={correct['nextCursor']}").json()
    assert (page_1.keys(), page_2.keys()) == (first, second)
    assert page_1["data"] == correct["data"]
    assert (page_1 == correct) is (name == "cursor-expired")
    if name == "cursor-null-early":
        assert page_1["nextCursor"] is None
    if name == "cursor-repeated":
        assert page_1["nextCursor"] not in (None, correct["nextCursor"])
    assert app.injected[name] == (1 if name == "cursor-expired" else 2)


def test_added_and_removed_posts_do_not_shift_cursors(world: World) -> None:
    app = fault_app(world, "post-exchanged", max_changes=10)
    with running_server(app) as url, httpx.Client(base_url=url) as client:
        authenticate(client)
        rows = fetch_pages(client, f"{QUERY}&limit=10")
        client.headers["X-Sandbox-Faults"] = "off"
        after = fetch_pages(client, f"{QUERY}&limit=10")
    assert app.injected["post-exchanged"] > 5
    # Each post was fetched once; the others were removed meanwhile or added before the current page.
    assert len(unique_keys(rows) ^ unique_keys(after)) <= 20


@pytest.mark.parametrize("api_version", [PAGED, CURSOR], ids=str)
def test_switch_revision_fault_changes_the_api_version_once(world: World, api_version: Any) -> None:
    app = fault_app(world, "switch-revision", api_version=api_version)
    with running_server(app) as url, httpx.Client(base_url=url) as client:
        authenticate(client)
        envelopes = [
            client.get("/v2/instances", headers={"X-Sandbox-Faults": state}).json().keys() - {"data"}
            for state in ("off", "on", "on")
        ]
    before, after = ("pagination", "nextCursor") if api_version is PAGED else ("nextCursor", "pagination")
    assert envelopes == [{before}, {after}, {after}]
    assert app.injected == {"switch-revision": 1}


def test_fault_of_the_other_api_version_is_not_injected(world: World) -> None:
    app = fault_app(world, "total-too-high")
    with running_server(app) as url, httpx.Client(base_url=url) as client:
        authenticate(client)
        assert client.get(f"{POSTS}?{QUERY}").json().keys() == {"data", "nextCursor"}
    assert app.injected == {"total-too-high": 0}
