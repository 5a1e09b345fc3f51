"""DuckDB views over the tables of a lake, with the column types that `Table.columns` declares; nothing is inferred.

DuckDB reads files on a local disk by path, and other files through `LakeFileSystem`. It also reads local files through
`LakeFileSystem` if the SQL is confined, or if the path of the root has a character that DuckDB reads as a pattern.
Unlike `Lake.read` it does not verify the checksums of Parquet pages, so a flipped bit on the disk may change a number.
And if a column of a file has another type, it casts the values if possible.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from later_reporting_dagster.lake.columns import ColumnType
from later_reporting_dagster.lake.concurrency import MAX_THREADS, map_concurrently
from later_reporting_dagster.lake.duckdb_filesystem import LakeFileSystem, protocol_for, removed_file_error
from later_reporting_dagster.lake.lake import Lake
from later_reporting_dagster.lake.parquet_file import (
    PARTITION_STEP,
    TABLE_STEP,
    FileDamaged,
    damaged_file_error,
    from_parquet,
)
from later_reporting_dagster.lake.partition_listing import partition_sort_key
from later_reporting_dagster.lake.partition_paths import Partition, compacted_directory, partition_path, table_path
from later_reporting_dagster.lake.schema import DATE, schema_of, with_date_field
from later_reporting_dagster.lake.storage import LakeUnavailable, Storage
from later_reporting_dagster.lake.table import Table

if TYPE_CHECKING:
    import duckdb

_Result = TypeVar("_Result")

# DuckDB uses up to 250 MB more than its limit, and the interpreter with its libraries takes about 150 MB.
_DUCKDB_MEMORY_SHARE = 0.75
_SPILL_PREFIX = "later-reporting-spill-"
_SPILL_EXPIRY_SECONDS = 24 * 3600

SQL_TYPES: Mapping[ColumnType, str] = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}
# Computed from the path alone: DuckDB then does not open files that a condition on these columns excludes.
# DuckDB's own Hive partitioning would infer types, which turns the instance id 007 into a number.
_DAY_FROM_PATH = r"CAST(regexp_extract(filename, '/date=(\d{4}-\d{2}-\d{2})(/instance_id=[^/]*)?/[^/]*$', 1) AS DATE)"
_INSTANCE_FROM_PATH = "url_decode(regexp_extract(filename, '/instance_id=([^/]*)/[^/]*$', 1))"
_INSTANCE = "instance_id"


@dataclass(frozen=True, slots=True)
class _ViewFile:
    """A file of a view.

    Attributes:
        path: the path relative to the lake's root.
        partitions: the partitions in it; empty for an unpartitioned table.
        is_compacted: whether it is the copy of a month.
    """

    path: str
    partitions: Sequence[Partition]
    is_compacted: bool

    @property
    def layout(self) -> tuple[bool, bool]:
        """Whether the file is a copy of a month, and whether its path has an instance. One scan reads one layout."""
        return self.is_compacted, bool(self.partitions) and self.partitions[0].instance_id is not None


@dataclass(frozen=True, slots=True)
class ViewContents:
    """What the views contain while `LakeDatabase.read` calls `compute`, by table name.

    Attributes:
        partitions: the partitions in the views.
        unreadable: the partitions that are excluded because they cannot be read, each with its error.
    """

    partitions: Mapping[str, Sequence[Partition]]
    unreadable: Mapping[str, Mapping[Partition, LakeUnavailable | FileDamaged]]


class LakeDatabase:
    """An in-memory DuckDB database with views over tables of a lake. Use `open_database` to create one.

    A view reads the files that existed when `add_view` listed them. If a partition is replaced later, the view reads
    the old or the new file; on a local disk, a replacement during a query may make the query fail.

    Attributes:
        connection: the DuckDB connection, with UTC as its time zone. Its cursors cannot read the views, because they do
            not share its variables.
        lake: the lake.
    """

    def __init__(self, lake: Lake, connection: "duckdb.DuckDBPyConnection", *, is_confined: bool) -> None:
        self.connection = connection
        self.lake = lake
        self._views: dict[str, tuple[Table, list[_ViewFile]]] = {}
        # Paths of compacted months that cannot be read: their days are read from daily files.
        self._damaged_copies: set[str] = set()
        self._filesystem: LakeFileSystem | None = None
        if is_confined or lake.storage.native_path("") is None:
            self._filesystem = LakeFileSystem(lake.storage, "later", only_allowed=True)
            connection.register_filesystem(self._filesystem)

    def add_view(
        self,
        table: Table,
        partitions: Collection[Partition] | None = None,
        *,
        name: str | None = None,
        known_to_exist: bool = False,
    ) -> list[Partition]:
        """Create or replace the view of a table, with its columns; for a partitioned table, `date` comes first.

        If a file lacks a nullable column, the column is null in its rows. A query fails when it reads a column that is
        not nullable and is missing or null.

        Args:
            table: the table.
            partitions: the partitions in the view, if they exist; by default all that exist.
            name: the name of the view; by default the name of the table.
            known_to_exist: skip the listing, because all of `partitions` exist.

        Returns:
            The partitions in the view; empty for an unpartitioned table.

        Raises:
            LakeUnavailable: the files cannot be listed.
        """
        name = name or table.name
        files = _list_files(
            self.lake, table, partitions, known_to_exist=known_to_exist, damaged_copies=self._damaged_copies
        )
        if self._filesystem is not None:
            self._filesystem.allow(file.path for file in files)
        self._views[name] = table, files
        scans: list[str] = []
        for group in _group_by_layout(files):
            # Paths are passed in a variable: parsing thousands of them in SQL takes DuckDB longer than the query
            # itself.
            variable = f"{name}/{len(scans)}"
            locations = _scan_paths(self.lake.storage, self._filesystem, group)
            self.connection.execute(f"SET VARIABLE {_identifier(variable)} = ?", [locations])
            scans.append(_scan_sql(table, f"getvariable({_literal(variable)})", group[0]))
        select = " UNION ALL ".join(scans) or empty_select(table)
        self.connection.execute(f"CREATE OR REPLACE VIEW {_identifier(name)} AS {select}")
        return sorted((each for file in files for each in file.partitions), key=partition_sort_key)

    def is_empty(self, name: str) -> bool:
        """Return whether a view has no files."""
        return not self._views[name][1]

    def read(
        self, tables: Sequence[tuple[Table, Collection[Partition] | None]], compute: Callable[[ViewContents], _Result]
    ) -> _Result:
        """Create views of partitioned tables and return `compute`'s result.

        If `compute` fails because files cannot be read, exclude these files and call it again.

        Args:
            tables: each table with its partitions, which have to exist; None for all that exist.
            compute: computes the result from the views, which have the names of the tables. If a file cannot be read,
                it must let the `duckdb.Error` through: only then is it called again.

        Raises:
            LakeUnavailable: the lake cannot be listed, or `compute` fails although all files of `tables` can be read.
        """
        import duckdb

        requested = [
            (table, self.lake.partitions(table.name) if partitions is None else partitions)
            for table, partitions in tables
        ]
        unreadable: dict[str, dict[Partition, LakeUnavailable | FileDamaged]] = {table.name: {} for table, _ in tables}
        while True:
            partitions = {
                table.name: self.add_view(
                    table, [each for each in members if each not in unreadable[table.name]], known_to_exist=True
                )
                for table, members in requested
            }
            try:
                return compute(ViewContents(partitions, unreadable))
            except duckdb.Error as error:
                failed = self._failed_files([table.name for table, _ in tables])
                if not failed:
                    reason = str(error).partition("\n")[0]
                    raise LakeUnavailable(
                        f"{self.lake.root} cannot be read by DuckDB: {reason}. Next step: run again; if it fails again,"
                        " report a bug"
                    ) from error
                self._damaged_copies |= {file.path for _, file, _ in failed if file.is_compacted}
                for name, file, cause in failed:
                    if not file.is_compacted:
                        unreadable[name] |= dict.fromkeys(file.partitions, cause)

    def find_unreadable_files(self) -> dict[str, dict[Partition | None, LakeUnavailable | FileDamaged]]:
        """Read every file of every view as `Lake.read` does, and return the errors.

        Returns:
            By view and partition, the error of each file that cannot be read. A compacted month has its first
            partition in the view as the key; an unpartitioned table has None. Views without errors are omitted.
        """
        found: dict[str, dict[Partition | None, LakeUnavailable | FileDamaged]] = {}
        for name, file, error in self._failed_files([*self._views]):
            found.setdefault(name, {})[file.partitions[0] if file.partitions else None] = error
        return found

    def _failed_files(self, names: Iterable[str]) -> list[tuple[str, _ViewFile, LakeUnavailable | FileDamaged]]:
        """Return the name of the view, the file and the error for each file of these views that cannot be read."""
        failed: list[tuple[str, _ViewFile, LakeUnavailable | FileDamaged]] = []
        for name in names:
            table, files = self._views[name]

            def verify(file: _ViewFile, table: Table = table) -> LakeUnavailable | FileDamaged | None:
                return _verification_error(self.lake.storage, file, table)

            for file, error in zip(files, map_concurrently(verify, files), strict=True):
                # A file that can be read now may have failed during the query.
                error = error or (self._filesystem and self._filesystem.errors.get(file.path)) or None
                if error is not None:
                    failed.append((name, file, error))
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
    """Open an in-memory DuckDB database; `LakeDatabase.add_view` adds tables to it.

    Args:
        lake: the lake.
        memory_gb: the memory limit in GB, of which DuckDB may use 75 %.
        spill_directory: the directory in which DuckDB may create a private subdirectory for data that exceed the
            memory; the subdirectory is removed at the end. By default `$DAGSTER_HOME`, or else the system's directory
            of temporary files. None: nothing is spilled, and a query that needs more memory raises
            `duckdb.OutOfMemoryException`.
        threads: the number of DuckDB's threads; by default one for each processor, more for a remote lake.
        confined: for SQL from users: it can only read files of the views, cannot write and cannot change settings.

    Yields:
        The database.
    """
    import duckdb  # deferred: takes a tenth of a second, which most commands do not need

    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_gb * _DUCKDB_MEMORY_SHARE * 1000:.0f}MB",
        "preserve_insertion_order": False,
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
        # Partitions are replaced under the same path.
        "enable_external_file_cache": False,
        # Otherwise SQL can read Python variables by name.
        "python_enable_replacements": False,
    }
    if threads is None and lake.storage.is_remote:
        threads = max(os.cpu_count() or 1, MAX_THREADS)
    if threads is not None:
        config["threads"] = threads
    with _spill_folder(spill_directory) as folder, duckdb.connect(":memory:", config=config) as connection:
        connection.execute("SET temp_directory = ?", [folder])
        connection.execute("SET TimeZone = 'UTC'")
        database = LakeDatabase(lake, connection, is_confined=confined)
        if confined:
            # Statements, because entries of the configuration take effect in no particular order.
            connection.execute("SET allowed_directories = ['later://']")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        yield database


def duckdb_relation(lake: Lake, table: Table, partitions: Collection[Partition]) -> "duckdb.DuckDBPyRelation":
    """Return a table as a lazy relation of DuckDB's default connection.

    Args:
        lake: the lake.
        table: the table.
        partitions: the partitions in the relation, if they exist.

    Raises:
        LakeUnavailable: the files cannot be listed.
    """
    import duckdb

    connection = duckdb.default_connection()
    files, filesystem = _list_files(lake, table, partitions), None
    if lake.storage.native_path("") is None:
        filesystem = LakeFileSystem(lake.storage, protocol_for(lake.storage))
        if not connection.filesystem_is_registered(filesystem.protocol):
            connection.register_filesystem(filesystem)
    scans = [
        _scan_sql(table, f"[{', '.join(map(_literal, _scan_paths(lake.storage, filesystem, group)))}]", group[0])
        for group in _group_by_layout(files)
    ]
    return connection.sql(" UNION ALL ".join(scans) or empty_select(table))


def empty_select(table: Table, *, condition: str = "false") -> str:
    """Return SQL that selects no rows, with the columns of a table's view.

    Args:
        table: the table.
        condition: false, or a boolean SQL expression that calls `error(…)`, so that a query of the view fails with a
            message.
    """
    columns = [f"CAST(NULL AS {type_}) AS {_identifier(name)}" for name, type_ in _view_columns(table)]
    return f"SELECT {', '.join(columns)} FROM (SELECT {condition} AS read) WHERE read"


def _list_files(
    lake: Lake,
    table: Table,
    partitions: Collection[Partition] | None,
    *,
    known_to_exist: bool = False,
    damaged_copies: Collection[str] = (),
) -> list[_ViewFile]:
    """Return the files of a table; daily files instead of damaged copies of months."""
    if not table.is_partitioned:
        path = table_path(table.name)
        return [_ViewFile(path, (), is_compacted=False)] if path in lake.storage.files(table.name) else []
    copies = f"{compacted_directory(table.name)}/"
    files = []
    for path, held in lake.files(table.name, partitions, known_to_exist=known_to_exist).items():
        if path in damaged_copies:
            files += [_ViewFile(partition_path(table.name, each), [each], is_compacted=False) for each in held]
        else:
            files.append(_ViewFile(path, held, is_compacted=path.startswith(copies)))
    return files


def _group_by_layout(files: Sequence[_ViewFile]) -> list[list[_ViewFile]]:
    layout = attrgetter("layout")
    return [list(group) for _, group in groupby(sorted(files, key=layout), key=layout)]


def _scan_paths(storage: Storage, filesystem: LakeFileSystem | None, files: Sequence[_ViewFile]) -> list[str]:
    return [filesystem.url(file.path) if filesystem else str(storage.native_path(file.path)) for file in files]


def _view_columns(table: Table) -> list[tuple[str, str]]:
    """Return the name and the SQL type of each column of a table's view."""
    day = [(DATE.name, "DATE")] if table.is_partitioned else []
    return [*day, *((column.name, SQL_TYPES[column.type]) for column in table.columns)]


def _scan_sql(table: Table, paths: str, example: _ViewFile) -> str:
    """Return SQL that selects all rows of some files of one layout.

    Args:
        table: the table.
        paths: an SQL expression for the list of the files' paths.
        example: one of the files.
    """
    is_compacted, has_instance = example.layout
    stored = dict(_view_columns(table))
    expressions = {name: _identifier(name) for name in stored}
    required = [column.name for column in table.columns if not column.nullable]
    if table.is_partitioned and not is_compacted:
        del stored[DATE.name]
        expressions[DATE.name] = _DAY_FROM_PATH
    elif table.is_partitioned:
        required.append(DATE.name)
    if has_instance and _INSTANCE in stored:
        del stored[_INSTANCE]
        expressions[_INSTANCE] = _INSTANCE_FROM_PATH
    for name in required:
        if name in stored:
            # Because of `schema` below, DuckDB returns nulls for a column that a file lacks, even if the column is not
            # nullable.
            missing = _literal(f" has no value of {name}")
            expressions[name] = f"coalesce({_identifier(name)}, error(filename || {missing}))"
    schema = ", ".join(
        f"{_literal(name)}: {{name: {_literal(name)}, type: {_literal(type_)}, default_value: NULL}}"
        for name, type_ in stored.items()
    )
    columns = ", ".join(f"{expression} AS {_identifier(name)}" for name, expression in expressions.items())
    return (
        f"SELECT {columns} FROM read_parquet({paths}, hive_partitioning = false, filename = true,"
        f" schema = MAP {{{schema}}})"
    )


def _verification_error(storage: Storage, file: _ViewFile, table: Table) -> LakeUnavailable | FileDamaged | None:
    try:
        _verify(storage, file, table)
    except (LakeUnavailable, FileDamaged) as error:
        return error
    return None


def _verify(storage: Storage, file: _ViewFile, table: Table) -> None:
    """Read a file as `Lake.read` does, and check that its required columns have no nulls.

    Raises:
        LakeUnavailable: the file cannot be read, or does not exist any more.
        FileDamaged: the file does not fit the table; the message has the next step.
    """
    data = storage.read(file.path)
    if data is None:
        raise removed_file_error(storage, file.path)
    schema, location = schema_of(table.columns), storage.location(file.path)
    step = PARTITION_STEP if table.is_partitioned else TABLE_STEP
    try:
        rows = from_parquet(data, schema=with_date_field(schema) if file.is_compacted else schema)
    except FileDamaged as error:
        if file.is_compacted:
            step = "run `later-reporting compact`, which writes this copy of daily files again"
        raise damaged_file_error(location, error, step=step) from error
    if nulls := [field.name for field in rows.schema if not field.nullable and rows[field.name].null_count]:
        raise damaged_file_error(location, FileDamaged(f"it has rows without {', '.join(nulls)}"), step=step)


@contextmanager
def _spill_folder(directory: str | None) -> Iterator[str]:
    """Create a private folder in `directory`, and remove it at the end; see `open_database`.

    It also removes folders that killed processes left in `directory` more than a day ago.
    """
    if directory is None:
        yield ""
        return
    home = os.environ.get("DAGSTER_HOME", "")
    if not directory:
        directory = home if home and os.access(home, os.W_OK | os.X_OK) else tempfile.gettempdir()
    for folder in Path(directory).glob(f"{_SPILL_PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_mtime < time.time() - _SPILL_EXPIRY_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_SPILL_PREFIX, dir=directory, ignore_cleanup_errors=True) as private:
        yield private


def _identifier(name: str) -> str:
    """Return a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _literal(value: str) -> str:
    """Return a quoted SQL string."""
    return "'" + value.replace("'", "''") + "'"
