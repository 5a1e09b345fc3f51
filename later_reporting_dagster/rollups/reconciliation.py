"""Reconcile rollup tables with the raw rows: compare their totals with a second, simple query of the raw tables.

For window tables without a campaign, the sums of duplicate rows are subtracted. They come from multi_campaign_rows.sql,
which the rollups use, too: an error in that file is not detected.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE
from later_reporting_dagster.rollups import sql_engine
from later_reporting_dagster.rollups.periods import Period
from later_reporting_dagster.rollups.rollup_columns import (
    CAMPAIGN_TOTALS,
    CHANNELS,
    PREVIOUS,
    additive_metrics,
    sum_name,
)
from later_reporting_dagster.rollups.rollup_tables import Measures, RollupTable
from later_reporting_dagster.rollups.sql_engine import FIRST_DAY, StoredDays, query_rows

if TYPE_CHECKING:
    import duckdb

# The relation with the rows of the rollup table to check.
ROLLUP_RELATION = "rolled_up"

_Totals = Mapping[str, Any]


def check_periods(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> dict[date, list[str]]:
    """Compare rows of a table of days, weeks or months with the raw rows.

    Args:
        connection: has the relation `rolled_up`: rows of the table, with the column `first_day`.
        table: the table.

    Returns:
        By the first day of a partition, one sentence for each total that differs. Others are left out.
    """
    expected = _raw_totals(connection, table, f"CAST(date_trunc('{table.period}', date) AS DATE)")
    names = _compared(table)
    sums = ", ".join(f"sum({name}) AS {name}" for name in names)
    found = query_rows(connection, f"SELECT {FIRST_DAY}, {sums} FROM {ROLLUP_RELATION} GROUP BY ALL")
    by_first_day = {row.pop(FIRST_DAY): row for row in found}
    nothing: _Totals = {**dict.fromkeys(names), "raw_rows": 0}
    differences = {
        day: [*_differences(expected.get(day, nothing), by_first_day.get(day, dict.fromkeys(names)))]
        for day in sorted(expected.keys() | by_first_day.keys())
    }
    return {day: sentences for day, sentences in differences.items() if sentences}


def check_windows(
    connection: "duckdb.DuckDBPyConnection",
    tables: Sequence[RollupTable],
    rows: Mapping[str, pa.Table],
    stored: StoredDays,
) -> dict[str, list[str]]:
    """Return, by name of a window table, one sentence for each of its totals that differs from the raw rows.

    Args:
        connection: prepared by `sql_engine.prepare_windows`, with the relations of multi_campaign_rows.sql.
        tables: the tables.
        rows: their rows, by table name.
        stored: days that have files.
    """
    totals = {
        measures: _raw_totals(connection, table, "date")
        for measures, table in {table.measures: table for table in tables}.items()
    }
    return {
        table.name: [*_check_window_table(connection, table, rows[table.name], stored, totals[table.measures])]
        for table in tables
    }


def _check_window_table(
    connection: "duckdb.DuckDBPyConnection",
    table: RollupTable,
    rows: pa.Table,
    stored: StoredDays,
    by_day: Mapping[date, _Totals],
) -> Iterator[str]:
    is_deduplicated = table.measures is not Measures.CAMPAIGNS and "campaign_id" not in table.grain
    duplicates = query_rows(connection, f"FROM {table.raw_table}_duplicates") if is_deduplicated else []
    connection.register(ROLLUP_RELATION, rows)
    for each in sql_engine.window_ranges_table(stored).to_pylist():
        if each["date_basis"] != table.date_basis or (each["is_previous"] and table.measures is Measures.CAMPAIGNS):
            continue
        prefix = "previous_" if each["is_previous"] else ""
        names = [name for name in _compared(table) if not prefix or name in PREVIOUS]
        days = [day for day in by_day if each["first_day"] <= day <= each["last_day"]]
        expected = {name: _expected_sum(name, days, by_day, duplicates) for name in names}
        expected["raw_rows"] = sum(by_day[day]["raw_rows"] for day in days)
        sums = ", ".join(f'sum("{prefix}{name}") AS {name}' for name in names)
        for scope in ("IS NULL", "IS NOT NULL") if table.is_overall else ("",):
            condition = f"time_window = '{each['time_window']}'" + (f" AND instance_id {scope}" if scope else "")
            (found,) = query_rows(connection, f"SELECT {sums} FROM {ROLLUP_RELATION} WHERE {condition}")
            for sentence in _differences(expected, found):
                yield f"{prefix}{each['time_window']}{' of all instances' * (scope == 'IS NULL')}: {sentence}"


def _compared(table: RollupTable) -> list[str]:
    """Return the columns of a table that are compared with the raw rows."""
    if table.measures is Measures.CAMPAIGNS:
        return [metric.column for metric in CAMPAIGN_TOTALS]
    if table.measures is Measures.COSTS:
        return ["posts", *(f"{channel}_posts" for channel in CHANNELS)]
    # In the raw rows, a post has one row per day, so over several days the number of rows is not the number of posts.
    posts = ["posts"] if table.period is Period.DAY else []
    return [*posts, *(sum_name(metric) for metric in additive_metrics(table.metrics))]


def _raw_totals(connection: "duckdb.DuckDBPyConnection", table: RollupTable, day: str) -> dict[date, _Totals]:
    """Return totals of raw rows, grouped by `day`, a SQL expression."""
    is_of_campaigns = table.measures is Measures.CAMPAIGNS
    sql = sql_engine.render(
        "raw_totals.sql",
        table,
        raw_table=CAMPAIGN_PERFORMANCE_TABLE if is_of_campaigns else table.raw_table,
        day=day,
        measures_of_table=table.measures,
    )
    return {totals.pop(FIRST_DAY): totals for totals in query_rows(connection, sql)}


def _expected_sum(
    name: str, days: Sequence[date], by_day: Mapping[date, _Totals], duplicates: Sequence[Mapping[str, Any]]
) -> Any:
    """Return the sum of some days, minus the sum of the duplicate rows."""
    values = [by_day[day][name] for day in days if by_day[day][name] is not None]
    less = [row[name] for row in duplicates if row[FIRST_DAY] in days and row[name] is not None]
    return sum(values) - sum(less) if values else None


def _differences(expected: _Totals, found: _Totals) -> Iterator[str]:
    for name, rollup_total in found.items():
        if not _are_equal(expected[name], rollup_total, raw_rows=expected["raw_rows"]):
            yield f"{name} is {_shown(expected[name])} in the raw rows and {_shown(rollup_total)} in the rollup"


def _are_equal(raw_total: Any, rollup_total: Any, *, raw_rows: int) -> bool:
    if rollup_total is None:
        # The rollup has no value. That is correct if the raw rows have none either, or, for window tables without a
        # campaign, if their expected sum is 0 because all rows with a value were duplicates that are not counted. A
        # measured 0 that the rollup lost is not detected, in any table.
        return not raw_total
    if raw_total is None:
        return not rollup_total and isinstance(rollup_total, int)  # a count of posts: 0 without rows
    if isinstance(raw_total, Decimal):
        # Money is stored as the nearest float of a decimal with 6 digits. Counts are exact.
        return bool(abs(float(raw_total) - rollup_total) <= 1e-6 * (1 + raw_rows) + 1e-12 * abs(rollup_total))
    return bool(raw_total == rollup_total)


def _shown(value: Any) -> str:
    return "not available" if value is None else str(value)
