"""SQL over the lake, by DuckDB: each table is a view over its files, with its dictionary's types and nothing inferred.

Nothing can be changed: DuckDB may read the views' files, write no file and open no connection.
"""

import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake import Lake, LakeDatabase, LakeUnavailable, Table, open_database
from later_reporting_dagster.lake.database import select_nothing

if TYPE_CHECKING:
    import duckdb

# What the sum of int64 is to DuckDB, and no reader of Parquet or pandas expects.
_HUGE = pa.decimal128(38, 0)
# Errors of the query itself, after which the files need not be looked at.
_OF_THE_QUERY = tuple(
    f"{kind} Error" for kind in ("Parser", "Binder", "Catalog", "Conversion", "Out of Range", "Permission", "Syntax")
)
_UNLISTED = "this table is listed when it is read: "


class QueryRefused(ValueError):  # noqa: N818 - named for what it is
    """The query cannot be answered: in one line why."""


def answer(
    sql: str, lake: Lake, tables: Collection[Table], *, memory_gb: float = 2, note: Callable[[str], object] = str
) -> pa.Table:
    """The rows that one query asks for, with instants in UTC.

    Args:
        sql: the query, in DuckDB's SQL.
        lake: where the tables lie; those that the query does not name are not listed.
        tables: all that there are. One that has not landed yet has no rows.
        memory_gb: how many GB of memory DuckDB may use, and the rows may take. Nothing is spilled to a disk.
        note: is told what may explain an answer, as a table that has not landed.

    Raises:
        QueryRefused: it is no SQL, is more than one statement or no query, or names what is not there; a file that it
            reads is damaged; or it needs more memory.
        LakeUnavailable: the lake cannot be listed or read.
    """
    import duckdb

    by_name = {table.name: table for table in tables}
    # Any query may read the folder that DuckDB spills to, so there is none.
    with open_database(lake, memory_gb=memory_gb, spill_directory=None, confined=True) as database:
        try:
            _check_that_it_reads(sql, database.connection)
            for table in tables:
                if re.search(rf"(?<!\w){re.escape(table.name)}(?!\w)", sql, re.IGNORECASE):
                    _list(database, table, note)
                else:
                    _declare(database, table)
            while True:
                try:
                    return _with_plain_integers(_read(database.connection.sql(sql).to_arrow_reader(10_000), memory_gb))
                except (duckdb.Error, pa.ArrowException) as error:
                    if _UNLISTED not in str(error):
                        raise
                    # Its name was computed, as by `query_table('posts_' || 'published')`.
                    _list(database, by_name[_said(error).partition(_UNLISTED)[2].split()[0]], note)
        except (duckdb.Error, pa.ArrowException, OSError) as error:  # once rows come, errors arrive as Arrow's
            if isinstance(error, LakeUnavailable):
                raise
            raise _explained(error, database, by_name, memory_gb) from error


def _declare(database: LakeDatabase, table: Table) -> None:
    """Create the view of a table that the query may not read: when it does, the error names the table."""
    condition = f"CAST(error('{_UNLISTED}{table.name}') AS BOOLEAN)"
    database.connection.execute(f'CREATE VIEW "{table.name}" AS {select_nothing(table, condition=condition)}')


def _list(database: LakeDatabase, table: Table, note: Callable[[str], object]) -> None:
    database.add_view(table)
    if database.is_empty(table.name):
        note(f"{table.name} has not landed in {database.lake.root}")


def _explained(
    error: Exception, database: LakeDatabase, tables: Collection[str], memory_gb: float
) -> QueryRefused | LakeUnavailable:
    said = _said(error)
    if said.startswith("Out of Memory Error"):
        return _too_large(memory_gb)
    if said.startswith("Catalog Error"):
        return QueryRefused(f"{said} The tables are {', '.join(tables)}")
    if isinstance(error, OSError) or "reading file" in said or not said.startswith(_OF_THE_QUERY):
        failures = [each for by_partition in database.unreadable().values() for each in by_partition.values()]
        more = f" ({len(failures) - 1} more files cannot be read)" if len(failures) > 1 else ""
        for failure in failures:
            return failure if isinstance(failure, LakeUnavailable) else QueryRefused(f"{failure}{more}")
    return QueryRefused(said)


def _check_that_it_reads(sql: str, connection: "duckdb.DuckDBPyConnection") -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise QueryRefused(f"one query is asked at a time, and here are {len(statements) or 'none'}")
    kind = statements[0].type.name
    if kind in ("EXPLAIN", "MULTI"):
        # The kind does not say what is explained, nor of what statement a pivot, parsed as several, is part. In
        # parentheses only a query can be parsed.
        query = re.sub(r"^\s*EXPLAIN\b\s*(ANALYZE\b)?", "", sql.strip().rstrip(";"), flags=re.IGNORECASE)
        connection.extract_statements(f"({query}\n)")
    elif kind != "SELECT":
        raise QueryRefused(f"tables are only read here, and this is {kind}: ask by SELECT")


def _read(batches: pa.RecordBatchReader, memory_gb: float) -> pa.Table:
    """The rows, which DuckDB does not count as memory of its own."""
    read: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        size += batch.nbytes
        if size > memory_gb * 1e9:
            raise _too_large(memory_gb)
        read.append(batch)
    return pa.Table.from_batches(read, batches.schema)


def _too_large(memory_gb: float) -> QueryRefused:
    return QueryRefused(f"it needs more than {memory_gb:g} GB of memory: ask for fewer days or columns, or allow more")


def _said(error: Exception) -> str:
    text = str(error)
    if text.startswith("Traceback"):  # of the lake's filesystem: its last line is the error
        return text.rstrip().rpartition("\n")[2]
    # Below the first paragraph it draws where in the text it stumbled.
    return text.partition("\n\n")[0]


def _with_plain_integers(table: pa.Table) -> pa.Table:
    """Sums of counts as int64 again, where they fit."""
    for index, field in enumerate(table.schema):
        if field.type == _HUGE:
            column: Any = table.column(index)
            try:
                table = table.set_column(index, field.name, pc.cast(column, pa.int64()))
            except pa.ArrowInvalid:
                continue  # larger than any int64: exact all the same
    return table
