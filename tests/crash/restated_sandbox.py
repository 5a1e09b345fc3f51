"""A sandbox whose posts are restated, and functions that ingest them by the library."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from later_reporting_dagster.lake import Partition
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.server.sandbox import World, create_app, running_server
from tests.conftest import INSTANCE_IDS, NO_RATE_LIMIT, Service, Truth
from tests.ingest.conftest import run_ingest

PUBLISHED, DAILY = POSTS_PUBLISHED, POST_METRICS_DAILY
POSTS_TABLES = (PUBLISHED, DAILY)
DAYS = [date(2024, 3, number) for number in range(1, 4)]
INGESTED_PARTITIONS = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS]
VERSIONS = 3

Rows = list[dict[str, Any]]
RowsByPartition = Mapping[tuple[str, Partition], Rows]
"""JSON rows by raw table and partition."""


class RestatedSandbox:
    """A sandbox with several versions of the same posts, which differ in their metrics."""

    def __init__(self, service: Service) -> None:
        self.base_url = service.base_url
        self._service = service
        self.rows_by_version: list[RowsByPartition] = []
        for version in range(VERSIONS):
            self.restate(version)
            self.rows_by_version.append(self._fetch_rows())
        self.restate(0)

    def restate(self, version: int) -> None:
        """Serve a version from now on, modulo `VERSIONS`."""
        self._service.transform = more_impressions(version % VERSIONS)

    def stall(self, day: date | None) -> None:
        """Send no response to requests for posts of a day from now on; None: respond to all requests."""
        self._service.override = lambda request: NO_RESPONSE if day and str(day) in request.url.query else None

    def _fetch_rows(self) -> RowsByPartition:
        """Fetch all rows by code that is independent of the package."""
        with httpx.Client(base_url=self.base_url) as client:
            truth = Truth(client)
            return {
                (raw_table.name, each): truth.partition(raw_table.date_basis.value, each.day, each.instance_id or "")
                for raw_table in POSTS_TABLES
                for each in INGESTED_PARTITIONS
            }


def more_impressions(number: int) -> Callable[[Request, Any], Any]:
    """Return a response edit that adds this number to the impressions of posts that have any."""

    def edited(_request: Request, document: Any) -> Any:
        for post in document["data"]:
            if post["impressions"] is not None:
                post["impressions"] += number
        return document

    return edited


class _NoResponse(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


NO_RESPONSE = _NoResponse()
"""Keeps the connection open until the client closes it."""


@contextmanager
def restated_sandbox() -> Iterator[RestatedSandbox]:
    """Serve a restated sandbox while the block runs."""
    world = World(
        first_day=date(2024, 2, 10),
        last_day=date(2024, 3, 5),
        seed=25,
        instances=1,
        posts_per_day=12,
        extra_instance_ids=INSTANCE_IDS[1:],
    )
    service = Service(app=create_app(world, options=NO_RATE_LIMIT))
    with running_server(service) as service.base_url:
        yield RestatedSandbox(service)


def ingest_without_failures(root: str, *, base_url: str) -> None:
    for table in POSTS_TABLES:
        service = Service(base_url=base_url)
        assert not run_ingest(INGESTED_PARTITIONS, table=table, service=service, root=Path(root)).failed
