"""Rolling up the tables of a lake: unreadable files, and too little memory."""

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.tables import POSTS_NAMES
from later_reporting_dagster.quality.outdated import outdated
from later_reporting_dagster.rollups import sql_engine
from later_reporting_dagster.rollups.lake_rollups import WindowRollups, roll_up_lake_periods, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN, CAMPAIGN_RESULTS, CAMPAIGN_TABLES, WEEKLY
from later_reporting_dagster.rollups.sql_engine import RollupFailed
from tests.rollups.conftest import posts_of, row
from tests.rollups.reference import World
from tests.rollups.worlds import NEWEST, campaign, month, period, write_campaigns

WEEK = date(2024, 1, 1)
DAYS = [date(2024, 1, number) for number in (1, 2, 3)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with three days of one instance, and their week."""
    lake = Lake(str(tmp_path))
    for day in DAYS:
        for table in ("post_metrics_daily", "posts_published"):
            lake.write(table, Partition(day, "a"), posts_of(row(impressions=1)))
    (rollup,) = roll_up_lake_periods(lake, WEEKLY, [WEEK], memory_gb=1)
    assert rollup.rows is not None
    lake.write(WEEKLY.name, Partition(WEEK), rollup.rows)
    return lake


def test_memory_limit_is_named(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any, **__: Any) -> Any:
        raise duckdb.OutOfMemoryException("no memory left")

    monkeypatch.setattr(sql_engine, "_query", out_of_memory)
    for run in (
        lambda: list(roll_up_lake_periods(lake, WEEKLY, [WEEK], memory_gb=1)),
        lambda: roll_up_lake_windows(lake, [BY_CAMPAIGN], memory_gb=1),
    ):
        with pytest.raises(RollupFailed, match="LATER_MEMORY_GB.*Next step"):
            run()


def damage(lake: Lake, url: str) -> WindowRollups:
    """Damage a file, and roll up the windows that campaigns are read for."""
    Path(url).write_bytes(b"no Parquet")
    return roll_up_lake_windows(lake, [BY_CAMPAIGN, CAMPAIGN_RESULTS], memory_gb=1)


def results_of_week(windows: WindowRollups) -> list[tuple[object, ...]]:
    rows = [each for each in windows.tables[CAMPAIGN_RESULTS.name].to_pylist() if each["time_window"] == "7d"]
    return [(each["last_day"], each["ad_spend"], each["campaign_name"]) for each in rows]


def test_campaigns_that_are_not_listed_have_the_instance_that_the_api_or_their_posts_name(lake: Lake) -> None:
    named = [
        period("7d", campaign_id=number, extra=f'{{"instanceId": "{name}"}}') for number, name in ((2, "b"), (3, "c"))
    ]
    write_campaigns(lake, World({}, {}, periods=[period("7d"), *named]), rng=None)
    lake.retired.add("c")
    windows = roll_up_lake_windows(lake, [CAMPAIGN_RESULTS], memory_gb=1)
    found = windows.tables[CAMPAIGN_RESULTS.name].select(["campaign_id", "instance_id"]).to_pylist()
    assert [(each["campaign_id"], each["instance_id"]) for each in found] == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("table", POSTS_NAMES)
def test_tables_of_campaigns_are_outdated_when_posts_say_whose_a_campaign_is(table: str, lake: Lake) -> None:
    def outdated_tables() -> dict[str, str]:
        files = outdated(lake, CAMPAIGN_TABLES, start_date=DAYS[0], newest_day=DAYS[-1])
        return {file.table: file.reason for file in files}

    def roll_up() -> set[object]:
        windows = roll_up_lake_windows(lake, CAMPAIGN_TABLES, memory_gb=1)
        for name, rows in windows.tables.items():
            made_from = windows.made_from[name].key_values
            lake.write_table(name, rows, metadata=made_from, replaces_metadata=True)
        return {row["instance_id"] for rows in windows.tables.values() for row in rows.to_pylist()}

    periods = [period("7d", campaign_id=2), month(DAYS[0], is_recorded=True, campaign_id=2)]
    write_campaigns(lake, World({}, {}, periods=periods), rng=None)
    assert roll_up() == {None}
    assert outdated_tables() == {}
    lake.write(table, Partition(DAYS[0], "b"), posts_of(row(instance_id="b", campaign_id=2, impressions=1)))
    assert outdated_tables() == dict.fromkeys(["campaign_results", "campaigns_monthly"], "made from other files")
    assert roll_up() == {"b"}
    assert outdated_tables() == {}


def test_unreadable_files_of_campaigns_are_skipped(lake: Lake) -> None:
    write_campaigns(lake, World({}, {}, campaigns=[campaign()], periods=[period("7d", paid_ad_spend=3.0)]), rng=None)
    windows = roll_up_lake_windows(lake, [CAMPAIGN_RESULTS], memory_gb=1)
    assert results_of_week(windows) == [(NEWEST, 3.0, "Spring")]
    windows = damage(lake, f"{lake.root}/campaigns/part-0.parquet")
    assert "is damaged" in windows.unreadable_campaigns
    assert results_of_week(windows) == [(NEWEST, 3.0, None)]
    assert {row["campaign_name"] for row in windows.tables[BY_CAMPAIGN.name].to_pylist()} == {None}
    windows = damage(lake, f"{lake.root}/campaign_performance_periods/part-0.parquet")
    assert "is damaged" in windows.unreadable_periods
    assert windows.tables.keys() == {BY_CAMPAIGN.name}
