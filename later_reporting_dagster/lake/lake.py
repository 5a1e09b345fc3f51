"""The lake: Parquet tables whose partitions are replaced as a whole."""

import hashlib
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, TypedDict, TypeVar, Unpack

import pyarrow as pa

from later_reporting_dagster.contract.instances import NO_MARKS, Marks
from later_reporting_dagster.lake.file_metadata import (
    CONTENT_HASH,
    FETCHED_AT,
    FIRST_FETCHED_AT,
    FileMetadata,
    instant_text,
)
from later_reporting_dagster.lake.garbage_collection import paused_collection
from later_reporting_dagster.lake.open_storage import open_storage
from later_reporting_dagster.lake.parquet_file import (
    FileDamaged,
    MetadataDamaged,
    content_hash_of,
    damaged_file_error,
    from_parquet,
    has_rows,
    parse_metadata,
    read_stored_rows,
    to_parquet,
)
from later_reporting_dagster.lake.paths import (
    FILE_NAME,
    Partition,
    day_directory,
    parse_directory,
    partition_path,
    step_to_replace,
)
from later_reporting_dagster.lake.quarantine import Quarantine
from later_reporting_dagster.lake.retired import RetiredInstances
from later_reporting_dagster.lake.storage import (
    FileVersion,
    LakeUnavailable,
    ReplacedMeanwhile,
    Storage,
    without_credentials,
)
from later_reporting_dagster.lake.tables import RAW_NAMES, RAW_TABLES, with_date_column, with_networks

# The partition that is a file; None for an unpartitioned table.
_File = TypeVar("_File", bound=Partition | None)
_Parsed = TypeVar("_Parsed")

# Copies of months, and posts that came late: derived from the raw files.
_LEFT_OVER = ("_compacted", "_late_posts")
# How often a file is read and written, because another writer has replaced it in between.
MAX_ATTEMPTS = 5
# Above this number of days on a disk, one listing of the whole table is faster than one listing of each day.
_MAX_DAY_LISTINGS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file as it was read, or why it cannot be read now; without data and an error, there is none.

    Attributes:
        version: that of the data, which `Lake.replace_files` compares; None in a store that does not.
        required: what its metadata have to have.
    """

    required: Collection[str]
    data: bytes | None = None
    version: FileVersion | None = None
    error: LakeUnavailable | None = None

    @property
    def metadata(self) -> FileMetadata:
        """Return the metadata; of no file, and of a damaged one, an empty hash."""
        with suppress(FileDamaged):
            if self.data is not None:
                return parse_metadata(self.data, required=self.required)
        return FileMetadata(0)

    def intact_rows(self, schema: pa.Schema) -> pa.Table | None:
        """Return the rows as exactly `schema`; None if there is no file, or it is damaged."""
        with suppress(FileDamaged):
            return None if self.data is None else from_parquet(self.data, schema=schema)
        return None


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The result of a write.

    Attributes:
        url: the location of the file: a path on a local disk, else a URL, without credentials.
        rows: 0 for a file that is not a table.
        content_hash: see `content_hash_of`; for a file that is not a table, the SHA-256 of its bytes.
        changed: False if the file already had the same rows (or bytes), so it was not written, except for its metadata.
        key_values: the metadata that the file has, which is that of an earlier write if it was not written.
    """

    url: str
    rows: int
    bytes: int
    content_hash: str
    changed: bool
    key_values: Mapping[str, str] = field(default_factory=dict)


class WriteOptions(TypedDict, total=False):
    """Options of `Lake.write_all`, for one file."""

    metadata: Mapping[str, str] | None
    replaces_metadata: bool


class Lake:
    """Parquet partitions below one root: `{root}/{table}/date=…/instance_id=…/part-0.parquet`.

    Safe to use from several threads and processes: if two of them write a partition at once, it then has exactly the
    rows of one of them. A method raises `LakeUnavailable` if the root cannot be reached, read or written, and
    `FileDamaged` if it reads a file that is not Parquet, or has other columns.

    Attributes:
        root: the root, without credentials.
        retired: the marks of instances that are not in the numbers.

    Args:
        root: a local path, or the URL of an object store.
        storage_options: the options that fsspec needs to open the root, such as credentials. In messages, they are
            redacted; of a URL, only the userinfo and the query.

    Raises:
        ValueError: the root is empty, its scheme needs a missing package, or it is of no such store.
    """

    def __init__(self, root: str, *, storage_options: Mapping[str, Any] | None = None) -> None:
        self.storage: Storage = open_storage(root, storage_options or {})
        self.root = without_credentials(root)
        self.quarantine = Quarantine(self.storage)
        self.retired = RetiredInstances(self.storage)

    def __repr__(self) -> str:
        return f"Lake({self.root!r})"

    def write(
        self, table_name: str, partition: Partition | None, rows: pa.Table, **options: Unpack[WriteOptions]
    ) -> WriteResult:
        """Replace all rows of a partition, as `write_all` does with these options; raise if they are not replaced."""
        result = self.write_all(table_name, {partition: rows}, **options)[partition]
        if isinstance(result, Exception):
            raise result
        return result

    def write_table(self, table_name: str, rows: pa.Table, **options: Unpack[WriteOptions]) -> WriteResult:
        """Replace all rows of an unpartitioned table, which is one file, as `write` does."""
        return self.write(table_name, None, rows, **options)

    def write_all(
        self,
        table_name: str,
        rows: Mapping[_File, pa.Table],
        *,
        metadata: Mapping[str, str] | None = None,
        replaces_metadata: bool = False,
    ) -> dict[_File, WriteResult | LakeUnavailable]:
        """Replace all rows of several partitions; return the result of each, or its error, which affects no other.

        If a file already has the same rows in the same order, nothing is written, and the stored metadata stay. A
        stored file that is damaged, or that something else has altered, is replaced. If it cannot be read for another
        reason, nothing is written.

        Args:
            metadata: stored in the file's Parquet key-value metadata.
            replaces_metadata: also write a file that has the same rows, but other metadata.

        Raises:
            ValueError: an instance id cannot be encoded; see `encode_instance_id`.
            TypeError: a column has a type that the lake does not store.
        """
        return self.update_all(
            table_name, rows, lambda file, _stored: (rows[file], metadata or {}), replaces_metadata=replaces_metadata
        )

    def update_table(
        self,
        table_name: str,
        compute: Callable[[StoredFile], tuple[pa.Table, Mapping[str, str]]],
        *,
        replaces_metadata: bool = False,
    ) -> tuple[pa.Table, WriteResult]:
        """Replace an unpartitioned table as `update_all` does, and return its rows; raise if they are not replaced."""
        rows = dict[None, pa.Table]()

        def compute_rows(_file: None, stored: StoredFile) -> tuple[pa.Table, Mapping[str, str]]:
            rows[None], metadata = compute(stored)
            return rows[None], metadata

        result = self.update_all(table_name, [None], compute_rows, replaces_metadata=replaces_metadata)[None]
        if isinstance(result, Exception):
            raise result
        return rows[None], result

    def update_all(
        self,
        table_name: str,
        files: Iterable[_File],
        compute: Callable[[_File, StoredFile], tuple[pa.Table, Mapping[str, str]]],
        *,
        replaces_metadata: bool = False,
    ) -> dict[_File, WriteResult | LakeUnavailable]:
        """Replace all rows of partitions, or of an unpartitioned table, by those computed from what is stored.

        A file that another writer replaces meanwhile is read and computed again, at most `MAX_ATTEMPTS` times. Results
        and equal rows are as those of `write_all`.

        Args:
            compute: returns the rows and the metadata of a file. It may be called several times.
        """
        results: dict[_File, WriteResult | LakeUnavailable] = {}
        waiting = [*files]
        for _ in range(MAX_ATTEMPTS):
            stored = self.read_files(table_name, waiting)
            new_files: dict[_File, bytes] = {}
            for file, found in stored.items():
                if found.error is not None:
                    results[file] = found.error
                    continue
                new, metadata = compute(file, found)
                content_hash = content_hash_of(new)
                before, data = found.metadata, found.data or b""
                is_same = before.content_hash == content_hash and has_rows(data, content_hash, expected=new)
                key_values = with_first_fetch(metadata, before)
                if is_same and not replaces_metadata:
                    key_values = {**before.key_values}
                if not (is_same and before.key_values == key_values):
                    data = new_files[file] = to_parquet(new, content_hash=content_hash, key_values=key_values)
                size, changed = (new.num_rows, len(data)), not is_same
                results[file] = WriteResult(self.url(table_name, file), *size, content_hash, changed, key_values)
            failed = self.replace_files(table_name, new_files, stored=stored)
            results |= failed
            waiting = [file for file, error in failed.items() if isinstance(error, ReplacedMeanwhile)]
            if not waiting:
                break
        return results

    def read_files(self, table_name: str, files: Iterable[_File]) -> dict[_File, StoredFile]:
        """Read partitions, or an unpartitioned table, with the versions that `replace_files` compares.

        Raises:
            ValueError: an instance id cannot be encoded; see `encode_instance_id`.
        """
        required = _required_metadata(table_name)

        def read(path: str) -> StoredFile:
            try:
                data, version = self.storage.read_with_version(path) or (None, None)
                return StoredFile(required=required, data=data, version=version)
            except LakeUnavailable as error:
                return StoredFile(required=required, error=error)

        paths = {file: partition_path(table_name, file) for file in files}
        return dict(zip(paths, self.storage.map(read, paths.values()), strict=True))

    def replace_files(
        self, table_name: str, files: Mapping[_File, bytes], *, stored: Mapping[_File, StoredFile]
    ) -> dict[_File, LakeUnavailable]:
        """Replace files that have not changed since they were read; return the error of each that was not replaced.

        A file that another writer has replaced meanwhile stays, and its error is `ReplacedMeanwhile`, unless the store
        does not compare (see `Storage.compares`).
        """
        paths = {partition_path(table_name, file): file for file in files}
        versions = {path: stored[file].version for path, file in paths.items()}
        failed = self.storage.put_all({path: files[file] for path, file in paths.items()}, replaced=versions)
        return {paths[path]: error for path, error in failed.items()}

    def read_table(self, table_name: str, partition: Partition | None = None, *, schema: pa.Schema) -> pa.Table | None:
        """Read an unpartitioned table, or a partition, as exactly `schema`; None if its file does not exist."""
        return self._read_file(partition_path(table_name, partition), partial(_read_rows, schema=schema))

    def read_intact_table(self, table_name: str, *, schema: pa.Schema) -> pa.Table | None:
        """Read an unpartitioned table that the next refresh replaces; None if its file does not exist or is damaged."""
        with suppress(FileDamaged):
            return self.read_table(table_name, schema=schema)
        return None

    def table_version(self, table_name: str) -> FileVersion | None:
        """Return the version of an unpartitioned table; None if its file does not exist."""
        path = partition_path(table_name, None)
        return self.storage.versions([path]).get(path)

    def write_file(self, directory: str, name: str, data: bytes) -> WriteResult:
        """Replace a file that is not a table, such as a web page; equal bytes are not written again."""
        path = f"{directory}/{name}"
        changed = self.storage.read(path) != data
        if changed:
            self.storage.write(path, data)
        return WriteResult(self.storage.location(path), 0, len(data), hashlib.sha256(data).hexdigest(), changed)

    def rewrite(self, path: str, change: Callable[[pa.Table], pa.Table]) -> bool:
        """Replace all rows of a file by `change` of them, but not its metadata; return whether that made a difference.

        Damaged metadata go: the file stays damaged. Nothing else may write the file meanwhile: its rows would be lost.
        """
        stored = self._read_file(path, lambda data: (read_stored_rows(data), _intact_key_values(data)))
        if stored is None:
            return False
        rows, key_values = stored
        if (changed := change(rows)).equals(rows):
            return False
        try:
            data = to_parquet(changed, content_hash=content_hash_of(changed), key_values=key_values)
        except TypeError as error:
            raise damaged_file_error(self.storage.location(path), error, step=step_to_replace(path)) from error
        self.storage.write(path, data)
        return True

    def read(
        self, table_name: str, partitions: Iterable[Partition], *, schema: pa.Schema, with_date: bool = False
    ) -> pa.Table:
        """Read the partitions that exist, in the order given, as exactly `schema`.

        If a file lacks a nullable column, the column is null in its rows. With `with_date`, a first column `date` has
        the day of the row's partition.
        """
        requested = list(partitions)
        existing = list[tuple[Partition, pa.Table]]()
        for partition, rows in zip(requested, self.read_daily_files(table_name, requested, schema=schema), strict=True):
            if isinstance(rows, FileDamaged):
                raise rows
            if rows is not None:
                existing.append((partition, rows))
        together = pa.concat_tables([schema.empty_table(), *(rows for _, rows in existing)])
        if not with_date:
            return together
        return with_date_column(together, ((partition.day, rows.num_rows) for partition, rows in existing))

    def read_daily_files(
        self, table_name: str, partitions: Iterable[Partition], *, schema: pa.Schema
    ) -> Iterator[pa.Table | FileDamaged | None]:
        """Yield the rows of each partition as `read_table` returns them, or its error if it is damaged."""
        paths = [partition_path(table_name, partition) for partition in partitions]
        for rows in self._read_files(paths, partial(_read_rows, schema=schema)):
            if isinstance(rows, LakeUnavailable):
                raise rows
            yield rows

    def partitions(self, table_name: str, *, days: Iterable[date] | None = None) -> list[Partition]:
        """List the partitions that exist on `days` (by default on any day), sorted by day and instance."""
        return [*self.file_versions(table_name, days=days)]

    def days(self, table_name: str) -> list[date]:
        """List the days that have a directory, which may lack files."""
        found = map(parse_directory, self.storage.directories(table_name))
        return [partition.day for partition in found if partition is not None]

    @paused_collection()
    def file_versions(
        self, table_name: str, *, days: Iterable[date] | None = None, marks: Marks = NO_MARKS
    ) -> dict[Partition, FileVersion]:
        """Return the version of the file of each partition, as `partitions` lists them. It is part of the listing.

        `marks`: if given, only files of instances that are in the numbers.
        """
        wanted = None if days is None else set(days)
        is_remote, listed = self.storage.is_remote, wanted
        if listed is None and is_remote:
            # A listing comes in pages, one after the other: at 80 ms, those of 200 instances × 3 years take 17 s. Those
            # of the months of a table are listed at once.
            listed = set(self.days(table_name))
        listings = [[table_name]]
        if listed is not None and (is_remote or len(listed) <= _MAX_DAY_LISTINGS):
            months = groupby(sorted(listed), key=lambda day: day.replace(day=1))
            listings = [[day_directory(table_name, day) for day in of_month] for _, of_month in months]
        declared = RAW_TABLES.get(table_name)
        found: dict[date, list[tuple[str, Partition, FileVersion]]] = {}
        for files in self.storage.map(lambda listing: self.storage.named_files(listing, FILE_NAME), listings):
            for path, version in files.items():
                partition = parse_directory(path.removeprefix(f"{table_name}/").removesuffix(f"/{FILE_NAME}"))
                if partition is None or (wanted is not None and partition.day not in wanted):
                    continue
                has_instance = partition.instance_id is not None
                # A file with the layout of another table is none of this one.
                is_of_table = declared is None or declared.has_file_per_instance is has_instance
                if is_of_table and marks.is_in_numbers(partition.instance_id):
                    found.setdefault(partition.day, []).append((partition.instance_id or "", partition, version))
        # Lists of days are sorted: one of all files takes six times as long, and to hash partitions longer still.
        by_day = (sorted(found[day], key=itemgetter(0)) for day in sorted(found))
        return {partition: version for _, partition, version in chain.from_iterable(by_day)}

    def table_names(self) -> list[str]:
        """List the directories of the tables, and of the report."""
        return [name for name in self.storage.directories() if not name.startswith(("_", "."))]

    def remove_left_over_folders(self) -> list[str]:
        """Remove the folders of state that earlier versions kept, and return their names.

        After an interrupt, the next call removes the rest.
        """
        found = [name for name in self.storage.directories() if name in _LEFT_OVER]
        for name in found:
            self.storage.remove_directory(name)
        return found

    def read_metadata(self, table_name: str, partition: Partition | None = None) -> FileMetadata | None:
        """Read the metadata of a partition, or of an unpartitioned table; None if the file does not exist."""
        parse = partial(parse_metadata, required=_required_metadata(table_name))
        return self._read_file(partition_path(table_name, partition), parse)

    def read_all_metadata(
        self, table_name: str, partitions: Iterable[Partition]
    ) -> dict[Partition, FileMetadata | LakeUnavailable | FileDamaged]:
        """Read the metadata of the partitions that exist, or why they cannot be read."""
        requested = list(partitions)
        paths = [partition_path(table_name, each) for each in requested]
        files = self._read_files(paths, partial(parse_metadata, required=_required_metadata(table_name)))
        return {partition: file for partition, file in zip(requested, files, strict=True) if file is not None}

    def day_url(self, table_name: str, day: date) -> str:
        return self.storage.location(day_directory(table_name, day))

    def url(self, table_name: str, partition: Partition | None) -> str:
        """Return the location of a file: a path on a local disk, else a URL, without credentials."""
        return self.storage.location(partition_path(table_name, partition))

    def check_writable(self) -> None:
        """Write a file below the root, read it and remove it; then `Storage.compares` is what the store has said."""
        path = f".check-{secrets.token_hex(8)}"
        for error in self.storage.put_all({path: b"later-reporting"}, replaced={path: None}).values():
            raise error
        self.storage.read(path)
        self.storage.remove(path)

    def _read_file(self, path: str, parse: Callable[[bytes], _Parsed]) -> _Parsed | None:
        (parsed,) = self._read_files([path], parse)
        if isinstance(parsed, LakeUnavailable | FileDamaged):
            raise parsed
        return parsed

    def _read_files(
        self, paths: Sequence[str], parse: Callable[[bytes], _Parsed]
    ) -> Iterator[_Parsed | LakeUnavailable | FileDamaged | None]:
        """Yield each file as `parse` returns it, or its error; None if it does not exist."""
        for path, data in zip(paths, self.storage.read_all(paths), strict=True):
            try:
                yield data if data is None or isinstance(data, LakeUnavailable) else parse(data)
            except FileDamaged as error:
                damaged = damaged_file_error(self.storage.location(path), error, step=step_to_replace(path))
                damaged.__cause__ = error
                yield damaged


def _read_rows(data: bytes, *, schema: pa.Schema) -> pa.Table:
    return with_networks(from_parquet(data, schema=schema))


def with_first_fetch(metadata: Mapping[str, str], replaced: FileMetadata) -> dict[str, str]:
    """Return the metadata of a new file, with when the file that it replaces was first fetched."""
    first = replaced.first_fetched_at or replaced.fetched_at
    return {**metadata, **({FIRST_FETCHED_AT: instant_text(first)} if first else {})}


def _required_metadata(table_name: str) -> Collection[str]:
    """Return what the metadata of a table's files have to have: a hash, and those of a fetched file its time."""
    return (CONTENT_HASH, *([FETCHED_AT] if table_name in RAW_NAMES else []))


def _intact_key_values(data: bytes) -> Mapping[str, str]:
    with suppress(MetadataDamaged):
        return parse_metadata(data).key_values
    return {}
