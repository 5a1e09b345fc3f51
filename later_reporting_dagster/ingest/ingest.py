"""Fetch partitions and write each as soon as its query is complete and verified.

A failure affects as few partitions as possible: a failed query is split and fetched in parts, an instance that is
forbidden or keeps failing affects only its own partitions, and nothing is written from an inconsistent response.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from statistics import mean

import anyio
import anyio.to_thread

from later_reporting_dagster.client import (
    ApiVersionChanged,
    CredentialsRejected,
    InconsistentPages,
    InstanceForbidden,
    LaterClient,
    LaterError,
    ListResult,
    QueryRejected,
    RetriesExhausted,
    TooManyPosts,
    UnexpectedResponse,
)
from later_reporting_dagster.contract import DateBasis, PerformanceQuery
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.ingest.partition_writer import PartitionError, PartitionWriter
from later_reporting_dagster.ingest.post_fetch import MAX_ATTEMPTS_AFTER_FAILURE, PostFetch
from later_reporting_dagster.ingest.query_plan import (
    MAX_POSTS_PER_PART,
    days_per_cursor_query,
    number_of_parts,
    partitions_of,
    plan_queries,
    split_after,
    split_by_days,
    split_by_instances,
    split_query,
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
# The run stops once queries for this many different instances, or days of campaigns, have failed without a success in
# between.
OUTAGE_FAILURES = 5
# An instance that has failed is queried alone. Once so many of its days have failed in a row, it is not requested any
# more: one day may have a post that the API cannot return, while the others are well. Once so many queries have
# succeeded in a row, it is queried together with others again.
RESULTS_IN_A_ROW = 3


async def ingest(partitions: Collection[Partition], writer: PartitionWriter, *, client: LaterClient) -> None:
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
    plan = partial(plan_queries, partitions, date_basis=table.date_basis, metrics=metrics)
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
    )
    for query in reversed(queries):
        run.queue.put_nowait(_QueuedQuery(query, planned=query))
    async with anyio.create_task_group() as workers:
        for _ in range(client.concurrency if version.uses_cursors else PAGED_WORKERS):
            workers.start_soon(run.work)
        await run.queue.join()
        workers.cancel_scope.cancel()


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
class FailureTracker:
    """Decides from failures what is not requested any more.

    Attributes:
        stopped_by: the error that stopped the run, such as rejected credentials or an outage; None while it goes on.
        abandoned: instances that are not requested any more, each with the error.
        suspects: by instance that has failed alone, how many of its days have failed in a row, or below 0, how many of
            its queries have succeeded in a row.
    """

    stopped_by: LaterError | None = None
    abandoned: dict[str, LaterError] = field(default_factory=dict)
    suspects: dict[str, int] = field(default_factory=dict)
    _failed_since_success: set[str] = field(default_factory=set)

    def record_success(self, causes: Sequence[str] = ()) -> None:
        self._failed_since_success.clear()
        for cause in self.suspects.keys() & causes:
            self.suspects[cause] = min(self.suspects[cause], 0) - 1
            if self.suspects[cause] == -RESULTS_IN_A_ROW:
                del self.suspects[cause]

    def record_failure(self, causes: Sequence[str], error: LaterError, *, is_range: bool = False) -> None:
        """Stop the run if every query would fail; abandon an instance that is rejected, or of which all days fail.

        Args:
            causes: the instances of the query, or the day of campaigns. If there are several, each may be the cause, so
                the failure counts for none of them.
            is_range: whether the query is for several days, which are then queried in parts.
        """
        if isinstance(error, CredentialsRejected | ApiVersionChanged | UnexpectedResponse):
            self.stopped_by = error
        if len(causes) != 1:
            return
        (cause,) = causes
        if isinstance(error, InstanceForbidden | QueryRejected):
            self.abandoned[cause] = error
        if isinstance(error, RetriesExhausted):
            self._failed_since_success.add(cause)
            self.suspects[cause] = max(self.suspects.get(cause, 0), 0) + (not is_range)
            if self.suspects[cause] >= RESULTS_IN_A_ROW:
                self.abandoned[cause] = error
            if len(self._failed_since_success) >= OUTAGE_FAILURES:
                self.stopped_by = error


@dataclass(eq=False, slots=True)
class _IngestRun:
    """One run of `ingest`.

    Attributes:
        mean_rows: mean rows per file so far; before the first query succeeds, those of stored files.
        queue: the queries to fetch. Last in, first out: the parts of a query are fetched before the next query, which
            can then leave out abandoned instances.
    """

    client: LaterClient
    writer: PartitionWriter
    partitions: frozenset[Partition]
    posts: PostFetch
    uses_cursors: bool
    mean_rows: float | None
    _fetched_rows: int = 0
    _fetched_pairs: int = 0
    _failures: FailureTracker = field(default_factory=FailureTracker)
    queue: asyncio.LifoQueue[_QueuedQuery] = field(default_factory=asyncio.LifoQueue)
    _write_slots: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, CONCURRENT_WRITES))

    async def work(self) -> None:
        """Fetch queries and write their partitions; if one fails, queue smaller queries or fail the partitions."""
        while True:
            if (queued := await self._query_to_fetch(await self.queue.get())) is not None:
                if self.uses_cursors and not queued.is_part:
                    queued = self._first_days(queued)
                is_limited = not self.uses_cursors and not queued.is_part and bool(split_by_days(queued.query))
                limit = TARGET_POSTS_PER_QUERY if is_limited else None
                try:
                    result = await self.posts.fetch(queued.query, max_posts=limit, max_attempts=queued.max_attempts)
                except LaterError as error:
                    await self._recover(queued, error, posts_per_part=limit or MAX_POSTS_PER_PART)
                else:
                    await self._write(queued, result)
                    del result  # or its posts stay in memory while the next ones are fetched
            self.queue.task_done()

    async def _write(self, queued: _QueuedQuery, result: ListResult) -> None:
        query = queued.query
        self._failures.record_success(query.instance_ids)
        self._fetched_rows += result.total_items
        self._fetched_pairs += len(partitions_of(query))
        self.mean_rows = self._fetched_rows / self._fetched_pairs
        async with self._write_slots:
            await self.writer.write(query, result, self._partitions_to_write(query), planned=queued.planned)

    def _partitions_to_write(self, query: PerformanceQuery) -> list[Partition]:
        """Return the partitions of the run that a query covers. It may cover others, which are not written."""
        return [partition for partition in partitions_of(query) if partition in self.partitions]

    def _first_days(self, queued: _QueuedQuery) -> _QueuedQuery:
        """Return the query for as many days as one worker fetches by cursor; queue the days after them."""
        query = queued.query
        days = days_per_cursor_query(rows_per_day=self.mean_rows and self.mean_rows * len(query.instance_ids))
        first, rest = split_after(query, days=days)
        if rest is not None:
            # `_query_to_fetch` decides how many attempts it gets: a suspect may have recovered by then.
            self.queue.put_nowait(_QueuedQuery(rest, queued.planned))
        return replace(queued, query=first)

    async def _recover(self, queued: _QueuedQuery, error: LaterError, *, posts_per_part: int) -> None:
        """Queue queries that may still succeed in place of a failed one; if there are none, fail its partitions."""
        query = queued.query
        parts: Sequence[PerformanceQuery] = []
        max_attempts = MAX_ATTEMPTS_AFTER_FAILURE if isinstance(error, RetriesExhausted) else queued.max_attempts
        self._failures.record_failure(query.instance_ids, error, is_range=bool(split_by_days(query)))
        match error:
            case InstanceForbidden() if len(query.instance_ids) > 1:
                parts = await self._split_forbidden_query(query)
            case TooManyPosts():
                parts = split_query(query, parts=number_of_parts(error.total_items, posts_each=posts_per_part))
            case RetriesExhausted():
                # The cause may be one of the instances, or a post of one day.
                parts = split_by_instances(query) or split_by_days(query)
            case InstanceForbidden() | QueryRejected():
                # The cause may be one of the instances, for example a deleted one.
                parts = split_by_instances(query)
            case InconsistentPages():
                parts = split_query(query)
        for part in reversed(parts):
            is_part = queued.is_part or part != query
            self.queue.put_nowait(replace(queued, query=part, is_part=is_part, max_attempts=max_attempts))
        if not parts:
            await self._fail(query, error)

    async def _query_to_fetch(self, queued: _QueuedQuery) -> _QueuedQuery | None:
        """Return the query without abandoned instances, and without those that have failed before: it queues these.

        Each is then queried alone, with fewer attempts if other instances wait. The partitions of abandoned instances
        fail, or all if the run was stopped. None if no partition to write is left.
        """
        query = queued.query
        if self._failures.stopped_by is not None:
            await self._fail(query, self._failures.stopped_by)
            return None
        abandoned = {name: error for name, error in self._failures.abandoned.items() if name in query.instance_ids}
        for instance_id, error in abandoned.items():
            await self._fail(replace(query, instance_ids=(instance_id,)), error)
        instance_ids = [instance_id for instance_id in query.instance_ids if instance_id not in abandoned]
        suspects = [name for name in instance_ids if name in self._failures.suspects]
        if suspects and len(instance_ids) == 1:
            # Nobody waits for an only instance, so it may outlast an outage.
            if len(queued.planned.instance_ids) > 1:
                queued = replace(queued, max_attempts=MAX_ATTEMPTS_AFTER_FAILURE)
        else:
            for name in suspects:
                self.queue.put_nowait(replace(queued, query=replace(query, instance_ids=(name,))))
            instance_ids = [name for name in instance_ids if name not in suspects]
        remaining = replace(query, instance_ids=tuple(instance_ids))
        return replace(queued, query=remaining) if self._partitions_to_write(remaining) else None

    async def _split_forbidden_query(self, query: PerformanceQuery) -> Sequence[PerformanceQuery]:
        """Abandon the forbidden instances of a query; return the queries to fetch next.

        A returned query may still contain abandoned instances: `_query_to_fetch` removes them.
        """
        forbidden: list[str] = []
        with suppress(LaterError):
            accessible = await self.client.accessible(query.instance_ids)
            forbidden = [name for name in query.instance_ids if name not in accessible]
        for instance_id in forbidden:
            self._failures.abandoned[instance_id] = InstanceForbidden(
                f"instance {instance_id!r} is not accessible with these credentials: "
                "have it added to their scope, or list the instances to fetch in LATER_INSTANCE_IDS"
            )
        if forbidden:
            return [query]
        # Else the listing does not show which instance is forbidden.
        return split_by_instances(query)

    async def _fail(self, query: PerformanceQuery, error: PartitionError) -> None:
        await self.writer.fail(self._partitions_to_write(query), error)
