"""Metrics from a service that takes each only for the content types that have it: the lake holds what there is."""

import asyncio
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.contract import CURSOR, DOCUMENT_METRICS, METRICS, DateBasis, Metric, metrics_named
from later_reporting_dagster.ingest.ingest import CONCURRENT_QUERIES, ingest
from later_reporting_dagster.ingest.partition_writer import Landed, Outcome
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.lake import Lake, Partition, posts_schema
from later_reporting_dagster.sandbox import World
from tests.conftest import DAYS, INSTANCE_IDS, UNHURRIED, Service

BOX = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS]
PUBLISHED = Source("posts_published", DateBasis.POST_DATE)
SOURCES = [PUBLISHED, Source("post_metrics_daily", DateBasis.PERFORMANCE_DATE)]
by_cursor = pytest.mark.parametrize("service", [CURSOR], indirect=True, ids=str)
Rows = dict[tuple[date, str, int, int], dict[str, float | None]]


def held_by(world: World, source: Source, metrics: tuple[Metric, ...]) -> Rows:
    """What a world has of some metrics of each post of the box, by day and key; null of all others that are known."""
    posts, found = world.posts, Rows()
    for day in DAYS:
        ordinal = day.toordinal()
        if source.date_basis is DateBasis.POST_DATE:
            rows, since, until = np.flatnonzero(posts.day == ordinal), 1, world.last_day.toordinal()
        else:
            rows = np.flatnonzero((posts.day <= ordinal) & (posts.day + posts.life > ordinal))
            since = until = ordinal
        values = world.metrics(rows, since=since, until=until) | world.further_metrics(rows, since=since, until=until)
        for place, row in enumerate(rows.tolist()):
            key = (world.instance_ids[posts.instance[row]], int(posts.campaign_id[row]), int(posts.post_id[row]))
            found[day, *key] = {
                metric.column: value / (1 if metric.kind.is_whole else 100)
                if metric in metrics and (value := int(values[metric.api_name][place])) >= 0
                else None
                for metric in METRICS
            }
    return found


def landed(service: Service, root: Path, source: Source, metrics: tuple[Metric, ...]) -> Rows:
    """The same of a lake that the box was landed in, every cell of it."""
    outcomes: list[Outcome] = []
    lake = Lake(str(root))

    async def run() -> None:
        credentials = ClientCredentials(client_id=UNHURRIED.client_id, client_secret=UNHURRIED.client_secret)
        limiter = RateLimiter(requests=1_000_000)
        async with LaterClient(
            base_url=service.base_url, credentials=credentials, limiter=limiter, revision=None
        ) as client:
            await ingest(BOX, source=source, client=client, lake=lake, deliver=outcomes.append, metrics=metrics)

    asyncio.run(run())
    assert {outcome.partition for outcome in outcomes if isinstance(outcome, Landed)} == {*BOX}
    found = Rows()
    for partition in BOX:
        for row in lake.read(source.asset, [partition], schema=posts_schema(METRICS)).to_pylist():
            assert row["extra"] is None
            key = (row["instance_id"], row["campaign_id"], row["post_id"])
            found[partition.day, *key] = {metric.column: row[metric.column] for metric in METRICS}
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.asset)
@pytest.mark.parametrize("metrics", ["all", "", "navigation_tap_exit, reach"])
@by_cursor
def test_the_lake_holds_what_the_world_has(
    service: Service, small_world: World, source: Source, metrics: str, tmp_path: Path
) -> None:
    selected = metrics_named(metrics)
    assert landed(service, tmp_path, source, selected) == held_by(small_world, source, selected)


def test_more_metrics_than_numbered_pages_have_cost_nothing_and_are_null(
    service: Service, small_world: World, tmp_path: Path
) -> None:
    for source in SOURCES:
        asked = []
        for metrics in (DOCUMENT_METRICS, METRICS):
            found = landed(service, tmp_path / str(len(metrics)), source, metrics)
            assert found == held_by(small_world, source, DOCUMENT_METRICS)
            asked.append(sorted(str(request.url) for request in service.requests))
            service.requests.clear()
        # Not even one to see whether the service speaks another revision by now, as there is after a refusal.
        assert asked[0] == asked[1]


@by_cursor
def test_what_one_query_is_refused_is_not_asked_by_each(service: Service, tmp_path: Path) -> None:
    looked = []
    for source in SOURCES:  # the one asks for all days at once, the other for each day
        landed(service, tmp_path, source, METRICS)
        # A service that refuses may speak another revision by now, which its instances tell.
        looked.append(service.asked("/v2/instances"))
        service.requests.clear()
    assert looked[1] <= looked[0] + 2 * (CONCURRENT_QUERIES - 1)
