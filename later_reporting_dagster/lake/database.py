"""DuckDB over the lake: each table is a view over its Parquet files, with its dictionary's types and nothing inferred.

DuckDB reads the files itself: those of a local disk by their paths, all others through `LakeFiles`. It does not verify
the checksums of Parquet pages, so a flipped bit on the disk may be a wrong number here, and it casts a column of
another type where that can be done. `Lake.read` verifies both.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from later_reporting_dagster.lake.columns import ColumnType
from later_reporting_dagster.lake.concurrency import READERS, side_by_side
from later_reporting_dagster.lake.duckdb_filesystem import LakeFiles, protocol_of, removed
from later_reporting_dagster.lake.lake import Lake
from later_reporting_dagster.lake.parquet_file import PartitionDamaged, damaged, from_parquet
from later_reporting_dagster.lake.partition_listing import by_day
from later_reporting_dagster.lake.partition_paths import Partition, compacted_directory, partition_path, table_path
from later_reporting_dagster.lake.schema import DATE, dated, schema_of
from later_reporting_dagster.lake.storage import LakeUnavailable, Storage
from later_reporting_dagster.lake.table import Table

if TYPE_CHECKING:
    import duckdb

_Result = TypeVar("_Result")

# DuckDB takes somewhat more than its limit, and the interpreter with its libraries about 150 MB.
_SHARE_OF_MEMORY = 0.85
_SPILL_PREFIX = "later-reporting-spill-"
_LEFT_BEHIND_AFTER_SECONDS = 24 * 3600

_TYPES: Mapping[ColumnType, str] = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}
# Computed from the path alone, so that DuckDB opens no file that a condition on them leaves out.
_DAY_OF_PATH = r"CAST(regexp_extract(filename, '/date=(\d{4}-\d{2}-\d{2})(/instance_id=[^/]*)?/[^/]*$', 1) AS DATE)"
_INSTANCE_OF_PATH = "url_decode(regexp_extract(filename, '/instance_id=([^/]*)/[^/]*$', 1))"
_INSTANCE = "instance_id"


@dataclass(frozen=True, slots=True)
class _File:
    """A file of a table: its path below the root, the partitions that it holds, and whether it is a month's copy."""

    path: str
    partitions: Sequence[Partition]
    is_compacted: bool

    @property
    def layout(self) -> tuple[bool, bool]:
        """What distinguishes the files that one scan cannot read together."""
        return self.is_compacted, bool(self.partitions) and self.partitions[0].instance_id is not None


@dataclass(frozen=True, slots=True)
class Files:
    """The files that were read, and those that cannot be, which were left out, by table."""

    partitions: Mapping[str, Sequence[Partition]]
    unreadable: Mapping[str, Mapping[Partition, LakeUnavailable | PartitionDamaged]]


class LakeDatabase:
    """An in-memory DuckDB database over tables of a lake; made by `open_database`.

    Views see the files as they were when `add_view` listed them. A partition that is replaced meanwhile is read in
    either version; on a local disk a replacement at the very moment of reading may fail the query.

    Attributes:
        connection: where SQL is run. Instants are in UTC. Cursors of it do not see the views' files.
        lake: where the tables lie.
    """

    def __init__(self, lake: Lake, connection: "duckdb.DuckDBPyConnection", *, is_confined: bool) -> None:
        self.connection = connection
        self.lake = lake
        self._views: dict[str, tuple[Table, list[_File]]] = {}
        # Copies of months that cannot be read: their days are read from their own files.
        self._damaged_copies: set[str] = set()
        self._files: LakeFiles | None = None
        if is_confined or lake.storage.native_path("") is None:
            self._files = LakeFiles(lake.storage, "later", only_allowed=True)
            connection.register_filesystem(self._files)

    def add_view(
        self,
        table: Table,
        partitions: Collection[Partition] | None = None,
        *,
        name: str | None = None,
        are_listed: bool = False,
    ) -> list[Partition]:
        """Create or replace the view of a table: the column `date` if it has partitions, then its dictionary's.

        A nullable column that a file does not have is null there. A query that uses another one, or one that is null
        although it must not be, fails.

        Args:
            table: the table.
            partitions: those of them that exist are in the view; all that exist, when not given.
            name: the name of the view; by default the table's.
            are_listed: whether `partitions` are known to exist, and need not be listed.

        Returns:
            The partitions in the view; none for a table without partitions.

        Raises:
            LakeUnavailable: they cannot be listed.
        """
        name = name or table.name
        files = _files_of(self.lake, table, partitions, are_listed=are_listed, without=self._damaged_copies)
        if self._files is not None:
            self._files.allow(file.path for file in files)
        self._views[name] = table, files
        self.narrow_view(name, None)
        return sorted((each for file in files for each in file.partitions), key=by_day)

    def narrow_view(self, name: str, instance_ids: Collection[str] | None) -> None:
        """Narrow a view to some instances, without listing its files again; None: to all."""
        table, files = self._views[name]
        if instance_ids is not None:
            files = [file for file in files if file.partitions and file.partitions[0].instance_id in instance_ids]
        scans: list[str] = []
        for group in _by_layout(files):
            # A variable, because a list of thousands of paths takes DuckDB longer to parse than the rest of a query.
            variable = f"{name}/{len(scans)}"
            locations = _locations(self.lake.storage, self._files, group)
            self.connection.execute(f"SET VARIABLE {_quoted(variable)} = ?", [locations])
            scans.append(_select(table, f"getvariable({_text(variable)})", group[0]))
        select = " UNION ALL ".join(scans) or select_nothing(table)
        self.connection.execute(f"CREATE OR REPLACE VIEW {_quoted(name)} AS {select}")

    def is_empty(self, name: str) -> bool:
        """Return whether a view is over no file."""
        return not self._views[name][1]

    def read(
        self, wanted: Sequence[tuple[Table, Collection[Partition] | None]], work: Callable[[Files], _Result]
    ) -> _Result:
        """Return the result of `work` on views of partitioned tables; again without the files that made it fail.

        Args:
            wanted: the tables, and their partitions, which exist; None for all that there are.
            work: computes the result from the views; called again when it raises `duckdb.Error`.

        Raises:
            LakeUnavailable: the lake cannot be listed, or a query fails although every file can be read.
        """
        import duckdb

        unreadable: dict[str, dict[Partition, LakeUnavailable | PartitionDamaged]] = {
            table.name: {} for table, _ in wanted
        }
        there = [
            (table, self.lake.partitions(table.name) if partitions is None else partitions)
            for table, partitions in wanted
        ]
        while True:
            partitions = {
                table.name: self.add_view(
                    table, [each for each in of_table if each not in unreadable[table.name]], are_listed=True
                )
                for table, of_table in there
            }
            try:
                return work(Files(partitions, unreadable))
            except duckdb.Error as error:
                failed = self._failed_files()
                if not failed:
                    reason = str(error).partition("\n")[0]
                    raise LakeUnavailable(f"{self.lake.root} cannot be read by DuckDB: {reason}") from error
                self._damaged_copies |= {file.path for _, file, _ in failed if file.is_compacted}
                for name, file, why in failed:
                    if not file.is_compacted:
                        unreadable[name] |= dict.fromkeys(file.partitions, why)

    def unreadable(self) -> dict[str, dict[Partition | None, LakeUnavailable | PartitionDamaged]]:
        """Read every file of every view as `Lake.read` does, and return the errors: which file made a query fail.

        By view, then by partition: the first one in a compacted month, None of a table without partitions. Views whose
        files can all be read are left out.
        """
        found: dict[str, dict[Partition | None, LakeUnavailable | PartitionDamaged]] = {}
        for name, file, failure in self._failed_files():
            found.setdefault(name, {})[file.partitions[0] if file.partitions else None] = failure
        return found

    def _failed_files(self) -> list[tuple[str, _File, LakeUnavailable | PartitionDamaged]]:
        """Read every file of every view as `Lake.read` does, and return those that cannot be, each with its view."""
        failed: list[tuple[str, _File, LakeUnavailable | PartitionDamaged]] = []
        for name, (table, files) in self._views.items():

            def error(file: _File, table: Table = table) -> LakeUnavailable | PartitionDamaged | None:
                return _error_of(self.lake.storage, file, table)

            for file, failure in zip(files, side_by_side(error, files), strict=True):
                failure = failure or (self._files and self._files.errors.get(file.path)) or None
                if failure is not None:
                    failed.append((name, file, failure))
        return failed


@contextmanager
def open_database(
    lake: Lake,
    *,
    memory_gb: float = 2.0,
    spill_directory: str | None = "",
    threads: int | None = None,
    confined: bool = False,
) -> Iterator[LakeDatabase]:
    """Open a DuckDB database without tables, whose views `LakeDatabase.add_view` makes.

    Args:
        lake: where the tables lie.
        memory_gb: how much memory the work may take in all, in GB; DuckDB is limited to 85 % of it.
        spill_directory: where what does not fit into memory is written, in a private folder that is removed at the
            end; by default in `$DAGSTER_HOME`, or else where temporary files go. None: nothing is written, and work
            that needs more memory fails with `duckdb.OutOfMemoryException`.
        threads: how many threads DuckDB uses; by default one a processor, more if each file is a request.
        confined: whether SQL comes from outside: it can read the views' files only and write none, and the
            configuration is locked.
    """
    import duckdb  # takes a tenth of a second, which not every command of ours needs

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_gb * _SHARE_OF_MEMORY * 1000:.0f}MB",
        "preserve_insertion_order": False,
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
        "enable_external_file_cache": False,
        "python_enable_replacements": False,
    }
    if threads is None and lake.storage.waits:
        threads = max(os.cpu_count() or 1, READERS)
    if threads is not None:
        config["threads"] = threads
    with _spill_folder(spill_directory) as folder, duckdb.connect(":memory:", config=config) as connection:
        connection.execute("SET temp_directory = ?", [folder])
        connection.execute("SET TimeZone = 'UTC'")
        database = LakeDatabase(lake, connection, is_confined=confined)
        if confined:
            # Not in the configuration, whose entries take effect in no particular order.
            connection.execute("SET allowed_directories = ['later://']")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        yield database


def relation_of(lake: Lake, table: Table, partitions: Collection[Partition]) -> "duckdb.DuckDBPyRelation":
    """Return a view's rows as a lazy relation of DuckDB's default connection.

    Raises:
        LakeUnavailable: the files cannot be listed.
    """
    import duckdb

    connection = duckdb.default_connection()
    files, through = _files_of(lake, table, partitions), None
    if lake.storage.native_path("") is None:
        through = LakeFiles(lake.storage, protocol_of(lake.storage))
        if not connection.filesystem_is_registered(through.protocol):
            connection.register_filesystem(through)
    scans = [
        _select(table, f"[{', '.join(map(_text, _locations(lake.storage, through, group)))}]", group[0])
        for group in _by_layout(files)
    ]
    return connection.sql(" UNION ALL ".join(scans) or select_nothing(table))


def select_nothing(table: Table, *, condition: str = "false") -> str:
    """The query of a view without rows, of which `condition` is evaluated when it is read."""
    columns = [f"CAST(NULL AS {type_}) AS {_quoted(name)}" for name, type_ in _columns(table)]
    return f"SELECT {', '.join(columns)} FROM (SELECT {condition} AS read) WHERE read"


def _files_of(
    lake: Lake,
    table: Table,
    partitions: Collection[Partition] | None,
    *,
    are_listed: bool = False,
    without: Collection[str] = (),
) -> list[_File]:
    """The files of a table: of the months' copies those that are not in `without`."""
    if not table.is_partitioned:
        path = table_path(table.name)
        return [_File(path, (), is_compacted=False)] if path in lake.storage.files(table.name) else []
    copies = f"{compacted_directory(table.name)}/"
    files = []
    for path, held in lake.files(table.name, partitions, are_listed=are_listed).items():
        if path in without:
            files += [_File(partition_path(table.name, each), [each], is_compacted=False) for each in held]
        else:
            files.append(_File(path, held, is_compacted=path.startswith(copies)))
    return files


def _by_layout(files: Sequence[_File]) -> list[list[_File]]:
    layout = attrgetter("layout")
    return [list(group) for _, group in groupby(sorted(files, key=layout), key=layout)]


def _locations(storage: Storage, through: LakeFiles | None, files: Sequence[_File]) -> list[str]:
    return [through.url(file.path) if through else str(storage.native_path(file.path)) for file in files]


def _columns(table: Table) -> list[tuple[str, str]]:
    day = [(DATE.name, "DATE")] if table.is_partitioned else []
    return [*day, *((column.name, _TYPES[column.type]) for column in table.columns)]


def _select(table: Table, files: str, example: _File) -> str:
    """The query of all rows of some files, an SQL list of their paths, all of the layout of `example`."""
    is_compacted, has_instance = example.layout
    stored = dict(_columns(table))
    shown = {name: _quoted(name) for name in stored}
    required = [column.name for column in table.columns if not column.nullable]
    if table.is_partitioned and not is_compacted:
        del stored[DATE.name]
        shown[DATE.name] = _DAY_OF_PATH
    elif table.is_partitioned:
        required.append(DATE.name)
    if has_instance and _INSTANCE in stored:
        del stored[_INSTANCE]
        shown[_INSTANCE] = _INSTANCE_OF_PATH
    for name in required:
        if name in stored:
            # The schema makes a column that a file does not have null, whichever it is.
            shown[name] = f"coalesce({_quoted(name)}, error(filename || {_text(f' has no value of {name}')}))"
    schema = ", ".join(
        f"{_text(name)}: {{name: {_text(name)}, type: {_text(type_)}, default_value: NULL}}"
        for name, type_ in stored.items()
    )
    columns = ", ".join(f"{expression} AS {_quoted(name)}" for name, expression in shown.items())
    return (
        f"SELECT {columns} FROM read_parquet({files}, hive_partitioning = false, filename = true,"
        f" schema = MAP {{{schema}}})"
    )


def _error_of(storage: Storage, file: _File, table: Table) -> LakeUnavailable | PartitionDamaged | None:
    try:
        _verify(storage, file, table)
    except (LakeUnavailable, PartitionDamaged) as error:
        return error
    return None


def _verify(storage: Storage, file: _File, table: Table) -> None:
    """Read a file as `Lake.read` does, and look for the values that it must have.

    Raises:
        LakeUnavailable: it cannot be read, or is not there any more.
        PartitionDamaged: it is not what a view needs; the message says how it is made anew.
    """
    data = storage.read(file.path)
    if data is None:
        raise removed(storage, file.path)
    schema, shown = schema_of(table.columns), storage.shown(file.path)
    try:
        rows = from_parquet(data, schema=dated(schema) if file.is_compacted else schema)
    except PartitionDamaged as error:
        if file.is_compacted:
            step = "run `later-reporting compact`, which makes this copy of daily files anew"
            raise PartitionDamaged(f"{shown} is damaged: {error}. Next step: {step}") from error
        raise damaged(shown, error) from error
    if nulls := [field.name for field in rows.schema if not field.nullable and rows[field.name].null_count]:
        raise damaged(shown, PartitionDamaged(f"it has rows without {', '.join(nulls)}"))


@contextmanager
def _spill_folder(directory: str | None) -> Iterator[str]:
    """A private folder in `directory`, removed at the end; what killed processes left there is removed before."""
    if directory is None:
        yield ""
        return
    home = os.environ.get("DAGSTER_HOME", "")
    if not directory:
        directory = home if home and os.access(home, os.W_OK | os.X_OK) else tempfile.gettempdir()
    for folder in Path(directory).glob(f"{_SPILL_PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_mtime < time.time() - _LEFT_BEHIND_AFTER_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SPILL_PREFIX, dir=directory, ignore_cleanup_errors=True) as private:
        yield private


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
