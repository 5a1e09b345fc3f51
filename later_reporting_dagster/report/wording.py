"""Numbers and names as the report writes them for people. What is not available is said, and never looks like a 0."""

from later_reporting_dagster.contract import DOCUMENT_METRICS, Metric
from later_reporting_dagster.rollups.columns import measure_of

NOT_AVAILABLE = "not available"


def count(value: float | None) -> str:
    """A whole number, in groups of three."""
    return NOT_AVAILABLE if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """Two decimals. A measured zero is bare, so that it is told from what only rounds to it."""
    return NOT_AVAILABLE if value is None else f"{_decimal(value)}\u00a0%"


def ratio(value: float | None) -> str:
    """How many times the one is the other."""
    return NOT_AVAILABLE if value is None else f"{_decimal(value)}\u00a0×"


def written(value: float | None, form: str) -> str:
    """A figure in its form: count, percent or ratio."""
    return {"count": count, "percent": percent, "ratio": ratio}[form](value)


def metric_label(metric: Metric) -> str:
    """A metric's name, of the document's with its channel: Organic engagement rate, Paid CPM, Likes."""
    if metric not in DOCUMENT_METRICS:
        return metric.column.replace("_", " ").capitalize()
    measure = measure_of(metric)
    name = measure.upper() if measure in {"cpe", "cpm"} else measure.replace("_", " ")
    return f"{metric.channel.capitalize()} {name}"


def _decimal(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) < 0.005:
        return "<0.01" if value > 0 else ">-0.01"
    return f"{value:,.2f}"
