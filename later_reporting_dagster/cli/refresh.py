"""`later-reporting refresh`: materialize what is made from the lake, and is missing or outdated."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import date, timedelta
from functools import cache

import click
import dagster as dg

from later_reporting_dagster.cli.in_process_runs import RunOutcome, materialize
from later_reporting_dagster.cli.project import Project
from later_reporting_dagster.cli.terminal_text import one_line
from later_reporting_dagster.client import LaterError, RetryPolicy
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.resource import InvalidSetting, LaterReportingResource
from later_reporting_dagster.defs.settings import ASSET_NAMES
from later_reporting_dagster.ingest.coverage import COVERAGE_TABLE
from later_reporting_dagster.ingest.dimensions import INSTANCES_TABLE
from later_reporting_dagster.lake import CAMPAIGNS_TABLE
from later_reporting_dagster.rollups.periods import Period, days_of, first_day_of
from later_reporting_dagster.rollups.rollup_tables import (
    DAY_TABLES,
    RAW_TABLE_NAMES,
    WEEK_AND_MONTH_TABLES,
    RollupTable,
)

# They are made from the API's lists, which cost a request per 100 instances or campaigns.
LISTED_TABLES = (INSTANCES_TABLE, CAMPAIGNS_TABLE)
_PERIOD_TABLES = (*DAY_TABLES, *WEEK_AND_MONTH_TABLES)
_RECORDS_PER_QUERY = 500


def refresh_all(project: Project, *, instance: dg.DagsterInstance) -> Iterator[RunOutcome]:
    """Materialize the derived assets that are missing or outdated, upstream first; yield the outcome of each run.

    The tables of the API's lists are always updated. If the API cannot be used, a line says so, and they stay as they
    are.

    Raises:
        click.ClickException: the lake has no posts.
        LakeUnavailable: the lake cannot be listed.
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
    for table in _PERIOD_TABLES:
        if table.name in tables:
            first_days = _Outdated(project, instance).partitions(table, raw_days[table.date_basis])
            for block in _adjacent(first_days, table.period):
                tags = range_tags(block[0], block[-1], period=table.period)
                yield materialize(project, [table.name], instance=instance, tags=tags)
    others = [name for name in tables if name not in (*project.settings.fetched_tables, *listed)]
    if unpartitioned := _Outdated(project, instance).unpartitioned(others):
        yield materialize(project, unpartitioned, instance=instance)


def unknown_tables(project: Project) -> list[str]:
    """Return the folders of the lake that are no table of this version, such as those of an earlier version."""
    return [name for name in project.later.lake().table_names() if name not in ASSET_NAMES]


def _api_problem(later: LaterReportingResource) -> str | None:
    """Return why the API cannot be used; None if it can."""

    async def probe() -> None:
        async with later.client(retry=RetryPolicy(max_attempts=2)) as client:
            await client.probe()

    try:
        asyncio.run(probe())
    except (InvalidSetting, LaterError) as error:
        return str(error)
    return None


class _Outdated:
    """Finds what is outdated, as of its first use: the code version, or a data version upstream, is another.

    Both are recorded with each materialization in the Dagster instance. Without one, an asset is outdated. In all
    methods, the partition of an unpartitioned asset is None.
    """

    def __init__(self, project: Project, instance: dg.DagsterInstance) -> None:
        self._settings, self._lake = project.settings, project.later.lake()
        self._graph = project.definitions.resolve_asset_graph()
        self._instance = instance
        self._newest_ids = cache(self._read_newest_ids)
        self._data_version = cache(self._read_data_version)

    def partitions(self, table: RollupTable, raw_days: Set[date]) -> list[date]:
        """Return the first day of each partition that has raw files, and is missing or outdated.

        Args:
            table: a rollup by day, week or month.
            raw_days: the days that have raw files.
        """
        key = self._settings.asset_key(table.name)
        days = {day for day in raw_days if day >= self._settings.start_date}
        stored = {partition.day for partition in self._lake.partitions(table.name)}
        tags = self._tags(key)
        return [
            first
            for first in sorted({first_day_of(table.period, day) for day in days})
            if first not in stored
            or self._is_outdated(
                key, tags.get(str(first)), days=[str(day) for day in days_of(table.period, first) if day in days]
            )
        ]

    def unpartitioned(self, names: Sequence[str]) -> list[str]:
        """Return those of the assets, upstream first, that have no partitions, and are missing or outdated.

        What follows an outdated one is outdated, too; so is the coverage, because more days are expected each day.
        """
        outdated: list[str] = []
        for name in names:
            key = self._settings.asset_key(name)
            if self._is_partitioned(key):
                continue
            follows = name == COVERAGE_TABLE or any(
                self._settings.asset_key(each) in self._graph.get(key).parent_keys for each in outdated
            )
            if follows or not self._lake.storage.files(name) or self._is_outdated(key, self._tags(key).get(None)):
                outdated.append(name)
        return outdated

    def _is_outdated(
        self, key: dg.AssetKey, tags: Mapping[str, str] | None, *, days: Sequence[str] | None = None
    ) -> bool:
        """Return whether code or upstream have changed since a materialization.

        Args:
            key: the asset.
            tags: the tags of the materialization; None if there is none.
            days: the upstream partitions that it was made from; None for all.
        """
        if tags is None or tags.get("dagster/code_version") != self._graph.get(key).code_version:
            return True
        for upstream in self._graph.get(key).parent_keys:
            pointer = tags.get(f"dagster/input_event_pointer/{upstream.to_user_string()}", "")
            seen = int(pointer) if pointer.isdigit() else 0
            newest_ids = self._newest_ids(upstream)
            for partition in newest_ids if days is None or not self._is_partitioned(upstream) else days:
                # A fetch that changes nothing is a newer materialization of the same data version.
                if newest_ids.get(partition, 0) > seen and (
                    self._data_version(upstream, partition)
                    != self._data_version(upstream, partition, before_storage_id=seen + 1)
                ):
                    return True
        return False

    def _is_partitioned(self, key: dg.AssetKey) -> bool:
        return self._graph.has(key) and self._graph.get(key).partitions_def is not None

    def _read_newest_ids(self, key: dg.AssetKey) -> Mapping[str | None, int]:
        """Return the storage id of the newest materialization of each partition."""
        if self._is_partitioned(key):
            materialization = dg.DagsterEventType.ASSET_MATERIALIZATION
            return dict(self._instance.get_latest_storage_id_by_partition(key, materialization).items())
        newest = self._instance.fetch_materializations(key, limit=1).records
        return {None: newest[0].storage_id} if newest else {}

    def _tags(self, key: dg.AssetKey) -> Mapping[str | None, Mapping[str, str]]:
        """Return the tags of the newest materialization of each partition."""
        ids, tags = [*self._newest_ids(key).values()], dict[str | None, Mapping[str, str]]()
        for start in range(0, len(ids), _RECORDS_PER_QUERY):
            storage_ids = ids[start : start + _RECORDS_PER_QUERY]
            filter_ = dg.AssetRecordsFilter(key, storage_ids=storage_ids)
            for record in self._instance.fetch_materializations(filter_, limit=len(storage_ids)).records:
                if event := record.asset_materialization:
                    tags[event.partition] = event.tags or {}
        return tags

    def _read_data_version(
        self, key: dg.AssetKey, partition: str | None, *, before_storage_id: int | None = None
    ) -> str | None:
        """Return the newest data version of a partition, or the newest before a storage id; None if there is none."""
        partitions = None if partition is None else [partition]
        filter_ = dg.AssetRecordsFilter(key, asset_partitions=partitions, before_storage_id=before_storage_id)
        records = self._instance.fetch_materializations(filter_, limit=1).records
        event = records[0].asset_materialization if records else None
        return None if event is None else (event.tags or {}).get("dagster/data_version")


def _adjacent(first_days: Sequence[date], period: Period) -> Iterator[list[date]]:
    """Yield partitions in blocks without gaps: a run materializes a range."""
    block: list[date] = []
    for first in first_days:
        if block and first != days_of(period, block[-1])[-1] + timedelta(days=1):
            yield block
            block = []
        block.append(first)
    if block:
        yield block
