"""What must hold of a raw table whatever the service answered: pure questions to an Arrow table."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.lake import POST_KEY, Partition

# Rates are rounded to two decimals [S], so half a hundredth either way; the rest is the slop of binary fractions.
ROUNDING = 0.005 + 1e-6


def duplicate_keys(posts: pa.Table) -> int:
    """How many rows share their key with an earlier row."""
    distinct: int = posts.select(list(POST_KEY)).group_by(list(POST_KEY)).aggregate([]).num_rows
    return int(posts.num_rows) - distinct


def rows_outside(files: Sequence[tuple[Partition, pa.Table]], *, date_basis: DateBasis) -> int:
    """Return how many rows of the files belong to another partition than that of their file.

    By `performance_date` a post of any age may report on a day, but none that was published after it.
    """
    rows = [posts.num_rows for _, posts in files]
    columns = pa.concat_tables([posts.select(["instance_id", "post_date"]) for _, posts in files])
    post_date = columns["post_date"]
    instance_id = np.repeat([str(partition.instance_id) for partition, _ in files], rows)
    midnight = pa.array(np.repeat([np.datetime64(partition.day, "us") for partition, _ in files], rows))
    midnight = midnight.cast(post_date.type)
    inside = pc.and_(
        pc.equal(columns["instance_id"], pa.array(instance_id, pa.string())),
        pc.less(post_date, pc.add(midnight, timedelta(days=1))),
    )
    if date_basis is DateBasis.POST_DATE:
        inside = pc.and_(inside, pc.greater_equal(post_date, midnight))
    return int(columns.num_rows) - int(pc.sum(inside).as_py() or 0)


def rates_that_disagree(posts: pa.Table) -> dict[str, int]:
    """How many rows state a rate that their own counts contradict by more than rounding, by rate; none: empty.

    The engagement rate is engagements per 100 impressions; cpe × engagements and cpm × impressions / 1000 are one
    cost. A row that lacks a part of the comparison is not compared, and neither is a metric that was not asked for.
    """
    disagreeing: dict[str, int] = {}
    unknown = pa.chunked_array([pa.nulls(posts.num_rows, pa.float64())])

    def decimals(name: str) -> pa.ChunkedArray:
        return posts[name].cast(pa.float64()) if name in posts.column_names else unknown

    for prefix in ("", "paid_"):
        engagements = decimals(f"{prefix}engagements")
        thousands = pc.divide(decimals(f"{prefix}impressions"), 1000.0)
        rate, cpe, cpm = (decimals(f"{prefix}{name}") for name in ("engagement_rate", "cpe", "cpm"))
        # Compared as products, so that a zero denominator needs no case of its own.
        wrong_rate = pc.greater(
            pc.abs(pc.subtract(pc.multiply(rate, thousands), pc.divide(engagements, 10.0))),
            pc.add(pc.multiply(thousands, ROUNDING), 1e-9),
        )
        wrong_cost = pc.greater(
            pc.abs(pc.subtract(pc.multiply(cpe, engagements), pc.multiply(cpm, thousands))),
            pc.add(pc.multiply(pc.add(engagements, thousands), ROUNDING), 1e-9),
        )
        for name, wrong in ((f"{prefix}engagement_rate", wrong_rate), (f"{prefix}cpe and {prefix}cpm", wrong_cost)):
            count = int(pc.sum(wrong).as_py() or 0)
            if count:
                disagreeing[name] = count
    return disagreeing


def unknown_fields(posts: pa.Table) -> dict[str, int]:
    """How many rows have what the contract does not know, by name; none: empty.

    A field of a row or, as `creatorProfile.field`, of its creator; or a content type of no known platform, as
    `contentType=name`.
    """
    found: Counter[str] = Counter()
    for extra in posts["extra"].drop_null().to_pylist():
        for name, value in json.loads(extra).items():
            is_of_creator = name == "creatorProfile" and isinstance(value, dict)
            found.update([f"{name}.{each}" for each in value] if is_of_creator else [name])
    # Where there is no content type there is no platform to be known.
    if posts["platform"].null_count > posts["content_type"].null_count:
        unknown = posts["content_type"].filter(posts["platform"].is_null()).drop_null()
        found.update(f"contentType={name}" for name in unknown.to_pylist())
    return dict(found)
