"""Render the rollups' SQL files, which are Jinja templates, and run them in DuckDB over views of the raw tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
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
from later_reporting_dagster.rollups import benchmark_columns
from later_reporting_dagster.rollups.campaign_columns import CAMPAIGN_TOTALS
from later_reporting_dagster.rollups.periods import previous_range, window_ranges
from later_reporting_dagster.rollups.rollup_columns import (
    CHANNELS,
    UNIT_COSTS,
    additive_metrics,
    costs,
    is_difference,
    is_post_count,
    raw_column,
    sum_name,
)
from later_reporting_dagster.rollups.rollup_tables import RollupTable

if TYPE_CHECKING:
    import duckdb

# Date basis -> its raw table.
RAW_TABLE_NAMES = {DateBasis.PERFORMANCE_DATE: "post_metrics_daily", DateBasis.POST_DATE: "posts_published"}
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


@dataclass(frozen=True, slots=True)
class MultiCampaignPosts:
    """What reconciliation needs to know about posts that are in several campaigns.

    Attributes:
        duplicate_sums: by date basis and day, the sums of rows that are not counted if the grain has no campaign.
        conflicts: number of (post, day) pairs, over both date bases, for which campaigns report different numbers.
    """

    duplicate_sums: Sequence[Mapping[str, Any]] = ()
    conflicts: int = 0

    def __add__(self, other: "MultiCampaignPosts") -> "MultiCampaignPosts":
        """Combine with the posts of other instances."""
        return MultiCampaignPosts((*self.duplicate_sums, *other.duplicate_sums), self.conflicts + other.conflicts)


@dataclass(frozen=True, slots=True)
class WindowTables:
    """Rows of the window tables, by table name, and the posts in several campaigns."""

    tables: Mapping[str, pa.Table]
    multi_campaign: MultiCampaignPosts


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
        create_macros_and_row_views(connection, table, stored)
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
) -> WindowTables:
    """Roll up all windows of both date bases.

    Args:
        connection: has views of both raw tables. If a table has columns from the tables of campaigns, it also has the
            relations that `register_campaigns` creates and the view `campaign_performance_daily`.
        tables: window tables.
        stored: days that have files.
        instance_batches: only iterated for its side effect: before each item it restricts the views to the next batch
            of instances; at the end it removes the restriction. No group has posts of two instances, so only the
            instances of one batch have to fit in memory.

    Raises:
        RollupFailed: the query does not fit in memory.
        duckdb.Error: a file cannot be read.
    """
    columns = {table.name: [_RANGE_COLUMN, *_columns_of_posts(table)] for table in tables}
    parts = {name: [schema_of(table_columns).empty_table()] for name, table_columns in columns.items()}
    multi_campaign = MultiCampaignPosts()
    with translated_errors():
        prepare_windows(connection, tables[0], stored)
        for _ in instance_batches:
            connection.execute(render("window_inputs.sql", tables[0])).fetchall()
            multi_campaign += _read_multi_campaign_posts(connection)
            for table in tables:
                part = _query(connection, table, columns[table.name], order=[_RANGE_ID, *table.grain])
                parts[table.name].append(part)
        combined = {table.name: _combined(connection, table, parts[table.name]) for table in tables}
    return WindowTables(combined, multi_campaign)


def roll_up_posts(
    connection: "duckdb.DuckDBPyConnection", tables: Sequence[RollupTable], stored: StoredDays
) -> dict[str, pa.Table]:
    """Roll up the tables about single posts, of all instances at once.

    Args:
        connection: has views of both raw tables.
        tables: tables about posts.
        stored: days that have files.

    Raises:
        RollupFailed: a sum does not fit its column, or the query does not fit in memory.
        duckdb.Error: a file cannot be read.
    """
    with translated_errors():
        for table in tables[:1]:
            create_macros_and_row_views(connection, table, stored)
            connection.execute(render("post_curves.sql", table)).fetchall()
        return {table.name: _query(connection, table, table.columns, order=table.grain) for table in tables}


def _columns_of_posts(table: RollupTable) -> list[Column]:
    """Return the columns of a table that are made from posts, in stored order."""
    others = {column.name for columns in table.columns_from_campaigns.values() for column in columns}
    return [column for column in table.columns if column.name not in others]


def _combined(connection: "duckdb.DuckDBPyConnection", table: RollupTable, parts: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all batches in stored order, with all columns of the table."""
    rows = pa.concat_tables(parts).sort_by([(name, "ascending") for name in (_RANGE_ID, *table.grain)])
    if table.columns_from_campaigns:
        # After all batches, because a campaign id may be in the instances of several.
        rows = _with_campaign_columns(connection, table, rows)
    return rows.drop_columns(_RANGE_ID)


def _with_campaign_columns(connection: "duckdb.DuckDBPyConnection", table: RollupTable, rows: pa.Table) -> pa.Table:
    """Return the rows of a table of campaigns with the columns that are made from the tables of campaigns."""
    columns = [column for made in table.columns_from_campaigns.values() for column in made]
    # Only the keys go through DuckDB: the rows have more than a hundred columns.
    keys = rows.select([_RANGE_ID, "instance_id", "campaign_id"])
    numbered = keys.append_column("row_number", pa.array(range(rows.num_rows), pa.int64()))
    connection.register("campaign_rows_by_window", numbered)
    sql = f"SELECT {_selected(columns)} FROM ({render('campaign_columns.sql', table)}) ORDER BY row_number"
    found = connection.sql(sql).to_arrow_table().cast(schema_of(columns))
    for field, values in zip(found.schema, found.itercolumns(), strict=True):
        rows = rows.append_column(field, values)
    return rows.select([_RANGE_ID, *(column.name for column in table.columns)])


def multi_campaign_posts(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> MultiCampaignPosts:
    """Query both raw tables for the posts in several campaigns, without running `window_inputs.sql`.

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
    connection.execute(render("multi_campaign_rows.sql", table)).fetchall()
    return _read_multi_campaign_posts(connection)


def _read_multi_campaign_posts(connection: "duckdb.DuckDBPyConnection") -> MultiCampaignPosts:
    duplicate_sums = query_rows(connection, "FROM duplicate_sums")
    ((conflicts,),) = connection.execute("SELECT count(*) FROM campaign_conflicts").fetchall()
    return MultiCampaignPosts(duplicate_sums, conflicts)


def query_rows(connection: "duckdb.DuckDBPyConnection", sql: str) -> list[dict[str, Any]]:
    """Return the rows of a query as dicts by column name. Integers and decimals stay exact."""
    result = connection.sql(sql)
    return [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]


def prepare_windows(connection: "duckdb.DuckDBPyConnection", table: RollupTable, stored: StoredDays) -> None:
    """Create what `window_inputs.sql` needs: macros, views of rows, and relations of stored days and window ranges."""
    create_macros_and_row_views(connection, table, stored)
    connection.register("window_ranges", window_ranges_table(stored))


def create_macros_and_row_views(
    connection: "duckdb.DuckDBPyConnection", table: RollupTable, stored: StoredDays
) -> None:
    """Create the macros, the relation `stored_days`, and for each raw table that `table` needs, a view `…_rows`."""
    connection.register("stored_days", _stored_days_table(stored))
    connection.execute(duckdb_macros())
    for date_basis in table.date_bases:
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
    names = {column.name for column in table.columns}
    compared = {column.name for column in table.compared_with_previous}
    cost_names = {column.name for column in costs()}
    measure_columns = [
        {
            "name": column.name,
            "is_post_count": is_post_count(column.name),
            "is_cost": column.name in cost_names,
            "has_previous": column.name in compared,
            "has_change": f"{column.name}_change" in names,
            "is_difference": is_difference(column),
        }
        for column in table.measures
    ]
    return (
        _summed_columns(table.metrics)
        | benchmark_columns.template_variables(table.metrics)
        | {"grain": tuple(table.grain), "labels": table.labels, "measure_columns": measure_columns}
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
    cost_parts = ("spend_minimum", "spend_maximum", "units")
    per_channel = [
        *(f"spend_{part}" for part in ("minimum", "maximum", "contradictory_posts")),
        *(f"{cost}_{part}" for cost, *_ in UNIT_COSTS for part in cost_parts),
    ]
    spend = [f"{channel}_{part}" for channel in CHANNELS for part in per_channel]
    additive = additive_metrics(metrics)
    counts = [sum_name(metric) for metric in additive if metric.kind.is_integer]
    return {
        "metrics": [_summed(metric) for metric in additive],
        "campaign_totals": [_summed(metric) for metric in CAMPAIGN_TOTALS],
        "maximum_spend": Kind.MONEY.maximum,
        "channels": [(str(channel), raw_column(channel, "")) for channel in CHANNELS],
        "rate_units": rate_units,
        "unit_costs": [(cost, measure) for cost, measure, _ in UNIT_COSTS],
        "cost_per": {"cpe": 1, "cpm": 1000},
        "sum_columns": [*map(sum_name, additive), *rates],
        "lift_columns": tuple(name for name in rates if "_impressions_" in name),
        "spend_columns": [*spend, "value_of_spend", "valued_spend_minimum", "valued_spend_maximum"],
        "integer_columns": {*counts, *rates, *(name for name in spend if name.endswith(("_units", "_posts")))},
        "counted_columns": {*map(sum_name, additive), *(f"{channel}_spend_minimum" for channel in CHANNELS)},
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
    """Return a row for each window of each date basis, and for each previous period.

    `range_id` numbers the rows; the rows of window tables are ordered by it. `window_range_id` is the `range_id` of the
    window, also in the row of its previous period.
    """
    rows: list[dict[str, Any]] = []
    for date_basis in RAW_TABLE_NAMES:
        days = {day for instance_days in stored.get(date_basis, {}).values() for day in instance_days}
        for window, current in window_ranges(days).items():
            window_range_id = len(rows)
            for is_previous, days_of_range in ((False, current), (True, previous_range(window, current))):
                if days_of_range is not None:
                    rows.append(
                        {
                            _RANGE_ID: len(rows),
                            "window_range_id": window_range_id,
                            "date_basis": str(date_basis),
                            "window": window,
                            "is_previous": is_previous,
                            "first_day": days_of_range.first,
                            "last_day": days_of_range.last,
                        }
                    )
    schema = pa.schema(
        {
            _RANGE_ID: pa.uint8(),
            "window_range_id": pa.uint8(),
            "date_basis": pa.string(),
            "window": pa.string(),
            "is_previous": pa.bool_(),
            "first_day": pa.date32(),
            "last_day": pa.date32(),
        }
    )
    return pa.Table.from_pylist(rows, schema)
