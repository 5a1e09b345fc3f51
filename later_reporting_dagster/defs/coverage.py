"""The table `coverage`: which files of the fetched tables exist, which are missing, and when each was fetched."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow.compute as pc
from dagster import AssetExecutionContext

from later_reporting_dagster.contract.days import expected_days
from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.metadata import code_references, code_version, table_metadata, written_metadata
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.ingest.coverage import COVERAGE_COLUMNS, Files, expected_files, refreshed_coverage
from later_reporting_dagster.ingest.dimensions import known_instances
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, LakeUnavailable
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, INSTANCES_TABLE, RAW_TABLES

_TABLES = (*(raw_table.name for raw_table in RAW_TABLES), CAMPAIGN_PERFORMANCE_TABLE)


def coverage_step(settings: DefinitionSettings) -> AssetStep:
    """Return the step of the asset, updated when posts or campaigns change, and at the due hour."""

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        lake = later.lake()
        days = expected_days(datetime.now(UTC), start_date=settings.start_date, due_hour_utc=settings.due_hour_utc)
        try:
            files: Files = {name: lake.file_versions(name) for name in _TABLES}
            instances = known_instances(lake, configured=later.configured_instances())
            expected = expected_files(files, days, instances, tables=settings.tables)
            rows, footers_read = refreshed_coverage(lake, files, expected)
            written = lake.write_table(COVERAGE_TABLE, rows)
        except LakeUnavailable as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        missing = rows.num_rows - (pc.sum(rows["has_file"]).as_py() or 0)
        context.log.info(
            f"{rows.num_rows - missing} files and {missing} missing ones; read the footers of {footers_read} new or"
            " changed files"
        )
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(written.content_hash),
            metadata={**written_metadata(written, is_partition=False), "missing_files": missing},
        )

    key, followed = settings.asset_key(COVERAGE_TABLE), settings.dependencies(*_TABLES)
    due = f"0 {settings.due_hour_utc} * * *"
    spec = dg.AssetSpec(
        key,
        deps=settings.dependencies(*_TABLES, INSTANCES_TABLE),
        description=(
            "Each file of the tables that are fetched: its rows, and when it was first fetched and last restated; and"
            f" each file that is missing since {settings.start_date}."
        ),
        group_name="posts",
        kinds={"parquet"},
        tags={"later/layer": "dimension"},
        metadata={**table_metadata(key, COVERAGE_COLUMNS), **code_references(coverage_step)},
        code_version=code_version(COVERAGE_COLUMNS),
        automation_condition=when_upstream_changes(key, upstream=followed)
        | dg.AutomationCondition.cron_tick_passed(due),
    )
    return AssetStep(name=settings.op_name(COVERAGE_TABLE), specs=[spec], run=run)
