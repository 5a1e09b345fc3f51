"""The days of a post add up to its metrics to date: the check between the two raw tables."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from later_reporting_dagster.contract import DOCUMENT_METRICS, DateBasis
from later_reporting_dagster.defs.posts import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.defs.runs.landed import read_all
from later_reporting_dagster.defs.runs.settlement import settlement_verdict, verdicts_on_settlement
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.rollups import SETTLEMENT_SCHEMA, Landed, Settlement, Sums, settlement
from later_reporting_dagster.rollups.settling import settled_days
from later_reporting_dagster.sandbox import World, create_app, running_sandbox
from tests.conftest import UNHURRIED, Truth
from tests.rollups.conftest import Row, posts_of, row

FIRST, SETTLED_AFTER = date(2024, 1, 1), 10
DAYS = [FIRST + timedelta(days=number) for number in range(20)]
ADDED = [metric.column for metric in DOCUMENT_METRICS if metric.kind.adds_up]


def published(post_id: int, day: date, **fields: Any) -> tuple[date, Row]:
    return day, row(post_id=post_id, post_date=datetime.combine(day, datetime.min.time(), UTC), **fields)


def landed(*rows: tuple[date, Row], days: list[date] = DAYS) -> Landed:
    posts = posts_of(*(post for _, post in rows)).select([name for name in SETTLEMENT_SCHEMA.names if name != "date"])
    dated = posts.append_column(SETTLEMENT_SCHEMA.field("date"), pa.array([day for day, _ in rows], pa.date32()))
    return Landed(dated, {"a": set(days)})


def compared(recorded: Landed, posts: Landed) -> Settlement:
    return settlement(recorded, posts, settled_after_days=SETTLED_AFTER)


def test_days_that_add_up_agree() -> None:
    recorded = landed(*((day, row(post_id=1, impressions=5, estimated_value_generated=0.1)) for day in DAYS[:3]))
    found = compared(recorded, landed(published(1, FIRST, impressions=15, estimated_value_generated=0.3)))
    assert (found.posts, found.posts_that_differ) == (1, 0)
    assert found.sums["impressions"] == Sums(15, 15)
    assert all(sums.agree for sums in found.sums.values())
    assert found.sums["impressions"].difference_percent == 0


@pytest.mark.parametrize(
    ("of_days", "to_date", "agree", "percent"),
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
def test_sums_may_differ_by_one_percent(
    of_days: float | None, to_date: float | None, agree: bool, percent: float | None
) -> None:
    sums = Sums(of_days, to_date)
    assert (sums.agree, sums.difference_percent) == (agree, percent)


def test_posts_that_differ_are_counted_even_where_their_differences_cancel_out() -> None:
    recorded = landed((FIRST, row(post_id=1, impressions=10)), (FIRST, row(post_id=2, impressions=20)))
    found = compared(recorded, landed(published(1, FIRST, impressions=20), published(2, FIRST, impressions=10)))
    assert (found.posts, found.posts_that_differ) == (2, 2)
    assert found.sums["impressions"].difference_percent == 0


def test_young_posts_and_those_without_all_their_days_are_not_compared() -> None:
    posts = landed(*(published(number, day, impressions=1) for number, day in enumerate(DAYS)))
    assert compared(landed(days=DAYS), posts).posts == 10  # the last of them ten days before the newest one
    gap = [day for day in DAYS if day != DAYS[4]]
    assert compared(landed(days=gap), posts).posts == 5
    assert compared(landed(days=DAYS[:9]), posts).posts == 0
    assert compared(landed(days=[]), posts).posts == 0
    assert settled_days(landed(days=[]), posts, settled_after_days=0) == {}


def test_each_instance_has_days_of_its_own() -> None:
    posts = landed(published(1, FIRST, impressions=1), published(1, FIRST, instance_id="b", impressions=1))
    recorded = Landed(landed().rows, {"a": set(DAYS), "b": set(DAYS[1:])})
    found = compared(recorded, Landed(posts.rows, {"a": {FIRST}, "b": {FIRST}}))
    assert found.posts == 1


def test_a_world_s_days_add_up_and_a_lost_day_does_not(tmp_path: Path) -> None:
    """Over the service itself, whose posts live for up to four weeks."""
    import httpx

    world = World(first_day=FIRST, last_day=DAYS[-1] + timedelta(days=20), seed=4, instances=1, posts_per_day=3)
    with (
        running_sandbox(create_app(world, options=UNHURRIED)) as base_url,
        httpx.Client(base_url=base_url) as client,
    ):
        truth, lake = Truth(client), Lake(str(tmp_path))
        days = [FIRST + timedelta(days=number) for number in range(40)]
        for source in (POST_METRICS_DAILY, POSTS_PUBLISHED):
            for day in days:
                rows = truth.partition(str(source.date_basis), day, "instance_000")
                lake.write(source.asset, Partition(day, "instance_000"), posts_of(*rows))
    assert POST_METRICS_DAILY.date_basis is DateBasis.PERFORMANCE_DATE
    (verdict,) = verdicts_on_settlement(lake, POST_METRICS_DAILY, POSTS_PUBLISHED, settled_after_days=28)
    posts = verdict.metadata["posts"]
    assert posts > 20
    assert verdict.passed
    assert verdict.description == f"The days of {posts} settled posts add up to their metrics to date"
    assert {f"difference_percent/{name}" for name in ADDED} <= verdict.metadata.keys()
    assert verdict.metadata["difference_percent/impressions"] == 0.0
    lake.write(POST_METRICS_DAILY.asset, Partition(days[1], "instance_000"), posts_of())
    (verdict,) = verdicts_on_settlement(lake, POST_METRICS_DAILY, POSTS_PUBLISHED, settled_after_days=28)
    assert not verdict.passed
    assert "impressions" in verdict.description
    assert verdict.metadata["difference_percent/impressions"] < -1
    assert 0 < verdict.metadata["posts_that_differ"] <= posts


def test_nothing_settled_is_told_and_nothing_wrong(tmp_path: Path) -> None:
    (verdict,) = verdicts_on_settlement(Lake(str(tmp_path)), POST_METRICS_DAILY, POSTS_PUBLISHED, settled_after_days=28)
    assert verdict.passed
    assert verdict.description.startswith("No post is settled yet: one is, once it and each of the 28 days after it")
    assert not [name for name in verdict.metadata if name.startswith("difference_percent")]


def test_metrics_that_differ_are_named() -> None:
    sums = {"impressions": Sums(1, 2), "engagements": Sums(2, 2)}
    verdict = settlement_verdict(Settlement(5, 1, sums), settled_after_days=28)
    assert verdict.description == "impressions of 5 settled posts differ by over 1 %"


def test_all_that_is_there_is_read_with_its_days(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", Partition(DAYS[1], "b"), posts_of(row(instance_id="b", post_id=2)))
    lake.write("posts", Partition(DAYS[0], "a"), posts_of(row(post_id=1), row(post_id=3)))
    lake.write("posts", Partition(DAYS[2], "a"), posts_of())
    read = read_all(lake, "posts", schema=SETTLEMENT_SCHEMA)
    assert read.landed.rows.schema.equals(SETTLEMENT_SCHEMA)
    assert read.landed.rows.select(["post_id", "date"]).to_pydict() == {
        "post_id": [1, 3, 2],
        "date": [DAYS[0], DAYS[0], DAYS[1]],
    }
    assert read.landed.days == {"a": {DAYS[0], DAYS[2]}, "b": {DAYS[1]}}
    assert (read.partitions, dict(read.unread)) == (3, {})
