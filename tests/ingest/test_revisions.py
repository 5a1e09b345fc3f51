"""It does not matter which revision of the API a service speaks, nor that it changes: the partitions are the same."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter, RevisionMemory, Walk
from later_reporting_dagster.contract import (
    CURSOR,
    DOCUMENT_METRICS,
    MAXIMUM_PAGE_SIZE,
    METRICS,
    PAGED,
    DateBasis,
    Metric,
    PostPerformanceQuery,
)
from later_reporting_dagster.ingest import ingest as ingest_module
from later_reporting_dagster.ingest.ingest import POSTS_AT_ONCE, _Share, ingest
from later_reporting_dagster.ingest.partition_writer import Landed, Landing, Outcome
from later_reporting_dagster.ingest.query_plan import FEWEST_PAGES_OF_A_SHARE, MAXIMUM_POSTS, partitions_of, shares
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.lake import Lake, Partition, posts_schema
from later_reporting_dagster.sandbox import World, create_app, running_sandbox
from tests.conftest import UNHURRIED

SOURCES = [Source("posts_published", DateBasis.POST_DATE), Source("post_metrics_daily", DateBasis.PERFORMANCE_DATE)]
PUBLISHED = SOURCES[0]
Files = dict[str, bytes]
Row = dict[str, Any]
FIRST_DAY, DAYS = date(2024, 2, 1), 30
NOW = datetime(2024, 3, 11, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def world() -> World:
    return World(
        first_day=FIRST_DAY - timedelta(days=20),
        last_day=FIRST_DAY + timedelta(days=DAYS),
        seed=3,
        instances=2,
        posts_per_day=40,
        further_instances=("007", "a/b"),
    )


class Spoken:
    """A service over a world that speaks one revision, and from some request on the other."""

    def __init__(self, world: World, revision: Any, *, changes_at: int | None = None) -> None:
        self._now = revision
        self._changes_at = changes_at
        self.asked: list[str] = []
        self._app = create_app(world, options=UNHURRIED, revision=lambda: self._now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        if len(self.asked) == self._changes_at:
            self._now = CURSOR if self._now is PAGED else PAGED
        await self._app(scope, receive, send)

    @property
    def data_requests(self) -> int:
        return self.asked.count("/v2/posts/performance")


@contextmanager
def served(world: World, revision: Any, *, changes_at: int | None = None) -> Iterator[tuple[Spoken, str]]:
    app = Spoken(world, revision, changes_at=changes_at)
    with running_sandbox(app) as base_url:
        yield app, base_url


def landed(
    world: World,
    base_url: str,
    root: Path,
    *,
    source: Source,
    memory: RevisionMemory | None = None,
    days: int = DAYS,
    metrics: tuple[Metric, ...] = DOCUMENT_METRICS,
) -> int:
    """Lands all days and instances, each of which has to land; gives how many rows."""
    rows = 0

    def deliver(outcome: Outcome) -> None:
        nonlocal rows
        assert isinstance(outcome, Landed), outcome
        rows += outcome.written.rows

    async def run() -> None:
        async with LaterClient(
            base_url=base_url,
            credentials=ClientCredentials(UNHURRIED.client_id, UNHURRIED.client_secret),
            limiter=RateLimiter(requests=1_000_000),
            revision=None,
            memory=memory or RevisionMemory(),
        ) as client:
            cells = [
                Partition(FIRST_DAY + timedelta(days=offset), instance_id)
                for offset in range(days)
                for instance_id in world.instance_ids
            ]
            await ingest(
                cells,
                source=source,
                client=client,
                lake=Lake(str(root)),
                deliver=deliver,
                metrics=metrics,
                now=lambda: NOW,
            )

    asyncio.run(run())
    return rows


def bytes_of(root: Path) -> Files:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.parquet"))}


@pytest.fixture(scope="module")
def numbered_lakes(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> dict[Source, tuple[dict[str, bytes], int]]:
    """The files of 30 days × 4 instances from numbered pages, and the requests that they took, by source."""
    found = {}
    for source in SOURCES:
        root = tmp_path_factory.mktemp(source.asset)
        with served(world, PAGED) as (app, base_url):
            landed(world, base_url, root, source=source)
        found[source] = (bytes_of(root), app.data_requests)
        assert len(found[source][0]) == DAYS * 4
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.asset)
def test_both_revisions_give_the_same_bytes(source: Source, world: World, numbered_lakes: Any, tmp_path: Path) -> None:
    files, requests = numbered_lakes[source]
    with served(world, CURSOR) as (app, base_url):
        landed(world, base_url, tmp_path, source=source)
    assert bytes_of(tmp_path) == files
    assert requests > 3 * FEWEST_PAGES_OF_A_SHARE
    assert app.data_requests <= 1.1 * requests


@pytest.mark.parametrize("before", [PAGED, CURSOR], ids=str)
def test_a_service_that_changes_between_two_runs_costs_a_warning(
    before: Any, world: World, numbered_lakes: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, _ = numbered_lakes[PUBLISHED]
    memory = tmp_path / "revision"
    lake = tmp_path / "lake"
    after = CURSOR if before is PAGED else PAGED
    with caplog.at_level(logging.WARNING):
        with served(world, before) as (_, base_url):
            landed(world, base_url, lake, source=PUBLISHED, memory=RevisionMemory(memory), days=7)
        assert caplog.records == []
        for warnings in (1, 1):
            with served(world, after) as (_, base_url):
                landed(world, base_url, lake, source=PUBLISHED, memory=RevisionMemory(memory))
            assert len(caplog.records) == warnings
    # The files of the first days tell the query of the first run: nothing was written anew.
    stored, first_days = bytes_of(lake), {str(FIRST_DAY + timedelta(days=offset)) for offset in range(7)}
    assert stored.keys() == files.keys()
    for path, content in files.items():
        assert (stored[path] == content) is (path.split("date=")[1][:10] not in first_days), path


@pytest.mark.parametrize("changes_at", [2, 5, 20])
@pytest.mark.parametrize("before", [PAGED, CURSOR], ids=str)
def test_a_service_that_changes_amid_a_run_loses_nothing(
    before: Any, changes_at: int, world: World, numbered_lakes: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, _ = numbered_lakes[PUBLISHED]
    memory = RevisionMemory()
    memory.keep(before)
    with caplog.at_level(logging.WARNING), served(world, before, changes_at=changes_at) as (_, base_url):
        landed(world, base_url, tmp_path, source=PUBLISHED, memory=memory)
    assert bytes_of(tmp_path) == files
    (warning,) = caplog.records
    assert "was under way is asked for again" in warning.getMessage()


@pytest.fixture(scope="module")
def rows_of_all_metrics(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """The rows of a week × 4 instances from cursors, with all metrics that there are."""
    root = tmp_path_factory.mktemp("all")
    with served(world, CURSOR) as (_, base_url):
        landed(world, base_url, root, source=PUBLISHED, days=7, metrics=METRICS)
    return rows_in(root)


def rows_in(root: Path) -> list[Row]:
    lake = Lake(str(root))
    cells = lake.partitions(PUBLISHED.asset)
    rows: list[Row] = lake.read(PUBLISHED.asset, cells, schema=posts_schema(METRICS)).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("before", "changes_at"), [(PAGED, 2), (PAGED, 6), (CURSOR, 3), (CURSOR, 10), (CURSOR, 30), (CURSOR, 60)], ids=str
)
def test_a_change_with_all_metrics_costs_none_that_both_have(
    before: Any, changes_at: int, world: World, rows_of_all_metrics: list[Row], tmp_path: Path
) -> None:
    memory = RevisionMemory()
    memory.keep(before)
    with served(world, before, changes_at=changes_at) as (_, base_url):
        landed(world, base_url, tmp_path, source=PUBLISHED, memory=memory, days=7, metrics=METRICS)
    assert memory.recall() is (CURSOR if before is PAGED else PAGED)
    found = rows_in(tmp_path)
    further = [metric.column for metric in METRICS if metric not in DOCUMENT_METRICS]
    for row, expected in zip(found, rows_of_all_metrics, strict=True):
        # What numbered pages do not have is there, or is not available.
        assert {name for name in row if row[name] != expected[name]} <= {*further}
        assert all(row[name] in (None, expected[name]) for name in further)


def test_a_walk_without_totals_holds_no_more_than_it_may(
    world: World, numbered_lakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, requests = numbered_lakes[PUBLISHED]
    monkeypatch.setattr(ingest_module, "POSTS_AT_ONCE", 700)
    land = Landing.land

    def noted(landing: Landing, query: PostPerformanceQuery, walks: list[Walk], planned: PostPerformanceQuery) -> None:
        sizes.append(sum(walk.pages for walk in walks))
        land(landing, query, walks, planned)

    monkeypatch.setattr(Landing, "land", noted)
    most, sizes = 700 + MAXIMUM_PAGE_SIZE + 4 * 70, []  # a page more, and what is left of a day
    with served(world, CURSOR) as (app, base_url):
        landed(world, base_url, tmp_path, source=PUBLISHED)
    assert bytes_of(tmp_path) == files
    assert max(sizes) * MAXIMUM_PAGE_SIZE <= most
    assert app.data_requests <= requests + ceil(requests / 7) + 2


# How a walk is shared out

JULY = PostPerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 31), instance_ids=("a",))


@given(
    st.integers(0, 700),
    st.integers(0, 400),
    st.integers(1, 10**5),
    st.integers(0, 10),
    st.sampled_from(list(DateBasis)),
)
def test_what_is_shared_out_is_the_whole(days: int, passed: int, rows: int, idle: int, basis: DateBasis) -> None:
    query = replace(JULY, end_date=JULY.start_date + timedelta(days=days), date_basis=basis)
    latest = datetime(2024, 7, 1, 13, tzinfo=UTC) + timedelta(days=min(passed, days))
    kept, others = shares(query, rows=rows, latest=latest, idle=idle)
    assert [each for part in (kept, *others) for each in partitions_of(part)] == partitions_of(query)
    assert kept.end_date >= min(latest.date(), query.end_date)
    if not idle or basis is DateBasis.PERFORMANCE_DATE:
        assert others == []


@given(st.integers(1, 400), st.integers(1, 12))
def test_a_share_is_worth_a_walk_of_its_own(rows_a_day: int, idle: int) -> None:
    query = replace(JULY, end_date=JULY.start_date + timedelta(days=364))
    latest = datetime(2024, 7, 1, tzinfo=UTC) + timedelta(days=100 / rows_a_day)
    _, others = shares(query, rows=100, latest=latest, idle=idle)
    pages = 365 * rows_a_day / 100
    assert (len(others) + 1) * FEWEST_PAGES_OF_A_SHARE <= max(pages, FEWEST_PAGES_OF_A_SHARE)
    if pages > 20 * FEWEST_PAGES_OF_A_SHARE:
        assert len(others) >= idle


@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.sampled_from([100, POSTS_AT_ONCE - 1, POSTS_AT_ONCE, MAXIMUM_POSTS + 1]),
    st.integers(0, 10),
)
def test_a_walk_that_holds_many_posts_leaves_the_days_that_it_has_not_begun_to_others(
    days: int, passed: int, rows: int, idle: int
) -> None:
    query = replace(JULY, end_date=JULY.start_date + timedelta(days=days))
    latest = datetime(2024, 7, 1, 13, tzinfo=UTC) + timedelta(days=min(passed, days))
    others: list[PostPerformanceQuery] = []
    share = _Share(query, hand_on=others.extend, idle=lambda: idle)
    assert share(rows, latest) == share.query.end_date
    assert [each for part in (share.query, *others) for each in partitions_of(part)] == partitions_of(query)
    if rows >= POSTS_AT_ONCE:
        assert share.query.end_date == latest.date()


def test_a_few_pages_are_walked_by_one() -> None:
    latest = datetime(2024, 7, 3, tzinfo=UTC)
    assert shares(JULY, rows=100, latest=latest, idle=8)[1] == []
    assert len(shares(JULY, rows=200, latest=latest, idle=8)[1]) == 1
