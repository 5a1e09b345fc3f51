"""Compare the totals of stored rollups with those of the facts that they are made from."""

from collections.abc import Collection, Iterator, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.database import ViewContents
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.rollups.rollup_tables import POSTS, RollupTable, days_of, first_day_of
from later_reporting_dagster.rollups.sql_engine import (
    create_facts,
    open_rollup_database,
    query_rows,
    register_stored_files,
)
from later_reporting_dagster.rollups.templates import render

if TYPE_CHECKING:
    import duckdb

# Money is stored as a float. Counts are exact.
_RELATIVE_TOLERANCE = Decimal("1e-9")
_PUBLISHED_POSTS = "SELECT count(DISTINCT (instance_id, post_id)) AS posts FROM posts_published"


def check_period_totals(
    lake: Lake, tables: Sequence[tuple[RollupTable, Collection[date]]], *, memory_gb: float
) -> dict[str, dict[date, list[str]]]:
    """Compare stored days, weeks or months, given by their first days, with the raw rows, which are read once.

    All tables have sums of the same metrics.

    Returns:
        By table name and first day, one sentence for each file of which no totals can be read and each total that
        differs, if there are any.
    """
    days = {
        day for table, first_days in tables for first_day in first_days for day in days_of(table.cadence, first_day)
    }
    with open_rollup_database(lake, memory_gb=memory_gb) as database:

        def check(contents: ViewContents) -> dict[str, dict[date, list[str]]]:
            register_stored_files(database.connection, contents.partitions)
            found: dict[str, dict[date, list[str]]] = {}
            created = set[str]()
            for table, first_days in tables:
                created.discard("calendar_periods")  # those of another table
                create_facts(database.connection, table, created, is_compared=True)
                raw, stored = contents.unreadable[POST_METRICS_DAILY.name], contents.unreadable[table.name]
                sentences = [
                    *((first_day_of(table.cadence, each.day), str(error)) for each, error in raw.items()),
                    *((each.day, str(error)) for each, error in stored.items()),
                    *_differences(database.connection, table, table.name),
                ]
                found[table.name] = {}
                for first_day, sentence in sentences:
                    if first_day in first_days:  # else it is about days that only another table has
                        found[table.name].setdefault(first_day, []).append(sentence)
            return found

        views = [(table.table, [*map(Partition, first_days)]) for table, first_days in tables]
        raw_files = lake.file_versions(POST_METRICS_DAILY.name, days=days, with_retired=False)
        return database.read([(POST_METRICS_DAILY.table, raw_files), *views], check)


def check_window_totals(
    lake: Lake, tables: Sequence[tuple[RollupTable, pa.Table]], *, memory_gb: float
) -> dict[str, list[str]]:
    """Compare the rows of tables over windows, and of `posts`, with the raw tables of the lake.

    Returns:
        By table name, one sentence for each raw file of which no totals can be read and each total that differs.
    """
    # `posts` is compared with the posts of one table.
    compared = [POSTS_PUBLISHED if table.name == POSTS.name else POST_METRICS_DAILY for table, _ in tables]
    with open_rollup_database(lake, memory_gb=memory_gb) as database:

        def check(contents: ViewContents) -> dict[str, list[str]]:
            register_stored_files(database.connection, contents.partitions)
            unreadable = [str(error) for errors in contents.unreadable.values() for error in errors.values()]
            found: dict[str, list[str]] = {}
            created = set[str]()  # what has the same name is the same for all tables
            for table, rows in tables:
                if table.name == POSTS.name:
                    differing = _posts_that_differ(database.connection, rows)
                else:
                    create_facts(database.connection, table, created, is_compared=True)
                    database.connection.register("stored_rows", rows)
                    sentences = _differences(database.connection, table, "stored_rows")
                    differing = [f"{window}: {sentence}" for window, sentence in sentences]
                found[table.name] = [*unreadable, *differing]
            return found

        views = [(raw.table, lake.file_versions(raw.name, with_retired=False)) for raw in dict.fromkeys(compared)]
        return database.read(views, check)


def _posts_that_differ(connection: "duckdb.DuckDBPyConnection", rows: pa.Table) -> list[str]:
    (published,) = query_rows(connection, _PUBLISHED_POSTS)
    stored = sum(rows["is_published"].to_pylist())
    return [] if stored == published["posts"] else [f"{published['posts']} posts in posts_published and {stored} here"]


def _differences(
    connection: "duckdb.DuckDBPyConnection", table: RollupTable, relation: str
) -> Iterator[tuple[Any, str]]:
    """Yield the period of each total that differs, and a sentence about it."""
    variables = table.variables
    for row in query_rows(connection, render("totals.sql", variables | {"table": relation})):
        for metric in variables["metrics"]:
            expected, found = row[f"{metric.name}_of_facts"], row[f"{metric.name}_stored"]
            if not _are_equal(expected, found):
                where = f" of {row['instance_id']}" if row["instance_id"] else ""
                yield (
                    row["period"],
                    (f"{metric.name}{where} is {_shown(expected)} in the raw rows and {_shown(found)} in the rollup"),
                )


def _are_equal(expected: Any, found: Any) -> bool:
    if isinstance(expected, Decimal) and isinstance(found, Decimal):
        return abs(expected - found) <= _RELATIVE_TOLERANCE * max(abs(expected), Decimal(1))
    return bool(expected == found)


def _shown(value: Any) -> str:
    return "not available" if value is None else str(value)
