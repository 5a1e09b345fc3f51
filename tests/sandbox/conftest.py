"""A small world that includes the dates of the API reference's example, served over HTTP."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import httpx
import pytest

from later_reporting_dagster.sandbox import EXAMPLE_INSTANCE_IDS, FaultMiddleware, World, create_app, running_server
from tests.sandbox.clients import NO_RATE_LIMIT, FaultClient, FetchAllPosts, GetPosts, Row, StartSandbox, authenticate
from tests.servers import ReplaceableApp, running


@pytest.fixture(scope="session")
def world() -> World:
    """Four instances with about 24 posts a day."""
    return World(
        first_day=date(2023, 12, 1),
        last_day=date(2025, 1, 31),
        instances=2,
        posts_per_day=6,
        extra_instance_ids=EXAMPLE_INSTANCE_IDS,
    )


@pytest.fixture(scope="session")
def base_url(world: World) -> Iterator[str]:
    """Base URL of a sandbox in the paged API version, without faults."""
    with running_server(create_app(world, options=NO_RATE_LIMIT)) as url:
        yield url


@pytest.fixture(scope="session")
def api(base_url: str) -> Iterator[httpx.Client]:
    """An authenticated client of `base_url`."""
    with httpx.Client(base_url=base_url) as client:
        authenticate(client)
        yield client


@pytest.fixture(scope="session")
def get_posts(api: httpx.Client) -> GetPosts:
    """Request posts with a query string that is sent exactly as written."""
    return lambda query: api.get(f"/v2/posts/performance?{query}")


@pytest.fixture(scope="session")
def fetch_all_posts(get_posts: GetPosts) -> FetchAllPosts:
    """Fetch the posts of all pages of a query."""

    def fetch(query: str) -> list[Row]:
        rows: list[Row] = []
        number, pages = 1, 1
        while number <= pages:
            body = get_posts(f"{query}&pageSize=100&pageNumber={number}").raise_for_status().json()
            rows += body["data"]
            number, pages = number + 1, body["pagination"]["totalPages"]
        assert len(rows) == body["pagination"]["totalItems"]
        return rows

    return fetch


@pytest.fixture(scope="module")
def replaceable_app() -> Iterator[ReplaceableApp]:
    """One server for all sandboxes of a module."""
    app = ReplaceableApp()
    with running(app) as app.base_url:
        yield app


@pytest.fixture
def start_sandbox(replaceable_app: ReplaceableApp, world: World) -> StartSandbox:
    """Start a sandbox with faults in place of the previous one, and return an authenticated client of it."""

    def start(faults: Mapping[str, float] | None = None, *, world: World = world, **arguments: Any) -> FaultClient:
        app = FaultMiddleware(world, faults=faults, **{"options": NO_RATE_LIMIT, **arguments})
        replaceable_app.app = app
        client = FaultClient(replaceable_app.base_url, app)
        client.authenticate()
        return client

    return start
