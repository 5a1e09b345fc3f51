"""The report asset: one page on all that lies in the lake, written anew when a rollup changed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.organic_paid_periods import ROLLUPS_GROUP, rollup_key
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.instance_dimension import known_instances
from later_reporting_dagster.lake import Lake, LakeUnavailable, PartitionDamaged
from later_reporting_dagster.report.kpis import NOT_AVAILABLE, headlines, headlines_in_markdown, lift_interval
from later_reporting_dagster.report.report_data import METRICS_TABLE, PUBLISHED_TABLE, ReportData, SetAside, read_report
from later_reporting_dagster.report.report_page import report_page
from later_reporting_dagster.rollups.rollup_tables import RolledUp
from later_reporting_dagster.rollups.sql_engine import RAW, RollupFailed

REPORT = "organic_paid_report"
REPORT_FILE = "report.html"
TABLES = (METRICS_TABLE, PUBLISHED_TABLE)


def report_asset(rollups: Sequence[RolledUp], *, freshness: dg.FreshnessPolicy) -> dg.AssetsDefinition:
    """Return the asset. It follows the rollups, and reads the posts too: creators are in no daily rollup."""

    @dg.asset(
        key=["later", REPORT],
        deps=[dg.AssetKey(["later", asset]) for rollup in rollups for asset in (rollup.name, RAW[rollup.bases[0]])],
        description=(
            "Organic against paid as a page to look at and to forward: headline figures with their change, days,"
            " platforms, campaigns with the bounds of their spend, creators, and what is missing. One HTML file that"
            f" needs no network, at `{REPORT}/{REPORT_FILE}` below the lake's root."
        ),
        group_name=ROLLUPS_GROUP,
        kinds={"html"},
        automation_condition=when_upstream_changes(*(rollup_key(rollup) for rollup in rollups)),
        freshness_policy=freshness,
    )
    def organic_paid_report(context: AssetExecutionContext, later: LaterReportingResource) -> dg.MaterializeResult[Any]:
        lake = later.lake()
        try:
            data = read(lake, later)
            written = lake.write_file(REPORT, REPORT_FILE, report_page(data))
        except (LakeUnavailable, PartitionDamaged, RollupFailed) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info(
            f"The report as of {data.as_of} is {'written' if written.changed else 'unchanged'}: {written.url}"
        )
        found = headlines(data)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(written.content_hash),
            metadata={
                "dagster/uri": written.url,
                "changed": written.changed,
                "as_of": str(data.as_of),
                "period_days": data.period,
                **{headline.name: NOT_AVAILABLE if headline.value is None else headline.value for headline in found},
                **{name: NOT_AVAILABLE if value is None else value for name, value in lift_interval(data).items()},
                "preview": dg.MetadataValue.md(headlines_in_markdown(found)),
            },
        )

    return organic_paid_report


def read(lake: Lake, later: LaterReportingResource) -> ReportData:
    """Return what the lake holds to report on. A damaged file is named on the page, and stops nothing.

    Raises:
        Failure: nothing has landed yet.
        LakeUnavailable: the lake cannot be read: what is there for a moment only makes no report.
        PartitionDamaged: a quarantine file is not what it should be.
        RollupFailed: a sum does not fit its column, or the work its memory.
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
        registered=known_instances(lake, named=later.named_instances()),
        set_aside=_set_aside(lake),
    )


def _set_aside(lake: Lake) -> Iterator[SetAside]:
    for table in TABLES:
        places = Counter((row.partition, row.reason) for row in lake.quarantine.rows(table))
        for (partition, reason), rows in places.items():
            day, instance_id = (partition.day, partition.instance_id) if partition else (None, None)
            yield SetAside(table, day, instance_id, reason, rows)
