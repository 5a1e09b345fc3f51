"""The check that compares the raw tables: the days of settled posts add up to their metrics to date."""

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest

from later_reporting_dagster.contract import DEFAULT_METRICS
from later_reporting_dagster.defs.checks.posts import evaluate_settled_posts
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_PUBLISHED, RAW_TABLES
from later_reporting_dagster.rollups.raw_reconciliation import sum_settled_posts
from later_reporting_dagster.sandbox import World, create_app, running_server
from tests.conftest import NO_RATE_LIMIT, Truth
from tests.rollups.conftest import Row, posts_of, row

FIRST, SETTLED_AFTER = date(2024, 1, 1), 10
DAYS = [FIRST + timedelta(days=number) for number in range(20)]
RECORDED, PUBLISHED = POST_METRICS_DAILY.name, POSTS_PUBLISHED.name
ADDITIVE = [metric.column for metric in DEFAULT_METRICS if metric.kind.is_additive]

Dated = tuple[date, Row]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def published(post_id: int, day: date, **fields: Any) -> Dated:
    return day, row(post_id=post_id, post_date=datetime.combine(day, datetime.min.time(), UTC), **fields)


def write(lake: Lake, table_name: str, *rows: Dated, days: Mapping[str, Collection[date]]) -> None:
    """Write a file for each instance and day of `days`, with those of `rows` that belong to it."""
    for instance_id, of_instance in days.items():
        for day in of_instance:
            posts = [post for on, post in rows if (on, post["instance_id"]) == (day, instance_id)]
            lake.write(table_name, Partition(day, instance_id), posts_of(*posts))


def compare(lake: Lake, *, settled_after_days: int = SETTLED_AFTER) -> dg.AssetCheckResult:
    return evaluate_settled_posts(sum_settled_posts(lake, settled_after_days=settled_after_days, memory_gb=1))


def compared(
    lake: Lake, recorded: list[Dated], posts: list[Dated], *, recorded_days: Collection[date] = DAYS
) -> dg.AssetCheckResult:
    write(lake, RECORDED, *recorded, days={"a": recorded_days})
    write(lake, PUBLISHED, *posts, days={"a": DAYS})
    return compare(lake)


def counts(result: dg.AssetCheckResult) -> tuple[object, object]:
    """Return the number of settled posts, and of those that differ."""
    return result.metadata["posts"].value, result.metadata["posts_that_differ"].value


def test_check_passes_for_complete_days_and_fails_for_a_lost_day(lake: Lake) -> None:
    """Use the sandbox, whose posts gain metrics for up to four weeks."""
    world = World(first_day=FIRST, last_day=FIRST + timedelta(days=39), seed=4, instances=1, posts_per_day=3)
    with (
        running_server(create_app(world, options=NO_RATE_LIMIT)) as base_url,
        httpx.Client(base_url=base_url) as client,
    ):
        truth = Truth(client)
        days = [FIRST + timedelta(days=number) for number in range(40)]
        for source in RAW_TABLES:
            for day in days:
                rows = truth.partition(str(source.date_basis), day, "instance_000")
                lake.write(source.name, Partition(day, "instance_000"), posts_of(*rows))
    result = compare(lake, settled_after_days=28)
    posts, _ = counts(result)
    assert posts > 20
    assert result.passed
    lake.write(RECORDED, Partition(days[1], "instance_000"), posts_of())
    result = compare(lake, settled_after_days=28)
    assert not result.passed
    assert "impressions" in result.description
    assert result.metadata["difference_percent/impressions"].value < -1
    assert 0 < counts(result)[1] <= posts


def test_check_passes_without_settled_posts(lake: Lake) -> None:
    result = compare(lake, settled_after_days=28)
    assert result.passed
    assert result.description.startswith(
        "No post is settled yet. A post is settled when post_metrics_daily has every day since its publication,"
    )
    assert not [name for name in result.metadata if name.startswith("difference_percent")]


@pytest.mark.parametrize(
    ("sum_of_days", "to_date", "agree"),
    [
        (99, 100, True),
        (98, 100, False),
        (102, 100, False),
        (None, 0, True),
        (0, None, True),
        (1, 0, False),
        (None, 100, False),
    ],
)
def test_sums_may_differ_by_one_percent(sum_of_days: float | None, to_date: float | None, agree: bool) -> None:
    sums = {f"{name}_{which}": 2 for name in ADDITIVE for which in ("of_days", "to_date")}
    of_impressions = {"impressions_of_days": sum_of_days, "impressions_to_date": to_date}
    result = evaluate_settled_posts({"posts": 5, "posts_that_differ": 1, **sums, **of_impressions})
    assert result.passed is agree
    if not agree:
        assert result.description == "impressions of 5 settled posts differ by over 1 %"


def test_posts_that_differ_are_counted_even_if_their_differences_cancel_out(lake: Lake) -> None:
    recorded = [(FIRST, row(post_id=1, impressions=10)), (FIRST, row(post_id=2, impressions=20))]
    found = compared(lake, recorded, [published(1, FIRST, impressions=20), published(2, FIRST, impressions=10)])
    assert (counts(found), found.passed) == ((2, 2), True)


@pytest.mark.parametrize(
    ("recorded_days", "posts"),
    [
        (DAYS, 10),  # the last one was published ten days before the newest recorded day
        ([day for day in DAYS if day != DAYS[4]], 5),
        (DAYS[:9], 0),
        ([], 0),
    ],
)
def test_unsettled_posts_and_posts_with_missing_days_are_not_compared(
    lake: Lake, recorded_days: list[date], posts: int
) -> None:
    to_date = [published(number, day, impressions=1) for number, day in enumerate(DAYS)]
    assert counts(compared(lake, [], to_date, recorded_days=recorded_days))[0] == posts


def test_settled_posts_are_determined_per_instance(lake: Lake) -> None:
    recorded = {"a": DAYS, "b": DAYS[1:], "c": DAYS}
    instances = ["not recorded", *recorded]
    posts = [published(1, FIRST, instance_id=each, impressions=1) for each in instances]
    write(lake, RECORDED, days=recorded)
    write(lake, PUBLISHED, *posts, days={each: [FIRST] for each in instances})
    found = compare(lake)
    assert counts(found)[0] == 2  # the posts of a and c


@pytest.mark.parametrize(("of_days", "differs"), [(99, 0), (98, 1), (101, 0), (102, 1), (None, 1)])
def test_a_post_differs_if_a_metric_is_off_by_more_than_one_percent(
    lake: Lake, of_days: int | None, differs: int
) -> None:
    found = compared(lake, [(FIRST, row(post_id=1, impressions=of_days))], [published(1, FIRST, impressions=100)])
    assert counts(found)[1] == differs


def test_a_post_without_recorded_days_differs_unless_its_metrics_are_0(lake: Lake) -> None:
    found = compared(lake, [], [published(1, FIRST, impressions=5), published(2, FIRST, impressions=0)])
    assert counts(found) == (2, 1)
