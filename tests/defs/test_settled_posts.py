"""Settled posts whose days do not add up to their metrics to date are found and counted."""

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from later_reporting_dagster.defs.settled_posts import (
    MetricSums,
    SettledPostsComparison,
    compare_settled_posts,
    settled_day_ranges,
)
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_PUBLISHED
from tests.rollups.conftest import Row, posts_of, row

FIRST, SETTLED_AFTER = date(2024, 1, 1), 10
DAYS = [FIRST + timedelta(days=number) for number in range(20)]
RECORDED, PUBLISHED = POST_METRICS_DAILY.name, POSTS_PUBLISHED.name

Dated = tuple[date, Row]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(str(tmp_path))


def published(post_id: int, day: date, **fields: Any) -> Dated:
    """Return a row of `posts_published` and the day of its partition."""
    return day, row(post_id=post_id, post_date=datetime.combine(day, datetime.min.time(), UTC), **fields)


def write(lake: Lake, table_name: str, *rows: Dated, days: Mapping[str, Collection[date]]) -> None:
    """Write a file for each instance and day of `days`, with those of `rows` that belong to it."""
    for instance_id, of_instance in days.items():
        for day in of_instance:
            posts = [post for on, post in rows if (on, post["instance_id"]) == (day, instance_id)]
            lake.write(table_name, Partition(day, instance_id), posts_of(*posts))


def write_and_compare(
    lake: Lake, recorded: list[Dated], posts: list[Dated], *, recorded_days: Collection[date] = DAYS
) -> SettledPostsComparison:
    write(lake, RECORDED, *recorded, days={"a": recorded_days})
    write(lake, PUBLISHED, *posts, days={"a": DAYS})
    return compare_settled_posts(lake, settled_after_days=SETTLED_AFTER, memory_gb=1)


def test_settled_posts_whose_days_add_up_agree(lake: Lake) -> None:
    recorded = [(day, row(post_id=1, impressions=5, estimated_value_generated=0.1)) for day in DAYS[:3]]
    found = write_and_compare(lake, recorded, [published(1, FIRST, impressions=15, estimated_value_generated=0.3)])
    assert (found.posts, found.posts_that_differ) == (1, 0)
    assert found.sums["impressions"] == MetricSums(15, 15)
    assert all(sums.agree for sums in found.sums.values())
    assert found.sums["impressions"].difference_percent == 0


@pytest.mark.parametrize(
    ("sum_of_days", "to_date", "agree", "percent"),
    [
        (100, 100, True, 0.0),
        (99, 100, True, -1.0),
        (98, 100, False, -2.0),
        (102, 100, False, 2.0),
        (None, None, True, None),
        (None, 0, True, None),
        (0, None, True, None),
        (0, 0, True, 0.0),
        (1, 0, False, None),
        (None, 100, False, None),
    ],
)
def test_metric_sums_may_differ_by_one_percent(
    sum_of_days: float | None, to_date: float | None, agree: bool, percent: float | None
) -> None:
    sums = MetricSums(sum_of_days, to_date)
    assert (sums.agree, sums.difference_percent) == (agree, percent)


def test_posts_that_differ_are_counted_even_if_their_differences_cancel_out(lake: Lake) -> None:
    recorded = [(FIRST, row(post_id=1, impressions=10)), (FIRST, row(post_id=2, impressions=20))]
    found = write_and_compare(
        lake, recorded, [published(1, FIRST, impressions=20), published(2, FIRST, impressions=10)]
    )
    assert (found.posts, found.posts_that_differ) == (2, 2)
    assert found.sums["impressions"].difference_percent == 0


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
    assert write_and_compare(lake, [], to_date, recorded_days=recorded_days).posts == posts


def test_settled_day_ranges_is_empty_without_recorded_days() -> None:
    assert settled_day_ranges([], [Partition(FIRST, "a")], settled_after_days=0) == {}


def test_settled_posts_are_determined_per_instance(lake: Lake) -> None:
    recorded = {"a": DAYS, "b": DAYS[1:], "c": DAYS}
    instances = ["not recorded", *recorded]
    posts = [published(1, FIRST, instance_id=each, impressions=1) for each in instances]
    write(lake, RECORDED, days=recorded)
    write(lake, PUBLISHED, *posts, days={each: [FIRST] for each in instances})
    assert compare_settled_posts(lake, settled_after_days=SETTLED_AFTER, memory_gb=1).posts == 2  # the posts of a and c


@pytest.mark.parametrize(("of_days", "differs"), [(99, 0), (98, 1), (101, 0), (102, 1), (None, 1)])
def test_a_post_differs_if_a_metric_is_off_by_more_than_one_percent(
    lake: Lake, of_days: int | None, differs: int
) -> None:
    found = write_and_compare(
        lake, [(FIRST, row(post_id=1, impressions=of_days))], [published(1, FIRST, impressions=100)]
    )
    assert found.posts_that_differ == differs


def test_a_post_without_recorded_days_differs_unless_its_metrics_are_0(lake: Lake) -> None:
    found = write_and_compare(lake, [], [published(1, FIRST, impressions=5), published(2, FIRST, impressions=0)])
    assert (found.posts, found.posts_that_differ) == (2, 1)
    assert found.sums["impressions"] == MetricSums(None, 5)
