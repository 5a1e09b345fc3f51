"""The dimension tables: instances, with their newest and missing days, and campaigns, with names, status and dates."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import date
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.rows import BadRow, Campaign
from later_reporting_dagster.ingest.missing_files import missing_days
from later_reporting_dagster.lake.lake import Lake, WriteResult
from later_reporting_dagster.lake.parquet_file import FileDamaged
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.tables import (
    CAMPAIGN_COLUMNS,
    CAMPAIGNS_TABLE,
    INSTANCES_TABLE,
    RAW_TABLES,
    Column,
    schema_of,
)


def _columns() -> Iterable[Column]:
    yield Column("instance_id", "string", nullable=False, description="The Later instance; the row key")
    yield Column("first_seen", "date32[day]", True, "The first UTC day on which the API listed it; null if never")
    yield Column("last_seen", "date32[day]", True, "The last UTC day on which the API listed it; null if never")
    yield Column("listed_now", "bool", False, "Whether the API listed it when this table was last refreshed")
    yield Column(
        "expected_now",
        "bool",
        True,
        "Whether it should have a file for every day: it is in LATER_INSTANCE_IDS or, if that is not set, listed",
    )
    for table in RAW_TABLES:
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


INSTANCE_COLUMNS = tuple(_columns())
INSTANCES_SCHEMA: pa.Schema = schema_of(INSTANCE_COLUMNS)


def instances_table(
    listed: Collection[str],
    *,
    configured: Collection[str],
    previous: pa.Table | None,
    present: Mapping[str, Sequence[Partition]],
    days: Sequence[date],
    today: date,
) -> pa.Table:
    """Return the dimension, sorted by id: one row per instance that is expected, listed, was listed, or has a file.

    Args:
        configured: ids in LATER_INSTANCE_IDS; empty if it is not set.
        days: the days that every expected instance should have a file for.
    """
    previous_rows = {row["instance_id"]: row for row in previous.to_pylist()} if previous is not None else {}
    expected = configured or listed
    missing = {name: missing_days(days, expected, partitions) for name, partitions in present.items()}
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
        }
        for name in present:
            row[f"{name}_newest_day"] = newest[name].get(instance_id)
            row[f"{name}_missing_days"] = len(missing[name].get(instance_id, ()))
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=INSTANCES_SCHEMA)


def current_instances(
    lake: Lake, listed: Collection[str], *, configured: Collection[str], days: Sequence[date], today: date
) -> tuple[pa.Table, dict[str, list[Partition]]]:
    """Return the dimension as of now, without writing it, and the partitions that have a file, by raw table."""
    files = {raw_table.name: lake.partitions(raw_table.name) for raw_table in RAW_TABLES}
    rows = instances_table(
        listed, configured=configured, previous=stored_instances(lake), present=files, days=days, today=today
    )
    return rows, files


def known_instances(lake: Lake, *, configured: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the instances that should be in the lake, without a request to the API.

    These are the configured instances. If none are given, they are the instances that the stored dimension marks as
    expected; if the dimension does not exist yet, the instances with a file in a raw table.
    """
    if configured:
        return tuple(configured)
    if (stored := stored_instances(lake)) is not None:
        return tuple(stored.filter(pc.field("expected_now"))["instance_id"].to_pylist())
    return tuple(sorted(instances_with_files(lake)))


def instances_with_files(lake: Lake) -> set[str]:
    return {str(partition.instance_id) for table in RAW_TABLES for partition in lake.partitions(table.name)}


def stored_instances(lake: Lake) -> pa.Table | None:
    """Return the dimension as last written; see `stored_table`."""
    return stored_table(lake, INSTANCES_TABLE, INSTANCES_SCHEMA)


def stored_table(lake: Lake, name: str, schema: pa.Schema) -> pa.Table | None:
    """Return a table as last written; None if it does not exist or its file is damaged: the next refresh replaces it.

    Campaigns that are no longer listed are then lost. The files in the lake show which instances exist.
    """
    with suppress(FileDamaged):
        return lake.read_table(name, schema=schema)
    return None


CAMPAIGNS_SCHEMA: pa.Schema = schema_of(CAMPAIGN_COLUMNS)


def campaigns_table(
    listed: Sequence[Campaign], *, previous: pa.Table | None, instance_ids: Collection[str], today: date
) -> pa.Table:
    """Return the dimension, sorted by instance and campaign: one row per campaign that is listed or was listed before.

    `instance_ids`: the instances whose listed campaigns are wanted; empty for all.
    """
    rows: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in previous.to_pylist() if previous is not None else []:
        rows[row["instance_id"], row["campaign_id"]] = row | {"listed_now": False}
    for campaign in listed:
        if instance_ids and campaign.instance_id not in instance_ids:
            continue
        first_seen = rows[campaign.key]["first_seen"] if campaign.key in rows else today
        fields = {name: getattr(campaign, name) for name in campaign.__struct_fields__}
        rows[campaign.key] = {**fields, "first_seen": first_seen, "last_seen": today, "listed_now": True}
    return pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=CAMPAIGNS_SCHEMA)


def write_campaigns(
    lake: Lake, listed: Sequence[Campaign], bad_rows: Sequence[BadRow], *, instance_ids: Collection[str], today: date
) -> tuple[pa.Table, WriteResult]:
    """Update the dimension, and replace its quarantined rows by the bad rows of this listing."""
    outdated = lake.quarantine.files(CAMPAIGNS_TABLE)
    if bad_rows:
        written = lake.quarantine.write_rows_without_partition(
            CAMPAIGNS_TABLE, bad_rows, query="campaigns", day_range=(today, today)
        )
        outdated = [file for file in outdated if lake.storage.location(file.path) != written]
    previous = stored_table(lake, CAMPAIGNS_TABLE, CAMPAIGNS_SCHEMA)
    rows = campaigns_table(listed, previous=previous, instance_ids=instance_ids, today=today)
    result = lake.write_table(CAMPAIGNS_TABLE, rows)
    for file in outdated:
        lake.storage.remove(file.path)
    return rows, result
