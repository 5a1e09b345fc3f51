"""The table `coverage`: every file of the fetched tables, and every expected file that is missing."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, Column, Lake, Partition, schema_of
from later_reporting_dagster.lake.lake import FETCHED_AT, FIRST_FETCHED_AT
from later_reporting_dagster.lake.parquet_file import FileMetadata
from later_reporting_dagster.lake.paths import partition_sort_key
from later_reporting_dagster.lake.storage import FileVersion
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, FETCHED_BY_DAY, RAW_TABLES
from later_reporting_dagster.quality.instances import known_instances

COVERAGE_COLUMNS = (
    Column("table_name", "string", False, "The table of the file; with day and instance, the row key"),
    Column("date", "date32[day]", False, "The UTC day of the file"),
    Column("instance_id", "string", True, "The instance of the file; null for campaign_performance_daily"),
    Column("has_file", "bool", False, "Whether the file exists; false for an expected file that is missing"),
    Column("rows", "int64", True, "Rows in the file; null if it is missing or damaged", unit="rows"),
    Column("fetched_at", "timestamp[us, tz=UTC]", True, "When the file was first fetched; null if that is unknown"),
    Column(
        "restated_at",
        "timestamp[us, tz=UTC]",
        True,
        "When a fetch last changed the content of the file; null if none has",
    ),
    Column(
        "file_version",
        "string",
        True,
        "Size of the file, and its modification time or ETag; null if it is missing or damaged",
    ),
)
COVERAGE_SCHEMA: pa.Schema = schema_of(COVERAGE_COLUMNS)
Files = Mapping[str, Mapping[Partition, FileVersion]]
# Number of rows, time of the first fetch, and time of the last change.
_Footer = Sequence[Any]


def stored_and_expected_files(
    lake: Lake, days: Sequence[date], *, configured: Sequence[str], tables: Collection[str]
) -> tuple[Files, dict[str, list[Partition]]]:
    """Return the files of the tables that are fetched, and the partitions that should have one, by table.

    Days of campaign performance are expected if any exists, because the API may refuse its route.
    """
    files: Files = {table.name: lake.file_versions(table.name) for table in FETCHED_BY_DAY}
    instances = known_instances(lake, configured=configured)
    pairs = [Partition(day, name) for day in days for name in instances]
    expected = {raw_table.name: pairs for raw_table in RAW_TABLES if raw_table.name in tables}
    if CAMPAIGN_PERFORMANCE_TABLE in tables and files[CAMPAIGN_PERFORMANCE_TABLE]:
        expected[CAMPAIGN_PERFORMANCE_TABLE] = [Partition(day) for day in days]
    return files, expected


def refreshed_coverage(lake: Lake, files: Files, expected: Mapping[str, Iterable[Partition]]) -> tuple[pa.Table, int]:
    """Return the table as of now, sorted, and how many footers were read. Does not write it.

    Read are those of new and changed files. A file whose footer cannot be read is stored without a version, so that the
    next update reads it again.
    """
    known = _stored_footers(lake)
    changed = {
        name: [partition for partition, version in of_table.items() if (name, partition, version.identity) not in known]
        for name, of_table in files.items()
    }
    read = {name: lake.read_all_metadata(name, partitions) for name, partitions in changed.items()}
    rows: list[tuple[Any, ...]] = []
    for name in sorted({*files, *expected}):
        versions = files.get(name, {})
        for partition in sorted({*versions, *expected.get(name, ())}, key=partition_sort_key):
            version = versions.get(partition)
            identity = version.identity if version else None
            footer = known.get((name, partition, identity)) or _footer_values(read.get(name, {}).get(partition))
            has_file = version is not None
            values = (*footer, identity) if footer else (None,) * 4
            rows.append((name, partition.day, partition.instance_id, has_file, *values))
    columns = [*zip(*rows, strict=True)] or [()] * len(COVERAGE_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, COVERAGE_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=COVERAGE_SCHEMA), sum(map(len, changed.values()))


def _stored_footers(lake: Lake) -> dict[tuple[str, Partition, str | None], _Footer]:
    """Return what the table, as last written, has of each file whose version is known."""
    stored = lake.read_intact_table(COVERAGE_TABLE, schema=COVERAGE_SCHEMA)
    names = ("table_name", "date", "instance_id", "file_version", "rows", "fetched_at", "restated_at")
    columns = [] if stored is None else [stored[name].to_pylist() for name in names]
    return {
        (name, Partition(day, instance_id), version): footer
        for name, day, instance_id, version, *footer in zip(*columns, strict=True)
        if version is not None
    }


def _footer_values(footer: FileMetadata | None) -> _Footer | None:
    if footer is None or not footer.content_hash:
        return None
    fetched_at, first = (footer.key_values.get(name) for name in (FETCHED_AT, FIRST_FETCHED_AT))
    return footer.rows, _instant(first or fetched_at), _instant(fetched_at if first else None)


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
