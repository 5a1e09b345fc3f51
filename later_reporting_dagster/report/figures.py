"""The figures of a report as it opens, over all instances and campaigns: for the asset's metadata and still pictures.

The page computes the same from the same sums, narrowed to whatever its reader picks.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS
from later_reporting_dagster.report.data import KEYS, METRICS_TABLE, ReportData
from later_reporting_dagster.report.periods import spans_before, spans_of
from later_reporting_dagster.report.wording import bounds, count, metric_label, percent, written
from later_reporting_dagster.rollups.columns import COMPARED

Sums = Mapping[str, Any]

# Beyond these a picture of campaigns says no more than their table.
DRAWN_CAMPAIGNS = 12


@dataclass(frozen=True, slots=True)
class Headline:
    """A headline figure: null is not available. `form` is how it is written: count, percent or ratio."""

    name: str
    label: str
    form: str
    value: float | None
    before: float | None


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a picture, from 0 to somewhere between `low` and `high`: nulls where there is nothing to draw."""

    group: str
    channel: str
    low: float | None
    high: float | None
    label: str


@dataclass(frozen=True, slots=True)
class DayOfImpressions:
    """A day's impressions: null where none was reported. `incomplete` where an instance has not landed."""

    age: int
    organic: int | None
    paid: int | None
    incomplete: bool


def headlines(data: ReportData) -> list[Headline]:
    """The headline figures of the period that the report opens with, and of the one before it.

    A period that begins before the first day that has landed is not available: it would compare with half of one.
    """
    now = compared(_total(data.by_content, spans_of(data.period)))
    before = compared(_total(data.by_content, spans_before(data.period)))
    is_covered = data.days >= 2 * data.period
    return [
        Headline(name, label, form, now[name], before[name] if is_covered else None) for name, label, form in HEADLINES
    ]


def headlines_in_markdown(found: Sequence[Headline]) -> str:
    """The headline figures as a table, with what they were before."""
    lines = ["| | now | before |", "| --- | ---: | ---: |"]
    lines += [
        f"| {each.label} | {written(each.value, each.form)} | {written(each.before, each.form)} |" for each in found
    ]
    return "\n".join(lines)


HEADLINES = (
    ("organic_impressions", "Organic impressions", "count"),
    ("paid_impressions", "Paid impressions", "count"),
    ("paid_share_of_impressions", "Paid share of impressions", "percent"),
    ("organic_engagements", "Organic engagements", "count"),
    ("paid_engagements", "Paid engagements", "count"),
    ("paid_share_of_engagements", "Paid share of engagements", "percent"),
    ("organic_engagement_rate", "Organic engagement rate", "percent"),
    ("paid_engagement_rate", "Paid engagement rate", "percent"),
    ("paid_lift", "Paid lift", "ratio"),
)


def compared(sums: Sums) -> dict[str, float | None]:
    """Sums of both channels, with the rates, shares and lift that the rollups make of them."""
    figures: dict[str, float | None] = {
        name: sums.get(name) for channel in COMPARED for name in (f"{channel}_impressions", f"{channel}_engagements")
    }
    for channel in COMPARED:
        figures[f"{channel}_engagement_rate"] = quotient(
            sums.get(f"{channel}_rate_engagements"), sums.get(f"{channel}_rate_impressions"), times=100
        )
    for measure in ("impressions", "engagements"):
        organic, paid = sums.get(f"organic_{measure}"), sums.get(f"paid_{measure}")
        both = None if organic is None or paid is None else organic + paid
        figures[f"paid_share_of_{measure}"] = quotient(paid, both, times=100)
    figures["paid_lift"] = quotient(figures["paid_engagement_rate"], figures["organic_engagement_rate"])
    return figures


def quotient(dividend: float | None, divisor: float | None, *, times: float = 1) -> float | None:
    """Null when one of the two is, or when the divisor is not above 0."""
    return None if dividend is None or divisor is None or divisor <= 0 else dividend * times / divisor


def impressions_by_day(data: ReportData) -> list[DayOfImpressions]:
    """Each day of the period that the report opens with, the oldest first."""
    sums = _by(data.daily, ("age",))
    landed = data.landed[METRICS_TABLE]
    days = []
    for age in reversed(range(data.period)):
        day = data.as_of - timedelta(days=age)
        of_day = sums.get((age,), {})
        incomplete = day >= data.first_day and any(day not in landed.get(name, ()) for name in data.instances)
        days.append(
            DayOfImpressions(age, of_day.get("organic_impressions"), of_day.get("paid_impressions"), incomplete)
        )
    return days


def rates(data: ReportData, key: str) -> list[Bar]:
    """Engagement rates by `platform` or `content_type`, most impressions first; what has no name comes last."""
    groups = _by(_in(data.by_content, spans_of(data.period)), (key,))
    bars = []
    for (name,), sums in sorted(groups.items(), key=lambda group: (group[0][0] is None, -_seen(group[1]), group[0])):
        figures = compared(sums)
        for channel in COMPARED:
            rate = figures[f"{channel}_engagement_rate"]
            bars.append(Bar(named(name), channel, rate, rate, percent(rate)))
    return bars


def named(name: str | None) -> str:
    """A platform or content type as people write it."""
    return name.replace("_", " ") if name else "other"


def spending(data: ReportData) -> tuple[list[Bar], list[Bar]]:
    """Bounds of what campaigns spent, and of what an engagement cost them; the largest spenders first."""
    groups = _by(_in(data.published, spans_of(data.period)), ("campaign_id",))
    spent, costs = [], []
    for (campaign,), sums in sorted(groups.items(), key=lambda group: (-_spent(group[1]), group[0]))[:DRAWN_CAMPAIGNS]:
        for channel in COMPARED:
            low, high = sums.get(f"{channel}_spend_minimum"), sums.get(f"{channel}_spend_maximum")
            spent.append(Bar(str(campaign), channel, low, high, bounds(low, high)))
            units = sums.get(f"{channel}_cpe_units")
            low, high = (quotient(sums.get(f"{channel}_cpe_spend_{side}"), units) for side in ("minimum", "maximum"))
            costs.append(Bar(str(campaign), channel, low, high, bounds(low, high)))
    return spent, costs


def coverage(data: ReportData) -> list[Bar]:
    """How many of the posts published in the period report each metric, in percent of them.

    Metrics beyond the document's have to be asked for, and are there when any post reports them.
    """
    sums = _total(data.published, spans_of(data.period))
    published = sums.get("published") or 0
    bars = []
    for metric in METRICS:
        reporting = sums.get(f"reports_{metric.column}") or 0
        if not reporting and metric not in DOCUMENT_METRICS:
            continue
        share = quotient(reporting, published, times=100)
        channel = metric.channel if metric.channel in COMPARED else "other"
        bars.append(Bar(metric_label(metric), channel, share, share, f"{count(reporting)} of {count(published)}"))
    return bars


def _seen(sums: Sums) -> int:
    return sum(sums.get(f"{channel}_impressions") or 0 for channel in COMPARED)


def _spent(sums: Sums) -> float:
    return sum(sums.get(f"{channel}_spend_maximum") or 0 for channel in COMPARED)


def _in(table: pa.Table, spans: Collection[int]) -> pa.Table:
    return table.filter(pc.is_in(table["span"], pa.array(spans, pa.int64())))


def _total(table: pa.Table, spans: Collection[int]) -> Sums:
    return _by(_in(table, spans), ()).get((), {})


def _by(table: pa.Table, keys: Sequence[str]) -> Mapping[tuple[Any, ...], Sums]:
    """Sums by group, of what is available; a group's sum of nothing available is null."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    summed = [name for name in table.column_names if name not in KEYS]
    for row in table.to_pylist():
        sums = groups.setdefault(tuple(row[key] for key in keys), {})
        for name in summed:
            if (value := row[name]) is not None:
                sums[name] = sums.get(name, 0) + value
    return groups
