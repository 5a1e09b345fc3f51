"""The dimension `instances` loses no instance, keeps when each was listed, and counts missing days."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition
from later_reporting_dagster.lake.paths import table_path
from later_reporting_dagster.lake.tables import INSTANCES_TABLE
from later_reporting_dagster.quality.instances import instances_table, known_instances

TODAY = date(2024, 3, 10)
WINDOW = [TODAY - timedelta(days=age) for age in (3, 2, 1)]


def write_empty(lake: Lake, table_name: str, *partitions: Partition) -> None:
    lake.write_all(table_name, dict.fromkeys(partitions, POSTS_SCHEMA.empty_table()))


def by_id(rows: Any) -> dict[str, dict[str, Any]]:
    return {row["instance_id"]: row for row in rows.to_pylist()}


def refreshed(lake: Lake, listed: list[str], *, days: Sequence[date] = (), configured: Sequence[str] = ()) -> Any:
    """Return the dimension as of now, from the files of a lake."""
    return instances_table(lake, listed, configured=configured, days=days, today=TODAY)


def test_instances_table_expects_only_configured_instances(lake: Lake) -> None:
    rows = by_id(refreshed(lake, ["a", "b"], days=WINDOW, configured=["b", "not listed"]))
    assert {name: row["expected_now"] for name, row in rows.items()} == {"a": False, "b": True, "not listed": True}
    assert {name: row["posts_published_missing_days"] for name, row in rows.items()} == {
        "a": 0,
        "b": 3,
        "not listed": 3,
    }


def test_known_instances_are_the_configured_then_the_expected_then_those_with_files(lake: Lake) -> None:
    write_empty(lake, "posts_published", Partition(TODAY, "x"))
    write_empty(lake, "post_metrics_daily", Partition(TODAY, "w"))
    assert known_instances(lake) == ("w", "x")
    lake.write_table(INSTANCES_TABLE, refreshed(lake, ["a", "w"]))
    assert known_instances(lake) == ("a", "w", "x")
    assert known_instances(lake, configured=("n", "a")) == ("n", "a")
    # A program that does not know LATER_INSTANCE_IDS expects the same instances.
    lake.write_table(INSTANCES_TABLE, refreshed(lake, ["a", "w"], configured=["w"]))
    assert known_instances(lake) == ("w",)
    lake.storage.write(table_path(INSTANCES_TABLE), b"no Parquet")  # as if it did not exist
    assert known_instances(lake) == ("w", "x")
    lake.retired.add("w")
    assert (known_instances(lake), known_instances(lake, configured=["w"])) == (("x",), ())


def test_instance_that_is_no_longer_listed_is_expected_until_it_is_retired(lake: Lake) -> None:
    for listed in (["a", "gone", "without files"], ["a"]):
        lake.write_table(INSTANCES_TABLE, refreshed(lake, listed, days=WINDOW))
        write_empty(lake, "posts_published", Partition(WINDOW[0], "gone"))
    assert known_instances(lake) == ("a", "gone", "without files")
    lake.retired.add("gone")
    rows = by_id(refreshed(lake, ["a"], days=WINDOW))
    assert {name: (row["expected_now"], row["retired"]) for name, row in rows.items()} == {
        "a": (True, False),
        "gone": (False, True),
        "without files": (True, False),
    }
    assert rows["gone"]["posts_published_missing_days"] == 0
    assert rows["without files"]["posts_published_missing_days"] == 3
