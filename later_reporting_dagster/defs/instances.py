"""The dimension table `instances`, its check, and the sensor that fetches missing files."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import msgspec
import pyarrow as pa
from dagster import AssetExecutionContext

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract.days import days_between, expected_days
from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.checks import WARN, Check, CheckScope, build_asset_checks, join_first, to_evaluation
from later_reporting_dagster.defs.fetch_attempts import Cursor, parse_cursor, plan_requests
from later_reporting_dagster.defs.jobs import missing_files_request, posts_job_name
from later_reporting_dagster.defs.materializations import version_tags
from later_reporting_dagster.defs.metadata import code_references, code_version, table_metadata, written_metadata
from later_reporting_dagster.defs.partitions import selected_range
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.ingest.dimensions import (
    INSTANCE_COLUMNS,
    instances_table,
    stored_instances,
    unlisted_instances,
)
from later_reporting_dagster.ingest.missing_files import missing_days
from later_reporting_dagster.lake import Lake, LakeUnavailable, Partition, WriteResult
from later_reporting_dagster.lake.tables import INSTANCES_TABLE, RAW_TABLES

STILL_LISTED = Check(
    name="every_instance_is_still_listed",
    description="The API still lists every instance that it has listed before or that has files. If LATER_INSTANCE_IDS"
    " is set, only the instances in it are checked.",
    severity=WARN,
    nothing="Not materialized yet",
    is_daily=True,
)
# Dagster ends a sensor's evaluation after 60 seconds without naming the cause. This leaves 30 for the lake.
API_TIMEOUT_SECONDS = 30.0
_NOT_FINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def instances_step(settings: DefinitionSettings) -> AssetStep:
    """Return the step of the asset: one row per instance, updated when posts change, and every hour by the sensor."""

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        try:
            listed = asyncio.run(later.listed_instances())
            lake, configured, now = later.lake(), later.configured_instances(), datetime.now(UTC)
            rows = current_instances(lake, listed, raw_files(lake), configured=configured, settings=settings, now=now)
            written = lake.write_table(INSTANCES_TABLE, rows)
        except (LaterError, LakeUnavailable) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        context.log.info(f"The API lists {len(listed)} of {rows.num_rows} known instances")
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(written.content_hash), metadata=instances_metadata(rows, written)
        )

    key = settings.asset_key(INSTANCES_TABLE)
    spec = dg.AssetSpec(
        key,
        deps=settings.dependencies(*(raw_table.name for raw_table in RAW_TABLES)),
        description=(
            "All instances that the credentials have ever had access to: when the API listed each first and last, its"
            f" newest day in each raw table, and how many days since {settings.start_date} are missing."
        ),
        group_name="posts",
        kinds={"parquet"},
        tags={"later/layer": "dimension"},
        metadata={**table_metadata(key, INSTANCE_COLUMNS), **code_references(instances_step)},
        code_version=code_version(INSTANCE_COLUMNS),
        automation_condition=when_upstream_changes(key),
    )
    return AssetStep(name=settings.op_name(INSTANCES_TABLE), specs=[spec], run=run)


def build_instances_checks(settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the check of the stored dimension table."""

    def evaluate(later: LaterReportingResource, _scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        yield evaluate_listing(stored_instances(later.lake()), configured=later.configured_instances())

    return build_asset_checks(INSTANCES_TABLE, [STILL_LISTED], evaluate=evaluate, settings=settings)


def build_instances_sensor(settings: DefinitionSettings, posts_job: Any) -> dg.SensorDefinition:
    """Return the sensor: updates the dimension every hour, and requests one run for the missing files that are due."""
    key = settings.asset_key(INSTANCES_TABLE)

    @dg.sensor(
        name=f"{settings.name}_instances",
        job=posts_job,
        minimum_interval_seconds=3600,
        required_resource_keys={settings.resource_key},
        description=(
            f"Lists the instances that the credentials have access to, updates {key.to_user_string()}, and fetches"
            " every missing file since the start date in one run: once a day, and less and less often while it fails."
        ),
    )
    def instances_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        later: LaterReportingResource = getattr(context.resources, settings.resource_key)
        now = datetime.now(UTC)
        try:
            listed = asyncio.run(asyncio.wait_for(later.listed_instances(), API_TIMEOUT_SECONDS))
            lake, configured = later.lake(), later.configured_instances()
            files = raw_files(lake)
            rows = current_instances(lake, listed, files, configured=configured, settings=settings, now=now)
            written = lake.write_table(INSTANCES_TABLE, rows)
        except TimeoutError:
            return dg.SkipReason("Timed out listing instances; retrying at the next tick.")
        except (LaterError, LakeUnavailable, ValueError) as error:
            # The message is complete; a stack trace would hide it.
            raise dg.DagsterError(f"Updating the instances failed: {error}") from None
        cursor, instances = parse_cursor(context.cursor), configured or listed
        missing = missing_in_any(files, instances, settings=settings, now=now)
        requested, after = plan_requests(
            missing,
            cursor,
            instances=instances,
            days_in_progress=days_in_progress(context.instance, settings),
            today=now.date(),
        )
        tags = version_tags(written.content_hash, code_version=code_version(INSTANCE_COLUMNS))
        return dg.SensorResult(
            run_requests=(
                [missing_files_request(settings, requested, with_campaigns=is_new_among_others(requested, cursor))]
                if requested
                else []
            ),
            cursor=msgspec.json.encode(after).decode(),
            asset_events=(
                [
                    dg.AssetMaterialization(key, metadata=instances_metadata(rows, written), tags=tags),
                    to_evaluation(evaluate_listing(rows, configured=configured), key),
                ]
                if INSTANCES_TABLE in settings.tables
                else []
            ),
        )

    return instances_sensor


def raw_files(lake: Lake) -> dict[str, list[Partition]]:
    """Return the partitions that have a file, by raw table."""
    return {raw_table.name: lake.partitions(raw_table.name) for raw_table in RAW_TABLES}


def current_instances(
    lake: Lake,
    listed: Collection[str],
    files: Mapping[str, Sequence[Partition]],
    *,
    configured: Collection[str],
    settings: DefinitionSettings,
    now: datetime,
) -> pa.Table:
    """Return the dimension as of now, given the ids that the API lists and the partitions that have a file."""
    return instances_table(
        listed,
        configured=configured,
        previous=stored_instances(lake),
        present=files,
        days=expected_days(now, start_date=settings.start_date, due_hour_utc=settings.due_hour_utc),
        today=now.date(),
    )


def missing_in_any(
    files: Mapping[str, Sequence[Partition]], instances: Sequence[str], *, settings: DefinitionSettings, now: datetime
) -> dict[str, list[date]]:
    """Return the days of each instance that are missing in at least one of the raw tables that are defined."""
    days = expected_days(now, start_date=settings.start_date, due_hour_utc=settings.due_hour_utc)
    found: dict[str, set[date]] = {}
    for raw_table in RAW_TABLES:
        if raw_table.name in settings.tables:
            for name, lacking in missing_days(days, instances, files[raw_table.name]).items():
                found.setdefault(name, set()).update(lacking)
    return {name: sorted(lacking) for name, lacking in found.items()}


def days_in_progress(instance: dg.DagsterInstance, settings: DefinitionSettings) -> set[date]:
    """Return the days that runs of a raw table are fetching, or will when they start."""
    keys = {settings.asset_key(raw_table.name) for raw_table in RAW_TABLES}
    days: set[date] = set()
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=_NOT_FINISHED)):
        fetches = run.asset_selection & keys if run.asset_selection else run.job_name == posts_job_name(settings)
        if fetches and (selected := selected_range(run.tags)):
            days.update(days_between(*selected))
    return days


def is_new_among_others(requested: Mapping[str, Collection[date]], cursor: Cursor) -> bool:
    """Return whether an instance is requested for the first time, and others were before.

    Then the campaigns of all days are fetched again, because a day of campaign performance is one file.
    """
    return bool(cursor.instances) and not requested.keys() <= set(cursor.instances)


def instances_metadata(rows: pa.Table, written: WriteResult) -> dict[str, Any]:
    """Return the materialization metadata, with all rows as a table."""
    records = [
        dg.TableRecord({name: str(value) if isinstance(value, date) else value for name, value in row.items()})
        for row in rows.to_pylist()
    ]
    return {
        **written_metadata(written, is_partition=False),
        # Without records Dagster cannot infer their schema.
        **({"instances": dg.MetadataValue.table(records)} if records else {}),
    }


def evaluate_listing(rows: pa.Table | None, *, configured: Sequence[str]) -> dg.AssetCheckResult:
    """Evaluate whether the API still lists every known instance; if some are configured, only those are checked."""
    names = [] if rows is None else rows["instance_id"].to_pylist()
    checked = [name for name in names if not configured or name in configured]
    unlisted = [] if rows is None else unlisted_instances(rows, configured=configured)
    return STILL_LISTED.result(
        f"No longer listed: {join_first(unlisted)}. Their files are kept. If this is expected, set"
        " LATER_INSTANCE_IDS to the instances that you want"
        if unlisted
        else "",
        otherwise=f"All known instances{' of LATER_INSTANCE_IDS' if configured else ''} are listed: {len(checked)}",
        looked_at={"instances": len(names)},
        metadata={"no_longer_listed": len(unlisted)},
    )
