"""The table `coverage`: every file of the fetched tables, and every expected file that is missing."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from later_reporting_dagster.ingest.dimensions import known_instances
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, Column, FileDamaged, Lake, Partition, schema_of
from later_reporting_dagster.lake.lake import FETCHED_AT, FIRST_FETCHED_AT
from later_reporting_dagster.lake.parquet_file import FileMetadata
from later_reporting_dagster.lake.paths import partition_sort_key
from later_reporting_dagster.lake.storage import FileVersion
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, FETCHED_BY_DAY, RAW_TABLES

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
_FROM_FOOTER = ("rows", "fetched_at", "restated_at")
_FOOTER_SCHEMA = pa.schema([COVERAGE_SCHEMA.field(name) for name in _FROM_FOOTER])

Files = Mapping[str, Mapping[Partition, FileVersion]]


def stored_coverage(lake: Lake) -> pa.Table:
    """Return the table as last written; without rows if it does not exist or is damaged."""
    try:
        stored = lake.read_table(COVERAGE_TABLE, schema=COVERAGE_SCHEMA)
    except FileDamaged:
        stored = None
    return COVERAGE_SCHEMA.empty_table() if stored is None else stored


def stored_and_expected_files(
    lake: Lake, days: Sequence[date], *, configured: Sequence[str], tables: Collection[str]
) -> tuple[Files, dict[str, list[Partition]]]:
    """Return the files of the tables that are fetched, and the partitions that should have one, by table."""
    files: Files = {table.name: lake.file_versions(table.name) for table in FETCHED_BY_DAY}
    return files, expected_files(files, days, known_instances(lake, configured=configured), tables=tables)


def expected_files(
    files: Files, days: Sequence[date], instances: Sequence[str], *, tables: Collection[str]
) -> dict[str, list[Partition]]:
    """Return the partitions that should have a file, by table that is fetched.

    Days of campaign performance are expected if any exists, because the API may refuse its route.
    """
    pairs = [Partition(day, name) for day in days for name in instances]
    expected = {raw_table.name: pairs for raw_table in RAW_TABLES if raw_table.name in tables}
    if CAMPAIGN_PERFORMANCE_TABLE in tables and files.get(CAMPAIGN_PERFORMANCE_TABLE):
        expected[CAMPAIGN_PERFORMANCE_TABLE] = [Partition(day) for day in days]
    return expected


def refreshed_coverage(lake: Lake, files: Files, expected: Mapping[str, Iterable[Partition]]) -> tuple[pa.Table, int]:
    """Return the table as of now, and how many footers were read: those of new and changed files. Does not write it."""
    previous = stored_coverage(lake)
    known = _rows_by_file(previous)
    changed = {
        table_name: [each for each, version in versions.items() if (table_name, each, version.identity) not in known]
        for table_name, versions in files.items()
    }
    footers = {name: lake.read_all_metadata(name, partitions) for name, partitions in changed.items()}
    table = _coverage_table(files, expected, previous=previous, known=known, footers=footers)
    return table, sum(map(len, changed.values()))


def _coverage_table(
    files: Files,
    expected: Mapping[str, Iterable[Partition]],
    *,
    previous: pa.Table,
    known: Mapping[tuple[str, Partition, str | None], int],
    footers: Mapping[str, Mapping[Partition, FileMetadata]],
) -> pa.Table:
    """Return the table, sorted by table, day and instance.

    Args:
        known: its row number of each file, by table, partition and version.
        footers: the metadata of the files that it lacks, or has in another version. Those that cannot be read have no
            content hash; they are stored without a version, so that the next update reads them again.
    """
    read = [
        (name, partition, footer)
        for name, of_table in footers.items()
        for partition, footer in of_table.items()
        if footer.content_hash
    ]
    read_rows = {(name, partition): previous.num_rows + row for row, (name, partition, _) in enumerate(read)}
    pairs: list[tuple[str, Partition]] = []
    has_file: list[bool] = []
    identities: list[str | None] = []
    rows: list[int | None] = []
    for name in sorted({*files, *expected}):
        versions = files.get(name, {})
        missing = [partition for partition in expected.get(name, ()) if partition not in versions]
        for partition in sorted([*versions, *missing], key=partition_sort_key):
            version = versions.get(partition)
            identity = version.identity if version else None
            row = read_rows.get((name, partition), known.get((name, partition, identity)))
            pairs.append((name, partition))
            has_file.append(version is not None)
            identities.append(None if row is None else identity)
            rows.append(row)
    columns = {
        "table_name": [name for name, _ in pairs],
        "date": [partition.day for _, partition in pairs],
        "instance_id": [partition.instance_id for _, partition in pairs],
        "has_file": has_file,
    }
    from_footers = pa.concat_tables(
        [
            previous.select(_FROM_FOOTER),
            pa.Table.from_pylist([_footer_values(footer) for _, _, footer in read], schema=_FOOTER_SCHEMA),
        ]
    ).take(pa.array(rows, pa.int64()))
    arrays = {name: pa.array(values, COVERAGE_SCHEMA.field(name).type) for name, values in columns.items()}
    arrays |= {name: from_footers[name] for name in _FROM_FOOTER}
    return pa.table({**arrays, "file_version": pa.array(identities, pa.string())}, schema=COVERAGE_SCHEMA)


def _rows_by_file(stored: pa.Table) -> dict[tuple[str, Partition, str | None], int]:
    """Return the row number of each file whose version is known, by table, partition and version."""
    names = ("table_name", "date", "instance_id", "file_version")
    columns = zip(*(stored[name].to_pylist() for name in names), strict=True)
    return {
        (name, Partition(day, instance_id), version): row
        for row, (name, day, instance_id, version) in enumerate(columns)
        if version is not None
    }


def _footer_values(footer: FileMetadata) -> dict[str, Any]:
    fetched_at, first = (footer.key_values.get(name) for name in (FETCHED_AT, FIRST_FETCHED_AT))
    return {
        "rows": footer.rows,
        "fetched_at": _instant(first or fetched_at),
        "restated_at": _instant(fetched_at if first else None),
    }


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
