"""SQL over the lake, by DuckDB: each table is a view over its files, with its dictionary's types and nothing inferred.

Nothing can be changed: what is asked is read, the views are of Arrow, and DuckDB is denied every file and connection.
"""

import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake import Lake
from later_reporting_dagster.reading.frames import Table, dataset, library, read_schema

if TYPE_CHECKING:
    import duckdb

_CLOSED = {"enable_external_access": "false", "autoload_known_extensions": "false"}
# As DuckDB names them; a pivot is parsed as several.
_READING = ("SELECT", "EXPLAIN", "MULTI")
# What the sum of int64 is to DuckDB, and no reader of Parquet or pandas expects.
_HUGE = pa.decimal128(38, 0)


class QueryRefused(ValueError):  # noqa: N818 - named for what it is
    """The query cannot be answered: in one line why."""


def answer(sql: str, lake: Lake, tables: Collection[Table], *, note: Callable[[str], object] = str) -> pa.Table:
    """The rows that one query asks for, with instants in UTC.

    Args:
        sql: the query, in DuckDB's SQL.
        lake: where the tables lie.
        tables: all that there are. One that has not landed yet has no rows.
        note: is told what may explain an answer, as a table that has not landed.

    Raises:
        QueryRefused: it is no SQL, is more than one statement or no query, or names what is not there; or a file that
            it reads is damaged.
        NotInstalled: DuckDB is not there.
        LakeUnavailable: the lake cannot be listed.
    """
    duckdb = library("duckdb", extra="query")
    try:
        with duckdb.connect(":memory:", config=_CLOSED) as connection:
            _check_that_it_reads(sql, connection)
            connection.execute("SET TimeZone = 'UTC'")
            for table in tables:
                # No others are looked for in the lake, which may be far away.
                if re.search(rf"\b{re.escape(table.name)}\b", sql, re.IGNORECASE):
                    view = dataset(lake, table)
                    connection.register(table.name, view)
                    if not view.files:
                        note(f"{table.name} has not landed in {lake.root}")
                else:
                    connection.register(table.name, read_schema(table).empty_table())
            connection.execute("SET lock_configuration = true")
            return _with_plain_integers(connection.sql(sql).to_arrow_table())
    except duckdb.CatalogException as error:
        raise QueryRefused(f"{_said(error)} The tables are {', '.join(table.name for table in tables)}") from error
    except duckdb.Error as error:
        raise QueryRefused(_said(error)) from error


def _check_that_it_reads(sql: str, connection: "duckdb.DuckDBPyConnection") -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise QueryRefused(f"one query is asked at a time, and here are {len(statements) or 'none'}")
    if (kind := statements[0].type.name) not in _READING:
        raise QueryRefused(f"tables are only read here, and this is {kind}: ask by SELECT")


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
