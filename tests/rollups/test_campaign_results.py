"""The results of campaigns over date ranges equal the slow reference, in hand-made and in random worlds."""

import random
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN
from later_reporting_dagster.rollups.sql_engine import (
    create_macros_and_row_views,
    query_rows,
    render_text,
    translated_errors,
)
from tests.rollups.conftest import Row, row
from tests.rollups.reference import World, campaign_results, only_instance
from tests.rollups.worlds import NEWEST, agree, campaign, open_world, performance, random_performance

_SQL = """
{%- import "campaign_results.sql" as campaigns with context -%}
WITH {{ campaigns.campaign_results("date_ranges") }},
{{ campaigns.campaign_instances("posts_published") }}
"""
Ranges = Sequence[tuple[date, date]]


def found_in(world: World, ranges: Ranges, select: str, **options: Any) -> list[Row]:
    """Return the rows of a query after the common table expressions of campaign_results.sql."""
    numbered = [{"range_id": n, "first_day": first, "last_day": last} for n, (first, last) in enumerate(ranges)]
    schema = pa.schema({"range_id": pa.uint8(), "first_day": pa.date32(), "last_day": pa.date32()})
    with open_world(world, **options) as (database, stored), translated_errors():
        create_macros_and_row_views(database.connection, BY_CAMPAIGN, stored)
        database.connection.register("date_ranges", pa.Table.from_pylist(numbered, schema))
        return query_rows(database.connection, render_text(_SQL, BY_CAMPAIGN) + select)


def checked(world: World, ranges: Ranges, **options: Any) -> dict[tuple[int, int], Row]:
    """Return the results by range and campaign, after checking every value against the reference."""
    rows = found_in(world, ranges, "FROM campaign_results", **options)
    found = {(each.pop("range_id"), each.pop("campaign_id")): each for each in rows}
    assert len(found) == len(rows)
    expected = {
        (number, campaign_id): results
        for number, days in enumerate(ranges)
        for campaign_id, results in campaign_results(world, *days).items()
    }
    assert found.keys() == expected.keys()
    for key, results in expected.items():
        assert found[key].keys() == results.keys()
        wrong = [name for name, value in results.items() if not agree(value, _plain(found[key][name]), name)]
        assert not wrong, (key, wrong)
    return found


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int) else float(value)


def ranges_before(*lengths: int) -> Ranges:
    """Return the ranges of some lengths that end with the newest day."""
    return [(NEWEST - timedelta(days=length - 1), NEWEST) for length in lengths]


def random_world(seed: int, *, nulls: float = 0.3) -> World:
    """Return a world of campaigns only, with missing days and days without rows."""
    rng = random.Random(seed)
    days = [NEWEST - timedelta(days=age) for age in range(40) if rng.random() < 0.8]
    return World(
        {},
        {},
        performance={
            day: [random_performance(rng, each, nulls=nulls) for each in rng.sample(range(5), rng.randint(0, 5))]
            for day in days
        },
    )


@settings(max_examples=8)
@given(st.integers(0, 2**32), st.sampled_from([0, 0.3, 0.9]))
def test_campaign_results_of_random_worlds_equal_the_reference(seed: int, nulls: float) -> None:
    checked(random_world(seed, nulls=nulls), ranges_before(1, 7, 28, 400))


def test_campaign_results_are_the_same_with_more_threads_and_in_another_order() -> None:
    world, ranges = random_world(7), ranges_before(7, 28)
    once = checked(world, ranges, threads=1)
    assert checked(world, ranges, threads=4, files=random.Random(1)) == once


def test_campaign_results_are_null_where_no_day_reports_both_parts() -> None:
    days = {
        NEWEST: [performance(paid_ad_spend=5.0, estimated_content_cost=0.0, estimated_value_generated=3.0)],
        NEWEST - timedelta(days=1): [performance(paid_clicks=3, paid_return_on_ad_spend=2.0)],
    }
    (results,) = checked(World({}, {}, performance=days), ranges_before(7)).values()
    assert (results["paid_ad_spend"], results["paid_clicks"], results["days"]) == (5, 3, 2)
    assert [results[name] for name in ("cost_per_click", "paid_return_on_ad_spend", "estimated_roi")] == [None] * 3


def test_return_on_ad_spend_is_weighted_by_spend() -> None:
    reported = [(1.0, 90.0), (4.0, 10.0), (9.0, 0.0), (9.0, None), (None, 50.0)]
    days = {
        NEWEST - timedelta(days=age): [performance(paid_return_on_ad_spend=each, paid_ad_spend=spend)]
        for age, (each, spend) in enumerate(reported)
    }
    (results,) = checked(World({}, {}, performance=days), ranges_before(7)).values()
    assert (results["paid_return_on_ad_spend"], results["paid_ad_spend"]) == (1.3, 150)


def test_days_count_files_without_rows() -> None:
    world = World({}, {}, performance={NEWEST: [performance(paid_clicks=0)], NEWEST - timedelta(days=3): []})
    (results,) = checked(world, ranges_before(7)).values()
    assert (results["days"], results["paid_clicks"], results["cost_per_click"]) == (2, 0, None)
    before = (NEWEST - timedelta(days=9), NEWEST - timedelta(days=8))
    days = found_in(world, [*ranges_before(7), before], "SELECT days FROM campaign_range_days ORDER BY range_id")
    assert days == [{"days": 2}, {"days": 0}]


def test_campaigns_without_tables_have_no_results() -> None:
    assert checked(World({}, {}), ranges_before(7)) == {}


def test_campaign_instances_leaves_out_ids_of_several_instances() -> None:
    published = {(NEWEST, "a"): [row(campaign_id=1), row(campaign_id=2)], (NEWEST, "b"): [row(campaign_id=3)]}
    for (_, instance_id), rows in published.items():
        for each in rows:
            each["instance_id"] = instance_id
    dimension = [campaign(campaign_id=2, instance_id="b"), campaign(campaign_id=3, instance_id="b"), campaign()]
    world = World({}, published, campaigns=[*dimension, campaign(campaign_id=4, instance_id="b")])
    rows = found_in(world, [], "FROM campaign_instances ORDER BY campaign_id")
    assert [(each["campaign_id"], each["instance_id"]) for each in rows] == [(1, "a"), (3, "b"), (4, "b")]
    assert [only_instance(world, number) for number in (1, 2, 3, 4)] == ["a", None, "b", "b"]
