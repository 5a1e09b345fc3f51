"""The headline figures of a report as it opens, over all instances and campaigns, for the asset's metadata."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from later_reporting_dagster.report.report_data import PERIODS, ReportData

NOT_AVAILABLE = "not available"

# Name, label, and the unit that is written after the number; counts have none.
HEADLINES = (
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
class Headline:
    """A headline figure, and that of the period before; None is not available."""

    name: str
    label: str
    unit: str
    value: float | None
    before: float | None


def headlines(data: ReportData) -> list[Headline]:
    """Return the headline figures of the period that the report opens with, and of the one before it.

    A period that begins before the first day that has landed is not available: it would compare with half of one.
    """
    row = _row(data)
    return [Headline(name, label, unit, row.get(name), row.get(f"previous_{name}")) for name, label, unit in HEADLINES]


def lift_interval(data: ReportData) -> dict[str, float | str | None]:
    """Return the interval of the paid lift and its verdict, by name; None where there are too few posts."""
    row = _row(data)
    return {name: row.get(name) for name in INTERVAL}


def headlines_in_markdown(found: Sequence[Headline]) -> str:
    """Return the headline figures as a table, with what they were before."""
    lines = ["| | now | before |", "| --- | ---: | ---: |"]
    lines += [
        f"| {each.label} | {_written(each.value, each.unit)} | {_written(each.before, each.unit)} |" for each in found
    ]
    return "\n".join(lines)


def _row(data: ReportData) -> dict[str, Any]:
    rows = data.tables["headline"].to_pylist()
    found = (row for row in rows if row["instance_id"] is None and row["window"] == PERIODS[data.period])
    return next(found, {})


def _written(value: float | None, unit: str) -> str:
    if value is None:
        return NOT_AVAILABLE
    if not unit:
        return f"{value:,.0f}"
    # A measured zero has no decimals: it must not look like a value that rounds to zero.
    if value == 0:
        return f"0\u00a0{unit}"
    if abs(value) < 0.005:
        return f"{'<0.01' if value > 0 else '>-0.01'}\u00a0{unit}"
    return f"{value:,.2f}\u00a0{unit}"
