"""The lake: partitions that are replaced whole, verified before they are visible, and read with nothing inferred."""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake.file import (
    PartitionDamaged,
    StoredFacts,
    content_hash_of,
    facts_of,
    from_parquet,
    is_faithful,
    to_parquet,
)
from later_reporting_dagster.lake.partition import (
    FILE_NAME,
    Partition,
    day_directory,
    partition_directory,
    partition_of,
    partition_path,
)
from later_reporting_dagster.lake.storage import LakeUnavailable, storage_at, without_credentials

if TYPE_CHECKING:
    import pyarrow.dataset

_QUARANTINE = "_quarantine"
_QUARANTINE_FILE = "part-0.jsonl"
_Given = TypeVar("_Given")
_Result = TypeVar("_Result")

# Files read at the same time: enough to hide the latency of an object store, few enough for any file limit.
_READERS = 16

# Types of what stands in the paths, so that the id `007` stays text.
PATH_SCHEMA: pa.Schema = pa.schema([("date", pa.date32()), ("instance_id", pa.string())])


@dataclass(frozen=True, slots=True)
class Written:
    """What a write came to. `changed` is False when the lake held the same rows already and no byte was touched."""

    url: str
    rows: int
    bytes: int
    content_hash: str
    changed: bool


@dataclass(frozen=True, slots=True)
class QuarantinedRow:
    """A bad row as it was set aside. `partition` is None when the row does not tell which one it belongs to."""

    partition: Partition | None
    reason: str
    raw: str
    query: str


class Lake:
    """Parquet partitions below one root: `{root}/{asset}/date=…/instance_id=…/part-0.parquet`.

    Safe to use from several threads and processes: a partition written twice at once is one of the two, whole.

    Every method raises `LakeUnavailable` when the root cannot be reached, read or written.

    Args:
        root: a local path or any fsspec URL.
        storage_options: what fsspec needs to open it, such as credentials; never shown.

    Raises:
        ValueError: the root is empty, or its scheme is unknown or lacks its package.
    """

    def __init__(self, root: str, *, storage_options: Mapping[str, Any] | None = None) -> None:
        self._storage = storage_at(root, storage_options or {})
        self._shown = without_credentials(root)

    def __repr__(self) -> str:
        return f"Lake({self._shown!r})"

    @property
    def root(self) -> str:
        """Where the lake lies, for people: without credentials."""
        return self._shown

    def write(
        self, asset: str, partition: Partition, table: pa.Table, *, facts: Mapping[str, str] | None = None
    ) -> Written:
        """Replaces a partition whole with `table`, whose order of rows is kept and is part of its content.

        When the partition holds the same content already nothing is written, and its old facts stand. A stored file
        that cannot be read is replaced.

        Args:
            asset: the name of the table.
            partition: which part of it; `table` is all that this partition is to hold, perhaps no rows.
            table: int64, float64, instant and string columns.
            facts: stored in the file's key-value metadata beside the content hash, as `later_reporting.{name}`.

        Raises:
            ValueError: the instance id cannot be a partition.
            TypeError: a column is of another type.
            LakeUnavailable: also when what was staged does not read back as it was written; the partition is then
                what it was.
        """
        path = partition_path(asset, partition)
        url = self._storage.shown(path)
        content_hash = content_hash_of(table)
        stored = self._storage.read(path)
        # Not by its footer alone: a file whose rows are damaged is not what it says it is.
        if stored is not None and is_faithful(stored, table, content_hash=content_hash):
            return Written(url, table.num_rows, len(stored), content_hash, changed=False)
        data = to_parquet(table, content_hash=content_hash, facts=facts or {})

        def check(staged: bytes) -> None:
            if not is_faithful(staged, table, content_hash=content_hash):
                raise LakeUnavailable(
                    f"cannot write {url}: what was staged does not read back as it was written, so nothing was"
                    " replaced. Next step: check that disk or store, and run again"
                )

        self._storage.write(path, data, check=check)
        return Written(url, table.num_rows, len(data), content_hash, changed=True)

    def read(self, asset: str, partitions: Iterable[Partition], *, schema: pa.Schema) -> pa.Table:
        """The rows of those of `partitions` that exist, in the order given, as exactly `schema`.

        `schema` may name fewer columns than the files have. A nullable column that a file is too old to have is null.

        Raises:
            PartitionDamaged: a file is no Parquet, or a column is missing or of another type.
        """

        def rows(partition: Partition) -> pa.Table | None:
            path = partition_path(asset, partition)
            data = self._storage.read(path)
            if data is None:
                return None
            try:
                return from_parquet(data, schema=schema)
            except PartitionDamaged as error:
                raise self._damaged(path, error) from error

        tables = [table for table in _side_by_side(rows, partitions) if table is not None]
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def partitions(self, asset: str, *, days: Iterable[date] | None = None) -> list[Partition]:
        """The partitions that exist, sorted; of `days` only, when given. What is not a partition's file is ignored."""
        found = [partition for _, partition in self._found(asset, FILE_NAME, days=days) if partition is not None]
        return sorted(found, key=lambda partition: (partition.day, partition.instance_id or ""))

    def facts(self, asset: str, partition: Partition) -> StoredFacts | None:
        """What a partition's file says about itself; None when there is no such file.

        Raises:
            PartitionDamaged: the file is no Parquet.
        """
        path = partition_path(asset, partition)
        try:
            return self._facts(path)
        except PartitionDamaged as error:
            raise self._damaged(path, error) from error

    def url(self, asset: str, partition: Partition) -> str:
        """Where a partition lies, for people: a path on a local disk, else a URL, without credentials."""
        return self._storage.shown(partition_path(asset, partition))

    def dataset(self, asset: str, schema: pa.Schema) -> "pyarrow.dataset.Dataset":
        """The partitions that exist now as one lazy dataset: `schema`'s columns, and `date` from the paths.

        For exploring and filtering; a partition that is replaced during a scan may fail it, where `read` may not.
        """
        import pyarrow.dataset  # brings pandas along, which nothing else here needs

        return pyarrow.dataset.dataset(
            [self._storage.full_path(partition_path(asset, partition)) for partition in self.partitions(asset)],
            schema=schema.append(PATH_SCHEMA.field("date")),
            format="parquet",
            filesystem=self._storage.arrow_filesystem,
            # No id is empty, so no id is taken for Hive's null.
            partitioning=pyarrow.dataset.HivePartitioning(PATH_SCHEMA, null_fallback=""),
            partition_base_dir=self._storage.full_path(asset),
        )

    def quarantine(self, asset: str, partition: Partition, bad_rows: Sequence[BadRow], *, query: str) -> str | None:
        """Sets a partition's bad rows aside, in place of those set aside before; none at all clears the place.

        Args:
            asset: the name of the table that the rows were meant for.
            partition: the one that they belong to.
            bad_rows: all of it.
            query: the query that they came from, without secrets.

        Returns:
            Where they lie; None when there are none.
        """
        return self._set_aside(partition_directory(asset, partition), bad_rows, query=query)

    def quarantine_query(self, asset: str, bad_rows: Sequence[BadRow], *, query: str) -> str | None:
        """The same for the bad rows of a query that do not tell their partition: they are filed under the query."""
        digest = hashlib.sha256(query.encode(errors="backslashreplace")).hexdigest()
        return self._set_aside(f"{asset}/query={digest[:32]}", bad_rows, query=query)

    def quarantined(self, asset: str, *, days: Iterable[date] | None = None) -> list[QuarantinedRow]:
        """The rows set aside, by partition; with `days`, those of these days and those that tell no partition.

        Raises:
            PartitionDamaged: a quarantine file is not what `quarantine` writes.
        """
        found = list(self._found(f"{_QUARANTINE}/{asset}", _QUARANTINE_FILE, days=days))
        if days is not None:
            found += [
                (directory, None)
                for directory, partition in self._found(f"{_QUARANTINE}/{asset}", _QUARANTINE_FILE)
                if partition is None
            ]

        def rows(place: tuple[str, Partition | None]) -> list[QuarantinedRow]:
            directory, partition = place
            path = f"{directory}/{_QUARANTINE_FILE}"
            try:
                lines = [json.loads(line) for line in (self._storage.read(path) or b"").splitlines()]
                return [QuarantinedRow(partition, line["reason"], line["raw"], line["query"]) for line in lines]
            except (ValueError, TypeError, KeyError) as error:
                raise self._damaged(path, error) from error

        return list(chain.from_iterable(_side_by_side(rows, sorted(found, key=lambda place: place[0]))))

    def check_writable(self) -> None:
        """Writes a file below the root, reads it back and removes it.

        Raises:
            LakeUnavailable: one of these failed; the message says why and what to do.
        """
        path, data = f".check-{secrets.token_hex(8)}", b"later-reporting"
        self._storage.write(path, data, check=_nothing_to_check)
        try:
            if self._storage.read(path) != data:
                raise LakeUnavailable(f"{self._shown} does not give back what is written: check that disk or store")
        finally:
            self._storage.remove(path)

    def _facts(self, path: str) -> StoredFacts | None:
        data = self._storage.read(path)
        return None if data is None else facts_of(data)

    def _set_aside(self, directory: str, bad_rows: Sequence[BadRow], *, query: str) -> str | None:
        path = f"{_QUARANTINE}/{directory}/{_QUARANTINE_FILE}"
        if not bad_rows:
            self._storage.remove(path)
            return None
        lines = [json.dumps({"reason": row.reason, "raw": row.raw, "query": query}) for row in bad_rows]
        data = "".join(f"{line}\n" for line in lines).encode()

        def check(staged: bytes) -> None:
            if staged != data:
                raise LakeUnavailable(
                    f"cannot write {self._storage.shown(path)}: it does not read back as it was written."
                    " Next step: check that disk or store, and run again"
                )

        self._storage.write(path, data, check=check)
        return self._storage.shown(path)

    def _found(
        self, under: str, name: str, *, days: Iterable[date] | None = None
    ) -> Iterator[tuple[str, Partition | None]]:
        """Directories below `under` that hold a file `name`, each with its partition where it is one."""
        places = [under] if days is None else [day_directory(under, day) for day in sorted(set(days))]
        for path in chain.from_iterable(_side_by_side(self._storage.files, places)):
            directory, _, file = path.rpartition("/")
            if file == name:
                yield directory, partition_of(directory.removeprefix(f"{under}/"))

    def _damaged(self, path: str, error: Exception) -> PartitionDamaged:
        return PartitionDamaged(
            f"{self._storage.shown(path)} is damaged: {error}. Next step: materialize this partition again"
        )


def _side_by_side(function: Callable[[_Given], _Result], arguments: Iterable[_Given]) -> list[_Result]:
    """The results in order, computed in threads; the first failure is raised."""
    given = list(arguments)
    if len(given) < 2:
        return [function(argument) for argument in given]
    with ThreadPoolExecutor(min(_READERS, len(given))) as threads:
        return list(threads.map(function, given))


def _nothing_to_check(_staged: bytes) -> None:
    """The file is read back after it is in place."""
