"""Fetch days or periods, and write each as soon as its query is complete and verified.

A failure affects as little as possible: a failed query of posts is split and fetched in parts, an instance that is
forbidden or keeps failing affects only its own partitions, and nothing is written from an inconsistent response. What
is asked next is decided by `query_plan`.
"""

import asyncio
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from random import Random
from statistics import mean
from typing import Any

import anyio
import anyio.to_thread

from later_reporting_dagster.client import LaterClient, LaterError, ListResult, QueryRejected, UnexpectedResponse
from later_reporting_dagster.contract import DateBasis, PerformanceQuery
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.contract.instances import Instances
from later_reporting_dagster.ingest.campaigns import KeptCampaigns
from later_reporting_dagster.ingest.decide import (
    NO_CAMPAIGNS,
    NOT_LISTED,
    NOT_SURE,
    NOTHING_LEFT,
    AskAgain,
    Reason,
    Reject,
    silent_instances,
    would_empty,
)
from later_reporting_dagster.ingest.metric_negotiation import MetricNegotiation
from later_reporting_dagster.ingest.progress import RouteRefused, SliceError, refusal
from later_reporting_dagster.ingest.query_plan import (
    MAX_POSTS_PER_PART,
    CircuitBreaker,
    partitions_of,
    plan_queries,
    queries_after,
    queries_to_ask,
    query_before,
    split_by_days,
    split_query,
)
from later_reporting_dagster.ingest.slice_writer import SliceWriter
from later_reporting_dagster.ingest.slices import Slice, subject_of
from later_reporting_dagster.lake import Lake, LakeUnavailable, Partition, encode_instance_id
from later_reporting_dagster.lake.tables import RawTable

# Workers in the paged version, where the pages of a query are fetched concurrently: two queries keep the connections
# busy while a third is written. The pages of a cursor query are fetched one after the other, and totals have few pages,
# so there is a worker for each concurrent request.
PAGED_WORKERS = 3
# Queries whose results are written at the same time; the other workers wait before they write.
CONCURRENT_WRITES = 3
# A fault of the API that takes rows from many small slices must not make a request for each.
MAX_CONFIRMATIONS = 50
NOT_ASKED_AGAIN = f"It was not asked for again, as {MAX_CONFIRMATIONS} others of this run were: fetch it once more"
# A range with more than half as many posts again is fetched in parts of so many: the first days are written while the
# next are fetched, and memory does not grow with the range. The cost in the paged version: page 1, which returned the
# total, is fetched in vain, and the last page of each part is only partly filled.
TARGET_POSTS_PER_QUERY = 12_000
# Stored files that are read to estimate how many posts a file has.
SAMPLED_FILES = 32


async def ingest(
    partitions: Collection[Partition],
    writer: SliceWriter,
    *,
    client: LaterClient,
    instances: Instances,
    instance_ids: tuple[str, ...] = (),
    padding_days: int = 0,
) -> None:
    """Fetch and write partitions; the writer sends the result of each exactly once, as soon as it is known.

    Failures of the API or the lake, rows that may replace nothing and invalid instance ids are results, not raised.
    While the results are full, fewer queries are fetched.

    Args:
        instances: those of this step.
        instance_ids: those whose rows a file of all instances has; empty for all that the credentials can read.

    Raises:
        RouteRefused: the API does not offer the route of an optional table.
    """
    table, lake = writer.files.table, writer.files.lake
    if not table.has_file_per_instance:
        days = sorted((partition.day for partition in partitions), reverse=True)
        of_all = partial(PerformanceQuery, date_basis=table.date_basis, instance_ids=instance_ids)
        queries_of = {Partition(day): of_all(start_date=day, end_date=day) for day in days}
        await ingest_whole(queries_of, writer, client=client, instances=instances)
        return
    partitions = await _fail_invalid_instances(partitions, writer)
    if not partitions:
        return
    try:
        by_cursor = (await client.api_version()).uses_cursors
    except LaterError as error:
        await writer.fail(partitions, error)
        return
    padding_days = padding_days if table.date_basis is DateBasis.POST_DATE else 0
    plan = partial(plan_queries, partitions, table=table, metrics=writer.metrics, wider_by=padding_days)
    breaker = CircuitBreaker(
        days=len({partition.day for partition in partitions}),
        instances=len({partition.instance_id for partition in partitions}),
        by_cursor=by_cursor,
        is_wider=bool(padding_days),
    )
    queries = plan()
    if table.date_basis is DateBasis.POST_DATE and (len(queries) > 1 or by_cursor):
        breaker.rows_per_file = await anyio.to_thread.run_sync(_mean_stored_rows, partitions, table, lake)
        queries = plan(rows_per_file=breaker.rows_per_file)
    run = _IngestRun(client, writer, breaker, partitions=frozenset(partitions), padding_days=padding_days)
    newest_first = [(query, None) for query in reversed(queries)]
    await run.fetch_all(newest_first, workers=client.concurrency if by_cursor else PAGED_WORKERS)


async def ingest_whole(
    queries: Mapping[Any, PerformanceQuery], writer: SliceWriter, *, client: LaterClient, instances: Instances
) -> None:
    """Fetch and write what the API totals for days or periods, each with one query, in the order given.

    A day or a period is replaced whole, but for the rows of `KeptCampaigns`.

    Raises:
        RouteRefused: the API does not offer the route.
    """
    breaker = CircuitBreaker(
        days=len(queries),
        instances=len({name for query in queries.values() for name in query.instance_ids}) or 1,
        is_whole=True,
        is_of_accounts=writer.files.table.one_instance_per_query,
    )
    run = _IngestRun(client, writer, breaker, queries_of=queries, instances=instances)
    await run.fetch_all([(query, of_query) for of_query, query in queries.items()], workers=client.concurrency)


async def _fail_invalid_instances(partitions: Collection[Partition], writer: SliceWriter) -> list[Partition]:
    """Send partitions as failed if their instance id cannot be part of a path; return the others."""
    valid: list[Partition] = []
    for partition in partitions:
        try:
            encode_instance_id(partition.instance_id or "")
        except ValueError as error:
            await writer.fail([partition], error)
        else:
            valid.append(partition)
    return valid


def _mean_stored_rows(partitions: Collection[Partition], table: RawTable, lake: Lake) -> float | None:
    """Return the mean rows of the files of these instances from the first to the last day, by a sample.

    None without files, or if the lake cannot be read: writing reports that error.
    """
    days = [partition.day for partition in partitions]
    instances = {partition.instance_id for partition in partitions}
    with suppress(LakeUnavailable):
        present = lake.partitions(table.name, days=days_between(min(days), max(days)))
        stored = [partition for partition in present if partition.instance_id in instances]
        # At random, because every nth file may be of the same instance.
        sample = Random(0).sample(stored, min(SAMPLED_FILES, len(stored)))  # noqa: S311 - not for cryptography
        files = lake.read_all_metadata(table.name, sample).values()
        if rows := [file.rows for file in files if not isinstance(file, Exception)]:
            return mean(rows)
    return None


@dataclass(eq=False, slots=True)
class _IngestRun:
    """One run of `ingest` or `ingest_whole`.

    Attributes:
        partitions: those to write, if a query has many.
        queries_of: the query of each day or period, if it has one of its own.
        instances: those of this step.
        unconfirmed: what has no result yet, because stored rows may not be gone, although the response lacks them.
        silent: of these, the instances of which a response has no campaign, with the query as it was asked.
        confirmations: how many slices have been asked for again.
        queue: the queries to fetch, each with its only slice, or None. Last in, first out: the parts of a query are
            fetched before the next query, which can then leave out what has failed.
    """

    client: LaterClient
    writer: SliceWriter
    breaker: CircuitBreaker
    partitions: frozenset[Partition] = frozenset()
    queries_of: Mapping[Any, PerformanceQuery] = field(default_factory=dict)
    padding_days: int = 0
    instances: Instances = Instances()  # noqa: RUF009 - frozen
    unconfirmed: dict[Slice, AskAgain] = field(default_factory=dict)
    silent: dict[Slice, tuple[frozenset[str], PerformanceQuery, ListResult]] = field(default_factory=dict)
    queue: asyncio.LifoQueue[tuple[PerformanceQuery, Slice | None]] = field(default_factory=asyncio.LifoQueue)
    confirmations: int = 0
    metrics: MetricNegotiation = field(init=False)
    kept: KeptCampaigns = field(init=False)
    _write_slots: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, CONCURRENT_WRITES))

    def __post_init__(self) -> None:
        writer = self.writer
        self.metrics = MetricNegotiation(self.client, writer.files.table, writer.metrics, writer.progress)
        self.kept = KeptCampaigns(self.client, writer, self.instances)

    async def fetch_all(self, queries: Sequence[tuple[PerformanceQuery, Slice | None]], *, workers: int) -> None:
        """Fetch and write queries in this order, then ask again for what is unconfirmed."""
        is_of_several = [self.breaker.is_of_accounts and len(query.instance_ids) > 1 for query, _ in queries]
        # Totals of several accounts wait until it is known whether one of these has lost its results.
        for phase in (False, True):
            for item, is_later in reversed([*zip(queries, is_of_several, strict=True)]):
                if is_later is phase:
                    self.queue.put_nowait(item)
            if self.writer.files.table.is_optional:
                await self._try_route()
            async with anyio.create_task_group() as tasks:
                for _ in range(workers):
                    tasks.start_soon(self._work)
                await self.queue.join()
                tasks.cancel_scope.cancel()
            unconfirmed, self.unconfirmed = self.unconfirmed, {}
            # What is emptied comes last: stored rows that are left in others count for it.
            for each, doubt in sorted(unconfirmed.items(), key=lambda item: item[1].reason is Reason.WOULD_EMPTY):
                await self._confirm_deletion(each, doubt)

    async def _try_route(self) -> None:
        """Ask one query after the other until one shows that the API offers the route; raise if it refuses it.

        A refused query may be refused alone, so another one is asked before the first fails: of a single day or period,
        the one before. It ends once two have failed without showing it.
        """
        refused: list[tuple[PerformanceQuery, Slice | None, LaterError]] = []
        unclear: set[Hashable] = set()
        while not (self.queue.empty() or self.breaker.has_succeeded or len(unclear) > 1):
            query, only = self.queue.get_nowait()
            self.queue.task_done()
            error = await self._fetch_and_write(query, only)
            if error is None:
                continue
            if refusal(error) is None or self.breaker.unlisted.keys() & query.instance_ids:
                await self._go_on(query, only, error)
                is_unclear = not isinstance(error, QueryRejected | UnexpectedResponse)
            else:
                refused.append((query, only, error))
                if len(self.queries_of) == 1:
                    with suppress(LaterError):
                        await self._attempt(query_before(query))
                if self.breaker.is_route_refused:
                    if not (self.writer.files.table.one_instance_per_query and self.breaker.instances == 1):
                        raise RouteRefused(str(error))
                    self.breaker.stopped_by = _refusal_of_only_account(query.instance_ids[0], error)
                is_unclear = not self.breaker.is_refused(query)
            if is_unclear:
                unclear.add(only or query.instance_ids)
        for query, only, error in reversed(refused):
            await self._go_on(query, only, self.breaker.stopped_by or error)

    async def _work(self) -> None:
        while True:
            query, only = await self.queue.get()
            if (error := await self._fetch_and_write(query, only)) is not None:
                await self._go_on(query, only, error)
            self.queue.task_done()

    async def _fetch_and_write(self, query: PerformanceQuery, only: Slice | None) -> LaterError | None:
        """Fetch and write a query, or queue the parts in which to ask it; return the error if it fails."""
        parts = queries_to_ask(query, self.breaker)
        if parts != [(query, None)]:
            for part, error in reversed(parts):
                if error is None:
                    self.queue.put_nowait((part, only))
                else:
                    await self.writer.fail(self._slices(part, only), error)
            return None
        slices = self._slices(query, only)
        if not slices:
            return None
        max_posts = TARGET_POSTS_PER_QUERY * 3 // 2 if self._is_limited(query) else None
        try:
            asked, result = await self._attempt(query, max_posts=max_posts)
        except LaterError as error:
            return error
        try:
            absent = await self.kept.absent_from(slices, asked, result)
            if absent.silent:
                self.silent[slices[0]] = absent.silent, asked, result
            async with self._write_slots:
                self.unconfirmed |= await self.writer.write_response(
                    asked, result, slices, kept=absent.kept, doubt=absent.doubt
                )
        except (LaterError, LakeUnavailable) as error:
            await self.writer.fail(slices, error)
        return None

    async def _go_on(self, query: PerformanceQuery, only: Slice | None, error: LaterError) -> None:
        """Queue what to ask in place of a query that failed, or fail what it is for."""
        posts_each = TARGET_POSTS_PER_QUERY if self._is_limited(query) else MAX_POSTS_PER_PART
        parts = queries_after(query, error, self.breaker, posts_each=posts_each)
        for part in reversed(parts):
            self.queue.put_nowait((part, only))
        if not parts:
            await self.writer.fail(self._slices(query, only), error)

    async def _attempt(
        self, query: PerformanceQuery, *, max_posts: int | None = None
    ) -> tuple[PerformanceQuery, ListResult]:
        """Fetch a query, and add the outcome to the circuit breaker; also return the query as it was asked."""
        days = timedelta(days=self.padding_days)
        asked = replace(query, start_date=query.start_date - days, end_date=query.end_date + days)
        attempts = self.breaker.max_attempts(query)
        try:
            result = await self.metrics.fetch_all_metrics(
                asked, by_content=not split_query(query), max_posts=max_posts, max_attempts=attempts
            )
        except LaterError as error:
            is_listed = await self._find_unlisted(query, error)
            self.breaker.add_failure(query, error, is_listed=is_listed)
            raise
        self.breaker.add_success(query, rows=result.total_items)
        return replace(asked, metrics=self.metrics.accepted_metrics(asked)), result

    async def _find_unlisted(self, query: PerformanceQuery, error: LaterError) -> bool:
        """Remember which instances of a refused query the API does not list; return whether it surely lists all.

        A refusal says neither which instance it is about, nor whether it is about the route.
        """
        table, names, breaker = self.writer.files.table, query.instance_ids, self.breaker
        is_of_one = len(names) == 1 and not table.one_instance_per_query
        is_other_error = not isinstance(error, QueryRejected) or not (table.is_optional or error.is_forbidden)
        if is_of_one or is_other_error or refusal(error) is None:
            return True
        try:
            unlisted = {*names} - {*await self.client.accessible(names)}
        except LaterError:
            return False
        if breaker.is_whole and len(unlisted) == len(names) and not table.one_instance_per_query:
            return True  # no other was asked for
        if breaker.is_whole and 0 < len(unlisted) < len(names) and not breaker.is_of_accounts:
            without = f"so without their {table.rows}: {', '.join(sorted(unlisted))}"
            self.writer.progress.warn(f"Not accessible with these credentials, {without}")
        for instance_id in unlisted:
            breaker.unlisted[instance_id] = QueryRejected(
                f"instance {instance_id!r} is not accessible with these credentials: "
                "have it added to their scope, or list the instances to fetch in LATER_INSTANCE_IDS",
                status=403,
            )
        return not unlisted

    async def _confirm_deletion(self, of: Slice, doubt: AskAgain) -> None:
        """Ask again for an unconfirmed deletion, and replace its rows if they are surely gone; else it fails."""
        error = await self._ask_again(of, doubt)
        if isinstance(error, AskAgain):
            error = Reject(error.reason, error.text)
            if self.breaker.is_of_accounts and subject_of(of) not in self.writer.keeping:
                self.breaker.silent |= dict.fromkeys(self._listed_names(self._query_of(of)), error)
        if error is not None:
            await self.writer.fail([of], error)

    async def _ask_again(self, of: Slice, doubt: AskAgain) -> SliceError | AskAgain | None:
        """Ask again for what is in doubt, and write it; return why its stored rows stay, or None.

        Rows are replaced by none only of instances in a list that was fetched in this run, and if stored rows of what
        the run fetches of these are left.
        """
        query = self._query_of(of)
        names = self._listed_names(query)
        is_emptied = doubt.reason is Reason.WOULD_EMPTY
        is_left = subject_of(of) in self.writer.keeping
        if self.breaker.stopped_by is not None:
            return self.breaker.stopped_by
        if is_emptied and not (is_left or of in self.silent):
            return would_empty(NOTHING_LEFT)
        if self.confirmations == MAX_CONFIRMATIONS:
            return replace(doubt, text=f"{doubt.text}. {NOT_ASKED_AGAIN}")
        self.confirmations += 1
        if of in self.silent:
            return await self._confirm_silent(of)
        # Without any, the query would ask for all instances.
        is_any_left = names == query.instance_ids or (bool(names) and not self.breaker.is_of_accounts)
        try:
            if not is_any_left or await self.client.accessible(names) != names:
                return would_empty(NOT_LISTED) if is_emptied else doubt
            asked, result = await self._attempt(replace(query, instance_ids=names))
            absent = await self.kept.absent_from([of], asked, result)
            is_sure = bool(result.total_items) or (is_left and result.is_surely_empty)
            unconfirmed = await self.writer.write_response(
                asked, result, [of], kept=absent.kept, is_confirmed=is_sure, doubt=absent.doubt
            )
        except (LaterError, LakeUnavailable) as failure:
            return failure
        return unconfirmed.get(of)

    def _query_of(self, of: Slice) -> PerformanceQuery:
        return self.queries_of.get(of) or PerformanceQuery(
            start_date=of.day,
            end_date=of.day,
            instance_ids=(of.instance_id or "",),  # without a query of its own, it is the file of an instance
            date_basis=self.writer.files.table.date_basis,
            metrics=self.writer.metrics,
        )

    def _listed_names(self, query: PerformanceQuery) -> tuple[str, ...]:
        return tuple(name for name in query.instance_ids if name not in self.breaker.unlisted)

    async def _confirm_silent(self, of: Slice) -> SliceError | AskAgain | None:
        """Remove the campaigns of instances of which a response had none, if it is sure; else return why they stay.

        It is sure if another response of the run has some of them, and a second one that has none is for them alone.
        """
        names, asked, result = self.silent[of]
        try:
            if not names <= await self.kept.answered():
                return silent_instances(sorted(names), NO_CAMPAIGNS)
            if not await self.kept.are_without(names, asked):
                return silent_instances(sorted(names), NOT_SURE)
            absent = await self.kept.absent_from([of], asked, result, gone=names)
            is_sure = bool(result.total_items) or result.is_surely_empty
            unconfirmed = await self.writer.write_response(asked, result, [of], kept=absent.kept, is_confirmed=is_sure)
        except (LaterError, LakeUnavailable) as failure:
            return failure
        return unconfirmed.get(of)

    def _is_limited(self, query: PerformanceQuery) -> bool:
        """Return whether a query is split if it has many posts, though not too many."""
        return not (self.breaker.by_cursor or self.breaker.is_whole) and bool(split_by_days(query))

    def _slices(self, query: PerformanceQuery, only: Slice | None) -> list[Slice]:
        """Return what to write of a query. It may cover other partitions, which are not written."""
        if only is not None:
            return [only]
        return [partition for partition in partitions_of(query) if partition in self.partitions]


def _refusal_of_only_account(name: str, error: LaterError) -> LaterError:
    """Return the error of each total of the only instance: whether it or the route is refused cannot be told."""
    return QueryRejected(
        f"the API refuses its route, or only {name!r}, which of one instance cannot be told: {error.reason} If other"
        " tables have its posts, leave this one out of LATER_TABLES, or have the route added to the credentials' scope",
        status=403,
    )
