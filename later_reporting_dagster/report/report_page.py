"""Render the report as one HTML file that makes no network requests and treats data as text, never as markup.

The page has the report's results as JSON. Its script looks up the results for the chosen filters; it computes none of
them. Its content security policy allows only its two scripts and its style sheet, by their hashes.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from importlib.resources import files
from itertools import groupby
from string import Template
from typing import Any
from urllib.parse import urlsplit

from later_reporting_dagster.contract import DEFAULT_METRICS, Metric
from later_reporting_dagster.report.charts import CHARTS, compiled_chart, vega_script
from later_reporting_dagster.report.report_data import (
    CAMPAIGN_MEASURES,
    COMPARED_MEASURES,
    METRICS_TABLE,
    PUBLISHED_TABLE,
    WINDOW_BY_DAYS,
    CampaignDetails,
    ReportData,
)
from later_reporting_dagster.rollups.rollup_columns import CHANNELS, RESULTS, UNIT_COSTS, measure_of

_TABLES = {METRICS_TABLE: "daily metrics", PUBLISHED_TABLE: "published posts"}
_KEYS = ("instance_id", "campaign_id", "window", "kind", "platform", "content_type", "creator")
_DAYS_BY_WINDOW = {window: days for days, window in WINDOW_BY_DAYS.items()}
_CONTENT = ["kind", "platform", "content_type"]

_SUMS = tuple(f"{channel}_{result}" for result in RESULTS for channel in CHANNELS)
_RATES = tuple(f"{channel}_engagement_rate" for channel in CHANNELS)


def _interval(lift: str) -> tuple[str, ...]:
    return lift, f"{lift}_low", f"{lift}_high", f"{lift}_verdict"


_DAILY_MEASURES = (*_SUMS, *_RATES)
# The measures of platforms, content types and creators.
_PART_MEASURES = ("impressions", *_SUMS, *_RATES, *_interval("paid_lift"))
KPI_MEASURES = (
    *COMPARED_MEASURES,
    *(f"previous_{name}" for name in COMPARED_MEASURES),
    *(f"{name}_change" for name in COMPARED_MEASURES),
    *_interval("paid_lift")[1:],
    *_interval("same_post_lift"),
    "posts",
    "impressions",
    "paid_lift_mix_adjusted",
)
_BOUNDS = ("minimum", "maximum")
SPEND_MEASURES = (
    "posts",
    *_SUMS,
    "known_spend_maximum",
    *(f"{channel}_spend_{of}" for channel in CHANNELS for of in ("posts", "contradictory_posts")),
    *(f"{channel}_spend_{side}" for channel in (*CHANNELS, "both") for side in _BOUNDS),
    *(
        f"{channel}_{cost}_{of}"
        for channel in (*CHANNELS, "both")
        for cost, *_ in UNIT_COSTS
        for of in ("units", *_BOUNDS)
    ),
    "organic_estimated_value",
    "value_of_spend",
    *(f"valued_spend_{side}" for side in _BOUNDS),
    *(f"organic_value_per_spend_{side}" for side in _BOUNDS),
)
_POLICY = (
    "default-src 'none'; script-src {scripts}; style-src {styles}; img-src data:; base-uri 'none'; form-action 'none'"
)
# In HTML, `<` may begin the end tag of the script or a comment; `>` and `&` have meanings in markup, too. U+2028 and
# U+2029 end a line in older versions of JavaScript. In JSON, all of them can be escaped.
_ESCAPED = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def report_page(data: ReportData) -> bytes:
    """Return the report as an HTML page. The same data gives the same bytes."""
    package = files(__package__)
    style, script = (_safe_in_html(package.joinpath(name).read_text("utf-8")) for name in ("page.css", "page.js"))
    vega = _safe_in_html(vega_script())
    page = Template(package.joinpath("page.html").read_text("utf-8")).substitute(
        policy=_POLICY.format(scripts=f"{_hash(vega)} {_hash(script)}", styles=_hash(style)),
        as_of=data.as_of.isoformat(),
        style=style,
        vega=vega,
        script=script,
        data=json_for_html(page_data(data)),
    )
    return page.encode()


def page_data(data: ReportData) -> dict[str, Any]:
    """Return the data of the page's script, as JSON values.

    A table is a dict of columns of equal length. A day is given as its age: the number of days before `as_of`.
    """
    index = _Index(data)
    return {
        "as_of": data.as_of.isoformat(),
        "first_day": data.first_day.isoformat(),
        "days": data.days,
        "period": data.initial_period,
        "metrics_days": data.metrics_days,
        # A period is offered if there are more days than the next shorter period has.
        "periods": [
            days for days, shorter in zip(WINDOW_BY_DAYS, (0, *WINDOW_BY_DAYS), strict=False) if shorter < data.days
        ],
        "tables": _TABLES,
        "newest": {table: (data.as_of - data.newest_day(table)).days for table in _TABLES},
        "instances": list(data.instances),
        "campaigns": _campaigns(data),
        "are_campaigns_unreadable": data.are_campaigns_unreadable,
        "contents": [list(content) for content in index.contents],
        "creators": _creators(data),
        "metrics": [_metric(metric) for metric in data.metrics],
        "kpis": _columns_for_scopes(index, "kpis", [*KPI_MEASURES, "has_equal_days"]),
        "content_results": _columns_for_scopes(index, "content", _PART_MEASURES, content=index.content),
        "creator_results": _columns_for_scopes(index, "creators", _PART_MEASURES, creator=index.creator),
        "spend": _columns_for_scopes(index, "spend", SPEND_MEASURES),
        **_campaign_totals(index),
        "coverage": _columns_for_scopes(index, "coverage", ["published", *(metric.column for metric in data.metrics)]),
        "daily": _daily(index),
        **_completeness(data),
        "charts": {chart.name: compiled_chart(chart) for chart in CHARTS},
    }


class _Index:
    """The numbers by which the page's tables refer to scopes, contents and creators.

    Scopes are numbered in this order: all instances, each instance, each campaign. report.sql numbers them differently.
    """

    def __init__(self, data: ReportData) -> None:
        self.data = data
        self.contents = sorted({_content(row) for row in data.tables["content"].select(_CONTENT).to_pylist()}, key=repr)
        self._instances: dict[str | None, int] = {name: number for number, name in enumerate([None, *data.instances])}
        self._campaigns = {each: len(self._instances) + number for number, each in enumerate(data.campaigns)}
        self._contents = {content: number for number, content in enumerate(self.contents)}
        self._creators = {creator.number: number for number, creator in enumerate(data.creators)}

    def scope(self, row: Mapping[str, Any]) -> int:
        campaign_id = row["campaign_id"]
        if campaign_id is None:
            return self._instances[row["instance_id"]]
        return self._campaigns[row["instance_id"], campaign_id]

    def content(self, row: Mapping[str, Any]) -> int:
        return self._contents[_content(row)]

    def creator(self, row: Mapping[str, Any]) -> int:
        return self._creators[row["creator"]]


def _columns_for_scopes(
    index: _Index, name: str, measures: Sequence[str], **keys: Callable[[Mapping[str, Any]], int]
) -> dict[str, list[Any]]:
    """Return a table as columns: the scope, the length of the period in days, further keys, and measures."""
    table = index.data.tables[name]
    rows = table.select([key for key in _KEYS if key in table.column_names]).to_pylist()
    columns: dict[str, list[Any]] = {
        "scope": [index.scope(row) for row in rows],
        "period": [_DAYS_BY_WINDOW[row["window"]] for row in rows],
    }
    columns |= {key: [number(row) for row in rows] for key, number in keys.items()}
    return columns | {measure: [_number(value) for value in table[measure].to_pylist()] for measure in measures}


def _daily(index: _Index) -> dict[int, dict[str, Any]]:
    """Return for each scope the age of its newest day, and for each measure the values from that day to the oldest."""
    as_of = index.data.as_of
    by_scope: dict[int, dict[int, Mapping[str, Any]]] = {}
    for row in index.data.tables["days"].to_pylist():
        by_scope.setdefault(index.scope(row), {})[(as_of - row["date"]).days] = row
    return {
        scope: {"newest": min(days)}
        | {
            name: [_number(days[age][name]) if age in days else None for age in range(min(days), max(days) + 1)]
            for name in _DAILY_MEASURES
        }
        for scope, days in sorted(by_scope.items())
    }


def _completeness(data: ReportData) -> dict[str, Any]:
    """Return which days are stored, and which rows and files are not in the report."""
    return {
        "stored_days": {
            table: [_ranges(data, data.days_by_table.get(table, {}).get(name, frozenset())) for name in data.instances]
            for table in _TABLES
        },
        "quarantined": [
            {
                "table": each.table,
                "age": None if each.day is None else (data.as_of - each.day).days,
                "instance": each.instance_id,
                "reason": each.reason,
                "rows": each.rows,
            }
            for each in data.quarantined
        ],
        "unreadable": [
            {"table": each.table, "age": (data.as_of - each.day).days, "instance": each.instance_id}
            for each in data.unreadable
        ],
    }


def _campaigns(data: ReportData) -> list[list[Any]]:
    """Return for each campaign its instance, id, name and status; the last two are null if they are not known."""
    numbers = {instance_id: number for number, instance_id in enumerate(data.instances)}
    unknown = CampaignDetails(None, None)
    return [
        [numbers[instance_id], campaign_id, _one_line(details.name), _one_line(details.status)]
        for instance_id, campaign_id in data.campaigns
        for details in [data.campaign_details.get((instance_id, campaign_id), unknown)]
    ]


def _campaign_totals(index: _Index) -> dict[str, Any]:
    """Return the totals of campaigns, and by period the number of days that have totals.

    If no day has totals, `campaign_totals` is None. `unassigned_campaigns` has, by period, the ids of campaigns with
    totals but with several instances, or none that is known.
    """
    tables = index.data.tables
    unassigned: dict[int, list[int]] = {}
    for row in tables["unassigned_campaigns"].to_pylist():
        unassigned.setdefault(_DAYS_BY_WINDOW[row["window"]], []).append(row["campaign_id"])
    totals = _columns_for_scopes(index, "campaigns", CAMPAIGN_MEASURES)
    return {
        "campaign_totals": totals if index.data.has_campaign_totals else None,
        "campaign_days": {_DAYS_BY_WINDOW[row["window"]]: row["days"] for row in tables["campaign_days"].to_pylist()},
        "unassigned_campaigns": unassigned,
    }


def _one_line(text: str | None) -> str | None:
    """Return text with its line breaks and runs of spaces as single spaces; None if nothing else remains."""
    return " ".join((text or "").split()) or None


def _creators(data: ReportData) -> list[dict[str, Any]]:
    return [
        {
            "id": creator.creator_id,
            "instance": data.instances.index(creator.instance_id),
            "name": creator.name,
            "profiles": [
                {"network": profile.network, "handle": profile.handle, "link": web_link(profile.link)}
                for profile in creator.profiles
            ],
        }
        for creator in data.creators
    ]


def _metric(metric: Metric) -> dict[str, Any]:
    return {
        "column": metric.column,
        "label": _label(metric),
        "channel": metric.channel if metric.channel in CHANNELS else "other",
        "is_in_api_reference": metric in DEFAULT_METRICS,
    }


def _content(row: Mapping[str, Any]) -> tuple[str | None, ...]:
    """Return the platform of a row, or its platform and content type."""
    return (row["platform"],) if row["kind"] == "platform" else (row["platform"], row["content_type"])


def _number(value: Any) -> Any:
    """Return a value for JSON.

    Fractions are rounded, but keep at least 7 significant digits and 2 decimals, which is all that the page shows.
    """
    if isinstance(value, float | Decimal):
        number = float(value)
        short = float(f"{number:.7g}") if abs(number) < 100_000 else round(number, 2)
        return int(short) if short.is_integer() else short
    return value


def web_link(link: str | None) -> str | None:
    """Return the link if it is an http or https address, else None. Other links can run code (`javascript:`)."""
    if link is None or re.search(r"[\x00-\x20\x7f\\]", link):
        return None
    try:
        parts = urlsplit(link)
        is_web = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return None
    return link if is_web else None


def json_for_html(value: Any) -> str:
    """Return JSON that is safe inside a script element, even if a text contains `</script>`."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # Lone surrogates cannot be encoded.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return re.sub("[<>&\u2028\u2029]", lambda found: _ESCAPED[found[0]], text)


def _label(metric: Metric) -> str:
    """Return a metric's label.

    The label has the channel only if the metric is in the API reference: `Paid CPM`, but `Likes`.
    """
    if metric not in DEFAULT_METRICS:
        return metric.column.replace("_", " ").capitalize()
    measure = measure_of(metric)
    name = measure.upper() if measure in {"cpe", "cpm"} else measure.replace("_", " ")
    return f"{metric.channel.capitalize()} {name}"


def _ranges(data: ReportData, days: frozenset[date]) -> list[tuple[int, int]]:
    """Return days as ranges of ages, newest first: (age of the newest day, age of the oldest day)."""
    ages = sorted((data.as_of - day).days for day in days)
    # Within a run of consecutive ages, age minus position is constant.
    runs = [[age for _, age in run] for _, run in groupby(enumerate(ages), key=lambda each: each[1] - each[0])]
    return [(run[0], run[-1]) for run in runs]


def _safe_in_html(code: str) -> str:
    """Return code that cannot end its own element. In strings and regular expressions the backslash has no effect."""
    return re.sub(r"<(?=/script|/style|!--)", r"<\\", code, flags=re.IGNORECASE)


def _hash(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
