"""The dimension `later/instances`, and the sensor that notices new instances and requests their history."""

import asyncio
import json
from collections.abc import Collection, Iterator, Sequence, Set
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import AssetExecutionContext

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract.days import newest_day, restated_days
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.checks import checks_of, evaluation_of, first_of
from later_reporting_dagster.defs.jobs import posts_config, posts_job
from later_reporting_dagster.defs.metadata import table_metadata, written_metadata
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.instance_dimension import (
    INSTANCE_COLUMNS,
    INSTANCES,
    refreshed_instances,
    stored_instances,
    vanished_instances,
)
from later_reporting_dagster.ingest.raw_tables import SOURCES
from later_reporting_dagster.lake import Lake, LakeUnavailable, Written

INSTANCES_KEY = dg.AssetKey(["later", INSTANCES])
STILL_LISTED = "every_instance_is_still_listed"
INSTANCES_CHECKS = {STILL_LISTED: "The API lists every instance that it listed before, or that has files."}
# Dagster ends a sensor's evaluation after a minute, without saying what took so long. The lake is listed after the API.
API_TIMEOUT_SECONDS = 30.0


def instances_asset(*, start_date: date, restate_days: int) -> dg.AssetsDefinition:
    """Return the asset: one row per instance, refreshed when posts changed and every hour by the sensor."""

    @dg.asset(
        key=INSTANCES_KEY,
        deps=[dg.AssetKey(["later", source.asset]) for source in SOURCES],
        description=(
            "The instances that the credentials reach, or ever reached: when each was seen first and last, its newest"
            f" day in each raw table, and how many of the last {restate_days} days are missing."
        ),
        group_name="posts",
        kinds={"parquet"},
        tags={"later/layer": "dimension"},
        metadata=table_metadata(INSTANCES, INSTANCE_COLUMNS),
        automation_condition=when_upstream_changes(),
    )
    def instances(context: AssetExecutionContext, later: LaterReportingResource) -> dg.MaterializeResult[Any]:
        try:
            listed = asyncio.run(later.listed_instances())
            rows, written = refresh(later.lake(), listed, start_date=start_date, restate_days=restate_days)
        except (LaterError, LakeUnavailable) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        context.log.info(f"{len(listed)} instances are listed, {rows.num_rows} are known")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(written.content_hash), metadata=instances_metadata(rows, written)
        )

    return instances


def instances_checks(*, due_hour_utc: int) -> dg.AssetChecksDefinition:
    """Return the check of the dimension as it lies in the lake."""

    def evaluate(later: LaterReportingResource, _selected: Set[str]) -> Iterator[dg.AssetCheckResult]:
        if (rows := stored_instances(later.lake())) is not None:
            yield evaluate_listing(rows, named=later.named_instances())
        else:
            yield dg.AssetCheckResult(check_name=STILL_LISTED, passed=True, description="It is not there yet")

    return checks_of(
        INSTANCES_KEY, INSTANCES_CHECKS, evaluate=evaluate, due_hour_utc=due_hour_utc, daily=[STILL_LISTED]
    )


def instances_sensor(*, start_date: date, restate_days: int) -> dg.SensorDefinition:
    """Return the sensor: refreshes the dimension every hour, and requests the history of new instances in one run."""

    @dg.sensor(
        name="later_instances",
        job=posts_job,
        minimum_interval_seconds=3600,
        description=(
            "Lists the instances that the credentials reach, refreshes later/instances, and fetches the history of"
            " instances that are new in one run."
        ),
    )
    def later_instances(
        context: dg.SensorEvaluationContext, later: LaterReportingResource
    ) -> dg.SensorResult | dg.SkipReason:
        now = datetime.now(UTC)
        try:
            listed = asyncio.run(asyncio.wait_for(later.listed_instances(), API_TIMEOUT_SECONDS))
            rows, written = refresh(later.lake(), listed, start_date=start_date, restate_days=restate_days)
            named = later.named_instances()
        except TimeoutError:
            return dg.SkipReason("Timed out listing instances: trying again at the next tick.")
        except (LaterError, LakeUnavailable, ValueError) as error:
            # The trace would add nothing to what the message says.
            raise dg.DagsterError(f"The instances could not be refreshed: {error}") from None
        wanted = named or listed
        new = new_instances(wanted, cursor=context.cursor)
        newest = newest_day(now)
        requests = [
            # Without a run key, which Dagster would remember: an instance that comes back would have no history.
            dg.RunRequest(
                tags=range_tags(start_date, newest), run_config=posts_config(instances=new, only_missing=True)
            )
        ]
        return dg.SensorResult(
            run_requests=requests if new and newest >= start_date else [],
            cursor=json.dumps(sorted(wanted)) if newest >= start_date else None,
            asset_events=[
                dg.AssetMaterialization(
                    INSTANCES_KEY,
                    metadata=instances_metadata(rows, written),
                    tags={"dagster/data_version": written.content_hash},
                ),
                evaluation_of(evaluate_listing(rows, named=named), INSTANCES_KEY),
            ],
        )

    return later_instances


def refresh(lake: Lake, listed: Collection[str], *, start_date: date, restate_days: int) -> tuple[pa.Table, Written]:
    """Write the dimension as of now; return its rows and what the write came to.

    Raises:
        LakeUnavailable: the lake cannot be read or written.
    """
    now = datetime.now(UTC)
    window = restated_days(newest_day(now), start_date=start_date, restate_days=restate_days)
    rows = refreshed_instances(lake, listed, window=window, today=now.date())
    return rows, lake.write_table(INSTANCES, rows)


def new_instances(wanted: Sequence[str], *, cursor: str | None) -> list[str]:
    """Return the wanted instances that the cursor does not have, each once.

    Without a cursor all are new: their history is requested, and a run with `only_missing` fetches just what the lake
    does not hold.
    """
    try:
        known = set(json.loads(cursor)) if cursor else set()
    except (TypeError, ValueError):  # a cursor that somebody edited
        known = set()
    return [name for name in dict.fromkeys(wanted) if name not in known]


def instances_metadata(rows: pa.Table, written: Written) -> dict[str, Any]:
    """Return the dimension's metadata, with its rows as a table."""
    records = [
        dg.TableRecord({name: str(value) if isinstance(value, date) else value for name, value in row.items()})
        for row in rows.to_pylist()
    ]
    return {
        **written_metadata(written, is_partition=False),
        # Without records Dagster cannot infer their schema.
        **({"instances": dg.MetadataValue.table(records)} if records else {}),
    }


def evaluate_listing(rows: pa.Table, *, named: Sequence[str]) -> dg.AssetCheckResult:
    """Return whether the API lists every instance that it should."""
    vanished = vanished_instances(rows, named=named)
    return dg.AssetCheckResult(
        check_name=STILL_LISTED,
        passed=not vanished,
        description=(
            f"Not listed any more: {first_of(vanished)}. Their files stay. If that is meant, name the instances that"
            " you want in LATER_INSTANCE_IDS"
            if vanished
            else f"All {rows.num_rows} instances are listed"
        ),
        metadata={"instances": rows.num_rows, "vanished": len(vanished)},
        severity=dg.AssetCheckSeverity.WARN,
    )
