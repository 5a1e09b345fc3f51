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
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from later_reporting_dagster.lake.lake import Lake
from later_reporting_dagster.lake.lake_filesystem import LakeFileSystem, removed_file_error
from later_reporting_dagster.lake.parquet_file import FileDamaged, damaged_file_error, from_parquet
from later_reporting_dagster.lake.paths import (
    FILE_NAME,
    Partition,
    is_compacted,
    partition_path,
    partition_sort_key,
    table_path,
)
from later_reporting_dagster.lake.storage import MAX_THREADS, LakeUnavailable, Storage, map_concurrently
from later_reporting_dagster.lake.tables import DATE, RAW_TABLES, ColumnType, Table, schema_of, with_date_field

if TYPE_CHECKING:
    import duckdb

_Result = TypeVar("_Result")
# The files of a table: by path relative to the root, the partitions in each; none for an unpartitioned table.
_Files = Mapping[str, Sequence[Partition]]
_ReadError = LakeUnavailable | FileDamaged

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
class ViewContents:
    """By table, the partitions in the views while `LakeDatabase.read` computes, and those that cannot be read."""

    partitions: Mapping[str, Sequence[Partition]]
    unreadable: Mapping[str, Mapping[Partition, _ReadError]]


class LakeDatabase:
    """An in-memory DuckDB database with views over tables of a lake. Use `open_database` to create one.

    A view reads the files that existed when `add_view` listed them. If a partition is replaced later, the view reads
    the old or the new file; on a local disk, a replacement during a query may make the query fail.

    Attributes:
        connection: the DuckDB connection, with UTC as its time zone. Its cursors cannot read the views, because they do
            not share its variables.
    """

    def __init__(self, lake: Lake, connection: "duckdb.DuckDBPyConnection", *, is_confined: bool) -> None:
        self.connection = connection
        self.lake = lake
        self._views: dict[str, tuple[Table, _Files]] = {}
        # Paths of compacted months that cannot be read: their days are read from daily files.
        self._damaged_copies: set[str] = set()
        self._allowed: set[str] = set()
        self._filesystem: LakeFileSystem | None = None
        if is_confined or lake.storage.native_path("") is None:
            self._filesystem = LakeFileSystem(lake.storage, allowed=self._allowed)
            connection.register_filesystem(self._filesystem)

    def add_view(self, table: Table, partitions: Collection[Partition] | None = None) -> list[Partition]:
        """Create or replace the view of a table, with its columns; for a partitioned table, `date` comes first.

        If a file lacks a nullable column, the column is null in its rows. A query fails when it reads a column that is
        not nullable and is missing or null.

        Args:
            partitions: the partitions in the view, which have to exist; by default all that exist.

        Returns:
            The partitions in the view; empty for an unpartitioned table.
        """
        files: dict[str, Sequence[Partition]] = {}
        for path, held in table_files(self.lake, table, partitions).items():
            daily = {partition_path(table.name, each): [each] for each in held}
            files |= daily if path in self._damaged_copies else {path: held}
        self._allowed.update(files)
        self._views[table.name] = table, files
        scans: list[str] = []
        for paths, layout in _by_layout(files):
            # Paths are passed in a variable: parsing thousands of them in SQL takes DuckDB longer than the query
            # itself.
            variable = f"{table.name}/{len(scans)}"
            locations = _scan_paths(self.lake.storage, self._filesystem, paths)
            self.connection.execute(f"SET VARIABLE {_identifier(variable)} = ?", [locations])
            scans.append(_scan_sql(table, f"getvariable({_literal(variable)})", *layout))
        select = " UNION ALL ".join(scans) or empty_select(table)
        self.connection.execute(f"CREATE OR REPLACE VIEW {_identifier(table.name)} AS {select}")
        return sorted((each for held in files.values() for each in held), key=partition_sort_key)

    def is_empty(self, name: str) -> bool:
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
        """
        import duckdb

        requested = [
            (table, self.lake.partitions(table.name) if partitions is None else partitions)
            for table, partitions in tables
        ]
        unreadable: dict[str, dict[Partition, _ReadError]] = {table.name: {} for table, _ in tables}
        while True:
            partitions = {
                table.name: self.add_view(table, [each for each in members if each not in unreadable[table.name]])
                for table, members in requested
            }
            try:
                return compute(ViewContents(partitions, unreadable))
            except duckdb.Error as error:
                failed = [(name, path, cause) for name in unreadable for path, cause in self._failed_files(name)]
                if not failed:
                    # A file of a view that was added before, such as a table without partitions?
                    for by_partition in self.find_unreadable_files().values():
                        raise next(iter(by_partition.values())) from error
                    reason = str(error).partition("\n")[0]
                    raise LakeUnavailable(
                        f"{self.lake.root} cannot be read by DuckDB: {reason}. Next step: run again; if it fails again,"
                        " report a bug"
                    ) from error
                for name, path, cause in failed:
                    if is_compacted(path):
                        self._damaged_copies.add(path)
                    else:
                        unreadable[name] |= dict.fromkeys(self._views[name][1][path], cause)

    def find_unreadable_files(self) -> dict[str, dict[Partition | None, _ReadError]]:
        """Read every file of every view as `Lake.read` does, and return the errors by view and partition.

        The key of a compacted month is its first partition in the view; that of an unpartitioned table is None.
        """
        found = {
            name: {next(iter(files[path]), None): error for path, error in self._failed_files(name)}
            for name, (_, files) in self._views.items()
        }
        return {name: errors for name, errors in found.items() if errors}

    def _failed_files(self, name: str) -> list[tuple[str, _ReadError]]:
        table, files = self._views[name]
        # A file that can be read now may have failed during the query.
        earlier = {} if self._filesystem is None else self._filesystem.errors
        errors = map_concurrently(lambda path: _verify(self.lake.storage, path, table) or earlier.get(path), files)
        return [(path, error) for path, error in zip(files, errors, strict=True) if error is not None]


@contextmanager
def open_database(
    lake: Lake, *, memory_gb: float = 2.0, spill_directory: str | None = "", confined: bool = False
) -> Iterator[LakeDatabase]:
    """Open an in-memory DuckDB database; `LakeDatabase.add_view` adds tables to it.

    Args:
        memory_gb: the memory limit in GB, of which DuckDB may use 75 %.
        spill_directory: the directory in which DuckDB may create a private subdirectory for data that exceed the
            memory; the subdirectory is removed at the end. By default `$DAGSTER_HOME`, or else the system's directory
            of temporary files. None: nothing is spilled, and a query that needs more memory raises
            `duckdb.OutOfMemoryException`.
        confined: for SQL from users: it can only read files of the views, cannot write and cannot change settings.
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
    if lake.storage.is_remote:
        config["threads"] = max(os.cpu_count() or 1, MAX_THREADS)
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
    """Return partitions of a table, which have to exist, as a lazy relation of DuckDB's default connection."""
    import duckdb

    connection, filesystem = duckdb.default_connection(), None
    if lake.storage.native_path("") is None:
        # No two storages share a scheme: the connection keeps the filesystem, and so the storage.
        filesystem = LakeFileSystem(lake.storage, f"later{id(lake.storage):x}")
        if not connection.filesystem_is_registered(filesystem.protocol):
            connection.register_filesystem(filesystem)
    scans = [
        _scan_sql(table, f"[{', '.join(map(_literal, _scan_paths(lake.storage, filesystem, paths)))}]", *layout)
        for paths, layout in _by_layout(table_files(lake, table, partitions))
    ]
    return connection.sql(" UNION ALL ".join(scans) or empty_select(table))


def table_files(lake: Lake, table: Table, partitions: Collection[Partition] | None = None) -> _Files:
    """Return the files of any table as `Lake.files` does; an unpartitioned one has at most one file."""
    if table.is_partitioned:
        return lake.files(table.name, partitions)
    return {table_path(table.name): ()} if lake.table_exists(table.name) else {}


def empty_select(table: Table, *, condition: str = "false") -> str:
    """Return SQL that selects no rows, with the columns of a table's view.

    If the condition calls `error(…)`, a query of the view fails with this message.
    """
    columns = [f"CAST(NULL AS {type_}) AS {_identifier(name)}" for name, type_ in _view_columns(table)]
    return f"SELECT {', '.join(columns)} FROM (SELECT {condition} AS read) WHERE read"


def glob_select(table: Table, root: str) -> str:
    """Return SQL that selects all rows of a table from the files below `root` that exist when it runs.

    For programs that cannot list the files first. It reads daily files, never copies of months. Requires DuckDB 2.
    Without files, DuckDB ignores the schema and returns a column `empty`; the `UNION` has the columns of the table.
    """
    # The types are given, so that DuckDB does not turn the instance id 007 into a number.
    in_path = {DATE.name: "DATE"} if table.is_partitioned else {}
    if table.name in {raw_table.name for raw_table in RAW_TABLES}:
        in_path[_INSTANCE] = "VARCHAR"
    folders = "".join(f"/{name}=*" for name in in_path)
    hive_types = ", ".join(f"{_literal(name)}: {type_}" for name, type_ in in_path.items())
    hive = f"hive_partitioning = true, hive_types = {{{hive_types}}}" if in_path else "hive_partitioning = false"
    stored = {name: type_ for name, type_ in _view_columns(table) if name not in in_path}
    return (
        f"SELECT COLUMNS(lambda name: name <> 'empty') FROM ({empty_select(table)} UNION ALL BY NAME SELECT *"
        f" FROM read_parquet({_literal(f'{root}/{table.name}{folders}/{FILE_NAME}')}, allow_empty = true, {hive},"
        f" schema = {_schema_sql(stored)}))"
    )


def _by_layout(files: _Files) -> Iterator[tuple[list[str], tuple[bool, bool]]]:
    """Group paths by whether they are copies of months, and whether they have an instance. One scan reads one group."""

    def layout(path: str) -> tuple[bool, bool]:
        return is_compacted(path), any(each.instance_id is not None for each in files[path][:1])

    for key, paths in groupby(sorted(files, key=layout), key=layout):
        yield list(paths), key


def _scan_paths(storage: Storage, filesystem: LakeFileSystem | None, paths: Iterable[str]) -> list[str]:
    return [filesystem.url(path) if filesystem else str(storage.native_path(path)) for path in paths]


def _view_columns(table: Table) -> list[tuple[str, str]]:
    day = [(DATE.name, "DATE")] if table.is_partitioned else []
    return [*day, *((column.name, SQL_TYPES[column.type]) for column in table.columns)]


def _scan_sql(table: Table, paths: str, are_compacted: bool, have_instance: bool) -> str:
    """Return SQL that selects all rows of files of one layout, given an SQL expression for the list of their paths."""
    stored = dict(_view_columns(table))
    expressions = {name: _identifier(name) for name in stored}
    required = [column.name for column in table.columns if not column.nullable]
    if table.is_partitioned and not are_compacted:
        del stored[DATE.name]
        expressions[DATE.name] = _DAY_FROM_PATH
    elif table.is_partitioned:
        required.append(DATE.name)
    if have_instance and _INSTANCE in stored:
        del stored[_INSTANCE]
        expressions[_INSTANCE] = _INSTANCE_FROM_PATH
    for name in required:
        if name in stored:
            # Because of `schema` below, DuckDB returns nulls for a column that a file lacks, even if the column is not
            # nullable.
            missing = _literal(f" has no value of {name}")
            expressions[name] = f"coalesce({_identifier(name)}, error(filename || {missing}))"
    columns = ", ".join(f"{expression} AS {_identifier(name)}" for name, expression in expressions.items())
    return (
        f"SELECT {columns} FROM read_parquet({paths}, hive_partitioning = false, filename = true,"
        f" schema = {_schema_sql(stored)})"
    )


def _schema_sql(stored: Mapping[str, str]) -> str:
    """Return DuckDB's `schema` of files, given their columns with SQL types. A column that a file lacks is null."""
    columns = ", ".join(
        f"{_literal(name)}: {{name: {_literal(name)}, type: {_literal(type_)}, default_value: NULL}}"
        for name, type_ in stored.items()
    )
    return f"MAP {{{columns}}}"


def _verify(storage: Storage, path: str, table: Table) -> _ReadError | None:
    """Read a file as `Lake.read` does, and check that its required columns have no nulls; return the error, if any."""
    try:
        data = storage.read(path)
    except LakeUnavailable as error:
        return error
    if data is None:
        return removed_file_error(storage, path)
    schema = schema_of(table.columns)
    try:
        rows = from_parquet(data, schema=with_date_field(schema) if is_compacted(path) else schema)
    except FileDamaged as error:
        step = (
            "run `later-reporting compact`, which writes this copy of daily files again" if is_compacted(path) else ""
        )
        return damaged_file_error(storage.location(path), error, step=step)
    if nulls := [field.name for field in rows.schema if not field.nullable and rows[field.name].null_count]:
        reason = FileDamaged(f"it has rows without {', '.join(nulls)}")
        return damaged_file_error(storage.location(path), reason)
    return None


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
    return '"' + name.replace('"', '""') + '"'


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
