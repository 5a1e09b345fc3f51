"""Render the rollups' SQL files, which are Jinja templates, and run them in DuckDB over views of the raw tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined

from later_reporting_dagster.contract.metrics import Kind, Metric
from later_reporting_dagster.lake import Column, Lake, Partition, post_columns, schema_of
from later_reporting_dagster.lake.database import SQL_TYPES, LakeDatabase, literal, open_database
from later_reporting_dagster.lake.tables import CAMPAIGN_WINDOWS
from later_reporting_dagster.rollups import benchmark_columns, rollup_columns
from later_reporting_dagster.rollups.rollup_columns import (
    CHANNELS,
    COMPARED_COUNTS,
    MINIMUM_SAME_POST_CREATORS,
    MINIMUM_SAME_POSTS,
    UNIT_COSTS,
    WINDOWS,
    additive_metrics,
    raw_column,
    sum_name,
)
from later_reporting_dagster.rollups.rollup_tables import RAW_TABLE_NAMES, Cadence, Measures, RollupTable

if TYPE_CHECKING:
    import duckdb

# In results of `roll_up_periods`: the first day of a row's day, week or month, which identifies its partition.
FIRST_DAY = "first_day"

TEMPLATES = Environment(loader=PackageLoader(__package__, "."), undefined=StrictUndefined, autoescape=False)
# Types of summed decimals. Sums of the first are faster; its limit is below the one of times.
_DECIMALS = {Kind.MONEY: "DECIMAL(18, 6)", Kind.COST: "DECIMAL(18, 6)", Kind.TIME: "DECIMAL(24, 6)"}
# Columns of posts that no rollup reads.
_UNREAD = ("content_image_url", "creator_content_type", "creator_profile_image", "extra")


class RollupFailed(ValueError):  # noqa: N818 - named for what happened
    """A rollup needs more memory than allowed. The message has the next step."""


def duckdb_macros() -> str:
    return TEMPLATES.get_template("duckdb_macros.sql").render()


def roll_up_periods(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> pa.Table:
    """Roll up all days, weeks or months that the connection's view of the raw table contains.

    Returns:
        The column `first_day`, which identifies the partition, and the columns of the table. One row per group,
        ordered by partition and grain, nulls last. The bytes do not depend on the order of the raw rows.
    """
    first_day = Column(FIRST_DAY, "date32[day]", False, "First day of the partition")
    create_macros_and_row_views(connection, table, [table.raw_table])
    return _query(connection, table, [first_day, *table.columns])


def roll_up_tables(connection: "duckdb.DuckDBPyConnection", tables: Sequence[RollupTable]) -> dict[str, pa.Table]:
    """Roll up window tables and tables about posts. Return the rows by table name, ordered by window and grain.

    Args:
        connection: has views of both raw tables, and the relations of `lake_rollups.register_campaigns`, of
            `lake_rollups.register_campaign_periods` and of `register_stored_files`.
    """
    # They read no posts.
    of_campaigns = [table for table in tables if table.measures is Measures.CAMPAIGNS]
    if of_campaigns:
        connection.execute(duckdb_macros())
    found = {table.name: _query(connection, table, table.columns) for table in of_campaigns}
    tables = [table for table in tables if table not in of_campaigns]
    if tables:
        prepare_posts(connection, tables[0])
    # Windows first: post_curves.sql drops their largest tables.
    for cadence, inputs in ((Cadence.WINDOWS, "window_inputs.sql"), (Cadence.POSTS, "post_curves.sql")):
        of_cadence = [table for table in tables if table.cadence is cadence]
        for table in of_cadence[:1]:
            connection.execute(render(inputs, table)).fetchall()
        found |= {table.name: _query(connection, table, table.columns) for table in of_cadence}
    return found


def prepare_posts(connection: "duckdb.DuckDBPyConnection", table: RollupTable) -> None:
    """Create the macros, and the relations of the rows of both raw tables. `table` has the metrics."""
    create_macros_and_row_views(connection, table, RAW_TABLE_NAMES.values())
    connection.execute(render("post_rows.sql", table)).fetchall()


def query_rows(connection: "duckdb.DuckDBPyConnection", sql: str) -> list[dict[str, Any]]:
    """Return the rows of a query as dicts by column name. Integers and decimals stay exact."""
    result = connection.sql(sql)
    return [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]


def register_stored_files(
    connection: "duckdb.DuckDBPyConnection", partitions: Mapping[str, Sequence[Partition]]
) -> None:
    """Create the relation `stored_files`: table_name, date and instance_id of each partition, given by table name."""
    found = [(name, each.day, each.instance_id) for name, of_table in partitions.items() for each in of_table]
    schema = pa.schema({"table_name": pa.string(), "date": pa.date32(), "instance_id": pa.string()})
    columns = zip(*found, strict=True) if found else ((), (), ())
    connection.register("stored_files", pa.table([pa.array(each) for each in columns], schema))


def create_macros_and_row_views(
    connection: "duckdb.DuckDBPyConnection", table: RollupTable, raw_tables: Iterable[str]
) -> None:
    """Create the macros, and for each raw table a view `…_rows`. `table` has the metrics."""
    connection.execute(duckdb_macros())
    for raw_table in raw_tables:
        connection.execute(render("summable_rows.sql", table, raw_table=raw_table))


@contextmanager
def open_rollup_database(lake: Lake, *, memory_gb: float) -> Iterator[LakeDatabase]:
    """Open a database as `open_database` does, and raise DuckDB's error about memory as `RollupFailed`."""
    import duckdb  # deferred: it takes 0.1 s, and loading the Dagster definitions does not need it

    try:
        with open_database(lake, memory_gb=memory_gb) as database:
            yield database
    except duckdb.OutOfMemoryException as error:
        raise RollupFailed(
            "the rollup needs more memory than LATER_MEMORY_GB allows. Next step: raise it, or free disk space where"
            " DuckDB spills"
        ) from error


def render(template: str, table: RollupTable, **context: Any) -> str:
    return TEMPLATES.get_template(template).render(context_of(table) | context)


def context_of(table: RollupTable) -> dict[str, Any]:
    """Return the variables of the templates. They are described in measures.sql."""
    measured = [*rollup_columns.comparison(table.metrics, of_one_creator="creator_id" in table.grain)]
    variables = {
        "grain": tuple(table.grain),
        "labels": table.labels,
        "measured": [column.name for column in measured],
        "previous": rollup_columns.PREVIOUS,
        "post_counts": {column.name for column in measured if column.unit == "posts"},
        "minimum_same_posts": MINIMUM_SAME_POSTS,
        "minimum_same_post_creators": MINIMUM_SAME_POST_CREATORS,
        "raw_table": table.raw_table,
        "published_columns": [each.name for each in post_columns(table.metrics) if each.name not in _UNREAD],
        "raw_tables": tuple(RAW_TABLE_NAMES.values()),
        "windows": WINDOWS,
        "window_type": f"ENUM ({', '.join(map(literal, CAMPAIGN_WINDOWS))})",
    }
    return variables | _summed_columns(table.metrics) | benchmark_columns.template_variables(table.metrics)


def _summed(metric: Metric, name: str) -> dict[str, Any]:
    """Return the template variables of a metric that adds up; `name` is that of the sum."""
    decimal = _DECIMALS.get(metric.kind, "")
    return {"column": metric.column, "sum": name, "decimal": decimal, "maximum": metric.kind.maximum}


def _summed_columns(metrics: Sequence[Metric]) -> dict[str, Any]:
    requested, additive = {metric.column for metric in metrics}, additive_metrics(metrics)
    rate_units = {
        str(channel): [unit for unit in ("impressions", "views") if raw_column(channel, unit) in requested]
        for channel in CHANNELS
    }
    parts = [f"{channel}_{unit}_rate" for channel, units in rate_units.items() for unit in units]
    rates = [f"{rate}_{part}" for rate in parts for part in ("engagements", "units")]
    channel_costs = [
        *("posts", "spend", "spread", "spend_posts", "contradictory_posts"),
        *(f"{cost}_{part}" for cost, measure, _ in UNIT_COSTS for part in ("spend", measure)),
    ]
    costs = ["posts", *(f"{channel}_{part}" for channel in CHANNELS for part in channel_costs)]
    costs += ["organic_value", "organic_value_spend"]
    counts = [sum_name(metric) for metric in additive if metric.kind.is_integer]
    return {
        "metrics": [_summed(metric, sum_name(metric)) for metric in additive],
        "maximum_spend": Kind.MONEY.maximum,
        "channels": [(str(channel), raw_column(channel, "")) for channel in CHANNELS],
        "rate_units": rate_units,
        "unit_costs": UNIT_COSTS,
        "sum_columns": [*map(sum_name, additive), *rates],
        "counts": [
            *((sum_name(metric), f"{sum_name(metric)}_posts") for metric in additive),
            *((f"{channel}_impressions_rate_units", f"{channel}_engagement_rate_posts") for channel in CHANNELS),
        ],
        "cost_columns": costs,
        "integer_columns": {*counts, *rates, *(name for name in costs if name.endswith(("posts", *COMPARED_COUNTS)))},
    }


def _query(connection: "duckdb.DuckDBPyConnection", table: RollupTable, columns: Sequence[Column]) -> pa.Table:
    """Return the rows of a table's SQL file, with the types of `columns`, ordered by the first one and the grain."""
    selected = ", ".join(f'CAST("{column.name}" AS {SQL_TYPES[column.type]}) AS "{column.name}"' for column in columns)
    # In the subquery, `time_window` is an enum, which is in the order of the windows.
    ordered = ", ".join(f"rolled_up.{name}" for name in (columns[0].name, *table.grain))
    sql = f"SELECT {selected} FROM ({render(f'{table.name}.sql', table)}) AS rolled_up ORDER BY {ordered}"
    return connection.sql(sql).to_arrow_table().cast(schema_of(columns))
