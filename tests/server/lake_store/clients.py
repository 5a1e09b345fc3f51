"""Serve a lake, and fetch pages from any server of the API without code of the package."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.contract import CURSOR, METRICS
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.ingest.campaigns import write_campaigns
from later_reporting_dagster.ingest.fetch_days import DayFetch, fetch_days
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.tables import POSTS_TABLES
from later_reporting_dagster.server import Client, running_server
from later_reporting_dagster.server.lake_store.app import ServeOptions, lake_app
from tests.independent_server import IndependentServer
from tests.services import WAIT_SECONDS

Row = dict[str, Any]
Pairs = Sequence[tuple[str, object]]

POSTS = "/v2/posts/performance"
ALL_METRICS = ",".join(metric.api_name for metric in METRICS)
EVERYTHING = Client("everything", "s3cret of everything")
OPTIONS = ServeOptions(clients=(EVERYTHING,), metrics=METRICS)


@contextmanager
def serving(root: Path, **changes: Any) -> Iterator[str]:
    """Serve the lake at a root while the block runs; yield the base URL."""
    with running_server(lake_app(Lake(str(root)), replace(OPTIONS, **changes))) as base_url:
        yield base_url


@contextmanager
def authenticated(base_url: str, client: Client = EVERYTHING) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, timeout=WAIT_SECONDS) as api:
        authenticate(api, client)
        yield api


@contextmanager
def served(root: Path, **changes: Any) -> Iterator[httpx.Client]:
    """Serve the lake at a root while the block runs; yield a client that reads all instances."""
    with serving(root, **changes) as base_url, authenticated(base_url) as api:
        yield api


def authenticate(api: httpx.Client, client: Client = EVERYTHING) -> None:
    """Fetch a token and send it with all later requests."""
    body = {"clientId": client.client_id, "clientSecret": client.client_secret}
    response = api.post("/oauth/token", json=body)
    api.headers["Authorization"] = f"Bearer {response.raise_for_status().json()['jwt']}"


def reference_client(server: IndependentServer) -> httpx.Client:
    """Return a client of the independent server that needs no network."""

    def respond(request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        authorization = request.headers.get("Authorization", "")
        reply = server.respond(request.method, target, authorization=authorization, body=request.content)
        return httpx.Response(reply.status, json=reply.document, headers={"Content-Type": reply.media_type})

    return httpx.Client(transport=httpx.MockTransport(respond), base_url="http://127.0.0.1")


def get(api: httpx.Client, pairs: Pairs, route: str = POSTS) -> httpx.Response:
    """Send a query string that all servers get exactly as it is."""
    return api.get(f"{route}?{urlencode([(name, str(value)) for name, value in pairs])}")


def page_of(response: httpx.Response) -> Any:
    """Return the body of a page; exact integers and decimals, as the standard library parses them."""
    assert response.status_code == 200, response.text
    return json.loads(response.content)


def iter_pages(api: httpx.Client, pairs: Pairs, route: str = POSTS, *, cursor: str | None = None) -> Iterator[Any]:
    """Yield the bodies of all pages, by number or by cursor as the first page asks for, or from a cursor on."""
    page = page_of(get(api, [*pairs, ("nextCursor", cursor)] if cursor else pairs, route))
    yield page
    totals = page.get("pagination")
    for number in count(2):
        if number > totals["totalPages"] if totals else page["nextCursor"] is None:
            return
        position = ("pageNumber", number) if totals else ("nextCursor", page["nextCursor"])
        page = page_of(get(api, [*pairs, position], route))
        assert page.get("pagination") == (totals and {**totals, "page": number})
        yield page


def fetch_pages(api: httpx.Client, pairs: Pairs, route: str = POSTS) -> list[Any]:
    return [*iter_pages(api, pairs, route)]


def rows_of(pages: Iterable[Any]) -> list[Row]:
    return [row for page in pages for row in page["data"]]


def fetch_rows(api: httpx.Client, pairs: Pairs) -> list[Row]:
    return rows_of(fetch_pages(api, pairs))


def row_key(row: Row) -> tuple[str, int, int]:
    return row["instanceId"], row["campaignId"], row["postId"]


def days_query(first: date, last: date, *pairs: tuple[str, object]) -> list[tuple[str, object]]:
    return [("startDate", first), ("endDate", last), *pairs]


def assert_problem(response: httpx.Response, status: int, kind: str) -> str:
    """Assert that a response is a problem; return its detail."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, str] = response.json()
    assert problem["type"] == kind
    return problem["detail"]


def land(base_url: str, root: Path, *, days: tuple[date, date], instance_ids: Sequence[str], client: Client) -> None:
    """Fetch raw tables and campaigns of a server into a lake, by cursor, with all metrics and a fixed clock."""

    lake, now = Lake(str(root)), datetime(2024, 7, 1, tzinfo=UTC)

    def later() -> LaterClient:
        return LaterClient(
            base_url=base_url,
            credentials=ClientCredentials(client.client_id, client.client_secret),
            limiter=RateLimiter(requests=1_000_000),
            api_version=CURSOR,
            clock=now.timestamp,
        )

    async def run() -> None:
        for table in POSTS_TABLES:
            fetch = DayFetch(table=table, days=days_between(*days), instance_ids=tuple(instance_ids), metrics=METRICS)
            async for day in fetch_days(fetch, client=later(), lake=lake, now=lambda: now):
                assert not day.failed
        async with later() as opened:
            listed = await opened.fetch_campaigns()
        write_campaigns(lake, listed.items, listed.bad_rows, instance_ids=(), today=now.date())

    asyncio.run(run())
    assert not (root / "_quarantine").exists()
