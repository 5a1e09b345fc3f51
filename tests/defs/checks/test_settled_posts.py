"""The check that compares the raw tables: the days of settled posts add up to their metrics to date."""

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from later_reporting_dagster.defs.checks.posts import evaluate_settled_posts
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.file_metadata import FETCHED_AT
from later_reporting_dagster.rollups.raw_reconciliation import sum_settled_posts
from tests.rollups.conftest import Row, in_parts, posts_of, row

FIRST, SETTLED_AFTER = date(2024, 1, 1), 10
DAYS = [FIRST + timedelta(days=number) for number in range(20)]
RECORDED, PUBLISHED = "post_metrics_daily", "posts_published"

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


def compare(lake: Lake) -> dg.AssetCheckResult:
    return evaluate_settled_posts(
        in_parts(lambda: sum_settled_posts(lake, settled_after_days=SETTLED_AFTER, memory_gb=1))
    )


def compared(
    lake: Lake, recorded: list[Dated], posts: list[Dated], *, recorded_days: Collection[date] = DAYS
) -> dg.AssetCheckResult:
    write(lake, RECORDED, *recorded, days={"a": recorded_days})
    write(lake, PUBLISHED, *posts, days={"a": DAYS})
    return compare(lake)


def counts(result: dg.AssetCheckResult) -> tuple[object, object]:
    """Return the number of settled posts, and of those that differ."""
    return result.metadata["posts"].value, result.metadata["posts_that_differ"].value


@pytest.mark.parametrize(
    ("recorded", "to_date", "agree"),
    [
        *(({"impressions": 99}, 100, True), ({"impressions": 98}, 100, False)),
        *(({"impressions": 101}, 100, True), ({"impressions": 102}, 100, False)),
        *(({"impressions": None}, 0, True), ({"impressions": None}, 100, False)),
        *(({"impressions": 0}, None, True), ({"impressions": 1}, 0, False)),
        *((None, 0, True), (None, 5, False)),
    ],
)
def test_days_may_differ_from_metrics_to_date_by_one_percent(
    recorded: dict[str, int | None] | None, to_date: int | None, agree: bool, lake: Lake
) -> None:
    rows = [] if recorded is None else [(FIRST, row(post_id=1, **recorded))]
    found = compared(lake, rows, [published(1, FIRST, impressions=to_date)])
    assert (counts(found), found.passed) == ((1, 0 if agree else 1), agree)
    if not agree:
        assert found.description == "impressions of 1 settled posts differ by over 1 %"
    if recorded and recorded["impressions"] and to_date:
        assert found.metadata["difference_percent/impressions"].value == recorded["impressions"] - to_date


def test_days_are_compared_up_to_the_day_before_metrics_to_date_were_requested(lake: Lake) -> None:
    recorded = [(DAYS[number], row(post_id=1, impressions=10)) for number in (0, 5, 6)]
    post = published(1, FIRST, impressions=20)
    assert not compared(lake, recorded, [post]).passed
    for number, agree in ((6, True), (7, False)):
        requested_at = datetime.combine(DAYS[number], time(12), UTC)
        metadata = {FETCHED_AT: requested_at.isoformat()}
        lake.write(PUBLISHED, Partition(FIRST, "a"), posts_of(post[1]), metadata=metadata, replaces_metadata=True)
        assert compare(lake).passed is agree


def test_posts_that_differ_are_counted_even_if_their_differences_cancel_out(lake: Lake) -> None:
    recorded = [(FIRST, row(post_id=1, impressions=10)), (FIRST, row(post_id=2, impressions=20))]
    found = compared(lake, recorded, [published(1, FIRST, impressions=20), published(2, FIRST, impressions=10)])
    assert (counts(found), found.passed) == ((2, 2), True)


def test_publish_days_of_posts_that_differ_are_named(lake: Lake) -> None:
    found = compared(lake, [], [published(number, day, impressions=number % 2) for number, day in enumerate(DAYS)])
    assert found.metadata["failed_days"].value == [str(day) for day in DAYS[1:10:2]]


def test_sum_of_a_metric_that_no_post_reports_is_null(lake: Lake) -> None:
    compared(lake, [(FIRST, row(post_id=1, impressions=None))], [published(1, FIRST, impressions=None)])
    found = sum_settled_posts(lake, settled_after_days=SETTLED_AFTER, memory_gb=1)
    assert (found["posts"], found["impressions_of_days"], found["impressions_to_date"]) == (1, None, None)


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
    to_date = [published(number, day, impressions=0) for number, day in enumerate(DAYS)]
    found = compared(lake, [], to_date, recorded_days=recorded_days)
    assert (found.passed, counts(found)[0]) == (True, posts)
    assert found.description.startswith("No post of these days is settled yet. A post is settled when") is (posts == 0)


def test_settled_posts_are_determined_per_instance(lake: Lake) -> None:
    recorded = {"a": DAYS, "b": DAYS[1:], "c": DAYS}
    instances = ["not recorded", *recorded]
    posts = [published(1, FIRST, instance_id=each, impressions=1) for each in instances]
    write(lake, RECORDED, days=recorded)
    write(lake, PUBLISHED, *posts, days={each: [FIRST] for each in instances})
    assert counts(compare(lake))[0] == 2  # the posts of a and c
