"""Both API versions yield the same partitions, even if the version changes between runs."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from later_reporting_dagster.client import ApiVersionChanged, ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.contract import CURSOR, DEFAULT_METRICS, PAGED, Metric
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.partition_writer import FailedPartition, PartitionResult
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.raw_tables import RAW_TABLES, RawTable
from later_reporting_dagster.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT
from tests.ingest.conftest import PUBLISHED, each_raw_table

Files = dict[str, bytes]
FIRST_DAY, DAYS = date(2024, 2, 1), 30
NOW = datetime(2024, 3, 11, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> World:
    """30 days and more of 4 instances, with enough posts for several pages a day."""
    return World(
        first_day=FIRST_DAY - timedelta(days=20),
        last_day=FIRST_DAY + timedelta(days=DAYS),
        seed=3,
        instances=2,
        posts_per_day=40,
        extra_instance_ids=("007", "a/b"),
    )


class SwitchingApp:
    """A sandbox that switches to the other API version at the request number `switches_at`."""

    def __init__(self, world: World, version: Any, *, switches_at: int | None = None) -> None:
        self._version = version
        self._switches_at = switches_at
        self.paths: list[str] = []
        self._app = create_app(world, options=NO_RATE_LIMIT, api_version=lambda: self._version)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        if len(self.paths) == self._switches_at:
            self._version = CURSOR if self._version is PAGED else PAGED
        await self._app(scope, receive, send)

    @property
    def data_requests(self) -> int:
        return self.paths.count("/v2/posts/performance")


@contextmanager
def running_app(world: World, version: Any, *, switches_at: int | None = None) -> Iterator[tuple[SwitchingApp, str]]:
    """Run a `SwitchingApp`; yield it and its base URL."""
    app = SwitchingApp(world, version, switches_at=switches_at)
    with running_server(app) as base_url:
        yield app, base_url


def ingest_all(
    world: World,
    base_url: str,
    root: Path,
    *,
    table: RawTable,
    days: int = DAYS,
    metrics: tuple[Metric, ...] = DEFAULT_METRICS,
) -> list[FailedPartition]:
    """Ingest `days` days of all instances; return the partitions that failed."""
    failed: list[FailedPartition] = []

    def collect(result: PartitionResult) -> None:
        if isinstance(result, FailedPartition):
            failed.append(result)

    async def run() -> None:
        async with LaterClient(
            base_url=base_url,
            credentials=ClientCredentials(NO_RATE_LIMIT.client_id, NO_RATE_LIMIT.client_secret),
            limiter=RateLimiter(requests=1_000_000),
            api_version=None,
        ) as client:
            partitions = [
                Partition(FIRST_DAY + timedelta(days=offset), instance_id)
                for offset in range(days)
                for instance_id in world.instance_ids
            ]
            await ingest(
                partitions,
                table=table,
                client=client,
                lake=Lake(str(root)),
                on_result=collect,
                metrics=metrics,
                now=lambda: NOW,
            )

    asyncio.run(run())
    return failed


def parquet_files(root: Path) -> Files:
    """Return the bytes of each Parquet file by its path below `root`."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def paged_lakes(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[RawTable, tuple[Files, int]]:
    """The files of 30 days × 4 instances in the paged API version, and their number of data requests, by table."""
    lakes = {}
    for table in RAW_TABLES:
        root = tmp_path_factory.mktemp(table.name)
        with running_app(world, PAGED) as (app, base_url):
            assert ingest_all(world, base_url, root, table=table) == []
        lakes[table] = (parquet_files(root), app.data_requests)
        assert len(lakes[table][0]) == DAYS * 4
    return lakes


@each_raw_table
def test_both_api_versions_yield_the_same_files(
    table: RawTable, world: World, paged_lakes: Any, tmp_path: Path
) -> None:
    files, requests = paged_lakes[table]
    with running_app(world, CURSOR) as (app, base_url):
        assert ingest_all(world, base_url, tmp_path, table=table) == []
    assert parquet_files(tmp_path) == files
    assert app.data_requests <= 1.1 * requests


@pytest.mark.parametrize("before", [PAGED, CURSOR], ids=str)
def test_an_api_version_that_changes_fails_the_rest_of_the_run_and_the_next_run_fetches_it(
    before: Any, world: World, paged_lakes: Any, tmp_path: Path
) -> None:
    files, _ = paged_lakes[PUBLISHED]
    with running_app(world, before, switches_at=20) as (_, base_url):
        failed = ingest_all(world, base_url, tmp_path, table=PUBLISHED)
        assert failed
        assert {type(each.error) for each in failed} == {ApiVersionChanged}
        assert len(parquet_files(tmp_path)) == DAYS * 4 - len(failed)
        assert ingest_all(world, base_url, tmp_path, table=PUBLISHED) == []
    assert parquet_files(tmp_path) == files
