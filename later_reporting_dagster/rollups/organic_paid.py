"""Organic beside paid: posts rolled up by instance, campaign, platform and content type.

One grammar makes both tables. Counts and money of the metric table add up; a rate is never averaged: it is recomputed
from the sums of just those posts that report both of its parts. A sum over nothing available is null, and beside each
sum stands how many posts it is made of.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import DOCUMENT_METRICS
from later_reporting_dagster.lake.columns import POST_COLUMNS
from later_reporting_dagster.lake.schema import schema_of
from later_reporting_dagster.rollups.columns import (
    COMPARED,
    COUNTED,
    GRAIN,
    OF_CHANNEL,
    ORGANIC_PAID_BY_PUBLISH_DAY_COLUMNS,
    ORGANIC_PAID_DAILY_COLUMNS,
    SUMMED,
    sum_name,
)
from later_reporting_dagster.rollups.spend import spend_bounds
from later_reporting_dagster.rollups.sums import grouped_sums, total

_Columns = dict[str, pa.ChunkedArray]

# What a rollup reads of a post: its texts, which are most of it, can stay where they are.
ROLLED_UP_SCHEMA: pa.Schema = schema_of(
    column for column in POST_COLUMNS if column.name in {*GRAIN, *(metric.column for metric in DOCUMENT_METRICS)}
)
ORGANIC_PAID_DAILY_SCHEMA: pa.Schema = schema_of(ORGANIC_PAID_DAILY_COLUMNS)
ORGANIC_PAID_BY_PUBLISH_DAY_SCHEMA: pa.Schema = schema_of(ORGANIC_PAID_BY_PUBLISH_DAY_COLUMNS)

# Chunks with fewer rows than this cost more than their copy.
_ROWS_WORTH_A_CHUNK = 4096


def organic_paid_daily(posts: pa.Table, *, grain: Sequence[str] = GRAIN) -> pa.Table:
    """Rolls up the metrics of a day, of `post_metrics_daily`. No spend: nothing says how a cost falls on a day.

    Args:
        posts: rows of the posts' schema, in any order; columns that are not used may be missing.
        grain: what to group by, for a coarser comparison: some columns of `GRAIN`.

    Returns:
        One row for each group of `grain` in its order, nulls last, as `ORGANIC_PAID_DAILY_SCHEMA` less what is not
        grouped by. The same posts in any order give the same values to the last bit. Money is summed to the millionth.

    Raises:
        SumOutOfRange: a sum does not fit its column.
    """
    given = _used(posts)
    groups = _grouped(_added(given) | _rate_parts(given), by={name: given[name] for name in grain})
    columns = [column for column in ORGANIC_PAID_DAILY_COLUMNS if column.name in grain or column.name not in GRAIN]
    return _table(groups | _rates(groups), schema_of(columns))


def organic_paid_by_publish_day(posts: pa.Table) -> pa.Table:
    """Rolls up the metrics to date of the posts published on a day, of `posts_published`, with bounds of their spend.

    As `organic_paid_daily`, as `ORGANIC_PAID_BY_PUBLISH_DAY_SCHEMA`. How one post's spend is bounded: `spend_bounds`.

    Raises:
        SumOutOfRange: a sum does not fit its column.
    """
    given = _used(posts)
    values = _added(given) | _rate_parts(given) | _spend_parts(given)
    groups = _grouped(values, by={name: given[name] for name in GRAIN})
    return _table(groups | _rates(groups) | _unit_costs(groups), ORGANIC_PAID_BY_PUBLISH_DAY_SCHEMA)


def totals_that_differ(posts: pa.Table, rollup: pa.Table) -> list[str]:
    """Reconciles a rollup with the rows that it was made from, one sentence for each column whose totals differ.

    Compared are the number of posts and, for each count and money metric, its sum and how many posts report it. Counts
    must be equal; money may differ by what rounding each post to the millionth can come to. Null and 0 differ.
    """
    expected: dict[str, int | float | None] = {"posts": posts.num_rows}
    for metric in (metric for metrics in SUMMED.values() for metric in metrics):
        values = posts.column(metric.column)
        expected[sum_name(metric)] = total(values)
        expected[f"{sum_name(metric)}_posts"] = len(values) - values.null_count
    sentences = []
    for name, of_posts in expected.items():
        of_rollup = total(rollup.column(name))
        if of_rollup is None and name.endswith("posts"):
            of_rollup = 0  # a rollup without rows is of no posts
        if not _agree(of_posts, of_rollup, posts=posts.num_rows):
            sentences.append(f"{name} is {_said(of_posts)} in the posts and {_said(of_rollup)} in the rollup")
    return sentences


def _agree(left: float | None, right: float | None, *, posts: int) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return abs(left - right) <= 1e-6 * (1 + posts) + 1e-12 * abs(left)
    return left == right


def _said(value: float | None) -> str:
    return "not available" if value is None else str(value)


def _used(posts: pa.Table) -> _Columns:
    posts = posts.select([name for name in posts.column_names if name in ROLLED_UP_SCHEMA.names])
    # Thousands of small files make thousands of small chunks, and every step below would pay for each.
    if max(column.num_chunks for column in posts.columns) * _ROWS_WORTH_A_CHUNK > posts.num_rows:
        posts = posts.combine_chunks()
    return dict(zip(posts.column_names, posts.columns, strict=True))


def _added(given: _Columns) -> _Columns:
    return {sum_name(metric): given[metric.column] for metrics in SUMMED.values() for metric in metrics}


def _rate_parts(given: _Columns) -> _Columns:
    parts: _Columns = {}
    for channel, column in OF_CHANNEL.items():
        engagements, impressions = (given[column[measure]] for measure in ("engagements", "impressions"))
        parts[f"{channel}_rate_engagements"] = _where(impressions.is_valid(), engagements)
        parts[f"{channel}_rate_impressions"] = _where(engagements.is_valid(), impressions)
    return parts


def _spend_parts(given: _Columns) -> _Columns:
    parts: _Columns = {}
    for channel, column in OF_CHANNEL.items():
        of_channel = {measure: given[column[measure]] for measure in ("cpe", "engagements", "cpm", "impressions")}
        minimum, maximum, is_contradictory = spend_bounds(**of_channel)
        parts[f"{channel}_spend_minimum"], parts[f"{channel}_spend_maximum"] = minimum, maximum
        parts[f"{channel}_contradictory"] = is_contradictory.cast(pa.int64())
        for unit_cost, measure in (("cpe", "engagements"), ("cpm", "impressions")):
            reports = of_channel[measure].is_valid()
            parts[f"{channel}_{unit_cost}_spend_minimum"] = _where(reports, minimum)
            parts[f"{channel}_{unit_cost}_spend_maximum"] = _where(reports, maximum)
            parts[f"{channel}_{unit_cost}_units"] = _where(minimum.is_valid(), of_channel[measure])
    return parts


def _grouped(values: _Columns, *, by: _Columns) -> _Columns:
    # What leaves no post out is the very column that it is a part of, and is summed just once.
    first: dict[int, str] = {}
    summed_as = {name: first.setdefault(id(column), name) for name, column in values.items()}
    distinct = {name: values[name] for name in first.values()}
    sums = grouped_sums(pa.table(by | distinct), keys=tuple(by), counted=[name for name in distinct if name in COUNTED])
    groups = dict(zip(sums.column_names, sums.columns, strict=True))
    return groups | {name: groups[summed] for name, summed in summed_as.items()}


def _rates(groups: _Columns) -> _Columns:
    rates = {
        f"{channel}_engagement_rate": _quotient(
            groups[f"{channel}_rate_engagements"], groups[f"{channel}_rate_impressions"], times=100
        )
        for channel in COMPARED
    }
    for measure in ("impressions", "engagements"):
        organic, paid = (_decimal(groups[f"{channel}_{measure}"]) for channel in COMPARED)
        rates[f"paid_share_of_{measure}"] = _quotient(paid, pc.add(organic, paid), times=100)
    rates["paid_lift"] = _quotient(rates["paid_engagement_rate"], rates["organic_engagement_rate"])
    return rates


def _unit_costs(groups: _Columns) -> _Columns:
    costs: _Columns = {}
    for channel in COMPARED:
        costs[f"{channel}_spend_posts"] = groups[f"{channel}_spend_minimum_posts"]
        costs[f"{channel}_spend_contradictory_posts"] = groups[f"{channel}_contradictory"]
        for unit_cost, per in (("cpe", 1), ("cpm", 1000)):
            for side in ("minimum", "maximum"):
                costs[f"{channel}_{unit_cost}_{side}"] = _quotient(
                    groups[f"{channel}_{unit_cost}_spend_{side}"], groups[f"{channel}_{unit_cost}_units"], times=per
                )
    return costs


def _table(columns: _Columns, schema: pa.Schema) -> pa.Table:
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def _where(condition: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values where the condition holds, else null; when that leaves none out, the very same column."""
    if not pc.any(pc.and_not(values.is_valid(), pc.fill_null(condition, False))).as_py():
        return values
    return pc.if_else(condition, values, pa.scalar(None, values.type))


def _quotient(dividend: pa.ChunkedArray, divisor: pa.ChunkedArray, *, times: int = 1) -> pa.ChunkedArray:
    """`times · dividend / divisor`, null where either is null or the divisor is not above 0."""
    divisor = _decimal(divisor)
    return pc.divide(pc.multiply(_decimal(dividend), float(times)), _where(pc.greater(divisor, 0.0), divisor))


def _decimal(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(pa.float64(), safe=False)
