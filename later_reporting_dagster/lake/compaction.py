"""Closed months as one file an instance, because opening thirty small files costs more than reading one.

A compacted month is a copy, `{root}/_compacted/{asset}/month=YYYY-MM/instance_id=…/part-0.parquet`, and the daily files
stay the truth. Its footer says of each of its days which version of the daily file it was copied from. A reader takes a
day from the month only when the daily file is still that very version, and reads the daily file otherwise: so whatever
replaces a daily file reopens the month by that alone. Nothing is locked, nothing is deleted in some order, and at no
moment is a row absent or doubled.
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

from later_reporting_dagster.lake.concurrency import side_by_side
from later_reporting_dagster.lake.parquet_file import (
    PartitionDamaged,
    content_hash_of,
    facts_of,
    from_parquet,
    stored_rows,
    to_parquet,
)
from later_reporting_dagster.lake.partition_listing import by_day
from later_reporting_dagster.lake.partition_paths import (
    Partition,
    compacted_directory,
    compacted_of,
    compacted_path,
    month_of,
    partition_path,
)
from later_reporting_dagster.lake.schema import DATE, day_column
from later_reporting_dagster.lake.storage import FileVersion, LakeUnavailable, Storage

# With fewer days of a month and an instance, opening the month and looking at its days costs more than it saves.
FEWEST_DAYS = 4
# A larger day takes longer to decode than to open: copying it saves nothing, and would cost memory.
LARGEST_DAY_BYTES = 256 * 1024
# Where versions are told apart by time, one of the last moments may yet be followed by another of the same stamp: some
# storages count in whole seconds, and some clocks run a little apart.
SETTLED_AFTER_SECONDS = 3.0

_DAYS = "days"

WRITTEN_MOMENTS_AGO = "written moments ago: copied next time"
LARGE_BY_ITSELF = "large enough to be read by itself"
NOT_READABLE = "its file cannot be read"
OTHER_COLUMNS = "it has other columns than most of the month's days"
CHANGED_MEANWHILE = "replaced or removed meanwhile"
TOO_FEW_DAYS = "too few days for a file of a month"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactedMonth:
    """The result of compacting one month of one instance.

    Attributes:
        month: its first day.
        instance_id: None for a table whose days hold all instances.
        url: where the month's file lies, or would.
        days: how many days the file holds; 0 when there is no file.
        rows: how many rows it holds.
        bytes: its size.
        daily_bytes: the size of the daily files that it copies.
        changed: whether the file was written or removed.
        left_out: days that stay with their daily file alone, each with why.
    """

    month: date
    instance_id: str | None
    url: str
    days: int
    rows: int
    bytes: int
    daily_bytes: int
    changed: bool
    left_out: Mapping[date, str]


class _Day(NamedTuple):
    """What a month's footer says of one of its days. `identity` is that of the daily file it was copied from."""

    rows: int
    content_hash: str
    identity: str


class _Copy(NamedTuple):
    """A month's file, and those of the partitions asked for that it holds as their daily files have them."""

    path: str
    data: bytes
    days: Mapping[date, _Day]
    current: list[Partition]


class CompactedMonths:
    """Reads and writes the compacted months of a lake."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def rows(self, asset: str, partitions: Iterable[Partition], *, schema: pa.Schema) -> dict[Partition, pa.Table]:
        """Read those of `partitions` that a compacted month holds as their daily files have them right now.

        A month that cannot be read is left out: its days are read from their daily files.
        """

        def rows_of(copy: _Copy) -> dict[Partition, pa.Table]:
            try:
                by_day = _rows_by_day(from_parquet(copy.data, schema=schema), copy.days)
            except PartitionDamaged:
                return {}
            return {partition: by_day[partition.day] for partition in copy.current}

        copies = self._copies(asset, partitions)
        return {partition: rows for found in side_by_side(rows_of, copies) for partition, rows in found.items()}

    def whole(self, asset: str, partitions: Iterable[Partition]) -> dict[str, list[Partition]]:
        """Return the partitions of each month's file, by path, that holds nothing but current days of `partitions`.

        A month that cannot be read is left out.
        """
        copies = self._copies(asset, partitions)
        return {copy.path: copy.current for copy in copies if len(copy.current) == len(copy.days)}

    def _copies(self, asset: str, partitions: Iterable[Partition]) -> list["_Copy"]:
        """The months' files that hold some of `partitions` as their daily files have them right now."""
        wanted: dict[tuple[date, str | None], list[Partition]] = {}
        for partition in partitions:
            wanted.setdefault((month_of(partition.day), partition.instance_id), []).append(partition)

        def copy(place: tuple[date, str | None]) -> _Copy | None:
            path = compacted_path(asset, *place)
            try:
                data = self._storage.read(path)
                days = {} if data is None else _days_of(data)
            except (LakeUnavailable, PartitionDamaged):
                return None
            held = [partition for partition in wanted[place] if partition.day in days]
            return _Copy(path, data, days, held) if data is not None and held else None

        places = [place for place, members in wanted.items() if len(members) >= FEWEST_DAYS]
        copies = [found for found in side_by_side(copy, places) if found is not None]
        try:
            # Looked at after the months: what is the same now was the truth at this moment.
            versions = self._versions(asset, {partition for copy in copies for partition in copy.current})
        except LakeUnavailable:
            return []
        return [
            copy._replace(
                current=[
                    partition
                    for partition in copy.current
                    if (version := versions.get(partition)) and version.identity == copy.days[partition.day].identity
                ]
            )
            for copy in copies
        ]

    def compact(
        self, asset: str, partitions: Iterable[Partition], *, closed_before: date, now: datetime
    ) -> Iterator[CompactedMonth]:
        """Bring the copies of months that end before `closed_before` up to date with the daily files of `partitions`.

        Raises:
            ValueError: the storage does not tell one version of a file from another.
        """
        closed: dict[date, set[Partition]] = {}
        directory = compacted_directory(asset)
        paths = [path.removeprefix(f"{directory}/") for path in self._storage.files(directory)]
        compacted = [place for path in paths if (place := compacted_of(path)) is not None]
        # A month without daily files is looked at for its copy, which must not outlive them.
        for month, _ in compacted:
            closed.setdefault(month, set())
        for partition in partitions:
            closed.setdefault(month_of(partition.day), set()).add(partition)
        for month in sorted(closed):
            if month.replace(day=monthrange(month.year, month.month)[1]) >= closed_before:
                continue
            versions = self._versions(asset, closed[month])
            instance_ids = {partition.instance_id for partition in versions}
            instance_ids |= {instance_id for copied, instance_id in compacted if copied == month}
            for instance_id in sorted(instance_ids, key=lambda name: name or ""):
                yield self._compact(
                    asset,
                    month,
                    instance_id,
                    versions={
                        partition.day: version
                        for partition, version in versions.items()
                        if partition.instance_id == instance_id
                    },
                    now=now,
                )

    def _compact(
        self, asset: str, month: date, instance_id: str | None, *, versions: Mapping[date, FileVersion], now: datetime
    ) -> CompactedMonth:
        path = compacted_path(asset, month, instance_id)
        copied, left_out = _worth_copying(versions, now=now)
        identities = {day: self._identity(version) for day, version in copied.items()}
        stored = self._storage.read(path)

        def outcome(days: Mapping[date, _Day], data: bytes | None) -> CompactedMonth:
            return CompactedMonth(
                month=month,
                instance_id=instance_id,
                url=self._storage.shown(path),
                days=len(days),
                rows=sum(day.rows for day in days.values()),
                bytes=len(data or b""),
                daily_bytes=sum(versions[day].bytes for day in days),
                changed=data != stored,
                left_out=left_out,
            )

        kept = _verified_days(stored)
        if kept and {day: copy.identity for day, copy in kept.items()} == identities:
            return outcome(kept, stored)
        rows, unreadable = self._daily_rows(asset, instance_id, copied)
        left_out |= unreadable
        for day in self._moved(asset, instance_id, {day: copied[day] for day in rows}):
            left_out[day] = CHANGED_MEANWHILE
            del rows[day]
        if len(rows) < FEWEST_DAYS:
            left_out |= dict.fromkeys(rows, TOO_FEW_DAYS)
            if stored is not None:
                self._storage.remove(path)
            return outcome({}, None)
        days = {day: _Day(table.num_rows, content_hash, identities[day]) for day, (table, content_hash) in rows.items()}
        data = _month_file({day: table for day, (table, _) in rows.items()}, days)
        if data != stored:
            self._storage.write(path, data, check=lambda _, staged: _verified_days(staged) == days)
        return outcome(days, data)

    def _daily_rows(
        self, asset: str, instance_id: str | None, days: Iterable[date]
    ) -> tuple[dict[date, tuple[pa.Table, str]], dict[date, str]]:
        """By day what its file holds and its hash, all of the same columns; and the days that cannot be copied."""

        def rows(day: date) -> tuple[pa.Table, str] | str:
            data = self._storage.read(partition_path(asset, Partition(day, instance_id)))
            if data is None:
                return CHANGED_MEANWHILE
            try:
                table = stored_rows(data)
                return table, content_hash_of(table)
            except PartitionDamaged:
                return NOT_READABLE
            except TypeError:
                return OTHER_COLUMNS

        ordered = sorted(days)
        read = dict(zip(ordered, side_by_side(rows, ordered), strict=True))
        copies = {day: found for day, found in read.items() if not isinstance(found, str)}
        left_out = {day: found for day, found in read.items() if isinstance(found, str)}
        commonest = Counter(table.schema for table, _ in copies.values()).most_common(1)
        left_out |= {day: OTHER_COLUMNS for day, (table, _) in copies.items() if table.schema != commonest[0][0]}
        return {day: copy for day, copy in copies.items() if day not in left_out}, left_out

    def _moved(self, asset: str, instance_id: str | None, copied: Mapping[date, FileVersion]) -> list[date]:
        now = self._versions(asset, [Partition(day, instance_id) for day in copied])
        return [day for day, version in copied.items() if now.get(Partition(day, instance_id)) != version]

    def _versions(self, asset: str, partitions: Collection[Partition]) -> dict[Partition, FileVersion]:
        """The versions of the daily files that exist."""
        places = {partition_path(asset, partition): partition for partition in sorted(partitions, key=by_day)}
        # A month's paths begin alike, so that an object store lists them, and little else, in one request.
        months = [list(paths) for _, paths in groupby(places, key=lambda path: month_of(places[path].day))]
        found = side_by_side(self._storage.versions, months)
        return {places[path]: version for versions in found for path, version in versions.items()}

    def _identity(self, version: FileVersion) -> str:
        if version.identity is None:
            root = self._storage.shown("").rstrip("/")
            raise ValueError(
                f"{root} cannot be compacted: its filesystem tells neither an ETag of a file nor when it was changed,"
                " by which one version of it is known from another. Nothing is lost by that but time"
            )
        return version.identity


def _worth_copying(
    versions: Mapping[date, FileVersion], *, now: datetime
) -> tuple[dict[date, FileVersion], dict[date, str]]:
    """The daily files to copy, and the days that are left to theirs, with why."""
    left_out: dict[date, str] = {}
    for day, version in versions.items():
        if version.bytes > LARGEST_DAY_BYTES:
            left_out[day] = LARGE_BY_ITSELF
        elif version.modified is not None and version.modified > now.timestamp() - SETTLED_AFTER_SECONDS:
            left_out[day] = WRITTEN_MOMENTS_AGO
    return {day: version for day, version in versions.items() if day not in left_out}, left_out


def _month_file(rows: Mapping[date, pa.Table], days: Mapping[date, _Day]) -> bytes:
    dates = day_column((day, table.num_rows) for day, table in rows.items())
    table = pa.concat_tables(rows.values())
    facts = {_DAYS: msgspec.json.encode(days).decode()}
    return to_parquet(table.add_column(0, DATE, dates), content_hash=content_hash_of(table), facts=facts)


def _days_of(data: bytes) -> dict[date, _Day]:
    """What a month's footer says of its days, in the order of their rows.

    Raises:
        PartitionDamaged: it is no such file.
    """
    try:
        return msgspec.json.decode(facts_of(data).facts[_DAYS], type=dict[date, _Day])
    except (KeyError, msgspec.DecodeError) as error:
        raise PartitionDamaged(f"it is no compacted month: {error}") from error


def _rows_by_day(table: pa.Table, days: Mapping[date, _Day]) -> dict[date, pa.Table]:
    counts = [copy.rows for copy in days.values()]
    if sum(counts) != table.num_rows:
        raise PartitionDamaged(f"it holds {table.num_rows} rows, and tells of {sum(counts)}")
    starts = accumulate(counts, initial=0)
    return {day: table.slice(start, copy.rows) for (day, copy), start in zip(days.items(), starts, strict=False)}


def _verified_days(data: bytes | None) -> dict[date, _Day] | None:
    """The days that a month's file holds, all of whose rows were looked at; None for one that is not what it says."""
    if data is None:
        return None
    try:
        days = _days_of(data)
        rows = _rows_by_day(stored_rows(data), days)
        is_whole = all(
            set(rows[day][DATE.name].to_pylist()) <= {day}
            and content_hash_of(rows[day].drop_columns([DATE.name])) == copy.content_hash
            for day, copy in days.items()
        )
    except (PartitionDamaged, TypeError, KeyError):
        return None
    return days if is_whole else None
