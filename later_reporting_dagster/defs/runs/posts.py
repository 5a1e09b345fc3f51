"""A run of a raw asset: fetches its partitions and lands each as soon as it is complete and verified."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.partitions import lake_partitions, partition_key, registered_instances
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.runs.materializations import failure_of, log_materialization, log_verdicts
from later_reporting_dagster.defs.runs.metadata import posts_metadata
from later_reporting_dagster.defs.runs.progress import Progress, ProgressTeller
from later_reporting_dagster.defs.runs.verdicts import PostsFindings, posts_verdicts
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.landing import Landed, Outcome
from later_reporting_dagster.ingest.source import Source
from later_reporting_dagster.ingest.stream import stream


def land_posts(
    context: AssetExecutionContext, later: LaterReportingResource, *, source: Source, due_hour_utc: int
) -> Iterator[dg.MaterializeResult[Any]]:
    """Lands the run's partitions and logs each; what failed is raised at the end, by name.

    Raises:
        Failure: at least one partition stayed as it was.
    """
    partitions, failed = lake_partitions(context)
    lake, guard, metrics = later.lake(), later.guard(), later.selected_metrics()
    progress = Progress(source.asset, partitions=len(partitions))
    teller = ProgressTeller(progress, log=context.log.info, warn=context.log.warning)
    client = later.client(on_event=teller.note)
    context.log.info(
        f"Fetching {len(partitions)} partitions, {context.partition_keys[0]} to {context.partition_keys[-1]}"
    )

    async def start(deliver: Callable[[Outcome], None]) -> None:
        async with client:
            await ingest(
                partitions, source=source, client=client, lake=lake, deliver=deliver, guard=guard, metrics=metrics
            )

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
