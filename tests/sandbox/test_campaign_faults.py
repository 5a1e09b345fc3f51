"""Faults of the campaign routes: each page fault, and a client that fetches complete lists in spite of many faults."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter, RetryPolicy
from later_reporting_dagster.client.errors import InconsistentPages
from later_reporting_dagster.client.list_route import ListResult
from later_reporting_dagster.contract import (
    CURSOR,
    DEFAULT_CAMPAIGN_METRICS,
    PAGED,
    ApiVersion,
    CampaignPerformanceQuery,
)
from later_reporting_dagster.sandbox import FaultMiddleware, SandboxOptions, World, running_server
from tests.sandbox.clients import NO_RATE_LIMIT, WITHOUT_FAULTS, FaultClient, Row, StartSandbox

LISTS = {
    "/v2/campaigns": "",
    "/v2/campaigns/performance": "startDate=2024-06-01&endDate=2024-06-30&metrics=clicks,cpe&",
}


def page_path(route: str, *, number: int = 1, api_version: ApiVersion = PAGED) -> str:
    query = LISTS[route]
    if api_version is CURSOR:
        return f"{route}?{query}limit=20"
    return f"{route}?{query.replace('metrics=clicks,cpe&', '')}pageSize=20&pageNumber={number}"


def pages(client: FaultClient, path: str) -> tuple[Row, Row]:
    """Return the body of a page with a fault and without it."""
    return client.get(path).json(), client.get(path, **WITHOUT_FAULTS).json()


# Page faults


@pytest.mark.parametrize("route", LISTS)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pagination-missing", lambda page, _: {"data": page["data"]}),
        ("total-too-high", lambda page, _: page | {"pagination": page["pagination"] | total(page, 1)}),
        ("total-too-low", lambda page, _: page | {"pagination": page["pagination"] | total(page, -1)}),
        ("page-repeated", lambda page, previous: page | {"data": previous["data"]}),
    ],
)
def test_page_fault_changes_a_list_of_campaigns(
    start_sandbox: StartSandbox, route: str, name: str, expected: Callable[[Row, Row], Row]
) -> None:
    client = start_sandbox({name: 1.0})
    body, correct = pages(client, page_path(route, number=2))
    _, previous = pages(client, page_path(route, number=1))
    assert body == expected(correct, previous) != correct


def total(page: Row, change: int) -> dict[str, int]:
    changed = page["pagination"]["totalItems"] + change
    return {"totalItems": changed, "totalPages": -(-changed // 20)}


@pytest.mark.parametrize("route", LISTS)
def test_page_short_misses_campaigns(start_sandbox: StartSandbox, route: str) -> None:
    client = start_sandbox({"page-short": 1.0})
    body, correct = pages(client, page_path(route))
    assert len(body["data"]) < len(correct["data"]) == 20
    assert body == correct | {"data": correct["data"][: len(body["data"])]}


@pytest.mark.parametrize("route", LISTS)
@pytest.mark.parametrize("name", ["cursor-missing", "cursor-null-early", "cursor-repeated", "cursor-expired"])
def test_cursor_fault_changes_a_list_of_campaigns(start_sandbox: StartSandbox, route: str, name: str) -> None:
    client = start_sandbox({name: 1.0}, options=replace(NO_RATE_LIMIT, api_version=CURSOR))
    path = page_path(route, api_version=CURSOR)
    body, correct = pages(client, path)
    if name == "cursor-expired":
        assert body == correct
        assert client.get(f"{path}&nextCursor={correct['nextCursor']}").status == 400
    elif name == "cursor-missing":
        assert body == {"data": correct["data"]}
    elif name == "cursor-null-early":
        assert body == correct | {"nextCursor": None}
    else:
        assert client.get(f"{path}&nextCursor={body['nextCursor']}").json()["data"] == correct["data"]


@pytest.mark.parametrize(
    "name", ["post-inserted", "post-removed", "post-exchanged", "ties-shuffled", "post-outside-range"]
)
def test_post_fault_is_not_injected_into_campaigns(start_sandbox: StartSandbox, name: str) -> None:
    client = start_sandbox({name: 1.0})
    for route in LISTS:
        body, correct = pages(client, page_path(route))
        assert body == correct
    assert client.app.injected == {name: 0}


def test_added_and_removed_posts_change_the_sums_of_campaigns(start_sandbox: StartSandbox) -> None:
    client = start_sandbox({"post-removed": 1.0})
    query = "startDate=2024-06-03&endDate=2024-06-03"
    path = f"/v2/campaigns/performance?{query}"
    before = client.get(path).json()["data"]
    client.get(f"/v2/posts/performance?{query}")
    after = client.get(path).json()["data"]
    assert sum(row["postsCount"] for row in after) == sum(row["postsCount"] for row in before) - 1


# Response faults


@pytest.mark.parametrize("route", LISTS)
@pytest.mark.parametrize(
    ("name", "status"), [("http-429-seconds", 429), ("http-500", 500), ("http-502-html", 502), ("token-revoked", 401)]
)
def test_response_fault_replaces_a_list_of_campaigns(
    start_sandbox: StartSandbox, route: str, name: str, status: int
) -> None:
    client = start_sandbox({name: 1.0})
    assert client.get(page_path(route)).status == status
    assert client.app.injected == {name: 1}


# A client

DAY = date(2024, 6, 3)
RESPONSE_FAULTS = {
    name: 0.03
    for name in (
        "http-429", "http-500", "http-503", "http-502-html", "connection-closed", "body-cut", "json-truncated",
        "token-revoked", "token-route-down", "gzip", "wrong-content-type",
    )
}  # fmt: skip
PAGE_FAULTS: Mapping[ApiVersion, Mapping[str, float]] = {
    PAGED: dict.fromkeys(["total-too-high", "total-too-low", "page-repeated", "page-short"], 0.04),
    CURSOR: dict.fromkeys(["cursor-missing", "cursor-repeated", "cursor-expired", "page-repeated"], 0.04),
}


async def fetch_lists(base_url: str, *, times: int) -> list[tuple[ListResult, ListResult] | None]:
    """Fetch the campaigns and their performance on a day, several times; None: pages were inconsistent twice."""

    async def no_sleep(_seconds: float) -> None:
        pass

    options = SandboxOptions()
    async with LaterClient(
        base_url=base_url,
        credentials=ClientCredentials(options.client_id, options.client_secret),
        limiter=RateLimiter(requests=1_000_000, sleep=no_sleep),
        api_version=None,
        retry=RetryPolicy(max_attempts=20),
        sleep=no_sleep,
    ) as client:
        query = CampaignPerformanceQuery(start_date=DAY, end_date=DAY, metrics=DEFAULT_CAMPAIGN_METRICS)
        results: list[tuple[ListResult, ListResult] | None] = []
        for _ in range(times):
            try:
                results.append((await client.fetch_campaigns(), await client.fetch_campaign_performance(query)))
            except InconsistentPages:
                results.append(None)
        return results


def without_faults(result: ListResult) -> list[Any]:
    assert not result.bad_rows
    return sorted(result.items, key=lambda item: item.campaign_id)


@pytest.mark.parametrize("api_version", [PAGED, CURSOR], ids=str)
def test_client_fetches_complete_lists_or_raises_in_spite_of_faults(api_version: ApiVersion) -> None:
    world = World(first_day=date(2024, 5, 25), last_day=DAY, instances=9, posts_per_day=60)  # two pages of each list
    options = replace(NO_RATE_LIMIT, api_version=api_version)
    with running_server(FaultMiddleware(world, options=options)) as base_url:
        (expected,) = asyncio.run(fetch_lists(base_url, times=1))
    assert expected is not None
    campaigns, performance = map(without_faults, expected)
    assert (len(campaigns), len(performance)) == (9 * 14, 9 * 12)
    app = FaultMiddleware(world, faults={**RESPONSE_FAULTS, **PAGE_FAULTS[api_version]}, options=options, seed=3)
    with running_server(app) as base_url:
        results = asyncio.run(fetch_lists(base_url, times=25))
    complete = [result for result in results if result is not None]
    assert len(complete) > 15
    for result in complete:
        assert tuple(map(without_faults, result)) == (campaigns, performance)
    assert sum(app.injected.values()) > 40
    assert all(app.injected[name] for name in PAGE_FAULTS[api_version])
