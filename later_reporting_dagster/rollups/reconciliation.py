"""Reconcile rollup tables with the raw rows: compare their totals with a second, simple query of the raw tables.

Window tables without a campaign do not count the duplicate rows of posts in several campaigns. Which rows these are is
found by post_rows.sql, which the rollups use, too: an error in that file is not detected.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE
from later_reporting_dagster.rollups import sql_engine
from later_reporting_dagster.rollups.periods import Cadence, first_day_of
from later_reporting_dagster.rollups.rollup_columns import (
    CAMPAIGN_TOTALS,
    CHANNELS,
    PREVIOUS,
    additive_metrics,
    sum_name,
)
from later_reporting_dagster.rollups.rollup_tables import Measures, RollupTable
from later_reporting_dagster.rollups.sql_engine import FIRST_DAY, query_rows

if TYPE_CHECKING:
    import duckdb

# The relation with the rows of the rollup table to check.
ROLLUP_RELATION = "rolled_up"

_Row = Mapping[str, Any]


def check_periods(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> dict[date, list[str]]:
    """Compare rows of a table of days, weeks or months with the raw rows.

    Args:
        connection: has the relation `rolled_up`: rows of the table, with the column `first_day`.

    Returns:
        By first day, one sentence for each total that differs, if there are any.
    """
    raw: dict[date, list[_Row]] = {}
    for row in _raw_totals(connection, table):
        raw.setdefault(first_day_of(table.cadence, row["date"]), []).append(row)
    names = _compared(table)
    sums = ", ".join(f"sum({name}) AS {name}" for name in names)
    found = query_rows(connection, f"SELECT {FIRST_DAY}, {sums} FROM {ROLLUP_RELATION} GROUP BY ALL")
    rolled_up = {row.pop(FIRST_DAY): row for row in found}
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
    connection.register(ROLLUP_RELATION, rows)
    for each in query_rows(connection, f"FROM ranges WHERE table_name = '{table.raw_table}' ORDER BY ALL"):
        if each["is_previous"] and table.measures is Measures.CAMPAIGNS:
            continue
        prefix = "previous_" if each["is_previous"] else ""
        names = [name for name in _compared(table) if not prefix or name in PREVIOUS]
        sums = ", ".join(f'sum("{prefix}{name}") AS {name}' for name in names)
        of_range = [row for row in raw if each["first_day"] <= row["date"] <= each["last_day"]]
        for scope in ("IS NULL", "IS NOT NULL") if table.is_overall else ("",):
            condition = f"time_window = '{each['time_window']}'" + (f" AND instance_id {scope}" if scope else "")
            (found,) = query_rows(connection, f"SELECT {sums} FROM {ROLLUP_RELATION} WHERE {condition}")
            for sentence in _differences(of_range, found):
                yield f"{prefix}{each['time_window']}{' of all instances' * (scope == 'IS NULL')}: {sentence}"


def _compared(table: RollupTable) -> list[str]:
    if table.measures is Measures.CAMPAIGNS:
        return [metric.column for metric in CAMPAIGN_TOTALS]
    if table.measures is Measures.COSTS:
        return ["posts", *(f"{channel}_posts" for channel in CHANNELS)]
    # In the raw rows, a post has one row per day, so over several days the number of rows is not the number of posts.
    posts = ["posts"] if table.cadence is Cadence.DAY else []
    return [*posts, *(sum_name(metric) for metric in additive_metrics(table.metrics))]


def _raw_totals(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> list[dict[str, Any]]:
    """Return totals of raw rows by day, for windows with those of duplicate rows apart."""
    is_of_campaigns = table.measures is Measures.CAMPAIGNS
    sql = sql_engine.render(
        "raw_totals.sql",
        table,
        source=CAMPAIGN_PERFORMANCE_TABLE if is_of_campaigns else table.raw_table,
        measures_of_table=table.measures,
        with_duplicates=table.cadence is Cadence.WINDOWS and not is_of_campaigns,
    )
    return query_rows(connection, sql)


def _differences(raw: Sequence[_Row], rolled_up: _Row) -> Iterator[str]:
    raw_rows = sum(row["raw_rows"] for row in raw)
    for name, found in rolled_up.items():
        values = [row[name] for row in raw if row[name] is not None]
        expected = sum(values) if values else None
        if not _are_equal(expected, found, raw_rows=raw_rows):
            yield f"{name} is {_shown(expected)} in the raw rows and {_shown(found)} in the rollup"


def _are_equal(raw_total: Any, rollup_total: Any, *, raw_rows: int) -> bool:
    if raw_total is None:
        return not rollup_total and not isinstance(rollup_total, float)  # a count of posts: 0 without rows
    if isinstance(raw_total, Decimal) and rollup_total is not None:
        # Money is stored as the nearest float of a decimal with 6 digits. Counts are exact.
        return bool(abs(float(raw_total) - rollup_total) <= 1e-6 * (1 + raw_rows) + 1e-12 * abs(rollup_total))
    return bool(raw_total == rollup_total)


def _shown(value: Any) -> str:
    return "not available" if value is None else str(value)
