"""Render the SQL of the rollups, and the YAML beside it that documents their columns. Both are Jinja templates.

Only optional metrics and the group of a table are variables: the SQL reads as it runs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import yaml  # type: ignore[import-untyped]
from jinja2 import Environment, PackageLoader, StrictUndefined

from later_reporting_dagster.contract import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.metrics import Channel, Kind
from later_reporting_dagster.contract.parameters import SELF_REPORTED
from later_reporting_dagster.lake.database import SQL_TYPES
from later_reporting_dagster.lake.tables import (
    CAMPAIGN_COLUMNS,
    MONTH_WINDOWS,
    POST_COLUMNS,
    WINDOWS,
    Column,
    metric_column_type,
)

TEMPLATES = Environment(
    loader=PackageLoader(__package__, "."), undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
)
CHANNELS = (Channel.ORGANIC, Channel.PAID)
# The columns of windows that also exist for the previous period.
PREVIOUS = (
    *("posts", "organic_impressions", "organic_engagements", "paid_impressions", "paid_engagements"),
    *("organic_engagement_rate", "paid_engagement_rate", "ad_spend"),
)
CREATOR_LABELS = ("creator_handle_name", "creator_full_name", "creator_profile_link")
POST_ATTRIBUTES = (
    *("creator_id", "creator_handle_name", "creator_full_name", "platform", "content_type"),
    *("content_url", "post_date"),
)
_SUM_TYPES = {Kind.COUNT: "BIGINT", Kind.MONEY: "DECIMAL(38, 6)", Kind.TIME: "DECIMAL(38, 6)"}
_TYPES = {Kind.COUNT: "BIGINT", Kind.MONEY: "DECIMAL(18, 6)", Kind.TIME: "DECIMAL(24, 6)"}
_SINCE = ". Counts from the first day that was requested with it, which metrics in coverage tells"
_COLUMN_TYPES = {sql.lower(): type_ for type_, sql in SQL_TYPES.items()}


def raw_column(channel: Channel, measure: str) -> str:
    """Return the column of the raw tables that holds a measure of a channel."""
    return measure if channel is Channel.ORGANIC else f"{channel}_{measure}"


def sum_name(metric: Metric) -> str:
    """Return the name of the column that holds the sum of a metric: `organic_impressions` for `impressions`."""
    return f"{metric.channel}_{metric.column.removeprefix(f'{metric.channel}_').removesuffix('_generated')}"


def metric_variables(metrics: Iterable[Metric]) -> dict[str, Any]:
    """Return the variables of the templates that depend on the requested metrics of posts."""
    additive = [metric for metric in metrics if metric.kind.adds_up_over_days]
    columns = {metric.column for metric in additive}
    rates = [
        {
            "channel": channel.capitalize(),
            "name": f"{channel}_rate{suffix}",
            "unit": unit,
            "column": f"{channel}_engagement_rate{suffix}",
            "engagements": f"{channel}_engagements",
            "units": f"{channel}_{unit}",
        }
        for unit, suffix in (("impressions", ""), ("views", "_by_views"))
        for channel in CHANNELS
        if raw_column(channel, unit) in columns
    ]
    has_rate = {rate["column"] for rate in rates}
    return {
        "metrics": [_sum(metric) for metric in additive],
        "rates": rates,
        "ratios": [
            {"column": f"rate_ratio{suffix}", "paid": paid, "organic": organic}
            for suffix in ("", "_by_views")
            if {paid := f"paid_engagement_rate{suffix}", organic := f"organic_engagement_rate{suffix}"} <= has_rate
        ],
        "shares": [
            {"column": f"{name.removesuffix('s')}_rate", "name": f"organic_{name}"}
            for name in ("shares", "saves")
            if name in columns
        ],
        "has_views": "views" in columns,
    }


def within_limits(metrics: Iterable[Metric]) -> str:
    """Return the condition that no value of a raw row is absurd: the parser rejects others, but one may be stored."""
    return " AND ".join(
        f"coalesce(abs({metric.column}) <= {metric.kind.maximum}, true)"
        for metric in metrics
        if metric.kind.adds_up_over_days
    )


def _sum(metric: Metric) -> dict[str, str]:
    """Return the variables of a metric that adds up. Its raw column is cast to a type whose sums are exact."""
    return {
        "column": metric.column,
        "name": sum_name(metric),
        "type": _TYPES[metric.kind],
        "sum_type": _SUM_TYPES[metric.kind],
        "data_type": SQL_TYPES[metric_column_type(metric)].lower(),
        "unit": metric.unit,
        "description": metric.description,
        "since": "" if metric in DEFAULT_METRICS else _SINCE,
        # The metrics of the API reference are in every file, so their numbers of posts are never null.
        "constraints": "constraints: [{type: not_null}]" if metric in DEFAULT_METRICS else "",
    }


CONSTANTS: dict[str, Any] = {
    "lengths": WINDOWS,
    "windows": (*WINDOWS, *MONTH_WINDOWS),
    # A same-post rate ratio of fewer posts, or of posts of fewer creators, is null.
    "minimum_same_posts": 20,
    "minimum_same_post_creators": 5,
    # Posts are no longer ranked from this age in days on.
    "maximum_age": 90,
    # The cost of a younger post is not divided by its results.
    "comparable_age": 14,
    # The highest probability, for a platform, that it is called silent by chance.
    "unlikely": 0.001,
    "minimum_peers": 20,
    "maximum_peers": 1000,
    "last_age": 28,
    "quartiles": (25, 50, 75),
    # Creators report posts of these networks themselves, and Later does not update them (docs/numbers.md).
    "self_reported": ", ".join(f"'{network}'" for network in SELF_REPORTED),
    "previous": PREVIOUS,
    "post_attributes": POST_ATTRIBUTES,
    "known_attributes": dict.fromkeys((*POST_ATTRIBUTES, *CREATOR_LABELS)),
    "creator_labels": CREATOR_LABELS,
    "attributes": {column.name: column.description for column in POST_COLUMNS},
}


def render(template: str, variables: Mapping[str, Any]) -> str:
    return TEMPLATES.get_template(template).render({**CONSTANTS, **variables})


def read_columns(template: str, variables: Mapping[str, Any]) -> tuple[Column, ...]:
    """Return the columns that a YAML file documents, in its order."""
    return _parse_columns(render(template, variables))


@cache
def _parse_columns(text: str) -> tuple[Column, ...]:
    return tuple(map(_column, yaml.load(text, Loader=yaml.CSafeLoader)))


def _column(documented: Mapping[str, Any]) -> Column:
    """Return a column as documented; what is not stated is that of the raw column of the same name."""
    name, raw = documented["name"], _RAW_COLUMNS.get(documented["name"])
    description = documented.get("description") or _RAW_COLUMNS[name].description
    if raw is None or "data_type" in documented:
        is_nullable = {"type": "not_null"} not in documented.get("constraints", ())
        unit = documented.get("meta", {}).get("unit", "")
        return Column(name, _COLUMN_TYPES[documented["data_type"]], is_nullable, description, unit)
    return replace(raw, description=description)


_RAW_COLUMNS: Mapping[str, Column] = {column.name: column for column in (*CAMPAIGN_COLUMNS, *POST_COLUMNS)}
