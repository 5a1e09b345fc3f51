"""Whether rolled-up tables have the totals of the raw rows: a plain second query, and no sum of theirs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.rollups import sql_engine
from later_reporting_dagster.rollups.periods import Span
from later_reporting_dagster.rollups.rollup_columns import sum_name, summed
from later_reporting_dagster.rollups.rollup_tables import RolledUp
from later_reporting_dagster.rollups.sql_engine import FIRST_DAY, RAW, LandedDays, WindowTables, rows_of

if TYPE_CHECKING:
    import duckdb

_Totals = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CheckedDay:
    """A partition's raw rows, and one sentence for each of its totals that differs from theirs."""

    raw_rows: int
    differences: Sequence[str]


@dataclass(frozen=True, slots=True)
class CheckedWindows:
    """By date basis the number of raw rows, and by table a sentence for each total that differs from theirs."""

    raw_rows: Mapping[DateBasis, int]
    differences: Mapping[str, Sequence[str]]


def check_days(connection: "duckdb.DuckDBPyConnection", table: RolledUp) -> dict[date, CheckedDay]:
    """Hold the relation `rolled_up`, rows of a table after `first_day`, against the raw rows, by partition."""
    day = "date" if table.span is Span.DAY else f"CAST(date_trunc('{table.span}', date) AS DATE)"
    expected = _by_day(connection, table, RAW[table.bases[0]], day=day)
    # On a day each row is a post; over more days only their sums are straight.
    posts = ["posts"] if table.span is Span.DAY else []
    names = [*posts, *(sum_name(metric) for metric in summed(table.metrics))]
    sums = ", ".join(f"sum({name}) AS {name}" for name in names)
    found = rows_of(connection, f"SELECT {FIRST_DAY}, {sums} FROM rolled_up GROUP BY ALL")
    by_first = {row.pop(FIRST_DAY): row for row in found}
    nothing: _Totals = {**dict.fromkeys(names), "raw_rows": 0}
    checked = {}
    for first in sorted(expected.keys() | by_first.keys()):
        of_raw = expected.get(first, nothing)
        differences = _differing(of_raw, by_first.get(first, dict.fromkeys(names)), rows=of_raw["raw_rows"])
        checked[first] = CheckedDay(of_raw["raw_rows"], [*differences])
    return checked


def check_windows(
    connection: "duckdb.DuckDBPyConnection", made: WindowTables, *, tables: Sequence[RolledUp], landed: LandedDays
) -> CheckedWindows:
    """Hold tables of windows against the views of all raw rows: each window, and by performance date the one before.

    Args:
        connection: prepared by `sql_engine.prepare_windows`.
        made: the tables, and what is known of posts of several campaigns.
        tables: which of them to check.
        landed: the days that have files.
    """
    names = [sum_name(metric) for metric in summed(tables[0].metrics)]
    periods = sql_engine.periods(landed).to_pylist()
    differences: dict[str, list[str]] = {table.name: [] for table in tables}
    raw_rows: dict[DateBasis, int] = {}
    for basis, raw in RAW.items():
        by_day = _by_day(connection, tables[0], raw, day="date")
        repeated = [row for row in made.shared.repeated if row["date_basis"] == basis]
        raw_rows[basis] = sum(totals["raw_rows"] for totals in by_day.values())
        for table in tables:
            without = [] if "campaign_id" in table.grain else repeated
            connection.register("rolled_up", made.tables[table.name])
            for period in periods:
                if period["date_basis"] != basis or (period["is_previous"] and basis is DateBasis.POST_DATE):
                    continue
                days = [day for day in by_day if period["first_day"] <= day <= period["last_day"]]
                expected = {name: _left(name, days, by_day, without) for name in names}
                prefix = "previous_" if period["is_previous"] else ""
                sums = ", ".join(f'sum("{prefix}{name}") AS {name}' for name in names)
                of_window = f"date_basis = '{basis}' AND \"window\" = '{period['window']}'"
                (found,) = rows_of(connection, f"SELECT {sums} FROM rolled_up WHERE {of_window}")
                rows = sum(by_day[day]["raw_rows"] for day in days)
                differences[table.name] += [
                    f"{prefix}{period['window']} by {basis}: {sentence}"
                    for sentence in _differing(expected, found, rows=rows)
                ]
    return CheckedWindows(raw_rows, differences)


def _by_day(connection: "duckdb.DuckDBPyConnection", table: RolledUp, rows: str, *, day: str) -> dict[date, _Totals]:
    found = rows_of(connection, sql_engine.rendered("reconciliation.sql", table, rows=rows, day=day))
    return {totals.pop(FIRST_DAY): totals for totals in found}


def _left(name: str, days: Sequence[date], by_day: Mapping[date, _Totals], without: Sequence[Mapping[str, Any]]) -> Any:
    """The sum of days, without that of repeated rows."""
    values = [by_day[day][name] for day in days if by_day[day][name] is not None]
    less = [row[name] for row in without if row["date"] in days and row[name] is not None]
    return sum(values) - sum(less) if values else None


def _differing(expected: _Totals, found: _Totals, *, rows: int) -> Iterator[str]:
    for name, of_rollup in found.items():
        of_posts = expected[name]
        if not _agree(of_posts, of_rollup, rows=rows):
            yield f"{name} is {_said(of_posts)} in the posts and {_said(of_rollup)} in the rollup"


def _agree(of_posts: Any, of_rollup: Any, *, rows: int) -> bool:
    if of_rollup is None:
        return not of_posts  # a row that repeats another may be the only one with a number
    # Money is stored as the nearest float; counts are exact.
    allowed = 1e-6 * (1 + rows) + 1e-12 * abs(of_rollup) if isinstance(of_posts, Decimal) else 0
    return of_posts is not None and bool(
        abs(float(of_posts) - of_rollup) <= allowed if allowed else of_posts == of_rollup
    )


def _said(value: Any) -> str:
    return "not available" if value is None else str(value)
