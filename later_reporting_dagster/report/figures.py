"""The headline figures of a report as it opens, over all instances and campaigns, for the asset's metadata.

The page computes the same from the same sums, narrowed to whatever its reader picks.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.report.data import KEYS, ReportData
from later_reporting_dagster.report.periods import spans_before, spans_of
from later_reporting_dagster.rollups.measures import rates
from later_reporting_dagster.rollups.sums import total

NOT_AVAILABLE = "not available"

# Name, label, and the unit that is written after the number; counts have none.
HEADLINES = (
    ("organic_impressions", "Organic impressions", ""),
    ("paid_impressions", "Paid impressions", ""),
    ("paid_share_of_impressions", "Paid share of impressions", "%"),
    ("organic_engagements", "Organic engagements", ""),
    ("paid_engagements", "Paid engagements", ""),
    ("paid_share_of_engagements", "Paid share of engagements", "%"),
    ("organic_engagement_rate", "Organic engagement rate", "%"),
    ("paid_engagement_rate", "Paid engagement rate", "%"),
    ("paid_lift", "Paid lift", "×"),
)


@dataclass(frozen=True, slots=True)
class Headline:
    """A headline figure, and that of the period before; None is not available."""

    name: str
    label: str
    unit: str
    value: float | None
    before: float | None


def headlines(data: ReportData) -> list[Headline]:
    """The headline figures of the period that the report opens with, and of the one before it.

    A period that begins before the first day that has landed is not available: it would compare with half of one.
    """
    now, before = (_figures(data.by_content, spans(data.period)) for spans in (spans_of, spans_before))
    is_covered = data.days >= 2 * data.period
    return [
        Headline(name, label, unit, now[name], before[name] if is_covered else None) for name, label, unit in HEADLINES
    ]


def headlines_in_markdown(found: Sequence[Headline]) -> str:
    """The headline figures as a table, with what they were before."""
    lines = ["| | now | before |", "| --- | ---: | ---: |"]
    lines += [
        f"| {each.label} | {_written(each.value, each.unit)} | {_written(each.before, each.unit)} |" for each in found
    ]
    return "\n".join(lines)


def _figures(recorded: pa.Table, spans: Collection[int]) -> dict[str, float | None]:
    rows = recorded.filter(pc.is_in(recorded["span"], pa.array(spans, pa.int64())))
    sums = {name: total(rows[name]) for name in rows.column_names if name not in KEYS}
    columns = {
        name: pa.chunked_array([[None if value is None else float(value)]], pa.float64())
        for name, value in sums.items()
    }
    return sums | {name: column[0].as_py() for name, column in rates(columns).items()}


def _written(value: float | None, unit: str) -> str:
    if value is None:
        return NOT_AVAILABLE
    if not unit:
        return f"{value:,.0f}"
    # A measured zero has no decimals: it must not look like a value that rounds to zero.
    if value == 0:
        return f"0\u00a0{unit}"
    if abs(value) < 0.005:
        return f"{'<0.01' if value > 0 else '>-0.01'}\u00a0{unit}"
    return f"{value:,.2f}\u00a0{unit}"
