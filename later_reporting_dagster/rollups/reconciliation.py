"""Whether a rolled-up table has the totals of the rows that it was made from: straight sums, by another path."""

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import DateBasis, Metric, metrics_in
from later_reporting_dagster.lake.columns import POST_KEY
from later_reporting_dagster.lake.schema import DATE
from later_reporting_dagster.rollups.columns import POSTS, is_number_of_posts, previous_name, sum_name
from later_reporting_dagster.rollups.periods import Landed
from later_reporting_dagster.rollups.spans import Days, previous_of, windows_of
from later_reporting_dagster.rollups.sums import total
from later_reporting_dagster.rollups.tables import RolledUp

_Totals = Mapping[str, int | float | None]


def totals_that_differ(posts: pa.Table, rollup: pa.Table, *, once: Sequence[str] = ()) -> list[str]:
    """Reconciles a rollup with the rows that it was made from, one sentence for each column whose totals differ.

    Compared are the number of posts and, for each count and money metric, its sum and how many posts report it. Counts
    must be equal; money may differ by what rounding each post to the millionth can come to. Null and 0 differ.

    Args:
        posts: the rows.
        rollup: what was made of them.
        once: the columns by which rows are one post, which counts once; none, where each row is a post.
    """
    metrics = _summed_in(rollup, posts)
    return [*_differing(_totals(posts, metrics, once=once), rollup, rows=posts.num_rows)]


def window_totals_that_differ(
    landed: Mapping[DateBasis, Landed], rollups: Mapping[str, pa.Table], *, tables: Sequence[RolledUp]
) -> dict[str, list[str]]:
    """The same of tables of windows, by name: each window of each basis, and the period before it.

    A table's windows are as of its own last day, and are held against what is there of them now.
    """
    differing: dict[str, list[str]] = {table.name: [] for table in tables}
    for table in tables:
        once = [*dict.fromkeys([*POST_KEY, *table.grain])]
        for basis, found in landed.items():
            of_basis = rollups[table.name].filter(pc.field("date_basis") == str(basis))
            for window, days in _windows_of(of_basis, found).items():
                rows = of_basis.filter(pc.field("window") == window)
                for period, named in ((days, str), (previous_of(window, days), previous_name)):
                    posts = found.rows.filter(_is_in(period))
                    totals = _totals(posts, _summed_in(rows, posts), once=once)
                    expected = {named(name): value for name, value in totals.items()}
                    differing[table.name] += [
                        f"{window} by {basis}: {sentence}"
                        for sentence in _differing(expected, rows, rows=posts.num_rows)
                    ]
    return differing


def _windows_of(rolled_up: pa.Table, landed: Landed) -> dict[str, Days]:
    newest = pc.max(rolled_up["last_day"]).as_py()
    days = landed.all_days
    if newest is None:
        return windows_of(days)
    return windows_of({newest}) | {"all": Days(min(days, default=newest), newest)}


def _is_in(days: Days | None) -> pc.Expression:
    if days is None:
        return pc.scalar(False)
    return (pc.field(DATE.name) >= days.first) & (pc.field(DATE.name) <= days.last)


def _summed_in(rollup: pa.Table, posts: pa.Table) -> list[Metric]:
    """The metrics whose sums a rollup has; the posts may have others, which were not asked for when it was made."""
    there = set(rollup.column_names)
    return [each for each in metrics_in(posts.column_names) if each.kind.adds_up and sum_name(each) in there]


def _totals(posts: pa.Table, metrics: Sequence[Metric], *, once: Sequence[str]) -> _Totals:
    if once:
        each = posts.group_by(list(once)).aggregate([(metric.column, "count") for metric in metrics])
        count = {metric: int(pc.sum(pc.greater(each[f"{metric.column}_count"], 0)).as_py() or 0) for metric in metrics}
        number = each.num_rows
    else:
        count = {metric: len(posts) - posts[metric.column].null_count for metric in metrics}
        number = posts.num_rows
    totals: dict[str, int | float | None] = {POSTS: number}
    for metric in metrics:
        totals[sum_name(metric)] = total(posts[metric.column])
        totals[f"{sum_name(metric)}_posts"] = count[metric]
    return totals


def _differing(expected: _Totals, rollup: pa.Table, *, rows: int) -> Iterator[str]:
    for name, of_posts in expected.items():
        of_rollup = total(rollup.column(name))
        if of_rollup is None and is_number_of_posts(name):
            of_rollup = 0  # a rollup without rows is of no posts
        if not _agree(of_posts, of_rollup, rows=rows):
            yield f"{name} is {_said(of_posts)} in the posts and {_said(of_rollup)} in the rollup"


def _agree(left: float | None, right: float | None, *, rows: int) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) <= 1e-6 * (1 + rows) + 1e-12 * abs(left)
    return left == right


def _said(value: float | None) -> str:
    return "not available" if value is None else str(value)
