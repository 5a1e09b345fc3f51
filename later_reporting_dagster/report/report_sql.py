"""Render the SQL of the report, which computes its own groups from posts: all scopes of the page, in all windows."""

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from later_reporting_dagster.contract import DEFAULT_METRICS, DateBasis, Metric
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.rollups import sql_engine
from later_reporting_dagster.rollups.rollup_columns import (
    CAMPAIGN_TOTALS,
    CHANNELS,
    UNIT_COSTS,
    additive_metrics,
    raw_column,
    sum_name,
)
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN, RAW_TABLE_NAMES
from later_reporting_dagster.rollups.sql_engine import StoredDays

if TYPE_CHECKING:
    import duckdb

_TEMPLATES = Environment(loader=PackageLoader(__package__, "."), undefined=StrictUndefined, autoescape=False)


def prepare_windows(connection: "duckdb.DuckDBPyConnection", stored: StoredDays) -> None:
    """Create the macros, the relation `stored_days`, and a view `…_rows` of each raw table."""
    sql_engine.create_macros_and_row_views(connection, BY_CAMPAIGN, stored, ())
    for date_basis, raw_table in RAW_TABLE_NAMES.items():
        with_spend = date_basis is DateBasis.POST_DATE
        connection.execute(render("summable_rows.sql", raw_table=raw_table, with_spend=with_spend))


def render(template: str, **context: Any) -> str:
    """Return the SQL of a template in this package."""
    return _TEMPLATES.get_template(template).render(_context() | context)


def _context() -> dict[str, Any]:
    """Return the variables of the templates. They are described in measures.sql."""
    rates = [f"{channel}_impressions_rate_{part}" for channel in CHANNELS for part in ("engagements", "units")]
    parts = [f"{cost}_{part}" for cost, *_ in UNIT_COSTS for part in ("spend_minimum", "spend_maximum", "units")]
    per_channel = [*(f"spend_{part}" for part in ("minimum", "maximum", "contradictory_posts")), *parts]
    spend = [f"{channel}_{part}" for channel in CHANNELS for part in per_channel]
    additive = additive_metrics(DEFAULT_METRICS)
    counts = [sum_name(metric) for metric in additive if metric.kind.is_integer]
    return {
        "metrics": [_summed(metric) for metric in additive],
        "campaign_totals": [_summed(metric) for metric in CAMPAIGN_TOTALS],
        "maximum_spend": Kind.MONEY.maximum,
        "channels": [(str(channel), raw_column(channel, "")) for channel in CHANNELS],
        "rate_units": {str(channel): ["impressions"] for channel in CHANNELS},
        "unit_costs": [(cost, measure) for cost, measure, _ in UNIT_COSTS],
        "cost_per": {cost: number for cost, _, number in UNIT_COSTS},
        "sum_columns": [*map(sum_name, additive), *rates],
        "lift_columns": tuple(rates),
        "spend_columns": [*spend, "value_of_spend", "valued_spend_minimum", "valued_spend_maximum"],
        "integer_columns": {*counts, *rates, *(name for name in spend if name.endswith(("_units", "_posts")))},
        "counted_columns": {*map(sum_name, additive), *(f"{channel}_spend_minimum" for channel in CHANNELS)},
    }


def _summed(metric: Metric) -> dict[str, Any]:
    return {
        "column": metric.column,
        "sum": sum_name(metric),
        "decimal": "DECIMAL(18, 6)" if metric.kind is Kind.MONEY else "",
        "maximum": metric.kind.maximum,
    }
