"""Fetch what the API totals for campaigns or accounts over days or whole periods, with one query for each."""

import asyncio
from collections.abc import Collection, Hashable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import TypeVar

import anyio
import anyio.to_thread

from later_reporting_dagster.client import (
    ApiVersionChanged,
    CredentialsRejected,
    LaterClient,
    LaterError,
    ListResult,
    QueryRejected,
    UnexpectedResponse,
)
from later_reporting_dagster.contract import DateBasis, Metric, PerformanceQuery
from later_reporting_dagster.contract.metrics import parse_metrics
from later_reporting_dagster.ingest.campaigns import CAMPAIGNS_SCHEMA
from later_reporting_dagster.ingest.partition_writer import PartitionWriter, Response, UnitWriter, confirm
from later_reporting_dagster.ingest.post_fetch import METRICS_STATUSES, find_accepted_metrics
from later_reporting_dagster.ingest.progress import Progress, RouteRefused, refusal
from later_reporting_dagster.ingest.replacement import InDoubt, WriteGuard
from later_reporting_dagster.lake import CAMPAIGNS_TABLE, Lake, LakeUnavailable, Partition
from later_reporting_dagster.lake.tables import RawTable

# A fetch ends once so many days or periods have failed in a row.
OUTAGE_DAYS = 5

_Unit = TypeVar("_Unit")


async def ingest_days(
    days: Collection[date], writer: PartitionWriter, *, instance_ids: tuple[str, ...], client: LaterClient
) -> None:
    """Fetch and write days whose files have the rows of all instances; the writer sends each result exactly once.

    `instance_ids`: the instances whose rows are wanted; empty for all that the credentials can read.
    """
    queries = {
        Partition(day): PerformanceQuery(
            start_date=day, end_date=day, date_basis=DateBasis.PERFORMANCE_DATE, instance_ids=instance_ids
        )
        for day in sorted(days, reverse=True)
    }
    await ingest_totals(queries, writer, client=client)


async def ingest_totals(
    queries: Mapping[_Unit, PerformanceQuery], writer: UnitWriter[_Unit], *, client: LaterClient
) -> None:
    """Fetch and write days or periods, each with one query, in the order given.

    A day or a period is replaced whole, but for the rows of `TotalsFetch.kept_campaigns`.

    Raises:
        RouteRefused: the API refuses the first of them, and another one.
    """
    if not queries:
        return
    first, *others = queries
    instances: dict[Hashable, set[str]] = {}
    if not writer.table.has_file_per_instance:  # no row says its instance
        instances = await anyio.to_thread.run_sync(instances_of_campaigns, writer.lake)
    fetch = TotalsFetch(client, writer.table, writer.guard, writer.progress, instances, writer.metrics)
    in_doubt: dict[_Unit, InDoubt] = {}
    slots = asyncio.Semaphore(client.concurrency)

    async def fetch_unit(unit: _Unit) -> Response:
        query, result = await fetch.fetch(queries[unit])
        stored = await anyio.to_thread.run_sync(writer.stored_keys, unit)
        return query, result, await fetch.kept_campaigns(stored, query, result)

    async def write_unit(unit: _Unit) -> None:
        query, result, kept = await fetch_unit(unit)
        in_doubt.update(await writer.write(query, result, [unit], kept=kept))

    async def process(unit: _Unit) -> None:
        async with slots:
            try:
                await write_unit(unit)
            except (LaterError, LakeUnavailable) as error:
                await writer.fail([unit], error)

    # The first alone: it shows whether the API refuses the route, or some metrics.
    try:
        await write_unit(first)
    except (LaterError, LakeUnavailable) as error:
        is_of_route = refusal(error) is not None
        if is_of_route or isinstance(error, UnexpectedResponse):
            another = queries[others[0]] if others else _before(queries[first])
            if await fetch.is_refused(another) and is_of_route:
                raise RouteRefused(str(error)) from None
        await writer.fail([first], error)
    async with anyio.create_task_group() as tasks:
        for unit in others:
            tasks.start_soon(process, unit)
    for unit, doubt in in_doubt.items():
        names, is_left = fetch.accessible(queries[unit]), bool(writer.keeping)
        await confirm(doubt, unit, writer, fetch_unit, client=client, instance_ids=names, is_left=is_left)


def _before(query: PerformanceQuery) -> PerformanceQuery:
    """Return the query for as many days before."""
    days = query.end_date - query.start_date + timedelta(days=1)
    return replace(query, start_date=query.start_date - days, end_date=query.end_date - days)


def instances_of_campaigns(lake: Lake) -> dict[Hashable, set[str]]:
    """Return the instances of each known campaign."""
    instances: dict[Hashable, set[str]] = {}
    campaigns = lake.read_intact_table(CAMPAIGNS_TABLE, schema=CAMPAIGNS_SCHEMA)
    for row in [] if campaigns is None else campaigns.select(["campaign_id", "instance_id"]).to_pylist():
        instances.setdefault(row["campaign_id"], set()).add(row["instance_id"])
    return instances


@dataclass(eq=False, slots=True)
class TotalsFetch:
    """Fetches days or periods, without the metrics that the API refuses and the instances that it does not list.

    Attributes:
        instances: of each known campaign; empty if rows say theirs.
        inaccessible: instances that the API does not list, found by a refused query.
        stopped_by: the error that ended the fetch: every query would fail, or so many have failed in a row.
        has_succeeded: whether the API has returned anything, so that it does not refuse the route.
    """

    client: LaterClient
    table: RawTable
    guard: WriteGuard
    progress: Progress
    instances: Mapping[Hashable, Set[str]]
    metrics: tuple[Metric, ...]
    inaccessible: set[str] = field(default_factory=set)
    stopped_by: LaterError | None = None
    has_succeeded: bool = False
    _failed_in_a_row: int = 0

    async def fetch(self, query: PerformanceQuery) -> tuple[PerformanceQuery, ListResult]:
        """Fetch all campaigns of a query; return it as it was accepted."""
        if self.stopped_by is not None:
            raise self.stopped_by
        try:
            found = await self._fetch_accepted(query)
        except LaterError as error:
            self._failed_in_a_row += 1
            is_for_all = isinstance(error, CredentialsRejected | ApiVersionChanged) or (
                isinstance(error, UnexpectedResponse) and not self.has_succeeded and self._failed_in_a_row > 1
            )
            if is_for_all or self._failed_in_a_row >= OUTAGE_DAYS:
                self.stopped_by = error
            raise
        self.has_succeeded, self._failed_in_a_row = True, 0
        return found

    async def is_refused(self, query: PerformanceQuery) -> bool:
        """Return whether the API refuses the route for a query."""
        try:
            await self.fetch(query)
        except LaterError as error:
            return refusal(error) is not None
        return False

    async def _fetch_accepted(self, query: PerformanceQuery) -> tuple[PerformanceQuery, ListResult]:
        asked = replace(query, metrics=self.metrics, instance_ids=self.accessible(query))
        if query.instance_ids and not asked.instance_ids:  # without any, the query would ask for all instances
            names = ", ".join(query.instance_ids)
            raise QueryRejected(f"Not accessible with these credentials: {names}", status=403)
        try:
            return asked, await self.client.fetch(self.table.route, asked)
        except QueryRejected as error:
            is_smaller = error.is_forbidden and await self._has_dropped_instances(asked)
            if error.status in METRICS_STATUSES:
                is_smaller = await self._has_dropped_metrics(asked)
            if not is_smaller:
                raise
        return await self._fetch_accepted(query)

    def accessible(self, query: PerformanceQuery) -> tuple[str, ...]:
        """Return the instances of a query that are not known to be inaccessible."""
        return tuple(name for name in query.instance_ids if name not in self.inaccessible)

    async def kept_campaigns(self, stored: Set[Hashable], query: PerformanceQuery, result: ListResult) -> Set[Hashable]:
        """Return the stored campaigns that are not in the response, but whose rows stay, because of their instances.

        These were not asked for, are not listed any more, or may have been left out: nothing came of any of their
        campaigns, and a second response does not say that there is nothing. Only `retire` takes an instance out of the
        rollups.
        """
        present = {item.key for item in result.items}
        absent = {campaign: self.instances[campaign] for campaign in stored - present if campaign in self.instances}
        returned = {name for campaign in present for name in self.instances.get(campaign, ())}
        silent = {name for names in absent.values() for name in names} - returned
        if query.instance_ids:
            returned, silent = returned & {*query.instance_ids}, silent & {*query.instance_ids}
        listed = await self.client.accessible(tuple(sorted(silent)))
        # If the whole response is empty, the writer is in doubt, and asks again itself.
        if listed and result.items and not self.guard.accepts_shrinking and not await self._are_without(listed, query):
            self._warn(f"Not in a response, so their stored campaigns stay: {', '.join(listed)}")
            listed = ()
        gone = returned.union(listed)
        return {campaign for campaign, names in absent.items() if not names & gone}

    async def _are_without(self, instance_ids: tuple[str, ...], query: PerformanceQuery) -> bool:
        """Return whether a response for these instances alone says that they have no campaigns."""
        with suppress(QueryRejected):
            again = await self.client.fetch(self.table.route, replace(query, instance_ids=instance_ids))
            return again.is_surely_empty
        return False

    async def _has_dropped_metrics(self, query: PerformanceQuery) -> bool:
        """Leave out the metrics that the API refuses, from now on; return whether the query has any of them."""
        if not (await self.client.api_version()).uses_cursors:
            return False
        if self.metrics != query.metrics:
            return True  # another query has found them

        async def request(metrics: tuple[Metric, ...]) -> object:
            # Instances do not decide it, so no forbidden instance can interfere.
            return await self.client.fetch(self.table.route, replace(query, metrics=metrics, instance_ids=()))

        if not await find_accepted_metrics(parse_metrics("impressions", known=self.table.known_metrics), request):
            return False  # the query is refused for another reason
        accepted = await find_accepted_metrics(query.metrics, request)
        if accepted in ((), query.metrics):
            return False
        refused = [metric.api_name for metric in query.metrics if metric not in accepted]
        self.metrics = accepted
        rows = self.table.rows
        self._warn(f"The API refuses these metrics of {rows}, which are therefore null: {', '.join(refused)}")
        return True

    async def _has_dropped_instances(self, query: PerformanceQuery) -> bool:
        """Leave out the instances that are not accessible, from now on; return whether the query has any of them."""
        accessible = await self.client.accessible(query.instance_ids)
        if accessible in ((), query.instance_ids):
            return False
        inaccessible = [name for name in query.instance_ids if name not in accessible]
        self.inaccessible.update(inaccessible)
        self._warn(
            f"Not accessible with these credentials, so without their {self.table.rows}: {', '.join(inaccessible)}"
        )
        return True

    def _warn(self, warning: str) -> None:
        if warning not in self.progress.warnings:
            self.progress.warnings.append(warning)
