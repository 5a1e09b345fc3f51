"""Fetch the performance of all campaigns day by day, and write each day as soon as its response is verified."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date
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
from later_reporting_dagster.contract import CAMPAIGN_METRICS, DateBasis, Metric, PerformanceQuery
from later_reporting_dagster.contract.metrics import parse_metrics
from later_reporting_dagster.contract.rows import CampaignPerformance
from later_reporting_dagster.ingest.campaigns import CAMPAIGNS_SCHEMA
from later_reporting_dagster.ingest.partition_writer import NOT_SURE, NOTHING_LEFT, PartitionWriter, WouldEmpty
from later_reporting_dagster.ingest.post_fetch import METRICS_STATUSES, find_accepted_metrics
from later_reporting_dagster.lake import CAMPAIGNS_TABLE, FileDamaged, Lake, LakeUnavailable, Partition, schema_of
from later_reporting_dagster.lake.tables import CAMPAIGN_PERFORMANCE, campaign_performance_columns

# A fetch ends once so many days or periods have failed in a row.
OUTAGE_DAYS = 5

_Item = TypeVar("_Item")


class RouteRefused(Exception):  # noqa: N818 - named for what happened
    """The API does not offer a route of campaigns to these credentials: HTTP 403 or 404."""


def refusal(error: LaterError) -> RouteRefused | None:
    """Return the error to raise if the route itself is refused."""
    if isinstance(error, QueryRejected) and error.status in (403, 404):
        return RouteRefused(str(error))
    return None


async def ingest_campaign_performance(
    days: Collection[date], writer: PartitionWriter, *, instance_ids: tuple[str, ...], client: LaterClient
) -> None:
    """Fetch and write days of `campaign_performance_daily`, with one query per day; the writer sends each exactly once.

    A file is replaced whole, but keeps the stored rows of campaigns that only other instances have.

    Args:
        instance_ids: the instances whose campaigns are wanted; empty for all that the credentials can read.
    """
    fetch = CampaignFetch(client, metrics=writer.metrics, instance_ids=instance_ids, warnings=writer.progress.warnings)

    async def process(day: date) -> None:
        try:
            query, result = await fetch.period(DateBasis.PERFORMANCE_DATE, day, day)
        except LaterError as error:
            await writer.fail([Partition(day)], error)
            return
        try:
            stored, instances = await anyio.to_thread.run_sync(_stored_campaigns, writer.lake, day, writer.metrics)
            kept = await fetch.campaigns_of_other_instances(stored, instances, query, result)
        except (LakeUnavailable, LaterError) as error:
            await writer.fail([Partition(day)], error)
            return
        items = [*result.items, *(stored[campaign_id] for campaign_id in kept)]
        in_doubt.extend(await writer.write(query, replace(result, items=items), [Partition(day)]))

    in_doubt: list[Partition] = []
    await fetch.process_all(sorted(days, reverse=True), process)
    for partition in in_doubt:
        if None not in writer.keeping:
            await writer.fail([partition], WouldEmpty(NOTHING_LEFT))
            continue
        try:
            query, result = await fetch.period(DateBasis.PERFORMANCE_DATE, partition.day, partition.day)
        except LaterError as error:
            await writer.fail([partition], error)
        else:
            is_sure = bool(result.total_items) or result.is_surely_empty
            if await writer.write(query, result, [partition], is_confirmed=is_sure):
                await writer.fail([partition], WouldEmpty(NOT_SURE))


def _stored_campaigns(
    lake: Lake, day: date, metrics: tuple[Metric, ...]
) -> tuple[dict[int, CampaignPerformance], dict[int, set[str]]]:
    """Return the stored performance of a day, and the instances of each known campaign; both by campaign."""
    performance: dict[int, CampaignPerformance] = {}
    with suppress(FileDamaged):
        schema = schema_of(campaign_performance_columns(metrics))
        stored = lake.read_daily_file(CAMPAIGN_PERFORMANCE.name, Partition(day), schema=schema)
        for row in [] if stored is None else stored.to_pylist():
            campaign_id, extra = row.pop("campaign_id"), row.pop("extra")
            performance[campaign_id] = CampaignPerformance(campaign_id=campaign_id, metrics=row, extra=extra)
    return performance, instances_of_campaigns(lake) if performance else {}


def instances_of_campaigns(lake: Lake) -> dict[int, set[str]]:
    """Return the instances of each known campaign."""
    instances: dict[int, set[str]] = {}
    campaigns = lake.read_intact_table(CAMPAIGNS_TABLE, schema=CAMPAIGNS_SCHEMA)
    for row in [] if campaigns is None else campaigns.select(["campaign_id", "instance_id"]).to_pylist():
        instances.setdefault(row["campaign_id"], set()).add(row["instance_id"])
    return instances


@dataclass(eq=False, slots=True)
class CampaignFetch:
    """Fetches days or periods, without the metrics that the API refuses and the instances that it does not list.

    Attributes:
        warnings: gets what is left out.
        stopped_by: the error that ended the fetch: every query would fail, or so many have failed in a row.
        has_succeeded: whether the API has returned anything, so that it does not refuse the route.
    """

    client: LaterClient
    metrics: tuple[Metric, ...]
    instance_ids: tuple[str, ...]
    warnings: list[str]
    stopped_by: LaterError | None = None
    has_succeeded: bool = False
    _failed_in_a_row: int = 0

    async def process_all(self, items: Sequence[_Item], process: Callable[[_Item], Awaitable[None]]) -> None:
        """Process days or periods: the first one alone, which shows whether the API refuses the route or some metrics.

        Then as many at once as the client sends requests, so that what fails all is requested for few of them.
        """
        slots = asyncio.Semaphore(self.client.concurrency)

        async def process_in_slot(item: _Item) -> None:
            async with slots:
                await process(item)

        for item in items[:1]:
            await process(item)
        try:
            async with anyio.create_task_group() as tasks:
                for item in items[1:]:
                    tasks.start_soon(process_in_slot, item)
        except* RouteRefused as group:
            raise group.exceptions[0] from None

    async def period(
        self, date_basis: DateBasis, first_day: date, last_day: date
    ) -> tuple[PerformanceQuery, ListResult]:
        """Fetch all campaigns of a period, which may be one day."""
        if self.stopped_by is not None:
            raise self.stopped_by
        try:
            found = await self._fetch(date_basis, first_day, last_day)
        except LaterError as error:
            self._failed_in_a_row += 1
            is_for_all = isinstance(error, CredentialsRejected | ApiVersionChanged) or (
                isinstance(error, UnexpectedResponse) and not self.has_succeeded
            )
            if is_for_all or self._failed_in_a_row >= OUTAGE_DAYS:
                self.stopped_by = error
            raise
        self.has_succeeded, self._failed_in_a_row = True, 0
        return found

    async def _fetch(
        self, date_basis: DateBasis, first_day: date, last_day: date
    ) -> tuple[PerformanceQuery, ListResult]:
        query = PerformanceQuery(
            start_date=first_day,
            end_date=last_day,
            date_basis=date_basis,
            metrics=self.metrics,
            instance_ids=self.instance_ids,
        )
        try:
            return query, await self.client.fetch_campaign_performance(query)
        except QueryRejected as error:
            is_smaller = error.is_forbidden and await self._has_dropped_instances(query)
            if error.status in METRICS_STATUSES:
                is_smaller = await self._has_dropped_metrics(query)
            if not is_smaller:
                raise (None if self.has_succeeded else refusal(error)) or error from None
        return await self._fetch(date_basis, first_day, last_day)

    async def campaigns_of_other_instances(
        self, stored: Collection[int], instances: Mapping[int, Set[str]], query: PerformanceQuery, result: ListResult
    ) -> list[int]:
        """Return the stored campaigns that are not in the response because of their instances.

        These are not wanted, or the API no longer lists them. Only `retire` takes an instance out of the rollups.
        """
        present = {item.campaign_id for item in result.items}
        absent = {each: instances[each] for each in stored if each in instances and each not in present}
        others = {name for names in absent.values() for name in names} - {*query.instance_ids}
        if not query.instance_ids:
            # An instance with other campaigns in the response is listed: these campaigns were deleted.
            others -= {name for campaign_id in present for name in instances.get(campaign_id, ())}
            others -= {*await self.client.accessible(tuple(sorted(others)))}
        return [campaign_id for campaign_id, names in absent.items() if names <= others]

    async def _has_dropped_metrics(self, query: PerformanceQuery) -> bool:
        """Leave out the metrics that the API refuses, from now on; return whether the query has any of them."""
        if not (await self.client.api_version()).uses_cursors:
            return False
        if self.metrics != query.metrics:
            return True  # another period has found them

        async def request(metrics: tuple[Metric, ...]) -> object:
            # Instances do not decide it, so no forbidden instance can interfere.
            return await self.client.fetch_campaign_performance(replace(query, metrics=metrics, instance_ids=()))

        if not await find_accepted_metrics(parse_metrics("impressions", known=CAMPAIGN_METRICS), request):
            return False  # the query is refused for another reason
        accepted = await find_accepted_metrics(query.metrics, request)
        if accepted in ((), query.metrics):
            return False
        refused = [metric.api_name for metric in query.metrics if metric not in accepted]
        self.metrics = accepted
        self.warnings.append(
            f"The API refuses these metrics of campaigns, which are therefore null: {', '.join(refused)}"
        )
        return True

    async def _has_dropped_instances(self, query: PerformanceQuery) -> bool:
        """Leave out the instances that are not accessible, from now on; return whether the query has any of them."""
        accessible = await self.client.accessible(query.instance_ids)
        if accessible in ((), query.instance_ids):
            return False
        if self.instance_ids != accessible:  # else another period has left them out
            self.instance_ids = accessible
            inaccessible = [name for name in query.instance_ids if name not in accessible]
            self.warnings.append(
                f"Not accessible with these credentials, so without their campaigns: {', '.join(inaccessible)}"
            )
        return True
