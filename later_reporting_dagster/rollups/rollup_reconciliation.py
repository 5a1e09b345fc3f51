"""Reconcile stored rollups with the raw rows: compare their totals with a second, simple query of the raw tables.

Window tables without a campaign do not count the duplicate rows of posts in several campaigns. Which rows these are is
found by post_rows.sql, which the rollups use, too: an error in that file is not detected.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.database import ViewContents
from later_reporting_dagster.rollups import sql_engine
from later_reporting_dagster.rollups.lake_rollups import SOURCE_TABLES, source_files
from later_reporting_dagster.rollups.rollup_columns import CHANNELS, PREVIOUS, additive_metrics, sum_name
from later_reporting_dagster.rollups.rollup_tables import Cadence, Measures, RollupTable, days_of, first_day_of
from later_reporting_dagster.rollups.sql_engine import open_rollup_database, query_rows

if TYPE_CHECKING:
    import duckdb

_Row = Mapping[str, Any]
# Without rows, these are 0, and everything else is null.
_POSTS = ("posts", *(f"{channel}_posts" for channel in CHANNELS))


def check_lake_periods(
    lake: Lake, table: RollupTable, first_days: Sequence[date], *, memory_gb: float
) -> dict[date, list[str]]:
    """Compare stored days, weeks or months, which begin on `first_days`, with the raw rows.

    Returns:
        By first day, one sentence for each file that cannot be read and each total that differs, if there are any.
    """
    days = [day for first_day in first_days for day in days_of(table.cadence, first_day)]
    with open_rollup_database(lake, memory_gb=memory_gb) as database:

        def check(contents: ViewContents) -> dict[date, list[str]]:
            database.connection.execute(sql_engine.duckdb_macros())
            differences = check_periods(database.connection, table)
            sentences: dict[date, list[str]] = {}
            for errors in contents.unreadable.values():
                for partition, error in errors.items():
                    sentences.setdefault(first_day_of(table.cadence, partition.day), []).append(str(error))
            for first_day, of_partition in differences.items():
                sentences.setdefault(first_day, []).extend(of_partition)
            return sentences

        raw_partitions = lake.partitions(table.raw_table, days=days, with_retired=False)
        tables = [(SOURCE_TABLES[table.raw_table], raw_partitions), (table.table, [*map(Partition, first_days)])]
        return database.read(tables, check)


def check_lake_windows(
    lake: Lake, tables: Sequence[RollupTable], rows: Mapping[str, pa.Table], *, memory_gb: float
) -> dict[str, list[str]]:
    """Compare the rows of window tables, given by table name, with the raw tables of the lake.

    Returns:
        By table name, one sentence for each raw file that cannot be read and each total that differs.
    """
    with open_rollup_database(lake, memory_gb=memory_gb) as database:

        def check(contents: ViewContents) -> dict[str, list[str]]:
            sql_engine.register_stored_files(database.connection, contents.partitions)
            sql_engine.prepare_posts(database.connection, tables[0])
            database.connection.execute(sql_engine.render("window_ranges.sql", tables[0])).fetchall()
            differences = check_windows(database.connection, tables, rows)
            unreadable = [str(error) for errors in contents.unreadable.values() for error in errors.values()]
            return {name: [*unreadable, *sentences] for name, sentences in differences.items()}

        return database.read(source_files(lake), check)


def check_periods(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> dict[date, list[str]]:
    """Return, by first day, one sentence for each total of stored days, weeks or months that differs from the raw rows.

    The connection has views of the table and of its raw table.
    """
    raw: dict[date, list[_Row]] = {}
    for row in _raw_totals(connection, table):
        raw.setdefault(first_day_of(table.cadence, row["date"]), []).append(row)
    names = _compared(table)
    sums = ", ".join(f"sum({name}) AS {name}" for name in names)
    found = query_rows(connection, f"SELECT date, {sums} FROM {table.name} GROUP BY ALL")
    rolled_up = {row.pop("date"): row for row in found}
    differences = {
        day: [*_differences(raw.get(day, ()), rolled_up.get(day, dict.fromkeys(names)))]
        for day in sorted(raw.keys() | rolled_up.keys())
    }
    return {day: sentences for day, sentences in differences.items() if sentences}


def check_windows(
    connection: "duckdb.DuckDBPyConnection", tables: Sequence[RollupTable], rows: Mapping[str, pa.Table]
) -> dict[str, list[str]]:
    """Return, by name of a window table, one sentence for each total of its `rows` that differs from the raw rows.

    The connection has the relations of `sql_engine.prepare_posts` and of window_ranges.sql.
    """
    raw = {
        measures: _raw_totals(connection, table) for measures, table in {each.measures: each for each in tables}.items()
    }
    return {
        table.name: [*_check_window_table(connection, table, rows[table.name], raw[table.measures])] for table in tables
    }


def _check_window_table(
    connection: "duckdb.DuckDBPyConnection", table: RollupTable, rows: pa.Table, raw: Sequence[_Row]
) -> Iterator[str]:
    if "campaign_id" not in table.grain:
        raw = [row for row in raw if not row["is_duplicate"]]
    connection.register("rolled_up", rows)
    for each in query_rows(connection, f"FROM ranges WHERE table_name = '{table.raw_table}' ORDER BY ALL"):
        prefix = "previous_" if each["is_previous"] else ""
        names = [name for name in _compared(table) if not prefix or name in PREVIOUS]
        sums = ", ".join(f'sum("{prefix}{name}") AS {name}' for name in names)
        of_range = [row for row in raw if each["first_day"] <= row["date"] <= each["last_day"]]
        for scope in ("IS NULL", "IS NOT NULL") if table.is_overall else ("",):
            condition = f"time_window = '{each['time_window']}'" + (f" AND instance_id {scope}" if scope else "")
            (found,) = query_rows(connection, f"SELECT {sums} FROM rolled_up WHERE {condition}")
            for sentence in _differences(of_range, found):
                yield f"{prefix}{each['time_window']}{' of all instances' * (scope == 'IS NULL')}: {sentence}"


def _compared(table: RollupTable) -> list[str]:
    if table.measures is Measures.COSTS:
        return [*_POSTS]
    # In the raw rows, a post has one row per day, so over several days the number of rows is not the number of posts.
    posts = ["posts"] if table.cadence is Cadence.DAY else []
    return [*posts, *(sum_name(metric) for metric in additive_metrics(table.metrics))]


def _raw_totals(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> list[dict[str, Any]]:
    """Return totals of raw rows by day, for windows with those of duplicate rows apart."""
    sql = sql_engine.render(
        "raw_totals.sql",
        table,
        source=table.raw_table,
        measures_of_table=table.measures,
        with_duplicates=table.cadence is Cadence.WINDOWS,
    )
    return query_rows(connection, sql)


def _differences(raw: Sequence[_Row], rolled_up: _Row) -> Iterator[str]:
    raw_rows = sum(row["raw_rows"] for row in raw)
    for name, found in rolled_up.items():
        values = [row[name] for row in raw if row[name] is not None]
        expected = sum(values) if values else None
        if name in _POSTS:
            expected, found = expected or 0, found or 0
        if not _are_equal(expected, found, raw_rows=raw_rows):
            yield f"{name} is {_shown(expected)} in the raw rows and {_shown(found)} in the rollup"


def _are_equal(raw_total: Any, rollup_total: Any, *, raw_rows: int) -> bool:
    if isinstance(raw_total, Decimal) and rollup_total is not None:
        # Money is stored as the nearest float of a decimal with 6 digits. Counts are exact.
        return bool(abs(float(raw_total) - rollup_total) <= 1e-6 * (1 + raw_rows) + 1e-12 * abs(rollup_total))
    return bool(raw_total == rollup_total)


def _shown(value: Any) -> str:
    return "not available" if value is None else str(value)
