"""`later-reporting refresh`: bring what is made from the posts in the lake up to date."""

import asyncio
from collections.abc import Iterator, Set
from datetime import date

import click
import dagster as dg

from later_reporting_dagster.cli.in_process_runs import RunOutcome, materialize
from later_reporting_dagster.cli.project import RETRY_ONCE, Project
from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract.safe_line import one_line
from later_reporting_dagster.defs.events import code_version_of, newest_materializations
from later_reporting_dagster.defs.partitions import RANGE_END_TAG, RANGE_START_TAG, blocks_of
from later_reporting_dagster.defs.resource import InvalidSetting, LaterReportingResource
from later_reporting_dagster.lake.tables import CAMPAIGNS_TABLE, INSTANCES_TABLE
from later_reporting_dagster.rollups.rollup_tables import (
    PERIOD_TABLES,
    RAW_TABLE_NAMES,
    SINGLE_TABLES,
    RollupTable,
    first_day_of,
)

# They are made from the API's lists, which cost a request per 100 instances or campaigns.
LISTED_TABLES = (INSTANCES_TABLE, CAMPAIGNS_TABLE)


def refresh_all(project: Project, *, instance: dg.DagsterInstance) -> Iterator[RunOutcome]:
    """Materialize everything but posts and days of campaigns, upstream first; yield the outcome of each run.

    Days, weeks and months only if they are missing or outdated. If the API cannot be used, a line says so, and the
    tables of its lists stay as they are.
    """
    tables, lake = project.settings.tables, project.later.lake()
    raw_days = {
        date_basis: {partition.day for partition in lake.partitions(name)}
        for date_basis, name in RAW_TABLE_NAMES.items()
    }
    has_posts = any(raw_days.values())
    if not has_posts:
        click.echo(f"{lake.root} has no posts, so there are no rollups: fetch some with `later-reporting backfill`")
    listed = [name for name in LISTED_TABLES if name in tables]
    if listed:
        try:
            asyncio.run(_probe(project.later))
        except (InvalidSetting, LaterError) as error:
            names = " and ".join(listed)
            click.echo(f"Not updated: {names}, which need the API: {one_line(str(error))}", err=True)
        else:
            yield materialize(project, listed, instance=instance)
    for table in PERIOD_TABLES:
        if table.name in tables:
            for block in _outdated_blocks(table, raw_days[table.date_basis], project=project, instance=instance):
                # A run materializes a range.
                tags = {RANGE_START_TAG: block[0], RANGE_END_TAG: block[-1]}
                yield materialize(project, [table.name], instance=instance, tags=tags)
    graph = project.definitions.resolve_asset_graph()
    left_out = {*listed, *(() if has_posts else (table.name for table in SINGLE_TABLES))}
    others = [
        name
        for name in tables
        if name not in left_out and graph.get(project.settings.asset_key(name)).partitions_def is None
    ]
    if others:
        yield materialize(project, others, instance=instance)


async def _probe(later: LaterReportingResource) -> None:
    async with later.client(retry=RETRY_ONCE) as client:
        await client.probe()


def _outdated_blocks(
    table: RollupTable, raw_days: Set[date], *, project: Project, instance: dg.DagsterInstance
) -> list[list[str]]:
    """Return the partitions that have raw files and are missing or outdated, in blocks without gaps.

    It is outdated if it was made by another code version, or if the upstream of one of its days was materialized since.
    Dagster records with a materialization its code version and, as a pointer, the newest one that it has read.
    """
    graph, key = project.definitions.resolve_asset_graph(), project.settings.asset_key(table.name)
    asset = graph.get(key)
    (upstream,) = asset.parent_keys
    upstream_ids = instance.get_latest_storage_id_by_partition(upstream, dg.DagsterEventType.ASSET_MATERIALIZATION)
    read_ids: dict[str, int] = {}
    for record in newest_materializations(instance, key):
        event = record.asset_materialization
        if event and event.tags and code_version_of(record) == asset.code_version:
            pointer = event.tags.get(f"dagster/input_event_pointer/{upstream.to_user_string()}", "")
            read_ids[str(event.partition)] = int(pointer) if pointer.isdigit() else 0
    stored = {str(partition.day) for partition in project.later.lake().partitions(table.name)}
    newest_ids: dict[str, int] = {}  # of the upstream, by partition
    for day in raw_days:
        if day >= project.settings.start_date:
            partition = str(first_day_of(table.cadence, day))
            newest_ids[partition] = max(newest_ids.get(partition, 0), upstream_ids.get(str(day)) or 0)
    outdated = {
        partition
        for partition, newest_id in newest_ids.items()
        if partition not in stored or newest_id > read_ids.get(partition, -1)
    }
    assert asset.partitions_def is not None
    return blocks_of(asset.partitions_def.get_partition_keys(), outdated)
