"""Automation: the jobs, their schedules, and the sensors."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from typing import Any

import dagster as dg

from later_reporting_dagster.contract.days import day_ranges, days_between, newest_day, restated_days
from later_reporting_dagster.defs.checks.all_checks import check_steps
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.sensors import derived_tables, describe_emptied, missing_files_sensor, rollups_sensor
from later_reporting_dagster.lake import LakeUnavailable
from later_reporting_dagster.lake.coverage import stored_coverage
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, INSTANCES_TABLE, OF_INSTANCES, RAW_NAMES
from later_reporting_dagster.quality.instances import load_instances
from later_reporting_dagster.quality.old_days import MAX_DAYS_PER_RUN, due_old_days


def build_automation(component: ComponentBase, specs: Sequence[dg.AssetSpec]) -> dict[str, Any]:
    """Return the jobs, schedules and sensors of a component with these assets.

    What fetches no posts runs by default: without it, rollups would not be updated.
    """
    # In process: steps wait for the network or take a moment, and a process per step would only cost time.
    define_job = partial(dg.define_asset_job, executor_def=dg.in_process_executor)
    keys = [spec.key for spec in specs]
    checks_job = define_job(
        f"{component.name}_checks",
        selection=dg.AssetSelection.checks_for_assets(*keys),
        description="Evaluates all asset checks over the whole lake.",
    )
    schedules = [*_daily_checks_schedule(component, checks_job)]
    sensors: list[dg.SensorDefinition] = []
    # The host updates an asset to which it has given a condition.
    left_to_host = {spec.key for spec in specs if spec.automation_condition}
    if derived := [name for name in derived_tables(component) if component.asset_key(name) not in left_to_host]:
        sensors.append(rollups_sensor(component, derived))
    if not component.fetched_tables:
        return {"jobs": [checks_job], "schedules": schedules, "sensors": sensors}
    posts_job: Any = define_job(
        component.posts_job_name,
        selection=dg.AssetSelection.assets(*map(component.asset_key, component.fetched_tables)),
        description="Fetches the raw tables and the campaigns for a range of days.",
    )
    coverage_job: Any = None
    if COVERAGE_TABLE in component.tables:
        coverage_job = define_job(
            f"{component.name}_coverage",
            selection=dg.AssetSelection.assets(component.asset_key(COVERAGE_TABLE)),
            description="Lists all files of the fetched tables, and reads the footers of those that have changed.",
        )
    # It fetches missing files, also without the asset `instances`.
    if {INSTANCES_TABLE, *OF_INSTANCES} & {*component.tables}:
        sensors.insert(0, missing_files_sensor(component, posts_job, coverage_job))
    return {
        "jobs": [posts_job, checks_job, *([coverage_job] if coverage_job else [])],
        "schedules": [build_daily_schedule(component, posts_job), *schedules],
        "sensors": sensors,
    }


def build_daily_schedule(component: ComponentBase, posts_job: Any) -> dg.ScheduleDefinition:
    """Return the schedule: one run a day of the posts job over the last `lookback_days` days and some old ones.

    The old days are in the run's config: a run of all days between would have an event for each, and fail them with it.
    """
    by_day = [name for name in component.fetched_tables if name in RAW_NAMES]

    def old_days(context: dg.ScheduleEvaluationContext, restated: Sequence[date]) -> list[date]:
        later, today = component.later(context), restated[-1] + timedelta(days=1)
        try:
            lake = later.lake()
            return due_old_days(
                stored_coverage(lake),
                days_between(component.start_date, restated[0] - timedelta(days=1)),
                instances=load_instances(lake, configured=later.configured_instances()).expected,
                today=today,
                ages=component.refetch_ages(today),
            )
        except (LakeUnavailable, ValueError) as error:
            context.log.warning(f"No old days are requested, because the lake cannot be read: {error}")
            return []

    @dg.schedule(
        name=f"{component.name}_posts_daily",
        job=posts_job,
        cron_schedule="0 6 * * *",
        execution_timezone="UTC",
        default_status=component.schedule_status(runs_by_default=False),
        description=(
            f"Fetches the last {component.lookback_days} days of all instances in one run, and up to {MAX_DAYS_PER_RUN}"
            " old days that were not fetched for long. Files are only written, and rollups only updated, if posts have"
            " changed."
        ),
        required_resource_keys={component.resource_key},
    )
    def posts_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        newest = newest_day(context.scheduled_execution_time)
        days = restated_days(newest, start_date=component.start_date, lookback_days=component.lookback_days)
        if not days:
            return dg.SkipReason(f"The first partition, {component.start_date}, is not over yet.")
        # The run reports it; and `build_schedule_context` may have no instance.
        with suppress(LakeUnavailable, ValueError, dg.DagsterInvariantViolationError):
            if emptied := describe_emptied(context.instance, component, component.later(context).lake()):
                return dg.SkipReason(emptied)
        config = {"old_days": day_ranges(old)} if (old := old_days(context, days)) else {}
        ops = {component.op_name(name): {"config": config} for name in by_day if config}
        return dg.RunRequest(tags=range_tags(days[0], days[-1]), run_config={"ops": ops} if ops else {})

    return posts_daily


def _daily_checks_schedule(component: ComponentBase, checks_job: Any) -> Iterator[dg.ScheduleDefinition]:
    """Yield the schedule of the daily checks, if there are any: one run a day, over the whole lake."""
    daily = [
        dg.AssetCheckKey(component.asset_key(name), check.name)
        for step in check_steps(component)
        for name, checks in step.checks.items()
        for check in checks
        if check.is_daily
    ]

    @dg.schedule(
        name=f"{component.name}_checks_daily",
        job=checks_job,
        cron_schedule=component.due_cron,
        execution_timezone="UTC",
        default_status=component.schedule_status(runs_by_default=True),
        description=(
            "Evaluates the checks whose result changes without a run of their asset: missing files, instances that are"
            " no longer listed, late posts, and others."
        ),
    )
    def checks_daily() -> dg.RunRequest:
        return dg.RunRequest(asset_check_keys=daily)

    if daily:
        yield checks_daily
