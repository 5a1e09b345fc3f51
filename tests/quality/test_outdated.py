"""Which rollups are outdated: the lake says so, whatever happened to it."""

import os
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.contract import METRICS
from later_reporting_dagster.lake import Lake, Partition, schema_of
from later_reporting_dagster.lake.file_metadata import FileMetadata
from later_reporting_dagster.lake.parquet_file import parse_metadata
from later_reporting_dagster.quality.outdated import Footers, outdated, report_inputs
from later_reporting_dagster.report.report_data import REPORT, REPORT_FILE
from later_reporting_dagster.report.report_page import with_made_from
from later_reporting_dagster.rollups.lake_rollups import roll_up_lake_periods, roll_up_lake_windows
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN, DAILY, POSTS, WEEKLY, RollupTable
from tests.lake.conftest import SPOIL
from tests.rollups.conftest import posts_of, row

METRICS_TABLE, POSTS_TABLE = "post_metrics_daily", "posts_published"
DAYS = [date(2024, 1, number) for number in (1, 2, 8)]
WEEKS = [DAYS[0], DAYS[2]]
DAILY_SCHEMA = schema_of(DAILY.columns)
TABLES = (DAILY, WEEKLY, BY_CAMPAIGN, POSTS)
OF_FIRST_DAY = {(DAILY.name, DAYS[0]), (WEEKLY.name, WEEKS[0]), (BY_CAMPAIGN.name, None), (POSTS.name, None)}


def post(lake: Lake, table: str, day: date, instance_id: str, **metrics: object) -> None:
    lake.write(table, Partition(day, instance_id), posts_of(row(instance_id=instance_id, **metrics)))


def roll_up(lake: Lake, *tables: RollupTable) -> None:
    """Write rollups as the assets do."""
    for table in [each for each in tables or TABLES if each.table.is_partitioned]:
        for made in roll_up_lake_periods(lake, table, WEEKS if table is WEEKLY else DAYS, memory_gb=1):
            assert made.rows is not None
            lake.write(
                table.name,
                Partition(made.first_day),
                made.rows,
                metadata=made.made_from.key_values,
                replaces_metadata=True,
            )
    single = [each for each in tables or TABLES if not each.table.is_partitioned]
    windows = roll_up_lake_windows(lake, single, memory_gb=1) if single else None
    for name, rows in windows.tables.items() if windows else ():
        assert windows
        lake.write_table(name, rows, metadata=windows.made_from[name].key_values, replaces_metadata=True)


def found(
    lake: Lake, *tables: RollupTable, start: date = DAYS[0], newest: date = DAYS[-1], footers: Footers | None = None
) -> dict[tuple[str, date | None], str]:
    """Return the reason of each outdated file, by table and first day."""
    files = outdated(lake, tables or TABLES, start_date=start, newest_day=newest, footers=footers)
    return {(file.table, file.first_day): file.reason for file in files}


def found_on(lake: Lake, day: date, table: RollupTable) -> set[tuple[str, date | None]]:
    """Return what a run's check of one day finds."""
    files = outdated(lake, [table], start_date=DAYS[0], newest_day=DAYS[-1], days={day})
    return {(file.table, file.first_day) for file in files}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with two instances on three days of two weeks, whose rollups are current."""
    lake = Lake(str(tmp_path))
    for day in DAYS:
        for table in (METRICS_TABLE, POSTS_TABLE):
            for instance_id in ("a", "b"):
                post(lake, table, day, instance_id, impressions=1)
    roll_up(lake)
    assert found(lake) == {}
    return lake


def test_restated_post_makes_what_contains_its_day_outdated(lake: Lake) -> None:
    post(lake, METRICS_TABLE, DAYS[0], "a", impressions=2)
    assert found(lake) == dict.fromkeys(OF_FIRST_DAY, "made from other files")
    roll_up(lake)
    assert found(lake) == {}
    post(lake, POSTS_TABLE, DAYS[0], "a", impressions=2)
    assert found(lake) == {(POSTS.name, None): "made from other files"}


def test_rollup_whose_rows_stay_the_same_becomes_current(lake: Lake) -> None:
    """Its file is written again with other metadata; its data version stays."""
    before = lake.read_all_metadata(DAILY.name, lake.partitions(DAILY.name))
    post(lake, METRICS_TABLE, DAYS[0], "a", impressions=1, content_url="https://example.com/other")
    assert found(lake).keys() == OF_FIRST_DAY
    roll_up(lake)
    assert found(lake) == {}
    after = lake.read_all_metadata(DAILY.name, lake.partitions(DAILY.name))
    pairs = [(before[file], footer) for file, footer in after.items()]
    assert all(isinstance(footer, FileMetadata) for pair in pairs for footer in pair)
    assert [old != new for old, new in pairs] == [True, False, False]
    assert all(old.content_hash == new.content_hash for old, new in pairs)  # type: ignore[union-attr]


def test_file_that_is_replaced_while_it_is_read_makes_the_rollup_outdated(lake: Lake) -> None:
    made = iter(roll_up_lake_periods(lake, DAILY, DAYS, memory_gb=1))
    rollup = next(made)
    post(lake, METRICS_TABLE, DAYS[0], "a", impressions=2)
    assert rollup.rows is not None
    metadata = rollup.made_from.key_values
    lake.write(DAILY.name, Partition(DAYS[0]), rollup.rows, metadata=metadata, replaces_metadata=True)
    assert found(lake, DAILY) == {(DAILY.name, DAYS[0]): "made from other files"}


def alter(path: Path) -> None:
    """Change rows as a notebook might: the metadata stay."""
    rows = pq.ParquetFile(path).read()
    pq.write_table(pa.concat_tables([rows, rows.slice(0, 1)]), path)
    assert parse_metadata(path.read_bytes()).content_hash


@pytest.mark.parametrize("way", [*SPOIL, "alter"])
def test_missing_and_damaged_rollups_are_named(way: str, lake: Lake) -> None:
    spoil = SPOIL.get(way, alter)
    reason = "missing" if way in ("lose", "obstruct") else "damaged"
    footers = Footers()
    assert found(lake, footers=footers) == {}
    spoil(Path(lake.url(DAILY.name, Partition(DAYS[1]))))
    spoil(Path(lake.root, BY_CAMPAIGN.name, "part-0.parquet"))
    assert found(lake, footers=footers) == {(DAILY.name, DAYS[1]): reason, (BY_CAMPAIGN.name, None): reason}


def test_file_in_place_of_a_table_makes_only_this_table_outdated(lake: Lake) -> None:
    for table in (DAILY, BY_CAMPAIGN):
        shutil.rmtree(Path(lake.root, table.name))
        Path(lake.root, table.name).write_bytes(b"no folder")
    assert found(lake).keys() == {*((DAILY.name, day) for day in DAYS), (BY_CAMPAIGN.name, None)}


def test_retired_instance_makes_rollups_outdated_that_have_it(lake: Lake) -> None:
    lake.retired.add("c")
    assert found(lake) == {}
    lake.retired.add("b")
    assert found(lake).keys() == {
        *((DAILY.name, day) for day in DAYS), *((WEEKLY.name, week) for week in WEEKS),
        (BY_CAMPAIGN.name, None), (POSTS.name, None),
    }  # fmt: skip
    roll_up(lake)
    assert found(lake) == {}
    rows = lake.read(DAILY.name, lake.partitions(DAILY.name), schema=DAILY_SCHEMA)
    assert rows["instance_id"].to_pylist() == ["a"] * len(DAYS)
    lake.retired.add("a")
    roll_up(lake)
    assert lake.read(DAILY.name, lake.partitions(DAILY.name), schema=DAILY_SCHEMA).num_rows == 0
    for name in ("a", "b"):
        lake.retired.remove(name)
    roll_up(lake)
    assert lake.read(DAILY.name, lake.partitions(DAILY.name), schema=DAILY_SCHEMA).num_rows == 2 * len(DAYS)


def test_only_a_lower_definition_is_outdated(lake: Lake) -> None:
    newer = replace(DAILY, definition=DAILY.definition + 1)
    assert found(lake, newer) == {(DAILY.name, day): "made by an older definition" for day in DAYS}
    roll_up(lake, newer)
    assert found(lake, newer) == found(lake, DAILY) == {}


def test_rollup_without_the_columns_of_a_metric_is_outdated_and_one_with_more_is_not(lake: Lake) -> None:
    with_all = DAILY.with_metrics(METRICS)
    assert found(lake, with_all) == {(DAILY.name, day): "lacks columns" for day in DAYS}
    roll_up(lake, with_all)
    assert found(lake, with_all) == found(lake, DAILY) == {}


def test_rollup_of_an_earlier_release_is_outdated(lake: Lake) -> None:
    rows = lake.read(DAILY.name, [Partition(DAYS[0])], schema=DAILY_SCHEMA)
    Path(lake.url(DAILY.name, Partition(DAYS[0]))).unlink()
    lake.write(DAILY.name, Partition(DAYS[0]), rows)
    assert found(lake) == {(DAILY.name, DAYS[0]): "made from other files"}


def test_only_partitions_that_exist_are_outdated(lake: Lake) -> None:
    shutil.rmtree(Path(lake.root, DAILY.name))
    shutil.rmtree(Path(lake.root, WEEKLY.name))
    expected = {(DAILY.name, DAYS[1]), (WEEKLY.name, WEEKS[0])}
    assert found(lake, DAILY, WEEKLY, start=DAYS[1], newest=DAYS[1]).keys() == expected


def test_days_and_weeks_that_have_lost_all_raw_files_become_files_without_rows(lake: Lake) -> None:
    shutil.rmtree(Path(lake.root, METRICS_TABLE, f"date={DAYS[2]}"))
    lost = {(DAILY.name, DAYS[2]), (WEEKLY.name, WEEKS[1])}
    assert found(lake, DAILY, WEEKLY) == dict.fromkeys(lost, "made from other files")
    assert found_on(lake, DAYS[2], DAILY) == {(DAILY.name, DAYS[2])}
    roll_up(lake, DAILY, WEEKLY)
    assert found(lake, DAILY, WEEKLY) == {}
    assert lake.read(DAILY.name, [Partition(DAYS[2])], schema=DAILY_SCHEMA).num_rows == 0


def test_raw_table_without_any_file_empties_no_rollup(lake: Lake) -> None:
    """Its folder may not be mounted."""
    shutil.rmtree(Path(lake.root, METRICS_TABLE))
    assert found(lake, DAILY, WEEKLY) == {}
    assert [made.rows for made in roll_up_lake_periods(lake, DAILY, DAYS, memory_gb=1)] == [None] * len(DAYS)


def test_files_from_before_a_later_start_date_are_outdated_like_all_others(lake: Lake) -> None:
    lake.retired.add("a")
    assert found(lake, DAILY, start=DAYS[2]).keys() == {(DAILY.name, day) for day in DAYS}
    shutil.rmtree(Path(lake.root, DAILY.name, f"date={DAYS[0]}"))
    assert found(lake, DAILY, start=DAYS[2]).keys() == {(DAILY.name, day) for day in DAYS[1:]}


def test_damage_before_a_later_start_date_is_found_and_mended(lake: Lake) -> None:
    SPOIL["truncate"](Path(lake.url(DAILY.name, Partition(DAYS[0]))))
    assert found(lake, DAILY, WEEKLY, start=DAYS[2]) == {(DAILY.name, DAYS[0]): "damaged"}
    roll_up(lake, DAILY)
    SPOIL["truncate"](Path(lake.url(METRICS_TABLE, Partition(DAYS[0], "a"))))
    outdated = {(DAILY.name, DAYS[0]), (WEEKLY.name, WEEKS[0])}
    assert found(lake, DAILY, WEEKLY, start=DAYS[2]) == dict.fromkeys(outdated, "made from other files")
    # Rows of the other files would look complete: the rollups stay until the file is fetched again.
    assert next(iter(roll_up_lake_periods(lake, DAILY, DAYS[:1], memory_gb=1))).rows is None
    post(lake, METRICS_TABLE, DAYS[0], "a", impressions=2)
    roll_up(lake, DAILY, WEEKLY)
    assert found(lake, DAILY, WEEKLY, start=DAYS[2]) == {}


def test_footers_of_unchanged_files_are_read_once(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    read_file = lake.storage.read

    def count(path: str) -> bytes | None:
        read.append(path)
        return read_file(path)

    monkeypatch.setattr(lake.storage, "read", count)
    footers = Footers()
    found(lake, footers=footers)
    assert len(read) == len(DAYS) + len(WEEKS) + 2
    read.clear()
    os.utime(lake.url(DAILY.name, Partition(DAYS[0])))
    assert found(lake, footers=footers) == {}
    assert len(read) == 1


def test_report_is_outdated_until_it_shows_the_rollups(lake: Lake) -> None:
    def reason() -> str:
        files = outdated(lake, (), start_date=DAYS[0], newest_day=DAYS[-1], with_report=True)
        return "".join(file.reason for file in files if file.table == REPORT)

    def write() -> None:
        lake.write_file(REPORT, REPORT_FILE, with_made_from(b"<html>", report_inputs(lake)))

    assert reason() == "missing"
    write()
    assert reason() == ""
    post(lake, METRICS_TABLE, DAYS[0], "a", impressions=2)
    roll_up(lake, DAILY)
    assert reason() == "made from other files"
    write()
    assert reason() == ""
    # The page names outdated tables, also if their rows stay the same when they are made again.
    os.utime(lake.url(METRICS_TABLE, Partition(DAYS[0], "a")))
    roll_up(lake, DAILY)
    assert reason() == "made from other files"
