"""Fetch campaigns and their performance from servers that fail at random and that revoke tokens."""

import asyncio
import json
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from later_reporting_dagster.client import (
    ClientCredentials,
    CredentialsRejected,
    InconsistentPages,
    LaterClient,
    ListResult,
    RateLimiter,
    RetryPolicy,
)
from later_reporting_dagster.contract import CURSOR, DEFAULT_CAMPAIGN_METRICS, PAGED, ApiVersion, Metric
from later_reporting_dagster.ingest.campaign_performance import ingest_campaign_performance
from later_reporting_dagster.ingest.dimensions import write_campaigns
from later_reporting_dagster.ingest.partition_writer import FailedPartition, PartitionResult
from later_reporting_dagster.ingest.write_guard import WriteGuard
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGNS_TABLE,
    Lake,
    Partition,
    campaign_performance_columns,
    schema_of,
)
from tests.independent_server import CAMPAIGN_METRICS, CLIENT_ID, CLIENT_SECRET, IndependentServer, Posts

pytestmark = pytest.mark.faults

Row = dict[str, Any]

FIRST_DAY = date(2024, 2, 20)
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(15)]
INSTANCE_IDS = ("north", "007", "a/b c", "Zoë")
# High enough for every fault to occur among some hundred requests, in whatever order these arrive.
FAULT_RATES = dict.fromkeys(("429", "500", "503", "cut", "dropped", "revoked"), 0.09)
# Several pages of each list: of campaigns, and of their performance on a day.
POSTS = Posts(
    first_day=FIRST_DAY - timedelta(days=8),
    days=25,
    instance_ids=INSTANCE_IDS,
    seed=5,
    most=60,
    campaign_ids=range(1, 251),
)
# Raised if a cursor expires in both fetches of a list, or if several tokens in a row are revoked.
TEMPORARY = (InconsistentPages, CredentialsRejected)
FEW_METRICS = tuple(metric for metric in DEFAULT_CAMPAIGN_METRICS if metric.api_name.startswith("paid"))


async def list_campaigns(client: LaterClient) -> ListResult | None:
    """Return the campaigns; None if that failed with one of the `TEMPORARY` errors."""
    with suppress(*TEMPORARY):
        return await client.fetch_campaigns()
    return None


def fetch(base_url: str, root: Path, metrics: tuple[Metric, ...]) -> tuple[pa.Table, dict[date, pa.Table]]:
    """Fetch the campaigns, and their performance on each day, into a lake; return both tables as read from it.

    What fails with one of the `TEMPORARY` errors is fetched again.
    """
    lake = Lake(str(root))
    warnings: list[str] = []

    async def no_sleep(_seconds: float) -> None:
        pass

    async def fetch_days(client: LaterClient, days: Collection[date]) -> list[FailedPartition]:
        results: list[PartitionResult] = []
        await ingest_campaign_performance(
            days,
            instance_ids=(),
            client=client,
            lake=lake,
            metrics=metrics,
            on_result=results.append,
            warn=warnings.append,
            guard=WriteGuard(),
        )
        assert {result.partition.day for result in results} == {*days}
        return [result for result in results if isinstance(result, FailedPartition)]

    async def run() -> None:
        async with LaterClient(
            base_url=base_url,
            credentials=ClientCredentials(CLIENT_ID, CLIENT_SECRET),
            limiter=RateLimiter(requests=1_000_000, sleep=no_sleep),
            api_version=None,
            retry=RetryPolicy(max_attempts=50),
            sleep=no_sleep,
        ) as client:
            failed = await fetch_days(client, DAYS)
            while failed:
                assert all(isinstance(each.error, TEMPORARY) for each in failed), failed
                failed = await fetch_days(client, [each.partition.day for each in failed])
            while (campaigns := await list_campaigns(client)) is None:
                pass
            write_campaigns(lake, campaigns.items, campaigns.bad_rows, instance_ids=(), today=DAYS[-1])

    asyncio.run(run())
    assert warnings == []
    schema = schema_of(campaign_performance_columns(metrics))
    performance = {day: lake.read(CAMPAIGN_PERFORMANCE_TABLE, [Partition(day)], schema=schema) for day in DAYS}
    stored = lake.read_table(CAMPAIGNS_TABLE, schema=schema_of(CAMPAIGN_COLUMNS))
    assert stored is not None
    return stored, performance


@pytest.mark.parametrize(
    ("api_version", "metrics"), [(PAGED, FEW_METRICS), (CURSOR, DEFAULT_CAMPAIGN_METRICS)], ids=["paged", "cursor"]
)
def test_lake_equals_a_failing_independent_server(
    api_version: ApiVersion, metrics: tuple[Metric, ...], tmp_path: Path
) -> None:
    by_cursor = api_version is CURSOR
    fault_rates = FAULT_RATES | ({"expired": 0.1} if by_cursor else {})
    server = IndependentServer(POSTS, faults=fault_rates, by_cursor=by_cursor)
    with server.running() as base_url:
        campaigns, performance = fetch(base_url, tmp_path, metrics)
    assert {*server.injected} == {*fault_rates}, server.injected
    assert server.issued > 1
    assert campaigns.num_rows > 600
    assert all(rows.num_rows > 100 for rows in performance.values())
    assert by_key(campaigns, "instance_id", "campaign_id") == {
        (row["instanceId"], row["campaignId"]): expected_campaign(row) for row in POSTS.campaigns()
    }
    for day, rows in performance.items():
        assert by_key(rows, "campaign_id") == {
            (row["campaignId"],): expected_performance(row, [metric.api_name for metric in metrics])
            for row in POSTS.campaigns_reported(day)
        }


# Nothing here uses the package's parsers: a mistake in shared code would not be found.


def by_key(table: pa.Table, *key: str) -> dict[tuple[Any, ...], Row]:
    """Return the rows by their key, with `extra` as parsed JSON, and without what the API does not have."""
    rows = table.drop_columns(
        [name for name in ("first_seen", "last_seen", "listed_now") if name in table.column_names]
    )
    found = {tuple(row[name] for name in key): row | {"extra": row["extra"] and json.loads(row["extra"])}
             for row in rows.to_pylist()}  # fmt: skip
    assert len(found) == table.num_rows, "a key is stored twice"
    return found


def expected_campaign(row: Row) -> Row:
    texts, times = (
        ("campaignName", "description", "instanceId", "status"),
        ("firstPostDate", "lastPostDate", "startDate"),
    )
    known = {"campaignId", *texts, *times}
    return {
        "campaign_id": row["campaignId"],
        **{column_of(name): row[name] for name in texts},
        **{column_of(name): row[name] and datetime.fromisoformat(row[name]).astimezone(UTC) for name in times},
        "extra": {name: value for name, value in row.items() if name not in known} or None,
    }


def expected_performance(row: Row, metrics: Sequence[str]) -> Row:
    """Metrics that were not requested are not stored. Fields that are not metrics are, in `extra`."""
    return {
        "campaign_id": row["campaignId"],
        **{column_of(name): row.get(name) for name in metrics},
        "extra": {name: row[name] for name in row if name not in {"campaignId", *CAMPAIGN_METRICS}} or None,
    }


def column_of(api_name: str) -> str:
    return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", api_name)
