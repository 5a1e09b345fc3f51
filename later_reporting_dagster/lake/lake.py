"""The lake: Parquet tables whose partitions are replaced as a whole."""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from later_reporting_dagster.lake.compaction import MonthCompactionResult, MonthCopies
from later_reporting_dagster.lake.concurrency import map_concurrently
from later_reporting_dagster.lake.parquet_file import (
    PARTITION_STEP,
    TABLE_STEP,
    FileDamaged,
    FileMetadata,
    content_hash_of,
    damaged_file_error,
    from_parquet,
    has_content,
    parse_metadata,
    to_parquet,
)
from later_reporting_dagster.lake.partition_listing import find_directories, partition_sort_key
from later_reporting_dagster.lake.partition_paths import FILE_NAME, Partition, day_directory, partition_path, table_path
from later_reporting_dagster.lake.quarantine import Quarantine
from later_reporting_dagster.lake.schema import DATE, date_column, with_date_field
from later_reporting_dagster.lake.storage import (
    FileVersion,
    LakeUnavailable,
    Storage,
    open_storage,
    without_credentials,
)

if TYPE_CHECKING:
    import pyarrow.dataset

# Metadata of a fetched file: when its content was fetched and, if it has replaced other content, the first fetch.
FETCHED_AT, FIRST_FETCHED_AT = "fetched_at", "first_fetched_at"
# Above this number of days, one listing of the whole table is faster than one listing of each day.
_MAX_DAY_LISTINGS = 32


class ReplacementRejected(Exception):  # noqa: N818 - a decision of the caller, not a bug
    """A `ReplacementCheck` rejected new rows. The partition keeps its old rows; the message has the reason."""


# Called with the partition, the stored rows and the new rows. The stored rows have only the columns that the new rows
# also have. Raises `ReplacementRejected` to keep the stored rows.
ReplacementCheck = Callable[[Partition, pa.Table, pa.Table], None]


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The result of a write.

    Attributes:
        url: the location of the file: a path on a local disk, else a URL, without credentials.
        rows: the number of rows; 0 for a file that is not a table.
        bytes: the size of the file.
        content_hash: the hash of the rows, see `content_hash_of`; for a file that is not a table, the SHA-256 of its
            bytes.
        changed: False if the file already had the same rows (or bytes), so it was not written.
    """

    url: str
    rows: int
    bytes: int
    content_hash: str
    changed: bool


class Lake:
    """Parquet partitions below one root: `{root}/{table}/date=…/instance_id=…/part-0.parquet`.

    Safe to use from several threads and processes: if two of them write a partition at once, it then has
    exactly the rows of one of them. Unless its docstring says otherwise, a method raises `LakeUnavailable` if the
    root cannot be reached, read or written.

    Example:
        >>> import tempfile
        >>> from datetime import date
        >>> import pyarrow as pa
        >>> from later_reporting_dagster.lake import Lake, Partition
        >>> partition = Partition(date(2024, 1, 3), "instance_000")
        >>> rows = pa.table({"post_id": [1, 2]})
        >>> with tempfile.TemporaryDirectory() as root:
        ...     lake = Lake(root)
        ...     first = lake.write("posts", partition, rows, metadata={"fetched_at": "2024-01-04"})
        ...     again = lake.write("posts", partition, rows)
        ...     partitions = lake.partitions("posts")
        ...     stored = lake.read("posts", partitions, schema=rows.schema)
        ...     metadata = lake.read_metadata("posts", partition)
        >>> (first.rows, first.changed, again.changed)
        (2, True, False)
        >>> [str(partition) for partition in partitions]
        ['2024-01-03 instance_000']
        >>> stored["post_id"].to_pylist()
        [1, 2]
        >>> metadata.key_values
        {'fetched_at': '2024-01-04'}

    Attributes:
        root: the root, without credentials.
        quarantine: the bad rows of the tables.

    Args:
        root: a local path or an fsspec URL.
        storage_options: the options that fsspec needs to open the root, such as credentials. In messages, they are
            redacted; of a URL, only the userinfo and the query.

    Raises:
        ValueError: the root is empty, its scheme is unknown or needs a missing package, or it goes through a cache.
    """

    def __init__(self, root: str, *, storage_options: Mapping[str, Any] | None = None) -> None:
        self._storage = open_storage(root, storage_options or {})
        self.root = without_credentials(root)
        self.quarantine = Quarantine(self._storage)
        self._compacted = MonthCopies(self._storage)

    def __repr__(self) -> str:
        return f"Lake({self.root!r})"

    @property
    def storage(self) -> Storage:
        """The files below the root, for other modules of this package."""
        return self._storage

    def write(
        self, table_name: str, partition: Partition, rows: pa.Table, *, metadata: Mapping[str, str] | None = None
    ) -> WriteResult:
        """Replace all rows of a partition.

        If the partition already has the same rows in the same order, nothing is written, and the stored metadata stay.
        A damaged stored file is replaced. If the stored file cannot be read for another reason, nothing is written.

        Args:
            table_name: the table.
            partition: the partition.
            rows: all rows of the partition.
            metadata: stored in the file's Parquet key-value metadata, each as `later_reporting.{name}`.

        Raises:
            ValueError: the instance id cannot be encoded; see `encode_instance_id`.
            TypeError: a column has a type that the lake does not store.
            LakeUnavailable: the partition is unchanged, unless only syncing its directory failed: then the new rows may
                not survive a loss of power.
        """
        return _result_or_raise(self.write_all(table_name, {partition: rows}, metadata=metadata)[partition])

    def write_all(
        self,
        table_name: str,
        rows: Mapping[Partition, pa.Table],
        *,
        metadata: Mapping[str, str] | None = None,
        check_replacement: ReplacementCheck | None = None,
    ) -> dict[Partition, WriteResult | LakeUnavailable | ReplacementRejected]:
        """Replace all rows of several partitions, as `write` does; faster than one call for each.

        Args:
            table_name: the table.
            rows: all rows of each partition.
            metadata: as for `write`, the same for all partitions.
            check_replacement: called before anything is written, for each partition whose rows would change; raises
                `ReplacementRejected` to keep the stored rows. Not called if the stored file cannot be read with the
                new schema.

        Returns:
            The result of each partition, or its error; see `write`. An error does not affect the other partitions.

        Raises:
            ValueError: as `write`; nothing was written.
            TypeError: as `write`; nothing was written.
        """
        partitions = {partition_path(table_name, partition): partition for partition in rows}

        def check_path(path: str, old: pa.Table, new: pa.Table) -> None:
            if check_replacement is not None:
                check_replacement(partitions[path], old, new)

        results = self._replace(
            {path: rows[partition] for path, partition in partitions.items()},
            metadata=metadata or {},
            check_replacement=check_path,
        )
        return {partitions[path]: result for path, result in results.items()}

    def write_table(self, table_name: str, rows: pa.Table, *, metadata: Mapping[str, str] | None = None) -> WriteResult:
        """Replace all rows of an unpartitioned table, as `write` does. The table is one file."""
        path = table_path(table_name)
        return _result_or_raise(self._replace({path: rows}, metadata=metadata or {}, check_replacement=None)[path])

    def read_table(self, table_name: str, *, schema: pa.Schema) -> pa.Table | None:
        """Read an unpartitioned table as exactly `schema`; None if its file does not exist.

        Raises:
            FileDamaged: as `read`.
        """
        return self._read_file(table_path(table_name), schema=schema, step=TABLE_STEP)

    def write_file(self, directory: str, name: str, data: bytes) -> WriteResult:
        """Replace a file that is not a table, such as a web page; equal bytes are not written again.

        Args:
            directory: the directory below the root.
            name: the name of the file.
            data: the bytes of the file.
        """
        path = f"{directory}/{name}"
        changed = self._storage.read(path) != data
        if changed:
            self._storage.write(path, data)
        return WriteResult(self._storage.location(path), 0, len(data), hashlib.sha256(data).hexdigest(), changed)

    def read(
        self, table_name: str, partitions: Iterable[Partition], *, schema: pa.Schema, with_date: bool = False
    ) -> pa.Table:
        """Read the partitions that exist, in the order given, as exactly `schema`.

        A day is read from the compacted copy of its month if the copy is still current for that day; otherwise from its
        daily file. The rows are the same.

        Args:
            table_name: the table.
            partitions: the partitions to read.
            schema: the columns to read. If a file lacks a nullable column, the column is null in its rows.
            with_date: whether to add a first column `date`: the day of the row's partition.

        Raises:
            FileDamaged: a file is not Parquet, or a column is missing or of another type.
        """
        requested = list(partitions)
        compacted = self._compacted.read(table_name, requested, schema=schema)

        def read_daily(partition: Partition) -> pa.Table | None:
            return self._read_file(partition_path(table_name, partition), schema=schema, step=PARTITION_STEP)

        daily = iter(map_concurrently(read_daily, [each for each in requested if each not in compacted]))
        tables = [compacted[partition] if partition in compacted else next(daily) for partition in requested]
        existing = [(partition, rows) for partition, rows in zip(requested, tables, strict=True) if rows is not None]
        together = pa.concat_tables([schema.empty_table(), *(rows for _, rows in existing)])
        if not with_date:
            return together
        return together.add_column(0, DATE, date_column((partition.day, rows.num_rows) for partition, rows in existing))

    def compact(self, table_name: str, *, closed_before: date, now: datetime) -> Iterator[MonthCompactionResult]:
        """Copy the daily files of each closed month to one file for each instance; reads then use this copy.

        A copy that is current is not written again. A partition that is replaced later is read from its own file until
        the month is compacted again.

        Args:
            table_name: the table.
            closed_before: a month is closed if its last day is before this day.
            now: the current time; files that are only a few seconds old are left for the next run.

        Yields:
            The result of each month and instance, as soon as it is compacted.

        Raises:
            ValueError: the lake's filesystem reports neither ETags nor modification times.
        """
        return self._compacted.compact(table_name, self.partitions(table_name), closed_before=closed_before, now=now)

    def partitions(self, table_name: str, *, days: Iterable[date] | None = None) -> list[Partition]:
        """List the partitions that exist on `days` (by default on any day), sorted by day and instance."""
        return [*self.file_versions(table_name, days=days)]

    def file_versions(self, table_name: str, *, days: Iterable[date] | None = None) -> dict[Partition, FileVersion]:
        """Return the version of the file of each partition, as `partitions` lists them. It is part of the listing."""
        wanted = None if days is None else set(days)
        listed = wanted if wanted is not None and len(wanted) <= _MAX_DAY_LISTINGS else None
        found = [
            (partition, version)
            for _, partition, version in find_directories(self._storage, table_name, FILE_NAME, days=listed)
            if partition is not None and (wanted is None or partition.day in wanted)
        ]
        return dict(sorted(found, key=lambda each: partition_sort_key(each[0])))

    def table_names(self) -> list[str]:
        """List the directories of the tables, and of the report."""
        return [name for name in self._storage.directories() if not name.startswith(("_", "."))]

    def existing_partitions(self, table_name: str, partitions: Iterable[Partition]) -> list[Partition]:
        """Return the partitions that exist, sorted by day and instance."""
        wanted = set(partitions)
        found = self.partitions(table_name, days={partition.day for partition in wanted})
        return [partition for partition in found if partition in wanted]

    def read_metadata(self, table_name: str, partition: Partition) -> FileMetadata | None:
        """Read the metadata of a partition's file; None if the file does not exist.

        Raises:
            FileDamaged: the file is not Parquet.
        """
        path = partition_path(table_name, partition)
        data = self._storage.read(path)
        try:
            return None if data is None else parse_metadata(data)
        except FileDamaged as error:
            raise damaged_file_error(self._storage.location(path), error, step=PARTITION_STEP) from error

    def read_all_metadata(self, table_name: str, partitions: Iterable[Partition]) -> dict[Partition, FileMetadata]:
        """Read the metadata of the partitions that exist, concurrently.

        For a file that cannot be read, the result is a `FileMetadata` with 0 rows and an empty hash.
        """

        def read(partition: Partition) -> FileMetadata | None:
            try:
                return self.read_metadata(table_name, partition)
            except (LakeUnavailable, FileDamaged):
                return FileMetadata(0, 0, "", {})

        requested = list(partitions)
        found = zip(requested, map_concurrently(read, requested), strict=True)
        return {partition: metadata for partition, metadata in found if metadata is not None}

    def day_url(self, table_name: str, day: date) -> str:
        """Return the location of a day's files: a path on a local disk, else a URL, without credentials."""
        return self._storage.location(day_directory(table_name, day))

    def url(self, table_name: str, partition: Partition) -> str:
        """Return the location of a partition's file: a path on a local disk, else a URL, without credentials."""
        return self._storage.location(partition_path(table_name, partition))

    def dataset(
        self, table_name: str, schema: pa.Schema, partitions: Iterable[Partition] | None = None
    ) -> "pyarrow.dataset.Dataset":
        """Return a lazy dataset of the partitions that exist now; by default of all.

        A scan reads only the selected columns, and skips the partitions that a filter on `date` or `instance_id`
        excludes. Unlike `read`, it may fail if a partition is replaced meanwhile.

        Args:
            table_name: the table.
            schema: the columns of the dataset; a first column `date` is added.
            partitions: the partitions.
        """
        # Deferred because pyarrow.dataset imports pandas, which takes 40 % of the time of `import dagster`.
        from later_reporting_dagster.lake.arrow_dataset import dataset_of_files

        return dataset_of_files(self._storage, self.files(table_name, partitions), schema=with_date_field(schema))

    def files(
        self, table_name: str, partitions: Iterable[Partition] | None = None, *, known_to_exist: bool = False
    ) -> dict[str, list[Partition]]:
        """Return the files to read for the partitions that exist now; by default for all.

        Args:
            table_name: the table.
            partitions: the partitions.
            known_to_exist: skip the listing, because all of `partitions` exist.

        Returns:
            For each path (relative to the root), the partitions in the file. A path is that of a month's copy if all
            days in the copy are requested and current; all other partitions are read from their daily files.
        """
        if partitions is None:
            found = self.partitions(table_name)
        elif known_to_exist:
            found = sorted(partitions, key=partition_sort_key)
        else:
            found = self.existing_partitions(table_name, partitions)
        files = self._compacted.files(table_name, found)
        compacted = set(chain.from_iterable(files.values()))
        return files | {partition_path(table_name, each): [each] for each in found if each not in compacted}

    def table_dataset(self, table_name: str, schema: pa.Schema) -> "pyarrow.dataset.Dataset":
        """Return an unpartitioned table as a lazy dataset of `schema`; empty if its file does not exist."""
        # Deferred for the same reason as in `dataset`.
        from later_reporting_dagster.lake.arrow_dataset import dataset_of_files

        path = table_path(table_name)
        return dataset_of_files(
            self._storage, {path: []} if path in self._storage.files(table_name) else {}, schema=schema
        )

    def check_writable(self) -> None:
        """Write a file below the root, read it back and remove it.

        Raises:
            LakeUnavailable: the file cannot be written, read or removed, or the bytes read are not the bytes written.
        """
        path, data = f".check-{secrets.token_hex(8)}", b"later-reporting"
        self._storage.write(path, data)
        try:
            if self._storage.read(path) != data:
                raise LakeUnavailable(
                    f"{self.root} does not return what was written. Next step: check that disk or store"
                )
        finally:
            self._storage.remove(path)

    def _replace(
        self,
        tables: Mapping[str, pa.Table],
        *,
        metadata: Mapping[str, str],
        check_replacement: Callable[[str, pa.Table, pa.Table], None] | None,
    ) -> dict[str, WriteResult | LakeUnavailable | ReplacementRejected]:
        """Replace files, by path; return the result or the error of each."""
        content_hashes = {path: content_hash_of(rows) for path, rows in tables.items()}
        results: dict[str, WriteResult | LakeUnavailable | ReplacementRejected] = {}
        new_files: dict[str, bytes] = {}

        read = self._read_or_error
        stored = map_concurrently(read, tables) if self._storage.is_remote else map(read, tables)
        for (path, rows), data in zip(tables.items(), stored, strict=True):
            if isinstance(data, LakeUnavailable):
                results[path] = data
                continue
            changed = data is None or not has_content(data, content_hashes[path])
            if data is not None and changed and check_replacement is not None:
                try:
                    check_replacement(path, from_parquet(data, schema=rows.schema, only_stored=True), rows)
                except ReplacementRejected as rejection:
                    results[path] = rejection
                    continue
                except FileDamaged:
                    pass  # no stored rows to compare with
            if data is None or changed:
                key_values = {**metadata, **_first_fetch(data)}
                data = to_parquet(rows, content_hash=content_hashes[path], key_values=key_values)
                new_files[path] = data
            location = self._storage.location(path)
            results[path] = WriteResult(location, rows.num_rows, len(data), content_hashes[path], changed)
        return results | self._storage.write_all(new_files)

    def _read_or_error(self, path: str) -> bytes | LakeUnavailable | None:
        try:
            return self._storage.read(path)
        except LakeUnavailable as error:
            return error

    def _read_file(self, path: str, *, schema: pa.Schema, step: str) -> pa.Table | None:
        data = self._storage.read(path)
        if data is None:
            return None
        try:
            return from_parquet(data, schema=schema)
        except FileDamaged as error:
            raise damaged_file_error(self._storage.location(path), error, step=step) from error


def _first_fetch(replaced: bytes | None) -> dict[str, str]:
    """Return when the file that is replaced was first fetched, as metadata of the new file."""
    with suppress(FileDamaged):
        if replaced is not None:
            before = parse_metadata(replaced).key_values
            if first := before.get(FIRST_FETCHED_AT, before.get(FETCHED_AT)):
                return {FIRST_FETCHED_AT: first}
    return {}


def _result_or_raise(result: WriteResult | LakeUnavailable | ReplacementRejected) -> WriteResult:
    if isinstance(result, Exception):
        raise result
    return result
