"""The compaction job and its weekly schedule: copy closed months to one file per instance, for faster reads."""

from datetime import UTC, datetime

import dagster as dg

from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import LakeUnavailable
from later_reporting_dagster.lake.tables import RAW_TABLES, RawTable


def build_compaction_job(settings: DefinitionSettings) -> dg.JobDefinition:
    """Return the job: one independent step per raw table. It does not materialize assets."""
    steps = [_build_compaction_op(raw_table, settings) for raw_table in RAW_TABLES if raw_table.name in settings.tables]

    @dg.job(
        name=f"{settings.name}_compaction",
        executor_def=dg.in_process_executor,
        description=(
            f"Copies each month of the raw tables that ended more than {settings.restate_days} days ago to one file per"
            " instance. Rollups and queries read these copies; the daily files stay unchanged."
        ),
    )
    def compaction() -> None:
        for step in steps:
            step()

    return compaction


def build_compaction_schedule(settings: DefinitionSettings, job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule. It is weekly, not monthly, because a backfill can change a closed month at any time."""
    return dg.ScheduleDefinition(
        name=f"{settings.name}_compaction_weekly",
        job=job,
        cron_schedule="0 4 * * 0",
        execution_timezone="UTC",
        description="Compacts the months that were closed or restated since the last run.",
    )


def _build_compaction_op(raw_table: RawTable, settings: DefinitionSettings) -> dg.OpDefinition:
    name = settings.asset_key(raw_table.name).to_user_string()

    @dg.op(
        name=f"{settings.name}_compact_{raw_table.name}",
        description=f"Copies the closed months of {name} to one file per instance.",
        out=dg.Out(dg.Nothing),
        required_resource_keys={settings.resource_key},
    )
    def compact(context: dg.OpExecutionContext) -> None:
        later: LaterReportingResource = getattr(context.resources, settings.resource_key)
        try:
            result = later.lake().compact(raw_table.name, restate_days=settings.restate_days, now=datetime.now(UTC))
        except (LakeUnavailable, ValueError) as error:
            raise dg.Failure(str(error)) from error
        context.log.info(f"Compacted {name}: {result}")

    return compact
