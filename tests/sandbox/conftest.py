"""A small world that holds the dates of the document's example, served over real HTTP."""

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import httpx
import pytest

from later_reporting_dagster.sandbox import EXAMPLE_INSTANCE_IDS, SandboxOptions, World, create_app, running_sandbox

Row = dict[str, Any]

CREDENTIALS = {"clientId": "sandbox-client", "clientSecret": "sandbox-secret"}
UNHURRIED = SandboxOptions(requests_per_window=1_000_000)


def sign_in(client: httpx.Client) -> None:
    """From here on the client sends a fresh token."""
    answer = client.post("/oauth/token", json=CREDENTIALS).raise_for_status()
    client.headers["Authorization"] = f"Bearer {answer.json()['jwt']}"


@pytest.fixture(scope="session")
def world() -> World:
    return World(
        first_day=date(2023, 12, 1),
        last_day=date(2025, 1, 31),
        instances=2,
        posts_per_day=6,
        further_instances=EXAMPLE_INSTANCE_IDS,
    )


@pytest.fixture(scope="session")
def base_url(world: World) -> Iterator[str]:
    with running_sandbox(create_app(world, options=UNHURRIED)) as url:
        yield url


@pytest.fixture(scope="session")
def api(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url) as client:
        sign_in(client)
        yield client


@pytest.fixture(scope="session")
def ask(api: httpx.Client) -> Callable[[str], httpx.Response]:
    """Asks for posts with a query string that is sent exactly as written."""
    return lambda query: api.get(f"/v2/posts/performance?{query}")


@pytest.fixture(scope="session")
def all_posts(ask: Callable[[str], httpx.Response]) -> Callable[[str], list[Row]]:
    """Every post that a query finds, over all its pages."""

    def walk(query: str) -> list[Row]:
        rows: list[Row] = []
        number, pages = 1, 1
        while number <= pages:
            answer = ask(f"{query}&pageSize=100&pageNumber={number}").raise_for_status().json()
            rows += answer["data"]
            number, pages = number + 1, answer["pagination"]["totalPages"]
        assert len(rows) == answer["pagination"]["totalItems"]
        return rows

    return walk


def key(row: Row) -> tuple[str, int, int]:
    return row["instanceId"], row["campaignId"], row["postId"]


def keys(rows: list[Row]) -> set[tuple[str, int, int]]:
    """The rows' keys, of which none occurs twice."""
    distinct = {key(row) for row in rows}
    assert len(distinct) == len(rows)
    return distinct
