"""The two raw assets: posts as the API reports them, one partition a day and instance."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.defs.checks import PostsFindings, posts_verdicts
from later_reporting_dagster.defs.materializations import failure_of, log_materialization, log_verdicts
from later_reporting_dagster.defs.metadata import column_schema, posts_metadata
from later_reporting_dagster.defs.partitions import lake_partitions, partition_key, registered_instances
from later_reporting_dagster.defs.progress import Progress, ProgressTeller
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest import Landed, Outcome, Source, ingest
from later_reporting_dagster.ingest.stream import stream
from later_reporting_dagster.lake import POST_COLUMNS

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
    source: Source, *, partitions_def: dg.MultiPartitionsDefinition, due_hour_utc: int
) -> dg.AssetsDefinition:
    """The raw asset of a source.

    Any number of partitions is one run. A partition that fails stays as it was and is named in the run's failure; the
    others land.
    """

    @dg.asset(
        key=["later", source.asset],
        description=_DESCRIPTIONS[source],
        group_name="posts",
        kinds={"parquet"},
        partitions_def=partitions_def,
        backfill_policy=dg.BackfillPolicy.single_run(),
        output_required=False,
        pool=API_POOL,
        metadata=column_schema(POST_COLUMNS),
    )
    def posts(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        partitions, failed = lake_partitions(context)
        lake = later.lake()
        teller = ProgressTeller(Progress(source.asset, partitions=len(partitions)), log=context.log.info)
        client = later.client(on_event=teller.note)
        context.log.info(
            f"Fetching {len(partitions)} partitions, {context.partition_keys[0]} to {context.partition_keys[-1]}"
        )

        async def start(deliver: Callable[[Outcome], None]) -> None:
            async with client:
                await ingest(partitions, source=source, client=client, lake=lake, deliver=deliver)

        findings = PostsFindings(source)
        rows = changed = 0
        for outcome in stream(start):
            if isinstance(outcome, Landed):
                log_materialization(
                    context,
                    outcome.partition,
                    data_version=outcome.written.content_hash,
                    metadata=posts_metadata(outcome),
                )
                findings.add(outcome.partition, outcome.table)
                rows += outcome.written.rows
                changed += outcome.written.changed
                teller.landed()
            else:
                failed[partition_key(outcome.partition)] = str(outcome.error)
                teller.failed()
        progress = teller.progress
        context.log.info(
            f"Landed {progress.landed} of {len(partitions)} partitions, {changed} of them changed:"
            f" {rows} rows, from {progress.pages} pages, with {progress.retries} retries;"
            f" {progress.waits} requests waited for the rate limit"
        )
        # Checks as steps of their own would be skipped here, since this step hands on no output: they are told from
        # here, so that a run that fails in part is checked for what it landed.
        verdicts = posts_verdicts(
            findings,
            lake=lake,
            instances=registered_instances(context.instance),
            now=datetime.now(UTC),
            due_hour_utc=due_hour_utc,
        )
        log_verdicts(context, verdicts)
        if failed:
            raise failure_of(failed, landed=progress.landed)
        yield from ()

    return posts
