"""The lake: partitions that are replaced whole, verified before they are visible, and read with nothing inferred."""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from later_reporting_dagster.lake.compaction import CompactedMonth, CompactedMonths
from later_reporting_dagster.lake.concurrency import side_by_side
from later_reporting_dagster.lake.parquet_file import (
    PartitionDamaged,
    StoredFacts,
    content_hash_of,
    damaged,
    facts_of,
    from_parquet,
    is_faithful,
    to_parquet,
)
from later_reporting_dagster.lake.partition_listing import by_day, directories_with
from later_reporting_dagster.lake.partition_paths import (
    FILE_NAME,
    Partition,
    day_directory,
    month_of,
    partition_path,
    table_path,
)
from later_reporting_dagster.lake.quarantine import Quarantine
from later_reporting_dagster.lake.schema import DATE, dated, day_column
from later_reporting_dagster.lake.storage import LakeUnavailable, Storage, storage_at, without_credentials

if TYPE_CHECKING:
    import pyarrow.dataset

# More days than these are found sooner by a listing of the whole table.
_DAYS_LISTED_ONE_BY_ONE = 32


class NotReplaced(Exception):  # noqa: N818 - named for what happened
    """A review refused a replacement. The partition stays as it was; the message says why."""


# Sees what lies in the lake, in those columns that it shares with what is to replace it, and what that is; refuses by
# raising `NotReplaced`.
Review = Callable[[Partition, pa.Table, pa.Table], None]


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a write. `changed` is False when the lake held the same already, and no byte was touched."""

    url: str
    rows: int
    bytes: int
    content_hash: str
    changed: bool


@dataclass(frozen=True, slots=True)
class DayRead:
    """The rows of each partition of a day, and the error of each that cannot be read.

    When the partitions of the day cannot be listed, `unread` has the day itself, without an instance.
    """

    day: date
    tables: Mapping[Partition, pa.Table]
    unread: Mapping[Partition, LakeUnavailable | PartitionDamaged]


class Lake:
    """Parquet partitions below one root: `{root}/{asset}/date=…/instance_id=…/part-0.parquet`.

    Safe to use from several threads and processes: a partition written twice at once is one of the two, whole. Every
    method raises `LakeUnavailable` when the root cannot be reached, read or written.

    Attributes:
        root: the root, without credentials.
        quarantine: the bad rows that are set aside beside the tables.

    Args:
        root: a local path or any fsspec URL.
        storage_options: what fsspec needs to open it, such as credentials; never shown.

    Raises:
        ValueError: the root is empty, its scheme is unknown or lacks its package, or it goes through a cache.
    """

    def __init__(self, root: str, *, storage_options: Mapping[str, Any] | None = None) -> None:
        self._storage = storage_at(root, storage_options or {})
        self.root = without_credentials(root)
        self.quarantine = Quarantine(self._storage)
        self._compacted = CompactedMonths(self._storage)

    def __repr__(self) -> str:
        return f"Lake({self.root!r})"

    @property
    def storage(self) -> Storage:
        """The files below the root, for other modules of this package."""
        return self._storage

    def write(
        self, asset: str, partition: Partition, table: pa.Table, *, facts: Mapping[str, str] | None = None
    ) -> Written:
        """Replace a partition whole with `table`, whose order of rows is part of its content.

        Nothing is written when the partition holds the same content already; its old facts stand. A stored file that
        cannot be read is replaced.

        Args:
            asset: the table's name.
            partition: which part of it.
            table: all rows of the partition.
            facts: stored in the file's key-value metadata beside the content hash, as `later_reporting.{name}`.

        Raises:
            ValueError: the instance id cannot be a partition.
            TypeError: a column is of a type that the lake does not store.
            LakeUnavailable: also when the staged file does not read back as it was written; the partition is unchanged.
        """
        return _written(self.write_all(asset, {partition: table}, facts=facts)[partition])

    def write_all(
        self,
        asset: str,
        tables: Mapping[Partition, pa.Table],
        *,
        facts: Mapping[str, str] | None = None,
        review: Review | None = None,
    ) -> dict[Partition, Written | LakeUnavailable | NotReplaced]:
        """Write several partitions as `write` does, at less cost for some dozens together.

        Args:
            asset: the table's name.
            tables: by partition all of its rows.
            facts: as for `write`, for all of them.
            review: called for each partition whose content would change, before anything is staged. A stored file that
                cannot be read by the new schema is replaced without a review.

        Returns:
            The result of each partition. One that cannot be written, or that `review` refuses, does not affect the
            others.

        Raises:
            ValueError: as `write`; nothing was written.
            TypeError: as `write`; nothing was written.
        """
        paths = {partition_path(asset, partition): partition for partition in tables}

        def reviewed(path: str, old: pa.Table, new: pa.Table) -> None:
            if review is not None:
                review(paths[path], old, new)

        outcomes = self._replace(
            {path: tables[partition] for path, partition in paths.items()}, facts=facts or {}, review=reviewed
        )
        return {paths[path]: outcome for path, outcome in outcomes.items()}

    def write_table(self, asset: str, table: pa.Table, *, facts: Mapping[str, str] | None = None) -> Written:
        """Write a table without partitions, one file, as `write` does."""
        path = table_path(asset)
        return _written(self._replace({path: table}, facts=facts or {}, review=None)[path])

    def read_table(self, asset: str, *, schema: pa.Schema) -> pa.Table | None:
        """Read a table without partitions as exactly `schema`; None when there is no such file.

        Raises:
            PartitionDamaged: as `read`.
        """
        return self._read_file(table_path(asset), schema=schema)

    def write_file(self, asset: str, name: str, data: bytes) -> Written:
        """Replace a file of an asset that is no table, such as a page, whole; the same bytes are not written again."""
        path = f"{asset}/{name}"
        changed = self._storage.read(path) != data
        if changed:
            self._storage.write(path, data)
        return Written(self._storage.shown(path), 0, len(data), hashlib.sha256(data).hexdigest(), changed)

    def read(
        self, asset: str, partitions: Iterable[Partition], *, schema: pa.Schema, with_date: bool = False
    ) -> pa.Table:
        """Read the rows of those of `partitions` that exist, in the order given, as exactly `schema`.

        Days whose compacted month is up to date are read from there: the rows are the same.

        Args:
            asset: the table's name.
            partitions: which to read.
            schema: may have fewer columns than the files. A nullable column that a file does not have is null.
            with_date: whether to put the day of each row's partition before the other columns, as `date`.

        Raises:
            PartitionDamaged: a file is no Parquet, or a column is missing or of another type.
        """
        wanted = list(partitions)
        compacted = self._compacted.rows(asset, wanted, schema=schema)

        def rows(partition: Partition) -> pa.Table | None:
            return self._read_file(partition_path(asset, partition), schema=schema)

        daily = iter(side_by_side(rows, [partition for partition in wanted if partition not in compacted]))
        tables = [compacted[partition] if partition in compacted else next(daily) for partition in wanted]
        found = [(partition, table) for partition, table in zip(wanted, tables, strict=True) if table is not None]
        together = pa.concat_tables([schema.empty_table(), *(table for _, table in found)])
        if not with_date:
            return together
        days = day_column((partition.day, table.num_rows) for partition, table in found)
        return together.add_column(0, DATE, days)

    def read_days(self, asset: str, days: Iterable[date] | None = None, *, schema: pa.Schema) -> Iterator[DayRead]:
        """Read one day after the other, as `read` does, in the order given; all existing days when none are given.

        Memory holds at most a month of what is compacted, and a day of what is not. What is wrong with a day is in its
        `DayRead`, and stops no other.

        Raises:
            LakeUnavailable: with no days given, when the existing ones cannot be listed.
        """
        if days is None:
            days = sorted({partition.day for partition in self.partitions(asset)})
        for _, neighbours in groupby(days, key=month_of):
            yield from self._read_neighbours(asset, neighbours, schema=schema)

    def compact(self, asset: str, *, closed_before: date, now: datetime) -> Iterator[CompactedMonth]:
        """Copy each month that ends before `closed_before` to one file an instance, from which it is then read.

        A month whose copy is up to date is left alone. A partition that is replaced afterwards is read from its own
        file until its month is compacted again.

        Args:
            asset: the table's name.
            closed_before: months that end on this day or later are still being restated.
            now: the time; a file written moments ago is left for the next run.

        Yields:
            The result of each month and instance, as it is done.

        Raises:
            ValueError: the lake's filesystem does not tell one version of a file from another.
        """
        return self._compacted.compact(asset, self.partitions(asset), closed_before=closed_before, now=now)

    def partitions(self, asset: str, *, days: Iterable[date] | None = None) -> list[Partition]:
        """List the partitions that exist, sorted; only those of `days`, if given."""
        wanted = None if days is None else set(days)
        listed = wanted if wanted is not None and len(wanted) <= _DAYS_LISTED_ONE_BY_ONE else None
        found = [
            partition
            for _, partition in directories_with(self._storage, asset, FILE_NAME, days=listed)
            if partition is not None and (wanted is None or partition.day in wanted)
        ]
        return sorted(found, key=by_day)

    def existing(self, asset: str, partitions: Iterable[Partition]) -> list[Partition]:
        """Return those of `partitions` that exist, sorted."""
        wanted = set(partitions)
        found = self.partitions(asset, days={partition.day for partition in wanted})
        return [partition for partition in found if partition in wanted]

    def facts(self, asset: str, partition: Partition) -> StoredFacts | None:
        """Read what a partition's file says about itself; None when there is no such file.

        Raises:
            PartitionDamaged: the file is no Parquet.
        """
        path = partition_path(asset, partition)
        data = self._storage.read(path)
        try:
            return None if data is None else facts_of(data)
        except PartitionDamaged as error:
            raise damaged(self._storage.shown(path), error) from error

    def facts_of(self, asset: str, partitions: Iterable[Partition]) -> dict[Partition, StoredFacts]:
        """Return what the files of those of `partitions` that exist say about themselves, read side by side.

        One that cannot be read says nothing: no rows and an empty hash.
        """

        def facts(partition: Partition) -> StoredFacts | None:
            try:
                return self.facts(asset, partition)
            except (LakeUnavailable, PartitionDamaged):
                return StoredFacts(0, 0, "", {})

        wanted = list(partitions)
        found = zip(wanted, side_by_side(facts, wanted), strict=True)
        return {partition: each for partition, each in found if each is not None}

    def day_url(self, asset: str, day: date) -> str:
        """Return where all files of a day lie: a path on a local disk, else a URL, without credentials."""
        return self._storage.shown(day_directory(asset, day))

    def url(self, asset: str, partition: Partition) -> str:
        """Return where a partition lies: a path on a local disk, else a URL, without credentials."""
        return self._storage.shown(partition_path(asset, partition))

    def dataset(
        self, asset: str, schema: pa.Schema, partitions: Iterable[Partition] | None = None
    ) -> "pyarrow.dataset.Dataset":
        """Return those of `partitions` that exist now, or all, as one lazy dataset: `date`, and `schema`'s columns.

        A scan reads only the columns and the partitions that its filter on `date` or `instance_id` leaves, from
        compacted months where these hold nothing else. A partition that is replaced during a scan may fail it; not so
        with `read`.
        """
        # pyarrow.dataset imports pandas, which adds 40 % of `import dagster` to the load.
        from later_reporting_dagster.lake.arrow_dataset import dataset_of

        return dataset_of(self._storage, self.files(asset, partitions), schema=dated(schema))

    def files(
        self, asset: str, partitions: Iterable[Partition] | None = None, *, are_listed: bool = False
    ) -> dict[str, list[Partition]]:
        """Return the files that hold those of `partitions` that exist now, or all, by path, each with what it holds.

        They are compacted months where these hold nothing else. Partitions that `are_listed` already are not again.
        """
        if partitions is None:
            found = self.partitions(asset)
        else:
            found = sorted(partitions, key=by_day) if are_listed else self.existing(asset, partitions)
        files = self._compacted.whole(asset, found)
        compacted = set(chain.from_iterable(files.values()))
        return files | {partition_path(asset, each): [each] for each in found if each not in compacted}

    def sizes(self, asset: str, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Return the size in bytes of the files of those of `partitions` that exist."""
        paths = {partition_path(asset, partition): partition for partition in partitions}
        versions = self._storage.versions([*paths]) if paths else {}
        return {paths[path]: version.bytes for path, version in versions.items()}

    def table_dataset(self, asset: str, schema: pa.Schema) -> "pyarrow.dataset.Dataset":
        """Return a table without partitions as a lazy dataset of `schema`; of no file when there is none."""
        # As in `dataset`.
        from later_reporting_dagster.lake.arrow_dataset import dataset_of

        path = table_path(asset)
        return dataset_of(self._storage, {path: []} if path in self._storage.files(asset) else {}, schema=schema)

    def check_writable(self) -> None:
        """Write a file below the root, read it back and remove it.

        Raises:
            LakeUnavailable: one of these failed; the message says why and what to do.
        """
        path, data = f".check-{secrets.token_hex(8)}", b"later-reporting"
        self._storage.write(path, data)
        try:
            if self._storage.read(path) != data:
                raise LakeUnavailable(f"{self.root} does not give back what is written: check that disk or store")
        finally:
            self._storage.remove(path)

    def _replace(
        self,
        tables: Mapping[str, pa.Table],
        *,
        facts: Mapping[str, str],
        review: Callable[[str, pa.Table, pa.Table], None] | None,
    ) -> dict[str, Written | LakeUnavailable | NotReplaced]:
        content_hashes = dict(zip(tables, map(content_hash_of, tables.values()), strict=True))
        outcomes: dict[str, Written | LakeUnavailable | NotReplaced] = {}
        files: dict[str, bytes] = {}

        def stored(path: str) -> bytes | LakeUnavailable | None:
            try:
                return self._storage.read(path)
            except LakeUnavailable as error:
                return error

        def check(path: str, data: bytes) -> bool:
            return is_faithful(data, tables[path], content_hash=content_hashes[path])

        found = side_by_side(stored, tables) if self._storage.waits else map(stored, tables)
        for (path, table), data in zip(tables.items(), found, strict=True):
            if isinstance(data, LakeUnavailable):
                outcomes[path] = data
                continue
            # Not by its footer alone: a file whose rows are damaged is not what it says it is.
            changed = data is None or not check(path, data)
            if data is not None and changed and review is not None:
                try:
                    review(path, from_parquet(data, schema=table.schema, only_stored=True), table)
                except NotReplaced as refusal:
                    outcomes[path] = refusal
                    continue
                except PartitionDamaged:
                    pass  # nothing that could be compared
            if data is None or changed:
                files[path] = data = to_parquet(table, content_hash=content_hashes[path], facts=facts)
            url = self._storage.shown(path)
            outcomes[path] = Written(url, table.num_rows, len(data), content_hashes[path], changed=changed)
        return outcomes | self._storage.write_all(files, check=check)

    def _read_file(self, path: str, *, schema: pa.Schema) -> pa.Table | None:
        data = self._storage.read(path)
        if data is None:
            return None
        try:
            return from_parquet(data, schema=schema)
        except PartitionDamaged as error:
            raise damaged(self._storage.shown(path), error) from error

    def _read_neighbours(self, asset: str, days: Iterable[date], *, schema: pa.Schema) -> Iterator[DayRead]:
        listed = side_by_side(lambda day: (day, self._listed(asset, day)), days)
        existing = chain.from_iterable(found for _, found in listed if not isinstance(found, LakeUnavailable))
        compacted = self._compacted.rows(asset, existing, schema=schema)

        def rows(partition: Partition) -> pa.Table | LakeUnavailable | PartitionDamaged | None:
            try:
                return self._read_file(partition_path(asset, partition), schema=schema)
            except (LakeUnavailable, PartitionDamaged) as error:
                return error

        for day, found in listed:
            if isinstance(found, LakeUnavailable):
                yield DayRead(day, {}, {Partition(day): found})
                continue
            daily = iter(side_by_side(rows, [partition for partition in found if partition not in compacted]))
            read = {partition: compacted[partition] if partition in compacted else next(daily) for partition in found}
            tables = {each: table for each, table in read.items() if isinstance(table, pa.Table)}
            unread = {
                each: error for each, error in read.items() if isinstance(error, LakeUnavailable | PartitionDamaged)
            }
            yield DayRead(day, tables, unread)

    def _listed(self, asset: str, day: date) -> list[Partition] | LakeUnavailable:
        try:
            return self.partitions(asset, days=[day])
        except LakeUnavailable as error:
            return error


def _written(outcome: Written | LakeUnavailable | NotReplaced) -> Written:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
