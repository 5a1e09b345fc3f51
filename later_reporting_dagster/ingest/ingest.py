"""Fetch partitions and write each as soon as its query is complete and verified.

A failure affects as few partitions as possible: a failed query is split and fetched in parts, an instance that is
forbidden or keeps failing affects only its own partitions, and nothing is written from an inconsistent response.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from random import Random
from statistics import mean

import anyio
import anyio.to_thread

from later_reporting_dagster.client import LaterClient, LaterError, ListResult, QueryRejected, RetriesExhausted
from later_reporting_dagster.contract import DateBasis, PerformanceQuery
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.ingest.partition_results import PartitionError
from later_reporting_dagster.ingest.partition_writer import (
    NOT_LISTED,
    NOT_SURE,
    NOTHING_LEFT,
    PartitionWriter,
    WouldEmpty,
)
from later_reporting_dagster.ingest.post_fetch import MAX_ATTEMPTS_AFTER_FAILURE, PostFetch
from later_reporting_dagster.ingest.query_plan import (
    MAX_DAYS,
    MAX_POSTS_PER_PART,
    History,
    days_per_cursor_query,
    partitions_of,
    plan_queries,
    queries_after,
    queries_to_ask,
    split_by_days,
    split_newest,
)
from later_reporting_dagster.lake import Lake, LakeUnavailable, Partition, encode_instance_id
from later_reporting_dagster.lake.tables import RawTable

# Workers in the paged version, where the pages of a query are fetched concurrently: two queries keep the connections
# busy while a third is written. The pages of a cursor query are fetched one after the other, so there is a worker for
# each concurrent request.
PAGED_WORKERS = 3
# Queries whose results are written at the same time; the other workers wait before they write.
CONCURRENT_WRITES = 3
# A range with more posts is fetched in parts: the first days are written while the next are fetched, and memory does
# not grow with the range. The cost in the paged version: page 1, which returned the total, is fetched in vain, and the
# last page of each part is only partly filled.
TARGET_POSTS_PER_QUERY = 12_000
# Stored files that are read to estimate how many posts a file has.
SAMPLED_FILES = 32


async def ingest(
    partitions: Collection[Partition], writer: PartitionWriter, *, client: LaterClient, widen_days: int = 0
) -> None:
    """Fetch and write partitions of posts; the writer sends the result of each exactly once, as soon as it is known.

    Failures of the API or the lake, rejections by the write guard and invalid instance ids are sent as
    `FailedPartition`, not raised. While the results are full, fewer queries are fetched.
    """
    table, lake, metrics = writer.table, writer.lake, writer.metrics
    partitions = await _fail_invalid_instances(partitions, writer)
    if not partitions:
        return
    try:
        version = await client.api_version()
    except LaterError as error:
        await writer.fail(partitions, error)
        return
    max_days = MAX_DAYS - 2 * widen_days
    plan = partial(plan_queries, partitions, date_basis=table.date_basis, metrics=metrics, max_days=max_days)
    queries, mean_rows = plan(), None
    if table.date_basis is DateBasis.POST_DATE and (len(queries) > 1 or version.uses_cursors):
        mean_rows = await anyio.to_thread.run_sync(_mean_stored_rows, partitions, table, lake)
        queries = plan(rows_per_file=mean_rows)
    run = _IngestRun(
        client,
        writer,
        partitions=frozenset(partitions),
        posts=PostFetch(client, metrics=metrics, by_cursor=version.uses_cursors),
        uses_cursors=version.uses_cursors,
        mean_rows=mean_rows,
        widen_days=widen_days if table.date_basis is DateBasis.POST_DATE else 0,
        history=History(days=len({partition.day for partition in partitions})),
    )
    for query in queries:  # the newest days are fetched first
        run.queue.put_nowait(_QueuedQuery(query, planned=query))
    async with anyio.create_task_group() as workers:
        for _ in range(client.concurrency if version.uses_cursors else PAGED_WORKERS):
            workers.start_soon(run.work)
        await run.queue.join()
        workers.cancel_scope.cancel()
    await run.confirm_empty()


async def _fail_invalid_instances(partitions: Collection[Partition], writer: PartitionWriter) -> list[Partition]:
    """Send partitions as failed if their instance id cannot be part of a path; return the others."""
    valid = [*partitions]
    for instance_id in {partition.instance_id for partition in partitions}:
        try:
            encode_instance_id(instance_id or "")
        except ValueError as error:
            await writer.fail([partition for partition in valid if partition.instance_id == instance_id], error)
            valid = [partition for partition in valid if partition.instance_id != instance_id]
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


@dataclass(frozen=True, slots=True)
class _QueuedQuery:
    """A query that waits to be fetched.

    Attributes:
        planned: the query of the plan that it is a part of, or the query itself.
        is_part: whether it was split from another query. In the paged version a part is not limited to
            `TARGET_POSTS_PER_QUERY`, and is split again only after a failure.
        max_attempts: of each request; None for those of the client.
    """

    query: PerformanceQuery
    planned: PerformanceQuery
    is_part: bool = False
    max_attempts: int | None = None


@dataclass(eq=False, slots=True)
class _IngestRun:
    """One run of `ingest`.

    Attributes:
        mean_rows: mean rows per file so far; before the first query succeeds, those of stored files.
        in_doubt: the partitions whose stored rows would be replaced by none, each with its query of the plan.
        queue: the queries to fetch. Last in, first out: the parts of a query are fetched before the next query, which
            can then leave out what has failed.
    """

    client: LaterClient
    writer: PartitionWriter
    partitions: frozenset[Partition]
    posts: PostFetch
    uses_cursors: bool
    mean_rows: float | None
    widen_days: int
    history: History
    in_doubt: dict[Partition, PerformanceQuery] = field(default_factory=dict)
    _fetched_rows: int = 0
    _fetched_pairs: int = 0
    queue: asyncio.LifoQueue[_QueuedQuery] = field(default_factory=asyncio.LifoQueue)
    _write_slots: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, CONCURRENT_WRITES))

    async def work(self) -> None:
        """Fetch queries and write their partitions; if one fails, queue smaller queries or fail the partitions."""
        while True:
            queued = await self.queue.get()
            parts = queries_to_ask(queued.query, self.history)
            if parts == [(queued.query, None)]:
                if self._wanted(queued.query):
                    await self._fetch(queued)
            else:
                await self._queue_parts(queued, parts)
            self.queue.task_done()

    async def _queue_parts(
        self, queued: _QueuedQuery, parts: Sequence[tuple[PerformanceQuery, LaterError | None]]
    ) -> None:
        for part, error in reversed(parts):
            if error is not None:
                await self._fail(part, error)
                continue
            # Others wait for an instance that has failed. An only one may outlast an outage.
            is_alone = len(part.instance_ids) == 1 < len(queued.planned.instance_ids)
            max_attempts = MAX_ATTEMPTS_AFTER_FAILURE if is_alone else queued.max_attempts
            self.queue.put_nowait(replace(queued, query=part, max_attempts=max_attempts))

    async def _fetch(self, queued: _QueuedQuery) -> None:
        if self.uses_cursors and not queued.is_part:
            queued = self._newest_days(queued)
        is_limited = not self.uses_cursors and not queued.is_part and bool(split_by_days(queued.query))
        limit = TARGET_POSTS_PER_QUERY if is_limited else None
        try:
            result = await self.posts.fetch(
                self._widened(queued.query), max_posts=limit, max_attempts=queued.max_attempts
            )
        except LaterError as error:
            await self._recover(queued, error, posts_each=limit or MAX_POSTS_PER_PART)
        else:
            await self._write(queued, result)

    async def _recover(self, queued: _QueuedQuery, error: LaterError, *, posts_each: int) -> None:
        """Queue queries that may still succeed in place of a failed one; if there are none, fail its partitions."""
        query = queued.query
        self.history.add_failure(query, error)
        if isinstance(error, QueryRejected) and error.is_forbidden:
            await self._find_unlisted(query)
        parts = queries_after(query, error, self.history, posts_each=posts_each)
        max_attempts = MAX_ATTEMPTS_AFTER_FAILURE if isinstance(error, RetriesExhausted) else queued.max_attempts
        for part in reversed(parts):
            is_part = queued.is_part or part != query
            self.queue.put_nowait(replace(queued, query=part, is_part=is_part, max_attempts=max_attempts))
        if not parts:
            await self._fail(query, error)

    async def _find_unlisted(self, query: PerformanceQuery) -> None:
        """Remember which of several instances the API does not list. A 403 does not say which it is about."""
        if len(query.instance_ids) == 1:
            return
        with suppress(LaterError):
            accessible = await self.client.accessible(query.instance_ids)
            for instance_id in {*query.instance_ids} - {*accessible}:
                self.history.unlisted[instance_id] = QueryRejected(
                    f"instance {instance_id!r} is not accessible with these credentials: "
                    "have it added to their scope, or list the instances to fetch in LATER_INSTANCE_IDS",
                    status=403,
                )

    async def _write(self, queued: _QueuedQuery, result: ListResult) -> None:
        query = queued.query
        self.history.add_success(query)
        self._fetched_rows += result.total_items
        self._fetched_pairs += len(partitions_of(query))
        self.mean_rows = self._fetched_rows / self._fetched_pairs
        async with self._write_slots:
            wanted = self._wanted(query)
            in_doubt = await self.writer.write(self._widened(query), result, wanted, planned=queued.planned)
            self.in_doubt |= dict.fromkeys(in_doubt, queued.planned)

    async def confirm_empty(self) -> None:
        """Ask again for the partitions that would lose all rows, and replace those that are surely without any.

        If all stored rows of an instance in this run would go, none go.
        """
        for partition, planned in self.in_doubt.items():
            instance_id = str(partition.instance_id)
            query = replace(planned, start_date=partition.day, end_date=partition.day, instance_ids=(instance_id,))
            try:
                if instance_id not in self.writer.keeping:
                    error: PartitionError = WouldEmpty(NOTHING_LEFT)
                elif not await self.client.accessible((instance_id,)):
                    error = WouldEmpty(NOT_LISTED)
                else:
                    result = await self.posts.fetch(self._widened(query))
                    is_sure = bool(result.total_items) or result.is_surely_empty
                    if not await self.writer.write(
                        self._widened(query), result, [partition], planned=planned, is_confirmed=is_sure
                    ):
                        continue
                    error = WouldEmpty(NOT_SURE)
            except LaterError as failure:
                error = failure
            await self.writer.fail([partition], error)

    async def _fail(self, query: PerformanceQuery, error: PartitionError) -> None:
        await self.writer.fail(self._wanted(query), error)

    def _wanted(self, query: PerformanceQuery) -> list[Partition]:
        """Return the partitions of the run that a query covers. It may cover others, which are not written."""
        return [partition for partition in partitions_of(query) if partition in self.partitions]

    def _widened(self, query: PerformanceQuery) -> PerformanceQuery:
        days = timedelta(days=self.widen_days)
        return replace(query, start_date=query.start_date - days, end_date=query.end_date + days)

    def _newest_days(self, queued: _QueuedQuery) -> _QueuedQuery:
        """Return the query for as many days as one worker fetches by cursor; queue the days before them."""
        query = queued.query
        days = days_per_cursor_query(
            rows_per_day=self.mean_rows and self.mean_rows * len(query.instance_ids), is_wider=bool(self.widen_days)
        )
        newest, rest = split_newest(query, days=days)
        if rest is not None:
            self.queue.put_nowait(replace(queued, query=rest))
        return replace(queued, query=newest)
