"""The report asset: one HTML page about the whole lake, written again when a rollup changes."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.contract.days import expected_days
from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.metadata import code_references, package_version
from later_reporting_dagster.defs.organic_paid_periods import ROLLUPS_GROUP
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import REPORT, DefinitionSettings
from later_reporting_dagster.ingest.coverage import Files, expected_files
from later_reporting_dagster.ingest.dimensions import known_instances
from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable, WriteResult
from later_reporting_dagster.report.kpis import KPIS, NOT_AVAILABLE, VERDICTS, key_figures, kpis_markdown
from later_reporting_dagster.report.report_data import FETCHED_TABLES, QuarantinedRows, ReportData, read_report
from later_reporting_dagster.report.report_page import report_page
from later_reporting_dagster.rollups.periods import Period
from later_reporting_dagster.rollups.rollup_tables import DAILY, OVERALL, TABLES

REPORT_FILE = "report.html"
# The rollup tables that the report shows.
SHOWN_TABLES = (DAILY.name, *(table.name for table in TABLES if table.period in (Period.WINDOWS, Period.POSTS)))


def report_step(settings: DefinitionSettings) -> AssetStep:
    """Return the step of the report, which shows rollup tables, and lists which files are missing."""

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        lake = later.lake()
        try:
            data = read_report_data(lake, later, settings)
            written = lake.write_file(REPORT, REPORT_FILE, report_page(data))
        except (LakeUnavailable, FileDamaged) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info(
            f"The report as of {data.as_of} is {'written' if written.changed else 'unchanged'}: {written.url}"
        )
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(written.content_hash), metadata=report_metadata(data, written)
        )

    key = settings.asset_key(REPORT)
    spec = dg.AssetSpec(
        key,
        deps=settings.dependencies(*SHOWN_TABLES),
        description=(
            "Organic against paid on one page: the verdict, key figures, campaigns with their spend and return, posts"
            " to boost, creators, and what is missing. A single HTML file that works offline, at"
            f" `{REPORT}/{REPORT_FILE}` under the lake's root."
        ),
        group_name=ROLLUPS_GROUP,
        kinds={"html"},
        tags={"later/layer": "report"},
        metadata=code_references(report_step),
        code_version=package_version(),
        automation_condition=when_upstream_changes(key),
        freshness_policy=settings.freshness,
    )
    return AssetStep(name=settings.op_name(REPORT), specs=[spec], run=run)


def report_metadata(data: ReportData, written: WriteResult) -> dict[str, Any]:
    """Return the materialization metadata of the report: its key figures."""
    figures = key_figures(data)
    shown = (*(name for name, *_ in KPIS), *VERDICTS)
    return {
        "dagster/uri": written.url,
        "changed": written.changed,
        "as_of": str(data.as_of),
        "window": data.initial_window,
        **{name: NOT_AVAILABLE if figures[name] is None else figures[name] for name in shown},
        "preview": dg.MetadataValue.md(kpis_markdown(figures)),
    }


def read_report_data(lake: Lake, later: LaterReportingResource, settings: DefinitionSettings) -> ReportData:
    """Read the report's data from the lake.

    Raises:
        Failure: the key figures have not been materialized.
        LakeUnavailable: the lake cannot be read.
        FileDamaged: a quarantine file is damaged.
    """
    days = expected_days(datetime.now(UTC), start_date=settings.start_date, due_hour_utc=settings.due_hour_utc)
    files: Files = {name: lake.file_versions(name) for name in FETCHED_TABLES}
    instances = known_instances(lake, configured=later.configured_instances())
    data = read_report(
        lake,
        memory_gb=later.memory_gb,
        expected=expected_files(files, days, instances, tables=settings.tables),
        quarantined=_quarantined(lake),
    )
    if data is None:
        raise dg.Failure(
            f"There are no results to report on yet: fetch post_metrics_daily, then materialize {OVERALL.name}.",
            allow_retries=False,
        )
    return data


def _quarantined(lake: Lake) -> Iterator[QuarantinedRows]:
    """Yield the number of quarantined rows by table, partition and reason."""
    for table in FETCHED_TABLES:
        counts = Counter((row.partition, row.reason) for row in lake.quarantine.rows(table))
        for (partition, reason), rows in counts.items():
            day, instance_id = (partition.day, partition.instance_id) if partition else (None, None)
            yield QuarantinedRows(table, day, instance_id, reason, rows)
