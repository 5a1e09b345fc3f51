"""The report's charts as Vega-Lite specifications.

The page sets a chart's data `rows` and its signal `width`. Colours are CSS variables of the page, so they change
between light, dark and print without a script.
"""

from functools import cache
from typing import Any

import vl_convert

Spec = dict[str, Any]

_CHANNELS = ["organic", "paid", "other"]
# page.css sets them for light, dark and print. Organic and paid also differ in lightness, for colour-blind readers.
_COLOURS = ["var(--organic)", "var(--paid)", "var(--other)"]
# No legend: the page has its own, which can wrap.
_CHANNEL: Spec = {"field": "channel", "scale": {"domain": _CHANNELS, "range": _COLOURS}, "legend": None}
_INK, _MUTED, _RULE = "var(--ink)", "var(--muted)", "var(--rule)"
# A placeholder: the page sets the actual width.
_WIDTH = 640
# Pixels for the label at a bar's end.
_LABEL_WIDTH = 150

# vl-convert bundles these modules under these addresses; nothing is downloaded.
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


@cache
def charts() -> dict[str, Spec]:
    """Return the charts as Vega specifications without rows, by their key in the page's data."""
    return {
        "impressions": _compiled(_over_time(height=185)),
        "rates": _compiled(_over_time(height=145)),
        "network_rates": _compiled(_bars()),
    }


@cache
def vega_script() -> str:
    """Return the script that defines `laterVega`: Vega and its expression interpreter.

    The page does not need a Vega-Lite compiler, because charts are compiled here. The interpreter replaces `eval`,
    which the content security policy forbids.
    """
    script: str = vl_convert.javascript_bundle(
        f'import {{ View, parse }} from "{_VEGA}";\n'
        f'import {{ expressionInterpreter }} from "{_INTERPRETER}";\n'
        "window.laterVega = { View, parse, expressionInterpreter };",
        vl_version="6.1",
    )
    return script


def _compiled(spec: Spec) -> Spec:
    with_common = {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"name": "rows", "values": []},
        "width": _WIDTH,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": {"left": 4, "right": 4, "top": 4, "bottom": 0},
        **spec,
        "config": _CONFIG,
    }
    compiled: Spec = vl_convert.vegalite_to_vega(with_common, vl_version="6.1")
    return compiled


def _bars() -> Spec:
    """Return horizontal bars from 0, each with a label at its end."""
    x = {
        "field": "value",
        "type": "quantitative",
        "stack": None,
        "title": None,
        # No axis: each bar has a label with its value.
        "axis": None,
        "scale": {"domainMin": 0, "range": [0, {"expr": f"max(width - {_LABEL_WIDTH}, 40)"}]},
    }
    return {
        "height": {"step": 17},
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
            {"mark": "bar", "encoding": {"x": x, "color": _CHANNEL}},
            {
                "mark": {"type": "text", "align": "left", "baseline": "middle", "dx": 5, "color": _INK},
                "encoding": {"x": x | {"field": "end"}, "text": {"field": "label"}},
            },
        ],
    }


def _over_time(*, height: int) -> Spec:
    """Return one line per channel, with gaps on days without a value, and a vertical rule on each incomplete day."""
    day = {
        "field": "day",
        "type": "temporal",
        "scale": {"type": "utc"},
        "title": None,
        "axis": {
            "format": "%-d %b",
            # Of few days, some ticks are within a day.
            "labelExpr": "utchours(datum.value) ? '' : datum.label",
            "grid": False,
            "ticks": False,
            "tickCount": 6,
            "labelFlush": True,
            "labelOverlap": True,
        },
    }
    value = {
        "field": "value",
        "type": "quantitative",
        "title": None,
        "axis": {
            "format": "~s",
            "labelExpr": "datum.value ? datum.label : '0'",
            "tickCount": 4,
            # Both pictures begin at the same place.
            "minExtent": 34,
            "domain": False,
            "ticks": False,
        },
    }
    dashes = {"field": "channel", "legend": None, "scale": {"domain": _CHANNELS, "range": [[1, 0], [5, 3], [1, 0]]}}
    return {
        "height": height,
        "encoding": {"x": day},
        "layer": [
            {
                "transform": [{"filter": "datum.incomplete"}],
                "mark": {"type": "rule", "strokeDash": [2, 3], "color": _MUTED},
                "encoding": {},
            },
            {
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {"y": value, "strokeDash": dashes, "color": _CHANNEL},
            },
            {
                "transform": [{"filter": "datum.alone"}],
                "mark": {"type": "point", "filled": True, "size": 24},
                "encoding": {"y": value, "color": _CHANNEL},
            },
            {"mark": {"type": "rule", "opacity": 0, "strokeWidth": 8}, "encoding": {"tooltip": {"field": "tooltip"}}},
        ],
    }
