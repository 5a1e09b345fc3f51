"""A code location of your own, downstream of Later's tables: one asset each in pandas, Arrow and Polars.

    LATER_LAKE_ROOT=/data/later dagster dev -f examples/creators.py

A parameter that is named for a table and annotated with a type receives just the days of the run, as that type. Null
stays null on the way in, but each library loses it in a sum in its own way: see how each asset sums.
"""

from typing import Any

import dagster as dg
import pandas as pd
import polars as pl
import pyarrow as pa

from later_reporting_dagster.downstream import LaterLake, later_tables

LATER = later_tables()
SHOWN_ROWS = 10


@dg.asset(
    ins={"posts_published": dg.AssetIn(["later", "posts_published"])},
    partitions_def=LATER["posts_published"].partitions_def,
    backfill_policy=dg.BackfillPolicy.single_run(),
    kinds={"pandas"},
)
def reach_by_platform(posts_published: pd.DataFrame) -> dg.MaterializeResult[Any]:
    """What the posts of a day have reached to date, by instance and platform."""
    reach = posts_published.groupby(["date", "instance_id", "platform"], dropna=False, as_index=False)[
        ["impressions", "paid_impressions"]
    ].sum(min_count=1)  # without it, a platform of which nothing is known has reached 0 people
    return shown(pa.Table.from_pandas(reach, preserve_index=False))


@dg.asset(
    ins={"post_metrics_daily": dg.AssetIn(["later", "post_metrics_daily"])},
    partitions_def=LATER["organic_paid_daily"].partitions_def,
    backfill_policy=dg.BackfillPolicy.single_run(),
    kinds={"arrow"},
)
def creators_of_the_day(post_metrics_daily: pa.Table) -> dg.MaterializeResult[Any]:
    """Who earned most on a day, of all instances that have a file of it."""
    earned = post_metrics_daily.group_by(["date", "creator_id", "creator_handle_name"]).aggregate(
        [("engagements", "sum"), ("paid_engagements", "sum"), ("post_id", "count")]
    )  # Arrow's sum of nothing but nulls is null
    return shown(earned.sort_by([("engagements_sum", "descending")]))


@dg.asset(
    ins={"organic_paid_daily": dg.AssetIn(["later", "organic_paid_daily"])},
    partitions_def=dg.WeeklyPartitionsDefinition(start_date="2024-01-01", timezone="UTC", day_offset=1),
    backfill_policy=dg.BackfillPolicy.single_run(),
    kinds={"polars"},
)
def campaigns_of_the_week(organic_paid_daily: pl.LazyFrame) -> dg.MaterializeResult[Any]:
    """Each campaign's week, Monday to Sunday. Lazy: of the week's files, only the columns named here are read."""
    week = (
        organic_paid_daily.group_by(pl.col("date").dt.truncate("1w").alias("week"), "campaign_id")
        .agg(summed("organic_impressions"), summed("paid_impressions"))
        .sort("week", "campaign_id")
        .collect()
    )
    return shown(week.to_arrow())


def summed(name: str) -> pl.Expr:
    """The sum, and null where nothing is known: Polars' own sum of nothing but nulls is 0."""
    return pl.when(pl.col(name).is_not_null().any()).then(pl.col(name).sum())


def shown(rows: pa.Table) -> dg.MaterializeResult[Any]:
    """What the UI shows of a result: how many rows, and the first of them."""
    first = [
        dg.TableRecord({name: None if value is None else str(value) for name, value in row.items()})
        for row in rows.slice(0, SHOWN_ROWS).to_pylist()
    ]
    columns = dg.TableSchema(columns=[dg.TableColumn(name) for name in rows.column_names])
    preview = dg.MetadataValue.table(first, schema=columns)
    return dg.MaterializeResult(metadata={"dagster/row_count": rows.num_rows, "rows": preview})


defs = dg.Definitions(
    assets=[reach_by_platform, creators_of_the_day, campaigns_of_the_week, *LATER.values()],
    resources={"later_lake": LaterLake()},
)
