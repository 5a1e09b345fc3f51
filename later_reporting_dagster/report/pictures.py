"""The report's pictures as Vega-Lite says them: one specification draws the page's picture and the still one.

A page binds rows to a picture's data `rows` and a width to its signal `width`; colours are the page's own, as CSS
variables, so that they follow light, dark and print without a line of script. A still picture has both inside it.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import vl_convert

from later_reporting_dagster.report import figures
from later_reporting_dagster.report.data import ReportData
from later_reporting_dagster.report.figures import Bar, DayOfImpressions
from later_reporting_dagster.report.wording import count

Spec = dict[str, Any]

_CHANNELS = ["organic", "paid", "other"]
_MILLISECONDS_A_DAY = 86_400_000
_STILL_WIDTH = 640
# For the words at a bar's end.
_ROOM_FOR_WORDS = 130

# What vl-convert carries has these addresses: nothing is fetched from there.
_VEGA = f"https://cdn.jsdelivr.net/npm/vega@{vl_convert.get_vega_version()}/+esm.js"
_INTERPRETER = "https://cdn.jsdelivr.net/npm/vega-interpreter@2.0.0/+esm.js"


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of a picture. Organic blue and paid orange differ in lightness too, for any kind of eye."""

    organic: str
    paid: str
    other: str
    ink: str
    muted: str
    rule: str
    background: str
    font: str


PAGE = Palette(
    "var(--organic)",
    "var(--paid)",
    "var(--other)",
    "var(--ink)",
    "var(--muted)",
    "var(--rule)",
    "transparent",
    "system-ui",
)
STILL = Palette("#0b65a3", "#e07a1f", "#7a828c", "#1b1f24", "#59636e", "#e4e7eb", "#ffffff", "Arial, sans-serif")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of the report: of bars up to `most`, if that is known, or lines over time."""

    name: str
    title: str
    bars: bool = True
    most: float | None = None


IMPRESSIONS = Picture("impressions", "Impressions by day", bars=False)
PLATFORM_RATES = Picture("platform_rates", "Engagement rate by platform, percent")
CONTENT_RATES = Picture("content_rates", "Engagement rate by content type, percent")
SPEND = Picture("spend", "Spend by campaign, between its bounds")
COST = Picture("cost", "Cost of an engagement by campaign, between its bounds")
COVERAGE = Picture("coverage", "Posts that report each metric, percent of those published", most=100)
PICTURES: Sequence[Picture] = (IMPRESSIONS, PLATFORM_RATES, CONTENT_RATES, SPEND, COST, COVERAGE)


def still_pictures(data: ReportData) -> Mapping[Picture, str]:
    """Each picture of the report as it opens, as SVG."""
    spent, costs = figures.spending(data)
    rows = {
        IMPRESSIONS: _day_rows(figures.impressions_by_day(data), data),
        PLATFORM_RATES: _bar_rows(figures.rates(data, "platform")),
        CONTENT_RATES: _bar_rows(figures.rates(data, "content_type")),
        SPEND: _bar_rows(spent),
        COST: _bar_rows(costs),
        COVERAGE: _bar_rows(figures.coverage(data)),
    }
    return {picture: _still(picture, rows[picture]) for picture in PICTURES}


def as_markdown(pictures: Mapping[Picture, str]) -> str:
    """Still pictures inside Markdown, one below the other: the Dagster UI shows them as images."""
    return "\n\n".join(
        f"![{picture.title}](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()})"
        for picture, svg in pictures.items()
    )


@cache
def page_picture(picture: Picture) -> Spec:
    """A picture as Vega, without rows, in the page's own colours."""
    compiled: Spec = vl_convert.vegalite_to_vega(_specification(picture, PAGE), vl_version="6.1")
    return compiled


@cache
def drawing_script() -> str:
    """What a page draws pictures with, as `laterVega`: Vega without what compiles Vega-Lite, which is done here.

    Its interpreter of expressions is there so that a page needs no `eval`.
    """
    script: str = vl_convert.javascript_bundle(
        f'import {{ View, parse }} from "{_VEGA}";\n'
        f'import {{ expressionInterpreter }} from "{_INTERPRETER}";\n'
        "window.laterVega = { View, parse, expressionInterpreter };",
        vl_version="6.1",
    )
    return script


def _still(picture: Picture, rows: Sequence[Mapping[str, Any]]) -> str:
    spec = _specification(picture, STILL)
    spec["data"] = {"name": "rows", "values": [dict(row) for row in rows]}
    svg: str = vl_convert.vegalite_to_svg(json.loads(json.dumps(spec)), vl_version="6.1")
    return svg


def _specification(picture: Picture, palette: Palette) -> Spec:
    spec = _bars(palette, most=picture.most) if picture.bars else _over_time(palette)
    is_still = palette is STILL
    channels = {
        "field": "channel",
        "scale": {"domain": _CHANNELS, "range": [palette.organic, palette.paid, palette.other]},
        # The page has one of its own, which wraps.
        "legend": {
            "orient": "top",
            "title": None,
            "values": _CHANNELS[:2],
            "symbolType": "square" if picture.bars else "stroke",
        }
        if is_still
        else None,
    }
    for layer in spec["layer"]:
        if layer["encoding"].pop("channel", False):
            layer["encoding"]["color"] = channels
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "data": {"name": "rows", "values": []},
        "width": _STILL_WIDTH,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": 12 if is_still else {"left": 4, "right": 4, "top": 4, "bottom": 0},
        **({"title": picture.title} if is_still else {}),
        **spec,
        "config": _style(palette),
    }


def _bars(palette: Palette, *, most: float | None) -> Spec:
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
                "mark": {"type": "text", "align": "left", "baseline": "middle", "dx": 5, "color": palette.ink},
                "encoding": {"x": along("end"), "text": {"field": "label"}},
            },
        ],
    }


def _over_time(palette: Palette) -> Spec:
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
                "mark": {"type": "rule", "strokeDash": [2, 3], "color": palette.muted},
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
            {
                "mark": {"type": "rule", "opacity": 0, "strokeWidth": 8},
                "encoding": {"tooltip": {"field": "tooltip"}},
            },
        ],
    }


def _style(palette: Palette) -> Spec:
    return {
        "background": palette.background,
        "font": palette.font,
        "aria": False,
        "view": {"stroke": None},
        "title": {"anchor": "start", "color": palette.ink, "fontSize": 14, "fontWeight": 600, "offset": 10},
        "text": {"fontSize": 11},
        "legend": {"labelColor": palette.ink, "labelFontSize": 12, "symbolOpacity": 1, "symbolStrokeWidth": 3},
        "axis": {
            "labelColor": palette.muted,
            "labelFontSize": 11,
            "gridColor": palette.rule,
            "domainColor": palette.rule,
            "tickColor": palette.rule,
        },
        "axisY": {"labelColor": palette.ink},
        "axisX": {"labelColor": palette.muted},
    }


def _bar_rows(bars: Sequence[Bar]) -> list[dict[str, Any]]:
    """Rows of a picture of bars, as the page's script makes them too."""
    is_one_each = len(bars) == len({bar.group for bar in bars})
    return [
        {
            "group": bar.group,
            "channel": bar.channel,
            "lane": "" if is_one_each else bar.channel,
            "low": bar.low,
            "high": bar.high,
            "end": bar.high or 0,
            "label": bar.label,
            "tooltip": f"{bar.group}, {bar.channel}: {bar.label}",
        }
        for bar in bars
    ]


def _day_rows(days: Sequence[DayOfImpressions], data: ReportData) -> list[dict[str, Any]]:
    """Rows of the picture over time, as the page's script makes them too."""
    newest = (data.as_of.toordinal() - 719_163) * _MILLISECONDS_A_DAY
    rows = []
    for channel in ("organic", "paid"):
        values = [getattr(day, channel) for day in days]
        for place, (day, value) in enumerate(zip(days, values, strict=True)):
            neighbours = values[max(place - 1, 0) : place + 2]
            told = f"organic {count(day.organic)}, paid {count(day.paid)}"
            rows.append(
                {
                    "day": newest - day.age * _MILLISECONDS_A_DAY,
                    "channel": channel,
                    "value": value,
                    "alone": value is not None and sum(near is not None for near in neighbours) == 1,
                    "incomplete": day.incomplete,
                    "tooltip": told,
                }
            )
    return rows
