"""The dimension `instances`: which instances are known, with their newest and missing days."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Set
from datetime import date
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.instances import Instances
from later_reporting_dagster.lake.coverage import Files, intact_files
from later_reporting_dagster.lake.lake import Lake
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.tables import INSTANCES_TABLE, POSTS_NAMES, POSTS_TABLES, Column, schema_of
from later_reporting_dagster.quality.late_posts import stored_late_posts
from later_reporting_dagster.quality.missing_files import missing_files


def _columns() -> Iterable[Column]:
    yield Column("instance_id", "string", nullable=False, description="The Later instance; the row key")
    yield Column("first_seen", "date32[day]", True, "The first UTC day on which the API listed it; null if never")
    yield Column("last_seen", "date32[day]", True, "The last UTC day on which the API listed it; null if never")
    yield Column("listed_now", "bool", False, "Whether the API listed it when this table was last refreshed")
    yield Column(
        "expected_now",
        "bool",
        True,
        "Whether it should have a file for every day: it is not retired, and in LATER_INSTANCE_IDS or, if that is not"
        " set, listed now or before, or it has files",
    )
    yield Column("retired", "bool", True, "Whether it is retired: left out of rollups, the report and `serve`")
    for table in POSTS_TABLES:
        yield Column(
            f"{table.name}_newest_day", "date32[day]", True, f"Newest day in {table.name}; null if it has none"
        )
        yield Column(
            f"{table.name}_missing_days",
            "int64",
            False,
            f"Days from the start date to the newest due day without a file in {table.name}; 0 if it is not expected",
            unit="days",
        )
    yield Column("stale_days", "int64", True, "Days whose file of posts_published is stale, and fetched again", "days")


INSTANCE_COLUMNS = tuple(_columns())
INSTANCES_SCHEMA: pa.Schema = schema_of(INSTANCE_COLUMNS)


def instances_table(
    lake: Lake,
    listed: Collection[str],
    *,
    configured: Collection[str],
    days: Sequence[date],
    today: date,
    retired: Set[str] | None = None,
    files: Files | None = None,
    stale: Collection[Partition] | None = None,
) -> pa.Table:
    """Return the dimension, sorted by id: one row per instance that is expected, listed, was listed, or has a file.

    An instance that the API stops listing stays expected until it is retired: a listing may be wrong for an hour.

    Args:
        configured: ids in LATER_INSTANCE_IDS; empty if it is not set.
        days: the days that every expected instance should have a file for.
        retired, files, stale: what the lake says, if the caller has asked it already.
    """
    previous, retired = stored_instances(lake), lake.retired.ids() if retired is None else retired
    files = intact_files(lake, POSTS_NAMES) if files is None else files
    stale = stored_late_posts(lake, days=days).stale if stale is None else stale
    present = {name: files[name] for name in POSTS_NAMES}
    previous_rows = {row["instance_id"]: row for row in previous.to_pylist()} if previous is not None else {}
    seen = {name for name, row in previous_rows.items() if row["first_seen"]}
    stored = {str(partition.instance_id) for partitions in present.values() for partition in partitions}
    expected = {*(configured or seen.union(listed, stored))} - retired
    missing = {
        name: Counter(
            file.instance_id for file in missing_files(name, days=days, instances=expected, present=partitions)
        )
        for name, partitions in present.items()
    }
    newest: dict[str, dict[str | None, date]] = {
        name: {each.instance_id: each.day for each in sorted(partitions)} for name, partitions in present.items()
    }
    rows = []
    for instance_id in sorted({*listed, *expected, *previous_rows, *chain(*newest.values())}):
        is_listed = instance_id in listed
        before = previous_rows.get(instance_id, {"first_seen": None, "last_seen": None})
        row = {
            "instance_id": instance_id,
            "first_seen": before["first_seen"] or (today if is_listed else None),
            "last_seen": today if is_listed else before["last_seen"],
            "listed_now": is_listed,
            "expected_now": instance_id in expected,
            "retired": instance_id in retired,
        }
        for name in present:
            row[f"{name}_newest_day"] = newest[name].get(instance_id)
            row[f"{name}_missing_days"] = missing[name][instance_id]
        row["stale_days"] = sum(partition.instance_id == instance_id for partition in stale)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=INSTANCES_SCHEMA)


def load_instances(
    lake: Lake, *, configured: Collection[str] = (), listed: Collection[str] | None = None, files: Files | None = None
) -> Instances:
    """Return which instances a step fetches, expects and counts, from the lake, without a request to the API.

    Args:
        configured: ids in LATER_INSTANCE_IDS; empty if it is not set.
        listed: the list of the API, as fetched in this process; None if it is not known.
        files: the files of posts, if the caller has listed them already.
    """
    dimension = stored_instances(lake)
    names = ["instance_id", "first_seen"]
    rows = [] if dimension is None else dimension.select(names).to_pylist()
    present = [lake.partitions(name) if files is None else files[name] for name in POSTS_NAMES]
    return Instances(
        configured=frozenset(configured),
        listed=None if listed is None else frozenset(listed),
        seen=frozenset(row["instance_id"] for row in rows if row["first_seen"]),
        stored=frozenset(str(partition.instance_id) for partition in chain(*present)),
        retired=lake.retired.ids(),
    )


def known_instances(lake: Lake, *, configured: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the instances that should be in the lake, without a request to the API.

    These are the configured instances. If none are given, they are the instances that the stored dimension marks as
    expected; if the dimension does not exist yet, the instances with a file in a raw table. None of them is retired.
    """
    if configured:
        known = [*configured]
    elif (stored := stored_instances(lake)) is not None:
        known = stored.filter(pc.field("expected_now"))["instance_id"].to_pylist()
    else:
        known = sorted(instances_with_files(lake))
    retired = lake.retired.ids()
    return tuple(name for name in known if name not in retired)


def listed_instances(lake: Lake, *, configured: Sequence[str] = ()) -> list[str]:
    """Return the instances that the API listed last, as far as the lake knows; of configured ones only these."""
    stored = stored_instances(lake)
    listed = [] if stored is None else stored.filter(pc.field("listed_now"))["instance_id"].to_pylist()
    return [name for name in listed if not configured or name in configured]


def instances_with_files(lake: Lake) -> set[str]:
    return {str(partition.instance_id) for table in POSTS_TABLES for partition in lake.partitions(table.name)}


def stored_instances(lake: Lake) -> pa.Table | None:
    """Return the dimension as last written; see `Lake.read_intact_table`."""
    return lake.read_intact_table(INSTANCES_TABLE, schema=INSTANCES_SCHEMA)
