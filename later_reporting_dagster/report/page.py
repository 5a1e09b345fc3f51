"""The report as one HTML file: it asks no network for anything, and what comes from the data is never markup.

The page holds the report's sums as JSON, narrows them to what its reader picks, and draws them with what is inside it.
Its own policy lets just its two scripts and its one style sheet run, by their hashes.
"""

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from datetime import date
from importlib.resources import files
from itertools import groupby
from string import Template
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, Metric
from later_reporting_dagster.report.charts import CHARTS, compiled_chart, drawing_script
from later_reporting_dagster.report.data import KEYS, METRICS_TABLE, PUBLISHED_TABLE, Profile, ReportData
from later_reporting_dagster.report.periods import PERIODS, SPAN_ENDS
from later_reporting_dagster.rollups.columns import COMPARED, measure_of

_TABLES = {METRICS_TABLE: "daily metrics", PUBLISHED_TABLE: "published posts"}
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
    """What the page's script reads. Keys of the sums are places in the lists of instances, campaigns and so on."""
    contents = {
        (row["platform"], row["content_type"]): None
        for row in data.by_content.select(["platform", "content_type"]).to_pylist()
    }
    instances = {name: place for place, name in enumerate(data.instances)}
    campaigns = {campaign: place for place, campaign in enumerate(data.campaigns)}
    content_places = {content: place for place, content in enumerate(sorted(contents, key=repr))}
    creators = {creator.creator_id: place for place, creator in enumerate(data.creators)}

    def packed(table: pa.Table, *, when: str, **further: Sequence[int | None]) -> dict[str, Any]:
        keys = {
            when: table[when].to_pylist(),
            "instance": [instances[name] for name in table["instance_id"].to_pylist()],
            "campaign": [campaigns[campaign] for campaign in table["campaign_id"].to_pylist()],
            **further,
        }
        sums = {name: table[name].to_pylist() for name in table.column_names if name not in KEYS}
        return {"rows": table.num_rows, "keys": keys, "sums": sums}

    kinds = zip(data.by_content["platform"].to_pylist(), data.by_content["content_type"].to_pylist(), strict=True)
    makers = data.by_creator["creator_id"].to_pylist()
    return {
        "as_of": data.as_of.isoformat(),
        "first_day": data.first_day.isoformat(),
        "days": data.days,
        "period": data.period,
        "periods": [days for days, shorter in zip(PERIODS, (0, *PERIODS), strict=False) if shorter < data.days],
        "span_ends": list(SPAN_ENDS),
        "tables": _TABLES,
        "instances": list(data.instances),
        "campaigns": list(data.campaigns),
        "contents": [list(content) for content in content_places],
        "creators": [
            {
                "id": creator.creator_id,
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
            for metric in METRICS
        ],
        "daily": packed(data.daily, when="age"),
        "by_content": packed(data.by_content, when="span", content=[content_places[kind] for kind in kinds]),
        "by_creator": packed(data.by_creator, when="span", creator=[creators.get(maker) for maker in makers]),
        "published": packed(data.published, when="span"),
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
