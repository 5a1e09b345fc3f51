"""Two tables of one truth: the days of a post add up to its metrics to date, once it is old enough to be settled."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake.columns import POST_COLUMNS, POST_KEY
from later_reporting_dagster.lake.schema import DATE, schema_of
from later_reporting_dagster.rollups.columns import SUMMED
from later_reporting_dagster.rollups.periods import Landed
from later_reporting_dagster.rollups.spans import Days

# By how much of 100 the two may differ: networks restate late, and money is rounded anew each day.
TOLERANCE_PERCENT = 1.0

_METRICS = [metric.column for metrics in SUMMED.values() for metric in metrics]

SETTLEMENT_SCHEMA: pa.Schema = schema_of(
    column for column in POST_COLUMNS if column.name in {*POST_KEY, *_METRICS}
).append(DATE)


@dataclass(frozen=True, slots=True)
class Sums:
    """A metric of all settled posts, by both tables; None where no post reports it."""

    of_days: float | None
    to_date: float | None

    @property
    def difference_percent(self) -> float | None:
        """By how much of 100 the days differ from the metrics to date; None where one is null, or there is nothing."""
        if self.of_days is None or self.to_date is None:
            return None
        if self.of_days == self.to_date:
            return 0.0
        return 100 * (self.of_days - self.to_date) / self.to_date if self.to_date else None

    @property
    def agree(self) -> bool:
        """Whether they are the same, within tolerance. Null and 0 are: a day without a row says neither."""
        of_days, to_date = self.of_days or 0.0, self.to_date or 0.0
        return abs(of_days - to_date) <= abs(to_date) * TOLERANCE_PERCENT / 100


@dataclass(frozen=True, slots=True)
class Settlement:
    """How the two tables compare: the settled posts, those of them that differ in any metric, and the sums of each."""

    posts: int
    posts_that_differ: int
    sums: Mapping[str, Sums]


def settled_days(recorded: Landed, published: Landed, *, settled_after_days: int) -> dict[str, Days]:
    """By instance the publish days whose posts are settled, and have all their days recorded from the first one on.

    A post is settled once `settled_after_days` days have been recorded after the day on which it was published.
    """
    settled = {}
    for instance_id, days in published.days.items():
        there = set(recorded.days.get(instance_id, ()))
        if not there:
            continue
        last = first = max(there)
        while (before := first - timedelta(days=1)) in there:
            first = before
        span = Days(first, last - timedelta(days=settled_after_days))
        if any(day in span for day in days):
            settled[instance_id] = span
    return settled


def settlement(recorded: Landed, published: Landed, *, settled_after_days: int) -> Settlement:
    """Compares the settled posts: what their recorded days add up to, and their metrics to date.

    Args:
        recorded: `post_metrics_daily`, its rows as `SETTLEMENT_SCHEMA`.
        published: `posts_published`, likewise.
        settled_after_days: as for `settled_days`.
    """
    spans = settled_days(recorded, published, settled_after_days=settled_after_days)
    posts = published.rows.filter(_of_settled(spans)).drop_columns([DATE.name])
    of_days = _decimals(recorded.rows).group_by(list(POST_KEY)).aggregate([(name, "sum") for name in _METRICS])
    both = _decimals(posts).join(of_days, list(POST_KEY), join_type="left outer")
    sums = {name: Sums(pc.sum(both[f"{name}_sum"]).as_py(), pc.sum(both[name]).as_py()) for name in _METRICS}
    return Settlement(posts.num_rows, _differing(both), sums)


def _differing(both: pa.Table) -> int:
    differs = pa.chunked_array([pa.array([False] * both.num_rows, pa.bool_())])
    for name in _METRICS:
        of_days, to_date = (pc.fill_null(both[column], 0.0) for column in (f"{name}_sum", name))
        allowed = pc.multiply(pc.abs(to_date), TOLERANCE_PERCENT / 100)
        differs = pc.or_(differs, pc.greater(pc.abs(pc.subtract(of_days, to_date)), allowed))
    return int(pc.sum(differs).as_py() or 0)


def _of_settled(spans: Mapping[str, Days]) -> pc.Expression:
    settled = pc.scalar(False)
    for instance_id, days in spans.items():
        of_instance = pc.field("instance_id") == instance_id
        settled |= of_instance & (pc.field(DATE.name) >= days.first) & (pc.field(DATE.name) <= days.last)
    return settled


def _decimals(rows: pa.Table) -> pa.Table:
    """The key, and each metric as decimals: no sum of them wraps, and none is off by more than its last digits."""
    metrics = {name: rows[name].cast(pa.float64(), safe=False) for name in _METRICS}
    return pa.table({name: rows[name] for name in POST_KEY} | metrics)
