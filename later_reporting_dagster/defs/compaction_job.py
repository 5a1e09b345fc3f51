"""The compaction job: once a week, months that are no longer restated become one file per instance for all readers."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.lake import LakeUnavailable
from later_reporting_dagster.lake.table_compaction import compact_table

COMPACTION_JOB = "later_compaction"


def compaction_job(sources: Sequence[Source], *, restate_days: int) -> dg.JobDefinition:
    """Return the job: one independent step per raw table. It makes no asset: partitions stay as they are."""
    steps = [_compaction_step(source, restate_days=restate_days) for source in sources]

    @dg.job(
        name=COMPACTION_JOB,
        executor_def=dg.in_process_executor,
        description=(
            f"Copies the months of both raw tables that ended more than {restate_days} days ago to one file per"
            " instance, from which rollups and checks then read them. Partitions stay as they are."
        ),
    )
    def later_compaction() -> None:
        for step in steps:
            step()

    return later_compaction


def compaction_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule: weekly, because a month is closed once, and may be restated by hand at any time."""
    return dg.ScheduleDefinition(
        name="later_compaction_weekly",
        job=job,
        cron_schedule="0 4 * * 0",
        execution_timezone="UTC",
        description="Compacts the months that were closed or restated since the last time. The others are left alone.",
    )


def _compaction_step(source: Source, *, restate_days: int) -> dg.OpDefinition:
    @dg.op(
        name=f"compact_{source.asset}",
        description=f"Copies the closed months of later/{source.asset} to one file per instance.",
        out=dg.Out(dg.Nothing),
    )
    def compact(context: dg.OpExecutionContext, later: LaterReportingResource) -> None:
        try:
            done = compact_table(later.lake(), source.asset, restate_days=restate_days, now=datetime.now(UTC))
        except (LakeUnavailable, ValueError) as error:
            raise dg.Failure(str(error)) from error
        context.log.info(f"Compacted later/{source.asset}: {done}")

    return compact
