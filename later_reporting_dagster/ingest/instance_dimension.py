"""The dimension table `instances`: the known instances, and the newest and missing days of each in the raw tables."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.ingest.raw_tables import RAW_TABLES
from later_reporting_dagster.lake import Column, FileDamaged, Lake, Partition, schema_of

INSTANCES_TABLE = "instances"


def _columns() -> Iterable[Column]:
    yield Column("instance_id", "string", nullable=False, description="The Later instance; the row key")
    yield Column("first_seen", "date32[day]", True, "The first UTC day on which the API listed it; null if never")
    yield Column("last_seen", "date32[day]", True, "The last UTC day on which the API listed it; null if never")
    yield Column("listed_now", "bool", False, "Whether the API listed it when this table was last refreshed")
    for table in RAW_TABLES:
        yield Column(
            f"{table.name}_newest_day", "date32[day]", True, f"Newest day in {table.name}; null if it has none"
        )
        yield Column(
            f"{table.name}_missing_days",
            "int64",
            False,
            f"Days that the daily schedule fetches again and that have no file in {table.name}",
            unit="days",
        )


INSTANCE_COLUMNS = tuple(_columns())
INSTANCES_SCHEMA: pa.Schema = schema_of(INSTANCE_COLUMNS)


def instances_table(
    listed: Collection[str],
    *,
    previous: pa.Table | None,
    present: Mapping[str, Iterable[Partition]],
    restated_days: Sequence[date],
    today: date,
) -> pa.Table:
    """Return the dimension, sorted by id: one row per instance that is listed, was listed before or has a file.

    Args:
        listed: ids that the API lists now.
        previous: the dimension as last written, if it exists. Instances that are no longer listed are kept.
        present: by raw table, the partitions that have a file.
        restated_days: the days that the daily schedule fetches again.
        today: the UTC day of the listing.
    """
    previous_rows = {row["instance_id"]: row for row in previous.to_pylist()} if previous is not None else {}
    days: dict[str, dict[str, set[date]]] = {table_name: {} for table_name in present}
    for table_name, partitions in present.items():
        for partition in partitions:
            days[table_name].setdefault(str(partition.instance_id), set()).add(partition.day)
    with_files = {instance_id for by_instance in days.values() for instance_id in by_instance}
    rows = []
    for instance_id in sorted({*listed, *previous_rows, *with_files}):
        is_listed = instance_id in listed
        before = previous_rows.get(instance_id, {"first_seen": None, "last_seen": None})
        row = {
            "instance_id": instance_id,
            "first_seen": before["first_seen"] or (today if is_listed else None),
            "last_seen": today if is_listed else before["last_seen"],
            "listed_now": is_listed,
        }
        for table_name, by_instance in days.items():
            present_days = by_instance.get(instance_id, set())
            row[f"{table_name}_newest_day"] = max(present_days, default=None)
            row[f"{table_name}_missing_days"] = sum(day not in present_days for day in restated_days)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=INSTANCES_SCHEMA)


def refreshed_instances(lake: Lake, listed: Collection[str], *, restated_days: Sequence[date], today: date) -> pa.Table:
    """Return the dimension as of now, from the API's listing and the files in the lake. Does not write it.

    Args:
        lake: where the dimension and the raw tables are stored.
        listed: ids that the API lists now.
        restated_days: the days that the daily schedule fetches again.
        today: the UTC day of the listing.

    Raises:
        LakeUnavailable: the lake cannot be read.
    """
    return instances_table(
        listed,
        previous=stored_instances(lake),
        present={table.name: lake.partitions(table.name) for table in RAW_TABLES},
        restated_days=restated_days,
        today=today,
    )


def known_instances(lake: Lake, *, configured: Sequence[str]) -> tuple[str, ...]:
    """Return the instances that should be in the lake, without a request to the API.

    These are the configured instances. If none are configured, they are the instances that the stored dimension marks
    as listed; if the dimension does not exist yet, the instances with a file in a raw table.

    Raises:
        LakeUnavailable: the lake cannot be read.
    """
    if configured:
        return tuple(configured)
    if (stored := stored_instances(lake)) is not None:
        return tuple(stored.filter(pc.field("listed_now"))["instance_id"].to_pylist())
    return tuple(sorted(instances_with_files(lake)))


def instances_with_files(lake: Lake) -> set[str]:
    """Return the instances that have a file in a raw table.

    Raises:
        LakeUnavailable: the lake cannot be read.
    """
    return {str(partition.instance_id) for table in RAW_TABLES for partition in lake.partitions(table.name)}


def unlisted_instances(instances: pa.Table, *, configured: Sequence[str]) -> list[str]:
    """Return the ids in the table that the API does not list now, including ids that it never listed.

    If `configured` is not empty, return only those that are also in `configured`.
    """
    unlisted: list[str] = instances.filter(~pc.field("listed_now"))["instance_id"].to_pylist()
    return [instance_id for instance_id in unlisted if not configured or instance_id in configured]


def stored_instances(lake: Lake) -> pa.Table | None:
    """Return the dimension as last written; None if it does not exist or its file is damaged.

    Raises:
        LakeUnavailable: the lake cannot be read.
    """
    # The next refresh replaces a damaged file; until then the partitions in the lake show which instances exist.
    with suppress(FileDamaged):
        return lake.read_table(INSTANCES_TABLE, schema=INSTANCES_SCHEMA)
    return None
