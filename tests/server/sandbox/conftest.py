"""A small world, served over HTTP in each API version, with and without faults."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import Any

import httpx
import pytest

from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion
from later_reporting_dagster.server.sandbox import FaultMiddleware, World, running_server
from tests.conftest import NO_RATE_LIMIT

WORLD = World(first_day=date(2024, 5, 1), last_day=date(2024, 7, 31), instances=2, posts_per_day=6)
WITHOUT_FAULTS = {"X-Sandbox-Faults": "off"}


@contextmanager
def sandbox(
    faults: Mapping[str, float] | None = None, *, api_version: ApiVersion = PAGED, world: World = WORLD, **options: Any
) -> Iterator[tuple[httpx.Client, FaultMiddleware]]:
    """Serve a sandbox while the block runs; yield an authenticated client and the application."""
    options = {"options": replace(NO_RATE_LIMIT, api_version=api_version), **options}
    app = FaultMiddleware(world, faults=faults, **options)
    with running_server(app) as base_url, httpx.Client(base_url=base_url) as client:
        body = {"clientId": NO_RATE_LIMIT.client_id, "clientSecret": NO_RATE_LIMIT.client_secret}
        token = client.post("/oauth/token", json=body, headers=WITHOUT_FAULTS).raise_for_status().json()["jwt"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client, app


@pytest.fixture(scope="session")
def paged_api() -> Iterator[httpx.Client]:
    with sandbox() as (client, _):
        yield client


@pytest.fixture(scope="session")
def cursor_api() -> Iterator[httpx.Client]:
    with sandbox(api_version=CURSOR) as (client, _):
        yield client
