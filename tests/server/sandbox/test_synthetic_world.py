"""The synthetic world is a pure function of its seed, and its numbers are consistent with each other."""

from collections import defaultdict
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import httpx
import numpy as np
import pytest

from later_reporting_dagster.server.routes import POSTS
from later_reporting_dagster.server.sandbox import World
from later_reporting_dagster.server.sandbox.metrics import PostMetrics
from later_reporting_dagster.server.sandbox.served_posts import matching_rows
from later_reporting_dagster.server.sandbox.synthetic_world import NOT_AVAILABLE, IntArray
from tests.server.conftest import WORLD as SERVED
from tests.server.conftest import sandbox
from tests.server.lake_store.clients import days_query, fetch_pages, rows_of

WORLD = World(first_day=date(2024, 1, 1), last_day=date(2024, 6, 30))
FIRST, LAST = WORLD.first_day.toordinal(), WORLD.last_day.toordinal()
ALL_POSTS = np.arange(len(WORLD.posts))
COUNTS = ("impressions", "engagements", "paidImpressions", "paidEngagements")
SUMMED = (*COUNTS, "estimatedValueGenerated", "paidCost")


def recorded(day: int) -> tuple[IntArray, PostMetrics]:
    """Return the posts with metrics on a day, and these metrics."""
    today = date.fromordinal(day)
    query, _ = POSTS.parse(f"startDate={today}&endDate={today}&dateBasis=performance_date")
    rows = matching_rows(WORLD, query)
    return rows, PostMetrics(WORLD, rows, (day, day))


def known(values: IntArray) -> IntArray:
    return values[values != NOT_AVAILABLE]


def test_posts_depend_on_the_seed_and_not_on_the_range_of_the_world() -> None:
    def week(world: World) -> list[int]:
        first, last = date(2024, 3, 4).toordinal(), date(2024, 3, 10).toordinal()
        posts = world.posts
        of_week = (posts.day >= first) & (posts.day <= last)
        columns = (posts.post_id, posts.boost_age, posts.cost, posts.cost_day, posts.totals)
        return [value for column in columns for value in column[..., of_week].ravel().tolist()]

    longer = World(first_day=date(2023, 11, 3), last_day=date(2025, 11, 3))
    assert week(longer) == week(WORLD) == week(replace(WORLD)) != week(replace(WORLD, seed=1))


def test_daily_performance_adds_up_to_metrics_to_date() -> None:
    sums = {name: np.full(len(ALL_POSTS), NOT_AVAILABLE) for name in SUMMED}
    negative = 0
    for day in range(FIRST, LAST + 1):
        rows, metrics = recorded(day)
        for name in SUMMED:
            values, before = metrics[name], sums[name][rows]
            # What is not available on one day adds nothing to other days.
            added = np.where(before == NOT_AVAILABLE, 0, before) + values
            sums[name][rows] = np.where(values == NOT_AVAILABLE, before, added)
        negative += sum((known(metrics[name]) < 0).sum() for name in COUNTS)
    totals = PostMetrics(WORLD, ALL_POSTS, (1, LAST))
    for name in SUMMED:
        assert (sums[name] == totals[name]).all(), name
        assert (known(totals[name]) >= 0).all(), name
    assert negative > 100


def test_post_has_its_whole_cost_in_any_range() -> None:
    to_date = PostMetrics(WORLD, ALL_POSTS, (1, LAST))["cost"]
    for day in range(FIRST, LAST + 1, 30):
        rows, metrics = recorded(day)
        assert (metrics["cost"] == to_date[rows]).all()
        counted = (metrics["cost"] != NOT_AVAILABLE) & (metrics["engagements"] > 0)
        exact = metrics["cost"][counted] / metrics["engagements"][counted]
        assert np.abs(metrics["cpe"][counted] - exact).max() <= 0.5
        assert (metrics["cpe"][~counted] == NOT_AVAILABLE).all()


@pytest.mark.parametrize("basis", ["post_date", "performance_date"])
@pytest.mark.parametrize("last_day", [date(2024, 6, 3), date(2024, 6, 30)], ids=["day", "range"])
def test_campaign_is_the_sum_of_its_posts_and_has_their_whole_cost(
    cursor_api: httpx.Client, basis: str, last_day: date
) -> None:
    def fetch(route: str, *metrics: str) -> list[dict[str, Any]]:
        page = [("metrics", ",".join(metrics)), ("limit", 100)]
        query = days_query(date(2024, 6, 3), last_day, ("dateBasis", basis), *page)
        return rows_of(fetch_pages(cursor_api, query, f"/v2/{route}/performance"))

    posts, summed = SERVED.posts, (*COUNTS, "estimatedValueGenerated")
    keys = zip(posts.campaign_id.tolist(), posts.post_id.tolist(), strict=True)
    of_posts = PostMetrics(SERVED, np.arange(len(posts)), (1, last_day.toordinal()))["cost"]
    costs = dict(zip(keys, of_posts.tolist(), strict=True))
    of_campaign: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in fetch("posts", *summed):
        of_campaign[row["campaignId"]].append(row)
    derived = ("cpe", "estimatedContentCost", "affiliateLinksCommissionEarned", "affiliateLinksRoi")
    campaigns = fetch("campaigns", "postsCount", "influencersCount", *summed, *derived)
    assert {row["campaignId"] for row in campaigns} == {*of_campaign}
    rois = 0
    for campaign in campaigns:
        rows, found = of_campaign[campaign["campaignId"]], campaign["metrics"]
        assert found["postsCount"] == len(rows)
        assert found["influencersCount"] == len({row["creatorId"] for row in rows})
        for name in summed:
            values = [row["metrics"][name] for row in rows if row["metrics"][name] is not None]
            assert found[name] == (pytest.approx(sum(values)) if values else None), name
        known_costs = [cost for row in rows if (cost := costs[row["campaignId"], row["postId"]]) != NOT_AVAILABLE]
        cost = sum(known_costs) / 100
        assert found["estimatedContentCost"] == (pytest.approx(cost) if known_costs else None)
        if found["cpe"] is not None:
            assert found["cpe"] == pytest.approx(cost / found["engagements"], abs=0.006)
        if found["affiliateLinksRoi"] is not None:
            rois += 1
            earned = found["affiliateLinksCommissionEarned"]
            assert found["affiliateLinksRoi"] == pytest.approx(earned / cost, abs=0.006)
    assert rois > 2 or last_day.day == 3
    assert all(campaign["metrics"]["cpe"] is not None for campaign in campaigns) or last_day.day == 3


def test_late_posts_are_returned_some_days_after_their_publication() -> None:
    def posts_of(world: World) -> dict[date, set[int]]:
        """Return the posts that are listed, by the day of their publication."""
        query, _ = POSTS.parse(f"startDate={world.first_day}&endDate={world.last_day}")
        found: dict[date, set[int]] = defaultdict(set)
        for row in matching_rows(world, query).tolist():
            found[date.fromordinal(world.posts.day[row])].add(int(world.posts.post_id[row]))
        return found

    all_posts = posts_of(SERVED)
    late = posts_of(replace(SERVED, late_posts=(0.3, 20)))
    last_complete = SERVED.last_day + timedelta(days=1 - 20)
    assert {day: ids for day, ids in late.items() if day <= last_complete} == {
        day: ids for day, ids in all_posts.items() if day <= last_complete
    }
    recent, of_all = (sum(len(ids) for day, ids in each.items() if day > last_complete) for each in (late, all_posts))
    assert 0.5 * of_all < recent < 0.85 * of_all
    # A day later, one more day has all of its posts.
    later = posts_of(replace(SERVED, last_day=SERVED.last_day + timedelta(days=1), late_posts=(0.3, 20)))
    next_complete = last_complete + timedelta(days=1)
    assert later[next_complete] == all_posts[next_complete] > late[next_complete]


@pytest.mark.parametrize("names", [False, True])
def test_campaigns_name_their_instances_if_they_should(names: bool) -> None:
    with sandbox(world=replace(SERVED, campaigns_name_instances=names)) as api:
        query = days_query(SERVED.first_day, SERVED.last_day, ("pageSize", 100))
        rows = rows_of(fetch_pages(api, query, "/v2/campaigns/performance"))
        listed = {row["campaignId"]: row for row in rows_of(fetch_pages(api, [("pageSize", 100)], "/v2/campaigns"))}
    assert rows
    for row in rows:
        of_campaign = listed[row["campaignId"]]
        expected = {name: of_campaign[name] for name in ("instanceId", "campaignName")} if names else {}
        assert {name: row[name] for name in row.keys() & {"instanceId", "campaignName"}} == expected
