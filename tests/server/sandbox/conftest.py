"""A small world, served over HTTP in each API version."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date

import httpx
import pytest

from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion
from later_reporting_dagster.server import Client
from later_reporting_dagster.server.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT
from tests.server.lake_store.clients import authenticated

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
