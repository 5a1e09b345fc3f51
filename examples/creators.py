"""A downstream code location with one asset each in pandas, Arrow and DuckDB.

    LATER_LAKE_ROOT=/data/later dagster dev -f examples/creators.py

A parameter with the name of a table receives the days of the run, as the type of its annotation. Nulls stay null, but
the libraries differ in how they sum columns of nulls: each asset shows how to keep the sum null. A post has a row for
each of its campaigns, with the same numbers, so sums that are not by campaign need each post once.
"""

from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa

from later_reporting_dagster.downstream import LaterLake, later_tables

LATER = later_tables()
PREVIEW_ROWS = 10


@dg.asset(
    ins={"posts_published": dg.AssetIn(["later", "posts_published"])},
    partitions_def=LATER["posts_published"].partitions_def,
    backfill_policy=dg.BackfillPolicy.single_run(),
    kinds={"pandas"},
)
def reach_by_platform(posts_published: pd.DataFrame) -> dg.MaterializeResult[Any]:
    """Sum the impressions to date of a day's posts, by instance and platform."""
    posts = posts_published.drop_duplicates(["date", "instance_id", "post_id"])
    reach = posts.groupby(["date", "instance_id", "platform"], dropna=False, as_index=False)[
        ["impressions", "paid_impressions"]
    ].sum(min_count=1)  # without min_count, a sum of nulls is 0
    return with_preview(pa.Table.from_pandas(reach, preserve_index=False))


@dg.asset(
    ins={"post_metrics_daily": dg.AssetIn(["later", "post_metrics_daily"])},
    partitions_def=LATER["organic_paid_daily"].partitions_def,
    backfill_policy=dg.BackfillPolicy.single_run(),
    kinds={"arrow"},
)
def creators_of_the_day(post_metrics_daily: pa.Table) -> dg.MaterializeResult[Any]:
    """Rank creators by the engagements that their posts recorded on a day."""
    creator = ["date", "instance_id", "creator_id", "creator_handle_name"]  # an id is unique within its instance
    posts = post_metrics_daily.group_by([*creator, "post_id"]).aggregate(
        [("engagements", "max"), ("paid_engagements", "max")]
    )
    engagements = posts.group_by(creator).aggregate(
        [("engagements_max", "sum"), ("paid_engagements_max", "sum"), ("post_id", "count")]
    )  # Arrow's sum of nulls is null
    return with_preview(engagements.sort_by([("engagements_max_sum", "descending")]))


@dg.asset(
    ins={"organic_paid_daily_by_campaign": dg.AssetIn(["later", "organic_paid_daily_by_campaign"])},
    partitions_def=dg.WeeklyPartitionsDefinition(start_date="2024-01-01", timezone="UTC", day_offset=1),
    backfill_policy=dg.BackfillPolicy.single_run(),
    kinds={"duckdb"},
)
def campaigns_of_the_week(organic_paid_daily_by_campaign: duckdb.DuckDBPyRelation) -> dg.MaterializeResult[Any]:
    """Sum the impressions of each campaign by week, Monday to Sunday. A relation reads only the columns it needs."""
    week = organic_paid_daily_by_campaign.aggregate(
        "date_trunc('week', date)::DATE AS week, campaign_id,"
        " sum(organic_impressions) AS organic_impressions, sum(paid_impressions) AS paid_impressions"
    )  # DuckDB's sum of nulls is null
    return with_preview(week.order("week, campaign_id").to_arrow_table())


def with_preview(rows: pa.Table) -> dg.MaterializeResult[Any]:
    """Return a result that shows the row count and the first rows in the UI."""
    first = [
        dg.TableRecord({name: None if value is None else str(value) for name, value in row.items()})
        for row in rows.slice(0, PREVIEW_ROWS).to_pylist()
    ]
    columns = dg.TableSchema(columns=[dg.TableColumn(name) for name in rows.column_names])
    preview = dg.MetadataValue.table(first, schema=columns)
    return dg.MaterializeResult(metadata={"dagster/row_count": rows.num_rows, "rows": preview})


defs = dg.Definitions(
    assets=[reach_by_platform, creators_of_the_day, campaigns_of_the_week, *LATER.values()],
    resources={"later_lake": LaterLake()},
)
