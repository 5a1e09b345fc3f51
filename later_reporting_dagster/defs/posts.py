"""The two raw assets: posts as the API reports them, one partition a day and instance."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.contract import DateBasis, Metric
from later_reporting_dagster.defs.metadata import table_metadata
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.source import Source
from later_reporting_dagster.lake import post_columns

POST_METRICS_DAILY = Source("post_metrics_daily", DateBasis.PERFORMANCE_DATE)
POSTS_PUBLISHED = Source("posts_published", DateBasis.POST_DATE)

API_POOL = "later_reporting_api"

_DESCRIPTIONS = {
    POST_METRICS_DAILY: (
        "What each post of any age earned on the day: one row a post, with only the metrics recorded that day"
        " (`dateBasis=performance_date`). Days add up."
    ),
    POSTS_PUBLISHED: (
        "The posts published on the day, with their metrics to date (`dateBasis=post_date`)."
        " Restated for weeks, so the newest days are fetched again every day."
    ),
}


def posts_asset(
    source: Source,
    *,
    partitions_def: dg.MultiPartitionsDefinition,
    due_hour_utc: int,
    metrics: tuple[Metric, ...],
) -> dg.AssetsDefinition:
    """The raw asset of a source, shown with the columns of `metrics`.

    Any number of partitions is one run. A partition that fails stays as it was and is named in the run's failure; the
    others land.
    """

    @dg.asset(
        key=["later", source.asset],
        description=_DESCRIPTIONS[source],
        group_name="posts",
        kinds={"parquet"},
        tags={"later/layer": "raw", "later/date_basis": str(source.date_basis)},
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        pool=API_POOL,
        metadata=table_metadata(source.asset, post_columns(metrics)),
    )
    def posts(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        # Needs Arrow and HTTP, which the definitions load without.
        from later_reporting_dagster.defs.runs.posts import land_posts

        yield from land_posts(context, later, source=source, due_hour_utc=due_hour_utc)

    return posts
