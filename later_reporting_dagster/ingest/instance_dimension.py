"""The dimension `instances`: which instances there are, and what the lake holds of each."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.ingest.raw_tables import SOURCES
from later_reporting_dagster.lake import Column, Lake, Partition, PartitionDamaged, schema_of

INSTANCES = "instances"


def _columns() -> Iterable[Column]:
    yield Column("instance_id", "string", nullable=False, description="The Later instance; the row key")
    yield Column("first_seen", "date32[day]", True, "The first UTC day on which the API listed it; null if never")
    yield Column("last_seen", "date32[day]", True, "The last UTC day on which the API listed it; null if never")
    yield Column("listed_now", "bool", False, "Whether the API listed it when this table was last refreshed")
    for source in SOURCES:
        yield Column(
            f"{source.asset}_newest_day", "date32[day]", True, f"Its newest day in {source.asset}; null without any"
        )
        yield Column(
            f"{source.asset}_missing_days",
            "int64",
            False,
            f"How many days of the restated window have no file of it in {source.asset}",
            unit="days",
        )


INSTANCE_COLUMNS = tuple(_columns())
INSTANCES_SCHEMA: pa.Schema = schema_of(INSTANCE_COLUMNS)


def instances_table(
    listed: Collection[str],
    *,
    previous: pa.Table | None,
    present: Mapping[str, Iterable[Partition]],
    window: Sequence[date],
    today: date,
) -> pa.Table:
    """Return the dimension, one row per instance that is listed, was listed before or has a file, by id.

    Args:
        listed: ids that the API lists now.
        previous: the dimension as last written, if it was. An instance that is not listed any more stays.
        present: by raw table, the partitions that have a file.
        window: the days that the daily schedule fetches again.
        today: the UTC day of the listing.
    """
    rows = {row["instance_id"]: row for row in previous.to_pylist()} if previous is not None else {}
    seen = {name: (row["first_seen"], row["last_seen"]) for name, row in rows.items()}
    days: dict[str, dict[str, set[date]]] = {asset: {} for asset in present}
    for asset, partitions in present.items():
        for partition in partitions:
            days[asset].setdefault(str(partition.instance_id), set()).add(partition.day)
    found = []
    for name in sorted({*listed, *rows, *(name for by_instance in days.values() for name in by_instance)}):
        first, last = seen.get(name, (None, None))
        if name in listed:
            first, last = first or today, today
        row = {"instance_id": name, "first_seen": first, "last_seen": last, "listed_now": name in listed}
        for asset, by_instance in days.items():
            there = by_instance.get(name, set())
            row[f"{asset}_newest_day"] = max(there, default=None)
            row[f"{asset}_missing_days"] = sum(day not in there for day in window)
        found.append(row)
    return pa.Table.from_pylist(found, schema=INSTANCES_SCHEMA)


def refreshed_instances(lake: Lake, listed: Collection[str], *, window: Sequence[date], today: date) -> pa.Table:
    """Return the dimension as of now, from what the API lists and what lies in the lake. Writes nothing.

    Raises:
        LakeUnavailable: the lake cannot be read.
    """
    return instances_table(
        listed,
        previous=stored_instances(lake),
        present={source.asset: lake.partitions(source.asset) for source in SOURCES},
        window=window,
        today=today,
    )


def known_instances(lake: Lake, *, named: Sequence[str]) -> tuple[str, ...]:
    """Return the instances that should be in the lake, without asking the API.

    Those that the settings name; else those that the dimension has as listed; else, before it was ever written, those
    that have a file in a raw table.

    Raises:
        LakeUnavailable: the lake cannot be read.
    """
    if named:
        return tuple(named)
    if (stored := stored_instances(lake)) is not None:
        return tuple(stored.filter(pc.field("listed_now"))["instance_id"].to_pylist())
    return tuple(
        sorted({str(partition.instance_id) for source in SOURCES for partition in lake.partitions(source.asset)})
    )


def vanished_instances(instances: pa.Table, *, named: Sequence[str]) -> list[str]:
    """Return the ids of the dimension that the API does not list now; only of those that the settings name, if any."""
    vanished: list[str] = instances.filter(~pc.field("listed_now"))["instance_id"].to_pylist()
    return [instance_id for instance_id in vanished if not named or instance_id in named]


def stored_instances(lake: Lake) -> pa.Table | None:
    """Return the dimension as last written; None before it was, or when its file is damaged.

    Raises:
        LakeUnavailable: the lake cannot be read.
    """
    # A damaged file is replaced by the next refresh; until then the lake's own files say what there is.
    with suppress(PartitionDamaged):
        return lake.read_table(INSTANCES, schema=INSTANCES_SCHEMA)
    return None
