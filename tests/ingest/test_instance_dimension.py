"""The dimension of instances: what it keeps, what it counts, and which instances are wanted by it."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from later_reporting_dagster.ingest.instance_dimension import (
    INSTANCES,
    INSTANCES_SCHEMA,
    instances_table,
    known_instances,
    refreshed_instances,
    stored_instances,
    vanished_instances,
)
from later_reporting_dagster.ingest.raw_tables import SOURCES
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition

TODAY = date(2024, 3, 10)
WINDOW = [TODAY - timedelta(days=age) for age in (3, 2, 1)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def put(lake: Lake, asset: str, *partitions: Partition) -> None:
    lake.write_all(asset, dict.fromkeys(partitions, POSTS_SCHEMA.empty_table()))


def by_id(rows: Any) -> dict[str, dict[str, Any]]:
    return {row["instance_id"]: row for row in rows.to_pylist()}


def test_days_are_counted_by_raw_table(lake: Lake) -> None:
    put(lake, "posts_published", Partition(WINDOW[0], "a"), Partition(WINDOW[2], "a"), Partition(date(2020, 1, 1), "b"))
    put(lake, "post_metrics_daily", *(Partition(day, "a") for day in WINDOW))
    rows = by_id(refreshed_instances(lake, ["a", "c"], window=WINDOW, today=TODAY))
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


def test_an_instance_that_is_listed_no_more_stays_with_its_last_day() -> None:
    present: dict[str, list[Partition]] = {source.asset: [] for source in SOURCES}
    earlier = instances_table(["a", "b"], previous=None, present=present, window=[], today=TODAY)
    later = instances_table(["b", "c"], previous=earlier, present=present, window=[], today=TODAY + timedelta(days=5))
    seen = {name: (row["first_seen"], row["last_seen"], row["listed_now"]) for name, row in by_id(later).items()}
    assert seen == {
        "a": (TODAY, TODAY, False),
        "b": (TODAY, TODAY + timedelta(days=5), True),
        "c": (TODAY + timedelta(days=5), TODAY + timedelta(days=5), True),
    }
    assert vanished_instances(later, named=[]) == ["a"]
    assert vanished_instances(later, named=["b"]) == []


def test_a_refresh_on_the_same_day_writes_no_byte(lake: Lake) -> None:
    rows = refreshed_instances(lake, ["b", "a"], window=WINDOW, today=TODAY)
    assert lake.write_table(INSTANCES, rows).changed
    again = refreshed_instances(lake, ["a", "b"], window=WINDOW, today=TODAY)
    assert not lake.write_table(INSTANCES, again).changed
    assert stored_instances(lake) == rows.cast(INSTANCES_SCHEMA)


def test_wanted_are_the_named_then_the_listed_then_those_with_files(lake: Lake) -> None:
    put(lake, "posts_published", Partition(TODAY, "x"))
    put(lake, "post_metrics_daily", Partition(TODAY, "w"))
    assert known_instances(lake, named=()) == ("w", "x")
    lake.write_table(INSTANCES, refreshed_instances(lake, ["a", "w"], window=[], today=TODAY))
    assert known_instances(lake, named=()) == ("a", "w")
    assert known_instances(lake, named=("n", "a")) == ("n", "a")


def test_a_damaged_dimension_is_as_if_it_was_never_written(lake: Lake, tmp_path: Path) -> None:
    put(lake, "posts_published", Partition(TODAY, "x"))
    lake.write_table(INSTANCES, refreshed_instances(lake, ["a"], window=[], today=TODAY))
    (tmp_path / "lake" / INSTANCES / "part-0.parquet").write_bytes(b"PAR1")
    assert known_instances(lake, named=()) == ("x",)
    assert by_id(refreshed_instances(lake, ["a"], window=[], today=TODAY)).keys() == {"a", "x"}
