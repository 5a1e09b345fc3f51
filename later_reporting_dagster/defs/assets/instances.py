"""The tables `instances` and `coverage`: what is in the lake, what is missing, and when each file was fetched."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow.compute as pc
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.asset_steps import AssetStep, table_spec
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.component_settings import ComponentSettings
from later_reporting_dagster.defs.events import preview, table_result
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, FETCHED_NAMES, INSTANCES_TABLE, RAW_NAMES
from later_reporting_dagster.quality.coverage import COVERAGE_COLUMNS, refreshed_coverage, stored_and_expected_files
from later_reporting_dagster.quality.instances import INSTANCE_COLUMNS, current_instances


def instances_steps(settings: ComponentSettings) -> list[AssetStep]:
    """Return the steps of the two tables, if they are defined."""
    steps = {INSTANCES_TABLE: instances_step, COVERAGE_TABLE: coverage_step}
    return [step(settings) for name, step in steps.items() if name in settings.tables]


def instances_step(settings: ComponentSettings) -> AssetStep:
    """Return the step of the asset: one row per instance, updated when posts change, and every hour by the sensor."""

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        listed = asyncio.run(later.listed_instances())
        lake, configured, now = later.lake(), later.configured_instances(), datetime.now(UTC)
        days = settings.expected_days(now)
        rows, _ = current_instances(lake, listed, configured=configured, days=days, today=now.date())
        context.log.info(f"The API lists {len(listed)} of {rows.num_rows} known instances")
        written = lake.write_table(INSTANCES_TABLE, rows)
        yield table_result(written, {"instances": preview(rows, limit=rows.num_rows)})

    spec = table_spec(
        settings,
        INSTANCES_TABLE,
        INSTANCE_COLUMNS,
        deps=settings.dependencies(*RAW_NAMES),
        description=(
            "All instances that the credentials have ever had access to: when the API listed each first and last, its"
            f" newest day in each raw table, and how many days since {settings.start_date} are missing."
        ),
        group_name="posts",
        tags={"later/layer": "dimension"},
        automation_condition=when_upstream_changes(settings.asset_key(INSTANCES_TABLE)),
    )
    return AssetStep(name=settings.op_name(INSTANCES_TABLE), specs=[spec], run=run)


def coverage_step(settings: ComponentSettings) -> AssetStep:
    """Return the step of the asset, updated when posts or campaigns change, and at the due hour."""

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        lake = later.lake()
        days = settings.expected_days(datetime.now(UTC))
        files, expected = stored_and_expected_files(
            lake, days, configured=later.configured_instances(), tables=settings.tables
        )
        rows, footers_read = refreshed_coverage(lake, files, expected)
        missing = rows.num_rows - (pc.sum(rows["has_file"]).as_py() or 0)
        context.log.info(
            f"{rows.num_rows - missing} files and {missing} missing ones; read the footers of {footers_read} new or"
            " changed files"
        )
        yield table_result(lake.write_table(COVERAGE_TABLE, rows), {"missing_files": missing})

    key, followed = settings.asset_key(COVERAGE_TABLE), settings.dependencies(*FETCHED_NAMES)
    due = dg.AutomationCondition.cron_tick_passed(settings.due_cron)
    spec = table_spec(
        settings,
        COVERAGE_TABLE,
        COVERAGE_COLUMNS,
        deps=settings.dependencies(*FETCHED_NAMES, INSTANCES_TABLE),
        description=(
            "Each file of the tables that are fetched: its rows, and when it was first fetched and last restated; and"
            f" each file that is missing since {settings.start_date}."
        ),
        group_name="posts",
        tags={"later/layer": "dimension"},
        automation_condition=when_upstream_changes(key, upstream=followed) | due,
    )
    return AssetStep(name=settings.op_name(COVERAGE_TABLE), specs=[spec], run=run)
