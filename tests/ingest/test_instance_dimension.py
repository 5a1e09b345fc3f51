"""The dimension `instances`: its rows, its day counts, and the instances that should be in the lake."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from later_reporting_dagster.ingest.dimensions import (
    INSTANCES_SCHEMA,
    instances_table,
    known_instances,
    stored_instances,
    unlisted_instances,
)
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.lake.tables import INSTANCES_TABLE, RAW_TABLES

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


def refreshed(
    lake: Lake, listed: list[str], *, days: list[date] | None = None, configured: list[str] | None = None
) -> Any:
    """Return the dimension as of now, from the files of a lake."""
    present = {table.name: lake.partitions(table.name) for table in RAW_TABLES}
    return instances_table(
        listed,
        configured=configured or [],
        previous=stored_instances(lake),
        present=present,
        days=days or [],
        today=TODAY,
    )


def test_instances_table_counts_all_missing_days_by_raw_table(lake: Lake) -> None:
    write_empty(
        lake, "posts_published", Partition(WINDOW[0], "a"), Partition(WINDOW[2], "a"), Partition(date(2020, 1, 1), "b")
    )
    write_empty(lake, "post_metrics_daily", *(Partition(day, "a") for day in WINDOW))
    rows = by_id(refreshed(lake, ["a", "c"], days=WINDOW))
    assert rows["a"] == {
        "instance_id": "a",
        "first_seen": TODAY,
        "last_seen": TODAY,
        "listed_now": True,
        "expected_now": True,
        "post_metrics_daily_newest_day": WINDOW[2],
        "post_metrics_daily_missing_days": 0,
        "posts_published_newest_day": WINDOW[2],
        "posts_published_missing_days": 1,
    }
    assert (rows["b"]["first_seen"], rows["b"]["listed_now"], rows["b"]["expected_now"]) == (None, False, False)
    assert (rows["b"]["posts_published_newest_day"], rows["b"]["posts_published_missing_days"]) == (date(2020, 1, 1), 0)
    assert (rows["c"]["posts_published_newest_day"], rows["c"]["posts_published_missing_days"]) == (None, 3)


def test_instances_table_expects_only_configured_instances(lake: Lake) -> None:
    rows = by_id(refreshed(lake, ["a", "b"], days=WINDOW, configured=["b", "not listed"]))
    assert {name: row["expected_now"] for name, row in rows.items()} == {"a": False, "b": True, "not listed": True}
    assert {name: row["posts_published_missing_days"] for name, row in rows.items()} == {
        "a": 0,
        "b": 3,
        "not listed": 3,
    }


def test_instances_table_keeps_an_instance_that_is_no_longer_listed() -> None:
    of: Any = {"configured": [], "present": {table.name: [] for table in RAW_TABLES}, "days": []}
    earlier = instances_table(["a", "b"], previous=None, today=TODAY, **of)
    later = instances_table(["b", "c"], previous=earlier, today=TODAY + timedelta(days=5), **of)
    seen = {name: (row["first_seen"], row["last_seen"], row["listed_now"]) for name, row in by_id(later).items()}
    assert seen == {
        "a": (TODAY, TODAY, False),
        "b": (TODAY, TODAY + timedelta(days=5), True),
        "c": (TODAY + timedelta(days=5), TODAY + timedelta(days=5), True),
    }
    assert unlisted_instances(later, configured=[]) == ["a"]
    assert unlisted_instances(later, configured=["b"]) == []


def test_instances_table_is_unchanged_on_the_same_day(lake: Lake) -> None:
    rows = refreshed(lake, ["b", "a"], days=WINDOW)
    assert lake.write_table(INSTANCES_TABLE, rows).changed
    assert not lake.write_table(INSTANCES_TABLE, refreshed(lake, ["a", "b"], days=WINDOW)).changed
    assert stored_instances(lake) == rows.cast(INSTANCES_SCHEMA)


def test_known_instances_are_the_configured_then_the_expected_then_those_with_files(lake: Lake) -> None:
    write_empty(lake, "posts_published", Partition(TODAY, "x"))
    write_empty(lake, "post_metrics_daily", Partition(TODAY, "w"))
    assert known_instances(lake) == ("w", "x")
    lake.write_table(INSTANCES_TABLE, refreshed(lake, ["a", "w"]))
    assert known_instances(lake) == ("a", "w")
    assert known_instances(lake, configured=("n", "a")) == ("n", "a")
    # A program that does not know LATER_INSTANCE_IDS expects the same instances.
    lake.write_table(INSTANCES_TABLE, refreshed(lake, ["a", "w"], configured=["w"]))
    assert known_instances(lake) == ("w",)


def test_a_damaged_dimension_counts_as_missing(lake: Lake, tmp_path: Path) -> None:
    write_empty(lake, "posts_published", Partition(TODAY, "x"))
    lake.write_table(INSTANCES_TABLE, refreshed(lake, ["a"]))
    (tmp_path / "lake" / INSTANCES_TABLE / "part-0.parquet").write_bytes(b"PAR1")
    assert known_instances(lake) == ("x",)
    assert by_id(refreshed(lake, ["a"])).keys() == {"a", "x"}


def test_a_dimension_without_expected_now_expects_the_listed_instances(lake: Lake) -> None:
    rows = refreshed(lake, ["a"], configured=["b"])
    lake.write_table(INSTANCES_TABLE, rows.drop_columns(["expected_now"]))
    assert known_instances(lake) == ("a",)
    assert by_id(refreshed(lake, []))["a"]["first_seen"] == TODAY
