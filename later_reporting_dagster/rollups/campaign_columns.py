"""Columns of rollup tables about campaigns as a whole: name, status, spend and return."""

from collections.abc import Iterator
from dataclasses import replace

from later_reporting_dagster.contract import CAMPAIGN_METRICS, Metric
from later_reporting_dagster.lake.campaign_tables import CAMPAIGN_COLUMNS
from later_reporting_dagster.lake.columns import Column, metric_column_type

# Name -> its column in `campaigns`.
_LABELS = {"campaign_name": "campaign_name", "campaign_status": "status"}

# Rate -> its description, its unit, how it is computed, and from which columns.
_RATES = {
    "estimated_roi": (
        "Estimated value per USD of content cost",
        "ratio",
        "Σ estimated_value_generated / Σ estimated_content_cost",
        ("estimated_value_generated", "estimated_content_cost"),
    ),
    "cost_per_click": (
        "Ad spend per paid click",
        "USD per click",
        "Σ paid_ad_spend / Σ paid_clicks",
        ("paid_ad_spend", "paid_clicks"),
    ),
    "paid_return_on_ad_spend": (
        "Revenue per USD of ad spend",
        "ratio",
        "Σ (paid_return_on_ad_spend × paid_ad_spend) / Σ paid_ad_spend",
        ("paid_return_on_ad_spend", "paid_ad_spend"),
    ),
}
CAMPAIGN_RESULTS = (
    "paid_ad_spend",
    "paid_cost",
    "estimated_content_cost",
    "estimated_value_generated",
    "estimated_roi",
    "paid_clicks",
    "cost_per_click",
    "paid_return_on_ad_spend",
    "tracking_links_clicks",
    "tracking_links_conversions",
    "tracking_links_conversion_value",
    "affiliate_links_clicks",
    "affiliate_links_conversions",
    "affiliate_links_sales",
    "affiliate_links_commission_earned",
)
"""The columns of spend and return, in stored order; campaign_results.sql computes them."""

_METRICS = {metric.column: metric for metric in CAMPAIGN_METRICS}
CAMPAIGN_TOTALS: tuple[Metric, ...] = tuple(_METRICS[name] for name in CAMPAIGN_RESULTS if name not in _RATES)
"""The metrics among them; the others are rates."""

_NOT_ATTRIBUTED = "if posts or campaigns of several instances have this campaign id"


def campaign_labels() -> Iterator[Column]:
    """Yield the columns that name a campaign. They are copied from `campaigns`."""
    columns = {column.name: column for column in CAMPAIGN_COLUMNS}
    for name, source in _LABELS.items():
        computed = "The value in campaigns; null if the API never listed the campaign"
        yield replace(columns[source], name=name, computation=computed, source_columns=(source,))


def campaign_results() -> Iterator[Column]:
    """Yield the number of days, and the spend and return on them. All are null by post date."""
    yield Column(
        "campaign_days", "int64", True, "Days of the window that have a file of campaign_performance_daily", "days",
        f"Number of days with a file, with or without the campaign; null by post_date, or {_NOT_ATTRIBUTED}",
    )  # fmt: skip
    for name in CAMPAIGN_RESULTS:
        yield _rate(name) if name in _RATES else _total(_METRICS[name])


def _total(metric: Metric) -> Column:
    return Column(
        metric.column, metric_column_type(metric), True, f"{metric.description}; as the API reports it for the whole"
        " campaign", metric.unit, "Sum of campaign_performance_daily over the days of the window; null by post_date, if"
        f" no day reports it, or {_NOT_ATTRIBUTED}", (metric.column,),
    )  # fmt: skip


def _rate(name: str) -> Column:
    description, unit, computed, made_from = _RATES[name]
    return Column(
        name, "float64", True, f"{description}; as the API reports both for the whole campaign", unit, f"{computed},"
        " over the days of the window in campaign_performance_daily that report both; null by post_date, if there are"
        f" none or the divisor is 0, or {_NOT_ATTRIBUTED}", made_from,
    )  # fmt: skip
