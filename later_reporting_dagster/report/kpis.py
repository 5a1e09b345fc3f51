"""The key figures that a report first shows (all instances and campaigns), for the asset's metadata."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from later_reporting_dagster.report.report_data import WINDOW_BY_DAYS, ReportData

NOT_AVAILABLE = "not available"

# Name, label, and the unit after the number; counts have none.
KPIS = (
    ("organic_impressions", "Organic impressions", ""),
    ("paid_impressions", "Paid impressions", ""),
    ("paid_share_of_impressions", "Paid share of impressions", "%"),
    ("organic_engagements", "Organic engagements", ""),
    ("paid_engagements", "Paid engagements", ""),
    ("paid_share_of_engagements", "Paid share of engagements", "%"),
    ("organic_engagement_rate", "Organic engagement rate", "%"),
    ("paid_engagement_rate", "Paid engagement rate", "%"),
    ("paid_lift", "Paid lift", "×"),
)
INTERVAL = ("paid_lift_low", "paid_lift_high", "paid_lift_verdict")


@dataclass(frozen=True, slots=True)
class Kpi:
    """A key figure of a period and of the previous one. None means not available."""

    name: str
    label: str
    unit: str
    value: float | None
    previous: float | None


def report_kpis(data: ReportData) -> list[Kpi]:
    """Return the key figures of the period that the report opens with, and of the previous period.

    A previous period that begins before the first day of post_metrics_daily is not available: it would be incomplete.
    """
    row = _kpi_row(data)
    return [Kpi(name, label, unit, row.get(name), row.get(f"previous_{name}")) for name, label, unit in KPIS]


def lift_interval(data: ReportData) -> dict[str, float | str | None]:
    """Return the ends of the paid lift's interval and its verdict, by column name.

    If there is no interval, all values are None.
    """
    row = _kpi_row(data)
    return {name: row.get(name) for name in INTERVAL}


def kpis_markdown(kpis: Sequence[Kpi]) -> str:
    """Return the key figures as a Markdown table, with their previous values."""
    lines = ["| | now | before |", "| --- | ---: | ---: |"]
    lines += [
        f"| {kpi.label} | {_formatted(kpi.value, kpi.unit)} | {_formatted(kpi.previous, kpi.unit)} |" for kpi in kpis
    ]
    return "\n".join(lines)


def _kpi_row(data: ReportData) -> dict[str, Any]:
    rows = data.tables["kpis"].to_pylist()
    found = (row for row in rows if row["instance_id"] is None and row["window"] == WINDOW_BY_DAYS[data.initial_period])
    return next(found, {})


def _formatted(value: float | None, unit: str) -> str:
    if value is None:
        return NOT_AVAILABLE
    if not unit:
        return f"{value:,.0f}"
    # A measured zero has no decimals, so that it does not look like a value that rounds to zero.
    if value == 0:
        return f"0\u00a0{unit}"
    if abs(value) < 0.005:
        return f"{'<0.01' if value > 0 else '>-0.01'}\u00a0{unit}"
    return f"{value:,.2f}\u00a0{unit}"
