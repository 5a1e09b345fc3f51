"""Asks the planned queries, and has each partition landed as soon as it is complete and verified.

What goes wrong costs as little as it can: a query that fails is asked again in smaller parts, an instance that is
forbidden or always fails costs its own partitions alone, and nothing is written from a walk that is not good.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence, Set
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from later_reporting_dagster.client import (
    CredentialsRejected,
    InstanceForbidden,
    LaterClient,
    LaterError,
    MetricsRefused,
    QueryRefused,
    Reach,
    Retriable,
    TooManyPosts,
    Walk,
    WalkInconsistent,
)
from later_reporting_dagster.contract import DOCUMENT_METRICS, DateBasis, Metric, PostPerformanceQuery, names_to_ask_for
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.ingest.accepted_metrics import AllowedMetrics, with_values
from later_reporting_dagster.ingest.partition_writer import Failed, Landing, Outcome, Reason, named
from later_reporting_dagster.ingest.query_plan import (
    MAXIMUM_POSTS,
    by_content,
    by_days,
    by_instances,
    narrower,
    partitions_of,
    parts_for,
    plan,
    shares,
)
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.ingest.write_guard import Guard
from later_reporting_dagster.lake import Lake, LakeUnavailable, Partition, encode_instance_id

# Queries under way at once. Their pages are concurrent too, under the client's own bound, so two keep the wire busy
# while a third is being written.
CONCURRENT_QUERIES = 3
# Where each page has to come before the next can be asked for, as many walk as requests may be in flight, and some
# more while others write.
WALKERS_AHEAD = 2
# A range of more posts is asked for in parts, so that the first days are written while the next are fetched, and so
# that memory does not grow with the range. It costs the page that told, and a last page that is not full for each part.
POSTS_AT_ONCE = 12_000
# A fifth of slack, because posts are never spread evenly.
POSTS_OF_A_PART = MAXIMUM_POSTS * 4 // 5
# An instance whose own queries failed so often in a row, each after all its retries, is not asked for again.
FAILURES_TO_GIVE_UP = 2
# When so many instances have failed alone, one after the other and with no success in between, the service is down.
INSTANCES_OF_AN_OUTAGE = 5
DEFAULT_GUARD = Guard()


async def ingest(
    partitions: Collection[Partition],
    *,
    source: Source,
    client: LaterClient,
    lake: Lake,
    deliver: Callable[[Outcome], None],
    guard: Guard = DEFAULT_GUARD,
    metrics: tuple[Metric, ...] = DOCUMENT_METRICS,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> None:
    """Lands `partitions` of `source`, and delivers exactly one outcome for each, as soon as it is known.

    `deliver` is called from worker threads and may block, which holds up the fetching. What fails for a reason of the
    service or of the lake, or because `guard` does not let it pass, is an outcome, not an exception; so is an instance
    whose id cannot be a partition, which nothing is asked for. Asked for are `metrics`, of which each partition gets a
    column, whether or not the service has any of them.
    """
    refused = _refused_instances(partitions)
    for partition in partitions:
        if partition.instance_id in refused:
            await asyncio.to_thread(deliver, Failed(partition=partition, error=refused[partition.instance_id]))
    partitions = [partition for partition in partitions if partition.instance_id not in refused]
    if not partitions:
        return
    known_rows = await asyncio.to_thread(_rows_in_the_lake, partitions, source=source, lake=lake)
    asked_for = names_to_ask_for(metrics)
    queries = plan(partitions, date_basis=source.date_basis, known_rows=known_rows, metrics=asked_for)
    landing = await asyncio.to_thread(
        Landing,
        source=source,
        lake=lake,
        wanted=frozenset(partitions),
        deliver=deliver,
        guard=guard,
        metrics=metrics,
        now=now,
    )
    await _Ingest(client=client, landing=landing, metrics=metrics).run(queries)
    await asyncio.to_thread(landing.clear_refetched)


def _refused_instances(partitions: Iterable[Partition]) -> dict[str | None, ValueError]:
    """The instances whose ids cannot be partitions, each with why."""
    refused: dict[str | None, ValueError] = {}
    for instance_id in {partition.instance_id for partition in partitions}:
        try:
            if instance_id is not None:
                encode_instance_id(instance_id)
        except ValueError as error:
            refused[instance_id] = error
    return refused


def _rows_in_the_lake(partitions: Collection[Partition], *, source: Source, lake: Lake) -> dict[Partition, int]:
    """What is known of the partitions that lie between scattered ones: how many rows they had when last fetched."""
    if source.date_basis is not DateBasis.POST_DATE or len(plan(partitions, date_basis=source.date_basis)) < 2:
        return {}
    first, last = min(partition.day for partition in partitions), max(partition.day for partition in partitions)
    wanted = {partition.instance_id for partition in partitions}
    # What cannot be read tells nothing. Whether it can be written is for the writing to say.
    with suppress(LakeUnavailable):
        present = lake.partitions(source.asset, days=days_between(first, last))
        stored = lake.facts_of(source.asset, [each for each in present if each.instance_id in wanted])
        return {partition: facts.rows for partition, facts in stored.items() if facts.content_hash}
    return {}


@dataclass(frozen=True, slots=True)
class _Due:
    """A query to be asked; `is_part` when it was split off another, and need not be split again for convenience.

    `planned` is the one that it was split off, or itself: the same whatever became of that on the way.
    """

    query: PostPerformanceQuery
    planned: PostPerformanceQuery
    is_part: bool = False


@dataclass(slots=True)
class _Share:
    """What one walk without totals is to answer: it tells the walk, and hands on what it takes from it."""

    query: PostPerformanceQuery
    hand_on: Callable[[Sequence[PostPerformanceQuery]], None]
    idle: Callable[[], int]

    def __call__(self, rows: int, latest: datetime) -> date:
        """The last day of it, after so many rows, the latest of that instant."""
        if latest.date() >= self.query.end_date:
            return self.query.end_date
        wanted, others = shares(self.query, rows=rows, latest=latest, idle=self.idle())
        if rows >= POSTS_AT_ONCE:
            wanted, rest = replace(wanted, end_date=latest.date()), wanted
            others.insert(0, replace(rest, start_date=latest.date() + timedelta(days=1)))
        self.query = wanted
        self.hand_on(others)
        return wanted.end_date


class _Ingest:
    def __init__(self, *, client: LaterClient, landing: Landing, metrics: tuple[Metric, ...]) -> None:
        self._client = client
        self._landing = landing
        self._metrics = metrics
        self._allowed = AllowedMetrics(metrics)
        # What one query is refused, the others need not be.
        self._finding_out = asyncio.Lock()
        # Last in, first out: the parts of a query come before the next one, so that what they teach is known by then.
        self._due: asyncio.LifoQueue[_Due] = asyncio.LifoQueue()
        # Why nothing more is asked: the credentials are rejected, or the service is down.
        self._ended_by: LaterError | None = None
        self._failed_alone: set[str] = set()
        self._given_up: dict[str, LaterError] = {}
        self._failures: dict[str, int] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._busy = 0
        self._writing = asyncio.Semaphore(CONCURRENT_QUERIES)
        self._asking_for_reach = asyncio.Lock()
        self._asked_for_reach = False
        self._reachable: frozenset[str] | None = None

    async def run(self, queries: Sequence[PostPerformanceQuery]) -> None:
        for query in reversed(queries):
            self._due.put_nowait(_Due(query, planned=query))
        async with asyncio.TaskGroup() as self._group:
            self._let_work(CONCURRENT_QUERIES)
            await self._due.join()
            for worker in self._workers:
                worker.cancel()

    def _let_work(self, workers: int) -> None:
        """Has at least so many queries under way at once."""
        self._workers += [self._group.create_task(self._work()) for _ in range(workers - len(self._workers))]

    async def _work(self) -> None:
        while True:
            due = await self._due.get()
            self._busy += 1
            await self._answer(due)
            self._busy -= 1
            self._due.task_done()

    def _idle(self) -> int:
        """How many could walk and have nothing to, once it is known that there are no totals."""
        self._let_work(self._client.concurrency + WALKERS_AHEAD)
        return max(0, self._client.concurrency - self._busy - self._due.qsize())

    async def _answer(self, due: "_Due") -> None:
        query = await self._worth_asking(due.query)
        if query is None:
            return
        in_parts = [] if due.is_part else by_days(query)
        query = self._allowed.first(query)

        def ask(parts: Sequence[PostPerformanceQuery]) -> None:
            for part in reversed(parts):
                self._due.put_nowait(_Due(part, due.planned, is_part=True))

        async def ask_or_fail(parts: Sequence[PostPerformanceQuery], error: LaterError) -> None:
            if not parts:
                await self._fail(share.query, error)
            ask(parts)

        share = _Share(query, hand_on=ask, idle=self._idle)
        try:
            walks = await self._walks(query, most_posts=POSTS_AT_ONCE if in_parts else None, reach=share)
            walks = await self._with_further_metrics(share.query, walks)
        except MetricsRefused as error:
            self._allowed.learn(share.query, error.detail)
            if self._allowed.has_any(share.query):
                self._due.put_nowait(replace(due, query=share.query))
            else:
                await self._fail(share.query, error)
        except CredentialsRejected as error:
            self._ended_by = error
            await self._fail(share.query, error)
        except InstanceForbidden as error:
            await ask_or_fail(await self._without_the_forbidden(share.query, error), error)
        except TooManyPosts as error:
            parts = parts_for(error.total_items, posts_each=POSTS_AT_ONCE if in_parts else POSTS_OF_A_PART)
            await ask_or_fail(narrower(share.query, parts=parts), error)
        except Retriable as error:
            self._note_failure(share.query, error)
            await ask_or_fail(by_instances(share.query), error)
        except QueryRefused as error:
            # Perhaps for one of its instances, which may be gone.
            if len(query.instance_ids) == 1:
                self._given_up[query.instance_ids[0]] = error
            await ask_or_fail(by_instances(share.query), error)
        except WalkInconsistent as error:
            await ask_or_fail(narrower(share.query), error)
        except LaterError as error:
            await self._fail(share.query, error)
        else:
            self._failed_alone.clear()
            for instance_id in query.instance_ids:
                self._failures.pop(instance_id, None)
            async with self._writing:
                await asyncio.to_thread(self._landing.land, share.query, walks, due.planned)

    async def _walks(
        self, query: PostPerformanceQuery, *, most_posts: int | None = None, reach: Reach | None = None
    ) -> list[Walk]:
        """The walks that hold the query's posts: one, or several by content where a single partition is too large."""
        try:
            return [await self._client.walk(query, most_posts=most_posts, reach=reach)]
        except TooManyPosts as error:
            parts = by_content(query, parts=parts_for(error.total_items, posts_each=POSTS_OF_A_PART))
            if not parts or len(partitions_of(query)) > 1:
                raise
            walks = [walk for part in parts for walk in await self._walks(part)]
            found = sum(walk.total_items for walk in walks)
            if found != error.total_items:
                raise WalkInconsistent(
                    f"{named(query)} has {error.total_items} posts, too many for one query, but {found} when asked by"
                    " platform and content type: the rest is of types that cannot be asked for, or posts came in"
                    " between. Try again."
                ) from error
            return walks

    async def _with_further_metrics(self, query: PostPerformanceQuery, walks: Sequence[Walk]) -> list[Walk]:
        """The walks of a query, with the values of metrics that could not be asked for with its filters."""
        self._allowed.accept(query)
        answered, further = [query], list[Walk]()
        while (part := self._allowed.further(query, answered)) is not None:
            is_known = self._allowed.has_accepted(part)
            async with nullcontext() if is_known else self._finding_out:
                if not is_known and (
                    self._allowed.has_accepted(part) or part != self._allowed.further(query, answered)
                ):
                    continue  # which another query has found out meanwhile
                try:
                    further += await self._walks(part)
                except MetricsRefused as error:
                    self._allowed.learn(part, error.detail)
                else:
                    self._allowed.accept(part)
                    answered.append(part)
        return await asyncio.to_thread(with_values, walks, further, metrics=self._metrics)

    async def _worth_asking(self, query: PostPerformanceQuery) -> PostPerformanceQuery | None:
        """The query without the instances that are given up, whose partitions fail here; None when nothing is left."""
        if self._ended_by is not None:
            await self._fail(query, self._ended_by)
            return None
        # Looked up once: while failures are told, another query may give up one more instance.
        given_up = {each: self._given_up[each] for each in query.instance_ids if each in self._given_up}
        for instance_id, error in given_up.items():
            await self._fail(replace(query, instance_ids=(instance_id,)), error)
        wanted = tuple(instance_id for instance_id in query.instance_ids if instance_id not in given_up)
        left = replace(query, instance_ids=wanted) if wanted else None
        return left if left is not None and self._landing.wanted_of(left) else None

    def _note_failure(self, query: PostPerformanceQuery, error: LaterError) -> None:
        """Counts the failures of an instance that was asked for alone, where no other can be the cause."""
        if len(query.instance_ids) == 1:
            (instance_id,) = query.instance_ids
            self._failures[instance_id] = self._failures.get(instance_id, 0) + 1
            if self._failures[instance_id] >= FAILURES_TO_GIVE_UP:
                self._given_up[instance_id] = error
            self._failed_alone.add(instance_id)
            if len(self._failed_alone) >= INSTANCES_OF_AN_OUTAGE:
                self._ended_by = error

    async def _without_the_forbidden(
        self, query: PostPerformanceQuery, error: InstanceForbidden
    ) -> Sequence[PostPerformanceQuery]:
        """What is left to ask of a query that is forbidden; nothing when it is of one instance alone."""
        if len(query.instance_ids) == 1:
            self._given_up[query.instance_ids[0]] = error
            return []
        forbidden = set(query.instance_ids) - await self._reachable_among(query.instance_ids)
        for instance_id in forbidden:
            self._given_up[instance_id] = InstanceForbidden(
                f"instance {instance_id!r} is not within reach of these credentials: "
                "have it added to their scope, or name the instances that you want in LATER_INSTANCE_IDS",
                instance_ids=(instance_id,),
            )
        # Where the scope does not tell which one it is, each is asked for alone.
        return [query] if forbidden else [replace(query, instance_ids=(each,)) for each in query.instance_ids]

    async def _reachable_among(self, instance_ids: Sequence[str]) -> Set[str]:
        """Those that the service lists as within reach; all of them when it does not say, which is asked only once."""
        async with self._asking_for_reach:
            if not self._asked_for_reach:
                self._asked_for_reach = True
                with suppress(LaterError):
                    self._reachable = frozenset(await self._client.instances())
        return frozenset(instance_ids) if self._reachable is None else self._reachable

    async def _fail(self, query: PostPerformanceQuery, error: Reason) -> None:
        # In a thread, because delivery may wait for whoever takes the outcomes.
        await asyncio.to_thread(self._landing.fail, query, error)
