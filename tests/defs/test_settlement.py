"""The days of a post add up to its metrics to date: the check between the two raw tables."""

from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import httpx

from later_reporting_dagster.contract import DOCUMENT_METRICS
from later_reporting_dagster.defs.posts_checks import evaluate_settlement
from later_reporting_dagster.ingest.raw_tables import POST_METRICS_DAILY, SOURCES
from later_reporting_dagster.ingest.settled_posts import Settlement, Sums, settlement
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.sandbox import World, create_app, running_sandbox
from tests.conftest import UNHURRIED, Truth
from tests.rollups.conftest import posts_of

FIRST = date(2024, 1, 1)
DAYS = [FIRST + timedelta(days=number) for number in range(20)]
ADDED = [metric.column for metric in DOCUMENT_METRICS if metric.kind.adds_up]


def evaluated(lake: Lake) -> dg.AssetCheckResult:
    """The result of the check on a lake."""
    return evaluate_settlement(settlement(lake, settled_after_days=28, memory_gb=1), settled_after_days=28)


def test_a_world_s_days_add_up_and_a_lost_day_does_not(tmp_path: Path) -> None:
    """Over the service itself, whose posts live for up to four weeks."""
    world = World(first_day=FIRST, last_day=DAYS[-1] + timedelta(days=20), seed=4, instances=1, posts_per_day=3)
    with running_sandbox(create_app(world, options=UNHURRIED)) as base_url, httpx.Client(base_url=base_url) as client:
        truth, lake = Truth(client), Lake(str(tmp_path))
        days = [FIRST + timedelta(days=number) for number in range(40)]
        for source in SOURCES:
            for day in days:
                rows = truth.partition(str(source.date_basis), day, "instance_000")
                lake.write(source.asset, Partition(day, "instance_000"), posts_of(*rows))
    result = evaluated(lake)
    posts = result.metadata["posts"].value
    assert posts > 20
    assert result.passed
    assert result.description == f"The days of {posts} settled posts add up to their metrics to date"
    assert {f"difference_percent/{name}" for name in ADDED} <= result.metadata.keys()
    assert result.metadata["difference_percent/impressions"].value == 0.0
    lake.write(POST_METRICS_DAILY.asset, Partition(days[1], "instance_000"), posts_of())
    result = evaluated(lake)
    assert not result.passed
    assert "impressions" in result.description
    assert result.metadata["difference_percent/impressions"].value < -1
    assert 0 < result.metadata["posts_that_differ"].value <= posts


def test_nothing_settled_is_told_and_nothing_wrong(tmp_path: Path) -> None:
    result = evaluated(Lake(str(tmp_path)))
    assert result.passed
    assert result.description.startswith("No post is settled yet: one is, once it and each of the 28 days after it")
    assert not [name for name in result.metadata if name.startswith("difference_percent")]


def test_metrics_that_differ_are_named() -> None:
    sums = {"impressions": Sums(1, 2), "engagements": Sums(2, 2)}
    result = evaluate_settlement(Settlement(5, 1, sums), settled_after_days=28)
    assert result.description == "impressions of 5 settled posts differ by over 1 %"
