"""Rollups equal the slow reference in hand-made and random worlds, and have the same bytes in any order."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import cycle
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from later_reporting_dagster.contract import CAMPAIGN_METRICS, DEFAULT_METRICS, METRICS, parse_metrics
from later_reporting_dagster.lake import Partition, schema_of
from later_reporting_dagster.lake.parquet_file import content_hash_of
from later_reporting_dagster.rollups import templates
from later_reporting_dagster.rollups.rollup_tables import OVERALL, POST_TABLES, TABLES
from later_reporting_dagster.rollups.sql_engine import facts_sql, register_stored_files, roll_up
from tests.rollups.conftest import Row, row
from tests.rollups.reference import Files, World, windows_of
from tests.rollups.worlds import NEWEST, Shape, differences, metrics_of, open_world, performance, rolled_up, world_of

BY_CAMPAIGN, BY_CREATOR, BY_PLATFORM = (f"organic_paid_by_{name}" for name in ("campaign", "creator", "platform"))
SELECTIONS = [
    DEFAULT_METRICS,
    METRICS,
    (*DEFAULT_METRICS, *parse_metrics("paid_views, reach")),
    (*DEFAULT_METRICS, *parse_metrics("views, paid_views, video_view_total_time")),
]
SHAPES = st.builds(
    Shape,
    days=st.sampled_from([1, 2, 14, 24]),
    maximum_gap=st.sampled_from([1, 1, 1, 3, 60]),
    posts=st.sampled_from([0, 1, 10, 30]),
    instances=st.sampled_from([("a",), ("a", "007"), ("b/ä %", "a")]),
    largest=st.sampled_from([3, 50_000]),
    nulls=st.sampled_from([0.05, 0.5]),
    missing=st.sampled_from([0, 0.02, 0.3]),
    several=st.sampled_from([0, 0.5]),
    moved=st.sampled_from([0, 0.3]),
    one_sided=st.sampled_from([0, 0.5, 1]),
    contradictory=st.sampled_from([0, 0.3]),
    corrected=st.sampled_from([0, 0.4]),
    creators=st.sampled_from([0, 1, 3, 12]),
    recorded_lags=st.sampled_from([0, 0, 0, 1, -1, 30]),
    metrics=st.sampled_from(SELECTIONS),
    campaign_tables=st.sampled_from([True, True, False]),
)


def published_of(*posts: Row, day: date = NEWEST, recorded: bool = True) -> World:
    """Return a world of one day and instance, on which posts were published and all their results recorded."""
    rows = [row(**{"post_id": number, "post_date": at(day), **post}) for number, post in enumerate(posts)]
    files = {(day, "a"): rows}
    return World(files if recorded else {}, files)


def at(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def checked(world: World) -> dict[str, pa.Table]:
    """Return the rollups of a world, after checking their values against the reference, and their schemas."""
    found = rolled_up(world)
    assert differences(found, world) == []
    for table in TABLES:
        dictionary = schema_of(table.with_metrics(metrics_of(world)).columns)
        rolled = found[table.name]
        of_partition = ["first_day"] if table.table.is_partitioned else []
        assert rolled.drop_columns(of_partition).schema.equals(dictionary)
        assert not [field.name for field in dictionary if not field.nullable and rolled[field.name].null_count]
    return found


def in_all(found: dict[str, pa.Table], table: str = BY_CAMPAIGN) -> list[Row]:
    """Return the rows of the longest window, of one instance each."""
    return [each for each in found[table].to_pylist() if (each["time_window"], each["scope"]) == ("730d", "instance")]


@settings(max_examples=6)
@given(SHAPES, st.integers(0, 2**32))
def test_rollups_of_random_worlds_equal_the_reference(shape: Shape, seed: int) -> None:
    checked(world_of(shape, seed))


@pytest.mark.parametrize(
    "shape",
    [
        Shape(largest=10**11, contradictory=0, posts=30),
        Shape(days=30, maximum_gap=60, posts=20),  # more than 730 days
        Shape(days=70, posts=40, missing=0),  # two whole months before the newest day
        Shape(days=40, posts=80, nulls=0.05, missing=0, several=0.3, moved=0.02, creators=20, corrected=0.1),
    ],
    ids=["large counts", "years", "whole months", "many creators"],
)
def test_rollups_of_larger_worlds_equal_the_reference(shape: Shape) -> None:
    checked(world_of(shape, seed=1))


def test_rollups_of_an_empty_lake_have_no_rows() -> None:
    assert all(table.num_rows == 0 for table in checked(World({}, {})).values())


def test_posts_of_several_campaigns_count_once_if_the_table_is_not_of_campaigns() -> None:
    same = {"post_id": 1, "creator_id": 7, "impressions": 100, "engagements": 5, "cpe": 2.0}
    found = checked(published_of({**same, "campaign_id": 1}, {**same, "campaign_id": 2}))
    assert [each["organic_impressions"] for each in in_all(found)] == [100, 100]
    assert [each["organic_impressions"] for each in found["organic_paid_daily_by_campaign"].to_pylist()] == [100, 100]
    for table in (BY_CREATOR, BY_PLATFORM):
        (group,) = in_all(found, table)
        assert (group["posts"], group["organic_impressions"]) == (1, 100)
    (post,) = found["posts"].to_pylist()
    assert (post["campaign_ids"], post["content_cost"]) == ([1, 2], 10)


def test_rows_of_a_post_that_disagree_on_its_cost_make_it_unknown() -> None:
    same = {"post_id": 1, "impressions": 100, "engagements": 5}
    found = checked(published_of({**same, "campaign_id": 1, "cpe": 2.0}, {**same, "campaign_id": 2, "cpe": 3.0}))
    (post,) = found["posts"].to_pylist()
    assert (post["content_cost"], post["content_cost_low"]) == (None, None)


def test_a_group_without_posts_in_a_complete_period_before_had_none_and_no_results() -> None:
    files: dict[tuple[date, str], list[Row]] = {(NEWEST - timedelta(days=number), "a"): [] for number in range(14)}
    files[NEWEST, "a"] = [row(post_date=at(NEWEST), impressions=10)]
    found = checked(World(files, {}))["organic_paid_overall"].to_pylist()
    before = {each["time_window"]: (each["previous_posts"], each["previous_organic_impressions"]) for each in found}
    assert (before["7d"], before["28d"]) == ((0, None), (None, None))


def test_campaigns_that_disagree_on_the_ad_spend_of_a_post_make_it_unknown() -> None:
    same = {"paid_impressions": 100, "paid_engagements": 5}
    of_campaigns = [{**same, "post_id": 1, "campaign_id": 1, "paid_cpe": 2.0}]
    of_campaigns += [{**same, "post_id": 1, "campaign_id": 2, "paid_cpe": 3.0}]
    found = checked(published_of(*of_campaigns, {**same, "post_id": 2, "campaign_id": 3, "paid_cpe": 4.0}))
    assert [post["ad_spend"] for post in found["posts"].to_pylist()] == [None, 20]
    assert [each["ad_spend"] for each in in_all(found)] == [10, 15, 20]
    (day,) = found["organic_paid_daily"].to_pylist()
    names = ("ad_spend", "ad_spend_with_paid_engagements", "paid_engagements_with_ad_spend", "ad_spend_per_engagement")
    assert (day["paid_engagements"], *(day[name] for name in names)) == (10, 20, 20, 5, 4)


def test_paid_cpm_has_only_posts_with_both_parts_and_paid_posts_have_impressions() -> None:
    found = checked(
        published_of(
            {"paid_impressions": 1_000, "paid_cpm": 20.0},
            {"paid_impressions": 3_000},  # without a cost
            {"paid_engagements": 10, "paid_cpe": 4.0},  # without impressions
            {"paid_impressions": 0},
        )
    )
    (group,) = in_all(found, BY_PLATFORM)
    assert (group["ad_spend"], group["paid_impressions"]) == (60, 4_000)
    assert (group["ad_spend_with_paid_impressions"], group["paid_impressions_with_ad_spend"]) == (20, 1_000)
    assert (group["paid_cpm"], group["paid_posts"], group["paid_impressions_posts"]) == (20, 2, 3)


def test_cost_of_a_young_post_is_not_divided_by_its_results() -> None:
    files: dict[tuple[date, str], list[Row]] = {}
    for age in (13, 14):
        day = NEWEST - timedelta(days=age)
        files[day, "a"] = [row(post_id=age, post_date=at(day), engagements=5, cpe=2.0)]
    found = checked(World({(NEWEST, "a"): []}, files))["posts"].to_pylist()
    assert [(post["content_cost"], post["content_cost_per_engagement"]) for post in found] == [(10, None), (10, 2)]


def test_peak_of_a_post_is_the_first_day_with_the_most_paid_impressions() -> None:
    days = [NEWEST - timedelta(days=age) for age in (3, 2, 1, 0)]
    paid = dict(zip(days, (4, 9, 9, 5), strict=True))
    files = {(day, "a"): [row(post_date=at(days[0]), paid_impressions=count)] for day, count in paid.items()}
    (post,) = checked(World(files, {}))["posts"].to_pylist()
    assert (post["peak_paid_day"], post["peak_paid_impressions"]) == (days[1], 9)


def both(organic: tuple[Any, Any], paid: tuple[Any, Any], **fields: Any) -> Row:
    """Return a post from the engagements and impressions of each channel."""
    return {
        **{"engagements": organic[0], "impressions": organic[1]},
        **{"paid_engagements": paid[0], "paid_impressions": paid[1]},
        **fields,
    }


# One campaign for each case, because a rollup of many costs as much as one of a few posts.
OF_20 = [both((3, 100), (n % 5 + 1, 100), creator_id=n % 5) for n in range(20)]
SAME_POSTS = {
    "20 posts of 5 creators": OF_20,
    "19 posts": OF_20[:19],
    "4 creators": [post | {"creator_id": n % 4} for n, post in enumerate(OF_20)],
    "posts without creator": [post | {"creator_id": n if n < 3 else None} for n, post in enumerate(OF_20, 1)],
    "without organic engagements": [post | {"engagements": 0} for post in OF_20],
    "with posts in one or no rate": [
        *OF_20,
        *(both((None, None), (5 + n, 0), creator_id=20 + n) for n in range(4)),
        *(both((7, 0), (9, 0), creator_id=n) for n in range(8)),
    ],
}


@pytest.fixture(scope="module")
def same_posts() -> dict[str, Row]:
    """The results of each campaign of `SAME_POSTS`, all of whose rollups equal the reference."""
    posts = [post | {"campaign_id": number} for number, of in enumerate(SAME_POSTS.values()) for post in of]
    return dict(zip(SAME_POSTS, in_all(checked(published_of(*posts))), strict=True))


def test_same_post_rate_ratio_needs_20_posts_of_5_creators(same_posts: dict[str, Row]) -> None:
    names = ("same_posts", "same_posts_paid_higher", "same_post_rate_ratio")
    assert {case: tuple(group[name] for name in names) for case, group in same_posts.items()} == {
        "20 posts of 5 creators": (20, 8, 1),
        "19 posts": (19, None, None),
        "4 creators": (20, None, None),
        "posts without creator": (20, 8, 1),
        "without organic engagements": (20, 20, None),
        "with posts in one or no rate": (20, 8, 1),
    }


def test_windows_of_each_day_equal_the_reference() -> None:
    with duckdb.connect() as connection:
        for newest in (date(2023, 12, 25) + timedelta(days=number) for number in range(500)):
            register_stored_files(connection, {"post_metrics_daily": [Partition(newest, "a")]})
            connection.execute(facts_sql(OVERALL)["window_periods"]).fetchall()
            found: dict[str, list[tuple[date, date]]] = {}
            ordered = "SELECT time_window, first_day, last_day FROM periods ORDER BY time_window, is_previous"
            for window, *days in connection.sql(ordered).fetchall():
                found.setdefault(window, []).append((days[0], days[1]))
            assert {window: tuple(periods) for window, periods in found.items()} == windows_of(newest)


def test_rows_without_impressions_are_in_no_rate(same_posts: dict[str, Row]) -> None:
    without, group = same_posts["20 posts of 5 creators"], same_posts["with posts in one or no rate"]
    assert (without["organic_engagements"], group["organic_engagements"]) == (60, 116)
    names = [name for name in group if "rate" in name and not name.startswith("previous_")]
    assert {name: group[name] for name in names} == {name: without[name] for name in names}


def test_corrections_of_earlier_days_are_in_the_rates() -> None:
    """A day on which a network takes counts back is in the rate; a sum that is not above 0 divides nothing."""
    later, newest = NEWEST - timedelta(days=1), NEWEST
    posts = [
        ({"campaign_id": 1}, both((20, 1000), (8, 100)), both((-10, -200), (-4, -20))),
        ({"campaign_id": 2}, both((20, 1000), (8, 100)), both((-10, -1000), (-4, -200))),
    ]
    named = [fields | {"post_id": number, "post_date": at(later)} for number, (fields, *_) in enumerate(posts)]
    days = {
        (later, "a"): [row(**name, **first) for name, (_, first, _) in zip(named, posts, strict=True)],
        (newest, "a"): [row(**name, **second) for name, (_, _, second) in zip(named, posts, strict=True)],
    }
    half, nothing = in_all(checked(World(days, {})))
    names = ("organic_engagement_rate", "paid_engagement_rate", "rate_ratio", "same_posts")
    assert [half[name] for name in names] == [1.25, 5, 4, 1]
    assert [nothing[name] for name in names] == [None, None, None, 0]
    assert nothing["paid_share_of_impressions"] is None


def posts_by_age(*, days_of_world: int = 20, missing: date | None = None, maximum_peers: int = 1000) -> World:
    """Return a world of 90 posts of two instances, most in one content type."""
    rng = random.Random(4)
    days = [NEWEST - timedelta(days=number) for number in range(days_of_world)]
    files: list[dict[tuple[date, str], list[Row]]]
    files = [{(day, name): [] for day in days for name in ("a", "b") if (day, name) != (missing, "b")} for _ in (0, 1)]
    for number in range(90):
        published = days[rng.choice([2, 6, rng.randint(0, days_of_world - 1)])]
        named = {
            "instance_id": rng.choice("ab"),
            "post_id": rng.choice([number, 10**12 + number]),
            "creator_id": number,
        }
        post = named | {"post_date": at(published), "content_type": rng.choice(["reel", "reel", "reel", None])}
        for day in [published, *(each for each in days if each > published and rng.random() < 0.3)]:
            for campaign_id in rng.choice([[1], [1], [2], [2, 1]]):
                results = [rng.choice([(2, 90), (1, 90), (rng.randint(0, 50), 400), (None, 9)]) for _ in (0, 1)]
                for of_table in files if day == published else files[:1]:
                    if (day, post["instance_id"]) in of_table:
                        of_table[day, post["instance_id"]].append(
                            row(**post, campaign_id=campaign_id, **both(*results))
                        )
    return World(files[0], files[1], maximum_peers=maximum_peers)


@pytest.mark.parametrize("maximum_peers", [1000, 40])
def test_posts_are_ranked_among_those_of_the_same_age(maximum_peers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(templates.CONSTANTS, "maximum_peers", maximum_peers)
    world = posts_by_age(missing=NEWEST - timedelta(days=4), maximum_peers=maximum_peers)
    with open_world(world) as database:
        found = roll_up(database.connection, POST_TABLES)
    assert differences(found, world) == []
    ranked = [row for row in found["posts"].to_pylist() if row["organic_impressions_percentile"] is not None]
    assert len(ranked) >= 20
    assert {row["instance_id"] for row in ranked if row["age"] < 4} == {"a", "b"}
    assert not [row for row in ranked if row["age"] >= 4 and row["instance_id"] == "b"]


def test_shares_by_age_are_of_a_sample_of_the_posts_that_reached_day_28(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(templates.CONSTANTS, "maximum_peers", 10)
    world = posts_by_age(days_of_world=60, maximum_peers=10)
    with open_world(world) as database:
        found = roll_up(database.connection, POST_TABLES)
    assert differences(found, world) == []
    assert max(row["posts"] for row in found["organic_by_age"].to_pylist()) >= 5  # of all posts, 10 in 68 are peers


def test_costs_are_the_middle_of_both_unit_costs_and_contradictions_are_unknown() -> None:
    bounded = {"impressions": 8500, "engagements": 1240, "cpm": 35.29, "cpe": 0.24}
    contradictory = {"impressions": 1000, "engagements": 10, "cpm": 5.0, "cpe": 9.0}
    found = checked(published_of(bounded, contradictory, {"impressions": 0, "cpm": 1.0}))
    costs = [(post["content_cost_low"], post["content_cost_high"]) for post in found["posts"].to_pylist()]
    assert costs == [(pytest.approx(299.9225), pytest.approx(300.0075)), (None, None), (None, None)]
    paid = {f"paid_{name}": value for name, value in bounded.items()}
    (day,) = checked(published_of(paid, {"paid_impressions": 0}))["organic_paid_daily"].to_pylist()
    assert (day["ad_spend"], day["ad_spend_posts"], day["posts"]) == (pytest.approx(299.965), 1, 2)


def test_absurd_rows_are_left_out() -> None:
    """A stored row with a value above the limit of its metric, as the parser once accepted it, changes nothing."""
    world = world_of(Shape(days=20, posts=60, metrics=METRICS), seed=11)
    absurd: dict[str, list[float]] = {
        "count": [10**11 + 1, 2**63 - 1],
        "money": [2e12, -2e12, math.inf, math.nan],
        "time": [1e16],
    }
    summed = [metric for metric in METRICS if metric.kind.adds_up_over_days]
    fields = cycle({metric.column: value} for metric in summed for value in absurd[metric.kind])

    def with_absurd(files: Files) -> Files:
        return {
            (day, name): [*rows, row(post_id=1000, instance_id=name, post_date=at(day), **next(fields))]
            for (day, name), rows in files.items()
        }

    days = {
        day: [*rows, performance(campaign_id=77, paid_ad_spend=2e12), performance(campaign_id=1, paid_clicks=2**62)]
        for day, rows in world.performance.items()
    }
    absurd_files = {"recorded": with_absurd(world.recorded), "published": with_absurd(world.published)}
    stored = replace(world, **absurd_files, performance=days)
    assert differences(rolled_up(stored), world) == []


@pytest.fixture(scope="module")
def world() -> World:
    """A random world with large counts and many creators."""
    return world_of(Shape(days=60, posts=250, missing=0.02, creators=30, largest=2**33, contradictory=0), seed=3)


@pytest.fixture(scope="module")
def hashes(world: World) -> dict[str, str]:
    return {name: content_hash_of(table) for name, table in rolled_up(world, threads=1).items()}


@pytest.mark.parametrize("threads", [2, 8])
def test_rollups_have_the_same_bytes_in_any_order(world: World, hashes: dict[str, str], threads: int) -> None:
    found = rolled_up(world, threads=threads, files=random.Random(threads))
    assert {name: content_hash_of(table) for name, table in found.items()} == hashes


def test_values_that_do_not_add_up_change_nothing() -> None:
    """In daily files, also of campaigns. Paid unit costs are left: they imply ad spend, which is money of a day."""
    world = world_of(Shape(days=40, posts=60, metrics=METRICS, creators=6), seed=2)
    paid_costs = {"paid_cpe", "paid_cpm"}
    names = {metric.column for metric in METRICS if not metric.kind.adds_up_over_days} - paid_costs
    of_campaigns = {metric.column for metric in CAMPAIGN_METRICS if not metric.kind.adds_up_over_days}

    def changed(rows: Sequence[Row], columns: set[str]) -> list[Row]:
        return [row | {name: 77 + 3 * (row[name] or 0) for name in columns} for row in rows]

    other = replace(
        world,
        recorded={key: changed(rows, names) for key, rows in world.recorded.items()},
        performance={day: changed(rows, of_campaigns) for day, rows in world.performance.items()},
    )
    found, same = ({name: content_hash_of(rows) for name, rows in rolled_up(each).items()} for each in (world, other))
    assert found == same
