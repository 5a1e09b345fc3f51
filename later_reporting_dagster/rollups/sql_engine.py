"""Runs the tables' SQL, by DuckDB, over views of the raw tables. The files are Jinja templates, filled here."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined

from later_reporting_dagster.contract import DateBasis, Metric
from later_reporting_dagster.lake import Column, schema_of
from later_reporting_dagster.rollups.periods import previous_of, windows_of
from later_reporting_dagster.rollups.rollup_columns import (
    COMPARED,
    UNIT_COSTS,
    costs,
    is_difference,
    is_number_of_posts,
    raw_column,
    sum_name,
    summed,
)
from later_reporting_dagster.rollups.rollup_tables import RolledUp

if TYPE_CHECKING:
    import duckdb

# Date basis -> the raw table that has it.
RAW = {DateBasis.PERFORMANCE_DATE: "post_metrics_daily", DateBasis.POST_DATE: "posts_published"}
# The first day of a row's day, week or month: which partition it belongs to.
FIRST_DAY = "first_day"

# Date basis -> instance -> the days that have a file, with or without rows.
LandedDays = Mapping[DateBasis, Mapping[str, Set[date]]]

_TEMPLATES = Environment(loader=PackageLoader(__package__, "."), undefined=StrictUndefined, autoescape=False)
_OUT_OF_RANGE = re.compile(r"(the sum|a value) of \w+ does not fit.*")
_TYPES = {"string": "VARCHAR", "int64": "BIGINT", "float64": "DOUBLE", "date32[day]": "DATE"}


class RollupFailed(ValueError):  # noqa: N818 - named for what happened
    """The rows cannot be rolled up. The message says why, and what to do."""


class SumOutOfRange(RollupFailed):
    """A sum, or a value to be summed, is larger than its column can hold. The message names the column."""


@dataclass(frozen=True, slots=True)
class SharedPosts:
    """Posts of several campaigns.

    Attributes:
        repeated: by date basis and day the sums of rows that count once less where the grain has no campaign.
        disagreeing: how often such a post has other numbers in one campaign than in another, on a day.
    """

    repeated: Sequence[Mapping[str, Any]] = ()
    disagreeing: int = 0

    def __add__(self, other: "SharedPosts") -> "SharedPosts":
        """Those of other instances too."""
        return SharedPosts((*self.repeated, *other.repeated), self.disagreeing + other.disagreeing)


@dataclass(frozen=True, slots=True)
class WindowTables:
    """The tables of windows, by name, and what is known of posts that are in several campaigns."""

    tables: Mapping[str, pa.Table]
    shared: SharedPosts


def _names(metrics: Sequence[Metric]) -> dict[str, Any]:
    """What the templates call the sums of rows."""
    columns = {metric.column for metric in metrics}
    units = {
        str(channel): ["impressions", *(["views"] if raw_column(channel, "views") in columns else [])]
        for channel in COMPARED
    }
    adding = summed(metrics)
    rates = [
        f"{channel}_{unit}_rate_{part}"
        for channel, of_channel in units.items()
        for unit in of_channel
        for part in ("engagements", "units")
    ]
    costs = [f"{cost}_{part}" for cost, *_ in UNIT_COSTS for part in ("spend_minimum", "spend_maximum", "units")]
    spends = [f"spend_{part}" for part in ("minimum", "maximum", "contradictory_posts")]
    spend = [f"{channel}_{part}" for channel in COMPARED for part in (*spends, *costs)]
    counts = [sum_name(metric) for metric in adding if metric.kind.is_whole]
    return {
        "metrics": [
            {"column": metric.column, "sum": sum_name(metric), "is_decimal": not metric.kind.is_whole}
            for metric in adding
        ],
        "channels": [(str(channel), raw_column(channel, "")) for channel in COMPARED],
        "units": units,
        "unit_costs": [(cost, measure) for cost, measure, _ in UNIT_COSTS],
        "per": {"cpe": 1, "cpm": 1000},
        "names": [*map(sum_name, adding), *rates],
        "parts": tuple(name for name in rates if "_impressions_" in name),
        "spend_names": [*spend, "value_of_spend", "valued_spend_minimum", "valued_spend_maximum"],
        "wholes": {*counts, *rates, *(name for name in spend if name.endswith(("_units", "_posts")))},
        "covered": {*map(sum_name, adding), *(f"{channel}_spend_minimum" for channel in COMPARED)},
    }


def roll_up_days(connection: "duckdb.DuckDBPyConnection", table: RolledUp, landed: LandedDays) -> pa.Table:
    """Roll up days, weeks or months: all that the connection's view of the table's raw rows holds.

    Args:
        connection: with the view `post_metrics_daily` or `posts_published`, of whole days, weeks or months.
        table: whose files span a day, a week or a month.
        landed: the days that have files.

    Returns:
        The columns of the table after `first_day`, that of the partition. One row a group, in the order of the
        partitions and of the grain, nulls last. The same rows in any order give the same bytes.

    Raises:
        RollupFailed: a sum does not fit its column, or the work its memory.
        duckdb.Error: a file cannot be read.
    """
    day = Column(FIRST_DAY, "date32[day]", False, "First day of the partition")
    with failures():
        prepare(connection, table, landed)
        return _result(connection, table, [day, *table.columns], order=[FIRST_DAY, *table.grain])


def by_first_day(rows: pa.Table, columns: Sequence[Column]) -> Callable[[date], pa.Table]:
    """Return a function to the rows of a partition, in the columns that are stored, of the result of `roll_up_days`."""
    lengths = pc.run_end_encode(rows[FIRST_DAY].combine_chunks())
    ends = [0, *lengths.run_ends.to_pylist()]
    places = {day: (ends[n], ends[n + 1]) for n, day in enumerate(lengths.values.to_pylist())}
    stored = rows.select([column.name for column in columns])

    def rows_of(first: date) -> pa.Table:
        start, end = places.get(first, (0, 0))
        return stored.slice(start, end - start)

    return rows_of


def roll_up_windows(
    connection: "duckdb.DuckDBPyConnection",
    tables: Sequence[RolledUp],
    landed: LandedDays,
    *,
    batches: Iterable[object] = (None,),
) -> WindowTables:
    """Roll up all windows of both date bases.

    Args:
        connection: with views of both raw tables.
        tables: of windows.
        landed: the days that have files.
        batches: an iterator that narrows the views to some instances at each step, and to all when it ends. No group
            has posts of two instances, so that memory need hold those of a batch only.

    Raises:
        RollupFailed: a sum does not fit its column, or the work its memory.
        duckdb.Error: a file cannot be read.
    """
    columns = {table.name: [Column("span", "int64", False, ""), *table.columns] for table in tables}
    parts = {name: [schema_of(of_table).empty_table()] for name, of_table in columns.items()}
    shared = SharedPosts()
    with failures():
        prepare_windows(connection, tables[0], landed)
        for _ in batches:
            connection.execute(rendered("windows.sql", tables[0])).fetchall()
            shared += _shared_posts(connection)
            for table in tables:
                part = _result(connection, table, columns[table.name], order=["span", *table.grain])
                parts[table.name].append(part)
    made = {
        table.name: pa.concat_tables(parts[table.name])
        .sort_by([(name, "ascending") for name in ("span", *table.grain)])
        .drop_columns("span")
        for table in tables
    }
    return WindowTables(made, shared)


def shared_posts(connection: "duckdb.DuckDBPyConnection", table: RolledUp) -> SharedPosts:
    """Return what is known of posts of several campaigns, by a query of its own of both raw tables.

    Args:
        connection: prepared by `prepare`.
        table: of windows, whose metrics count.
    """
    rows = " UNION ALL ".join(f"SELECT instance_id, campaign_id, post_id FROM {raw}" for raw in RAW.values())
    connection.execute(
        f"CREATE OR REPLACE TABLE shared_posts AS SELECT instance_id, post_id FROM ({rows})"
        " GROUP BY ALL HAVING min(campaign_id) <> max(campaign_id)"
    )
    connection.execute(rendered("shared_posts.sql", table)).fetchall()
    return _shared_posts(connection)


def _shared_posts(connection: "duckdb.DuckDBPyConnection") -> SharedPosts:
    repeated = rows_of(connection, "FROM repeated")
    ((disagreeing,),) = connection.execute("SELECT count(*) FROM disagreeing").fetchall()
    return SharedPosts(repeated, disagreeing)


def rows_of(connection: "duckdb.DuckDBPyConnection", sql: str) -> list[dict[str, Any]]:
    """Return the rows of a query by the names of its columns, counts and decimals exact."""
    found = connection.sql(sql)
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def prepare_windows(connection: "duckdb.DuckDBPyConnection", table: RolledUp, landed: LandedDays) -> None:
    """Prepare for `windows.sql`: what `prepare` does, and the relation `periods`."""
    prepare(connection, table, landed)
    connection.register("periods", periods(landed))


def prepare(connection: "duckdb.DuckDBPyConnection", table: RolledUp, landed: LandedDays) -> None:
    """Prepare for a table's SQL: the macros, the relation `landed`, and a view `…_rows` of each raw table it needs."""
    connection.register("landed", _landed_table(landed))
    connection.execute(_TEMPLATES.get_template("macros.sql").render())
    for basis in table.bases:
        connection.execute(rendered("rows.sql", table, raw=RAW[basis], with_spend=basis is DateBasis.POST_DATE))


@contextmanager
def failures() -> Iterator[None]:
    """Raise what DuckDB says of rows or memory as `RollupFailed`."""
    import duckdb  # takes a tenth of a second, which loading the definitions does not need

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise RollupFailed(
            "the work needs more memory than it may take: raise LATER_MEMORY_GB, or make room where it spills"
        ) from error
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.OutOfRangeException) as error:
        if found := _OUT_OF_RANGE.search(str(error)):
            raise SumOutOfRange(found[0]) from error
        raise


def rendered(template: str, table: RolledUp, **context: Any) -> str:
    """Return the SQL of a template for a table and its metrics."""
    return _TEMPLATES.get_template(template).render(_context(table) | context)


def rendered_sql(sql: str, table: RolledUp, **context: Any) -> str:
    """Return SQL that lies elsewhere, filled as the tables' own: it can import `measures.sql` and `comparison.sql`."""
    return _TEMPLATES.from_string(sql).render(_context(table) | context)


def _context(table: RolledUp) -> dict[str, Any]:
    comparing = {column.name for column in table.compared}
    of_costs = {column.name for column in costs()}
    names = {column.name for column in table.columns}
    measured = [
        {
            "name": column.name,
            "is_number_of_posts": is_number_of_posts(column.name),
            "is_cost": column.name in of_costs,
            "has_previous": column.name in comparing,
            "has_change": f"{column.name}_change" in names,
            "is_difference": is_difference(column),
        }
        for column in table.measures
    ]
    described = {"grain": tuple(table.grain), "labels": table.labels, "measured": measured}
    return _names(table.metrics) | described


def _result(
    connection: "duckdb.DuckDBPyConnection", table: RolledUp, columns: Iterable[Column], *, order: Sequence[str]
) -> pa.Table:
    columns = [*columns]
    selected = ", ".join(f'CAST("{column.name}" AS {_TYPES[column.type]}) AS "{column.name}"' for column in columns)
    sql = f"SELECT {selected} FROM ({rendered(f'{table.name}.sql', table)}) ORDER BY {', '.join(order)}"
    return connection.sql(sql).to_arrow_table().cast(schema_of(columns))


def _landed_table(landed: LandedDays) -> pa.Table:
    rows = [
        (str(basis), instance_id, day)
        for basis, instances in landed.items()
        for instance_id, days in instances.items()
        for day in days
    ]
    schema = pa.schema({"date_basis": pa.string(), "instance_id": pa.string(), "date": pa.date32()})
    columns = zip(*rows, strict=True) if rows else [[], [], []]
    return pa.table([pa.array(column, type_) for column, type_ in zip(columns, schema.types, strict=True)], schema)


def periods(landed: LandedDays) -> pa.Table:
    """The windows of each date basis, and the periods before them, which `span_of_window` leads back to."""
    rows: list[dict[str, Any]] = []
    for basis in RAW:  # in this order the rows of windows are
        instances = landed.get(basis, {})
        for window, days in windows_of({day for there in instances.values() for day in there}).items():
            of_window = {"date_basis": str(basis), "window": window, "span_of_window": len(rows)}
            for is_previous, period in ((False, days), (True, previous_of(window, days))):
                if period is not None:
                    place = {"span": len(rows), "first_day": period.first, "last_day": period.last}
                    rows.append({**of_window, **place, "is_previous": is_previous})
    schema = pa.schema(
        {
            "span": pa.uint8(),
            "span_of_window": pa.uint8(),
            "date_basis": pa.string(),
            "window": pa.string(),
            "is_previous": pa.bool_(),
            "first_day": pa.date32(),
            "last_day": pa.date32(),
        }
    )
    return pa.Table.from_pylist(rows, schema)
