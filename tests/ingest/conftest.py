"""Run `ingest` against the sandbox over HTTP, and compare the lake with what the sandbox serves."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from anyio.streams.memory import MemoryObjectReceiveStream
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter, RetryPolicy
from later_reporting_dagster.contract import DEFAULT_CAMPAIGN_METRICS, DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.instances import Instances
from later_reporting_dagster.contract.rows import Campaign
from later_reporting_dagster.ingest.daily_files import DailyFiles
from later_reporting_dagster.ingest.decide import Reason, Reject, WriteLimits
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.progress import FailedSlice, Progress, SliceResult, WrittenSlice
from later_reporting_dagster.ingest.slice_writer import SliceWriter
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.coverage import RunRecords
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_PUBLISHED, RawTable
from later_reporting_dagster.server import Client
from later_reporting_dagster.server.sandbox import World, create_app, running_server
from tests.conftest import (
    DAYS,
    INSTANCE_IDS,
    NO_RATE_LIMIT,
    Row,
    Service,
    Truth,
    files,
    is_first_page,
    metrics_of,
    partition_file,
    stored_rows,
)
from tests.server.lake_store.clients import authenticate, days_query, fetch_pages, rows_of

PUBLISHED, DAILY = POSTS_PUBLISHED, POST_METRICS_DAILY
DEFAULT_LIMITS = WriteLimits()
PARTITIONS = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS]

each_raw_table = pytest.mark.parametrize("table", [PUBLISHED, DAILY], ids=lambda table: table.name)


@dataclass
class IngestResults:
    written: dict[Partition, WrittenSlice]
    failed: dict[Partition, FailedSlice]
    progress: Progress

    @property
    def changes(self) -> set[bool]:
        return {written.file.changed for written in self.written.values()}

    def errors(self) -> dict[Partition, Reason | type[Exception]]:
        """Return why each slice was not replaced."""
        errors = {partition: failed.error for partition, failed in self.failed.items()}
        assert not any(isinstance(error, Exception) and error.__traceback__ for error in errors.values())
        return {each: error.reason if isinstance(error, Reject) else type(error) for each, error in errors.items()}


def client_of(service: Service, **options: Any) -> LaterClient:
    """Return a client in the API version of `service`, or one that detects it, which retries once and does not wait."""

    async def no_wait(_seconds: float) -> None:
        return

    defaults: dict[str, Any] = {
        "credentials": ClientCredentials(client_id=NO_RATE_LIMIT.client_id, client_secret=NO_RATE_LIMIT.client_secret),
        "limiter": RateLimiter(requests=1_000_000),
        "api_version": service.api_version,
        "retry": RetryPolicy(max_attempts=2),
        "sleep": no_wait,
    }
    return LaterClient(base_url=service.base_url, **defaults | options)


# How long a query waits for its retries until it fails, at most: the sum of the waits of the default policy.
ONE_QUERY_SECONDS = sum((0.5, 1, 2, 4, 8, 16, 30)) * 1.5


def recorded_waits() -> tuple[list[float], dict[str, Any]]:
    """Return a list of the waits of a client with these options: the default retries, without waiting."""
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    return waits, {"retry": RetryPolicy(), "sleep": wait, "random": lambda: 1.0}


def run_ingest(
    partitions: Collection[Partition],
    *,
    table: RawTable,
    service: Service,
    root: Path | Lake,
    limits: WriteLimits = DEFAULT_LIMITS,
    metrics: tuple[Metric, ...] = DEFAULT_METRICS,
    instance_ids: tuple[str, ...] = (),
    padding_days: int = 0,
    client: LaterClient | None = None,
) -> IngestResults:
    """Ingest partitions in the API version of `service`; check that each is reported exactly once."""
    lake, progress = root if isinstance(root, Lake) else Lake(str(root)), Progress(table.name)
    results: list[SliceResult] = []

    async def collect(received: MemoryObjectReceiveStream[SliceResult]) -> None:
        async with received:
            results.extend([result async for result in received])

    async def run() -> None:
        sender, received = anyio.create_memory_object_stream[SliceResult](1)
        collecting = asyncio.create_task(collect(received))
        async with sender, client or client_of(service) as used_client:
            daily_files = DailyFiles(table, lake, RunRecords(lake, table.name, now=datetime.now(UTC)))
            writer = SliceWriter(files=daily_files, limits=limits, metrics=metrics, results=sender, progress=progress)
            await ingest(
                partitions,
                writer,
                client=used_client,
                instances=Instances(configured=frozenset(instance_ids)),
                instance_ids=instance_ids,
                padding_days=padding_days,
            )
        await collecting

    asyncio.run(run())
    assert Counter(result.slice for result in results) == Counter(partitions)
    return IngestResults(
        written={result.slice: result for result in results if isinstance(result, WrittenSlice)},
        failed={result.slice: result for result in results if isinstance(result, FailedSlice)},
        progress=progress,
    )


def assert_lake_matches(root: Path, table: RawTable, partitions: Collection[Partition], truth: Truth) -> None:
    """Check that the lake has exactly these partitions, with the rows, values, nulls and types that the API returns."""
    for partition in partitions:
        assert partition.instance_id is not None
        expected = truth.partition(table.date_basis.value, partition.day, partition.instance_id)
        stored = stored_rows(root, table.name, partition.day, partition.instance_id)
        assert [list(row.items()) for row in stored] == [list(row.items()) for row in expected]
    assert {path for path in files(root) if path.endswith(".parquet")} == {
        str(partition_file(root, table.name, each.day, each.instance_id or "").relative_to(root)) for each in partitions
    }


# Campaigns

PERFORMANCE_PATH = "/v2/campaigns/performance"


def list_campaigns(service: Service, instance_ids: tuple[str, ...] = ()) -> list[Campaign]:
    async def fetch() -> list[Campaign]:
        async with client_of(service) as client:
            return (await client.fetch_campaigns(instance_ids)).items

    return asyncio.run(fetch())


def served_performance(
    api: httpx.Client, date_basis: str, first: date, last: date, *instance_ids: str
) -> dict[int, dict[str, Any]]:
    """Return the metrics of each campaign that the sandbox serves for a period, as they should be stored."""
    query = days_query(first, last, ("dateBasis", date_basis), *(("instanceIds[]", name) for name in instance_ids))
    rows = sorted(rows_of(fetch_pages(api, query, PERFORMANCE_PATH)), key=lambda row: row["campaignId"])
    return {
        row["campaignId"]: {metric.column: row[metric.api_name] for metric in DEFAULT_CAMPAIGN_METRICS} for row in rows
    }


def with_performance_of(*rows: dict[str, Any]) -> Callable[[Request], Response | None]:
    """Return a response override with these campaigns for each day or period."""
    pagination = {"page": 1, "pageSize": 100, "totalItems": len(rows), "totalPages": 1}
    body = {"data": [*rows], "pagination": pagination}
    return lambda request: JSONResponse(body) if request.url.path == PERFORMANCE_PATH else None


def restrict_scope(service: Service, world: World, instance_ids: tuple[str, ...]) -> None:
    """Serve a world in which the credentials can read these instances only."""
    options = replace(NO_RATE_LIMIT, api_version=service.api_version, instance_scope=instance_ids)
    service.app = create_app(world, options=options)


def with_impressions(
    value: object, is_edited: Callable[[Request, Row], bool] = lambda request, row: True
) -> Callable[[Request, Any], Any]:
    """Return a response edit that gives posts these impressions."""

    def edited(request: Request, document: Any) -> Any:
        for row in document["data"]:
            if is_edited(request, row):
                metrics_of(row)["impressions"] = value
        return document

    return edited


def insert_unassigned_row(request: Request, document: Any) -> Any:
    """Replace the first row of a query's first page by a row that names neither instance nor day."""
    if is_first_page(request):
        document["data"][0] = {"surprise": True}
    return document


@pytest.fixture(scope="module")
def api(small_world: World) -> Iterator[httpx.Client]:
    """An authorized client of the sandbox in the paged API version, without code of this package."""
    app = create_app(small_world, options=NO_RATE_LIMIT)
    with running_server(app) as base_url, httpx.Client(base_url=base_url) as client:
        authenticate(client, Client(NO_RATE_LIMIT.client_id, NO_RATE_LIMIT.client_secret))
        yield client
