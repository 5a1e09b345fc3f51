"""Method: the ingest library without Dagster."""

import asyncio
from pathlib import Path

from benchmarks.measurement import CREDENTIALS, TABLE_NAMES, Measurement, PartitionRange
from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter
from later_reporting_dagster.client.rate_limit_stores import rate_limit_store
from later_reporting_dagster.contract import CURSOR, PAGED, ApiVersion, DateBasis
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.partition_writer import FailedPartition, WrittenPartition
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import RawTable

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
    client = _client(base_url, RateLimiter(requests=10**6, store=rate_limit_store("", base_url=base_url)))
    return asyncio.run(_ingest(partitions, client=client, date_basis=date_basis, root=root))


def _client(base_url: str, limiter: RateLimiter, *, api_version: ApiVersion = PAGED) -> LaterClient:
    credentials = ClientCredentials(client_id=CREDENTIALS["clientId"], client_secret=CREDENTIALS["clientSecret"])
    return LaterClient(base_url=base_url, credentials=credentials, limiter=limiter, api_version=api_version)


async def _ingest(partitions: PartitionRange, *, client: LaterClient, date_basis: str, root: Path) -> Measurement:
    """Fetch partitions, and assert that all are written."""
    rows = 0

    def count_rows(result: WrittenPartition | FailedPartition) -> None:
        nonlocal rows
        assert isinstance(result, WrittenPartition), result
        rows += result.file.rows

    raw_table = RawTable(TABLE_NAMES[date_basis], DateBasis(date_basis))
    lake_partitions = [Partition(each.start, each.instance_ids[0]) for each in partitions.partitions]
    async with client:
        await ingest(lake_partitions, table=raw_table, client=client, lake=Lake(str(root)), on_result=count_rows)
    return Measurement(rows=rows)
