"""Run one read-only SQL query in DuckDB. Each table of the lake is a view of its files.

DuckDB can only read the files of the views: it cannot read other files, write files or open connections.
"""

import re
import shlex
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake.database import LakeDatabase, empty_select, lacks_recorded_months, open_database
from later_reporting_dagster.lake.lake import Lake
from later_reporting_dagster.lake.parquet_file import FileDamaged
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.storage import LakeUnavailable
from later_reporting_dagster.lake.tables import CAMPAIGN_PERIODS_TABLE, INSTANCES_TABLE, OF_MONTHS, Table

if TYPE_CHECKING:
    import duckdb

_Result = TypeVar("_Result")
# DuckDB's sums of int64 have this type. Users of Parquet files and pandas expect int64.
_HUGEINT = pa.decimal128(38, 0)
# Kinds of errors that are usually caused by the SQL. After one of these, the files are not verified, unless the message
# says that a file was being read: a file can also cause a conversion error, for example.
_SQL_ERRORS = tuple(
    f"{kind} Error" for kind in ("Parser", "Binder", "Catalog", "Conversion", "Out of Range", "Permission", "Syntax")
)
# What a query can be: DuckDB reports EXPLAIN whatever is explained, and MULTI for any statement with a PIVOT. Whatever
# else these contain, the confined database neither writes nor reads anything but the views.
_QUERY_KINDS = ("SELECT", "EXPLAIN", "MULTI")
_BATCH_ROWS = 10_000
FETCH_PERIODS = f"later-reporting backfill --asset {CAMPAIGN_PERIODS_TABLE}"


class QueryError(ValueError):
    """The query cannot be run. The message is one line with the reason."""


def run_query(
    sql: str,
    lake: Lake,
    tables: Collection[Table],
    *,
    memory_gb: float = 2,
    labels: Mapping[str, str] | None = None,
    on_note: Callable[[str], object] = lambda _: None,
) -> pa.Table:
    """Return the rows of one SQL query, with instants in UTC.

    Args:
        tables: all tables of the lake; a table without files has no rows. Only the files of tables whose names the
            query contains are listed.
        memory_gb: the memory limit in GB. It applies to DuckDB and, separately, to the rows of the result, so both
            together may use twice as much. Nothing is spilled to disk.
        labels: names of instances, by id: the column `label` of the view of instances.
        on_note: called with a text that may explain the result; for example, that a table has no files.
    """
    import duckdb

    with open_database(lake, memory_gb=memory_gb, confined=True) as database:
        try:
            statements = database.connection.extract_statements(sql)
            if len(statements) != 1:
                raise QueryError(f"expected one SQL statement, got {len(statements) or 'none'}")
            if (kind := statements[0].type.name) not in _QUERY_KINDS:
                raise QueryError(f"only SELECT statements are allowed, not {kind}")
            for table in tables:
                if not re.search(rf"(?<!\w){re.escape(table.name)}(?!\w)", sql, re.IGNORECASE):
                    # For lists of tables and columns. A query that computes the name fails, instead of reading nothing.
                    reason = f"{table.name} is read, but not named: write its name in the query, as in a comment"
                    select = empty_select(table, condition=f"CAST(error('{reason}') AS BOOLEAN)")
                    database.connection.execute(f'CREATE VIEW "{table.name}" AS {select}')
                    continue
                database.add_view(table, labels=labels if table.name == INSTANCES_TABLE else None)
                if table.name in OF_MONTHS and lacks_recorded_months(lake):
                    on_note(
                        f"{table.name} lacks what the API totals for calendar months: an earlier release has fetched"
                        f" {CAMPAIGN_PERIODS_TABLE}. Next step: `{FETCH_PERIODS}`, then `later-reporting refresh`"
                    )
                if older := database.older_files[table.name]:
                    files = f"{older} file{'s' * (older != 1)}"
                    on_note(
                        f"{table.name}: {files} of an older definition left out. Next step: `later-reporting refresh`"
                    )
                elif database.is_empty(table.name):
                    on_note(f"{table.name} has no files in {lake.root}")
                elif (
                    _has_both_scopes(table)
                    # The name may also stand in a text or a comment.
                    and re.search(rf'(\bFROM|\bJOIN|,)\s+"?{re.escape(table.name)}\b', sql, re.IGNORECASE)
                    and not re.search(r"\bscope\b", sql, re.IGNORECASE)
                ):
                    on_note(
                        f"{table.name} has rows of each instance and of all together: add scope = 'all', or 'instance'"
                    )
            return _rows(sql, database, tables, memory_gb)
        # Errors while rows are fetched are raised by Arrow.
        except (duckdb.Error, pa.ArrowException, OSError, MemoryError) as error:
            if isinstance(error, LakeUnavailable):
                raise
            damaged = _damaged_files_of_retired(error, database)
            if not damaged:
                raise _translated(error, database, [table.name for table in tables], memory_gb) from error
        # Nothing fetches the files of a retired instance again, and a query may be about the others.
        for name, failures in damaged.items():
            database.remove_from_view(name, failures)
            for partition, failure in failures.items():
                on_note(_left_out(failure, partition))
        try:
            return _rows(sql, database, tables, memory_gb)
        except (duckdb.Error, pa.ArrowException, OSError, MemoryError) as error:
            raise _translated(error, database, [table.name for table in tables], memory_gb) from error


def _rows(sql: str, database: LakeDatabase, tables: Collection[Table], memory_gb: float) -> pa.Table:
    database.add_comments(tables)
    connection = database.connection
    return _narrow_sums(
        interruptible(connection, lambda: _read(connection.sql(sql).to_arrow_reader(_BATCH_ROWS), memory_gb))
    )


def _damaged_files_of_retired(error: Exception, database: LakeDatabase) -> dict[str, dict[Partition, FileDamaged]]:
    """Return, by view, the damaged files of retired instances; none if anything else is at fault."""
    marks, found = database.lake.retired.marks(), dict[str, dict[Partition, FileDamaged]]()
    for name, files in _unreadable_files(error, database).items() if marks.retired else ():
        for partition, failure in files.items():
            if not isinstance(failure, FileDamaged) or partition is None or marks.is_in_numbers(partition.instance_id):
                return {}
            found.setdefault(name, {})[partition] = failure
    return found


def _left_out(failure: FileDamaged, partition: Partition) -> str:
    damage, _, _ = str(failure).partition(". Next step: ")
    undo = f"later-reporting retire --undo {shlex.quote(str(partition.instance_id))}"
    return (
        f"{damage}. Its rows are left out, because the instance is retired. Next step: `{undo}` and `later-reporting"
        f" backfill --only-missing --start {partition.day} --end {partition.day}`, or delete the file"
    )


def _has_both_scopes(table: Table) -> bool:
    """Return whether the table has rows of all instances together; creators and campaigns are of one instance."""
    names = {column.name for column in table.columns}
    return "scope" in names and not names & {"creator_id", "campaign_id"}


def interruptible(connection: "duckdb.DuckDBPyConnection", compute: Callable[[], _Result]) -> _Result:
    """Compute something with DuckDB in a thread: it does not hear Ctrl-C itself until a result is complete."""
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(compute)
        try:
            return future.result()
        finally:
            while not future.done():
                connection.interrupt()  # does nothing between two of its tasks
                wait([future], timeout=0.05)


def _read(batches: pa.RecordBatchReader, memory_gb: float) -> pa.Table:
    """Read all rows, with a separate memory limit: DuckDB's limit does not include them."""
    read: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        size += batch.nbytes
        if size > memory_gb * 1e9:
            raise out_of_memory(memory_gb)
        read.append(batch)
    return pa.Table.from_batches(read, batches.schema)


def _narrow_sums(rows: pa.Table) -> pa.Table:
    """Return the rows with sums of int64 as int64, if all values of the column fit."""
    for index, field in enumerate(rows.schema):
        if field.type == _HUGEINT:
            column: Any = rows.column(index)
            try:
                rows = rows.set_column(index, field.name, pc.cast(column, pa.int64()))
            except pa.ArrowInvalid:
                continue  # keep the decimal: it is exact too
    return rows


def _translated(
    error: Exception, database: LakeDatabase, table_names: Collection[str], memory_gb: float
) -> QueryError | LakeUnavailable:
    """Translate a DuckDB or Arrow error. The result names the file at fault, if there is one."""
    message = _first_line(error)
    if message.startswith("Out of Memory Error") or isinstance(error, MemoryError):
        return out_of_memory(memory_gb)
    if message.startswith("Catalog Error"):
        return QueryError(f"{message} The tables are {', '.join(table_names)}")
    failures = [failure for files in _unreadable_files(error, database).values() for failure in files.values()]
    if failures:
        more = f" ({len(failures) - 1} more files cannot be read)" if len(failures) > 1 else ""
        first = failures[0]
        return first if isinstance(first, LakeUnavailable) else QueryError(f"{first}{more}")
    return QueryError(message)


def _unreadable_files(
    error: Exception, database: LakeDatabase
) -> dict[str, dict[Partition | None, LakeUnavailable | FileDamaged]]:
    """Return the files that cannot be read, by view; none if the SQL is at fault, or the memory."""
    message = _first_line(error)
    is_of_file = isinstance(error, OSError) or "reading file" in message or not message.startswith(_SQL_ERRORS)
    is_of_memory = message.startswith("Out of Memory Error") or isinstance(error, MemoryError)
    return database.find_unreadable_files() if is_of_file and not is_of_memory else {}


def out_of_memory(memory_gb: float) -> QueryError:
    return QueryError(
        f"the query needs more than {memory_gb:g} GB of memory: select fewer days or columns, or raise the limit"
    )


def _first_line(error: Exception) -> str:
    _, traceback, raised = str(error).rpartition("Traceback (most recent call last):\n")
    if traceback:  # raised by the lake's filesystem: the error is the first line that is not indented
        return next(line for line in raised.splitlines() if line.strip() and not line.startswith(" "))
    # After an empty line DuckDB quotes the SQL and points at the place of the error.
    return " ".join(line.strip() for line in raised.partition("\n\n")[0].splitlines())
