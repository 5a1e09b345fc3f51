"""The report asset: one HTML page about the whole lake, written again when a rollup changes."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.metadata import code_references, package_version
from later_reporting_dagster.defs.organic_paid_periods import ROLLUPS_GROUP
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import REPORT, DefinitionSettings
from later_reporting_dagster.ingest.instance_dimension import known_instances
from later_reporting_dagster.lake import (
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGNS_TABLE,
    FileDamaged,
    Lake,
    LakeUnavailable,
    WriteResult,
)
from later_reporting_dagster.report.kpis import NOT_AVAILABLE, kpis_markdown, lift_interval, report_kpis
from later_reporting_dagster.report.report_data import (
    METRICS_TABLE,
    PUBLISHED_TABLE,
    QuarantinedRows,
    ReportData,
    read_report,
)
from later_reporting_dagster.report.report_page import report_page
from later_reporting_dagster.rollups.rollup_tables import DAY_TABLES
from later_reporting_dagster.rollups.sql_engine import RollupFailed

REPORT_FILE = "report.html"
TABLES = (METRICS_TABLE, PUBLISHED_TABLE)


def report_step(settings: DefinitionSettings) -> AssetStep:
    """Return the step of the report, which follows the rollups by day and the campaigns, and reads the raw tables."""

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        lake = later.lake()
        try:
            data = read_report_data(lake, later)
            written = lake.write_file(REPORT, REPORT_FILE, report_page(data))
        except (LakeUnavailable, FileDamaged, RollupFailed) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info(
            f"The report as of {data.as_of} is {'written' if written.changed else 'unchanged'}: {written.url}"
        )
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(written.content_hash), metadata=report_metadata(data, written)
        )

    followed = [*(table.name for table in DAY_TABLES), CAMPAIGNS_TABLE, CAMPAIGN_PERFORMANCE_TABLE]
    key = settings.asset_key(REPORT)
    spec = dg.AssetSpec(
        key,
        deps=settings.dependencies(*followed, *TABLES),
        description=(
            "Organic against paid on one page: key figures and their change, days, platforms, campaigns with"
            " their spend and return, creators, and missing data. A single HTML file that works offline, at"
            f" `{REPORT}/{REPORT_FILE}` under the lake's root."
        ),
        group_name=ROLLUPS_GROUP,
        kinds={"html"},
        tags={"later/layer": "report"},
        metadata=code_references(report_step),
        code_version=package_version(),
        automation_condition=when_upstream_changes(key, upstream=settings.dependencies(*followed)),
        freshness_policy=settings.freshness,
    )
    return AssetStep(name=settings.op_name(REPORT), specs=[spec], run=run)


def report_metadata(data: ReportData, written: WriteResult) -> dict[str, Any]:
    """Return the materialization metadata of the report: its key figures."""
    kpis = report_kpis(data)
    return {
        "dagster/uri": written.url,
        "changed": written.changed,
        "as_of": str(data.as_of),
        "period_days": data.initial_period,
        **{kpi.name: NOT_AVAILABLE if kpi.value is None else kpi.value for kpi in kpis},
        **{name: NOT_AVAILABLE if value is None else value for name, value in lift_interval(data).items()},
        "preview": dg.MetadataValue.md(kpis_markdown(kpis)),
    }


def read_report_data(lake: Lake, later: LaterReportingResource) -> ReportData:
    """Read the report's data from the lake. Damaged files of posts do not fail the report: the page lists them.

    Raises:
        Failure: the raw tables are empty.
        LakeUnavailable: the lake cannot be read.
        FileDamaged: a quarantine file is damaged.
        RollupFailed: the work does not fit in memory.
    """
    partitions = {table: lake.partitions(table) for table in TABLES}
    if not any(partitions.values()):
        raise dg.Failure(
            f"There are no posts to report on yet: materialize {' and '.join(TABLES)} first.", allow_retries=False
        )
    return read_report(
        lake,
        partitions,
        memory_gb=later.memory_limit_gb(),
        metrics=later.selected_metrics(),
        registered=known_instances(lake, configured=later.configured_instances()),
        quarantined=_quarantined(lake),
    )


def _quarantined(lake: Lake) -> Iterator[QuarantinedRows]:
    """Yield the number of quarantined rows by table, partition and reason."""
    for table in TABLES:
        counts = Counter((row.partition, row.reason) for row in lake.quarantine.rows(table))
        for (partition, reason), rows in counts.items():
            day, instance_id = (partition.day, partition.instance_id) if partition else (None, None)
            yield QuarantinedRows(table, day, instance_id, reason, rows)
