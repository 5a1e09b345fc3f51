"""Fetch partitions and write each as soon as its query is complete and verified.

A failure affects as few partitions as possible: a failed query is split and fetched in parts, an instance that is
forbidden or keeps failing affects only its own partitions, and nothing is written from an inconsistent response.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from statistics import mean

from later_reporting_dagster.client import (
    ApiVersionChanged,
    CredentialsRejected,
    InconsistentPages,
    InstanceForbidden,
    LaterClient,
    LaterError,
    MetricsRejected,
    QueryRejected,
    QueryResult,
    RetriesExhausted,
    TooManyPosts,
)
from later_reporting_dagster.contract import (
    DEFAULT_METRICS,
    DateBasis,
    Metric,
    PostPerformanceQuery,
    metrics_to_query_field,
)
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.ingest.accepted_metrics import AcceptedMetrics, merge_supplements
from later_reporting_dagster.ingest.failure_tracker import FailureTracker
from later_reporting_dagster.ingest.partition_writer import (
    FailedPartition,
    PartitionError,
    PartitionResult,
    PartitionWriter,
    query_text,
)
from later_reporting_dagster.ingest.query_plan import (
    MAX_POSTS_PER_QUERY,
    days_per_cursor_query,
    find_unmatched_content_types,
    number_of_parts,
    partitions_of,
    plan_queries,
    split_after,
    split_by_content,
    split_by_days,
    split_by_instances,
    split_query,
)
from later_reporting_dagster.ingest.raw_tables import RawTable
from later_reporting_dagster.ingest.write_guard import WriteGuard
from later_reporting_dagster.lake import Lake, LakeUnavailable, Partition, encode_instance_id

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
# Posts in each part when a query with too many posts is split. Well below `MAX_POSTS_PER_QUERY`, because posts are not
# spread evenly, and because the client also limits the bytes of a query: 60,000 posts of 700 bytes are 42 MB of the
# 50 MB that it accepts.
MAX_POSTS_PER_PART = MAX_POSTS_PER_QUERY * 3 // 5
# Stored files that are read to estimate how many posts a day has.
SAMPLED_FILES = 32
DEFAULT_GUARD = WriteGuard()


async def ingest(
    partitions: Collection[Partition],
    *,
    table: RawTable,
    client: LaterClient,
    lake: Lake,
    on_result: Callable[[PartitionResult], None],
    guard: WriteGuard = DEFAULT_GUARD,
    metrics: tuple[Metric, ...] = DEFAULT_METRICS,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Fetch and write partitions of a raw table, and report each exactly once, as soon as its result is known.

    Failures of the API or the lake, rejections by `guard` and invalid instance ids are reported as `FailedPartition`,
    not raised.

    Args:
        partitions: the (day, instance) pairs to fetch.
        table: the raw table.
        client: an open client.
        lake: where the partitions are written.
        on_result: called from worker threads; while it blocks, fewer queries are fetched.
        guard: limits on what may be replaced.
        metrics: the metrics to request. Each partition has a column for each, even if the API has no values.
        now: the current time, in any time zone.

    Raises:
        ValueError: a partition has no instance.
    """
    partitions = await _fail_invalid_instances(partitions, on_result)
    if not partitions:
        return
    try:
        version = await client.api_version()
    except LaterError as error:
        for partition in partitions:
            await asyncio.to_thread(on_result, FailedPartition(partition=partition, error=error))
        return
    known_rows = await asyncio.to_thread(_stored_row_counts, partitions, table=table, lake=lake)
    queries = plan_queries(
        partitions, date_basis=table.date_basis, known_rows=known_rows, metrics=metrics_to_query_field(metrics)
    )
    writer = await asyncio.to_thread(
        PartitionWriter,
        table=table,
        lake=lake,
        partitions=frozenset(partitions),
        on_result=on_result,
        guard=guard,
        metrics=metrics,
        now=now,
    )
    mean_stored_rows = (
        await asyncio.to_thread(_mean_stored_rows, partitions, table=table, lake=lake)
        if version.uses_cursors and table.date_basis is DateBasis.POST_DATE
        else None
    )
    run = _IngestRun(
        client, writer, metrics=metrics, uses_cursors=version.uses_cursors, mean_stored_rows=mean_stored_rows
    )
    await run.run(queries)
    await asyncio.to_thread(writer.remove_outdated_quarantine_files)


async def _fail_invalid_instances(
    partitions: Collection[Partition], on_result: Callable[[PartitionResult], None]
) -> list[Partition]:
    """Report partitions as failed if their instance id cannot be part of a path; return the others."""
    invalid: dict[str | None, ValueError] = {}
    for instance_id in {partition.instance_id for partition in partitions}:
        try:
            if instance_id is not None:
                encode_instance_id(instance_id)
        except ValueError as error:
            invalid[instance_id] = error
    for partition in partitions:
        if (reason := invalid.get(partition.instance_id)) is not None:
            await asyncio.to_thread(on_result, FailedPartition(partition=partition, error=reason))
    return [partition for partition in partitions if partition.instance_id not in invalid]


def _stored_row_counts(partitions: Collection[Partition], *, table: RawTable, lake: Lake) -> dict[Partition, int]:
    """Return the rows of stored partitions in the range of `partitions`, for deciding whether to widen a query.

    Empty if one query covers the range anyway, or if the lake cannot be read: writing reports that error.
    """
    if table.date_basis is not DateBasis.POST_DATE or len(plan_queries(partitions, date_basis=table.date_basis)) < 2:
        return {}
    first, last = min(partition.day for partition in partitions), max(partition.day for partition in partitions)
    instances = {partition.instance_id for partition in partitions}
    with suppress(LakeUnavailable):
        present = lake.partitions(table.name, days=days_between(first, last))
        stored = lake.read_all_metadata(table.name, [each for each in present if each.instance_id in instances])
        return {partition: metadata.rows for partition, metadata in stored.items() if metadata.content_hash}
    return {}


def _mean_stored_rows(partitions: Collection[Partition], *, table: RawTable, lake: Lake) -> float | None:
    """Return the mean number of rows of the stored partitions, from a sample; None if there are none."""
    with suppress(LakeUnavailable):
        stored = lake.existing_partitions(table.name, partitions)
        sample = stored[:: max(1, len(stored) // SAMPLED_FILES)]
        if rows := [metadata.rows for metadata in lake.read_all_metadata(table.name, sample).values()]:
            return mean(rows)
    return None


@dataclass(frozen=True, slots=True)
class _QueuedQuery:
    """A query that waits to be fetched.

    Attributes:
        query: the query.
        planned: the query of the plan that it is a part of, or the query itself.
        is_part: whether it was split from another query. In the paged version a part is not limited to
            `TARGET_POSTS_PER_QUERY`, and is split again only after a failure.
    """

    query: PostPerformanceQuery
    planned: PostPerformanceQuery
    is_part: bool = False


class _InstanceScope:
    """The instances that the credentials have access to, listed at most once per run."""

    def __init__(self, client: LaterClient) -> None:
        self._client = client
        self._lock = asyncio.Lock()
        self._is_listed = False
        self._listed: frozenset[str] | None = None

    async def accessible(self, instance_ids: Sequence[str]) -> frozenset[str]:
        """Return the instances that the API lists; `instance_ids` if it fails to list them."""
        async with self._lock:
            if not self._is_listed:
                self._is_listed = True
                with suppress(LaterError):
                    self._listed = frozenset(await self._client.fetch_instances())
        return frozenset(instance_ids) if self._listed is None else self._listed


class _IngestRun:
    """Fetches queries with concurrent workers and passes their results to a `PartitionWriter`."""

    def __init__(
        self,
        client: LaterClient,
        writer: PartitionWriter,
        *,
        metrics: tuple[Metric, ...],
        uses_cursors: bool,
        mean_stored_rows: float | None,
    ) -> None:
        self._client = client
        self._writer = writer
        self._metrics = metrics
        self._failures = FailureTracker()
        self._scope = _InstanceScope(client)
        self._accepted = AcceptedMetrics(metrics)
        # Supplementary queries for metrics of unknown validity are tried one at a time, so that the others learn from a
        # rejection.
        self._metrics_lock = asyncio.Lock()
        # Last in, first out: the parts of a query are fetched before the next query, which can then leave out
        # abandoned instances and rejected metrics.
        self._queue: asyncio.LifoQueue[_QueuedQuery] = asyncio.LifoQueue()
        self._uses_cursors = uses_cursors
        # Rows of a (day, instance) pair in the queries that have succeeded; before the first one, in stored files.
        self._rows_of_pairs = mean_stored_rows
        self._fetched_rows = self._fetched_pairs = 0
        self._write_slots = asyncio.Semaphore(CONCURRENT_WRITES)

    async def run(self, queries: Sequence[PostPerformanceQuery]) -> None:
        """Fetch and write all queries: several at a time, started in the given order."""
        for query in reversed(queries):
            self._queue.put_nowait(_QueuedQuery(query, planned=query))
        async with asyncio.TaskGroup() as tasks:
            count = self._client.concurrency if self._uses_cursors else PAGED_WORKERS
            workers = [tasks.create_task(self._work()) for _ in range(count)]
            await self._queue.join()
            for worker in workers:
                worker.cancel()

    async def _work(self) -> None:
        while True:
            await self._process(await self._queue.get())
            self._queue.task_done()

    def _queue_parts(self, parts: Sequence[PostPerformanceQuery], *, planned: PostPerformanceQuery) -> None:
        for part in reversed(parts):
            self._queue.put_nowait(_QueuedQuery(part, planned, is_part=True))

    async def _process(self, queued: _QueuedQuery) -> None:
        """Fetch a query and write its partitions; if that fails, queue smaller queries or fail the partitions."""
        query = await self._without_abandoned_instances(queued.query)
        if query is None:
            return
        if self._uses_cursors and not queued.is_part:
            query = self._first_days(query, planned=queued.planned)
        is_limited = not self._uses_cursors and not queued.is_part and bool(split_by_days(query))
        base_query = self._accepted.base_query(query)
        try:
            results = await self._fetch(base_query, max_posts=TARGET_POSTS_PER_QUERY if is_limited else None)
            results = await self._add_missing_metrics(base_query, results)
        except LaterError as error:
            await self._recover(
                replace(queued, query=base_query),
                error,
                posts_per_part=TARGET_POSTS_PER_QUERY if is_limited else MAX_POSTS_PER_PART,
            )
        else:
            self._failures.record_success(query)
            self._fetched_rows += sum(result.total_items for result in results)
            self._fetched_pairs += len(partitions_of(query))
            self._rows_of_pairs = self._fetched_rows / self._fetched_pairs
            async with self._write_slots:
                await asyncio.to_thread(self._writer.write, base_query, results, planned=queued.planned)

    def _first_days(self, query: PostPerformanceQuery, *, planned: PostPerformanceQuery) -> PostPerformanceQuery:
        """Return the query for as many days as one worker fetches by cursor; queue the days after them."""
        days = days_per_cursor_query(rows_per_day=self._rows_of_pairs and self._rows_of_pairs * len(query.instance_ids))
        first, rest = split_after(query, days=days)
        if rest is not None:
            self._queue.put_nowait(_QueuedQuery(rest, planned))
        return first

    async def _recover(self, queued: _QueuedQuery, error: LaterError, *, posts_per_part: int) -> None:
        """Queue queries that may still succeed in place of a failed one; if there are none, fail its partitions."""
        query = queued.query
        parts: Sequence[PostPerformanceQuery] = []
        match error:
            case MetricsRejected():
                # `_fetch` may have split `query` by platform or content type, and the API may have rejected only one of
                # these parts. The metrics are nevertheless recorded as rejected for all of `query`, which is fetched
                # again with fewer metrics.
                self._accepted.record_rejected(query, error.detail)
                if self._accepted.has_candidates(query):
                    self._queue.put_nowait(queued)
                    return
            case CredentialsRejected() | ApiVersionChanged():
                self._failures.stopped_by = error
            case InstanceForbidden():
                parts = await self._split_forbidden_query(query, error)
            case TooManyPosts():
                parts = split_query(query, parts=number_of_parts(error.total_items, posts_each=posts_per_part))
            case RetriesExhausted():
                self._failures.record_failure(query, error)
                parts = split_by_instances(query)
            case QueryRejected():
                # The cause may be one of the instances, for example a deleted one.
                self._failures.record_rejection(query, error)
                parts = split_by_instances(query)
            case InconsistentPages():
                parts = split_query(query)
        if parts:
            self._queue_parts(parts, planned=queued.planned)
        else:
            await self._fail(query, error)

    async def _fetch(self, query: PostPerformanceQuery, *, max_posts: int | None = None) -> list[QueryResult]:
        """Fetch a query; return several results, by platform or content type, if one partition has too many posts.

        Raises:
            LaterError: as `LaterClient.fetch_posts`.
        """
        try:
            return [await self._client.fetch_posts(query, max_posts=max_posts)]
        except TooManyPosts as error:
            too_many = error
        parts = split_by_content(query, parts=number_of_parts(too_many.total_items, posts_each=MAX_POSTS_PER_PART))
        if not parts or len(partitions_of(query)) > 1:
            raise too_many
        too_many.__traceback__ = None  # its frames would keep the fetched posts in memory
        if missed := find_unmatched_content_types(too_many.content_types, parts):
            raise InconsistentPages(
                f"the posts of {query_text(query)} are too many for one query, and fetching them by platform and"
                f" content type would miss some, whose content type cannot be requested: {missed}"
            )
        results = [result for part in parts for result in await self._fetch(part)]
        total = sum(result.total_items for result in results)
        # Without a total, posts may be missing unnoticed if no fetched post had their content type.
        if too_many.total_items not in (None, total):
            raise InconsistentPages(
                f"{query_text(query)} has {too_many.total_items} posts, too many for one query, but {total} when"
                " fetched by platform and content type: the others have a content type that cannot be requested,"
                " or posts were added in between. Try again."
            ) from too_many
        return results

    async def _add_missing_metrics(
        self, query: PostPerformanceQuery, results: Sequence[QueryResult]
    ) -> list[QueryResult]:
        """Fetch the metrics that the base query did not return.

        These are further groups with the same filters, and rejected metrics with narrower filters.

        Returns:
            `results` with the values of these metrics.
        """
        self._accepted.record_accepted(query)
        fetched, supplements = [query], list[QueryResult]()
        while (part := self._accepted.supplementary_query(query, fetched)) is not None:
            if self._accepted.is_accepted(part):
                supplements += await self._fetch_supplement(part, fetched)
                continue
            async with self._metrics_lock:
                # Another query may have learned about these metrics while this one waited for the lock.
                is_unknown = not self._accepted.is_accepted(part)
                if is_unknown and part == self._accepted.supplementary_query(query, fetched):
                    supplements += await self._fetch_supplement(part, fetched)
        return await asyncio.to_thread(merge_supplements, results, supplements, metrics=self._metrics)

    async def _fetch_supplement(
        self, query: PostPerformanceQuery, fetched: list[PostPerformanceQuery]
    ) -> list[QueryResult]:
        """Fetch a supplementary query and append it to `fetched`; return nothing if its metrics are rejected."""
        try:
            results = await self._fetch(query)
        except MetricsRejected as error:
            self._accepted.record_rejected(query, error.detail)
            return []
        self._accepted.record_accepted(query)
        fetched.append(query)
        return results

    async def _without_abandoned_instances(self, query: PostPerformanceQuery) -> PostPerformanceQuery | None:
        """Fail the partitions of abandoned instances, or all partitions of the query if the run was stopped.

        Returns:
            The query for the other instances; None if it would have no partition to write.
        """
        if self._failures.stopped_by is not None:
            await self._fail(query, self._failures.stopped_by)
            return None
        # A copy, because another query may abandon an instance during an await.
        known = dict(self._failures.abandoned)
        abandoned = {instance_id: known[instance_id] for instance_id in query.instance_ids if instance_id in known}
        for instance_id, error in abandoned.items():
            await self._fail(replace(query, instance_ids=(instance_id,)), error)
        instance_ids = tuple(instance_id for instance_id in query.instance_ids if instance_id not in abandoned)
        if not instance_ids:
            return None
        remaining = replace(query, instance_ids=instance_ids)
        return remaining if self._writer.partitions_to_write(remaining) else None

    async def _split_forbidden_query(
        self, query: PostPerformanceQuery, error: InstanceForbidden
    ) -> Sequence[PostPerformanceQuery]:
        """Abandon the forbidden instances of a query; return the queries to fetch next, empty for a single instance.

        A returned query may still contain abandoned instances: `_without_abandoned_instances` removes them.
        """
        if len(query.instance_ids) == 1:
            self._failures.record_rejection(query, error)
            return []
        forbidden = set(query.instance_ids) - await self._scope.accessible(query.instance_ids)
        for instance_id in forbidden:
            self._failures.abandoned[instance_id] = InstanceForbidden(
                f"instance {instance_id!r} is not accessible with these credentials: "
                "have it added to their scope, or list the instances to fetch in LATER_INSTANCE_IDS",
                instance_ids=(instance_id,),
            )
        if forbidden:
            return [query]
        # The listing does not show which instance is forbidden, so each is fetched alone.
        return [replace(query, instance_ids=(instance_id,)) for instance_id in query.instance_ids]

    async def _fail(self, query: PostPerformanceQuery, error: PartitionError) -> None:
        # In a thread, because `on_result` may block.
        await asyncio.to_thread(self._writer.fail, query, error)
