"""The synthetic world is a pure function of its seed, and its numbers are consistent with each other."""

from dataclasses import replace
from datetime import date
from typing import Any

import httpx
import numpy as np
import pytest

from later_reporting_dagster.server.query_parameters import parse_posts_query
from later_reporting_dagster.server.sandbox import World
from later_reporting_dagster.server.sandbox.served_posts import matching_rows
from later_reporting_dagster.server.sandbox.synthetic_world import NOT_AVAILABLE
from tests.server.lake_store.clients import days_query, fetch_pages, rows_of

WORLD = World(first_day=date(2024, 1, 1), last_day=date(2024, 6, 30))
SUMMED = ("impressions", "engagements", "estimatedValueGenerated", "paidImpressions", "paidEngagements")


def test_posts_depend_on_the_seed_and_not_on_the_range_of_the_world() -> None:
    def week(world: World) -> list[int]:
        first, last = date(2024, 3, 4).toordinal(), date(2024, 3, 10).toordinal()
        posts = world.posts
        of_week = (posts.day >= first) & (posts.day <= last)
        return [*posts.post_id[of_week].tolist(), *posts.totals[:, of_week].ravel().tolist()]

    longer = World(first_day=date(2023, 11, 3), last_day=date(2025, 11, 3))
    assert week(longer) == week(WORLD) == week(replace(WORLD)) != week(replace(WORLD, seed=1))


def test_daily_performance_adds_up_to_metrics_to_date() -> None:
    everything = np.arange(len(WORLD.posts))
    sums = {name: np.zeros(len(everything), dtype=np.int64) for name in SUMMED}
    for day in range(WORLD.first_day.toordinal(), WORLD.last_day.toordinal() + 1):
        today = date.fromordinal(day)
        query, _ = parse_posts_query(f"startDate={today}&endDate={today}&dateBasis=performance_date")
        rows = matching_rows(WORLD, query)
        metrics = WORLD.metrics(rows, since=day, until=day)
        for name in SUMMED:
            sums[name][rows] += metrics[name]
    totals = WORLD.metrics(everything, since=1, until=WORLD.last_day.toordinal())
    for name in SUMMED:
        available = totals[name] != NOT_AVAILABLE
        assert (sums[name][available] == totals[name][available]).all()


@pytest.mark.parametrize("basis", ["post_date", "performance_date"])
def test_campaign_is_the_sum_of_its_posts(paged_api: httpx.Client, basis: str) -> None:
    def fetch(route: str) -> list[dict[str, Any]]:
        query = days_query(date(2024, 6, 3), date(2024, 6, 5), ("dateBasis", basis), ("pageSize", 100))
        return rows_of(fetch_pages(paged_api, query, f"/v2/{route}/performance"))

    posts = fetch("posts")
    campaigns = fetch("campaigns")
    assert {row["campaignId"] for row in campaigns} == {row["campaignId"] for row in posts}
    for campaign in campaigns:
        rows = [row for row in posts if row["campaignId"] == campaign["campaignId"]]
        assert campaign["postsCount"] == len(rows)
        for name in SUMMED:
            values = [row[name] for row in rows if row[name] is not None]
            assert campaign[name] == (pytest.approx(sum(values)) if values else None), name
