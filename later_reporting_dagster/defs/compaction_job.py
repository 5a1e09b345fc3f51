"""The compaction job and its weekly schedule: copy closed months to one file per instance, for faster reads."""

from collections.abc import Sequence
from datetime import UTC, datetime

import dagster as dg

from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.raw_tables import RawTable
from later_reporting_dagster.lake import LakeUnavailable
from later_reporting_dagster.lake.table_compaction import compact_table

COMPACTION_JOB = "later_compaction"


def build_compaction_job(raw_tables: Sequence[RawTable], *, restate_days: int) -> dg.JobDefinition:
    """Return the job: one independent step per raw table. It does not materialize assets."""
    steps = [_build_compaction_op(raw_table, restate_days=restate_days) for raw_table in raw_tables]

    @dg.job(
        name=COMPACTION_JOB,
        executor_def=dg.in_process_executor,
        description=(
            f"Copies each month of the raw tables that ended more than {restate_days} days ago to one file per"
            " instance. Rollups and queries read these copies; the daily files stay unchanged."
        ),
    )
    def later_compaction() -> None:
        for step in steps:
            step()

    return later_compaction


def build_compaction_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule. It is weekly, not monthly, because a backfill can change a closed month at any time."""
    return dg.ScheduleDefinition(
        name="later_compaction_weekly",
        job=job,
        cron_schedule="0 4 * * 0",
        execution_timezone="UTC",
        description="Compacts the months that were closed or restated since the last run.",
    )


def _build_compaction_op(raw_table: RawTable, *, restate_days: int) -> dg.OpDefinition:
    @dg.op(
        name=f"compact_{raw_table.name}",
        description=f"Copies the closed months of later/{raw_table.name} to one file per instance.",
        out=dg.Out(dg.Nothing),
    )
    def compact(context: dg.OpExecutionContext, later: LaterReportingResource) -> None:
        try:
            result = compact_table(later.lake(), raw_table.name, restate_days=restate_days, now=datetime.now(UTC))
        except (LakeUnavailable, ValueError) as error:
            raise dg.Failure(str(error)) from error
        context.log.info(f"Compacted later/{raw_table.name}: {result}")

    return compact
