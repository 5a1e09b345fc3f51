"""Lands one box by one means in this process, and prints its figures as JSON: a child of `python -m tests.bench`."""

import asyncio
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from datetime import date
from math import ceil
from pathlib import Path

from later_reporting_dagster.client import (
    ClientCredentials,
    ClientEvent,
    LaterClient,
    RateLimiter,
    Retried,
    shared_state_path,
)
from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.ingest import Failed, Landed, Source, ingest
from later_reporting_dagster.lake import Lake, Partition
from tests.bench import plain
from tests.bench.workload import CREDENTIALS, SOURCES, Box, Figures

SCATTERED_CELLS = 60


def plain_script(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """The yardstick."""
    return asyncio.run(plain.fetch(box, base_url=base_url, date_basis=date_basis, root=root / SOURCES[date_basis]))


def library(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """The ingest library alone, as fast as the service lets it."""
    return landed(_partitions(box), base_url=base_url, date_basis=date_basis, root=root)


def paced(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """The same under the rate limit that the service states, shared with whoever else runs on this machine."""
    limiter = RateLimiter(requests=10**6, state_path=shared_state_path(base_url))
    return landed(_partitions(box), base_url=base_url, date_basis=date_basis, root=root, limiter=limiter)


def scattered(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """Some cells of a box whose other cells are in the lake already; only they count."""
    cells = _partitions(box)
    landed(cells, base_url=base_url, date_basis=date_basis, root=root)
    some = random.Random(0).sample(cells, SCATTERED_CELLS)  # noqa: S311
    return landed(some, base_url=base_url, date_basis=date_basis, root=root)


def dagster_range_run(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """One range run of a Dagster instance on SQLite."""
    home = root / "dagster-home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    os.environ |= {
        "DAGSTER_HOME": str(home),
        "LATER_BASE_URL": base_url,
        "LATER_CLIENT_ID": CREDENTIALS["clientId"],
        "LATER_CLIENT_SECRET": CREDENTIALS["clientSecret"],
        "LATER_LAKE_ROOT": str(root / "lake"),
        "LATER_START_DATE": str(box.start),
        "LATER_REQUESTS_PER_MINUTE": "1000000",
    }
    from later_reporting_dagster.cli import launch
    from later_reporting_dagster.defs.partitions import INSTANCES, box_tags

    seen: dict[str, int] = {}
    with launch.dagster_instance() as instance:
        instance.add_dynamic_partitions(str(INSTANCES.name), list(box.instance_ids))
        outcome = launch.run(
            launch.later_posts,
            instance=instance,
            assets=[SOURCES[date_basis]],
            tags=box_tags(box.start, box.end, box.instance_ids),
            on_progress=lambda progress: seen.update(requests=progress.pages + progress.retries, rows=progress.rows),
        )
    assert outcome.succeeded, outcome
    return Figures(requests=seen["requests"] + 1, rows=seen["rows"])


def landed(
    partitions: Collection[Partition],
    *,
    base_url: str,
    date_basis: str,
    root: Path,
    limiter: RateLimiter | None = None,
) -> Figures:
    """Lands partitions, all of which have to land."""
    requests: dict[tuple[str, ...], int] = {}
    rows = refused = one_by_one = 0

    def deliver(outcome: Landed | Failed) -> None:
        nonlocal rows, one_by_one
        assert isinstance(outcome, Landed), outcome
        one_by_one += max(1, ceil(outcome.written.rows / 100))
        requests[outcome.fetched.queries] = outcome.fetched.requests
        rows += outcome.written.rows

    def note(event: ClientEvent) -> None:
        nonlocal refused
        refused += isinstance(event, Retried) and "HTTP 429" in event.reason

    client = LaterClient(
        base_url=base_url,
        credentials=ClientCredentials(client_id=CREDENTIALS["clientId"], client_secret=CREDENTIALS["clientSecret"]),
        limiter=limiter or RateLimiter(requests=10**9),
        on_event=note,
    )

    async def run() -> None:
        async with client:
            source = Source(SOURCES[date_basis], DateBasis(date_basis))
            await ingest(partitions, source=source, client=client, lake=Lake(str(root)), deliver=deliver)

    asyncio.run(run())
    return Figures(requests=sum(requests.values()) + 1, rows=rows, refused=refused, one_by_one=one_by_one)


def _partitions(box: Box) -> list[Partition]:
    return [Partition(day, instance_id) for day in box.days for instance_id in box.instance_ids]


MEANS: Mapping[str, Callable[..., Figures]] = {
    "plain script": plain_script,
    "library": library,
    "library, paced": paced,
    "library, scattered": scattered,
    "Dagster range run": dagster_range_run,
}


def main(means: str, base_url: str, date_basis: str, root: str, start: str, end: str, instance_ids: str) -> None:
    """Lands the box, and prints what it took."""
    os.environ["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", root)
    box = Box(start=date.fromisoformat(start), end=date.fromisoformat(end), instance_ids=tuple(instance_ids.split(",")))
    started, cpu = time.perf_counter(), time.process_time()
    figures = MEANS[means](box, base_url=base_url, date_basis=date_basis, root=Path(root))
    figures = replace(
        figures,
        seconds=time.perf_counter() - started,
        cpu_seconds=time.process_time() - cpu,
        peak_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )
    print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main(*sys.argv[1:])
