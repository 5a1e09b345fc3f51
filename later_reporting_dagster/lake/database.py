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
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from later_reporting_dagster.lake.lake import Lake
from later_reporting_dagster.lake.lake_filesystem import LakeFileSystem, removed_file_error
from later_reporting_dagster.lake.parquet_file import FileDamaged, damaged_file_error, from_parquet, parse_metadata
from later_reporting_dagster.lake.paths import (
    FILE_NAME,
    Partition,
    is_compacted,
    partition_path,
    partition_sort_key,
    table_path,
)
from later_reporting_dagster.lake.storage import REMOTE_THREADS, LakeUnavailable, Storage
from later_reporting_dagster.lake.tables import DATE, FETCHED_NAMES, RAW_NAMES, ColumnType, Table, with_date_field

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
    "list<item: int64>": "BIGINT[]",
}
_INSTANCE = "instance_id"


@dataclass(frozen=True, slots=True)
class ViewContents:
    """By table, the partitions in the views while `LakeDatabase.read` computes, and those that cannot be read."""

    partitions: Mapping[str, Sequence[Partition]]
    unreadable: Mapping[str, Mapping[Partition, _ReadError]]


class LakeDatabase:
    """An in-memory DuckDB database with views over tables of a lake. Use `open_database` to create one.

    A view reads the files that existed when they were listed. If a partition is replaced later, the view reads
    the old or the new file; on a local disk, a replacement during a query may make the query fail.

    Attributes:
        connection: the DuckDB connection, with UTC as its time zone. Its cursors cannot read the views, because they do
            not share its variables.
        older_files: by table, how many files are not in its view, because an older definition made them.
    """

    def __init__(self, lake: Lake, connection: "duckdb.DuckDBPyConnection", *, is_confined: bool) -> None:
        self.connection = connection
        self.lake = lake
        self.older_files: dict[str, int] = {}
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
            partitions: the partitions in the view, which have to exist; by default all that exist. The versions that
                `Lake.file_versions` returns are not looked up again; see `Lake.files`.

        Returns:
            The partitions in the view; empty for an unpartitioned table.
        """
        files: dict[str, Sequence[Partition]] = {}
        listed = table_files(self.lake, table, partitions)
        older = files_of_older_definitions(self.lake, table, listed)
        self.older_files[table.name] = len(older)
        for path, held in listed.items():
            if path in older:
                continue
            daily = {partition_path(table.name, each): [each] for each in held}
            files |= daily if path in self._damaged_copies else {path: held}
        self._allowed.update(files)
        self._views[table.name] = table, files
        scans: list[str] = []
        for paths, in_path in _by_layout(files):
            # Paths are passed in a variable: parsing thousands of them in SQL takes DuckDB longer than the query
            # itself.
            variable = f"{table.name}/{len(scans)}"
            remote, native_path = self._filesystem, self.lake.storage.native_path
            locations = [remote.url(path) if remote else native_path(path) for path in paths]
            self.connection.execute(f"SET VARIABLE {_identifier(variable)} = ?", [locations])
            scans.append(_scan_sql(table, f"getvariable({literal(variable)})", in_path))
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
            tables: each table with its partitions, as for `add_view`; None for all that exist.
            compute: computes the result from the views, which have the names of the tables. If a file cannot be read,
                it must let the `duckdb.Error` through: only then is it called again.
        """
        import duckdb

        requested = [
            (table, self.lake.file_versions(table.name) if partitions is None else partitions)
            for table, partitions in tables
        ]
        unreadable: dict[str, dict[Partition, _ReadError]] = {table.name: {} for table, _ in tables}
        while True:
            partitions = {
                table.name: self.add_view(table, _without(members, unreadable[table.name]))
                for table, members in requested
            }
            try:
                return compute(ViewContents(partitions, unreadable))
            except duckdb.OutOfMemoryException:
                raise
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
        errors = self.lake.storage.map(lambda path: _verify(self.lake.storage, path, table) or earlier.get(path), files)
        return [(path, error) for path, error in zip(files, errors, strict=True) if error is not None]


@contextmanager
def open_database(
    lake: Lake, *, memory_gb: float = 2.0, spill_directory: str = "", confined: bool = False
) -> Iterator[LakeDatabase]:
    """Open an in-memory DuckDB database; `LakeDatabase.add_view` adds tables to it.

    Args:
        memory_gb: the memory limit in GB, of which DuckDB may use 75 %.
        spill_directory: the directory in which DuckDB may create a private subdirectory for data that exceed the
            memory; the subdirectory is removed at the end. By default `$DAGSTER_HOME`, or else the system's directory
            of temporary files.
        confined: for SQL from users: it can only read files of the views, cannot write and cannot change settings.
            Nothing is spilled, because DuckDB lets any query read and write spilled files: one that needs more memory
            raises `duckdb.OutOfMemoryException`.
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
        config["threads"] = max(os.cpu_count() or 1, REMOTE_THREADS)
    spilled = nullcontext("") if confined else _spill_folder(spill_directory)
    with spilled as folder, duckdb.connect(":memory:", config=config) as connection:
        connection.execute("SET temp_directory = ?", [folder])
        connection.execute("SET TimeZone = 'UTC'")
        database = LakeDatabase(lake, connection, is_confined=confined)
        if confined:
            # Statements, because entries of the configuration take effect in no particular order.
            connection.execute("SET allowed_directories = ['later://']")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        yield database


def table_files(lake: Lake, table: Table, partitions: Collection[Partition] | None = None) -> _Files:
    """Return the files of any table as `Lake.files` does; an unpartitioned one has at most one file."""
    if table.is_partitioned:
        return lake.files(table.name, partitions)
    return {table_path(table.name): ()} if lake.table_exists(table.name) else {}


def files_of_older_definitions(lake: Lake, table: Table, paths: Iterable[str]) -> set[str]:
    """Return which files of a rollup lack a column that is never null: their rows may have another grain.

    Files that cannot be read are not among them.
    """
    if table.name in FETCHED_NAMES:
        return set()
    required = {column.name for column in table.columns if not column.nullable}

    listed, older = list(paths), set[str]()
    for path, data in zip(listed, lake.storage.read_all(listed), strict=True):
        with suppress(FileDamaged):
            if isinstance(data, bytes) and not required <= {*parse_metadata(data).columns}:
                older.add(path)
    return older


def describe_older(files: int) -> str:
    return f"{files} file{'s' * (files != 1)} of an older definition left out. Next step: `later-reporting refresh`"


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
    in_path = [DATE.name] if table.is_partitioned else []
    if table.name in RAW_NAMES:
        in_path.append(_INSTANCE)
    folders = "".join(f"/{name}=*" for name in in_path)
    files = _read_parquet(table, literal(f"{root}/{table.name}{folders}/{FILE_NAME}"), in_path, "allow_empty = true")
    return f"SELECT COLUMNS(lambda name: name <> 'empty') FROM ({empty_select(table)} UNION ALL BY NAME FROM {files})"


def _without(partitions: Collection[Partition], excluded: Collection[Partition]) -> Collection[Partition]:
    # What is left is looked up again: a file that cannot be read may have been replaced.
    return [each for each in partitions if each not in excluded] if excluded else partitions


def _by_layout(files: _Files) -> Iterator[tuple[list[str], list[str]]]:
    """Group paths by the columns in them, which follow: `date`, `instance_id`. One scan reads one group."""

    def in_path(path: str) -> list[str]:
        partitions = files[path][:1]
        of_day = [DATE.name] if partitions and not is_compacted(path) else []
        return [*of_day, *(_INSTANCE for partition in partitions if partition.instance_id is not None)]

    for names, paths in groupby(sorted(files, key=in_path), key=in_path):
        yield list(paths), names


def _view_columns(table: Table) -> list[tuple[str, str]]:
    day = [(DATE.name, "DATE")] if table.is_partitioned else []
    return [*day, *((column.name, SQL_TYPES[column.type]) for column in table.columns)]


def _scan_sql(table: Table, paths: str, in_path: Collection[str]) -> str:
    """Return SQL that selects all rows of files, given an SQL expression for their paths, and the columns in these."""
    nullable = {column.name for column in table.columns if column.nullable}
    expressions: list[str] = []
    for name, _ in _view_columns(table):
        expression = _identifier(name)
        if name not in nullable and name not in in_path:
            # DuckDB returns nulls for a column that a file lacks, even if the column is not nullable.
            missing = literal(f" has no value of {name}")
            expression = f"coalesce({expression}, error(filename || {missing})) AS {expression}"
        expressions.append(expression)
    return f"SELECT {', '.join(expressions)} FROM {_read_parquet(table, paths, in_path, 'filename = true')}"


def _read_parquet(table: Table, paths: str, in_path: Collection[str], options: str) -> str:
    """Return DuckDB's table function. A column that a file lacks is null.

    A column in the paths is read from there: DuckDB then does not open files that a condition on it excludes.
    """
    # With the types, DuckDB infers none: it would turn the instance id 007 into a number.
    types = ", ".join(f"{literal(name)}: {'DATE' if name == DATE.name else 'VARCHAR'}" for name in in_path)
    hive = f"hive_partitioning = true, hive_types = {{{types}}}" if in_path else "hive_partitioning = false"
    schema = ", ".join(
        f"{literal(name)}: {{name: {literal(name)}, type: {literal(type_)}, default_value: NULL}}"
        for name, type_ in _view_columns(table)
        if name not in in_path
    )
    return f"read_parquet({paths}, {options}, {hive}, schema = MAP {{{schema}}})"


def _verify(storage: Storage, path: str, table: Table) -> _ReadError | None:
    """Read a file as `Lake.read` does, and check that its required columns have no nulls; return the error, if any."""
    try:
        data = storage.read(path)
    except LakeUnavailable as error:
        return error
    if data is None:
        return removed_file_error(storage, path)
    schema = table.schema
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
def _spill_folder(directory: str) -> Iterator[str]:
    """Create a private folder in `directory`, and remove it at the end; see `open_database`.

    It also removes folders that killed processes left in `directory` more than a day ago.
    """
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


def literal(value: str) -> str:
    """Return a text in SQL."""
    return "'" + value.replace("'", "''") + "'"
