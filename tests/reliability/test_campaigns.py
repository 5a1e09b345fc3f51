"""Fetch campaigns and their performance from servers that fail at random and that revoke tokens."""

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter, RetryPolicy
from later_reporting_dagster.client.list_route import ListResult
from later_reporting_dagster.contract import (
    CURSOR,
    DEFAULT_CAMPAIGN_METRICS,
    PAGED,
    ApiVersion,
    CampaignPerformanceQuery,
    Metric,
)
from tests.reliability.campaign_comparison import (
    assert_campaign_tables_equal,
    assert_campaigns_equal,
    assert_performance_equals,
    served_performance,
)
from tests.reliability.independent_server import CAMPAIGN_METRICS, CLIENT_ID, CLIENT_SECRET, IndependentServer, Posts

FIRST_DAY = date(2024, 2, 20)
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(15)]
INSTANCE_IDS = ("north", "007", "a/b c", "Zoë")
FAULT_RATES = {"429": 0.06, "500": 0.06, "503": 0.05, "cut": 0.05, "dropped": 0.05, "revoked": 0.05}
SERVER_SEED = 448  # with this seed, every fault occurs
# Several pages of each list: of campaigns, and of their performance on a day.
POSTS = Posts(first_day=FIRST_DAY - timedelta(days=8), days=25, instance_ids=INSTANCE_IDS, seed=5, campaigns=250)
FEW_METRICS = tuple(metric for metric in DEFAULT_CAMPAIGN_METRICS if metric.api_name.startswith("paid"))


def api_names(metrics: Sequence[Metric]) -> list[str]:
    return [metric.api_name for metric in metrics]


async def fetch(base_url: str, metrics: tuple[Metric, ...]) -> tuple[ListResult, dict[date, ListResult]]:
    """Fetch the campaigns, and their performance on each day."""

    async def no_sleep(_seconds: float) -> None:
        pass

    async with LaterClient(
        base_url=base_url,
        credentials=ClientCredentials(CLIENT_ID, CLIENT_SECRET),
        limiter=RateLimiter(requests=1_000_000, sleep=no_sleep),
        api_version=None,
        retry=RetryPolicy(max_attempts=20),
        sleep=no_sleep,
    ) as client:
        performance = {
            day: await client.fetch_campaign_performance(
                CampaignPerformanceQuery(start_date=day, end_date=day, metrics=metrics)
            )
            for day in DAYS
        }
        return await client.fetch_campaigns(), performance


def campaign_rows(result: ListResult) -> list[dict[str, Any]]:
    assert not result.bad_rows
    return [msgspec.structs.asdict(campaign) for campaign in result.items]


def performance_rows(result: ListResult, metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    assert not result.bad_rows
    all_null = dict.fromkeys(metric.column for metric in metrics)
    return [{**all_null, "campaign_id": row.campaign_id, "extra": row.extra, **row.metrics} for row in result.items]


def test_default_metrics_are_those_of_the_server() -> None:
    assert sorted(api_names(DEFAULT_CAMPAIGN_METRICS)) == sorted(CAMPAIGN_METRICS)


@pytest.mark.parametrize("metrics", [DEFAULT_CAMPAIGN_METRICS, FEW_METRICS], ids=["default", "few"])
@pytest.mark.parametrize("api_version", [PAGED, CURSOR], ids=str)
def test_campaigns_from_failing_independent_server_are_complete(
    api_version: ApiVersion, metrics: tuple[Metric, ...]
) -> None:
    by_cursor = api_version is CURSOR
    fault_rates = FAULT_RATES | ({"expired": 0.06} if by_cursor else {})
    server = IndependentServer(POSTS, token_seconds=3600, faults=fault_rates, seed=SERVER_SEED, by_cursor=by_cursor)
    with server.running() as base_url:
        campaigns, performance = asyncio.run(fetch(base_url, metrics))
    assert {*server.injected} == {*fault_rates}, server.injected
    assert server.issued > server.injected["revoked"] > 0
    assert len(campaigns.items) > 600
    assert_campaigns_equal(campaign_rows(campaigns), POSTS.campaigns())
    names = api_names(metrics)
    for day, result in performance.items():
        assert len(result.items) > 100
        expected = served_performance(POSTS, day, names, by_cursor=by_cursor)
        assert_performance_equals(performance_rows(result, metrics), expected, metrics=names)


def test_comparison_finds_changed_missing_and_doubled_rows() -> None:
    with IndependentServer(POSTS, token_seconds=60, faults={}).running() as base_url:
        fetched, performance = asyncio.run(fetch(base_url, DEFAULT_CAMPAIGN_METRICS))
    campaigns = campaign_rows(fetched)
    days = {day: performance_rows(result, DEFAULT_CAMPAIGN_METRICS) for day, result in performance.items()}

    def compare(campaigns: list[dict[str, Any]], days: dict[date, list[dict[str, Any]]]) -> None:
        assert_campaign_tables_equal(
            pa.Table.from_pylist(campaigns),
            {day: pa.Table.from_pylist(rows) for day, rows in days.items()},
            posts=POSTS,
            metrics=CAMPAIGN_METRICS,
            by_cursor=False,
        )

    compare(campaigns, days)
    (day, *_) = days
    first, *others = days[day]
    changed_campaign = campaigns[0] | {"campaign_name": "other"}
    for wrong_campaigns in (campaigns[1:], [*campaigns, campaigns[0]], [changed_campaign, *campaigns[1:]]):
        with pytest.raises(AssertionError):
            compare(wrong_campaigns, days)
    for wrong_rows in (others, [first, first, *others], [first | {"posts_count": 0}, *others]):
        with pytest.raises(AssertionError):
            compare(campaigns, days | {day: wrong_rows})
