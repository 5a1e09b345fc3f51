"""Both API versions yield the same partitions, even if the version changes between or during runs."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from later_reporting_dagster.client import ClientCredentials, LaterClient, QueryResult, RateLimiter, VersionCache
from later_reporting_dagster.contract import (
    CURSOR,
    DEFAULT_METRICS,
    MAX_PAGE_SIZE,
    METRICS,
    PAGED,
    Metric,
    PostPerformanceQuery,
)
from later_reporting_dagster.ingest import ingest as ingest_module
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.partition_writer import PartitionResult, PartitionWriter, WrittenPartition
from later_reporting_dagster.ingest.query_plan import MIN_PAGES_PER_SLICE
from later_reporting_dagster.ingest.raw_tables import RAW_TABLES, RawTable
from later_reporting_dagster.lake import Lake, Partition, posts_schema
from later_reporting_dagster.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT
from tests.ingest.conftest import PUBLISHED, each_raw_table

Files = dict[str, bytes]
Row = dict[str, Any]
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
    memory: VersionCache | None = None,
    days: int = DAYS,
    metrics: tuple[Metric, ...] = DEFAULT_METRICS,
) -> int:
    """Ingest `days` days of all instances, each of which must be written; return the number of rows."""
    rows = 0

    def count(result: PartitionResult) -> None:
        nonlocal rows
        assert isinstance(result, WrittenPartition), result
        rows += result.file.rows

    async def run() -> None:
        async with LaterClient(
            base_url=base_url,
            credentials=ClientCredentials(NO_RATE_LIMIT.client_id, NO_RATE_LIMIT.client_secret),
            limiter=RateLimiter(requests=1_000_000),
            api_version=None,
            version_cache=memory or VersionCache(),
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
                on_result=count,
                metrics=metrics,
                now=lambda: NOW,
            )

    asyncio.run(run())
    return rows


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
            ingest_all(world, base_url, root, table=table)
        lakes[table] = (parquet_files(root), app.data_requests)
        assert len(lakes[table][0]) == DAYS * 4
    return lakes


@each_raw_table
def test_both_api_versions_yield_the_same_files(
    table: RawTable, world: World, paged_lakes: Any, tmp_path: Path
) -> None:
    files, requests = paged_lakes[table]
    with running_app(world, CURSOR) as (app, base_url):
        ingest_all(world, base_url, tmp_path, table=table)
    assert parquet_files(tmp_path) == files
    assert requests > 3 * MIN_PAGES_PER_SLICE
    assert app.data_requests <= 1.1 * requests


@pytest.mark.parametrize("before", [PAGED, CURSOR], ids=str)
def test_an_api_version_that_changes_between_runs_is_one_warning(
    before: Any, world: World, paged_lakes: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, _ = paged_lakes[PUBLISHED]
    cache = tmp_path / "version"
    lake = tmp_path / "lake"
    after = CURSOR if before is PAGED else PAGED
    with caplog.at_level(logging.WARNING):
        with running_app(world, before) as (_, base_url):
            ingest_all(world, base_url, lake, table=PUBLISHED, memory=VersionCache(cache), days=7)
        assert caplog.records == []
        for warnings in (1, 1):
            with running_app(world, after) as (_, base_url):
                ingest_all(world, base_url, lake, table=PUBLISHED, memory=VersionCache(cache))
            assert len(caplog.records) == warnings
    # The files of the first days keep the query of the first run in their metadata: they were not written again.
    stored, first_days = parquet_files(lake), {str(FIRST_DAY + timedelta(days=offset)) for offset in range(7)}
    assert stored.keys() == files.keys()
    for path, content in files.items():
        assert (stored[path] == content) is (path.split("date=")[1][:10] not in first_days), path


@pytest.mark.parametrize("switches_at", [2, 5, 20])
@pytest.mark.parametrize("before", [PAGED, CURSOR], ids=str)
def test_an_api_version_that_changes_during_a_run_loses_nothing(
    before: Any, switches_at: int, world: World, paged_lakes: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, _ = paged_lakes[PUBLISHED]
    memory = VersionCache()
    memory.store(before)
    with caplog.at_level(logging.WARNING), running_app(world, before, switches_at=switches_at) as (_, base_url):
        ingest_all(world, base_url, tmp_path, table=PUBLISHED, memory=memory)
    assert parquet_files(tmp_path) == files
    (warning,) = caplog.records
    assert "queries in progress are fetched again" in warning.getMessage()


@pytest.fixture(scope="module")
def rows_of_all_metrics(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of 7 days × 4 instances in the cursor version, with all metrics."""
    root = tmp_path_factory.mktemp("all")
    with running_app(world, CURSOR) as (_, base_url):
        ingest_all(world, base_url, root, table=PUBLISHED, days=7, metrics=METRICS)
    return published_rows(root)


def published_rows(root: Path) -> list[Row]:
    """Read all rows of `posts_published`."""
    lake = Lake(str(root))
    partitions = lake.partitions(PUBLISHED.name)
    rows: list[Row] = lake.read(PUBLISHED.name, partitions, schema=posts_schema(METRICS)).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("before", "switches_at"), [(PAGED, 2), (PAGED, 6), (CURSOR, 3), (CURSOR, 10), (CURSOR, 30), (CURSOR, 60)], ids=str
)
def test_an_api_version_that_changes_during_a_run_keeps_the_metrics_of_both_versions(
    before: Any, switches_at: int, world: World, rows_of_all_metrics: list[Row], tmp_path: Path
) -> None:
    memory = VersionCache()
    memory.store(before)
    with running_app(world, before, switches_at=switches_at) as (_, base_url):
        ingest_all(world, base_url, tmp_path, table=PUBLISHED, memory=memory, days=7, metrics=METRICS)
    assert memory.load() is (CURSOR if before is PAGED else PAGED)
    rows = published_rows(tmp_path)
    cursor_only = [metric.column for metric in METRICS if metric not in DEFAULT_METRICS]
    for row, expected in zip(rows, rows_of_all_metrics, strict=True):
        # Metrics of the cursor version are either present or null.
        assert {name for name in row if row[name] != expected[name]} <= {*cursor_only}
        assert all(row[name] in (None, expected[name]) for name in cursor_only)


def test_a_cursor_query_holds_a_limited_number_of_posts(
    world: World, paged_lakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, requests = paged_lakes[PUBLISHED]
    monkeypatch.setattr(ingest_module, "TARGET_POSTS_PER_QUERY", 700)
    write, sizes = PartitionWriter.write, list[int]()

    def record(
        writer: PartitionWriter,
        query: PostPerformanceQuery,
        results: list[QueryResult],
        *,
        planned: PostPerformanceQuery,
    ) -> None:
        sizes.append(sum(result.pages for result in results))
        write(writer, query, results, planned=planned)

    monkeypatch.setattr(PartitionWriter, "write", record)
    max_posts = 700 + MAX_PAGE_SIZE + 4 * 70  # the limit, a page more, and the rest of the current day
    with running_app(world, CURSOR) as (app, base_url):
        ingest_all(world, base_url, tmp_path, table=PUBLISHED)
    assert parquet_files(tmp_path) == files
    assert max(sizes) * MAX_PAGE_SIZE <= max_posts
    assert app.data_requests <= requests + ceil(requests / 7) + 2
