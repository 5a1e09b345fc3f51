"""The key figures that a report first shows (all instances and campaigns), for the asset's metadata."""

from typing import Any

from later_reporting_dagster.report.report_data import ReportData

NOT_AVAILABLE = "not available"

# Column, label, and the unit after the number; counts have none.
KPIS = (
    ("organic_impressions", "Organic impressions", ""),
    ("paid_impressions", "Paid impressions", ""),
    ("paid_share_of_impressions", "Paid share of impressions", "%"),
    ("organic_engagements", "Organic engagements", ""),
    ("paid_engagements", "Paid engagements", ""),
    ("organic_engagement_rate", "Organic engagement rate", "%"),
    ("paid_engagement_rate", "Paid engagement rate", "%"),
    ("paid_lift", "Paid lift", "×"),
    ("same_post_lift", "Same-post lift", "×"),
    ("paid_ad_spend", "Ad spend", "USD"),
    ("total_cpe", "Cost per engagement", "USD"),
    ("paid_return_on_ad_spend", "Return on ad spend", "×"),
)
# Further columns for the metadata.
VERDICTS = tuple(f"{lift}_{part}" for lift in ("paid_lift", "same_post_lift") for part in ("low", "high", "verdict"))


def key_figures(data: ReportData) -> dict[str, Any]:
    """Return the figures that the report opens with, by column of `report_figures`; None if not available."""
    rows = data.tables["figures"].to_pylist()
    found = (row for row in rows if row["instance_id"] is None and row["time_window"] == data.initial_window)
    return next(found, dict.fromkeys(data.tables["figures"].column_names))


def kpis_markdown(figures: dict[str, Any]) -> str:
    """Return key figures as a Markdown table, with their previous values if these are known."""
    lines = ["| | now | before |", "| --- | ---: | ---: |"]
    for name, label, unit in KPIS:
        before = f"previous_{name}"
        previous = _formatted(figures[before], unit) if before in figures else ""
        lines.append(f"| {label} | {_formatted(figures[name], unit)} | {previous} |")
    return "\n".join(lines)


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
