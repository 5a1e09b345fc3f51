"""SQL over the lake, by DuckDB: each table is a view over its files, with its dictionary's types and nothing inferred.

Nothing can be changed: what is asked is read, the views are of Arrow, and DuckDB is denied every file and connection.
"""

import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake import Lake
from later_reporting_dagster.reading.frames import Table, library

if TYPE_CHECKING:
    import duckdb

# DuckDB lets every query read and write the folder that it spills to, so there is none.
_CONFIG = {"autoload_known_extensions": "false", "temp_directory": ""}
# What the sum of int64 is to DuckDB, and no reader of Parquet or pandas expects.
_HUGE = pa.decimal128(38, 0)


class QueryRefused(ValueError):  # noqa: N818 - named for what it is
    """The query cannot be answered: in one line why."""


def answer(
    sql: str, lake: Lake, tables: Collection[Table], *, memory_gb: float = 2, note: Callable[[str], object] = str
) -> pa.Table:
    """The rows that one query asks for, with instants in UTC.

    Args:
        sql: the query, in DuckDB's SQL.
        lake: where the tables lie; those that the query does not scan are not listed.
        tables: all that there are. One that has not landed yet has no rows.
        memory_gb: how many GB of memory DuckDB may use, and the rows may take. Nothing is spilled to a disk.
        note: is told what may explain an answer, as a table that has not landed.

    Raises:
        QueryRefused: it is no SQL, is more than one statement or no query, or names what is not there; a file that it
            reads is damaged; or it needs more memory.
        NotInstalled: DuckDB is not there.
        LakeUnavailable: the lake cannot be listed.
    """
    duckdb = library("duckdb", extra="query")
    from later_reporting_dagster.reading.lazy_dataset import LazyDataset  # imports pandas, by way of pyarrow.dataset

    views = {table.name: LazyDataset(lake, table) for table in tables}
    try:
        with duckdb.connect(":memory:", config={**_CONFIG, "memory_limit": f"{memory_gb}GB"}) as connection:
            # Not in the configuration, whose entries take effect in no particular order.
            connection.execute("SET enable_external_access = false")
            connection.execute("SET TimeZone = 'UTC'")
            _check_that_it_reads(sql, connection)
            for name, view in views.items():
                connection.register(name, view)
            connection.execute("SET lock_configuration = true")
            answered = _with_plain_integers(_read(connection.sql(sql).to_arrow_reader(10_000), memory_gb))
    except (duckdb.Error, pa.ArrowException, OSError) as error:  # once rows come, DuckDB's errors arrive as Arrow's
        for view in views.values():
            if view.error is not None:
                raise view.error from None
        if _said(error).startswith("Out of Memory Error"):
            raise _too_large(memory_gb) from error
        hint = f" The tables are {', '.join(views)}" if isinstance(error, duckdb.CatalogException) else ""
        raise QueryRefused(f"{_said(error)}{hint}") from error
    for name, view in views.items():
        if view.opened is not None and not view.opened.files:
            note(f"{name} has not landed in {lake.root}")
    return answered


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
    # Below the first paragraph it draws where in the text it stumbled.
    return str(error).partition("\n\n")[0]


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
