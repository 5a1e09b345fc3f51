"""The compaction job: once a week, months that are no longer restated become one file an instance for all who read."""

from collections.abc import Sequence

import dagster as dg

from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.source import Source

COMPACTION_JOB = "later_compaction"


def compaction_job(sources: Sequence[Source], *, restate_days: int) -> dg.JobDefinition:
    """The job: a step a raw table, none of which waits for another. It makes no asset: partitions stay as they are."""
    steps = [_compaction_step(source, restate_days=restate_days) for source in sources]

    @dg.job(
        name=COMPACTION_JOB,
        description=(
            f"Copies the months of both raw tables that ended more than {restate_days} days ago to one file an instance"
            " each, from which rollups and checks then read them. Partitions stay as they are."
        ),
    )
    def later_compaction() -> None:
        for step in steps:
            step()

    return later_compaction


def compaction_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Once a week, before the daily fetch: a month is closed once a month, and may be restated by hand at any time."""
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
        description=f"Copies the closed months of later/{source.asset} to one file an instance each.",
        out=dg.Out(dg.Nothing),
    )
    def compact(context: dg.OpExecutionContext, later: LaterReportingResource) -> None:
        # Needs Arrow, which the definitions load without.
        from later_reporting_dagster.defs.runs.compaction import compact_and_tell

        compact_and_tell(context, later, asset=source.asset, restate_days=restate_days)

    return compact
