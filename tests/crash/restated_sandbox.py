"""Posts of the sandbox that are restated: each version of them has other impressions."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from later_reporting_dagster.lake import Partition
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_PUBLISHED
from tests.conftest import INSTANCE_IDS, Service
from tests.ingest.conftest import run_ingest

PUBLISHED, DAILY = POSTS_PUBLISHED, POST_METRICS_DAILY
POSTS_TABLES = (PUBLISHED, DAILY)
DAYS = [date(2024, 3, number) for number in range(1, 4)]
INGESTED_PARTITIONS = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS]


def more_impressions(number: int) -> Callable[[Request, Any], Any]:
    """Return a response edit that adds this number to the impressions of posts that have any."""

    def edited(_request: Request, document: Any) -> Any:
        document["data"] = with_more_impressions(document["data"], number)
        return document

    return edited


def with_more_impressions(rows: list[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    return [row if row["impressions"] is None else row | {"impressions": row["impressions"] + number} for row in rows]


class _NoResponse(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


NO_RESPONSE = _NoResponse()
"""Keeps the connection open until the client closes it."""


def ingest_without_failures(root: str, *, base_url: str) -> None:
    for table in POSTS_TABLES:
        service = Service(base_url=base_url)
        assert not run_ingest(INGESTED_PARTITIONS, table=table, service=service, root=Path(root)).failed
