"""What is measured of a group of posts, as Arrow computes it: the blocks of the grammar, whatever grain and span.

Counts and money of the metric table add up; a rate is never averaged: it is recomputed from the sums of just those rows
that report both of its parts. A sum over nothing available is null.
"""

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import metrics_in
from later_reporting_dagster.rollups.columns import COMPARED, COUNTED, OF_CHANNEL, RESULTS, sum_name
from later_reporting_dagster.rollups.spend import spend_bounds
from later_reporting_dagster.rollups.sums import grouped_sums

Columns = dict[str, pa.ChunkedArray]

# Chunks with fewer rows than this cost more than their copy.
_ROWS_WORTH_A_CHUNK = 4096


def used(posts: pa.Table, names: list[str]) -> Columns:
    """Those of the named columns that the posts have, in chunks that are worth a call."""
    posts = posts.select([name for name in posts.column_names if name in names])
    # Thousands of small files make thousands of small chunks, and every step below would pay for each.
    if max(column.num_chunks for column in posts.columns) * _ROWS_WORTH_A_CHUNK > posts.num_rows:
        posts = posts.combine_chunks()
    return dict(zip(posts.column_names, posts.columns, strict=True))


def added(given: Columns) -> Columns:
    """What adds up of all metrics that are there, by the name of its sum."""
    return {sum_name(metric): given[metric.column] for metric in metrics_in(given) if metric.kind.adds_up}


def rate_parts(given: Columns) -> Columns:
    """Engagements and impressions of each channel, of just the rows that report both."""
    parts: Columns = {}
    for channel, column in OF_CHANNEL.items():
        engagements, impressions = (given[column[measure]] for measure in ("engagements", "impressions"))
        parts[f"{channel}_rate_engagements"] = where(impressions.is_valid(), engagements)
        parts[f"{channel}_rate_impressions"] = where(engagements.is_valid(), impressions)
    return parts


def spend_parts(given: Columns) -> Columns:
    """Bounds of the spend of each row, and what its unit costs are the quotients of."""
    parts: Columns = {}
    for channel, column in OF_CHANNEL.items():
        of_channel = {measure: given[column[measure]] for measure in ("cpe", "engagements", "cpm", "impressions")}
        minimum, maximum, is_contradictory = spend_bounds(**of_channel)
        parts[f"{channel}_spend_minimum"], parts[f"{channel}_spend_maximum"] = minimum, maximum
        parts[f"{channel}_contradictory"] = is_contradictory.cast(pa.int64())
        for unit_cost, measure in (("cpe", "engagements"), ("cpm", "impressions")):
            reports = of_channel[measure].is_valid()
            parts[f"{channel}_{unit_cost}_spend_minimum"] = where(reports, minimum)
            parts[f"{channel}_{unit_cost}_spend_maximum"] = where(reports, maximum)
            parts[f"{channel}_{unit_cost}_units"] = where(minimum.is_valid(), of_channel[measure])
    return parts


def channel_parts(sums: Columns) -> Columns:
    """Of each post's sums: 1 in the column of the channels that it reports results of, 0 in the others."""
    organic, paid = (pc.or_(*(sums[f"{channel}_{measure}"].is_valid() for measure in RESULTS)) for channel in COMPARED)
    is_of = {
        "organic_only_posts": pc.and_not(organic, paid),
        "paid_only_posts": pc.and_not(paid, organic),
        "both_channels_posts": pc.and_(organic, paid),
    }
    return {name: values.cast(pa.int64()) for name, values in is_of.items()}


def grouped(values: Columns, *, by: Columns) -> Columns:
    """The sums of each group, its number of rows as `posts`, and `{column}_posts` of what is counted."""
    sums = grouped_sums(pa.table(by | values), keys=tuple(by), counted=[name for name in values if name in COUNTED])
    return dict(zip(sums.column_names, sums.columns, strict=True))


def rates(groups: Columns) -> Columns:
    """Rates, shares and the lift, of the groups' sums."""
    found = {
        f"{channel}_engagement_rate": quotient(
            groups[f"{channel}_rate_engagements"], groups[f"{channel}_rate_impressions"], times=100
        )
        for channel in COMPARED
    }
    for measure in RESULTS:
        organic, paid = (decimal(groups[f"{channel}_{measure}"]) for channel in COMPARED)
        found[f"paid_share_of_{measure}"] = quotient(paid, pc.add(organic, paid), times=100)
    found["paid_lift"] = quotient(found["paid_engagement_rate"], found["organic_engagement_rate"])
    return found


def unit_costs(groups: Columns) -> Columns:
    """Bounds of what an engagement and 1000 impressions cost, of the groups' sums, and their coverage."""
    costs: Columns = {}
    for channel in COMPARED:
        costs[f"{channel}_spend_posts"] = groups[f"{channel}_spend_minimum_posts"]
        costs[f"{channel}_spend_contradictory_posts"] = groups[f"{channel}_contradictory"]
        for unit_cost, per in (("cpe", 1), ("cpm", 1000)):
            for side in ("minimum", "maximum"):
                costs[f"{channel}_{unit_cost}_{side}"] = quotient(
                    groups[f"{channel}_{unit_cost}_spend_{side}"], groups[f"{channel}_{unit_cost}_units"], times=per
                )
    return costs


def table_of(columns: Columns, schema: pa.Schema) -> pa.Table:
    """The columns that a schema names, in its order."""
    return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)


def where(condition: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values where the condition holds, else null."""
    return pc.if_else(condition, values, pa.scalar(None, values.type))


def quotient(dividend: pa.ChunkedArray, divisor: pa.ChunkedArray, *, times: int = 1) -> pa.ChunkedArray:
    """`times · dividend / divisor`, null where either is null or the divisor is not above 0."""
    divisor = decimal(divisor)
    return pc.divide(pc.multiply(decimal(dividend), float(times)), where(pc.greater(divisor, 0.0), divisor))


def decimal(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Counts as decimals; beyond 2**53 the nearest one."""
    return values.cast(pa.float64(), safe=False)
