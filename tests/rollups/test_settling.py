"""The days of a post add up to its metrics to date, once it is settled; what does not is found and counted."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from later_reporting_dagster.rollups.periods import Landed
from later_reporting_dagster.rollups.settling import SETTLEMENT_SCHEMA, Settlement, Sums, settled_days, settlement
from tests.rollups.conftest import Row, posts_of, row

FIRST, SETTLED_AFTER = date(2024, 1, 1), 10
DAYS = [FIRST + timedelta(days=number) for number in range(20)]


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
    days = {"a": set(DAYS), "b": set(DAYS[1:]), "c": set(DAYS)}
    instances = ["nowhere recorded", *days]
    posts = landed(*(published(1, FIRST, instance_id=each, impressions=1) for each in instances))
    found = compared(Landed(landed().rows, days), Landed(posts.rows, {each: {FIRST} for each in instances}))
    assert found.posts == 2  # those of a and c


@pytest.mark.parametrize(("of_days", "differs"), [(99, 0), (98, 1), (101, 0), (102, 1), (None, 1)])
def test_a_post_differs_by_more_than_one_percent(of_days: int | None, differs: int) -> None:
    recorded = landed((FIRST, row(post_id=1, impressions=of_days)))
    found = compared(recorded, landed(published(1, FIRST, impressions=100)))
    assert found.posts_that_differ == differs


def test_a_post_that_no_day_recorded_differs_by_all_that_it_has() -> None:
    found = compared(landed(), landed(published(1, FIRST, impressions=5), published(2, FIRST, impressions=0)))
    assert (found.posts, found.posts_that_differ) == (2, 1)
    assert found.sums["impressions"] == Sums(None, 5)
