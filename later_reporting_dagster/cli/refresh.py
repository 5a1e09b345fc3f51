"""`later-reporting refresh`: bring what is made from the posts in the lake up to date."""

import asyncio
from collections.abc import Iterator, Set
from datetime import date, timedelta

import click
import dagster as dg

from later_reporting_dagster.cli.in_process_runs import RunOutcome, materialize
from later_reporting_dagster.cli.options import one_line
from later_reporting_dagster.cli.project import RETRY_ONCE, Project
from later_reporting_dagster.client import LaterError
from later_reporting_dagster.defs.events import code_version_of, newest_materializations
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import InvalidSetting, LaterReportingResource
from later_reporting_dagster.lake.tables import CAMPAIGNS_TABLE, INSTANCES_TABLE
from later_reporting_dagster.rollups.periods import days_of, first_day_of
from later_reporting_dagster.rollups.rollup_tables import PERIOD_TABLES, RAW_TABLE_NAMES, RollupTable

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
    if not any(raw_days.values()):
        raise click.ClickException(f"{lake.root} has no posts: fetch some with `later-reporting backfill`")
    listed = [name for name in LISTED_TABLES if name in tables]
    if listed and (problem := _api_problem(project.later)):
        click.echo(f"Not updated: {' and '.join(listed)}, which need the API: {one_line(problem)}", err=True)
    elif listed:
        yield materialize(project, listed, instance=instance)
    for table in PERIOD_TABLES:
        if table.name in tables:
            first_days = _outdated_partitions(table, raw_days[table.date_basis], project=project, instance=instance)
            # A run materializes a range.
            for first, last in _ranges(table, first_days):
                tags = range_tags(first, last, period=table.cadence)
                yield materialize(project, [table.name], instance=instance, tags=tags)
    graph = project.definitions.resolve_asset_graph()
    others = [
        name
        for name in tables
        if name not in listed and graph.get(project.settings.asset_key(name)).partitions_def is None
    ]
    if others:
        yield materialize(project, others, instance=instance)


def _api_problem(later: LaterReportingResource) -> str | None:
    """Return why the API cannot be used; None if it can."""

    async def probe() -> None:
        async with later.client(retry=RETRY_ONCE) as client:
            await client.probe()

    try:
        asyncio.run(probe())
    except (InvalidSetting, LaterError) as error:
        return str(error)
    return None


def _outdated_partitions(
    table: RollupTable, raw_days: Set[date], *, project: Project, instance: dg.DagsterInstance
) -> list[date]:
    """Return the first day of each partition that has raw files, and is missing or outdated.

    It is outdated if it was made by another code version, or if the upstream of one of its days was materialized since.
    Dagster records with a materialization its code version and, as a pointer, the newest one that it has read.
    """
    graph, key = project.definitions.resolve_asset_graph(), project.settings.asset_key(table.name)
    (upstream,) = graph.get(key).parent_keys
    upstream_ids = instance.get_latest_storage_id_by_partition(upstream, dg.DagsterEventType.ASSET_MATERIALIZATION)
    read_ids: dict[str, int] = {}
    for record in newest_materializations(instance, key):
        event = record.asset_materialization
        if event and event.tags and code_version_of(record) == graph.get(key).code_version:
            pointer = event.tags.get(f"dagster/input_event_pointer/{upstream.to_user_string()}", "")
            read_ids[str(event.partition)] = int(pointer) if pointer.isdigit() else 0
    stored = {partition.day for partition in project.later.lake().partitions(table.name)}
    days = {day for day in raw_days if day >= project.settings.start_date}
    newest_ids: dict[date, int] = {}  # of the upstream, by the first day of the partition
    for day in days:
        first = first_day_of(table.cadence, day)
        newest_ids[first] = max(newest_ids.get(first, 0), upstream_ids.get(str(day)) or 0)
    return [
        first
        for first, newest_id in sorted(newest_ids.items())
        if first not in stored or newest_id > read_ids.get(str(first), -1)
    ]


def _ranges(table: RollupTable, first_days: list[date]) -> Iterator[tuple[date, date]]:
    """Yield the first days of the first and the last partition of each block without gaps."""
    block: list[date] = []
    for first in first_days:
        if block and first != days_of(table.cadence, block[-1])[-1] + timedelta(days=1):
            yield block[0], block[-1]
            block = []
        block.append(first)
    if block:
        yield block[0], block[-1]
