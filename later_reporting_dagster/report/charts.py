"""The report's charts as Vega-Lite specifications.

The page binds rows to a chart's data `rows` and a width to its signal `width`; colours are the page's own, as CSS
variables, so that they follow light, dark and print without a line of script.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import vl_convert

Spec = dict[str, Any]

_CHANNELS = ["organic", "paid", "other"]
# The page's colours, which its style sheet sets for light, dark and print. Organic and paid differ in lightness too,
# for any kind of eye.
_COLOURS = ["var(--organic)", "var(--paid)", "var(--other)"]
_INK, _MUTED, _RULE = "var(--ink)", "var(--muted)", "var(--rule)"
# Of the specification alone: the page sets its own.
_WIDTH = 640
# For the words at a bar's end.
_ROOM_FOR_WORDS = 130

# What vl-convert carries has these addresses: nothing is fetched from there.
_VEGA = f"https://cdn.jsdelivr.net/npm/vega@{vl_convert.get_vega_version()}/+esm.js"
_INTERPRETER = "https://cdn.jsdelivr.net/npm/vega-interpreter@2.0.0/+esm.js"


_CONFIG: Spec = {
    "background": "transparent",
    "font": "system-ui",
    "aria": False,
    "view": {"stroke": None},
    "text": {"fontSize": 11},
    "axis": {"labelColor": _MUTED, "labelFontSize": 11, "gridColor": _RULE, "domainColor": _RULE, "tickColor": _RULE},
    "axisY": {"labelColor": _INK},
    "axisX": {"labelColor": _MUTED},
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart of the report: of bars up to `most`, if that is known, or lines over time."""

    name: str
    title: str
    bars: bool = True
    most: float | None = None


IMPRESSIONS = Chart("impressions", "Impressions by day", bars=False)
ENGAGEMENTS = Chart("engagements", "Engagements by day", bars=False)
ENGAGEMENT_RATE = Chart("engagement_rate", "Engagement rate by day, percent", bars=False)
PLATFORM_RATES = Chart("platform_rates", "Engagement rate by platform, percent")
CONTENT_RATES = Chart("content_rates", "Engagement rate by content type, percent")
SPEND = Chart("spend", "Spend by campaign, between its bounds")
COST = Chart("cost", "Cost of an engagement by campaign, between its bounds")
COVERAGE = Chart("coverage", "Posts that report each metric, percent of those published", most=100)
CHARTS: Sequence[Chart] = (
    IMPRESSIONS,
    ENGAGEMENTS,
    ENGAGEMENT_RATE,
    PLATFORM_RATES,
    CONTENT_RATES,
    SPEND,
    COST,
    COVERAGE,
)


@cache
def compiled_chart(chart: Chart) -> Spec:
    """Return a chart as compiled Vega, without rows."""
    compiled: Spec = vl_convert.vegalite_to_vega(_specification(chart), vl_version="6.1")
    return compiled


@cache
def drawing_script() -> str:
    """Return the script that draws the charts, as `laterVega`: Vega without its Vega-Lite compiler, which runs here.

    Includes Vega's expression interpreter, so that the page needs no `eval`.
    """
    script: str = vl_convert.javascript_bundle(
        f'import {{ View, parse }} from "{_VEGA}";\n'
        f'import {{ expressionInterpreter }} from "{_INTERPRETER}";\n'
        "window.laterVega = { View, parse, expressionInterpreter };",
        vl_version="6.1",
    )
    return script


def _specification(chart: Chart) -> Spec:
    spec = _bars(most=chart.most) if chart.bars else _over_time()
    # The page has a legend of its own, which wraps.
    channels = {"field": "channel", "scale": {"domain": _CHANNELS, "range": _COLOURS}, "legend": None}
    for layer in spec["layer"]:
        if layer["encoding"].pop("channel", False):
            layer["encoding"]["color"] = channels
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"name": "rows", "values": []},
        "width": _WIDTH,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 4, "right": 4, "top": 4, "bottom": 0},
        **spec,
        "config": _CONFIG,
    }


def _bars(*, most: float | None) -> Spec:
    """Bars from 0: solid up to where it is at least, faint up to where it is at most, then in words."""

    def along(name: str) -> Spec:
        # Without an axis: each bar says what it is.
        ends = {"domainMin": 0} if most is None else {"domain": [0, most]}
        scale = ends | {"range": [0, {"expr": f"max(width - {_ROOM_FOR_WORDS}, 40)"}]}
        return {"field": name, "type": "quantitative", "stack": None, "title": None, "axis": None, "scale": scale}

    return {
        "height": {"step": 15},
        "encoding": {
            "y": {
                "field": "group",
                "type": "nominal",
                "sort": None,
                "title": None,
                "axis": {"ticks": False, "grid": False, "labelLimit": 150, "labelPadding": 8},
            },
            "yOffset": {"field": "lane", "sort": None},
            "tooltip": {"field": "tooltip"},
        },
        "layer": [
            {"mark": "bar", "encoding": {"x": along("low"), "channel": True}},
            {
                "mark": {"type": "bar", "opacity": 0.4},
                "encoding": {"x": along("low"), "x2": {"field": "high"}, "channel": True},
            },
            {
                "mark": {"type": "text", "align": "left", "baseline": "middle", "dx": 5, "color": _INK},
                "encoding": {"x": along("end"), "text": {"field": "label"}},
            },
        ],
    }


def _over_time() -> Spec:
    """A line a channel, broken where nothing is available; an incomplete day is marked from top to bottom."""
    day = {
        "field": "day",
        "type": "temporal",
        "scale": {"type": "utc"},
        "title": None,
        "axis": {"format": "%-d %b", "grid": False, "tickCount": 6, "labelFlush": True, "labelOverlap": True},
    }
    value = {
        "field": "value",
        "type": "quantitative",
        "title": None,
        "axis": {
            "format": "~s",
            "labelExpr": "datum.value ? datum.label : '0'",
            "tickCount": 5,
            "domain": False,
            "ticks": False,
        },
    }
    dashes = {"field": "channel", "legend": None, "scale": {"domain": _CHANNELS, "range": [[1, 0], [5, 3], [1, 0]]}}
    return {
        "height": 260,
        "encoding": {"x": day},
        "layer": [
            {
                "transform": [{"filter": "datum.incomplete"}],
                "mark": {"type": "rule", "strokeDash": [2, 3], "color": _MUTED},
                "encoding": {},
            },
            {
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {"y": value, "strokeDash": dashes, "channel": True},
            },
            {
                "transform": [{"filter": "datum.alone"}],
                "mark": {"type": "point", "filled": True, "size": 24},
                "encoding": {"y": value, "channel": True},
            },
            {"mark": {"type": "rule", "opacity": 0, "strokeWidth": 8}, "encoding": {"tooltip": {"field": "tooltip"}}},
        ],
    }
