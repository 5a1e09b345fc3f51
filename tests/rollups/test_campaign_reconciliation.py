"""Campaigns are compared with their posts by day."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from later_reporting_dagster.contract import DEFAULT_METRICS, BadRow
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGN_PERIODS_TABLE, Lake, Partition
from later_reporting_dagster.rollups.raw_reconciliation import (
    CampaignReconciliation,
    reconcile_ad_spend,
    reconcile_campaigns,
)
from tests.rollups.conftest import Row, count_reads, in_parts, row
from tests.rollups.reference import World
from tests.rollups.worlds import NEWEST, Shape, campaign, performance, period, world_of, write, write_campaigns

METRICS = ("impressions", "engagements", "paid_impressions", "paid_engagements")


def reconciled(world: World, folder: Path) -> CampaignReconciliation:
    """Return the comparison of a world that is written to a new lake."""
    lake = Lake(str(folder / str(len([*folder.iterdir()]))))
    write(lake, "post_metrics_daily", world.recorded, DEFAULT_METRICS, rng=None)
    write_campaigns(lake, world, rng=None)
    return in_parts(lambda: reconcile_campaigns(lake, memory_gb=1))


def totals_of(posts: list[Row]) -> Row:
    """Return the totals of some posts, as the API would report them for their campaign."""
    values = {name: [post[name] for post in posts if post[name] is not None] for name in METRICS}
    return {name: sum(each) if each else None for name, each in values.items()}


def with_true_totals(world: World) -> World:
    """Return the world with the performance of the campaigns of each day that has posts of all instances."""
    days: dict[Any, list[Row]] = {}
    for day in sorted({day for day, _ in world.recorded}):
        posts = [post for (each, _), rows in world.recorded.items() if each == day for post in rows]
        ids = sorted({post["campaign_id"] for post in posts})
        days[day] = [
            performance(campaign_id=number, **totals_of([each for each in posts if each["campaign_id"] == number]))
            for number in ids
        ]
    return replace(world, performance=days)


def test_each_file_of_posts_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = with_true_totals(world_of(Shape(days=3, posts=10), seed=5))
    owners = {post["campaign_id"]: name for (_, name), rows in world.recorded.items() for post in rows}
    # Of campaigns that are not listed, posts say whose they are, and are read another time.
    listed = [campaign(campaign_id=number, instance_id=name) for number, name in owners.items()]
    world = replace(world, campaigns=listed)
    lake = Lake(str(tmp_path / "[lake]"))
    write(lake, "post_metrics_daily", world.recorded, DEFAULT_METRICS, rng=None)
    write_campaigns(lake, world, rng=None)
    reads = count_reads(lake, monkeypatch)
    assert reconcile_campaigns(lake, memory_gb=1).compared
    assert {count for path, count in reads.items() if path.startswith("post_metrics_daily/")} == {1}


def difference(day: date, campaign_id: int, metric: str, of_campaign: int, of_posts: int) -> Row:
    return {
        **{"date": day, "campaign_id": campaign_id, "metric": metric},
        **{"of_campaign": of_campaign, "of_posts": of_posts},
    }


def test_reconciliation_finds_only_the_campaign_with_altered_totals(tmp_path: Path) -> None:
    world = with_true_totals(world_of(Shape(days=8, posts=30, missing=0, nulls=0, largest=50_000), seed=5))
    found = reconciled(world, tmp_path)
    assert (found.differing, found.unknown, found.without_posts, found.examples) == (0, 0, 0, [])
    assert all(of_campaigns == of_posts for of_campaigns, of_posts in found.totals.values())
    altered = max(world.performance[NEWEST], key=lambda each: each["impressions"])
    true = altered["impressions"]
    altered["impressions"] = round(true * 1.009)
    assert reconciled(world, tmp_path).differing == 0
    altered["impressions"] = round(true * 1.011)
    found = reconciled(world, tmp_path)
    assert found.examples == [difference(NEWEST, altered["campaign_id"], "impressions", altered["impressions"], true)]
    assert (found.differing, found.differing_days) == (1, [NEWEST])
    of_campaigns, of_posts = found.totals["impressions"]
    assert of_posts < of_campaigns < 1.011 * of_posts + 1


def test_reconciliation_skips_what_cannot_be_compared(tmp_path: Path) -> None:
    before = NEWEST - timedelta(days=1)
    recorded = {(NEWEST, "a"): [row(impressions=100)], (before, "a"): [row(impressions=None)], (NEWEST, "b"): []}
    rows = [
        performance(impressions=None, engagements=5),  # null on either side
        performance(campaign_id=2, impressions=7),  # of its two instances, c has no file
        performance(campaign_id=3, impressions=7),  # unknown
        performance(campaign_id=4, impressions=7),  # no posts, in a file of its instance
    ]
    world = World(
        recorded,
        {},
        campaigns=[campaign(campaign_id=number, instance_id=name) for number, name in ((2, "b"), (2, "c"), (4, "b"))],
        performance={NEWEST: rows, before: [performance(impressions=0)], NEWEST - timedelta(days=5): rows[:1]},
    )
    found = reconciled(world, tmp_path)
    nothing = CampaignReconciliation(
        compared=0, differing=0, unknown=0, without_posts=0, totals={}, examples=[], differing_days=[]
    )
    assert found == replace(nothing, unknown=1, without_posts=2)


def test_reconciliation_skips_files_that_cannot_be_read(tmp_path: Path) -> None:
    before = NEWEST - timedelta(days=1)
    recorded = {(day, "a"): [row(impressions=100)] for day in (NEWEST, before)}
    lake = Lake(str(tmp_path))
    write(lake, "post_metrics_daily", recorded, DEFAULT_METRICS, rng=None)
    days = {day: [performance(impressions=100)] for day in (NEWEST, before, before - timedelta(days=1))}
    write_campaigns(lake, World({}, {}, campaigns=[campaign()], performance=days), rng=None)
    for url in (
        lake.url("post_metrics_daily", Partition(NEWEST, "a")),
        lake.url("campaign_performance_daily", Partition(before)),
        str(tmp_path / "campaigns" / "part-0.parquet"),
    ):
        Path(url).write_bytes(b"no Parquet")
    found = reconcile_campaigns(lake, memory_gb=1)
    assert (found.compared, found.differing, found.unreadable_files) == (0, 0, 3)


def spend_differences(folder: Path, periods: list[Row], *, days: int = 7, spend: float = 1.25) -> list[tuple[Any, ...]]:
    """Return which windows differ from days on each of which campaign 1 spent `spend`."""
    lake = Lake(str(folder / str(len([*folder.iterdir()]))))
    stored = {NEWEST - timedelta(days=number): [performance(paid_ad_spend=spend)] for number in range(days)}
    write_campaigns(lake, World({}, {}, performance=stored, periods=periods), rng=None)
    found = reconcile_ad_spend(lake, memory_gb=1)
    return [
        (each["period"], each["campaign_id"], each["of_window"], each["of_days"]) for each in found if each["differs"]
    ]


def test_ad_spend_of_windows_agrees_with_days_within_rounding(tmp_path: Path) -> None:
    assert spend_differences(tmp_path, [period("7d", paid_ad_spend=8.79)]) == []
    ((name, campaign_id, of_window, of_days),) = spend_differences(tmp_path, [period("7d", paid_ad_spend=8.80)])
    assert (name, campaign_id, float(of_window), float(of_days)) == ("7d", 1, 8.8, 8.75)
    assert len(spend_differences(tmp_path, [period("7d", paid_ad_spend=None)])) == 1
    assert len(spend_differences(tmp_path, [period("7d", campaign_id=2, paid_ad_spend=0.0)])) == 1
    assert spend_differences(tmp_path, [period("28d", paid_ad_spend=35.0)], days=28) == []


def test_ad_spend_is_compared_for_newest_windows_with_all_days(tmp_path: Path) -> None:
    before = NEWEST - timedelta(days=1)
    assert spend_differences(tmp_path, [period("7d", paid_ad_spend=1.0)], days=6) == []
    assert spend_differences(tmp_path, [period("90d", paid_ad_spend=1.0), period("previous_7d")], days=60) == []
    # Campaign 1 is of an instance that is no longer fetched.
    older = [period("7d", campaign_id=2), period("7d", paid_ad_spend=1.0, last_day=before)]
    assert spend_differences(tmp_path, older, days=8) == []


@pytest.mark.parametrize("day", [None, NEWEST])
@pytest.mark.parametrize(("raw", "compared"), [('{"campaignId": 1}', [2]), ('{"campaignId": "1.5"}', []), ("[]", [])])
def test_ad_spend_is_not_compared_if_a_row_of_it_is_in_quarantine(
    raw: str, compared: list[int], day: date | None, tmp_path: Path
) -> None:
    lake, stored = Lake(str(tmp_path)), period("7d", campaign_id=2, paid_ad_spend=1.0)
    spends = {1: 5.0, 2: 1.0} if day is None else {2: 1.0}
    rows = [performance(campaign_id=number, paid_ad_spend=spend) for number, spend in spends.items()]
    days = {NEWEST - timedelta(days=number): rows if not number else [] for number in range(7)}
    periods = [stored, *([] if day is None else [period("7d", paid_ad_spend=5.0)])]
    write_campaigns(lake, World({}, {}, performance=days, periods=periods), rng=None)
    assert [each["campaign_id"] for each in reconcile_ad_spend(lake, memory_gb=1) if each["differs"]] == [1]
    if day is None:
        path = lake.quarantine.path_of_query(CAMPAIGN_PERIODS_TABLE, "7d", (stored["first_day"], stored["last_day"]))
    else:
        path = lake.quarantine.path_of(CAMPAIGN_PERFORMANCE_TABLE, Partition(day))
    lake.quarantine.write(path, [BadRow(reason="paidAdSpend must not be negative", raw=raw)], query="")
    found = reconcile_ad_spend(lake, memory_gb=1)
    assert [(each["campaign_id"], each["differs"]) for each in found] == [(number, False) for number in compared]


def test_bad_row_of_one_window_leaves_the_other_compared(tmp_path: Path) -> None:
    lake, last_day = Lake(str(tmp_path)), NEWEST
    windows = [period(name, campaign_id=2, paid_ad_spend=0.0) for name in ("7d", "28d")]
    days = {last_day - timedelta(days=number): [performance(paid_ad_spend=1.0)] for number in range(28)}
    write_campaigns(lake, World({}, {}, performance=days, periods=windows), rng=None)
    path = lake.quarantine.path_of_query(CAMPAIGN_PERIODS_TABLE, "28d", (last_day - timedelta(days=27), last_day))
    lake.quarantine.write(path, [BadRow(reason="", raw='{"campaignId": 1}')], query="")
    found = reconcile_ad_spend(lake, memory_gb=1)
    assert {(each["period"], each["campaign_id"]) for each in found} == {("7d", 1), ("7d", 2), ("28d", 2)}
