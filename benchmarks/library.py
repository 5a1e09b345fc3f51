"""The ingest library alone, without Dagster."""

import asyncio
from collections.abc import Collection
from pathlib import Path

from benchmarks.workload import CREDENTIALS, SOURCES, Box, Figures
from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter, shared_state_path
from later_reporting_dagster.contract import CURSOR, PAGED, DateBasis, Revision
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.partition_writer import Failed, Landed
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.lake import Lake, Partition


def land(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """As fast as the service lets it."""
    return _landed(box.cells, base_url=base_url, date_basis=date_basis, root=root, limiter=RateLimiter(requests=10**9))


def land_by_cursor(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """As fast as the service lets it, by cursor."""
    limiter = RateLimiter(requests=10**9)
    return _landed(box.cells, base_url=base_url, date_basis=date_basis, root=root, limiter=limiter, revision=CURSOR)


def land_paced(box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
    """The same under the rate limit that the service states, shared with whoever else runs on this machine."""
    limiter = RateLimiter(requests=10**6, state_path=shared_state_path(base_url))
    return _landed(box.cells, base_url=base_url, date_basis=date_basis, root=root, limiter=limiter)


def _landed(
    cells: Collection[Box],
    *,
    base_url: str,
    date_basis: str,
    root: Path,
    limiter: RateLimiter,
    revision: Revision = PAGED,
) -> Figures:
    """Lands cells, all of which have to land."""
    rows = 0

    def deliver(outcome: Landed | Failed) -> None:
        nonlocal rows
        assert isinstance(outcome, Landed), outcome
        rows += outcome.written.rows

    client = LaterClient(
        base_url=base_url,
        credentials=ClientCredentials(client_id=CREDENTIALS["clientId"], client_secret=CREDENTIALS["clientSecret"]),
        limiter=limiter,
        revision=revision,
    )

    async def run() -> None:
        async with client:
            source = Source(SOURCES[date_basis], DateBasis(date_basis))
            partitions = [Partition(cell.start, cell.instance_ids[0]) for cell in cells]
            await ingest(partitions, source=source, client=client, lake=Lake(str(root)), deliver=deliver)

    asyncio.run(run())
    return Figures(rows=rows)
