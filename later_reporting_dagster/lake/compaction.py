"""Copies of closed months, one file for each instance: opening thirty small files costs more than reading one.

A compacted month, `{root}/_compacted/{table}/month=YYYY-MM/instance_id=…/part-0.parquet`, is a copy: the daily files
stay authoritative. Its Parquet metadata contain the version of each copied daily file. A reader uses the copy if these
days of the month, and no others, are requested and still have these versions; otherwise it reads the daily files. So
replacing a daily file invalidates the copy, without locks. And no row is ever missing or read twice: a reader that used
both the copy and files of further days would read these twice if the copy were written again meanwhile, with them.
"""

from calendar import monthrange
from collections.abc import Iterable, Mapping, Sequence
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
from later_reporting_dagster.lake.storage import FileVersion, LakeUnavailable, Storage
from later_reporting_dagster.lake.tables import with_date_column

# For fewer days, reading the copy and looking up the versions of its days costs more than it saves.
MIN_DAYS = 4
# Larger files take longer to decode than to open: a copy would save nothing, and cost memory.
MAX_MONTH_BYTES = 8 * 1024**2
# If versions are identified by modification time, a file younger than this is not copied: it may be replaced once more
# with the same time, because some storages count whole seconds, and clocks differ slightly.
MIN_AGE_SECONDS = 3.0

# The key, in the copy's Parquet metadata, of the days that it holds.
_DAYS = "days"


@dataclass(slots=True, kw_only=True)
class CompactionSummary:
    """The result of compacting a table. A month counts once for each instance.

    Attributes:
        removed: the number of months whose copy was removed, because the month cannot be copied now.
        daily_files: the number of copied daily files; readers read the copies instead.
        skipped: the number of days of closed months that were not copied, because the month has fewer than `MIN_DAYS`,
            or too large files, or one of them is too young, damaged, lacks a column that is never null, or has one of
            another type.
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


class MonthCopy(NamedTuple):
    """The copy of a month, with its days in the order of the rows."""

    path: str
    data: bytes
    days: Mapping[Partition, _CopiedDay]

    def read(self, schema: pa.Schema | None = None) -> dict[Partition, pa.Table]:
        """Return the rows of each day as exactly `schema`, by default as stored; nothing if the copy is damaged."""
        try:
            rows = read_stored_rows(self.data) if schema is None else from_parquet(self.data, schema=schema)
        except FileDamaged:
            return {}
        starts = [*accumulate((day.rows for day in self.days.values()), initial=0)]
        if starts.pop() != rows.num_rows:
            return {}
        days = zip(self.days.items(), starts, strict=True)
        return {partition: rows.slice(start, day.rows) for (partition, day), start in days}

    def is_current(self, versions: Mapping[Partition, FileVersion]) -> bool:
        """Return whether the daily files still have the versions that were copied."""
        return all(each in versions and versions[each].identity == day.identity for each, day in self.days.items())


class MonthCopies:
    """Reads and writes the copies of months."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def current(
        self, table_name: str, partitions: Iterable[Partition], versions: Mapping[Partition, FileVersion] | None = None
    ) -> list[MonthCopy]:
        """Return the copies of months with exactly these partitions, whose files have not changed since.

        Args:
            versions: those of the partitions' files, if they have been listed; otherwise they are looked up.
        """
        requested: dict[Partition, set[Partition]] = {}
        for partition in partitions:
            requested.setdefault(partition.month, set()).add(partition)

        months = {
            compacted_path(table_name, month): month for month, members in requested.items() if len(members) >= MIN_DAYS
        }
        copies: list[MonthCopy] = []
        for (path, month), data in zip(months.items(), self._storage.read_all([*months]), strict=True):
            copy = _parse_copy(path, month, data) if isinstance(data, bytes) else None
            if copy is not None and copy.days.keys() == requested[month]:
                copies.append(copy)
        if versions is None:
            # Looked up after the copies were read: a daily file that still has the copied version has not changed
            # since.
            versions = self._versions(table_name, [partition for copy in copies for partition in copy.days])
        return [copy for copy in copies if copy.is_current(versions)]

    def compact(
        self,
        table_name: str,
        daily_files: Mapping[Partition, FileVersion],
        *,
        closed_before: date,
        now: datetime,
        only_missing: bool = False,
    ) -> CompactionSummary:
        """Update the copies of months that end before `closed_before`, given the versions of all daily files."""
        directory = compacted_directory(table_name)
        months: dict[Partition, dict[Partition, FileVersion]] = {}
        for path in self._storage.named_files([directory], FILE_NAME):
            parent = path.removeprefix(f"{directory}/").removesuffix(f"/{FILE_NAME}")
            if (month := parse_directory(parent, unit="month")) is not None:
                months[month] = {}  # if the month has no daily files, its copy has to be removed
        copied = {*months}
        for partition, version in daily_files.items():
            if version.identity is None:
                raise LakeUnavailable(
                    f"{self._storage.location('').rstrip('/')} cannot be compacted: it reports no ETags, so replaced"
                    " files are not recognized. The lake works without compaction, only slower"
                )
            months.setdefault(partition.month, {})[partition] = version
        summary = CompactionSummary()
        for month in sorted(months.keys() - copied if only_missing else months, key=partition_sort_key):
            if month.day.replace(day=monthrange(month.day.year, month.day.month)[1]) < closed_before:
                self._compact_month(
                    table_name, month, months[month], has_copy=month in copied, now=now, summary=summary
                )
        return summary

    def _compact_month(
        self,
        table_name: str,
        month: Partition,
        versions: Mapping[Partition, FileVersion],
        *,
        has_copy: bool,
        now: datetime,
        summary: CompactionSummary,
    ) -> None:
        path = compacted_path(table_name, month)
        stored = data = self._storage.read(path) if has_copy else None
        copy = None if stored is None else _parse_copy(path, month, stored)
        if copy is None or not copy.is_current(versions) or copy.read().keys() != versions.keys():
            data = self._encoded_copy(table_name, versions, now=now)
            if data is None and stored is not None:
                self._storage.remove(path)
            elif data is not None and data != stored:
                self._storage.write(path, data)
        summary.written += data is not None and data != stored
        summary.unchanged += data is not None and data == stored
        summary.removed += data is None and stored is not None
        summary.daily_files += len(versions) if data is not None else 0
        summary.skipped += len(versions) if data is None else 0

    def _encoded_copy(
        self, table_name: str, versions: Mapping[Partition, FileVersion], *, now: datetime
    ) -> bytes | None:
        """Return the bytes of a copy of daily files; None if one of them cannot be copied, or a copy saves nothing."""
        last_modified = max((version.modified or 0 for version in versions.values()), default=0)
        if (
            len(versions) < MIN_DAYS
            or sum(version.bytes for version in versions.values()) > MAX_MONTH_BYTES
            or last_modified > now.timestamp() - MIN_AGE_SECONDS
        ):
            return None
        files: list[pa.Table] = []
        days: dict[date, _CopiedDay] = {}
        paths = [partition_path(table_name, partition) for partition in versions]
        for (partition, version), data in zip(versions.items(), self._storage.read_all(paths), strict=True):
            if isinstance(data, LakeUnavailable):
                raise data
            if data is None:  # it was removed
                return None
            try:
                content_hash, rows = parse_metadata(data).content_hash, read_stored_rows(data)
            except FileDamaged:
                return None
            if not content_hash:  # something else wrote it
                return None
            files.append(rows)
            days[partition.day] = _CopiedDay(rows.num_rows, content_hash, str(version.identity))
        # Looked up after the files were read: a file that still has the same version has not changed since.
        together = _concatenated(files) if self._versions(table_name, versions) == versions else None
        if together is None:
            return None
        return to_parquet(
            with_date_column(together, ((day, copied.rows) for day, copied in days.items())),
            content_hash=content_hash_of(together),
            key_values={_DAYS: msgspec.json.encode(days).decode()},
        )

    def _versions(self, table_name: str, partitions: Iterable[Partition]) -> dict[Partition, FileVersion]:
        by_path = {partition_path(table_name, each): each for each in sorted(partitions, key=partition_sort_key)}
        # By month, because the paths of a month share a prefix: one listing of an object store returns all of them and
        # little else. A disk answers one thread faster than several.
        months = [list(paths) for _, paths in groupby(by_path, key=lambda path: by_path[path].month.day)]
        found = self._storage.map(self._storage.versions, months if self._storage.is_remote else [[*by_path]])
        return {by_path[path]: version for versions in found for path, version in versions.items()}


def _concatenated(files: Sequence[pa.Table]) -> pa.Table | None:
    """Return the rows of all files; None if one lacks a column that is never null, or has one of another type.

    A nullable column that a file lacks, because it was added later, is null in its rows, as readers of the file see it.
    """
    required = {field.name for rows in files for field in rows.schema if not field.nullable}
    if not all(required <= {*rows.column_names} for rows in files):
        return None
    try:
        return pa.concat_tables(files, promote_options="default")
    except pa.ArrowTypeError:
        return None


def _parse_copy(path: str, month: Partition, data: bytes) -> MonthCopy | None:
    """Return a copy with the days in its metadata; None if it is damaged."""
    try:
        days = msgspec.json.decode(parse_metadata(data).key_values[_DAYS], type=dict[date, _CopiedDay])
    except (FileDamaged, KeyError, msgspec.DecodeError):
        return None
    return MonthCopy(path, data, {Partition(day, month.instance_id): copied for day, copied in days.items()})
