"""Fetch campaigns and their performance from servers that fail at random and that revoke tokens."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path

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
from tests.reliability.campaign_comparison import assert_campaign_tables_equal

pytestmark = pytest.mark.faults

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


def api_names(metrics: Sequence[Metric]) -> list[str]:
    return [metric.api_name for metric in metrics]


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


def test_default_metrics_are_those_of_the_server() -> None:
    assert sorted(api_names(DEFAULT_CAMPAIGN_METRICS)) == sorted(CAMPAIGN_METRICS)


@pytest.mark.parametrize("metrics", [DEFAULT_CAMPAIGN_METRICS, FEW_METRICS], ids=["default", "few"])
@pytest.mark.parametrize("api_version", [PAGED, CURSOR], ids=str)
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
    assert_campaign_tables_equal(campaigns, performance, posts=POSTS, metrics=api_names(metrics))
