"""Lands one box by one means in this process, and prints its figures as JSON: a child of `python -m tests.bench`."""

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import date, timedelta
from pathlib import Path

from tests.bench.workload import Box, Figures

SOURCES = {"post_date": "posts_published", "performance_date": "post_metrics_daily"}


def plain_script(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    from tests.bench import plain

    return asyncio.run(plain.fetch(box, base_url=base_url, date_basis=date_basis, root=root / SOURCES[date_basis]))


def library(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter
    from later_reporting_dagster.contract import DateBasis
    from later_reporting_dagster.ingest import Failed, Landed, Source, ingest
    from later_reporting_dagster.lake import Lake, Partition

    credentials = ClientCredentials(
        client_id=box.credentials["clientId"], client_secret=box.credentials["clientSecret"]
    )
    client = LaterClient(base_url=base_url, credentials=credentials, limiter=RateLimiter(requests=10**9))
    partitions = [
        Partition(box.start + timedelta(days=offset), instance_id)
        for offset in range((box.end - box.start).days + 1)
        for instance_id in box.instance_ids
    ]
    requests: dict[tuple[str, ...], int] = {}
    rows = 0

    def deliver(outcome: Landed | Failed) -> None:
        nonlocal rows
        assert isinstance(outcome, Landed), outcome
        requests[outcome.fetched.queries] = outcome.fetched.requests
        rows += outcome.written.rows

    async def run() -> None:
        async with client:
            await ingest(
                partitions,
                source=Source(SOURCES[date_basis], DateBasis(date_basis)),
                client=client,
                lake=Lake(str(root)),
                deliver=deliver,
            )

    asyncio.run(run())
    return Figures(requests=sum(requests.values()) + 1, rows=rows)


def dagster_range_run(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    home = root / "dagster-home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    os.environ |= {
        "DAGSTER_HOME": str(home),
        "LATER_BASE_URL": base_url,
        "LATER_CLIENT_ID": box.credentials["clientId"],
        "LATER_CLIENT_SECRET": box.credentials["clientSecret"],
        "LATER_LAKE_ROOT": str(root / "lake"),
        "LATER_START_DATE": str(box.start),
        "LATER_REQUESTS_PER_MINUTE": str(10**9),
        "XDG_CACHE_HOME": str(root / "cache"),
    }
    from later_reporting_dagster.cli import launch
    from later_reporting_dagster.defs.partitions import INSTANCES, box_tags

    seen = {}
    with launch.dagster_instance() as instance:
        instance.add_dynamic_partitions(str(INSTANCES.name), list(box.instance_ids))
        started, cpu = time.perf_counter(), time.process_time()
        outcome = launch.run(
            launch.later_posts,
            instance=instance,
            assets=[SOURCES[date_basis]],
            tags=box_tags(box.start, box.end, box.instance_ids),
            on_progress=lambda progress: seen.update(
                pages=progress.pages, rows=progress.rows, retries=progress.retries
            ),
        )
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    assert outcome.succeeded, outcome
    return Figures(
        requests=seen["pages"] + seen["retries"] + 1, rows=seen["rows"], seconds=seconds, cpu_seconds=cpu_seconds
    )


MEANS: Mapping[str, Callable[..., Figures]] = {
    "plain": plain_script,
    "library": library,
    "dagster": dagster_range_run,
}


def main(means: str, base_url: str, date_basis: str, root: str, start: str, end: str, instance_ids: str) -> None:
    box = Box(start=date.fromisoformat(start), end=date.fromisoformat(end), instance_ids=tuple(instance_ids.split(",")))
    started, cpu = time.perf_counter(), time.process_time()
    figures = MEANS[means](box, base_url=base_url, date_basis=date_basis, root=Path(root))
    if not figures.seconds:
        figures = replace(figures, seconds=time.perf_counter() - started, cpu_seconds=time.process_time() - cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(asdict(replace(figures, peak_megabytes=peak))))


if __name__ == "__main__":
    main(*sys.argv[1:])
