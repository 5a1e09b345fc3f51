"""Copies of closed months, one file for each instance: opening thirty small files costs more than reading one.

A compacted month, `{root}/_compacted/{table}/month=YYYY-MM/instance_id=…/part-0.parquet`, is a copy: the daily files
stay authoritative. Its Parquet metadata contain the version of each copied daily file. A reader takes a day from the
copy only while the daily file still has that version, and reads the daily file otherwise. So replacing a daily file
invalidates its copy, without locks, and no row is ever missing or read twice.
"""

from calendar import monthrange
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from itertools import accumulate, groupby
from typing import NamedTuple

import msgspec
import pyarrow as pa

from later_reporting_dagster.lake.parquet_file import (
    FileDamaged,
    content_hash_of,
    from_parquet,
    parse_metadata,
    read_stored_rows,
    to_parquet,
)
from later_reporting_dagster.lake.paths import (
    FILE_NAME,
    Partition,
    compacted_directory,
    compacted_path,
    parse_directory,
    partition_path,
    partition_sort_key,
)
from later_reporting_dagster.lake.storage import FileVersion, LakeUnavailable, Storage, map_concurrently
from later_reporting_dagster.lake.tables import with_date_column

# For fewer days, reading the copy and looking up the versions of its days costs more than it saves.
MIN_DAYS = 4
# A larger daily file takes longer to decode than to open: a copy would save nothing, and cost memory.
MAX_DAY_BYTES = 256 * 1024
# If versions are identified by modification time, a file younger than this is not copied: it may be replaced once more
# with the same time, because some storages count whole seconds, and clocks differ slightly.
MIN_AGE_SECONDS = 3.0

# The key, in the copy's Parquet metadata, of the days that it holds.
_DAYS = "days"


@dataclass(slots=True, kw_only=True)
class CompactionSummary:
    """The result of compacting a table. A month counts once for each instance.

    Attributes:
        removed: the number of months whose copy was removed, because too few days of the month can be copied now.
        daily_files: the number of copied daily files; readers read the copies instead.
        skipped: the number of days of closed months that were not copied: too young, too large, damaged, with other
            columns than most, or fewer than `MIN_DAYS` in a month.
    """

    written: int = 0
    unchanged: int = 0
    removed: int = 0
    daily_files: int = 0
    skipped: int = 0

    @property
    def files(self) -> int:
        """The number of copies."""
        return self.written + self.unchanged

    def __str__(self) -> str:
        removed = f", {self.removed} removed" if self.removed else ""
        return (
            f"{self.written} months written, {self.unchanged} unchanged{removed}; readers read {self.files:,} monthly"
            f" files instead of {self.daily_files:,} daily files, which are kept; {self.skipped:,} days are not copied"
        )


class _CopiedDay(NamedTuple):
    """A day of a copy. Stored as a JSON array in the copy's metadata, so the order of the fields must not change."""

    rows: int
    content_hash: str
    identity: str  # of the version of the daily file


class _Copy(NamedTuple):
    path: str
    data: bytes
    days: Mapping[date, _CopiedDay]
    current: list[Partition]  # those requested whose daily file still has the version that was copied


class MonthCopies:
    """Reads and writes the copies of months."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, table_name: str, partitions: Iterable[Partition], *, schema: pa.Schema) -> dict[Partition, pa.Table]:
        """Read the partitions that are current in a copy, as exactly `schema`; a damaged copy is ignored."""

        def rows_of(copy: _Copy) -> dict[Partition, pa.Table]:
            try:
                by_day = _split_by_day(from_parquet(copy.data, schema=schema), copy.days)
            except FileDamaged:
                return {}
            return {partition: by_day[partition.day] for partition in copy.current}

        found = map_concurrently(rows_of, self._copies(table_name, partitions))
        return {partition: rows for of_copy in found for partition, rows in of_copy.items()}

    def files(self, table_name: str, partitions: Iterable[Partition]) -> dict[str, list[Partition]]:
        """Return the copies whose days are all requested and current: by path, the partitions in the copy."""
        copies = self._copies(table_name, partitions)
        return {copy.path: copy.current for copy in copies if len(copy.current) == len(copy.days)}

    def _copies(self, table_name: str, partitions: Iterable[Partition]) -> list[_Copy]:
        requested: dict[Partition, list[Partition]] = {}
        for partition in partitions:
            requested.setdefault(partition.month, []).append(partition)

        def read(month: Partition) -> _Copy | None:
            path = compacted_path(table_name, month)
            try:
                data = self._storage.read(path)
                days = {} if data is None else _parse_days(data)
            except (LakeUnavailable, FileDamaged):
                return None
            held = [partition for partition in requested[month] if partition.day in days]
            return _Copy(path, data, days, held) if data is not None and held else None

        months = [month for month, members in requested.items() if len(members) >= MIN_DAYS]
        copies = [copy for copy in map_concurrently(read, months) if copy is not None]
        # Looked up after the copies were read: a daily file that still has the copied version has not changed since.
        identities = self._identities(table_name, {partition for copy in copies for partition in copy.current})
        return [
            copy._replace(
                current=[each for each in copy.current if identities.get(each) == copy.days[each.day].identity]
            )
            for copy in copies
        ]

    def compact(
        self, table_name: str, daily_files: Mapping[Partition, FileVersion], *, closed_before: date, now: datetime
    ) -> CompactionSummary:
        """Update the copies of months that end before `closed_before`, given the versions of all daily files."""
        directory = compacted_directory(table_name)
        months: dict[Partition, dict[date, FileVersion]] = {}
        for path in self._storage.named_files([directory], FILE_NAME):
            parent = path.removeprefix(f"{directory}/").removesuffix(f"/{FILE_NAME}")
            if (month := parse_directory(parent, unit="month")) is not None:
                months[month] = {}  # if the month has no daily files, its copy has to be removed
        for partition, version in daily_files.items():
            if version.identity is None:
                raise ValueError(
                    f"{self._storage.location('').rstrip('/')} cannot be compacted: its filesystem reports neither an"
                    " ETag nor a modification time, so replaced files are not recognized. The lake works without"
                    " compaction, only slower"
                )
            months.setdefault(partition.month, {})[partition.day] = version
        summary = CompactionSummary()
        for month in sorted(months, key=partition_sort_key):
            if month.day.replace(day=monthrange(month.day.year, month.day.month)[1]) < closed_before:
                self._compact_month(table_name, month, months[month], now=now, summary=summary)
        return summary

    def _compact_month(
        self,
        table_name: str,
        month: Partition,
        versions: Mapping[date, FileVersion],
        *,
        now: datetime,
        summary: CompactionSummary,
    ) -> None:
        candidates = {
            day: version
            for day, version in versions.items()
            if version.bytes <= MAX_DAY_BYTES
            and (version.modified is None or version.modified <= now.timestamp() - MIN_AGE_SECONDS)
        }
        path = compacted_path(table_name, month)
        stored = data = self._storage.read(path)
        days: dict[date, _CopiedDay] = {}
        with suppress(FileDamaged):  # a damaged copy is written again
            if stored is not None:
                of_copy = _parse_days(stored)
                _split_by_day(read_stored_rows(stored), of_copy)
                days = of_copy
        if not days or {day: copied.identity for day, copied in days.items()} != {
            day: version.identity for day, version in candidates.items()
        }:
            rows = self._read_days(table_name, month, candidates)
            days = {
                day: _CopiedDay(of_day.num_rows, content_hash, str(candidates[day].identity))
                for day, (of_day, content_hash) in rows.items()
            }
            data = _encode({day: of_day for day, (of_day, _) in rows.items()}, days) if days else None
            if data is None and stored is not None:
                self._storage.remove(path)
            elif data is not None and data != stored:
                self._storage.write(path, data)
        summary.written += data is not None and data != stored
        summary.unchanged += data is not None and data == stored
        summary.removed += data is None and stored is not None
        summary.daily_files += len(days)
        summary.skipped += len(versions) - len(days)

    def _read_days(
        self, table_name: str, month: Partition, candidates: Mapping[date, FileVersion]
    ) -> dict[date, tuple[pa.Table, str]]:
        """Return the rows of each day to copy and their hash, or none if they are too few."""
        partitions = {day: Partition(day, month.instance_id) for day in sorted(candidates)}

        def read(day: date) -> tuple[pa.Table, str] | None:
            data = self._storage.read(partition_path(table_name, partitions[day]))
            try:
                return None if data is None else (read_stored_rows(data), parse_metadata(data).content_hash)
            except FileDamaged:
                return None

        found = zip(partitions, map_concurrently(read, partitions), strict=True)
        results = {day: result for day, result in found if result}
        # Looked up after the files were read: a file that still has the same version has not changed since.
        identities = self._identities(table_name, partitions.values())
        schemas = Counter(rows.schema for rows, _ in results.values())
        copied = {
            day: (rows, content_hash)
            for day, (rows, content_hash) in results.items()
            if rows.schema == schemas.most_common(1)[0][0]
            and identities.get(partitions[day]) == candidates[day].identity
        }
        return copied if len(copied) >= MIN_DAYS else {}

    def _identities(self, table_name: str, partitions: Collection[Partition]) -> dict[Partition, str | None]:
        by_path = {partition_path(table_name, each): each for each in sorted(partitions, key=partition_sort_key)}
        # By month, because the paths of a month share a prefix: one listing of an object store returns all of them and
        # little else.
        months = [list(paths) for _, paths in groupby(by_path, key=lambda path: by_path[path].month.day)]
        found = map_concurrently(self._storage.versions, months)
        return {by_path[path]: version.identity for versions in found for path, version in versions.items()}


def _encode(rows: Mapping[date, pa.Table], days: Mapping[date, _CopiedDay]) -> bytes:
    """Return the bytes of a copy: the rows of all days, with a first column `date`.

    The content hash in its metadata is that of the rows without `date`.
    """
    together = pa.concat_tables(rows.values())
    return to_parquet(
        with_date_column(together, ((day, of_day.num_rows) for day, of_day in rows.items())),
        content_hash=content_hash_of(together),
        key_values={_DAYS: msgspec.json.encode(days).decode()},
    )


def _parse_days(data: bytes) -> dict[date, _CopiedDay]:
    """Return the days of a copy, in the order of their rows, from its metadata; or raise `FileDamaged`."""
    try:
        return msgspec.json.decode(parse_metadata(data).key_values[_DAYS], type=dict[date, _CopiedDay])
    except (KeyError, msgspec.DecodeError) as error:
        raise FileDamaged(f"not a compacted month: {error}") from error


def _split_by_day(rows: pa.Table, days: Mapping[date, _CopiedDay]) -> dict[date, pa.Table]:
    counts = [day.rows for day in days.values()]
    if sum(counts) != rows.num_rows:
        raise FileDamaged(f"it has {rows.num_rows} rows, but according to its metadata {sum(counts)}")
    starts = accumulate(counts, initial=0)
    return {day: rows.slice(start, copied.rows) for (day, copied), start in zip(days.items(), starts, strict=False)}
