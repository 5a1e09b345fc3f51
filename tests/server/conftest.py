"""Servers that tests share: the sandbox in each API version, and a lake fetched from the independent server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path

import httpx
import pytest

from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion
from later_reporting_dagster.server import Client
from later_reporting_dagster.server.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT
from tests.independent_server import CLIENT_ID, CLIENT_SECRET, IndependentServer, Posts
from tests.server.lake_store.clients import authenticate, authenticated, land, reference_client, serving

WORLD = World(first_day=date(2024, 5, 1), last_day=date(2024, 7, 31), instances=2, posts_per_day=6)


@contextmanager
def sandbox(*, api_version: ApiVersion = PAGED, world: World = WORLD) -> Iterator[httpx.Client]:
    """Serve a sandbox while the block runs; yield an authenticated client."""
    app = create_app(world, options=replace(NO_RATE_LIMIT, api_version=api_version))
    client = Client(NO_RATE_LIMIT.client_id, NO_RATE_LIMIT.client_secret)
    with running_server(app) as base_url, authenticated(base_url, client) as api:
        yield api


@pytest.fixture(scope="session")
def paged_api() -> Iterator[httpx.Client]:
    with sandbox() as api:
        yield api


@pytest.fixture(scope="session")
def cursor_api() -> Iterator[httpx.Client]:
    with sandbox(api_version=CURSOR) as api:
        yield api


FIRST_DAY, LAST_DAY = date(2024, 2, 25), date(2024, 3, 5)
# Ids that are awkward in paths, query strings and comma-separated lists.
INSTANCE_IDS = ("north", "007", "a,b", "a/b c", "100%", "x%2Fy", "Zoë 😀")
REFERENCE = Client(CLIENT_ID, CLIENT_SECRET)


@pytest.fixture(scope="session")
def reference_server() -> IndependentServer:
    return IndependentServer(Posts(first_day=FIRST_DAY, days=10, instance_ids=INSTANCE_IDS, seed=18))


@pytest.fixture(scope="session")
def reference_api(reference_server: IndependentServer) -> Iterator[httpx.Client]:
    with reference_client(reference_server) as api:
        authenticate(api, REFERENCE)
        yield api


@pytest.fixture(scope="session")
def landed(reference_server: IndependentServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake with all posts, metrics and campaigns of the independent server."""
    root = tmp_path_factory.mktemp("landed")
    with reference_server.running() as base_url:
        land(base_url, root, days=(FIRST_DAY, LAST_DAY), instance_ids=INSTANCE_IDS, client=REFERENCE)
    return root


@pytest.fixture(scope="session")
def base_url(landed: Path) -> Iterator[str]:
    with serving(landed) as url:
        yield url


@pytest.fixture(scope="session")
def api(base_url: str) -> Iterator[httpx.Client]:
    """A client of the served lake that reads all instances."""
    with authenticated(base_url) as api:
        yield api
