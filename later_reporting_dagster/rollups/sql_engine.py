"""Run the rollups' SQL in DuckDB, over views of the raw tables."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from later_reporting_dagster.lake import Column, Lake, Partition, schema_of
from later_reporting_dagster.lake.database import SQL_TYPES, LakeDatabase, open_database
from later_reporting_dagster.lake.file_metadata import FileMetadata
from later_reporting_dagster.lake.tables import INSTANT, POST_METRICS_DAILY
from later_reporting_dagster.rollups.rollup_tables import Cadence, RollupTable
from later_reporting_dagster.rollups.templates import render

if TYPE_CHECKING:
    import duckdb

# In results of `roll_up`: the first day of a row's day, week or month, which identifies its partition.
FIRST_DAY = "first_day"
_INSTANT = pa.timestamp("us", tz="UTC")
# The relations that queries read, in the order in which they are created: name -> SQL file.
FACTS: Mapping[str, str] = {
    "macros": "macros.sql",
    "post_days": "post_days.sql",
    "calendar_periods": "calendar_periods.sql",
    "window_periods": "window_periods.sql",
    "post_periods": "post_periods.sql",
    "campaign_post_periods": "post_periods.sql",
    "known_posts": "known_posts.sql",
    "post_ages": "post_ages.sql",
    "named_campaigns": "named_campaigns.sql",
}


class RollupFailed(ValueError):  # noqa: N818 - named for what happened
    """A rollup needs more memory than allowed. The message has the next step."""


def roll_up(connection: "duckdb.DuckDBPyConnection", tables: Sequence[RollupTable]) -> dict[str, pa.Table]:
    """Roll up tables of one file, or one table by day, week or month. Return the rows by table name.

    Rows are ordered by key, nulls last. By day, week or month, they begin with `first_day`, which identifies the
    partition. The bytes do not depend on the order of the raw rows.

    Args:
        connection: has views of both raw tables, the relations of `lake_rollups.campaign_relations` and of
            `register_stored_files`, `campaign_performance_periods`, and the function of `register_requested_at`.
    """
    found: dict[str, pa.Table] = {}
    created = set[str]()
    for table in tables:
        for name, sql in facts_sql(table).items():
            if name not in created:
                connection.execute(sql).fetchall()
                created.add(name)
        found[table.name] = _query(connection, table)
    return found


def facts_sql(table: RollupTable) -> dict[str, str]:
    """Return the SQL that creates the macros and the relations that the query of a table reads, by name, in order."""
    is_calendar = table.cadence is not Cadence.ALL
    needed = ("macros", "calendar_periods" if is_calendar else "", *table.facts)
    variables = table.variables | {"period": "first_day" if is_calendar else "time_window, is_previous"}
    return {name: render(template, variables | {"fact": name}) for name, template in FACTS.items() if name in needed}


def query_sql(table: RollupTable) -> str:
    """Return the query of a table as it runs."""
    return render(f"{table.query}.sql", table.variables)


def register_stored_files(
    connection: "duckdb.DuckDBPyConnection", partitions: Mapping[str, Sequence[Partition]]
) -> None:
    """Create the relation `stored_files`: table_name, date and instance_id of each partition, given by table name."""
    found = [(name, each.day, each.instance_id) for name, of_table in partitions.items() for each in of_table]
    schema = pa.schema({"table_name": pa.string(), "date": pa.date32(), "instance_id": pa.string()})
    columns = zip(*found, strict=True) if found else ((), (), ())
    connection.register("stored_files", pa.table([pa.array(each) for each in columns], schema))


def register_requested_at(database: LakeDatabase) -> None:
    """Create the function `requested_at(instance_id, date)`: when the content of a file of results was requested.

    It reads footers, so a query should ask it for few files. Of one that cannot be read it is null.
    """
    import duckdb
    from duckdb.func import PythonUDFType

    def requested_at(instances: pa.ChunkedArray, days: pa.ChunkedArray) -> pa.Array:
        pairs = zip(instances.to_pylist(), days.to_pylist(), strict=True)
        files = [Partition(day, instance_id) for instance_id, day in pairs]
        footers = database.lake.read_all_metadata(POST_METRICS_DAILY.name, {*files})
        found = [footers.get(file) for file in files]
        return pa.array([each.fetched_at if isinstance(each, FileMetadata) else None for each in found], _INSTANT)

    database.connection.create_function(
        "requested_at", requested_at, ["VARCHAR", "DATE"], duckdb.sqltype(SQL_TYPES[INSTANT]), type=PythonUDFType.ARROW
    )


@contextmanager
def open_rollup_database(lake: Lake, *, memory_gb: float) -> Iterator[LakeDatabase]:
    """Open a database as `open_database` does, and raise DuckDB's error about memory as `RollupFailed`."""
    import duckdb  # deferred: it takes 0.1 s, and loading the Dagster definitions does not need it

    try:
        with open_database(lake, memory_gb=memory_gb) as database:
            register_requested_at(database)
            yield database
    except duckdb.OutOfMemoryException as error:
        raise RollupFailed(
            "the rollup needs more memory than LATER_MEMORY_GB allows. Next step: raise it, or free disk space where"
            " DuckDB spills"
        ) from error


def _query(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> pa.Table:
    """Return the rows of a table's query, with the types of its columns, ordered by its key."""
    partition = [] if table.cadence is Cadence.ALL else [Column(FIRST_DAY, "date32[day]", False, "")]
    columns = [*partition, *table.columns]
    selected = ", ".join(f'CAST("{column.name}" AS {SQL_TYPES[column.type]}) AS "{column.name}"' for column in columns)
    # In the subquery, `time_window` is an enum, which is in the order of the windows.
    key = [FIRST_DAY if name == "date" else name for name in table.key]
    ordered = ", ".join(f"rolled_up.{name}" for name in key)
    sql = f"SELECT {selected} FROM ({query_sql(table)}) AS rolled_up ORDER BY {ordered}"
    return connection.sql(sql).to_arrow_table().cast(schema_of(columns))
