"""Organic beside paid, a day at a time: posts rolled up by instance, campaign, platform and content type.

A day holds a post once, so that its rows are its posts, and beside each sum stands how many posts it is made of.
"""

from collections.abc import Sequence

import pyarrow as pa

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, Metric, metrics_in
from later_reporting_dagster.lake.columns import post_columns
from later_reporting_dagster.lake.schema import schema_of
from later_reporting_dagster.rollups.columns import GRAIN
from later_reporting_dagster.rollups.measures import (
    added,
    grouped,
    rate_parts,
    rates,
    spend_parts,
    table_of,
    unit_costs,
    used,
)
from later_reporting_dagster.rollups.tables import BY_PUBLISH_DAY, DAILY


def rolled_up_schema(metrics: Sequence[Metric]) -> pa.Schema:
    """What a rollup of some metrics reads of a post: its texts, which are most of it, can stay where they are."""
    names = {*GRAIN, *(metric.column for metric in (*DOCUMENT_METRICS, *metrics))}
    return schema_of(column for column in post_columns(METRICS) if column.name in names)


def organic_paid_daily(posts: pa.Table, *, grain: Sequence[str] = GRAIN) -> pa.Table:
    """Rolls up the metrics of a day, of `post_metrics_daily`. No spend: nothing says how a cost falls on a day.

    Args:
        posts: rows of the posts' schema, in any order; columns that are not used may be missing.
        grain: what to group by, for a coarser comparison: some columns of `GRAIN`.

    Returns:
        One row for each group of `grain` in its order, nulls last, in the columns of `DAILY` less what is not
        grouped by, and with the sums of whatever other metrics the posts have. The same posts in any order give the
        same values to the last bit. Money is summed to the millionth.

    Raises:
        SumOutOfRange: a sum does not fit its column.
    """
    given = used(posts, rolled_up_schema(METRICS).names)
    groups = grouped(added(given) | rate_parts(given), by={name: given[name] for name in grain})
    table = DAILY.of(metrics_in(given))
    columns = [column for column in table.columns if column.name in grain or column.name not in GRAIN]
    return table_of(groups | rates(groups), schema_of(columns))


def organic_paid_by_publish_day(posts: pa.Table) -> pa.Table:
    """Rolls up the metrics to date of the posts published on a day, of `posts_published`, with bounds of their spend.

    As `organic_paid_daily`, in the columns of `BY_PUBLISH_DAY`. How one post's spend is bounded: `spend_bounds`.

    Raises:
        SumOutOfRange: a sum does not fit its column.
    """
    given = used(posts, rolled_up_schema(METRICS).names)
    values = added(given) | rate_parts(given) | spend_parts(given)
    groups = grouped(values, by={name: given[name] for name in GRAIN})
    schema = schema_of(BY_PUBLISH_DAY.of(metrics_in(given)).columns)
    return table_of(groups | rates(groups) | unit_costs(groups), schema)
