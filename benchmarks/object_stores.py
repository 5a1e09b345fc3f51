"""Workload: the requests that each object store receives for each file of a fetch."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any

from starlette.requests import Request

from benchmarks.markdown_table import Table
from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.ingest.fetch_days import DayFetch, fetch_days
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import POSTS_PUBLISHED
from later_reporting_dagster.server.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT, Service, metrics_of
from tests.object_store_servers import OBJECT_STORES, ObjectStore

FIRST_DAY = date(2024, 3, 1)
INSTANCES = [f"instance_{number:03}" for number in range(4)]
KINDS = ("GET", "PUT", "DELETE", "LIST")
# The largest number of requests for each file.
LIMITS = {"new": 3, "unchanged": 2, "changed": 3}


def objects(*, days: int = 14) -> Table:
    """Requests to each object store for each file of a fetch, by type of request."""
    rows: list[tuple[object, ...]] = []
    partitions = [
        Partition(FIRST_DAY + timedelta(days=number), instance_id)
        for number in range(days)
        for instance_id in INSTANCES
    ]
    first_day, last_day = FIRST_DAY - timedelta(days=30), FIRST_DAY + timedelta(days=days - 1)
    world = World(first_day=first_day, last_day=last_day, seed=3, instances=len(INSTANCES), posts_per_day=40)
    service = Service(app=create_app(world, options=NO_RATE_LIMIT))
    with running_server(service) as service.base_url:
        for start in OBJECT_STORES.values():
            with start() as store:
                rows += _rows_of_store(store, service, partitions)
    return Table(
        title=f"Requests to object stores, {days} days × {len(INSTANCES)} instances of posts_published",
        columns=("store", "file is", *(f"{kind} / file" for kind in KINDS), "other / file", "requests / file"),
        rows=rows,
        note="Counted by a proxy in front of each server. The listings are one of the quarantine in each fetch; they"
        " return up to 1,000 files each. `other` are lookups by the filesystem after an empty listing. In the"
        " row `bad rows`, each file has a row in quarantine; in `healed`, the API returns all rows valid again.",
        failures=[
            f"{store}: {requests:.2f} requests for each {state} file, not {LIMITS[state]}"
            for store, state, *_, requests in rows
            if isinstance(state, str) and isinstance(requests, float) and requests > LIMITS.get(state, requests)
        ],
    )


def _rows_of_store(store: ObjectStore, service: Service, partitions: Sequence[Partition]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    lake = Lake(store.new_root(), storage_options=store.storage_options)
    states: dict[str, Callable[[Request, Any], Any] | None] = {
        "new": None,
        "unchanged": None,
        "changed": _restate,
        "bad rows": _spoil,
        "healed": _restate,
    }
    for state, service.transform in states.items():
        store.proxy.take()
        changed = _fetch(lake, service.base_url, partitions)
        # The world has a few files without posts, which never change.
        least, most = (0, 0) if state == "unchanged" else (0.9 * len(partitions), len(partitions))
        assert least <= changed <= most, f"{store.name}, {state}: {changed} files changed"
        requests = store.proxy.take()
        rows.append((store.name, state, *_per_file(requests, files=len(partitions))))
    service.transform = None
    return rows


def _per_file(requests: Counter[str], *, files: int) -> list[float]:
    """Return the number of requests for each file: of each kind, of all other kinds, and in total."""
    counts = [requests[kind] for kind in KINDS]
    return [count / files for count in (*counts, requests.total() - sum(counts), requests.total())]


def _fetch(lake: Lake, base_url: str, partitions: Sequence[Partition]) -> int:
    """Fetch partitions; return how many files changed."""
    client = LaterClient(
        base_url=base_url,
        credentials=ClientCredentials(client_id=NO_RATE_LIMIT.client_id, client_secret=NO_RATE_LIMIT.client_secret),
        limiter=RateLimiter(requests=1_000_000),
    )
    fetch = DayFetch(
        table=POSTS_PUBLISHED,
        days=sorted({partition.day for partition in partitions}),
        instance_ids=tuple(sorted({str(partition.instance_id) for partition in partitions})),
    )

    async def run() -> int:
        changed = 0
        async for day in fetch_days(fetch, client=client, lake=lake):
            assert not day.failed, day.failed
            changed += sum(file.changed for file in day.written.values())
        return changed

    return asyncio.run(run())


def _restate(_request: Request, body: Any) -> Any:
    for post in body.get("data", []):
        metrics_of(post)["impressions"] = 12
    return body


def _spoil(_request: Request, body: Any) -> Any:
    """Make a row of each partition invalid."""
    by_partition = {(post["postDate"][:10], post["instanceId"]): post for post in body.get("data", [])}
    for post in by_partition.values():
        metrics_of(post)["impressions"] = -1
    return body
