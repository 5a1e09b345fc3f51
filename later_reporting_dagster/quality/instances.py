"""Which instances a step is about, and the dimension of them, with their newest and missing days."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from itertools import chain
from types import MappingProxyType

import pyarrow as pa

from later_reporting_dagster.contract.instances import Instances
from later_reporting_dagster.lake.coverage import Files
from later_reporting_dagster.lake.lake import Lake, StoredFile, WriteResult
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.tables import INSTANCES_TABLE, POSTS_NAMES, POSTS_TABLES, Column, schema_of
from later_reporting_dagster.quality.missing_files import missing_files

# So many instances are named in a message.
MAX_NAMED = 5
# What to do about an instance that does not come back.
RETIRE = "`later-reporting retire ID`"


def _columns() -> Iterable[Column]:
    yield Column("instance_id", "string", nullable=False, description="The Later instance; the row key")
    yield Column("first_seen", "date32[day]", True, "The first UTC day on which the API listed it; null if never")
    yield Column("last_seen", "date32[day]", True, "The last UTC day on which the API listed it; null if never")
    yield Column(
        "listed_now",
        "bool",
        True,
        "Whether the API listed it when this table was last refreshed; null if the API did not tell",
    )
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
    lake: Lake, instances: Instances, *, files: Files, stale: Collection[Partition], days: Sequence[date], today: date
) -> pa.Table:
    """Return the dimension, sorted by id: one row per instance that is expected, listed, was listed, or has a file.

    Args:
        instances: those of this step. If it does not know what the API lists, the days of the last listing stay.
        files: the intact files of posts.
        stale: those that are fetched again for late posts.
        days: the days that every expected instance should have a file for.
    """
    previous = stored_instances(lake)
    return _updated_table(previous, instances, files=files, stale=stale, days=days, today=today)


def write_instances(
    lake: Lake, instances: Instances, *, files: Files, stale: Collection[Partition], days: Sequence[date], today: date
) -> tuple[pa.Table, WriteResult]:
    """Update the dimension to what `instances_table` returns, which has the same arguments."""

    def updated(stored: StoredFile) -> tuple[pa.Table, Mapping[str, str]]:
        previous = stored.intact_rows(INSTANCES_SCHEMA)
        return _updated_table(previous, instances, files=files, stale=stale, days=days, today=today), {}

    return lake.update_table(INSTANCES_TABLE, updated)


def _updated_table(
    previous: pa.Table | None,
    instances: Instances,
    *,
    files: Files,
    stale: Collection[Partition],
    days: Sequence[date],
    today: date,
) -> pa.Table:
    present = {name: files[name] for name in POSTS_NAMES}
    previous_rows = {row["instance_id"]: row for row in previous.to_pylist()} if previous is not None else {}
    missing = {
        name: Counter(
            file.instance_id
            for file in missing_files(name, days=days, instances=instances.expected, present=partitions)
        )
        for name, partitions in present.items()
    }
    newest: dict[str, dict[str | None, date]] = {
        name: {each.instance_id: each.day for each in sorted(partitions)} for name, partitions in present.items()
    }
    listed = instances.listed or frozenset()
    rows = []
    for instance_id in sorted(listed.union(instances.expected, instances.stored, previous_rows)):
        is_listed = instance_id in listed
        before = previous_rows.get(instance_id, {"first_seen": None, "last_seen": None})
        row = {
            "instance_id": instance_id,
            "first_seen": before["first_seen"] or (today if is_listed else None),
            "last_seen": today if is_listed else before["last_seen"],
            "listed_now": None if instances.listed is None else is_listed,
            "expected_now": instance_id in instances.expected,
            "retired": instance_id in instances.retired,
        }
        for name in present:
            row[f"{name}_newest_day"] = newest[name].get(instance_id)
            row[f"{name}_missing_days"] = missing[name][instance_id]
        row["stale_days"] = sum(partition.instance_id == instance_id for partition in stale)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=INSTANCES_SCHEMA)


def load_instances(
    lake: Lake,
    *,
    configured: Collection[str] = (),
    listed: Collection[str] | None = None,
    files: Files = MappingProxyType({}),
) -> Instances:
    """Return which instances a step fetches, expects and counts, from the lake, without a request to the API.

    Args:
        configured: ids in LATER_INSTANCE_IDS; empty if it is not set.
        listed: the list of the API, as fetched in this process; None if it is not known.
        files: those of tables that the caller has listed already. Other tables of posts are listed, which takes
            seconds if they have 100,000 files.
    """
    dimension = stored_instances(lake)
    names = ["instance_id", "first_seen"]
    rows = [] if dimension is None else dimension.select(names).to_pylist()
    present = [files[name] if name in files else lake.partitions(name) for name in POSTS_NAMES]
    return Instances(
        configured=frozenset(configured),
        listed=None if listed is None else frozenset(listed),
        seen=frozenset(row["instance_id"] for row in rows if row["first_seen"]),
        stored=frozenset(str(partition.instance_id) for partition in chain(*present)),
        marks=lake.retired.marks(),
    )


def stored_instances(lake: Lake) -> pa.Table | None:
    """Return the dimension as last written; see `Lake.read_intact_table`."""
    return lake.read_intact_table(INSTANCES_TABLE, schema=INSTANCES_SCHEMA)


def describe_unlisted(unlisted: Iterable[str]) -> str:
    """Return which expected instances the API no longer lists, and what to do; empty without any."""
    names = sorted(unlisted)
    if not names:
        return ""
    more = f" and {len(names) - MAX_NAMED} more" * (len(names) > MAX_NAMED)
    return (
        f"No longer listed: {', '.join(names[:MAX_NAMED])}{more}. They stay in the rollups. If they are gone for good,"
        f" or have another id now: {RETIRE}. Otherwise wait: a list may be wrong for hours"
    )


def describe_not_expected(instances: Instances, *, files: Files) -> str:
    """Return which instances are in the numbers but no longer fetched, since when, and what to do; empty without any.

    Numbers follow the lake: a setting does not take an instance out of them. `files` are those of posts.
    """
    if not instances.not_expected:
        return ""
    present = [files[name] for name in POSTS_NAMES]
    newest: dict[str | None, date] = {}
    for partition in chain(*present):
        newest[partition.instance_id] = max(newest.get(partition.instance_id, partition.day), partition.day)
    names = sorted(instances.not_expected)
    states = ", ".join(f"{name} (no day after {newest[name]})" for name in names[:MAX_NAMED])
    more = f" and {len(names) - MAX_NAMED} more" * (len(names) > MAX_NAMED)
    return (
        f"In the numbers, and no longer fetched, because LATER_INSTANCE_IDS does not name them: {states}{more}. Totals"
        f" of all instances lack them. Take them out with {RETIRE}, or name them again"
    )
