"""Copies of closed months, one file for each instance: opening thirty small files costs more than reading one.

A compacted month, `{root}/_compacted/{table}/month=YYYY-MM/instance_id=…/part-0.parquet`, is a copy: the daily files
stay authoritative. Its Parquet metadata contain the version of each copied daily file. A reader takes a day from the
copy only while the daily file still has that version, and reads the daily file otherwise. So replacing a daily file
invalidates its copy, without locks, and no row is ever missing or read twice.
"""

from calendar import monthrange
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import accumulate, groupby
from typing import NamedTuple

import msgspec
import pyarrow as pa

from later_reporting_dagster.lake.concurrency import map_concurrently
from later_reporting_dagster.lake.parquet_file import (
    FileDamaged,
    content_hash_of,
    from_parquet,
    parse_metadata,
    read_stored_rows,
    to_parquet,
)
from later_reporting_dagster.lake.partition_listing import partition_sort_key
from later_reporting_dagster.lake.partition_paths import (
    Partition,
    compacted_directory,
    compacted_path,
    first_of_month,
    parse_compacted_path,
    partition_path,
)
from later_reporting_dagster.lake.schema import DATE, date_column
from later_reporting_dagster.lake.storage import FileVersion, LakeUnavailable, Storage

# For fewer days, reading the copy and looking up the versions of its days costs more than it saves.
MIN_DAYS = 4
# A larger daily file takes longer to decode than to open: a copy would save nothing, and cost memory.
MAX_DAY_BYTES = 256 * 1024
# If versions are identified by modification time, a file younger than this is not copied: it may be replaced once more
# with the same time, because some storages count whole seconds, and clocks differ slightly.
MIN_AGE_SECONDS = 3.0

# The key, in the copy's Parquet metadata, of the days that it holds.
_DAYS = "days"

# Reasons why a day is not copied.
TOO_YOUNG = "written moments ago: will be copied next time"
TOO_LARGE = "too large to gain from compaction"
NOT_READABLE = "its file cannot be read"
OTHER_COLUMNS = "its columns differ from most days of the month"
CHANGED_MEANWHILE = "replaced or removed during compaction"
TOO_FEW_DAYS = f"fewer than {MIN_DAYS} days of the month can be copied"

_MonthKey = tuple[date, str | None]
"""The first day of a month, and the instance id of its partitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthCompactionResult:
    """The result of compacting one month of one instance.

    Attributes:
        month: the first day of the month.
        instance_id: None for a table whose partitions hold all instances.
        url: the location of the copy, whether or not it exists.
        days: the number of days in the copy; 0 if it does not exist.
        rows: the number of rows in the copy.
        bytes: the size of the copy.
        daily_bytes: the total size of the copied daily files.
        changed: whether the copy was written or removed.
        skipped: the days that were not copied, each with the reason.
    """

    month: date
    instance_id: str | None
    url: str
    days: int
    rows: int
    bytes: int
    daily_bytes: int
    changed: bool
    skipped: Mapping[date, str]


class _CopiedDay(NamedTuple):
    """A day of a copy. Stored as a JSON array in the metadata of the copy, so the order of the fields must not change.

    Attributes:
        rows: the number of rows.
        content_hash: the hash of the rows.
        identity: the version of the daily file; see `FileVersion.identity`.
    """

    rows: int
    content_hash: str
    identity: str


class _Copy(NamedTuple):
    """A copy of a month.

    Attributes:
        path: its path relative to the root.
        data: its bytes.
        days: the days in it.
        current: the requested partitions whose daily file still has the version that was copied.
    """

    path: str
    data: bytes
    days: Mapping[date, _CopiedDay]
    current: list[Partition]


class MonthCopies:
    """Reads and writes the copies of months."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, table_name: str, partitions: Iterable[Partition], *, schema: pa.Schema) -> dict[Partition, pa.Table]:
        """Read the partitions that are current in a copy, as exactly `schema`; the others are omitted.

        A copy that cannot be read is ignored: its days are read from their daily files.
        """
        copies = self._copies(table_name, partitions)
        found = map_concurrently(lambda copy: _current_rows(copy, schema=schema), copies)
        return {partition: rows for of_copy in found for partition, rows in of_copy.items()}

    def files(self, table_name: str, partitions: Iterable[Partition]) -> dict[str, list[Partition]]:
        """Return the copies to read instead of daily files: for each path, the partitions in the copy.

        These are the copies whose days are all requested and current. A copy that cannot be read is ignored.
        """
        copies = self._copies(table_name, partitions)
        return {copy.path: copy.current for copy in copies if len(copy.current) == len(copy.days)}

    def _copies(self, table_name: str, partitions: Iterable[Partition]) -> list[_Copy]:
        """Return the copies that have any of `partitions`."""
        requested: dict[_MonthKey, list[Partition]] = {}
        for partition in partitions:
            requested.setdefault((first_of_month(partition.day), partition.instance_id), []).append(partition)

        def read(key: _MonthKey) -> _Copy | None:
            return self._read_copy(compacted_path(table_name, *key), requested[key])

        keys = [key for key, members in requested.items() if len(members) >= MIN_DAYS]
        copies = [copy for copy in map_concurrently(read, keys) if copy is not None]
        try:
            # Looked up after the copies were read: a daily file that still has the copied version has not changed
            # since.
            versions = self._versions(table_name, {partition for copy in copies for partition in copy.current})
        except LakeUnavailable:
            return []

        def is_current(copy: _Copy, partition: Partition) -> bool:
            version = versions.get(partition)
            return version is not None and version.identity == copy.days[partition.day].identity

        return [copy._replace(current=[each for each in copy.current if is_current(copy, each)]) for copy in copies]

    def _read_copy(self, path: str, requested: Iterable[Partition]) -> _Copy | None:
        """Read a copy, without looking up which of its days are current; None if it has no requested partition.

        In the result, `current` has all requested partitions that the copy contains.
        """
        try:
            data = self._storage.read(path)
            days = {} if data is None else _parse_days(data)
        except (LakeUnavailable, FileDamaged):
            return None
        held = [partition for partition in requested if partition.day in days]
        return _Copy(path, data, days, held) if data is not None and held else None

    def compact(
        self, table_name: str, partitions: Iterable[Partition], *, closed_before: date, now: datetime
    ) -> Iterator[MonthCompactionResult]:
        """Update the copies of months that end before `closed_before`.

        Args:
            table_name: the table.
            partitions: all partitions of the table.
            closed_before: months that end on this day or later are skipped.
            now: the current time.

        Raises:
            ValueError: the filesystem reports no file versions.
        """
        directory = compacted_directory(table_name)
        paths = [path.removeprefix(f"{directory}/") for path in self._storage.files(directory)]
        copied = [key for path in paths if (key := parse_compacted_path(path)) is not None]
        # Months with a copy and without daily files are included: their copy has to be removed.
        months: dict[date, set[Partition]] = {month: set() for month, _ in copied}
        for partition in partitions:
            months.setdefault(first_of_month(partition.day), set()).add(partition)
        for month in sorted(months):
            if month.replace(day=monthrange(month.year, month.month)[1]) >= closed_before:
                continue
            versions: dict[str | None, dict[date, FileVersion]] = {
                instance_id: {} for copied_month, instance_id in copied if copied_month == month
            }
            for partition, version in self._versions(table_name, months[month]).items():
                versions.setdefault(partition.instance_id, {})[partition.day] = version
            for instance_id in sorted(versions, key=lambda name: name or ""):
                yield self._compact(table_name, (month, instance_id), versions=versions[instance_id], now=now)

    def _compact(
        self, table_name: str, key: _MonthKey, *, versions: Mapping[date, FileVersion], now: datetime
    ) -> MonthCompactionResult:
        """Update the copy of one month of one instance, whose daily files have these versions."""
        month, instance_id = key
        path = compacted_path(table_name, month, instance_id)
        candidates, skipped = _select_days(versions, now=now)
        identities = {day: self._identity(version) for day, version in candidates.items()}
        stored = self._storage.read(path)
        days, data = _readable_days(stored), stored
        if not days or {day: copied.identity for day, copied in days.items()} != identities:
            rows, not_copied = self._read_days(table_name, instance_id, candidates)
            skipped |= not_copied
            days = {
                day: _CopiedDay(of_day.num_rows, content_hash, identities[day])
                for day, (of_day, content_hash) in rows.items()
            }
            data = _encode({day: of_day for day, (of_day, _) in rows.items()}, days) if days else None
            if data is None and stored is not None:
                self._storage.remove(path)
            elif data is not None and data != stored:
                self._storage.write(path, data)
        return MonthCompactionResult(
            month=month,
            instance_id=instance_id,
            url=self._storage.location(path),
            days=len(days),
            rows=sum(day.rows for day in days.values()),
            bytes=len(data or b""),
            daily_bytes=sum(versions[day].bytes for day in days),
            changed=data != stored,
            skipped=skipped,
        )

    def _read_days(
        self, table_name: str, instance_id: str | None, candidates: Mapping[date, FileVersion]
    ) -> tuple[dict[date, tuple[pa.Table, str]], dict[date, str]]:
        """Read the days to copy.

        Returns:
            First, the rows of each day to copy and their hash; all days have the same columns. Empty if there are too
            few days for a copy. Second, for each other candidate, why it is skipped.
        """

        def read(day: date) -> tuple[pa.Table, str] | str:
            data = self._storage.read(partition_path(table_name, Partition(day, instance_id)))
            if data is None:
                return CHANGED_MEANWHILE
            try:
                rows = read_stored_rows(data)
                return rows, content_hash_of(rows)
            except FileDamaged:
                return NOT_READABLE
            except TypeError:  # a column of a type that the lake does not store
                return OTHER_COLUMNS

        days = sorted(candidates)
        results = dict(zip(days, map_concurrently(read, days), strict=True))
        copies = {day: result for day, result in results.items() if not isinstance(result, str)}
        skipped = {day: result for day, result in results.items() if isinstance(result, str)}
        most_common = Counter(rows.schema for rows, _ in copies.values()).most_common(1)
        skipped |= {day: OTHER_COLUMNS for day, (rows, _) in copies.items() if rows.schema != most_common[0][0]}
        # Looked up after the files were read: a file that still has the same version has not changed since.
        versions = self._versions(table_name, [Partition(day, instance_id) for day in copies if day not in skipped])
        for day in copies:
            if day not in skipped and versions.get(Partition(day, instance_id)) != candidates[day]:
                skipped[day] = CHANGED_MEANWHILE
        copies = {day: copy for day, copy in copies.items() if day not in skipped}
        if len(copies) < MIN_DAYS:
            return {}, skipped | dict.fromkeys(copies, TOO_FEW_DAYS)
        return copies, skipped

    def _versions(self, table_name: str, partitions: Collection[Partition]) -> dict[Partition, FileVersion]:
        """Return the versions of the daily files that exist."""
        by_path = {partition_path(table_name, each): each for each in sorted(partitions, key=partition_sort_key)}
        # By month, because the paths of a month share a prefix: one listing of an object store returns all of them and
        # little else.
        months = [list(paths) for _, paths in groupby(by_path, key=lambda path: first_of_month(by_path[path].day))]
        found = map_concurrently(self._storage.versions, months)
        return {by_path[path]: version for versions in found for path, version in versions.items()}

    def _identity(self, version: FileVersion) -> str:
        if version.identity is None:
            root = self._storage.location("").rstrip("/")
            raise ValueError(
                f"{root} cannot be compacted: its filesystem reports neither an ETag nor a modification time, so"
                " replaced files are not recognized. The lake works without compaction, only slower"
            )
        return version.identity


def _select_days(
    versions: Mapping[date, FileVersion], *, now: datetime
) -> tuple[dict[date, FileVersion], dict[date, str]]:
    """Return the daily files to copy, and why the others are skipped."""
    skipped: dict[date, str] = {}
    for day, version in versions.items():
        if version.bytes > MAX_DAY_BYTES:
            skipped[day] = TOO_LARGE
        elif version.modified is not None and version.modified > now.timestamp() - MIN_AGE_SECONDS:
            skipped[day] = TOO_YOUNG
    return {day: version for day, version in versions.items() if day not in skipped}, skipped


def _encode(rows: Mapping[date, pa.Table], days: Mapping[date, _CopiedDay]) -> bytes:
    """Return the bytes of a copy: the rows of all days, with a first column `date`.

    The content hash in its metadata is that of the rows without `date`.
    """
    together = pa.concat_tables(rows.values())
    dates = date_column((day, of_day.num_rows) for day, of_day in rows.items())
    return to_parquet(
        together.add_column(0, DATE, dates),
        content_hash=content_hash_of(together),
        key_values={_DAYS: msgspec.json.encode(days).decode()},
    )


def _parse_days(data: bytes) -> dict[date, _CopiedDay]:
    """Return the days of a copy, in the order of their rows, from its metadata.

    Raises:
        FileDamaged: the bytes are not a copy of a month.
    """
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


def _current_rows(copy: _Copy, *, schema: pa.Schema) -> dict[Partition, pa.Table]:
    """Return the rows of the current partitions of a copy; nothing if the copy is damaged."""
    try:
        by_day = _split_by_day(from_parquet(copy.data, schema=schema), copy.days)
    except FileDamaged:
        return {}
    return {partition: by_day[partition.day] for partition in copy.current}


def _readable_days(data: bytes | None) -> dict[date, _CopiedDay]:
    """Return the days of a copy; nothing if there is none, or if any of it cannot be read."""
    if data is None:
        return {}
    try:
        days = _parse_days(data)
        _split_by_day(read_stored_rows(data), days)
    except FileDamaged:
        return {}
    return days
