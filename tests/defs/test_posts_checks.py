"""The check that compares the raw tables: the days of settled posts add up to their metrics to date."""

from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import httpx

from later_reporting_dagster.contract import DEFAULT_METRICS
from later_reporting_dagster.defs.posts_checks import evaluate_settled_posts
from later_reporting_dagster.defs.settled_posts import MetricSums, SettledPostsComparison, compare_settled_posts
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, RAW_TABLES
from later_reporting_dagster.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT, Truth
from tests.rollups.conftest import posts_of

FIRST = date(2024, 1, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(20)]
ADDITIVE = [metric.column for metric in DEFAULT_METRICS if metric.kind.is_additive]


def evaluate(lake: Lake) -> dg.AssetCheckResult:
    """Evaluate the check on a lake."""
    return evaluate_settled_posts(compare_settled_posts(lake, settled_after_days=28, memory_gb=1))


def test_settled_posts_check_passes_for_complete_days_and_fails_for_a_lost_day(tmp_path: Path) -> None:
    """Use the sandbox, whose posts gain metrics for up to four weeks."""
    world = World(first_day=FIRST, last_day=DAYS[-1] + timedelta(days=20), seed=4, instances=1, posts_per_day=3)
    with (
        running_server(create_app(world, options=NO_RATE_LIMIT)) as base_url,
        httpx.Client(base_url=base_url) as client,
    ):
        truth, lake = Truth(client), Lake(str(tmp_path))
        days = [FIRST + timedelta(days=number) for number in range(40)]
        for source in RAW_TABLES:
            for day in days:
                rows = truth.partition(str(source.date_basis), day, "instance_000")
                lake.write(source.name, Partition(day, "instance_000"), posts_of(*rows))
    result = evaluate(lake)
    posts = result.metadata["posts"].value
    assert posts > 20
    assert result.passed
    assert result.description == f"The days of {posts} settled posts add up to their metrics to date"
    assert {f"difference_percent/{name}" for name in ADDITIVE} <= result.metadata.keys()
    assert result.metadata["difference_percent/impressions"].value == 0.0
    lake.write(POST_METRICS_DAILY.name, Partition(days[1], "instance_000"), posts_of())
    result = evaluate(lake)
    assert not result.passed
    assert "impressions" in result.description
    assert result.metadata["difference_percent/impressions"].value < -1
    assert 0 < result.metadata["posts_that_differ"].value <= posts


def test_settled_posts_check_passes_without_settled_posts(tmp_path: Path) -> None:
    result = evaluate(Lake(str(tmp_path)))
    assert result.passed
    assert result.description.startswith(
        "No post is settled yet. A post is settled when post_metrics_daily has every day since its publication,"
    )
    assert not [name for name in result.metadata if name.startswith("difference_percent")]


def test_settled_posts_check_names_the_metrics_that_differ() -> None:
    sums = {"impressions": MetricSums(1, 2), "engagements": MetricSums(2, 2)}
    result = evaluate_settled_posts(SettledPostsComparison(5, 1, sums))
    assert result.description == "impressions of 5 settled posts differ by over 1 %"
