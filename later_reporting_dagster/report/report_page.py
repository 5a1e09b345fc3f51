"""The report as one HTML file: it asks no network for anything, and what comes from the data is never markup.

The page holds the report's figures as JSON, looks up those of what its reader picks, and draws them with what is inside
it: its script computes none.
Its own policy lets just its two scripts and its one style sheet run, by their hashes.
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

from later_reporting_dagster.contract import DOCUMENT_METRICS, Metric
from later_reporting_dagster.report.charts import CHARTS, compiled_chart, drawing_script
from later_reporting_dagster.report.report_data import (
    COMPARED_MEASURES,
    METRICS_TABLE,
    PERIODS,
    PUBLISHED_TABLE,
    Profile,
    ReportData,
)
from later_reporting_dagster.rollups.periods import WINDOWS
from later_reporting_dagster.rollups.rollup_columns import COMPARED, RESULTS, UNIT_COSTS, measure_of

_TABLES = {METRICS_TABLE: "daily metrics", PUBLISHED_TABLE: "published posts"}
_KEYS = ("instance_id", "campaign_id", "window", "kind", "platform", "content_type", "creator")
_CONTENT = ["kind", "platform", "content_type"]

_SUMS = tuple(f"{channel}_{result}" for result in RESULTS for channel in COMPARED)
_RATES = tuple(f"{channel}_engagement_rate" for channel in COMPARED)


def _interval(lift: str) -> tuple[str, ...]:
    return lift, f"{lift}_low", f"{lift}_high", f"{lift}_verdict"


_DAILY = (*_SUMS, *_RATES)
_DIVIDED = (*_SUMS, *_RATES, *_interval("paid_lift"))
HEADLINE_MEASURES = (
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
    *(f"{channel}_spend_{of}" for channel in COMPARED for of in ("posts", "contradictory_posts")),
    *(f"{channel}_spend_{side}" for channel in (*COMPARED, "both") for side in _BOUNDS),
    *(
        f"{channel}_{cost}_{of}"
        for channel in (*COMPARED, "both")
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
# JSON needs none of these as they are, and a browser may take them for the end of a script or the start of a comment.
_ESCAPED = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def report_page(data: ReportData) -> bytes:
    """The report as a page of HTML. The same data gives the same bytes."""
    ours = files(__package__)
    style, script = (_inside_html(ours.joinpath(name).read_text("utf-8")) for name in ("page.css", "page.js"))
    drawing = _inside_html(drawing_script())
    page = Template(ours.joinpath("page.html").read_text("utf-8")).substitute(
        policy=_POLICY.format(scripts=f"{_hash(drawing)} {_hash(script)}", styles=_hash(style)),
        as_of=data.as_of.isoformat(),
        style=style,
        drawing=drawing,
        script=script,
        data=json_inside_html(page_data(data)),
    )
    return page.encode()


def page_data(data: ReportData) -> dict[str, Any]:
    """Return what the page's script looks its figures up in.

    A scope is a place in the list of all instances, then each instance, then each campaign.
    """
    scopes: dict[str | None, int] = {name: place for place, name in enumerate([None, *data.instances])}
    of_campaigns = {campaign: len(scopes) + place for place, campaign in enumerate(data.campaigns)}
    creators = {creator.number: place for place, creator in enumerate(data.creators)}
    contents = sorted({_content(row) for row in data.tables["content"].select(_CONTENT).to_pylist()}, key=repr)
    places = {content: place for place, content in enumerate(contents)}

    def scope(row: Mapping[str, Any]) -> int:
        campaign = row["campaign_id"]
        return scopes[row["instance_id"]] if campaign is None else of_campaigns[row["instance_id"], campaign]

    def packed(name: str, measures: Sequence[str], **keys: Callable[[Mapping[str, Any]], Any]) -> dict[str, Any]:
        table = data.tables[name]
        keys = {"scope": scope, "period": lambda row: WINDOWS[row["window"]]} | keys
        rows = table.select([each for each in _KEYS if each in table.column_names]).to_pylist()
        columns = {key: [of(row) for row in rows] for key, of in keys.items()}
        return columns | {measure: [_number(value) for value in table[measure].to_pylist()] for measure in measures}

    return {
        "as_of": data.as_of.isoformat(),
        "first_day": data.first_day.isoformat(),
        "days": data.days,
        "period": data.period,
        "periods": [days for days, shorter in zip(PERIODS, (0, *PERIODS), strict=False) if shorter < data.days],
        "tables": _TABLES,
        "newest": {table: (data.as_of - data.newest_day(table)).days for table in _TABLES},
        "instances": list(data.instances),
        "campaigns": [[data.instances.index(instance_id), campaign] for instance_id, campaign in data.campaigns],
        "contents": [list(content) for content in contents],
        "creators": [
            {
                "id": creator.creator_id,
                "instance": data.instances.index(creator.instance_id),
                "name": creator.name,
                "profiles": [_profile(profile) for profile in creator.profiles],
            }
            for creator in data.creators
        ],
        "metrics": [
            {
                "column": metric.column,
                "label": _label(metric),
                "channel": metric.channel if metric.channel in COMPARED else "other",
                "is_always_told": metric in DOCUMENT_METRICS,
            }
            for metric in data.metrics
        ],
        "headline": packed("headline", [*HEADLINE_MEASURES, "are_alike"]),
        "content": packed("content", ["impressions", *_DIVIDED], content=lambda row: places[_content(row)]),
        "creators_of": packed("creators", ["impressions", *_DIVIDED], creator=lambda row: creators[row["creator"]]),
        "spend": packed("spend", SPEND_MEASURES),
        "coverage": packed("coverage", ["published", *(metric.column for metric in data.metrics)]),
        "daily": _daily(data, scope),
        "landed": {
            table: [_ranges(data, data.landed.get(table, {}).get(name, frozenset())) for name in data.instances]
            for table in _TABLES
        },
        "set_aside": [
            {
                "table": part.table,
                "age": None if part.day is None else (data.as_of - part.day).days,
                "instance": part.instance_id,
                "reason": part.reason,
                "rows": part.rows,
            }
            for part in data.set_aside
        ],
        "unread": [
            {"table": part.table, "age": (data.as_of - part.day).days, "instance": part.instance_id}
            for part in data.unread
        ],
        "pictures": {picture.name: compiled_chart(picture) for picture in CHARTS},
    }


def _daily(data: ReportData, scope: Callable[[Mapping[str, Any]], int]) -> dict[int, dict[str, Any]]:
    """By scope: the age of its newest day, and the measures of the days from there on, a list each."""
    by_scope: dict[int, dict[int, Mapping[str, Any]]] = {}
    for row in data.tables["days"].to_pylist():
        by_scope.setdefault(scope(row), {})[(data.as_of - row["date"]).days] = row
    return {
        place: {"newest": min(days)}
        | {
            name: [_number(days[age][name]) if age in days else None for age in range(min(days), max(days) + 1)]
            for name in _DAILY
        }
        for place, days in sorted(by_scope.items())
    }


def _content(row: Mapping[str, Any]) -> tuple[str | None, ...]:
    """A platform, or a platform and content type."""
    return (row["platform"],) if row["kind"] == "platform" else (row["platform"], row["content_type"])


def _number(value: Any) -> Any:
    """A value of a table as JSON has it: more than seven digits of a fraction are more than the page shows."""
    if isinstance(value, float | Decimal):
        short = float(f"{value:.7g}")
        return int(short) if short.is_integer() else short
    return value


def web_link(link: str | None) -> str | None:
    """A link that leads to the web by http or https; None for any other, such as one that is a script."""
    if link is None or re.search(r"[\x00-\x20\x7f\\]", link):
        return None
    try:
        parts = urlsplit(link)
        is_web = parts.scheme.lower() in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return None
    return link if is_web else None


def json_inside_html(value: Any) -> str:
    """JSON that can stand in a script of a page, whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # What is not valid Unicode has no bytes.
    text = text.encode("utf-8", errors="replace").decode("utf-8")
    return re.sub("[<>&\u2028\u2029]", lambda found: _ESCAPED[found[0]], text)


def _label(metric: Metric) -> str:
    """A metric's name, of the document's with its channel: Organic engagement rate, Paid CPM, Likes."""
    if metric not in DOCUMENT_METRICS:
        return metric.column.replace("_", " ").capitalize()
    measure = measure_of(metric)
    name = measure.upper() if measure in {"cpe", "cpm"} else measure.replace("_", " ")
    return f"{metric.channel.capitalize()} {name}"


def _profile(profile: Profile) -> dict[str, str | None]:
    return {"network": profile.network, "handle": profile.handle, "link": web_link(profile.link)}


def _ranges(data: ReportData, days: frozenset[date]) -> list[tuple[int, int]]:
    """The ages of days, as ranges from the newest to the oldest."""
    ages = sorted((data.as_of - day).days for day in days)
    neighbours = [[age for _, age in run] for _, run in groupby(enumerate(ages), key=lambda each: each[1] - each[0])]
    return [(run[0], run[-1]) for run in neighbours]


def _inside_html(code: str) -> str:
    """Code that no text of its own can end. In a string or a pattern the backslash changes nothing."""
    return re.sub(r"<(?=/script|/style|!--)", r"<\\", code, flags=re.IGNORECASE)


def _hash(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
