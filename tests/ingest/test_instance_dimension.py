"""The dimension `instances`: its rows, its day counts, and the instances that should be in the lake."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from later_reporting_dagster.ingest.instance_dimension import (
    INSTANCES_SCHEMA,
    INSTANCES_TABLE,
    instances_table,
    known_instances,
    refreshed_instances,
    stored_instances,
    unlisted_instances,
)
from later_reporting_dagster.ingest.raw_tables import RAW_TABLES
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition

TODAY = date(2024, 3, 10)
WINDOW = [TODAY - timedelta(days=age) for age in (3, 2, 1)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(str(tmp_path / "lake"))


def write_empty(lake: Lake, table_name: str, *partitions: Partition) -> None:
    lake.write_all(table_name, dict.fromkeys(partitions, POSTS_SCHEMA.empty_table()))


def by_id(rows: Any) -> dict[str, dict[str, Any]]:
    return {row["instance_id"]: row for row in rows.to_pylist()}


def test_refreshed_instances_counts_days_by_raw_table(lake: Lake) -> None:
    write_empty(
        lake, "posts_published", Partition(WINDOW[0], "a"), Partition(WINDOW[2], "a"), Partition(date(2020, 1, 1), "b")
    )
    write_empty(lake, "post_metrics_daily", *(Partition(day, "a") for day in WINDOW))
    rows = by_id(refreshed_instances(lake, ["a", "c"], restated_days=WINDOW, today=TODAY))
    assert rows["a"] == {
        "instance_id": "a",
        "first_seen": TODAY,
        "last_seen": TODAY,
        "listed_now": True,
        "post_metrics_daily_newest_day": WINDOW[2],
        "post_metrics_daily_missing_days": 0,
        "posts_published_newest_day": WINDOW[2],
        "posts_published_missing_days": 1,
    }
    assert (rows["b"]["first_seen"], rows["b"]["listed_now"]) == (None, False)
    assert (rows["b"]["posts_published_newest_day"], rows["b"]["posts_published_missing_days"]) == (date(2020, 1, 1), 3)
    assert (rows["c"]["posts_published_newest_day"], rows["c"]["posts_published_missing_days"]) == (None, 3)


def test_instances_table_keeps_an_instance_that_is_no_longer_listed() -> None:
    present: dict[str, list[Partition]] = {table.name: [] for table in RAW_TABLES}
    earlier = instances_table(["a", "b"], previous=None, present=present, restated_days=[], today=TODAY)
    later = instances_table(
        ["b", "c"], previous=earlier, present=present, restated_days=[], today=TODAY + timedelta(days=5)
    )
    seen = {name: (row["first_seen"], row["last_seen"], row["listed_now"]) for name, row in by_id(later).items()}
    assert seen == {
        "a": (TODAY, TODAY, False),
        "b": (TODAY, TODAY + timedelta(days=5), True),
        "c": (TODAY + timedelta(days=5), TODAY + timedelta(days=5), True),
    }
    assert unlisted_instances(later, configured=[]) == ["a"]
    assert unlisted_instances(later, configured=["b"]) == []


def test_refreshed_instances_are_unchanged_on_the_same_day(lake: Lake) -> None:
    rows = refreshed_instances(lake, ["b", "a"], restated_days=WINDOW, today=TODAY)
    assert lake.write_table(INSTANCES_TABLE, rows).changed
    again = refreshed_instances(lake, ["a", "b"], restated_days=WINDOW, today=TODAY)
    assert not lake.write_table(INSTANCES_TABLE, again).changed
    assert stored_instances(lake) == rows.cast(INSTANCES_SCHEMA)


def test_known_instances_are_the_configured_then_the_listed_then_those_with_files(lake: Lake) -> None:
    write_empty(lake, "posts_published", Partition(TODAY, "x"))
    write_empty(lake, "post_metrics_daily", Partition(TODAY, "w"))
    assert known_instances(lake, configured=()) == ("w", "x")
    lake.write_table(INSTANCES_TABLE, refreshed_instances(lake, ["a", "w"], restated_days=[], today=TODAY))
    assert known_instances(lake, configured=()) == ("a", "w")
    assert known_instances(lake, configured=("n", "a")) == ("n", "a")


def test_a_damaged_dimension_counts_as_missing(lake: Lake, tmp_path: Path) -> None:
    write_empty(lake, "posts_published", Partition(TODAY, "x"))
    lake.write_table(INSTANCES_TABLE, refreshed_instances(lake, ["a"], restated_days=[], today=TODAY))
    (tmp_path / "lake" / INSTANCES_TABLE / "part-0.parquet").write_bytes(b"PAR1")
    assert known_instances(lake, configured=()) == ("x",)
    assert by_id(refreshed_instances(lake, ["a"], restated_days=[], today=TODAY)).keys() == {"a", "x"}
