"""Method: the ingest library without Dagster."""

import asyncio
from pathlib import Path

from benchmarks.measurement import CREDENTIALS, TABLE_NAMES, Measurement, PartitionRange
from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.client.rate_limiter import rate_limit_path
from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion
from later_reporting_dagster.ingest.fetch_days import DayFetch, fetch_days
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.tables import RAW_TABLES

UNLIMITED = 10**9


def fetch(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> Measurement:
    """Fetch partitions without a rate limit, in the paged API version."""
    client = _client(base_url, RateLimiter(requests=UNLIMITED))
    return asyncio.run(_ingest(partitions, client=client, date_basis=date_basis, root=root))


def fetch_by_cursor(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> Measurement:
    """Fetch partitions without a rate limit, in the cursor API version."""
    client = _client(base_url, RateLimiter(requests=UNLIMITED), api_version=CURSOR)
    return asyncio.run(_ingest(partitions, client=client, date_basis=date_basis, root=root))


def fetch_paced(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> Measurement:
    """Fetch partitions under the rate limit of the API, shared with other processes on this machine."""
    client = _client(base_url, RateLimiter(requests=10**6, path=rate_limit_path(base_url)))
    return asyncio.run(_ingest(partitions, client=client, date_basis=date_basis, root=root))


def fetch_changing(partitions: PartitionRange, *, base_url: str, date_basis: str, root: Path) -> Measurement:
    """Fetch partitions of which some may fail, because posts change meanwhile."""
    client = _client(base_url, RateLimiter(requests=UNLIMITED))
    return asyncio.run(_ingest(partitions, client=client, date_basis=date_basis, root=root, may_fail=True))


def _client(base_url: str, limiter: RateLimiter, *, api_version: ApiVersion = PAGED) -> LaterClient:
    credentials = ClientCredentials(client_id=CREDENTIALS["clientId"], client_secret=CREDENTIALS["clientSecret"])
    return LaterClient(base_url=base_url, credentials=credentials, limiter=limiter, api_version=api_version)


async def _ingest(
    partitions: PartitionRange, *, client: LaterClient, date_basis: str, root: Path, may_fail: bool = False
) -> Measurement:
    """Fetch partitions, and assert that all are written, unless some may fail."""
    rows = failed = 0
    fetch = DayFetch(
        table=RAW_TABLES[TABLE_NAMES[date_basis]],
        days=sorted({each.start for each in partitions.partitions}),
        instance_ids=tuple(dict.fromkeys(each.instance_ids[0] for each in partitions.partitions)),
    )
    async for day in fetch_days(fetch, client=client, lake=Lake(str(root))):
        assert may_fail or not day.failed, day.failed
        failed += len(day.failed)
        rows += sum(file.rows for file in day.written.values())
    return Measurement(rows=rows, failed=failed)
