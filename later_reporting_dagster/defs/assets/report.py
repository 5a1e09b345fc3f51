"""The report asset: one HTML page about the whole lake, written again when a rollup changes."""

from collections import Counter
from collections.abc import Collection, Iterator
from datetime import date
from typing import Any

import dagster as dg
import pyarrow.compute as pc

from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.contract.instances import Instances
from later_reporting_dagster.defs.component_base import AssetEvent, ComponentBase
from later_reporting_dagster.defs.events import failures, written_metadata
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.lake.coverage import intact_files, last_requested_at, stored_coverage
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, POST_METRICS_DAILY, RAW_NAMES
from later_reporting_dagster.quality.instances import describe_not_expected, load_instances
from later_reporting_dagster.quality.late_posts import describe_stale, late_posts
from later_reporting_dagster.quality.missing_files import missing_files
from later_reporting_dagster.quality.outdated import Outdated, describe_outdated, outdated, report_inputs
from later_reporting_dagster.report.report_data import (
    FETCHED_TABLES,
    REPORT,
    REPORT_FILE,
    SHOWN_TABLES,
    QuarantinedRows,
    read_report,
)
from later_reporting_dagster.report.report_page import REPORT_DEFINITION, empty_report_page, report_page, with_made_from
from later_reporting_dagster.rollups.rollup_tables import OVERALL, TABLES

# Of so many stale files, the page says why.
_MOST_STALE = 3


def report_asset(component: ComponentBase) -> dg.AssetsDefinition:
    """Return the report. It shows rollup tables, and lists which files are missing."""
    key = component.asset_key(REPORT)
    spec = dg.AssetSpec(
        key,
        deps=component.dependencies(*SHOWN_TABLES, COVERAGE_TABLE),
        description=(
            "Organic and paid results on one page: a sentence and five figures, what is missing, campaigns with their"
            " cost and return, creators to book again, posts to boost, and months. A single HTML file that works"
            f" offline, at `{REPORT}/{REPORT_FILE}` under the lake's root; `report` in the metadata is its location."
        ),
        group_name="organic_paid",
        kinds={"html"},
        tags={"later/layer": "report"},
        code_version=str(REPORT_DEFINITION),
        freshness_policy=component.freshness,
    )

    @dg.multi_asset(**component.step(REPORT), specs=[component.spec(spec)])
    def report(context: dg.AssetExecutionContext) -> Iterator[AssetEvent]:
        yield from component.execute(context, write_report(context, component))

    return report


def write_report(context: dg.AssetExecutionContext, component: ComponentBase) -> Iterator[AssetEvent]:
    """Write the page again."""
    later = component.later(context)
    with failures():
        lake, now = later.lake(), component.now()
        days = component.expected_days(now)
        made_from = report_inputs(lake)
        stored = stored_coverage(lake)
        files = intact_files(lake, RAW_NAMES, stored=stored, reads_footers=False)
        instances = load_instances(lake, configured=later.configured_instances(), files=files)
        data = read_report(
            lake,
            memory_gb=later.memory_gb,
            missing={
                name: missing_files(
                    name, days=days, instances=sorted(instances.expected | instances.in_numbers), present=of_table
                )
                for name, of_table in files.items()
                if name in component.tables
            },
            quarantined=[*_quarantined(lake, instances)],
            outdated=[
                *_outdated_tables(lake, component),
                *_stale_files(lake, component.settled_days(now)),
                *(f"{text}." for text in [describe_not_expected(instances, files=files)] if text),
            ],
            labels=later.labels(),
            is_demo=later.demo_mode,
            fetched_at=pc.max(last_requested_at(stored)).as_py(),
        )
        metadata: dict[str, Any] = {}
        if data is None:
            posts, rollup = (
                component.asset_key(name).to_user_string() for name in (POST_METRICS_DAILY.name, OVERALL.name)
            )
            message = (
                f"There are no results to report on yet: fetch days of {posts}, then materialize {rollup}; or use"
                " `later-reporting backfill`, then `later-reporting refresh`."
            )
            context.log.warning(message)
            page = empty_report_page(message)
        else:
            page = report_page(data)
            figures = {name: "not available" if value is None else value for name, value in data.key_figures.items()}
            metadata = {"as_of": str(data.as_of), "window": data.initial_window, **figures}
        written = lake.write_file(REPORT, REPORT_FILE, with_made_from(page, made_from))
        context.log.info(f"The report is {'written' if written.changed else 'unchanged'}: {written.url}")
        metadata |= {"report": dg.MetadataValue.path(written.url), **written_metadata(written)}
        yield dg.MaterializeResult(data_version=dg.DataVersion(written.content_hash), metadata=metadata)


def _outdated_tables(lake: Lake, component: ComponentBase) -> list[str]:
    """Return a sentence for each table on the page that has to be made again."""
    tables = [table for table in component.rollups(TABLES) if table.name in SHOWN_TABLES]
    newest = newest_day(component.now())
    by_table: dict[str, list[Outdated]] = {}
    for file in outdated(lake, tables, start_date=component.start_date, newest_day=newest):
        by_table.setdefault(file.table, []).append(file)
    return [f"Outdated: {describe_outdated(files)}." for files in by_table.values()]


def _stale_files(lake: Lake, days: Collection[date]) -> Iterator[str]:
    """Yield a sentence about the files that are fetched again, if there are any."""
    if stale := late_posts(lake, days=days).stale:
        yield f"Published posts: {describe_stale(stale, most=_MOST_STALE)}."


def _quarantined(lake: Lake, instances: Instances) -> Iterator[QuarantinedRows]:
    for table in FETCHED_TABLES:
        counts = Counter((row.partition, row.reason) for row in lake.quarantine.rows(table))
        for (partition, reason), rows in counts.items():
            day, instance_id = (partition.day, partition.instance_id) if partition else (None, None)
            if instances.marks.is_in_numbers(instance_id):
                yield QuarantinedRows(table, day, instance_id, reason, rows)
