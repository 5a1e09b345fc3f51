"""Render the rollups' SQL files, which are Jinja templates, and run them in DuckDB over views of the raw tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from datetime import date
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined

from later_reporting_dagster.contract import DateBasis, Metric
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.lake import Column, schema_of
from later_reporting_dagster.rollups import benchmark_columns, rollup_columns
from later_reporting_dagster.rollups.periods import previous_range, window_ranges
from later_reporting_dagster.rollups.rollup_columns import (
    CAMPAIGN_TOTALS,
    CHANNELS,
    RESULTS,
    UNIT_COSTS,
    additive_metrics,
    raw_column,
    sum_name,
)
from later_reporting_dagster.rollups.rollup_tables import RAW_TABLE_NAMES, RollupTable

if TYPE_CHECKING:
    import duckdb

# In results of `roll_up_periods`: the first day of a row's day, week or month, which identifies its partition.
FIRST_DAY = "first_day"
_RANGE_ID = "range_id"
_RANGE_COLUMN = Column(_RANGE_ID, "int64", False, "")

# Date basis -> instance -> days that have a file, with or without rows.
StoredDays = Mapping[DateBasis, Mapping[str, Set[date]]]

_TEMPLATES = Environment(loader=PackageLoader(__package__, "."), undefined=StrictUndefined, autoescape=False)
# Types of summed decimals. Sums of the first are faster; its limit is below the one of times.
_DECIMALS = {Kind.MONEY: "DECIMAL(18, 6)", Kind.TIME: "DECIMAL(24, 6)"}
_SQL_TYPES = {
    "string": "VARCHAR", "int64": "BIGINT", "float64": "DOUBLE", "date32[day]": "DATE",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}  # fmt: skip


class RollupFailed(ValueError):  # noqa: N818 - named for what happened
    """Rows cannot be rolled up. The message has the reason and the next step."""


@cache
def rollup_sql() -> str:
    """Return the text of all SQL files, which together define the rollups."""
    files = sorted(path.name for path in resources.files(__package__).iterdir() if path.name.endswith(".sql"))
    return "\n".join(resources.files(__package__).joinpath(name).read_text(encoding="utf-8") for name in files)


def duckdb_macros() -> str:
    """Return the SQL that creates the macros of all rollups."""
    return _TEMPLATES.get_template("duckdb_macros.sql").render()


def roll_up_periods(connection: "duckdb.DuckDBPyConnection", table: RollupTable, stored: StoredDays) -> pa.Table:
    """Roll up all days, weeks or months that the connection's view of the raw table contains.

    Args:
        connection: has the view `post_metrics_daily` or `posts_published`, of whole days, weeks or months.
        table: a table of days, weeks or months.
        stored: days that have files.

    Returns:
        The column `first_day`, which identifies the partition, and the columns of the table. One row per group,
        ordered by partition and grain, nulls last. The bytes do not depend on the order of the raw rows.

    Raises:
        RollupFailed: the query does not fit in memory.
        duckdb.Error: a file cannot be read.
    """
    first_day = Column(FIRST_DAY, "date32[day]", False, "First day of the partition")
    with translated_errors():
        create_macros_and_row_views(connection, table, stored, [table.date_basis])
        return _query(connection, table, [first_day, *table.columns], order=[FIRST_DAY, *table.grain])


def partition_rows_getter(rows: pa.Table, columns: Sequence[Column]) -> Callable[[date], pa.Table]:
    """Return a function that takes the first day of a partition and returns its rows, with only `columns`.

    Args:
        rows: a result of `roll_up_periods`, which is ordered by first day.
        columns: columns to keep.
    """
    runs = pc.run_end_encode(rows[FIRST_DAY].combine_chunks())
    ends = [0, *runs.run_ends.to_pylist()]
    offsets = {day: (ends[n], ends[n + 1]) for n, day in enumerate(runs.values.to_pylist())}
    selected = rows.select([column.name for column in columns])

    def partition_rows(first_day: date) -> pa.Table:
        start, end = offsets.get(first_day, (0, 0))
        return selected.slice(start, end - start)

    return partition_rows


def roll_up_windows(
    connection: "duckdb.DuckDBPyConnection",
    tables: Sequence[RollupTable],
    stored: StoredDays,
    *,
    instance_batches: Iterable[object] = (None,),
) -> dict[str, pa.Table]:
    """Roll up all windows. Return the rows by table name.

    Args:
        connection: has views of both raw tables and of `campaign_performance_daily`, and the relations that
            `register_campaigns` creates.
        tables: window tables.
        stored: days that have files.
        instance_batches: only iterated for its side effect: before each item it restricts the views to the next batch
            of instances; at the end it removes the restriction. Few groups have posts of two instances, so only the
            posts of one batch have to fit in memory.

    Raises:
        RollupFailed: the query does not fit in memory.
        duckdb.Error: a file cannot be read.
    """
    by_batch = {table.name: list[pa.Table]() for table in tables if table.is_made_by_instance}
    with translated_errors():
        prepare_windows(connection, tables[0], stored)
        for number, _ in enumerate(instance_batches):
            connection.execute(render("window_inputs.sql", tables[0], is_first_batch=number == 0)).fetchall()
            for table in tables:
                if table.name in by_batch:
                    by_batch[table.name].append(_query_windows(connection, table))
        rows = {}
        for table in tables:
            parts = by_batch.get(table.name) or [_query_windows(connection, table)]
            in_order = [(name, "ascending") for name in (_RANGE_ID, *table.grain)]
            rows[table.name] = pa.concat_tables(parts).sort_by(in_order).drop_columns(_RANGE_ID)
    return rows


def roll_up_posts(
    connection: "duckdb.DuckDBPyConnection", tables: Sequence[RollupTable], stored: StoredDays
) -> dict[str, pa.Table]:
    """Roll up the tables about single posts, of all instances at once.

    Args:
        connection: has views of both raw tables.
        tables: tables about posts.
        stored: days that have files.

    Raises:
        RollupFailed: the query does not fit in memory.
        duckdb.Error: a file cannot be read.
    """
    with translated_errors():
        for table in tables[:1]:
            create_macros_and_row_views(connection, table, stored, RAW_TABLE_NAMES)
            connection.execute(render("post_curves.sql", table)).fetchall()
        return {table.name: _query(connection, table, table.columns, order=table.grain) for table in tables}


def _query_windows(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> pa.Table:
    return _query(connection, table, [_RANGE_COLUMN, *table.columns], order=[_RANGE_ID, *table.grain])


def find_multi_campaign_posts(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> None:
    """Create the relations of multi_campaign_rows.sql without running window_inputs.sql.

    Args:
        connection: prepared by `prepare_windows`.
        table: a window table; its metrics are compared and summed.
    """
    rows = " UNION ALL ".join(
        f"SELECT instance_id, campaign_id, post_id FROM {name}" for name in RAW_TABLE_NAMES.values()
    )
    connection.execute(
        f"CREATE OR REPLACE TABLE multi_campaign_posts AS SELECT instance_id, post_id FROM ({rows})"
        " GROUP BY ALL HAVING min(campaign_id) <> max(campaign_id)"
    )
    connection.execute(render("multi_campaign_rows.sql", table, is_first_batch=True)).fetchall()


def count_campaign_conflicts(connection: "duckdb.DuckDBPyConnection") -> int:
    """Return the number of (post, day) pairs, over both date bases, for which campaigns report different numbers."""
    ((conflicts,),) = connection.execute("SELECT count(*) FROM campaign_conflicts").fetchall()
    return int(conflicts)


def query_rows(connection: "duckdb.DuckDBPyConnection", sql: str) -> list[dict[str, Any]]:
    """Return the rows of a query as dicts by column name. Integers and decimals stay exact."""
    result = connection.sql(sql)
    return [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]


def prepare_windows(connection: "duckdb.DuckDBPyConnection", table: RollupTable, stored: StoredDays) -> None:
    """Create what `window_inputs.sql` needs: macros, views of rows, and relations of stored days and windows."""
    create_macros_and_row_views(connection, table, stored, RAW_TABLE_NAMES)
    connection.register("window_ranges", window_ranges_table(stored))
    connection.execute(render("window_ranges.sql", table)).fetchall()


def create_macros_and_row_views(
    connection: "duckdb.DuckDBPyConnection", table: RollupTable, stored: StoredDays, date_bases: Iterable[DateBasis]
) -> None:
    """Create the macros, the relation `stored_days`, and for the raw table of each date basis a view `…_rows`."""
    connection.register("stored_days", _stored_days_table(stored))
    connection.execute(duckdb_macros())
    for date_basis in date_bases:
        raw_table, with_spend = RAW_TABLE_NAMES[date_basis], date_basis is DateBasis.POST_DATE
        connection.execute(render("summable_rows.sql", table, raw_table=raw_table, with_spend=with_spend))


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise DuckDB's error about memory as `RollupFailed`."""
    import duckdb  # deferred: it takes 0.1 s, and loading the Dagster definitions does not need it

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise RollupFailed(
            "the rollup needs more memory than LATER_MEMORY_GB allows. Next step: raise it, or free disk space where"
            " DuckDB spills"
        ) from error


def render(template: str, table: RollupTable, **context: Any) -> str:
    """Return the SQL of a template in this package, for a table and its metrics."""
    return _TEMPLATES.get_template(template).render(_context(table) | context)


def render_text(sql: str, table: RollupTable, **context: Any) -> str:
    """Return the SQL of a template's text. It can import the other templates."""
    return _TEMPLATES.from_string(sql).render(_context(table) | context)


def _context(table: RollupTable) -> dict[str, Any]:
    """Return the variables of the templates. They are described in measures.sql."""
    measured = [column.name for column in rollup_columns.comparison(table.metrics, intervals=table.has_intervals)]
    return (
        _summed_columns(table.metrics)
        | benchmark_columns.template_variables(table.metrics)
        | {
            "grain": tuple(table.grain),
            "labels": table.labels,
            "measured": measured,
            "previous": rollup_columns.PREVIOUS,
            "post_counts": {name for name in measured if rollup_columns.is_post_count(name)},
        }
    )


def _summed(metric: Metric) -> dict[str, Any]:
    """Return the template variables of a metric that adds up."""
    return {
        "column": metric.column,
        "sum": sum_name(metric),
        "decimal": _DECIMALS.get(metric.kind, ""),
        "maximum": metric.kind.maximum,
    }


def _summed_columns(metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return the template variables about metrics, channels and summed columns."""
    requested = {metric.column for metric in metrics}
    rate_units = {
        str(channel): ["impressions", *(["views"] if raw_column(channel, "views") in requested else [])]
        for channel in CHANNELS
    }
    rates = [
        f"{channel}_{unit}_rate_{part}"
        for channel, units in rate_units.items()
        for unit in units
        for part in ("engagements", "units")
    ]
    channel_costs = [
        *("posts", "spend", "spread", "spend_posts", "contradictory_posts"),
        *(f"{cost}_{part}" for cost, measure, _ in UNIT_COSTS for part in ("spend", measure)),
    ]
    costs = ["posts", *(f"{channel}_{part}" for channel in CHANNELS for part in channel_costs)]
    costs += ["organic_value", "organic_value_spend"]
    additive = additive_metrics(metrics)
    counts = [sum_name(metric) for metric in additive if metric.kind.is_integer]
    return {
        "metrics": [_summed(metric) for metric in additive],
        "campaign_totals": [_summed(metric) | {"sum": metric.column} for metric in CAMPAIGN_TOTALS],
        "maximum_spend": Kind.MONEY.maximum,
        "channels": [(str(channel), raw_column(channel, "")) for channel in CHANNELS],
        "rate_units": rate_units,
        "unit_costs": UNIT_COSTS,
        "sum_columns": [*map(sum_name, additive), *rates],
        "counts": [
            *((sum_name(metric), f"{sum_name(metric)}_posts") for metric in additive),
            *((f"{channel}_impressions_rate_units", f"{channel}_engagement_rate_posts") for channel in CHANNELS),
        ],
        "lift_columns": tuple(name for name in rates if "_impressions_" in name),
        "cost_columns": costs,
        "integer_columns": {*counts, *rates, *(name for name in costs if name.endswith(("posts", *RESULTS)))},
        "reconciled_metrics": [sum_name(metric) for metric in additive],
        "reconciled_costs": ["posts", *(f"{channel}_posts" for channel in CHANNELS)],
    }


def _query(
    connection: "duckdb.DuckDBPyConnection", table: RollupTable, columns: Sequence[Column], *, order: Sequence[str]
) -> pa.Table:
    """Return the rows of a table's SQL file, with the types of `columns`."""
    sql = f"SELECT {_selected(columns)} FROM ({render(f'{table.name}.sql', table)}) ORDER BY {', '.join(order)}"
    return connection.sql(sql).to_arrow_table().cast(schema_of(columns))


def _selected(columns: Iterable[Column]) -> str:
    """Return the SQL that selects columns with their types."""
    return ", ".join(f'CAST("{column.name}" AS {_SQL_TYPES[column.type]}) AS "{column.name}"' for column in columns)


def _stored_days_table(stored: StoredDays) -> pa.Table:
    rows = [
        {"date_basis": str(date_basis), "instance_id": instance_id, "date": day}
        for date_basis, instances in stored.items()
        for instance_id, days in instances.items()
        for day in days
    ]
    schema = pa.schema({"date_basis": pa.string(), "instance_id": pa.string(), "date": pa.date32()})
    return pa.Table.from_pylist(rows, schema)


def window_ranges_table(stored: StoredDays) -> pa.Table:
    """Return a row for each window of each date basis and, by performance date, for each previous period.

    `range_id` numbers the rows; the rows of window tables are ordered by it. `window_range_id` is the `range_id` of the
    window, also in the row of its previous period.
    """
    rows: list[dict[str, Any]] = []
    for date_basis in RAW_TABLE_NAMES:
        of_instances = stored.get(date_basis, {}).values()
        for window, current in window_ranges({day for days in of_instances for day in days}).items():
            window_range_id = len(rows)
            before = previous_range(window, current) if date_basis is DateBasis.PERFORMANCE_DATE else None
            for is_previous, days_of_range in ((False, current), (True, before)):
                if days_of_range is not None:
                    rows.append(
                        {
                            _RANGE_ID: len(rows),
                            "window_range_id": window_range_id,
                            "date_basis": str(date_basis),
                            "time_window": window,
                            "is_previous": is_previous,
                            "first_day": days_of_range.first,
                            "last_day": days_of_range.last,
                        }
                    )
    numbers = [(name, pa.uint8()) for name in (_RANGE_ID, "window_range_id")]
    texts = [(name, pa.string()) for name in ("date_basis", "time_window")]
    dates = [(name, pa.date32()) for name in ("first_day", "last_day")]
    return pa.Table.from_pylist(rows, pa.schema([*numbers, *texts, ("is_previous", pa.bool_()), *dates]))
