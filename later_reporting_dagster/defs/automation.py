"""Automation: when assets are updated by themselves, the jobs, their schedules, and the sensors."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import msgspec

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract.days import day_ranges, days_between, newest_day, restated_days
from later_reporting_dagster.defs.checks.all_checks import check_steps
from later_reporting_dagster.defs.checks.check import to_evaluation
from later_reporting_dagster.defs.checks.posts import evaluate_listing
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.event_loop import wait_for
from later_reporting_dagster.defs.events import data_versions, preview, table_result, version_tags
from later_reporting_dagster.defs.partitions import range_tags, runs_of, selected_range
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, Lake, LakeUnavailable
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, FETCHED_NAMES, INSTANCES_TABLE, RAW_NAMES
from later_reporting_dagster.quality.coverage import (
    CoveredDay,
    covered_days,
    intact_files,
    recorded_failures,
    stored_states,
)
from later_reporting_dagster.quality.instances import instances_table, stored_instances
from later_reporting_dagster.quality.missing_files import missing_days, parse_cursor, plan_requests
from later_reporting_dagster.quality.outdated import MAX_REQUESTS, Footers, outdated, parse_attempts, plan_attempts
from later_reporting_dagster.report.report_data import REPORT
from later_reporting_dagster.rollups.rollup_tables import TABLES

# Dagster ends a sensor's evaluation after 60 seconds without naming the cause. This leaves 30 for the lake.
API_TIMEOUT_SECONDS = 30.0
# A run that has not logged an event for so long no longer exists.
DEAD_AFTER_SECONDS = 3600
# Each takes some 10 ms, and rollups of all of them are requested at once.
MAX_REPORTED_DAYS = 200
_NOT_FINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def when_upstream_changes(*upstream: dg.AssetKey) -> dg.AutomationCondition[Any]:
    """Return the condition: materialize a partition when the data version of its upstream changes, or once it has one.

    It waits for runs of the asset and its upstream. What it misses, such as a run that fails, or that reads before a
    change and ends after it, the sensor `outdated` finds. `upstream` are the dependencies to consider; default: all.
    """
    condition = dg.AutomationCondition

    def any_upstream(matches: dg.AutomationCondition[Any]) -> dg.AutomationCondition[Any]:
        any_dep = condition.any_deps_match(matches)
        return any_dep.allow(dg.AssetSelection.assets(*upstream)) if upstream else any_dep

    # A change holds for one tick. One that comes in the tick after the request must not be forgotten with it.
    changed = any_upstream(condition.data_version_changed())
    newly_missing = (condition.missing() & any_upstream(~condition.missing())).newly_true()
    due = (changed | newly_missing).since((condition.newly_requested() & ~changed) | condition.newly_updated())
    return (due & ~condition.in_progress() & ~condition.any_deps_in_progress()).with_label("upstream_changed")


def build_automation(component: ComponentBase, specs: Sequence[dg.AssetSpec], *, with_sensor: bool) -> dict[str, Any]:
    """Return the jobs, schedules and sensors of a component with these assets.

    The sensor of the conditions evaluates these assets only. Like the schedule of the checks, it runs by default,
    because it needs no network, and rollups would not be updated without it.
    """
    keys = [spec.key for spec in specs]
    checks_job = dg.define_asset_job(
        f"{component.name}_checks",
        selection=dg.AssetSelection.checks_for_assets(*keys),
        executor_def=dg.in_process_executor,
        description="Evaluates all asset checks over the whole lake.",
    )
    schedules = [*_daily_checks_schedule(component, checks_job)]
    sensors: list[dg.SensorDefinition] = []
    if with_sensor:
        sensor = dg.AutomationConditionSensorDefinition(
            f"{component.name}_automation",
            target=dg.AssetSelection.assets(*keys),
            default_status=component.sensor_status(runs_by_default=True),
            minimum_interval_seconds=30,
            description="Updates rollups, instances, coverage and the report when their upstream changes.",
        )
        sensors.append(sensor)
        if component.rollups(TABLES):
            sensors.append(_outdated_sensor(component))
    if not component.fetched_tables:
        return {"jobs": [checks_job], "schedules": schedules, "sensors": sensors}
    # In process: its steps wait for the network or take a moment, and a process per step would only cost time.
    posts_job: Any = dg.define_asset_job(
        posts_job_name(component),
        selection=dg.AssetSelection.assets(*(component.asset_key(name) for name in component.fetched_tables)),
        executor_def=dg.in_process_executor,
        description="Fetches the raw tables and the campaigns for a range of days.",
    )
    coverage_job: Any = None
    if COVERAGE_TABLE in component.tables:
        coverage_job = dg.define_asset_job(
            f"{component.name}_coverage",
            selection=dg.AssetSelection.assets(component.asset_key(COVERAGE_TABLE)),
            executor_def=dg.in_process_executor,
            description="Lists all files of the fetched tables, and reads the footers of those that have changed.",
        )
    compaction_job = _compaction_job(component)
    compaction_schedule = dg.ScheduleDefinition(
        name=f"{component.name}_compaction_weekly",
        job=compaction_job,
        cron_schedule="0 4 * * 0",  # not monthly, because a backfill can change a closed month at any time
        execution_timezone="UTC",
        default_status=component.schedule_status(runs_by_default=False),
        description="Compacts the months that were closed or restated since the last run.",
    )
    # It fetches missing files, also without the asset `instances`.
    if {INSTANCES_TABLE, *RAW_NAMES} & {*component.tables}:
        sensors.insert(0, _instances_sensor(component, posts_job, coverage_job))
    return {
        "jobs": [posts_job, checks_job, compaction_job, *([coverage_job] if coverage_job else [])],
        "schedules": [build_daily_schedule(component, posts_job), compaction_schedule, *schedules],
        "sensors": sensors,
    }


def posts_job_name(component: ComponentBase) -> str:
    return f"{component.name}_posts"


def build_daily_schedule(component: ComponentBase, posts_job: Any) -> dg.ScheduleDefinition:
    """Return the schedule: one run a day of the posts job over the last `restate_days` days."""

    @dg.schedule(
        name=f"{component.name}_posts_daily",
        job=posts_job,
        cron_schedule="0 6 * * *",
        execution_timezone="UTC",
        default_status=component.schedule_status(runs_by_default=False),
        description=(
            f"Fetches the last {component.restate_days} days of all instances in one run. Files are only written, and"
            " rollups only updated, if posts have changed."
        ),
    )
    def posts_daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        newest = newest_day(context.scheduled_execution_time)
        days = restated_days(newest, start_date=component.start_date, restate_days=component.restate_days)
        if not days:
            return dg.SkipReason(f"The first partition, {component.start_date}, is not over yet.")
        return dg.RunRequest(tags=range_tags(days[0], days[-1]))

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
            " no longer listed, rollups that differ from their raw rows, and others."
        ),
    )
    def checks_daily() -> dg.RunRequest:
        return dg.RunRequest(asset_check_keys=daily)

    if daily:
        yield checks_daily


def _compaction_job(component: ComponentBase) -> dg.JobDefinition:
    names = [name for name in RAW_NAMES if name in component.tables]

    @dg.op(name=f"{component.name}_compact", out=dg.Out(dg.Nothing), required_resource_keys={component.resource_key})
    def compact(context: dg.OpExecutionContext) -> None:
        later = component.later(context)
        for name in names:
            try:
                result = later.lake().compact(name, restate_days=component.restate_days, now=component.now())
            except (LakeUnavailable, ValueError) as error:
                raise dg.Failure(str(error)) from error
            context.log.info(f"Compacted {component.asset_key(name).to_user_string()}: {result}")

    @dg.job(
        name=f"{component.name}_compaction",
        executor_def=dg.in_process_executor,
        description=(
            f"Copies each month of the raw tables that ended more than {component.restate_days} days ago to one file"
            " per instance. Rollups and queries read these copies; the daily files stay unchanged."
        ),
    )
    def compaction() -> None:
        compact()

    return compaction


def _outdated_sensor(component: ComponentBase) -> dg.SensorDefinition:
    """Return the sensor: requests what is outdated in the lake, whatever has happened to the runs that made it."""
    tables, with_report = component.rollups(TABLES), REPORT in component.tables
    sources = {table.name: {table.name, *table.sources} for table in tables}
    names = [*sources, *([REPORT] if with_report else [])]
    footers = Footers()

    @dg.sensor(
        name=f"{component.name}_outdated",
        # Not a target, which would be a job: assets of one job have the same partitions.
        asset_selection=dg.AssetSelection.assets(*map(component.asset_key, names)),
        default_status=component.sensor_status(runs_by_default=True),
        minimum_interval_seconds=300,
        required_resource_keys={component.resource_key},
        description=(
            "Rolls up again what is missing, damaged, or made from other files or by an older definition, also if the"
            f" run that should have done so failed: at most {MAX_REQUESTS} times from the same files."
        ),
    )
    def outdated_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            files = outdated(
                component.later(context).lake(),
                tables,
                start_date=component.start_date,
                newest_day=newest_day(component.now()),
                with_report=with_report,
                footers=footers,
            )
        except LakeUnavailable as error:
            # The message is complete; a stack trace would hide it.
            raise dg.DagsterError(f"Looking for outdated rollups failed: {error}") from None
        running = _tables_in_progress(context, component)
        in_progress = [name for name in names if not running.isdisjoint(sources.get(name, names))]
        requested, attempts = plan_attempts(files, parse_attempts(context.cursor), in_progress=in_progress)
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(asset_selection=[*map(component.asset_key, run_tables)], tags=tags)
                for run_tables, tags in runs_of(requested, component.start_date)
            ],
            cursor=msgspec.json.encode(attempts).decode(),
        )

    return outdated_sensor


def _tables_in_progress(context: dg.SensorEvaluationContext, component: ComponentBase) -> set[str]:
    """Return the names of the assets that runs are materializing, or will when they start."""
    assert context.repository_def is not None
    all_names = {component.asset_key(name): name for name in component.tables}
    silent_since = datetime.now(UTC).timestamp() - DEAD_AFTER_SECONDS
    found: set[str] = set()
    for run in context.instance.get_runs(filters=dg.RunsFilter(statuses=_NOT_FINISHED)):
        newest = context.instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        # Without run monitoring, a killed run stays in progress for ever.
        if run.status is not dg.DagsterRunStatus.QUEUED and newest and newest[0].timestamp < silent_since:
            continue
        keys = set(run.asset_selection or ())
        if not keys and context.repository_def.has_job(run.job_name):
            keys = set(context.repository_def.get_job(run.job_name).asset_layer.executable_asset_keys)
        found.update(all_names[key] for key in keys & all_names.keys())
    return found


def _instances_sensor(component: ComponentBase, posts_job: Any, coverage_job: Any) -> dg.SensorDefinition:
    """Return the sensor: updates the dimension every hour, and requests one run for the missing files that are due.

    It reads no file of posts. It knows from `coverage` which are damaged, and which versions days have; if there are
    files that `coverage` does not describe, as those of a killed run, it requests an update of that. Days whose version
    Dagster does not know are reported as runless materializations, so that rollups follow.
    """
    key = component.asset_key(INSTANCES_TABLE)
    fetched_by_day = [name for name in FETCHED_NAMES if name in component.tables]

    @dg.sensor(
        name=f"{component.name}_instances",
        jobs=[posts_job, *([coverage_job] if coverage_job else [])],
        minimum_interval_seconds=3600,
        default_status=component.sensor_status(runs_by_default=False),
        required_resource_keys={component.resource_key},
        description=(
            f"Lists the instances that the credentials have access to, updates {key.to_user_string()}, and fetches"
            " every missing file since the start date in one run: once a day, and less and less often while it fails."
            " Reports days that were written and not recorded."
        ),
    )
    def instances_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        later = component.later(context)
        now = component.now()
        days = component.expected_days(now)
        # Before the files are listed, so that no version is older than what Dagster knows.
        in_progress = _days_in_progress(context.instance, component)
        known = {name: data_versions(context.instance, component.asset_key(name)) for name in fetched_by_day}
        try:
            listed = wait_for(lambda: asyncio.wait_for(later.listed_instances(), API_TIMEOUT_SECONDS))
            lake, configured = later.lake(), later.configured_instances()
            retired, cursor = lake.retired.ids(), parse_cursor(context.cursor)
            instances = [name for name in configured or listed if name not in retired]
            states = stored_states(lake)
            files = intact_files(lake, FETCHED_NAMES, states=states)
            rows = instances_table(
                listed,
                configured=configured,
                retired=retired,
                previous=stored_instances(lake),
                present={name: files[name] for name in RAW_NAMES},
                days=days,
                today=now.date(),
            )
            written = lake.write_table(INSTANCES_TABLE, rows)
            failures = recorded_failures(lake) if cursor.attempts else {}
        except TimeoutError:
            return dg.SkipReason("Timed out listing instances; retrying at the next tick.")
        except (LaterError, LakeUnavailable, ValueError) as error:
            # The message is complete; a stack trace would hide it.
            raise dg.DagsterError(f"Updating the instances failed: {error}") from None
        # The days of each instance that are missing in at least one of the raw tables.
        missing: dict[str, set[date]] = {}
        for table_name in RAW_NAMES:
            if table_name in component.tables:
                for name, lacking in missing_days(days, instances, files[table_name]).items():
                    missing.setdefault(name, set()).update(lacking)
        requested, after = plan_requests(
            {name: sorted(lacking) for name, lacking in missing.items()},
            cursor,
            instances=instances,
            days_in_progress=in_progress,
            failures=failures,
            now=now,
        )
        # The campaigns of all days are fetched again if an instance is new among others, because a day of campaign
        # performance is one file.
        is_new = bool(cursor.instances) and not requested.keys() <= set(cursor.instances)
        requests = [_missing_files_request(component, requested, with_campaigns=is_new)] if requested else []
        covered, uncovered = covered_days(files, states)
        if coverage_job and uncovered - in_progress and COVERAGE_TABLE not in _tables_in_progress(context, component):
            requests.append(dg.RunRequest(job_name=coverage_job.name))
        unknown = [
            day
            for day in covered
            if day.table_name in known
            and day.day >= component.start_date
            and day.day not in in_progress
            and known[day.table_name].get(str(day.day)) != day.version
        ]
        assert context.repository_def is not None
        graph = context.repository_def.asset_graph
        events: list[dg.AssetMaterialization | dg.AssetCheckEvaluation] = [
            _runless_materialization(day, component, lake, graph.get(component.asset_key(day.table_name)).code_version)
            for day in unknown[:MAX_REPORTED_DAYS]
        ]
        if INSTANCES_TABLE in component.tables:
            result = table_result(written, {"instances": preview(rows, limit=rows.num_rows)})
            # That of the definitions, which a translation may have changed, as for runs of the asset.
            version = graph.get(key).code_version
            tags = version_tags(written.content_hash, code_version=version)
            events.append(dg.AssetMaterialization(key, metadata=result.metadata, tags=tags))
            events.append(to_evaluation(evaluate_listing(rows, configured=configured, retired=retired), key))
        return dg.SensorResult(run_requests=requests, cursor=msgspec.json.encode(after).decode(), asset_events=events)

    return instances_sensor


def _runless_materialization(
    day: CoveredDay, component: ComponentBase, lake: Lake, code_version: str | None
) -> dg.AssetMaterialization:
    key = component.asset_key(day.table_name)
    return dg.AssetMaterialization(
        key,
        partition=str(day.day),
        metadata={
            "dagster/partition_row_count": day.rows,
            "dagster/uri": lake.day_url(day.table_name, day.day),
            **({"instances": day.files} if day.table_name in RAW_NAMES else {}),
        },
        tags=version_tags(day.version, code_version=code_version),
    )


def _days_in_progress(instance: dg.DagsterInstance, component: ComponentBase) -> set[date]:
    """Return the days that runs of a raw table are fetching, or will when they start."""
    keys = {component.asset_key(name) for name in RAW_NAMES}
    days: set[date] = set()
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=_NOT_FINISHED)):
        fetches = run.asset_selection & keys if run.asset_selection else run.job_name == posts_job_name(component)
        if fetches and (selected := selected_range(run.tags)):
            days.update(days_between(*selected))
    return days


def _missing_files_request(
    component: ComponentBase, days: Mapping[str, Sequence[date]], *, with_campaigns: bool
) -> dg.RunRequest:
    """Return the request of a run of the posts job that fetches these days of each instance.

    It has no run key: Dagster runs each key once, so a file that is lost twice would not be fetched.
    """
    pairs = {name: day_ranges(of_instance) for name, of_instance in days.items()}
    configs: dict[str, dict[str, Any]] = {
        **dict.fromkeys(RAW_NAMES, {"pairs": pairs, "only_missing": True}),
        CAMPAIGN_PERFORMANCE_TABLE: {"only_missing": not with_campaigns},
    }
    ops = {component.op_name(name): {"config": configs[name]} for name in component.fetched_tables if name in configs}
    every_day = [day for of_instance in days.values() for day in of_instance]
    return dg.RunRequest(
        job_name=posts_job_name(component), tags=range_tags(min(every_day), max(every_day)), run_config={"ops": ops}
    )
