"""What is known about campaigns in the rows of organic_paid_by_campaign; the values equal the slow reference."""

from datetime import timedelta
from pathlib import Path

import pytest

from later_reporting_dagster.lake import Lake, Partition, posts_table
from later_reporting_dagster.rollups import lake_rollups
from later_reporting_dagster.rollups.lake_rollups import WindowRollups, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN, BY_CREATOR, BY_PLATFORM
from tests.rollups.conftest import Row, posts_of, row
from tests.rollups.reference import CAMPAIGN_RATES, CAMPAIGN_SUMS, World
from tests.rollups.worlds import NEWEST, campaign, differences, performance, rolled_up, write_campaigns

RESULTS = ("campaign_days", *CAMPAIGN_SUMS, *CAMPAIGN_RATES)
BASES = ("performance_date", "post_date")


def week_of(world: World, basis: str = "performance_date") -> dict[tuple[str, int], Row]:
    """Return the rows of the last 7 days by instance and campaign, after checking all tables against the reference."""
    found = rolled_up(world)
    assert differences(found, world) == []
    rows = found[BY_CAMPAIGN.name].to_pylist()
    of_week = [each for each in rows if (each["window"], each["date_basis"]) == ("7d", basis)]
    return {(each["instance_id"], each["campaign_id"]): each for each in of_week}


def world_of_posts(*campaigns: tuple[str, int], **tables: object) -> World:
    """Return a world with a post of each campaign on the newest day."""
    files: dict[tuple[object, str], list[Row]] = {}
    for number, (instance_id, campaign_id) in enumerate(campaigns):
        post = row(instance_id=instance_id, campaign_id=campaign_id, post_id=number, impressions=1)
        files.setdefault((NEWEST, instance_id), []).append(post)
    return World(files, files, **tables)  # type: ignore[arg-type]


def test_spend_and_return_are_in_rows_by_performance_date_and_names_in_all() -> None:
    days = {
        NEWEST: [performance(paid_ad_spend=10.0, paid_clicks=4, paid_return_on_ad_spend=3.0)],
        NEWEST - timedelta(days=2): [],
        NEWEST - timedelta(days=8): [performance(paid_ad_spend=90.0)],
    }
    world = world_of_posts(
        ("a", 1), campaigns=[campaign(campaign_name="Spring & <b>", status="draft")], performance=days
    )
    by_basis = {basis: week_of(world, basis)["a", 1] for basis in BASES}
    for found in by_basis.values():
        assert (found["campaign_name"], found["campaign_status"]) == ("Spring & <b>", "draft")
    recorded = by_basis["performance_date"]
    assert (recorded["campaign_days"], recorded["paid_ad_spend"], recorded["cost_per_click"]) == (2, 10.0, 2.5)
    assert (recorded["paid_return_on_ad_spend"], recorded["paid_cost"]) == (3.0, None)
    assert {by_basis["post_date"][name] for name in RESULTS} == {None}


@pytest.mark.parametrize("where", ["posts", "campaigns"])
def test_performance_of_a_campaign_id_of_two_instances_is_not_attributed(where: str) -> None:
    shared = [("a", 1), ("b", 1)] if where == "posts" else [("a", 1)]
    known = [campaign(campaign_name="A"), campaign(instance_id="b", campaign_name="B")]
    world = world_of_posts(
        *shared,
        ("a", 2),
        campaigns=known[: 1 if where == "posts" else 2],
        performance={NEWEST: [performance(paid_ad_spend=5.0), performance(campaign_id=2, paid_ad_spend=6.0)]},
    )
    found = week_of(world)
    assert found["a", 1]["campaign_name"] == "A"
    assert [found["a", 1][name] for name in RESULTS] == [None] * len(RESULTS)
    assert (found["a", 2]["paid_ad_spend"], found["a", 2]["campaign_name"]) == (6.0, None)


def test_performance_of_a_campaign_without_rows_is_null_and_its_days_are_counted() -> None:
    world = world_of_posts(("a", 1), performance={NEWEST: [performance(campaign_id=9, paid_ad_spend=1.0)]})
    found = week_of(world)["a", 1]
    assert [found[name] for name in RESULTS] == [1, *[None] * (len(RESULTS) - 1)]


def test_measured_zeros_are_zero() -> None:
    zeros = dict.fromkeys(CAMPAIGN_SUMS, 0) | {"paid_return_on_ad_spend": 2.0}
    found = week_of(world_of_posts(("a", 1), performance={NEWEST: [performance(**zeros)]}))["a", 1]
    assert {found[name] for name in CAMPAIGN_SUMS} == {0}
    assert {found[name] for name in CAMPAIGN_RATES} == {None}


def test_tables_of_campaigns_are_optional() -> None:
    found = week_of(world_of_posts(("a", 1)))["a", 1]
    assert (found["campaign_name"], found["campaign_status"], found["campaign_days"]) == (None, None, 0)
    assert {found[name] for name in RESULTS[1:]} == {None}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with one post, its campaign, and two days of performance."""
    lake = Lake(str(tmp_path))
    for table in ("post_metrics_daily", "posts_published"):
        lake.write(table, Partition(NEWEST, "a"), posts_of(row()))
    days = {NEWEST - timedelta(days=age): [performance(paid_ad_spend=10.0 + age)] for age in (0, 1)}
    write_campaigns(lake, World({}, {}, campaigns=[campaign()], performance=days), rng=None)
    return lake


def rolled(lake: Lake) -> tuple[WindowRollups, Row]:
    windows = roll_up_lake_windows(lake, [BY_CAMPAIGN, BY_CREATOR], memory_gb=1)
    rows = windows.tables[BY_CAMPAIGN.name].to_pylist()
    (found,) = [each for each in rows if (each["window"], each["date_basis"]) == ("7d", "performance_date")]
    return windows, found


def test_unreadable_day_of_performance_is_skipped(lake: Lake) -> None:
    _, before = rolled(lake)
    assert (before["campaign_days"], before["paid_ad_spend"]) == (2, 21.0)
    Path(lake.url("campaign_performance_daily", Partition(NEWEST))).write_bytes(b"no Parquet")
    windows, found = rolled(lake)
    assert (found["campaign_days"], found["paid_ad_spend"], found["campaign_name"]) == (1, 11.0, "Spring")
    assert [*windows.contents.unreadable["campaign_performance_daily"]] == [Partition(NEWEST)]
    assert windows.differences == {BY_CAMPAIGN.name: [], BY_CREATOR.name: []}


def test_unreadable_table_of_campaigns_is_skipped(lake: Lake) -> None:
    Path(lake.root, "campaigns", "part-0.parquet").write_bytes(b"no Parquet")
    windows, found = rolled(lake)
    assert windows.campaigns is not None
    assert "is damaged" in windows.campaigns.error
    assert (found["campaign_name"], found["paid_ad_spend"]) == (None, 21.0)


def test_other_tables_do_not_read_the_tables_of_campaigns(lake: Lake) -> None:
    Path(lake.url("campaign_performance_daily", Partition(NEWEST))).write_bytes(b"no Parquet")
    windows = roll_up_lake_windows(lake, [BY_CREATOR, BY_PLATFORM], memory_gb=1)
    assert windows.campaigns is None
    assert windows.contents.partitions.keys() == {"post_metrics_daily", "posts_published"}


def test_campaigns_are_read_with_all_instances_if_instances_are_read_in_batches(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for instance_id in ("b", "c"):
        for table in ("post_metrics_daily", "posts_published"):
            other = posts_of(row(instance_id=instance_id, campaign_id=1 if instance_id == "b" else 3))
            lake.write(table, Partition(NEWEST, instance_id), other)
    lake.write("post_metrics_daily", Partition(NEWEST, "d"), posts_table([]))
    monkeypatch.setattr(lake_rollups, "_FILE_BYTES_PER_MEMORY_GB_FOR_WINDOWS", 1)
    windows = roll_up_lake_windows(lake, [BY_CAMPAIGN], memory_gb=1)
    rows = windows.tables[BY_CAMPAIGN.name].to_pylist()
    of_week = [each for each in rows if (each["window"], each["date_basis"]) == ("7d", "performance_date")]
    days = {each["instance_id"]: each["campaign_days"] for each in of_week}
    assert days == {"a": None, "b": None, "c": 2}
