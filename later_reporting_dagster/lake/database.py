"""DuckDB views over the tables of a lake, with the column types that `Table.columns` declares; nothing is inferred.

DuckDB reads files on a local disk by path. Files of an object store are first copied to a temporary folder, many at a
time, so that each is requested once, however often the SQL reads it. If the SQL is confined, or if the path of the root
has a character that DuckDB reads as a pattern, it reads files through `LakeFileSystem`, only those that it needs.
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
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from later_reporting_dagster.contract.parameters import NETWORKS, OTHER_TYPES
from later_reporting_dagster.lake.lake import Lake
from later_reporting_dagster.lake.lake_filesystem import LakeFileSystem, hides_instance, removed_file_error
from later_reporting_dagster.lake.open_storage import open_storage
from later_reporting_dagster.lake.parquet_file import FileDamaged, MetadataDamaged, damaged_file_error, from_parquet
from later_reporting_dagster.lake.paths import (
    FILE_NAME,
    Partition,
    partition_path,
    partition_sort_key,
    step_to_replace,
    table_path,
)
from later_reporting_dagster.lake.storage import REMOTE_THREADS, LakeUnavailable, Storage
from later_reporting_dagster.lake.tables import (
    CAMPAIGN_PERIODS_TABLE,
    CONTENT_TYPE,
    DATE,
    NETWORK,
    OF_INSTANCES,
    RAW_NAMES,
    ColumnType,
    Table,
)

if TYPE_CHECKING:
    import duckdb

_Result = TypeVar("_Result")


# The files of a table: by path relative to the root, the partition of each; None for an unpartitioned table.
_Files = Mapping[str, Partition | None]
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
    "list<item: string>": "VARCHAR[]",
}
_INSTANCE = "instance_id"
# The network of a row, also if it was not known when the row was written; see `network_of`.
_NETWORK_SQL = (
    f"coalesce({NETWORK}, CASE"
    + "".join(f" WHEN {CONTENT_TYPE} = '{type_}' THEN '{network}'" for type_, network in OTHER_TYPES.items())
    + f" WHEN split_part({CONTENT_TYPE}, '_', 1) IN {NETWORKS} THEN split_part({CONTENT_TYPE}, '_', 1) END)"
)


@dataclass(frozen=True, slots=True)
class ViewContents:
    """By table, the partitions in the views while `LakeDatabase.read` computes, and those that cannot be read."""

    partitions: Mapping[str, Sequence[Partition]]
    unreadable: Mapping[str, Mapping[Partition, _ReadError]]


class LakeDatabase:
    """An in-memory DuckDB database with views over tables of a lake. Use `open_database` to create one.

    A view reads the files that existed when they were listed. A file is never seen in part. While files are replaced,
    a query may read some of them from before and some from after, or fail; a table of one file is never mixed.

    Attributes:
        connection: the DuckDB connection, with UTC as its time zone. Its cursors cannot read the views, because they do
            not share its variables.
        older_files: by table, how many files are not in its view, because an older definition made them.
    """

    def __init__(
        self, lake: Lake, connection: "duckdb.DuckDBPyConnection", *, is_confined: bool, copies: str = ""
    ) -> None:
        self.connection = connection
        self.lake = lake
        self.older_files: dict[str, int] = {}
        self._views: dict[str, tuple[Table, _Files]] = {}
        self._allowed: set[str] = set()
        self._copies = copies
        self._copied: set[str] = set()
        # Of files that could not be copied.
        self._errors: dict[str, LakeUnavailable] = {}
        self._storage = open_storage(copies, {}) if copies else lake.storage
        self._filesystem: LakeFileSystem | None = None
        if is_confined or self._storage.native_path("") is None:
            self._filesystem = LakeFileSystem(self._storage, allowed=self._allowed)
            connection.register_filesystem(self._filesystem)

    def add_view(
        self, table: Table, partitions: Collection[Partition] | None = None, *, labels: Mapping[str, str] | None = None
    ) -> list[Partition]:
        """Create or replace the view of a table, with its columns; for a partitioned table, `date` comes first.

        If a file lacks a nullable column, the column is null in its rows. A query fails when it reads a column that is
        not nullable and is missing or null.

        Args:
            partitions: the partitions in the view, which have to exist; by default all that exist.
            labels: names of instances by id, for a last column `label`; an instance without one has its id.

        Returns:
            The partitions in the view; empty for an unpartitioned table.
        """
        listed = table_files(self.lake, table, partitions)
        if self._copies:
            self.lake.storage.map(self._copy, [path for path in listed if path not in self._copied])
        older = files_of_older_definitions(self._storage, table, listed)
        self.older_files[table.name] = len(older)
        files = {path: partition for path, partition in listed.items() if path not in older}
        self._allowed.update(files)
        self._views[table.name] = table, files
        scans: list[str] = []
        for paths, in_path in _by_layout(files, by_url=self._filesystem is not None):
            # Paths are passed in a variable: parsing thousands of them in SQL takes DuckDB longer than the query
            # itself.
            variable = f"{table.name}/{len(scans)}"
            remote, native_path = self._filesystem, self._storage.native_path
            locations = [remote.url(path) if remote else native_path(path) for path in paths]
            self.connection.execute(f"SET VARIABLE {_identifier(variable)} = ?", [locations])
            scans.append(_scan_sql(table, f"getvariable({literal(variable)})", in_path))
        select = " UNION ALL ".join(scans) or empty_select(table)
        if labels:
            cases = " ".join(f"WHEN {literal(name)} THEN {literal(label)}" for name, label in labels.items())
            select = f"SELECT *, CASE {_INSTANCE} {cases} ELSE {_INSTANCE} END AS label FROM ({select})"
        self.connection.execute(f"CREATE OR REPLACE VIEW {_identifier(table.name)} AS {select}")
        return sorted((partition for partition in files.values() if partition), key=partition_sort_key)

    def remove_from_view(self, name: str, partitions: Collection[Partition]) -> None:
        """Create the view of a partitioned table again, without some partitions."""
        table, files = self._views[name]
        self.add_view(table, [partition for partition in files.values() if partition and partition not in partitions])

    def add_comments(self, tables: Iterable[Table]) -> None:
        """Comment on views and their columns, for `duckdb_views()`, `duckdb_columns()` and tools that read these."""
        for table in tables:
            view = _identifier(table.name)
            comments = [f"COMMENT ON VIEW {view} IS {literal(table.description)}"]
            if table.is_partitioned:
                comments.append(f"COMMENT ON COLUMN {view}.{DATE.name} IS 'First UTC day of the partition of the row'")
            for column in table.columns:
                text = f"{column.description} [{column.unit}]" if column.unit else column.description
                comments.append(f"COMMENT ON COLUMN {view}.{_identifier(column.name)} IS {literal(text)}")
            self.connection.execute("; ".join(comments))

    def is_empty(self, name: str) -> bool:
        return not self._views[name][1]

    def read(
        self, tables: Sequence[tuple[Table, Collection[Partition]]], compute: Callable[[ViewContents], _Result]
    ) -> _Result:
        """Create views of partitioned tables and return `compute`'s result.

        If `compute` fails because files cannot be read, exclude these files and call it again.

        Args:
            tables: each table with its partitions, as for `add_view`.
            compute: computes the result from the views, which have the names of the tables. If a file cannot be read,
                it must let the `duckdb.Error` through: only then is it called again.
        """
        import duckdb

        unreadable: dict[str, dict[Partition, _ReadError]] = {table.name: {} for table, _ in tables}
        while True:
            partitions = {
                table.name: self.add_view(table, [each for each in members if each not in unreadable[table.name]])
                for table, members in tables
            }
            try:
                return compute(ViewContents(partitions, unreadable))
            except duckdb.OutOfMemoryException:
                raise
            except duckdb.Error as error:
                found = self.find_unreadable_files()
                if unreadable.keys().isdisjoint(found):
                    # A file of a view that was added before, such as a table without partitions?
                    for errors in found.values():
                        raise next(iter(errors.values())) from error
                    raise
                for name in unreadable.keys() & found.keys():
                    unreadable[name] |= {each: cause for each, cause in found[name].items() if each}

    def find_unreadable_files(self) -> dict[str, dict[Partition | None, _ReadError]]:
        """Read every file of every view as `Lake.read` does, and return the errors by view and partition.

        The partition of an unpartitioned table is None.
        """
        found: dict[str, dict[Partition | None, _ReadError]] = {}
        for name, (table, files) in self._views.items():
            errors = self._storage.map(partial(self._verify, table=table), files)
            of_view = {files[path]: error for path, error in zip(files, errors, strict=True) if error is not None}
            found |= {name: of_view} if of_view else {}
        return found

    def _verify(self, path: str, *, table: Table) -> _ReadError | None:
        """Read a file as `Lake.read` does, and check that its required columns have no nulls; return the error."""
        if path in self._errors:
            return self._errors[path]
        location = self.lake.storage.location(path)
        try:
            data = self._storage.read(path)
        except LakeUnavailable as error:
            return error
        if data is None:
            return removed_file_error(location)
        try:
            rows = from_parquet(data, schema=table.schema)
        except FileDamaged as error:
            return damaged_file_error(location, error, step=step_to_replace(path))
        if nulls := [field.name for field in rows.schema if not field.nullable and rows[field.name].null_count]:
            problem = FileDamaged(f"it has rows without {', '.join(nulls)}")
            return damaged_file_error(location, problem, step=step_to_replace(path))
        return None

    def _copy(self, path: str) -> None:
        """Copy a file. If it cannot be read, its copy is empty, so that a query fails, and `_verify` returns why."""
        try:
            data = self.lake.storage.read(path)
            if data is None:
                self._errors[path] = removed_file_error(self.lake.storage.location(path))
        except LakeUnavailable as error:
            data, self._errors[path] = None, error
        target = Path(self._copies, path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data or b"")
        except OSError as error:
            raise LakeUnavailable(
                f"{self.lake.storage.location(path)} cannot be copied to {target}: {error.strerror}. Next step: free"
                " disk space there, or set DAGSTER_HOME or TMPDIR to another folder"
            ) from error
        self._copied.add(path)


@contextmanager
def open_database(
    lake: Lake, *, memory_gb: float = 2.0, spill_directory: str = "", confined: bool = False
) -> Iterator[LakeDatabase]:
    """Open an in-memory DuckDB database; `LakeDatabase.add_view` adds tables to it.

    Args:
        memory_gb: the memory limit in GB, of which DuckDB may use 75 %.
        spill_directory: the directory in which a private subdirectory is created for data that exceed the memory, and
            for copies of files; it is removed at the end. By default `$DAGSTER_HOME`, or else the system's directory
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
    copies_files = lake.storage.is_remote and not confined
    if lake.storage.is_remote and confined:
        config["threads"] = max(os.cpu_count() or 1, REMOTE_THREADS)
    spilled = nullcontext("") if confined else _spill_folder(spill_directory)
    with spilled as folder, duckdb.connect(":memory:", config=config) as connection:
        connection.execute("SET temp_directory = ?", [folder])
        connection.execute("SET TimeZone = 'UTC'")
        copies = str(Path(folder, "files")) if copies_files else ""
        database = LakeDatabase(lake, connection, is_confined=confined, copies=copies)
        if confined:
            # Statements, because entries of the configuration take effect in no particular order.
            connection.execute("SET allowed_directories = ['later://']")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
        yield database


def table_files(lake: Lake, table: Table, partitions: Collection[Partition] | None = None) -> _Files:
    """Return the files of a table, by default all that exist; an unpartitioned one has at most one file."""
    if not table.is_partitioned:
        return {table_path(table.name): None} if lake.table_version(table.name) else {}
    listed = lake.partitions(table.name) if partitions is None else sorted(partitions, key=partition_sort_key)
    return {partition_path(table.name, partition): partition for partition in listed}


def files_of_older_definitions(storage: Storage, table: Table, paths: Iterable[str]) -> set[str]:
    """Return which files of a rollup were made by an older definition: their rows may have another grain.

    These have a lower version of it in their metadata, or lack a column that is never null; or their metadata is
    damaged, so that nobody knows. Files that cannot be read at all are not among them.
    """
    if table.name in RAW_NAMES:
        return set()
    required = {column.name for column in table.columns if not column.nullable}

    def is_older(path: str) -> bool:
        with suppress(FileDamaged, LakeUnavailable):
            try:
                footer = storage.read_footer(path)
            except MetadataDamaged:
                return True
            if footer is not None:
                version = footer.made_from.definition if footer.made_from else 0
                return not required <= {*footer.columns} or version < table.definition
        return False

    listed = list(paths)
    return {path for path, older in zip(listed, storage.map(is_older, listed), strict=True) if older}


def lacks_recorded_months(lake: Lake) -> bool:
    """Return whether an earlier release fetched the periods of campaigns, so that there are no months by day."""
    with suppress(FileDamaged):
        footer = lake.read_metadata(CAMPAIGN_PERIODS_TABLE)
        return footer is not None and footer.recorded_months is None
    return False


def empty_select(table: Table, *, condition: str = "false") -> str:
    """Return SQL that selects no rows, with the columns of a table's view.

    If the condition calls `error(…)`, a query of the view fails with this message.
    """
    columns = [f"CAST(NULL AS {type_}) AS {_identifier(name)}" for name, type_ in _view_columns(table)]
    return f"SELECT {', '.join(columns)} FROM (SELECT {condition} AS read) WHERE read"


def glob_select(table: Table, root: str) -> str:
    """Return SQL that selects all rows of a table from the files below `root` that exist when it runs.

    For programs that cannot list the files first. Requires DuckDB 2. Without files, DuckDB ignores the schema and
    returns a column `empty`; the `UNION` has the columns of the table.
    """
    in_path = [DATE.name] if table.is_partitioned else []
    if table.name in OF_INSTANCES:
        in_path.append(_INSTANCE)
    folders = "".join(f"/{name}=*" for name in in_path)
    files = _read_parquet(table, literal(f"{root}/{table.name}{folders}/{FILE_NAME}"), in_path, "allow_empty = true")
    rows = f"SELECT COLUMNS(lambda name: name <> 'empty') FROM ({empty_select(table)} UNION ALL BY NAME FROM {files})"
    return f"SELECT * REPLACE ({_NETWORK_SQL} AS {NETWORK}) FROM ({rows})" if _has_networks(table) else rows


def _has_networks(table: Table) -> bool:
    """Return whether the network of a row follows from its content type."""
    return {CONTENT_TYPE, NETWORK} <= {column.name for column in table.columns}


def _by_layout(files: _Files, *, by_url: bool) -> Iterator[tuple[list[str], list[str]]]:
    """Group paths by the columns in them, which follow: `date`, `instance_id`. One scan reads one group."""

    def in_path(path: str) -> list[str]:
        partition = files[path]
        if partition is None:
            return []
        has_instance = partition.instance_id is not None and not (by_url and hides_instance(path))
        return [DATE.name, _INSTANCE] if has_instance else [DATE.name]

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
        if name == NETWORK and _has_networks(table):
            expression = f"{_NETWORK_SQL} AS {expression}"
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
