"""The tables `instances` and `coverage`: what is in the lake, what is missing, and when each file was fetched."""

from collections.abc import Iterator

import dagster as dg
import pyarrow.compute as pc

from later_reporting_dagster.defs.assets.raw_tables import event_log
from later_reporting_dagster.defs.component_base import AssetEvent, ComponentBase
from later_reporting_dagster.defs.event_loop import wait_for
from later_reporting_dagster.defs.events import failures, preview, table_result
from later_reporting_dagster.ingest.progress import Progress
from later_reporting_dagster.lake.coverage import COVERAGE_COLUMNS, intact_files, update_records, write_coverage
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, INSTANCES_TABLE, POSTS_NAMES, RAW_NAMES
from later_reporting_dagster.quality.instances import INSTANCE_COLUMNS, load_instances, write_instances
from later_reporting_dagster.quality.late_posts import late_posts
from later_reporting_dagster.quality.missing_files import missing_files

LIST_NOT_KNOWN = "The API does not say which instances it lists, so LATER_INSTANCE_IDS decides alone"


def instances_asset(component: ComponentBase) -> dg.AssetsDefinition:
    """Return the dimension of instances, updated with the rollups, and every hour by the sensor of missing files."""

    @dg.multi_asset(
        **component.step(INSTANCES_TABLE),
        specs=[
            component.table_spec(
                INSTANCES_TABLE,
                INSTANCE_COLUMNS,
                deps=component.dependencies(*POSTS_NAMES),
                description=(
                    "All instances that the credentials have ever had access to: when the API listed each first and"
                    " last, its newest day in each raw table, and how many days since the start date are"
                    " missing."
                ),
                group_name="inventory",
                kinds={"later"},
                tags={"later/layer": "dimension"},
            )
        ],
    )
    def instances(context: dg.AssetExecutionContext) -> Iterator[AssetEvent]:
        yield from component.execute(context, list_instances(context, component))

    return instances


def list_instances(context: dg.AssetExecutionContext, component: ComponentBase) -> Iterator[AssetEvent]:
    """Fetch the list of instances, and update the dimension."""
    later, now = component.later(context), component.now()
    with failures():
        log = event_log(context, Progress(INSTANCES_TABLE))
        listed = wait_for(lambda: later.listed_instances(on_event=log))
        lake = later.lake()
        files, days = intact_files(lake, POSTS_NAMES), component.expected_days(now)
        stale = late_posts(lake, days=component.settled_days(now)).stale
        instances = load_instances(lake, configured=later.configured_instances(), listed=listed, files=files)
        rows, written = write_instances(lake, instances, files=files, stale=stale, days=days, today=now.date())
        if listed is None:
            later.fetches.append(Progress(INSTANCES_TABLE, warnings=[LIST_NOT_KNOWN]))
            context.log.warning(LIST_NOT_KNOWN)
        else:
            context.log.info(f"The API lists {len(listed)} of {rows.num_rows} known instances")
        yield table_result(written, {"instances": preview(rows, limit=rows.num_rows)})


def coverage_asset(component: ComponentBase) -> dg.AssetsDefinition:
    """Return the table of all files that exist or are missing, updated with the rollups, and at the due hour."""

    @dg.multi_asset(
        **component.step(COVERAGE_TABLE),
        specs=[
            component.table_spec(
                COVERAGE_TABLE,
                COVERAGE_COLUMNS,
                deps=component.dependencies(*RAW_NAMES, INSTANCES_TABLE),
                description=(
                    "Each file of the tables that are fetched: its rows, when it was first fetched and last restated;"
                    " and each file that is missing since the start date."
                ),
                group_name="inventory",
                tags={"later/layer": "dimension"},
            )
        ],
    )
    def coverage(context: dg.AssetExecutionContext) -> Iterator[AssetEvent]:
        yield from component.execute(context, list_files(context, component))

    return coverage


def list_files(context: dg.AssetExecutionContext, component: ComponentBase) -> Iterator[AssetEvent]:
    """List all files of the tables that are fetched, and write what is known of them."""
    later = component.later(context)
    with failures():
        lake, now = later.lake(), component.now()
        days = component.expected_days(now)
        files = {name: lake.file_versions(name) for name in RAW_NAMES}
        instances = sorted(load_instances(lake, configured=later.configured_instances(), files=files).expected)
        missing_by_table = {
            name: missing_files(name, days=days, instances=instances, present=of_table)
            for name, of_table in files.items()
            if name in component.tables
        }
        update = update_records(lake, files, missing_by_table)
        table = update.table
        written, version = write_coverage(lake, update, table, today=now.date())
        for damaged in update.damaged:
            context.log.warning(str(damaged))
        missing = pc.sum(pc.invert(table["has_file"])).as_py() or 0
        context.log.info(
            f"{table.num_rows - missing} files and {missing} missing ones; read the footers of"
            f" {sum(map(len, update.changed.values()))} new or changed files"
        )
        yield table_result(written, {"missing_files": missing}, data_version=version)
