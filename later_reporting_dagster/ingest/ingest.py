"""Fetch partitions of posts and write each as soon as its query is complete and verified.

A failure affects as few partitions as possible: a failed query is split and fetched in parts, an instance that is
forbidden or keeps failing affects only its own partitions, and nothing is written from an inconsistent response. What
is asked next is decided by `query_plan`.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from random import Random
from statistics import mean

import anyio
import anyio.to_thread

from later_reporting_dagster.client import LaterClient, LaterError, ListResult, QueryRejected
from later_reporting_dagster.contract import DateBasis, PerformanceQuery
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.ingest.partition_writer import PartitionWriter, Response, confirm
from later_reporting_dagster.ingest.post_fetch import PostFetch
from later_reporting_dagster.ingest.progress import refusal
from later_reporting_dagster.ingest.query_plan import (
    MAX_POSTS_PER_PART,
    History,
    partitions_of,
    plan_queries,
    queries_after,
    queries_to_ask,
    split_by_days,
    split_query,
)
from later_reporting_dagster.ingest.replacement import InDoubt
from later_reporting_dagster.lake import Lake, LakeUnavailable, Partition, encode_instance_id
from later_reporting_dagster.lake.tables import RawTable

# Workers in the paged version, where the pages of a query are fetched concurrently: two queries keep the connections
# busy while a third is written. The pages of a cursor query are fetched one after the other, so there is a worker for
# each concurrent request.
PAGED_WORKERS = 3
# Queries whose results are written at the same time; the other workers wait before they write.
CONCURRENT_WRITES = 3
# A range with more than half as many posts again is fetched in parts of so many: the first days are written while the
# next are fetched, and memory does not grow with the range. The cost in the paged version: page 1, which returned the
# total, is fetched in vain, and the last page of each part is only partly filled.
TARGET_POSTS_PER_QUERY = 12_000
# Stored files that are read to estimate how many posts a file has.
SAMPLED_FILES = 32


async def ingest(
    partitions: Collection[Partition], writer: PartitionWriter, *, client: LaterClient, widen_days: int = 0
) -> None:
    """Fetch and write partitions of posts; the writer sends the result of each exactly once, as soon as it is known.

    Failures of the API or the lake, rejections by the write guard and invalid instance ids are results, not raised.
    While the results are full, fewer queries are fetched.
    """
    table, lake = writer.table, writer.lake
    partitions = await _fail_invalid_instances(partitions, writer)
    if not partitions:
        return
    try:
        by_cursor = (await client.api_version()).uses_cursors
    except LaterError as error:
        await writer.fail(partitions, error)
        return
    widen_days = widen_days if table.date_basis is DateBasis.POST_DATE else 0
    plan = partial(plan_queries, partitions, table=table, metrics=writer.metrics, wider_by=widen_days)
    history = History(
        days=len({partition.day for partition in partitions}),
        instances=len({partition.instance_id for partition in partitions}),
        by_cursor=by_cursor,
        is_wider=bool(widen_days),
    )
    queries = plan()
    if table.date_basis is DateBasis.POST_DATE and (len(queries) > 1 or by_cursor):
        history.rows_per_file = await anyio.to_thread.run_sync(_mean_stored_rows, partitions, table, lake)
        queries = plan(rows_per_file=history.rows_per_file)
    run = _IngestRun(
        client,
        writer,
        posts=PostFetch(client, table=table, metrics=writer.metrics, by_cursor=by_cursor),
        partitions=frozenset(partitions),
        history=history,
        widen_days=widen_days,
    )
    for query in queries:  # the newest days are fetched first
        run.queue.put_nowait(query)
    async with anyio.create_task_group() as workers:
        for _ in range(client.concurrency if by_cursor else PAGED_WORKERS):
            workers.start_soon(run.work)
        await run.queue.join()
        workers.cancel_scope.cancel()
    for partition, doubt in run.in_doubt.items():
        is_left, names = partition.instance_id in writer.keeping, (str(partition.instance_id),)
        await confirm(doubt, partition, writer, run.ask_alone, client=client, instance_ids=names, is_left=is_left)


async def _fail_invalid_instances(partitions: Collection[Partition], writer: PartitionWriter) -> list[Partition]:
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
        if rows := [file.rows for file in files if file.content_hash]:
            return mean(rows)
    return None


@dataclass(eq=False, slots=True)
class _IngestRun:
    """One run of `ingest`.

    Attributes:
        in_doubt: the partitions whose stored rows may not be gone, although the response lacks them.
        refused: the instances that the API lists, and for which it has refused the route of the table.
        queue: the queries to fetch. Last in, first out: the parts of a query are fetched before the next query, which
            can then leave out what has failed.
    """

    client: LaterClient
    writer: PartitionWriter
    posts: PostFetch
    partitions: frozenset[Partition]
    history: History
    widen_days: int
    in_doubt: dict[Partition, InDoubt] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    queue: asyncio.LifoQueue[PerformanceQuery] = field(default_factory=asyncio.LifoQueue)
    _write_slots: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, CONCURRENT_WRITES))

    async def work(self) -> None:
        """Fetch queries and write their partitions; if one fails, queue smaller queries or fail the partitions."""
        while True:
            query = await self.queue.get()
            parts = queries_to_ask(query, self.history)
            if parts != [(query, None)]:
                for part, error in reversed(parts):
                    if error is None:
                        self.queue.put_nowait(part)
                    else:
                        await self.writer.fail(self._wanted(part), error)
            elif self._wanted(query):
                await self._fetch(query)
            self.queue.task_done()

    async def _fetch(self, query: PerformanceQuery) -> None:
        """Fetch a query, and write it or queue what to ask in its place."""
        is_limited = not self.history.by_cursor and bool(split_by_days(query))
        try:
            result = await self._fetch_posts(query, max_posts=TARGET_POSTS_PER_QUERY * 3 // 2 if is_limited else None)
        except LaterError as error:
            self.history.add_failure(query, error)
            if isinstance(error, QueryRejected) and error.is_forbidden:
                await self._find_unlisted(query)
            if self.writer.table.is_optional and not self.history.has_succeeded:
                await self._raise_if_refused(query, error)
            posts_each = TARGET_POSTS_PER_QUERY if is_limited else MAX_POSTS_PER_PART
            parts = queries_after(query, error, self.history, posts_each=posts_each)
            for part in reversed(parts):
                self.queue.put_nowait(part)
            if not parts:
                await self.writer.fail(self._wanted(query), error)
            return
        self.history.add_success(query, rows=result.total_items)
        async with self._write_slots:
            self.in_doubt |= await self.writer.write(self._widened(query), result, self._wanted(query))

    async def _find_unlisted(self, query: PerformanceQuery) -> None:
        """Remember which instances of a query the API does not list. A 403 does not say which it is about."""
        if len(query.instance_ids) == 1 and not self.writer.table.one_instance_per_query:
            return
        with suppress(LaterError):
            accessible = await self.client.accessible(query.instance_ids)
            for instance_id in {*query.instance_ids} - {*accessible}:
                self.history.unlisted[instance_id] = QueryRejected(
                    f"instance {instance_id!r} is not accessible with these credentials: "
                    "have it added to their scope, or list the instances to fetch in LATER_INSTANCE_IDS",
                    status=403,
                )

    async def _raise_if_refused(self, query: PerformanceQuery, error: LaterError) -> None:
        """Raise if the API offers the route of the table to none of two instances that it lists, or to the only one."""
        refused = refusal(error)
        if refused is None:
            return
        with suppress(LaterError):
            self.refused.update(await self.client.accessible(query.instance_ids))
        if len(self.refused) >= min(2, self.history.instances):
            raise refused from None

    async def ask_alone(self, partition: Partition) -> Response:
        query = PerformanceQuery(
            start_date=partition.day,
            end_date=partition.day,
            instance_ids=(str(partition.instance_id),),
            date_basis=self.writer.table.date_basis,
            metrics=self.writer.metrics,
        )
        return self._widened(query), await self._fetch_posts(query), frozenset()

    async def _fetch_posts(self, query: PerformanceQuery, *, max_posts: int | None = None) -> ListResult:
        return await self.posts.fetch(
            self._widened(query),
            by_content=not split_query(query),
            max_posts=max_posts,
            max_attempts=self.history.max_attempts(query),
        )

    def _wanted(self, query: PerformanceQuery) -> list[Partition]:
        """Return the partitions of the run that a query covers. It may cover others, which are not written."""
        return [partition for partition in partitions_of(query) if partition in self.partitions]

    def _widened(self, query: PerformanceQuery) -> PerformanceQuery:
        days = timedelta(days=self.widen_days)
        return replace(query, start_date=query.start_date - days, end_date=query.end_date + days)
