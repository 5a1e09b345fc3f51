"""What stands out on the page: who made a change, whom to book again, which networks are silent."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from later_reporting_dagster.defs.checks.rollups import evaluate_impressions
from later_reporting_dagster.lake import schema_of
from later_reporting_dagster.report.report_data import ReportData
from later_reporting_dagster.rollups.rollup_tables import BY_PLATFORM
from tests.report.conftest import report_and_tables, report_of
from tests.rollups.conftest import row
from tests.rollups.reference import Row, World
from tests.rollups.worlds import NEWEST, campaign

DAYS = [NEWEST - timedelta(days=age) for age in range(40)]


def world_with(*rows: Row, published: Sequence[Row] | None = None, **fields: Any) -> World:
    """Return a world of one instance and 40 days; rows of posts have their day as `date`."""

    def files(of: Sequence[Row]) -> dict[tuple[date, str], list[Row]]:
        found: dict[tuple[date, str], list[Row]] = {(day, "a"): [] for day in DAYS}
        for each in of:
            found[each["date"], "a"].append({name: value for name, value in each.items() if name != "date"})
        return found

    return World(files(rows), files(rows if published is None else published), **fields)


def on(age: int, **fields: Any) -> Row:
    """Return the row of a post that was published on the day, and has results on it."""
    day = NEWEST - timedelta(days=age)
    return row(date=day, post_date=datetime(day.year, day.month, day.day, tzinfo=UTC), **fields)


def rows(data: ReportData, table: str, **values: Any) -> list[Row]:
    found: list[Row] = data.tables[table].to_pylist()
    return [each for each in found if all(each[name] == value for name, value in values.items())]


def test_who_made_a_change_is_taken_out_of_both_periods() -> None:
    star = {"creator_id": 1, "campaign_id": 5}
    world = world_with(
        on(2, post_id=1, paid_impressions=900, **star),
        on(1, post_id=2, paid_impressions=100, **star),
        on(9, post_id=3, paid_impressions=100, **star),
        *(on(3, post_id=10 + n, creator_id=10 + n, campaign_id=6, paid_impressions=90) for n in range(20)),
        *(on(10, post_id=40 + n, creator_id=10 + n, campaign_id=6, paid_impressions=60) for n in range(20)),
    )
    (who,) = rows(report_of(world), "who", time_window="7d", instance_id=None)
    assert (who["kind"], who["creator_id"], who["measure"]) == ("creator", 1, "paid_impressions")
    assert (who["value"], who["total"], who["previous_value"], who["previous_total"]) == (1000, 2800, 100, 1300)
    assert who["share"] == pytest.approx(100 * 1000 / 2800)
    assert who["change"] == pytest.approx(100 * 1500 / 1300)
    assert who["change_without"] == pytest.approx(50)  # 1800 after 1200
    assert who["share_of_change"] == pytest.approx(60)
    assert who["is_of_period"]
    # Of the post that was paid for most on a day.
    assert (who["campaign_id"], who["peak_age"], who["peak_value"]) == (5, 2, 900)


def test_who_made_it_is_nobody_if_nobody_has_more_than_a_tenth() -> None:
    posts = [on(2, post_id=n, creator_id=n, campaign_id=n, impressions=100) for n in range(1, 11)]
    assert rows(report_of(world_with(*posts)), "who", time_window="7d") == []


def test_peak_names_the_campaign_with_more_than_a_tenth_of_the_day() -> None:
    world = world_with(
        on(3, post_id=1, campaign_id=1, impressions=60, paid_impressions=20),
        on(3, post_id=2, campaign_id=2, impressions=120),
        on(1, post_id=3, campaign_id=3, impressions=150),
    )
    (peak,) = rows(report_of(world), "peaks", time_window="7d", instance_id=None)
    assert (peak["age"], peak["impressions"], peak["campaign_id"], peak["campaign_impressions"]) == (3, 200, 2, 120)


def test_creators_to_book_again_have_five_ranked_posts_and_a_cost_only_if_all_are_known() -> None:
    """Peers are 40 posts of one day; the engagement rate of a post is its number."""
    posts = []
    for number in range(1, 41):
        # Creator 1 has the five best posts, 2 the next five, of which one has no cost; 3 has four.
        creator = 1 if number > 35 else 2 if number > 30 else 3 if number > 26 else 100 + number
        cost = {} if number == 31 else {"cpe": 2.0}
        post = {"post_id": number, "creator_id": creator, "campaign_id": 1 if number % 2 else 2}
        posts.append(on(20, impressions=10_000, engagements=number, **post, **cost))
    data = report_of(world_with(*posts))
    booked = [each for each in rows(data, "book", campaign_id=None)]
    assert [each["creator_id"] for each in booked] == [1, 2]
    assert [each["median_percentile"] for each in booked] == [pytest.approx(100 * n / 39) for n in (37, 32)]
    assert len(booked[0]["percentiles"]) == 5
    assert [(each["posts"], each["posts_of_known_cost"]) for each in booked] == [(5, 5), (5, 4)]
    assert [each["content_cost_per_engagement"] for each in booked] == [2, None]
    # A campaign has only a part of the posts, too few to rank anyone.
    assert {each["campaign_id"] for each in rows(data, "book")} == {None}


@pytest.mark.parametrize(("posts", "posts_now"), [(5, 1), (5, 6), (30, 20)])
def test_a_network_is_silent_exactly_if_the_check_warns(posts: int, posts_now: int) -> None:
    world = world_with(
        *(on(10 + n % 5, post_id=n, impressions=10) for n in range(posts)),
        *(on(2, post_id=100 + n) for n in range(posts_now)),
    )
    data, found = report_and_tables(world)
    stopped = rows(data, "silent", time_window="28d", kind="stopped")
    check = evaluate_impressions(pa.Table.from_pylist(found[BY_PLATFORM.name], schema_of(BY_PLATFORM.columns)))
    assert check.passed == (not stopped) == (posts < 30)
    # In the window without any, that is all there is to say.
    assert [each["posts"] for each in rows(data, "silent", time_window="7d")] == [posts_now]


def test_a_campaign_with_published_posts_alone_has_a_row() -> None:
    late = on(1, post_id=2, campaign_id=2)
    data = report_of(world_with(on(3, impressions=10), published=[on(3, impressions=10), late]))
    (found,) = rows(data, "results", time_window="7d", campaign_id=2)
    assert (found["published_posts"], found["posts_of_known_cost"], found["is_cost_known"]) == (1, 0, False)
    assert (found["days"], found["impressions"], found["cost"]) == (7, None, None)


def test_a_campaign_whose_totals_are_in_quarantine_has_its_status() -> None:
    data = report_of(world_with(on(3, campaign_id=1, impressions=10), campaigns=[campaign()], periods=[]))
    (found,) = rows(data, "campaigns", campaign_id=1)
    assert (found["campaign_name"], found["campaign_status"]) == ("Spring", "live")


def test_cost_of_a_period_without_published_posts_is_known() -> None:
    data = report_of(world_with(on(2, impressions=10), published=[on(20, impressions=10)]))
    (found,) = rows(data, "results", time_window="7d", instance_id=None)
    assert (found["published_posts"], found["cost"], found["is_cost_known"]) == (0, None, True)


def test_cost_is_compared_only_if_all_costs_of_both_periods_are_known() -> None:
    paid, before = {"engagements": 10, "cpe": 3.0}, {"engagements": 10, "cpe": 2.0}
    known = [on(2, post_id=1, **paid), on(8, post_id=2, **before)]
    (found,) = rows(report_of(world_with(*known)), "results", time_window="7d", instance_id=None)
    assert (found["cost"], found["previous_cost"], found["is_cost_known"]) == (30, 20, True)
    # A post of the period before without a cost.
    unknown = [*known, on(9, post_id=3, engagements=1)]
    (found,) = rows(report_of(world_with(*unknown)), "results", time_window="7d", instance_id=None)
    assert (found["cost"], found["previous_cost"], found["is_cost_known"]) == (30, None, True)
    assert (found["content_cost_per_engagement"], found["content_cost_per_engagement_posts"]) == (None, 0)  # too young
