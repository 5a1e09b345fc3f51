"""The headline figures of a report as it opens, over all instances and campaigns, for the asset's metadata.

The page computes the same from the same sums, narrowed to whatever its reader picks.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.report.data import KEYS, ReportData
from later_reporting_dagster.report.periods import spans_before, spans_of
from later_reporting_dagster.report.wording import written
from later_reporting_dagster.rollups.columns import COMPARED

Sums = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Headline:
    """A headline figure: null is not available. `form` is how it is written: count, percent or ratio."""

    name: str
    label: str
    form: str
    value: float | None
    before: float | None


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
