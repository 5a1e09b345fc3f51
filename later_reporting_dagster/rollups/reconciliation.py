"""Reconcile rollup tables with the raw rows: compare their totals with a second, simple query of the raw tables.

For window tables without a campaign, the sums of duplicate rows are subtracted. They come from multi_campaign_rows.sql,
which the rollups use, too: an error in that file is not detected.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.rollups import sql_engine
from later_reporting_dagster.rollups.periods import Period
from later_reporting_dagster.rollups.rollup_columns import additive_metrics, sum_name
from later_reporting_dagster.rollups.rollup_tables import RollupTable
from later_reporting_dagster.rollups.sql_engine import FIRST_DAY, RAW_TABLE_NAMES, StoredDays, WindowTables, query_rows

if TYPE_CHECKING:
    import duckdb

# The relation with the rows of the rollup table to check.
ROLLUP_RELATION = "rolled_up"

_Totals = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PeriodCheck:
    """The number of raw rows of a partition, and one sentence for each rollup total that differs from the raw total."""

    raw_rows: int
    differences: Sequence[str]


@dataclass(frozen=True, slots=True)
class WindowChecks:
    """The number of raw rows by date basis, and by table one sentence for each total that differs from the raw one."""

    raw_rows: Mapping[DateBasis, int]
    differences: Mapping[str, Sequence[str]]


def check_periods(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> dict[date, PeriodCheck]:
    """Compare rows of a table of days, weeks or months with the raw rows.

    Args:
        connection: has the relation `rolled_up`: rows of the table, with the column `first_day`.
        table: the table.

    Returns:
        The result of each partition, by its first day.
    """
    is_daily = table.period is Period.DAY
    first_day = "date" if is_daily else f"CAST(date_trunc('{table.period}', date) AS DATE)"
    expected = _raw_totals(connection, table, RAW_TABLE_NAMES[table.date_bases[0]], day=first_day)
    # In the raw rows, a post has one row per day, so over several days the number of rows is not the number of posts.
    names = [*(["posts"] if is_daily else []), *(sum_name(metric) for metric in additive_metrics(table.metrics))]
    sums = ", ".join(f"sum({name}) AS {name}" for name in names)
    found = query_rows(connection, f"SELECT {FIRST_DAY}, {sums} FROM {ROLLUP_RELATION} GROUP BY ALL")
    by_first_day = {row.pop(FIRST_DAY): row for row in found}
    no_rows: _Totals = {**dict.fromkeys(names), "raw_rows": 0}
    checks = {}
    for day in sorted(expected.keys() | by_first_day.keys()):
        totals = expected.get(day, no_rows)
        differences = _differences(totals, by_first_day.get(day, dict.fromkeys(names)), raw_rows=totals["raw_rows"])
        checks[day] = PeriodCheck(totals["raw_rows"], [*differences])
    return checks


def check_windows(
    connection: "duckdb.DuckDBPyConnection",
    rolled_up: WindowTables,
    *,
    tables: Sequence[RollupTable],
    stored: StoredDays,
) -> WindowChecks:
    """Compare window tables with the raw rows: each window and, by performance date, each previous period.

    Args:
        connection: prepared by `sql_engine.prepare_windows`.
        rolled_up: the rows of window tables.
        tables: the tables to check; those without rows in `rolled_up` have no differences.
        stored: days that have files.
    """
    ranges = sql_engine.window_ranges_table(stored).to_pylist()
    differences: dict[str, list[str]] = {table.name: [] for table in tables}
    raw_rows: dict[DateBasis, int] = {}
    for date_basis, raw_table in RAW_TABLE_NAMES.items():
        by_day = _raw_totals(connection, tables[0], raw_table, day="date")
        duplicates = [row for row in rolled_up.multi_campaign.duplicate_sums if row["date_basis"] == date_basis]
        raw_rows[date_basis] = sum(totals["raw_rows"] for totals in by_day.values())
        for table in (each for each in tables if each.name in rolled_up.tables):
            connection.register(ROLLUP_RELATION, rolled_up.tables[table.name])
            for each in ranges:
                # By post date, a previous period has the results of its posts up to a past day, but the raw rows have
                # their results to date.
                if each["date_basis"] == date_basis and not (each["is_previous"] and date_basis is DateBasis.POST_DATE):
                    not_counted = [] if "campaign_id" in table.grain else duplicates
                    differences[table.name] += _range_differences(connection, table, each, by_day, not_counted)
    return WindowChecks(raw_rows, differences)


def _range_differences(
    connection: "duckdb.DuckDBPyConnection",
    table: RollupTable,
    date_range: Mapping[str, Any],
    by_day: Mapping[date, _Totals],
    duplicates: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    """Yield one sentence for each total of a window or previous period that differs from the raw rows.

    Args:
        connection: has the relation `rolled_up`: rows of the table.
        table: the table.
        date_range: a row of `window_ranges_table`.
        by_day: totals of the raw rows.
        duplicates: sums by day of the raw rows that the table does not count.
    """
    days = [day for day in by_day if date_range["first_day"] <= day <= date_range["last_day"]]
    names = [sum_name(metric) for metric in additive_metrics(table.metrics)]
    expected = {name: _expected_sum(name, days, by_day, duplicates) for name in names}
    prefix = "previous_" if date_range["is_previous"] else ""
    sums = ", ".join(f'sum("{prefix}{name}") AS {name}' for name in names)
    condition = f"date_basis = '{date_range['date_basis']}' AND \"window\" = '{date_range['window']}'"
    (found,) = query_rows(connection, f"SELECT {sums} FROM {ROLLUP_RELATION} WHERE {condition}")
    raw_rows = sum(by_day[day]["raw_rows"] for day in days)
    for sentence in _differences(expected, found, raw_rows=raw_rows):
        yield f"{prefix}{date_range['window']} by {date_range['date_basis']}: {sentence}"


def _raw_totals(
    connection: "duckdb.DuckDBPyConnection", table: RollupTable, raw_table: str, *, day: str
) -> dict[date, _Totals]:
    """Return totals of raw rows, grouped by `day`, a SQL expression."""
    found = query_rows(connection, sql_engine.render("raw_totals.sql", table, raw_table=raw_table, day=day))
    return {totals.pop(FIRST_DAY): totals for totals in found}


def _expected_sum(
    name: str, days: Sequence[date], by_day: Mapping[date, _Totals], duplicates: Sequence[Mapping[str, Any]]
) -> Any:
    """Return the sum of some days, minus the sum of the duplicate rows."""
    values = [by_day[day][name] for day in days if by_day[day][name] is not None]
    less = [row[name] for row in duplicates if row["date"] in days and row[name] is not None]
    return sum(values) - sum(less) if values else None


def _differences(expected: _Totals, found: _Totals, *, raw_rows: int) -> Iterator[str]:
    for name, rollup_total in found.items():
        if not _are_equal(expected[name], rollup_total, raw_rows=raw_rows):
            yield f"{name} is {_shown(expected[name])} in the raw rows and {_shown(rollup_total)} in the rollup"


def _are_equal(raw_total: Any, rollup_total: Any, *, raw_rows: int) -> bool:
    if rollup_total is None:
        # The rollup has no value. That is correct if the raw rows have none either, or, for window tables without a
        # campaign, if their expected sum is 0 because all rows with a value were duplicates that are not counted. A
        # measured 0 that the rollup lost is not detected, in any table.
        return not raw_total
    if raw_total is None:
        return False
    if isinstance(raw_total, Decimal):
        # Money is stored as the nearest float of a decimal with 6 digits. Counts are exact.
        return bool(abs(float(raw_total) - rollup_total) <= 1e-6 * (1 + raw_rows) + 1e-12 * abs(rollup_total))
    return bool(raw_total == rollup_total)


def _shown(value: Any) -> str:
    return "not available" if value is None else str(value)
