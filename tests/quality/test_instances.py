"""The dimension `instances` loses no instance, keeps when each was listed, and counts missing days."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from later_reporting_dagster.contract.instances import Instances, Marks
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.lake.coverage import intact_files
from later_reporting_dagster.lake.paths import table_path
from later_reporting_dagster.lake.tables import INSTANCES_TABLE, POSTS_NAMES
from later_reporting_dagster.quality.instances import (
    describe_not_expected,
    instances_table,
    load_instances,
    stored_instances,
    write_instances,
)
from tests.conftest import CallingFirst

TODAY = date(2024, 3, 10)
WINDOW = [TODAY - timedelta(days=age) for age in (3, 2, 1)]


def write_empty(lake: Lake, table_name: str, *partitions: Partition) -> None:
    lake.write_all(table_name, dict.fromkeys(partitions, POSTS_SCHEMA.empty_table()))


def by_id(rows: Any) -> dict[str, dict[str, Any]]:
    return {row["instance_id"]: row for row in rows.to_pylist()}


def refreshed(
    lake: Lake, listed: list[str] | None, *, days: Sequence[date] = (), configured: Sequence[str] = ()
) -> Any:
    """Return the dimension as of now, from the files of a lake."""
    files = intact_files(lake, POSTS_NAMES)
    instances = load_instances(lake, configured=configured, listed=listed, files=files)
    return instances_table(lake, instances, files=files, stale=(), days=days, today=TODAY)


def test_instances_table_expects_only_configured_instances(lake: Lake) -> None:
    rows = by_id(refreshed(lake, ["a", "b"], days=WINDOW, configured=["b", "not listed"]))
    assert {name: row["expected_now"] for name, row in rows.items()} == {"a": False, "b": True, "not listed": True}
    assert {name: row["posts_published_missing_days"] for name, row in rows.items()} == {
        "a": 0,
        "b": 3,
        "not listed": 3,
    }


def test_two_writers_at_once_lose_no_listing(lake: Lake) -> None:
    def write(listed: list[str], *, days: Sequence[date] = (), today: date = TODAY) -> Any:
        files = dict.fromkeys(POSTS_NAMES, frozenset[Partition]())
        known = load_instances(lake, listed=listed, files=files)
        return write_instances(lake, known, days=days, today=today, files=files, stale=())[0]

    # Its days are looked at once the stored rows have been read.
    days = CallingFirst(WINDOW, lambda: write(["w"], today=WINDOW[0]))
    rows = by_id(write(["a"], days=days))
    assert {name: (row["first_seen"], row["listed_now"]) for name, row in rows.items()} == {
        "a": (TODAY, True),
        "w": (WINDOW[0], False),
    }
    assert by_id(stored_instances(lake)) == rows


def test_instances_are_loaded_from_table_files_and_marks(lake: Lake) -> None:
    write_empty(lake, "posts_published", Partition(TODAY, "x"))
    write_empty(lake, "post_metrics_daily", Partition(TODAY, "w"))
    lake.retired.add("r")
    assert load_instances(lake) == Instances(stored=frozenset("wx"), marks=Marks(frozenset("r")))
    # What another process was configured with decides about nothing here.
    lake.write_table(INSTANCES_TABLE, refreshed(lake, ["a", "w"], configured=["w"]))
    assert load_instances(lake, configured=["w"], listed=["a"]) == Instances(
        configured=frozenset("w"),
        listed=frozenset("a"),
        seen=frozenset("aw"),
        stored=frozenset("wx"),
        marks=Marks(frozenset("r")),
    )
    lake.storage.write(table_path(INSTANCES_TABLE), b"no Parquet")  # as if it did not exist
    assert load_instances(lake).seen == frozenset()


def test_listing_that_is_not_known_is_null_and_keeps_the_days_of_the_last_one(lake: Lake) -> None:
    lake.write_table(INSTANCES_TABLE, refreshed(lake, ["a"]))
    row = by_id(refreshed(lake, None, configured=["a"]))["a"]
    assert (row["listed_now"], row["first_seen"], row["last_seen"]) == (None, TODAY, TODAY)


def test_instances_that_are_counted_and_no_longer_fetched_are_named_with_their_newest_day(lake: Lake) -> None:
    write_empty(lake, "posts_published", Partition(WINDOW[0], "c"), Partition(WINDOW[2], "a"))
    text = describe_not_expected(load_instances(lake, configured=["a"]), files=intact_files(lake, POSTS_NAMES))
    assert f"c (no day after {WINDOW[0]})" in text
    assert "a (" not in text
    lake.retired.add("c")
    assert describe_not_expected(load_instances(lake, configured=["a"]), files=intact_files(lake, POSTS_NAMES)) == ""


def test_instance_that_is_no_longer_listed_is_expected_until_it_is_retired(lake: Lake) -> None:
    for listed in (["a", "gone", "without files"], ["a"]):
        lake.write_table(INSTANCES_TABLE, refreshed(lake, listed, days=WINDOW))
        write_empty(lake, "posts_published", Partition(WINDOW[0], "gone"))
    assert load_instances(lake).expected == {"a", "gone", "without files"}
    lake.retired.add("gone")
    rows = by_id(refreshed(lake, ["a"], days=WINDOW))
    assert {name: (row["expected_now"], row["retired"]) for name, row in rows.items()} == {
        "a": (True, False),
        "gone": (False, True),
        "without files": (True, False),
    }
    assert rows["gone"]["posts_published_missing_days"] == 0
    assert rows["without files"]["posts_published_missing_days"] == 3
