"""The dimension table `instances`, its check, and the sensor that fetches the history of new instances."""

import asyncio
import json
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import AssetExecutionContext

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract.days import newest_day, restated_days
from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.checks import CheckScope, build_asset_checks, join_first, to_evaluation
from later_reporting_dagster.defs.jobs import history_run_config
from later_reporting_dagster.defs.materializations import version_tags
from later_reporting_dagster.defs.metadata import code_references, code_version, table_metadata, written_metadata
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.ingest.instance_dimension import (
    INSTANCE_COLUMNS,
    INSTANCES_TABLE,
    refreshed_instances,
    stored_instances,
    unlisted_instances,
)
from later_reporting_dagster.ingest.raw_tables import RAW_TABLES
from later_reporting_dagster.lake import Lake, LakeUnavailable, WriteResult

STILL_LISTED = "every_instance_is_still_listed"
INSTANCES_CHECKS = {
    STILL_LISTED: (
        "The API still lists every instance that it has listed before or that has files. If LATER_INSTANCE_IDS is set,"
        " only the instances in it are checked."
    )
}
# Dagster ends a sensor's evaluation after 60 seconds without naming the cause. This leaves 30 for the lake.
API_TIMEOUT_SECONDS = 30.0


def instances_step(settings: DefinitionSettings) -> AssetStep:
    """Return the step of the asset: one row per instance, updated when posts change, and every hour by the sensor."""

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        try:
            listed = asyncio.run(later.listed_instances())
            rows, written = refresh_instances(later.lake(), listed, settings)
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
            f" newest day in each raw table, and how many of the last {settings.restate_days} days are missing."
        ),
        group_name="posts",
        kinds={"parquet"},
        tags={"later/layer": "dimension"},
        metadata={**table_metadata(key, INSTANCE_COLUMNS), **code_references(instances_step)},
        code_version=code_version(INSTANCE_COLUMNS),
        automation_condition=when_upstream_changes(),
    )
    return AssetStep(name=settings.op_name(INSTANCES_TABLE), specs=[spec], run=run)


def build_instances_checks(settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return the check of the stored dimension table."""

    def evaluate(later: LaterReportingResource, _scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        if (rows := stored_instances(later.lake())) is not None:
            yield evaluate_listing(rows, configured=later.configured_instances())
        else:
            yield dg.AssetCheckResult(check_name=STILL_LISTED, passed=True, description="Not materialized yet")

    return build_asset_checks(
        INSTANCES_TABLE, INSTANCES_CHECKS, evaluate=evaluate, settings=settings, daily=[STILL_LISTED]
    )


def build_instances_sensor(settings: DefinitionSettings, posts_job: Any) -> dg.SensorDefinition:
    """Return the sensor: updates the dimension every hour, and fetches the history of new instances in one run."""
    key, start_date = settings.asset_key(INSTANCES_TABLE), settings.start_date

    @dg.sensor(
        name=f"{settings.name}_instances",
        job=posts_job,
        minimum_interval_seconds=3600,
        required_resource_keys={settings.resource_key},
        description=(
            f"Lists the instances that the credentials have access to, updates {key.to_user_string()}, and fetches the"
            " history of new instances in one run."
        ),
    )
    def instances_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        later: LaterReportingResource = getattr(context.resources, settings.resource_key)
        now = datetime.now(UTC)
        try:
            listed = asyncio.run(asyncio.wait_for(later.listed_instances(), API_TIMEOUT_SECONDS))
            rows, written = refresh_instances(later.lake(), listed, settings)
            configured = later.configured_instances()
        except TimeoutError:
            return dg.SkipReason("Timed out listing instances; retrying at the next tick.")
        except (LaterError, LakeUnavailable, ValueError) as error:
            # The message is complete; a stack trace would hide it.
            raise dg.DagsterError(f"Updating the instances failed: {error}") from None
        instance_ids = configured or listed
        new = new_instances(instance_ids, cursor=context.cursor)
        newest = newest_day(now)
        # No run key: Dagster runs each key once, so the history of an instance that returns would not be fetched.
        request = dg.RunRequest(
            tags=range_tags(start_date, newest),
            run_config=history_run_config(settings, instances=new, all_new=len(new) == len(set(instance_ids))),
        )
        tags = version_tags(written.content_hash, code_version=code_version(INSTANCE_COLUMNS))
        return dg.SensorResult(
            run_requests=[request] if new and newest >= start_date else [],
            cursor=json.dumps(sorted(instance_ids)) if newest >= start_date else None,
            asset_events=[
                dg.AssetMaterialization(key, metadata=instances_metadata(rows, written), tags=tags),
                to_evaluation(evaluate_listing(rows, configured=configured), key),
            ],
        )

    return instances_sensor


def refresh_instances(
    lake: Lake, listed: Collection[str], settings: DefinitionSettings
) -> tuple[pa.Table, WriteResult]:
    """Update the dimension table; return its rows and the result of the write.

    Raises:
        LakeUnavailable: the lake cannot be read or written.
    """
    now = datetime.now(UTC)
    restated = restated_days(newest_day(now), start_date=settings.start_date, restate_days=settings.restate_days)
    rows = refreshed_instances(lake, listed, restated_days=restated, today=now.date())
    return rows, lake.write_table(INSTANCES_TABLE, rows)


def new_instances(instance_ids: Sequence[str], *, cursor: str | None) -> list[str]:
    """Return the instances that are not in the sensor's cursor, without duplicates.

    Without a cursor, all are new. The run that fetches their history requests only missing files.
    """
    try:
        known = set(json.loads(cursor)) if cursor else set()
    except (TypeError, ValueError):  # the cursor can be edited in the UI
        known = set()
    return [name for name in dict.fromkeys(instance_ids) if name not in known]


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


def evaluate_listing(rows: pa.Table, *, configured: Sequence[str]) -> dg.AssetCheckResult:
    """Evaluate whether the API still lists every known instance; if some are configured, only those are checked."""
    checked = [name for name in rows["instance_id"].to_pylist() if not configured or name in configured]
    of_setting = " of LATER_INSTANCE_IDS" if configured else ""
    unlisted = unlisted_instances(rows, configured=configured)
    return dg.AssetCheckResult(
        check_name=STILL_LISTED,
        passed=not unlisted,
        description=(
            f"No longer listed: {join_first(unlisted)}. Their files are kept. If this is expected, set"
            " LATER_INSTANCE_IDS to the instances that you want"
            if unlisted
            else f"All known instances{of_setting} are listed: {len(checked)}"
        ),
        metadata={"instances": rows.num_rows, "no_longer_listed": len(unlisted)},
        severity=dg.AssetCheckSeverity.WARN,
    )
