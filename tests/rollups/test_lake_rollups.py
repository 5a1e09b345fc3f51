"""Rolling up and checking the tables of a lake: unreadable files, and errors while results are checked."""

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.rollups import reconciliation
from later_reporting_dagster.rollups.lake_rollups import check_lake_periods, roll_up_lake_periods, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN, WEEKLY
from later_reporting_dagster.rollups.sql_engine import RollupFailed
from tests.rollups.conftest import posts_of, row

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
    assert check_lake_periods(lake, WEEKLY, [WEEK], memory_gb=1) == {}
    return lake


def test_check_names_all_unreadable_files_and_differences_of_a_partition(lake: Lake) -> None:
    locations = [lake.url("post_metrics_daily", Partition(day, "a")) for day in DAYS[:2]]
    for location in locations:
        Path(location).write_bytes(b"no Parquet")
    sentences = check_lake_periods(lake, WEEKLY, [WEEK], memory_gb=1)[WEEK]
    for location, sentence in zip(locations, sentences[:2], strict=True):
        assert sentence.startswith(f"{location} is damaged")
    assert sentences[2:] == ["organic_impressions is 1 in the raw rows and 3 in the rollup"]


def test_memory_limit_during_the_checks_is_named(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: Any, **__: Any) -> Any:
        raise duckdb.OutOfMemoryException("no memory left")

    for name in ("check_periods", "check_windows"):
        monkeypatch.setattr(reconciliation, name, out_of_memory)
    for run in (
        lambda: list(roll_up_lake_periods(lake, WEEKLY, [WEEK], memory_gb=1)),
        lambda: check_lake_periods(lake, WEEKLY, [WEEK], memory_gb=1),
        lambda: roll_up_lake_windows(lake, [BY_CAMPAIGN], memory_gb=1),
    ):
        with pytest.raises(RollupFailed, match="LATER_MEMORY_GB.*Next step"):
            run()
