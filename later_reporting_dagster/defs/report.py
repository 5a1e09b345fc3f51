"""The report asset: one HTML page about the whole lake, written again when a rollup changes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.organic_paid_periods import ROLLUPS_GROUP, rollup_key
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.instance_dimension import known_instances
from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable
from later_reporting_dagster.report.kpis import NOT_AVAILABLE, kpis_markdown, lift_interval, report_kpis
from later_reporting_dagster.report.report_data import (
    METRICS_TABLE,
    PUBLISHED_TABLE,
    QuarantinedRows,
    ReportData,
    read_report,
)
from later_reporting_dagster.report.report_page import report_page
from later_reporting_dagster.rollups.rollup_tables import RollupTable
from later_reporting_dagster.rollups.sql_engine import RAW_TABLE_NAMES, RollupFailed

REPORT = "organic_paid_report"
REPORT_FILE = "report.html"
TABLES = (METRICS_TABLE, PUBLISHED_TABLE)


def build_report_asset(rollups: Sequence[RollupTable], *, freshness: dg.FreshnessPolicy) -> dg.AssetsDefinition:
    """Return the report asset. It follows the rollups, and also reads the raw tables, which have the creators."""

    @dg.asset(
        key=["later", REPORT],
        deps=[
            dg.AssetKey(["later", name])
            for rollup in rollups
            for name in (rollup.name, RAW_TABLE_NAMES[rollup.date_bases[0]])
        ],
        description=(
            "Organic against paid on one page: key figures and their change, days, platforms, campaigns with the"
            " bounds of their spend, creators, and missing data. A single HTML file that works offline, at"
            f" `{REPORT}/{REPORT_FILE}` under the lake's root."
        ),
        group_name=ROLLUPS_GROUP,
        kinds={"html"},
        automation_condition=when_upstream_changes(*(rollup_key(rollup) for rollup in rollups)),
        freshness_policy=freshness,
    )
    def organic_paid_report(context: AssetExecutionContext, later: LaterReportingResource) -> dg.MaterializeResult[Any]:
        lake = later.lake()
        try:
            data = read_report_data(lake, later)
            written = lake.write_file(REPORT, REPORT_FILE, report_page(data))
        except (LakeUnavailable, FileDamaged, RollupFailed) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info(
            f"The report as of {data.as_of} is {'written' if written.changed else 'unchanged'}: {written.url}"
        )
        kpis = report_kpis(data)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(written.content_hash),
            metadata={
                "dagster/uri": written.url,
                "changed": written.changed,
                "as_of": str(data.as_of),
                "period_days": data.initial_period,
                **{kpi.name: NOT_AVAILABLE if kpi.value is None else kpi.value for kpi in kpis},
                **{name: NOT_AVAILABLE if value is None else value for name, value in lift_interval(data).items()},
                "preview": dg.MetadataValue.md(kpis_markdown(kpis)),
            },
        )

    return organic_paid_report


def read_report_data(lake: Lake, later: LaterReportingResource) -> ReportData:
    """Read the report's data from the lake. Damaged files of posts do not fail the report: the page lists them.

    Raises:
        Failure: the raw tables are empty.
        LakeUnavailable: the lake cannot be read.
        FileDamaged: a quarantine file is damaged.
        RollupFailed: a sum does not fit its column, or the work does not fit in memory.
    """
    partitions = {table: lake.partitions(table) for table in TABLES}
    if not any(partitions.values()):
        raise dg.Failure(
            "There are no posts to report on yet: materialize"
            f" {' and '.join(f'later/{table}' for table in TABLES)} first.",
            allow_retries=False,
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
