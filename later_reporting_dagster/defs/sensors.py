"""The sensors: what is missing from the lake, and what is outdated in it."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract.days import day_ranges, days_between, newest_day, parse_day_ranges
from later_reporting_dagster.defs.checks.check import to_evaluation
from later_reporting_dagster.defs.checks.posts import evaluate_listing
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.event_loop import wait_for
from later_reporting_dagster.defs.events import data_versions, preview, table_result, version_tags
from later_reporting_dagster.defs.partitions import range_tags, runs_of, selected_range
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import (
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGN_PERIODS_TABLE,
    Lake,
    LakeUnavailable,
    WriteResult,
)
from later_reporting_dagster.lake.tables import (
    COVERAGE_TABLE,
    FETCHED_NAMES,
    INSTANCES_TABLE,
    POSTS_PUBLISHED,
    RAW_NAMES,
)
from later_reporting_dagster.quality.attempts import cursor_text, parse_cursor
from later_reporting_dagster.quality.coverage import (
    CoveredDay,
    Files,
    States,
    covered_days,
    intact_files,
    recorded_failures,
    stored_late_posts,
    stored_states,
)
from later_reporting_dagster.quality.instances import instances_table, stored_instances
from later_reporting_dagster.quality.missing_files import missing_days, plan_fetches
from later_reporting_dagster.quality.outdated import MAX_REQUESTS, Footers, outdated, plan_rollups
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


def outdated_sensor(component: ComponentBase) -> dg.SensorDefinition:
    """Return the sensor: requests what is outdated in the lake, whatever has happened to the runs that made it."""
    tables, with_report = component.rollups(TABLES), REPORT in component.tables
    waits_for = {table.name: {table.name, *table.sources} for table in tables}
    if with_report:
        waits_for[REPORT] = {REPORT, *waits_for}
    # Rows are left to the daily check: reading them all could take longer than a tick may.
    footers = Footers(verify_rows=False)

    @dg.sensor(
        name=f"{component.name}_outdated",
        # Not a target, which would be a job: assets of one job have the same partitions.
        asset_selection=dg.AssetSelection.assets(*map(component.asset_key, waits_for)),
        default_status=component.sensor_status(runs_by_default=True),
        minimum_interval_seconds=300,
        required_resource_keys={component.resource_key},
        description=(
            "Rolls up again what is missing, damaged, or made from other files or by an older definition, also if the"
            f" run that should have done so failed: at most {MAX_REQUESTS} times from the same files."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        lake, now = component.later(context).lake(), component.now()
        try:
            files = outdated(
                lake,
                tables,
                start_date=component.start_date,
                newest_day=newest_day(now),
                with_report=with_report,
                footers=footers,
            )
        except LakeUnavailable as error:
            # The message is complete; a stack trace would hide it.
            raise dg.DagsterError(f"Looking for outdated rollups failed: {error}") from None
        running = _tables_in_progress(context, component)
        in_progress = [name for name, others in waits_for.items() if not running.isdisjoint(others)]
        requested, cursor = plan_rollups(files, parse_cursor(context.cursor), in_progress=in_progress, now=now)
        runs = [
            dg.RunRequest(asset_selection=[*map(component.asset_key, run_tables)], tags=tags)
            for run_tables, tags in runs_of(requested, component.start_date)
        ]
        return dg.SensorResult(run_requests=runs, cursor=cursor_text(cursor))

    return sensor


def instances_sensor(component: ComponentBase, posts_job: Any, coverage_job: Any) -> dg.SensorDefinition:
    """Return the sensor: updates the dimension every hour, and requests one run for the missing files that are due.

    It reads no file of posts. It knows from `coverage` which are damaged, and which versions days have; if there are
    files that `coverage` does not describe, as those of a killed run, it requests an update of that. Days whose version
    Dagster does not know are reported as runless materializations, so that rollups follow.
    """
    key = component.asset_key(INSTANCES_TABLE)

    @dg.sensor(
        name=f"{component.name}_instances",
        jobs=[posts_job, *([coverage_job] if coverage_job else [])],
        minimum_interval_seconds=3600,
        default_status=component.sensor_status(runs_by_default=False),
        required_resource_keys={component.resource_key},
        description=(
            f"Lists the instances that the credentials have access to, updates {key.to_user_string()}, and fetches"
            " every missing or stale file since the start date in one run: once a day, and less and less often while it"
            " fails. Reports days that were written and not recorded."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        later, now, cursor = component.later(context), component.now(), parse_cursor(context.cursor)
        # Before the files are listed, so that no version is older than what Dagster knows.
        in_progress = _days_in_progress(context.instance, component)
        tables = [name for name in FETCHED_NAMES if name in component.tables]
        logged = {name: data_versions(context.instance, component.asset_key(name)) for name in tables}
        try:
            listed = wait_for(lambda: asyncio.wait_for(later.listed_instances(), API_TIMEOUT_SECONDS))
            seen = _look_at_lake(component, later, listed, now)
            written = seen.lake.write_table(INSTANCES_TABLE, seen.rows)
            failures = recorded_failures(seen.lake) if cursor.attempts else {}
        except TimeoutError:
            return dg.SkipReason("Timed out listing instances; retrying at the next tick.")
        except (LaterError, LakeUnavailable, ValueError) as error:
            # The message is complete; a stack trace would hide it.
            raise dg.DagsterError(f"Updating the instances failed: {error}") from None
        requested, after = plan_fetches(
            seen.missing, cursor, instances=seen.expected, days_in_progress=in_progress, failures=failures, now=now
        )
        # The campaigns of all days and months are fetched again if an instance is new among others, because their
        # files have the rows of all instances.
        is_new = bool(cursor.instances) and not requested.keys() <= set(cursor.instances)
        runs = [_missing_files_request(component, requested, with_campaigns=is_new)] if requested else []
        covered, not_covered = covered_days(seen.files, seen.states)
        may_update = coverage_job and not_covered - in_progress
        if may_update and COVERAGE_TABLE not in _tables_in_progress(context, component):
            runs.append(dg.RunRequest(job_name=coverage_job.name))
        not_logged = [
            file_day
            for file_day in covered
            if file_day.table_name in logged
            and file_day.day >= component.start_date
            and file_day.day not in in_progress
            and logged[file_day.table_name].get(str(file_day.day)) != file_day.version
        ]
        versions = _code_versions(context, component)
        events = [
            _runless_materialization(file_day, component, seen.lake, versions)
            for file_day in not_logged[:MAX_REPORTED_DAYS]
        ]
        listing = _listing_events(seen, written, key, versions) if INSTANCES_TABLE in component.tables else []
        return dg.SensorResult(run_requests=runs, cursor=cursor_text(after), asset_events=[*events, *listing])

    return sensor


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a tick of the sensor of the instances finds in the lake.

    Attributes:
        rows: those of the dimension as of now.
        expected: the instances whose days are expected.
        missing: the days of each that are missing in at least one of the raw tables, or stale.
        files: those that are not damaged, as far as `coverage` knows, whose rows are `states`.
    """

    lake: Lake
    rows: pa.Table
    configured: Sequence[str]
    retired: frozenset[str]
    expected: Sequence[str]
    missing: Mapping[str, Sequence[date]]
    files: Files
    states: States


def _look_at_lake(
    component: ComponentBase, later: LaterReportingResource, listed: Sequence[str], now: datetime
) -> _Seen:
    lake, configured, days = later.lake(), later.configured_instances(), component.expected_days(now)
    retired, states = lake.retired.ids(), stored_states(lake)
    expected = [name for name in configured or listed if name not in retired]
    files = intact_files(lake, FETCHED_NAMES, states=states)
    stale = stored_late_posts(lake, days={*days}).stale
    rows = instances_table(
        listed,
        configured=configured,
        retired=retired,
        previous=stored_instances(lake),
        present={name: files[name] for name in RAW_NAMES},
        stale=stale,
        days=days,
        today=now.date(),
    )
    missing: dict[str, set[date]] = {}
    for partition in stale:
        if partition.instance_id in expected and POSTS_PUBLISHED.name in component.tables:
            missing.setdefault(partition.instance_id, set()).add(partition.day)
    for table_name in RAW_NAMES:
        if table_name in component.tables:
            for name, lacking in missing_days(days, expected, files[table_name]).items():
                missing.setdefault(name, set()).update(lacking)
    return _Seen(
        lake=lake,
        rows=rows,
        configured=configured,
        retired=retired,
        expected=expected,
        missing={name: sorted(lacking) for name, lacking in missing.items()},
        files=files,
        states=states,
    )


def _listing_events(
    seen: _Seen, written: WriteResult, key: dg.AssetKey, code_versions: Mapping[dg.AssetKey, str | None]
) -> list[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
    result = table_result(written, {"instances": preview(seen.rows, limit=seen.rows.num_rows)})
    tags = version_tags(written.content_hash, code_version=code_versions[key])
    check = evaluate_listing(seen.rows, configured=seen.configured, retired=seen.retired)
    return [dg.AssetMaterialization(key, metadata=result.metadata, tags=tags), to_evaluation(check, key)]


def _runless_materialization(
    day: CoveredDay, component: ComponentBase, lake: Lake, code_versions: Mapping[dg.AssetKey, str | None]
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
        tags=version_tags(day.version, code_version=code_versions[key]),
    )


def _code_versions(context: dg.SensorEvaluationContext, component: ComponentBase) -> dict[dg.AssetKey, str | None]:
    """Return the code versions of the definitions, which a translation may have changed, as runs log them."""
    assert context.repository_def is not None
    graph = context.repository_def.asset_graph
    return {key: graph.get(key).code_version for key in map(component.asset_key, component.tables)}


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
        CAMPAIGN_PERIODS_TABLE: {"all_months": with_campaigns},
    }
    ops = {component.op_name(name): {"config": configs[name]} for name in component.fetched_tables if name in configs}
    all_days = [day for of_instance in days.values() for day in of_instance]
    return dg.RunRequest(
        job_name=component.posts_job_name, tags=range_tags(min(all_days), max(all_days)), run_config={"ops": ops}
    )


def _runs_in_progress(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    """Yield the runs that go on, or will start."""
    silent_since = datetime.now(UTC).timestamp() - DEAD_AFTER_SECONDS
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=_NOT_FINISHED)):
        newest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        # Without run monitoring, a killed run stays in progress for ever.
        if run.status is dg.DagsterRunStatus.QUEUED or not newest or newest[0].timestamp >= silent_since:
            yield run


def _days_in_progress(instance: dg.DagsterInstance, component: ComponentBase) -> set[date]:
    """Return the days that runs of a raw table are fetching, or will when they start."""
    keys = {component.asset_key(name) for name in RAW_NAMES}
    days: set[date] = set()
    for run in _runs_in_progress(instance):
        fetches = run.asset_selection & keys if run.asset_selection else run.job_name == component.posts_job_name
        if fetches and (selected := selected_range(run.tags)):
            days.update(days_between(*selected))
            ops: Mapping[str, Any] = run.run_config.get("ops", {})  # type: ignore[assignment]
            with suppress(ValueError):  # the run will fail, and name what is wrong
                days.update(*(parse_day_ranges(op.get("config", {}).get("old_days", [])) for op in ops.values()))
    return days


def _tables_in_progress(context: dg.SensorEvaluationContext, component: ComponentBase) -> set[str]:
    """Return the names of the assets that runs are materializing, or will when they start."""
    assert context.repository_def is not None
    all_names = {component.asset_key(name): name for name in component.tables}
    found: set[str] = set()
    for run in _runs_in_progress(context.instance):
        keys = set(run.asset_selection or ())
        if not keys and context.repository_def.has_job(run.job_name):
            keys = set(context.repository_def.get_job(run.job_name).asset_layer.executable_asset_keys)
        found.update(all_names[key] for key in keys & all_names.keys())
    return found
