"""The sensors: what is missing from the lake, and what is outdated in it."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
import msgspec

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract.days import day_ranges, newest_day
from later_reporting_dagster.defs.checks.check import to_evaluation
from later_reporting_dagster.defs.checks.posts import evaluate_fetched, evaluate_listing
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.dagster_private import newest_materialization_id
from later_reporting_dagster.defs.event_loop import wait_for
from later_reporting_dagster.defs.events import preview, table_result, version_tags
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.rollup_requests import HOUR, LISTS, MAX_ATTEMPTS_A_DAY, Dagster, Seen, choose, wait
from later_reporting_dagster.defs.runs import (
    days_in_progress,
    may_request_now,
    request_tags,
    rollup_run,
    tables_in_progress,
)
from later_reporting_dagster.lake import Lake, LakeUnavailable
from later_reporting_dagster.lake.coverage import intact_files, newest_fetches, stored_coverage, undescribed_days
from later_reporting_dagster.lake.tables import (
    CAMPAIGNS_TABLE,
    COVERAGE_TABLE,
    INSTANCES_TABLE,
    OF_INSTANCES,
    PERIODS_TABLES,
    POSTS_NAMES,
    POSTS_PUBLISHED,
    RAW_NAMES,
)
from later_reporting_dagster.quality.instances import load_instances, write_instances
from later_reporting_dagster.quality.late_posts import late_posts
from later_reporting_dagster.quality.missing_files import days_to_request, missing_files
from later_reporting_dagster.quality.outdated import Footers, outdated
from later_reporting_dagster.report.report_data import REPORT
from later_reporting_dagster.rollups.rollup_tables import TABLES

# Dagster ends a sensor's evaluation after 60 seconds without naming the cause. This leaves 30 for the lake.
API_TIMEOUT_SECONDS = 30.0
# What a run writes to an empty lake although it fetches no posts.
_MADE_WITHOUT_POSTS = {INSTANCES_TABLE, COVERAGE_TABLE, REPORT}


def derived_tables(component: ComponentBase) -> list[str]:
    """Return the assets that are made from the lake and not fetched, in the order of their lineage."""
    derived = {*LISTS, *(table.name for table in TABLES), REPORT}
    return [name for name in component.tables if name in derived]


def rollups_sensor(component: ComponentBase, derived: Sequence[str]) -> dg.SensorDefinition:
    """Return the sensor: requests what is outdated in the lake, whatever has made it so.

    Dagster's events only say when to look. They cannot say what a lake can: a lost file, one that another Dagster has
    written, an instance that was retired, a copy.
    """
    tables = [table for table in component.rollups(TABLES) if table.name in derived]
    # Another code location may fetch them.
    fetched = [component.asset_key(name) for name in (*RAW_NAMES, CAMPAIGNS_TABLE, *PERIODS_TABLES)]
    waits_for = {*derived, *component.fetched_tables}
    # Rows are left to the daily check: reading them all could take longer than a tick may.
    footers = Footers(verify_rows=False)
    name = f"{component.name}_rollups"

    @dg.sensor(
        name=name,
        # Not a target, which would be a job: assets of one job have the same partitions.
        asset_selection=dg.AssetSelection.assets(*map(component.asset_key, derived)),
        default_status=component.sensor_status(runs_by_default=True),
        minimum_interval_seconds=30,
        required_resource_keys={component.resource_key},
        description=(
            "Makes again what is missing, damaged, or made from other files or by an older definition: after a fetch,"
            f" and every hour. What fails, at most {MAX_ATTEMPTS_A_DAY} times a day from the same files."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        seen = msgspec.json.decode(context.cursor or "{}", type=Seen)
        now = component.now()
        due = now.replace(hour=component.due_hour_utc, minute=0, second=0, microsecond=0)
        # In this order: a run that begins after it was looked for logs its events after they were.
        in_progress = tables_in_progress(context, component) & waits_for
        dagster = Dagster(
            in_progress=in_progress,
            event=newest_materialization_id(context.instance, fetched),
            now=now.timestamp(),
            due=due.timestamp(),
            patience=component.max_wait_hours * HOUR,
        )
        if waits := wait(seen, dagster):
            return dg.SensorResult(skip_reason=waits.reason, cursor=msgspec.json.encode(waits.seen).decode())
        try:
            lake = component.later(context).lake()
            has_posts = bool({*lake.storage.directories()} - _MADE_WITHOUT_POSTS)
            files = outdated(
                lake,
                tables,
                start_date=component.start_date,
                newest_day=newest_day(now),
                with_report=REPORT in derived and has_posts,
                footers=footers,
            )
        except LakeUnavailable as error:
            # The message is complete; a stack trace would hide it.
            raise dg.DagsterError(f"Looking for outdated rollups failed: {error}") from None
        chosen = choose(seen, files, dagster, defined=derived if has_posts else ())
        requests = []
        for names in chosen.runs:
            tags, config = rollup_run(component, names, files, requested_by=name)
            ops = {component.op_name(table): {"config": of_table} for table, of_table in config.items()}
            keys = [*map(component.asset_key, names)]
            requests.append(dg.RunRequest(asset_selection=keys, tags=tags, run_config={"ops": ops} if ops else {}))
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason(chosen.reason),
            cursor=msgspec.json.encode(chosen.seen).decode(),
        )

    return sensor


def missing_files_sensor(component: ComponentBase, posts_job: Any, coverage_job: Any) -> dg.SensorDefinition:
    """Return the sensor: updates the dimension every hour, and requests one run for the missing files that are due.

    It reads no file of posts. It knows from `coverage` which are damaged or stale; if there are files that `coverage`
    does not describe, as those of a killed run, it requests an update of that.
    """
    key = component.asset_key(INSTANCES_TABLE)

    @dg.sensor(
        name=f"{component.name}_missing_files",
        jobs=[posts_job, *([coverage_job] if coverage_job else [])],
        minimum_interval_seconds=3600,
        default_status=component.sensor_status(runs_by_default=False),
        required_resource_keys={component.resource_key},
        description=(
            f"Lists the instances that the credentials have access to, updates {key.to_user_string()}, and fetches"
            " every missing or stale file since the start date in one run: those of an instance that has failed, once a"
            " day."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        later, now = component.later(context), component.now()
        # Before the files are listed: a run that ends meanwhile has written its files by then.
        in_progress = days_in_progress(context.instance, component)
        try:
            lake = later.lake()
            if emptied := describe_emptied(context.instance, component, lake):
                raise LakeUnavailable(emptied)  # noqa: TRY301 - as other errors of the lake
            listed = wait_for(lambda: asyncio.wait_for(later.listed_instances(), API_TIMEOUT_SECONDS))
            days = component.expected_days(now)
            # Those that are not damaged, as far as `coverage` knows.
            coverage = stored_coverage(lake)
            files = intact_files(lake, RAW_NAMES, stored=coverage, reads_footers=False)
            fetches = newest_fetches(lake, RAW_NAMES)
            stale = late_posts(lake, days=component.settled_days(now), coverage=coverage, fetched=fetches).stale
            configured = later.configured_instances()
            instances = load_instances(lake, configured=configured, listed=listed, files=files)
            rows, written = write_instances(lake, instances, files=files, stale=stale, days=days, today=now.date())
        except TimeoutError:
            return dg.SkipReason("Timed out listing instances; retrying at the next tick.")
        except (LaterError, LakeUnavailable, ValueError) as error:
            # The message is complete; a stack trace would hide it.
            raise dg.DagsterError(f"Updating the instances failed: {error}") from None
        failures = {file: fetch.failed_at for file, fetch in fetches.items() if fetch.failed_at}
        expected = sorted(instances.to_fetch)
        failed_today = {file for file, at in failures.items() if at.date() >= now.date()}
        to_fetch = {(POSTS_PUBLISHED.name, file) for file in stale if file.instance_id in expected}
        for name, present in files.items():
            missing = missing_files(name, days=days, instances=expected, present=present)
            to_fetch.update((name, file) for file in missing)
        due = {file for name, file in to_fetch - failed_today if name in component.tables}
        requested = days_to_request(sorted(due, key=lambda file: file.instance_id or ""), days_in_progress=in_progress)
        requests: list[dg.RunRequest] = []
        if requested:
            # Not one whose fetch has failed: its campaigns would be fetched again each day.
            new = requested.keys() - {None, *(pair.instance_id for _, pair in failures)}
            stored = {partition.instance_id for name in POSTS_NAMES for partition in files[name]}
            with_campaigns = bool(stored) and not stored.issuperset(new)
            request = _missing_files_request(component, requested, with_campaigns=with_campaigns)
            if may_request_now(context.instance, request.tags, component.posts_job_name):
                requests.append(request)
        unknown = undescribed_days(files, coverage) - in_progress
        if coverage_job and unknown and COVERAGE_TABLE not in tables_in_progress(context, component):
            tags = request_tags(component, COVERAGE_TABLE, *day_ranges(unknown))
            if may_request_now(context.instance, tags, COVERAGE_TABLE):
                requests.append(dg.RunRequest(job_name=coverage_job.name, tags=tags))
        if requests:
            skip_reason = None
        elif requested:
            skip_reason = "What is missing or stale was requested within the last hour, or three times today"
        elif due:
            skip_reason = "Waits for the runs that fetch what is missing or stale"
        elif to_fetch:
            skip_reason = "Waits for the next day, in UTC: what is missing or stale has failed today"
        else:
            skip_reason = "No file is missing or stale"
        if INSTANCES_TABLE not in component.tables:
            return dg.SensorResult(run_requests=requests, skip_reason=skip_reason)
        assert context.repository_def is not None
        # That of the definitions, which a translation may have changed, as runs log it.
        code_version = context.repository_def.assets_defs_by_key[key].get_asset_spec(key).code_version
        result = table_result(written, {"instances": preview(rows, limit=rows.num_rows)})
        tags = version_tags(written.content_hash, code_version=code_version)
        evaluated = evaluate_listing(rows, instances), evaluate_fetched(instances, files=files)
        checks = [to_evaluation(each, key) for each in evaluated]
        materialization = dg.AssetMaterialization(key, metadata=result.metadata, tags=tags)
        return dg.SensorResult(run_requests=requests, skip_reason=skip_reason, asset_events=[materialization, *checks])

    return sensor


def describe_emptied(instance: dg.DagsterInstance, component: ComponentBase, lake: Lake) -> str:
    """Return that a lake has lost everything; an empty text if it has not, or never had posts.

    Posts would be fetched to a disk in whose place none is mounted.
    """
    if {*lake.storage.directories()} - _MADE_WITHOUT_POSTS:
        return ""
    for key in (component.asset_key(name) for name in POSTS_NAMES if name in component.tables):
        if instance.get_latest_materialization_event(key):
            return (
                f"{lake.root} is empty, although {key.to_user_string()} was materialized: is the disk mounted, and"
                " LATER_LAKE_ROOT right? If the lake is to be filled anew, materialize a day"
            )
    return ""


def _missing_files_request(
    component: ComponentBase, days: Mapping[str | None, Sequence[date]], *, with_campaigns: bool
) -> dg.RunRequest:
    """Return the request of a run of the posts job that fetches these days of each instance; None: of the files of all.

    Args:
        with_campaigns: whether to fetch the campaigns of all days and months again, whose files have the rows of all
            instances.
    """
    days_by_instance = {name: day_ranges(of_instance) for name, of_instance in days.items() if name is not None}
    configs: dict[str, dict[str, Any]] = {
        **dict.fromkeys(RAW_NAMES, {"only_missing": not with_campaigns}),
        **dict.fromkeys(OF_INSTANCES, {"days_by_instance": days_by_instance, "only_missing": True}),
        **dict.fromkeys(PERIODS_TABLES, {"all_months": with_campaigns}),
    }
    ops = {component.op_name(name): {"config": configs[name]} for name in component.fetched_tables if name in configs}
    all_days = [day for of_instance in days.values() for day in of_instance]
    made = [f"{name} {day_ranges(of_instance)}" for name, of_instance in days.items()]
    tags = range_tags(min(all_days), max(all_days)) | request_tags(component, component.posts_job_name, *made)
    return dg.RunRequest(job_name=component.posts_job_name, tags=tags, run_config={"ops": ops})
