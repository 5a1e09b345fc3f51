"""Split verified results of queries into partitions, and write them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec
import pyarrow as pa
from anyio import CapacityLimiter
from anyio.streams.memory import MemoryObjectSendStream

from later_reporting_dagster.client import LaterError, ListResult
from later_reporting_dagster.contract import BadRow, DateBasis, Metric, PerformanceQuery, Post
from later_reporting_dagster.contract.days import utc_now
from later_reporting_dagster.ingest.query_plan import partitions_of, query_text
from later_reporting_dagster.ingest.write_guard import PartitionDiff, TooManyBadRows, WriteGuard, diff_partitions
from later_reporting_dagster.lake.fetch_records import FetchRecord, NewestRequests, RunRecords
from later_reporting_dagster.lake.lake import FETCHED_AT, Lake, ReplacementRejected, WriteResult
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.storage import LakeUnavailable
from later_reporting_dagster.lake.tables import RawTable, rows_by_group

# The lake makes the partitions of a batch durable together, which is faster than one at a time.
BATCH_SIZE = 16
WRITER_THREADS = 4

# A stored time that is further in the future is that of a clock that was wrong: it says nothing.
MAX_CLOCK_ERROR = timedelta(hours=1)
WRONG_CLOCK = "Some results were stored by a clock that was over an hour fast: they count as older than this run's"

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPartition:
    """A partition that is stored in the lake, complete and verified.

    `bad_rows`: number of its rows in quarantine. `diff`: None if nothing changed, or if there was no readable file.
    """

    partition: Partition
    file: WriteResult
    rows: pa.Table
    bad_rows: int
    diff: PartitionDiff | None = None


# The API, the lake or the write guard failed, or the instance id cannot be part of a path.
PartitionError = LaterError | LakeUnavailable | ReplacementRejected | ValueError


def reason_of(error: Exception) -> str:
    """Return the message of an error, without its query."""
    return error.reason if isinstance(error, LaterError) else str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPartition:
    """A partition that was not replaced, and the reason."""

    partition: Partition
    error: PartitionError

    def __post_init__(self) -> None:
        # Results are kept until the end of a run, and the frames of a traceback keep whole pages in memory.
        self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None

    @property
    def reason(self) -> str:
        """The error without its query, which may be that of other days or instances, whose failure decided this one."""
        return reason_of(self.error)


PartitionResult = WrittenPartition | FailedPartition


def _items_by_partition(
    query: PerformanceQuery, result: ListResult, partitions: Sequence[Partition]
) -> Mapping[Partition, list[Any]]:
    """Return the valid rows of each partition; the list of one without rows is empty."""
    if any(partition.instance_id is None for partition in partitions):  # a day of all instances
        (day,) = partitions
        return {day: result.items}
    posts: dict[Partition, list[Post]] = {partition: [] for partition in partitions}
    # Looked up by a plain tuple, because creating a Partition for each post is slow.
    posts_of = {(partition.day, partition.instance_id): members for partition, members in posts.items()}
    only_day = query.start_date if query.date_basis is DateBasis.PERFORMANCE_DATE else None
    for post in result.items:
        post_day = only_day or post.post_date.astimezone(UTC).date()
        if (members := posts_of.get((post_day, post.instance_id))) is not None:
            members.append(post)
    return posts


def _bad_rows_by_partition(
    query: PerformanceQuery, result: ListResult, partitions: Sequence[Partition]
) -> dict[Partition | None, list[BadRow]]:
    """Return the bad rows of each partition that has any; of None, those whose partition the query does not cover."""
    if any(partition.instance_id is None for partition in partitions):
        return {partitions[0]: result.bad_rows}
    covered = set(partitions_of(query))
    bad_rows: dict[Partition | None, list[BadRow]] = {}
    for row in result.bad_rows:
        partition = _partition_of_bad_row(row, query)
        bad_rows.setdefault(partition if partition in covered else None, []).append(row)
    return bad_rows


def _partition_of_bad_row(row: BadRow, query: PerformanceQuery) -> Partition | None:
    """Return the partition of a bad row; None if its instance or day cannot be read or inferred from the query."""
    instance_id = row.instance_id or (query.instance_ids[0] if len(query.instance_ids) == 1 else None)
    if instance_id is None:
        return None
    if query.start_date == query.end_date:
        return Partition(day=query.start_date, instance_id=instance_id)
    return None if row.post_date is None else Partition(day=row.post_date.date(), instance_id=instance_id)


@dataclass(kw_only=True, eq=False)
class PartitionWriter:
    """Writes the results of one run to a raw table, and sends the result of each partition.

    A file stays if its content, or an equal response of another run, was requested later than the response.

    Attributes:
        results: receives each result once. While it is full, nothing more is written.
        warnings: gets what users should know although everything was written.
        records: gets the result of each partition; whoever began them saves them at the end.
        quarantined: the paths of the table's quarantine files when the run began. What the run writes replaces them.
    """

    table: RawTable
    lake: Lake
    guard: WriteGuard
    metrics: tuple[Metric, ...]
    results: MemoryObjectSendStream[PartitionResult]
    records: RunRecords
    newest_requests: NewestRequests
    quarantined: Set[str]
    warnings: list[str]
    _threads: CapacityLimiter = field(default_factory=partial(CapacityLimiter, WRITER_THREADS), init=False)

    async def write(
        self,
        query: PerformanceQuery,
        result: ListResult,
        partitions: Sequence[Partition],
        *,
        planned: PerformanceQuery | None = None,
    ) -> None:
        """Write partitions of a query and its bad rows. A partition without rows becomes a file without rows.

        Args:
            partitions: those of its partitions to write; of campaigns, its only day.
            planned: the query of the plan that `query` is a part of. It is recorded in file metadata, which
                therefore does not depend on how the query was split.
        """
        try:
            items, bad_rows = await self._in_thread(self._split, query, result, partitions)
        except (LakeUnavailable, TooManyBadRows) as error:
            await self.fail(partitions, error)
            return
        # As it is stored, so that an equal time is not a later one.
        requested_at = result.requested_at.replace(microsecond=result.requested_at.microsecond // 1000 * 1000)
        write = partial(self._write_batch, query=query, planned=planned or query, requested_at=requested_at)

        async def write_batch(batch: Sequence[Partition]) -> None:
            for outcome in await self._in_thread(write, batch, items, bad_rows):
                await self.results.send(outcome)

        async with anyio.create_task_group() as batches:
            for start in range(0, len(partitions), BATCH_SIZE):
                batches.start_soon(write_batch, partitions[start : start + BATCH_SIZE])

    async def fail(self, partitions: Collection[Partition], error: PartitionError) -> None:
        failed = [FailedPartition(partition=partition, error=error) for partition in partitions]
        if not isinstance(error, ValueError):  # of an invalid instance id, which may be no Unicode
            await self._in_thread(self.records.add, [_record(each, utc_now()) for each in failed])
        for each in failed:
            await self.results.send(each)

    async def _in_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        # AnyIO's task groups do not cancel it: a write that has begun ends before the run does. asyncio's would.
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)

    def _split(
        self, query: PerformanceQuery, result: ListResult, partitions: Sequence[Partition]
    ) -> tuple[Mapping[Partition, list[Any]], Mapping[Partition | None, list[BadRow]]]:
        """Return the valid and the bad rows by partition. Quarantine the bad rows that belong to none."""
        bad_rows = _bad_rows_by_partition(query, result, partitions)
        text, day_range = query_text(query), (query.start_date, query.end_date)
        path = self.lake.quarantine.path_of_query(self.table.name, text, day_range)
        if unassigned := bad_rows.pop(None, []):
            self.lake.quarantine.write(path, unassigned, query=text)
            subject = "rows of the query are bad and name no partition"
            self.guard.check_bad_rows(len(unassigned), total=result.total_items, subject=subject)
        else:
            self._remove_quarantined(path)
        return _items_by_partition(query, result, partitions), bad_rows

    def _write_batch(
        self,
        partitions: Sequence[Partition],
        items: Mapping[Partition, list[Any]],
        bad_rows_of_query: Mapping[Partition | None, list[BadRow]],
        *,
        query: PerformanceQuery,
        planned: PerformanceQuery,
        requested_at: datetime,
    ) -> list[PartitionResult]:
        """For each partition, quarantine its bad rows and write the others; return its result, in the same order."""
        metadata = {
            FETCHED_AT: requested_at.isoformat(timespec="milliseconds"),
            "queries": msgspec.json.encode([query_text(planned)]).decode(),
            "metrics": msgspec.json.encode([metric.api_name for metric in planned.metrics]).decode(),
        }
        bad_rows = {partition: bad_rows_of_query.get(partition, []) for partition in partitions}
        failed: dict[Partition, LakeUnavailable | ReplacementRejected] = {}
        diffs: dict[Partition, PartitionDiff] = {}

        def check_replacement(partition: Partition, old: pa.Table, new: pa.Table) -> None:
            diffs[partition] = diff_partitions(old, new, key=self.table.key, known_metrics=self.table.known_metrics)
            self.guard.check_diff(diffs[partition], bad_rows=len(bad_rows[partition]), rows=self.table.rows)

        def is_newer(partition: Partition, key_values: Mapping[str, str]) -> bool:
            stored, unchanged = key_values.get(FETCHED_AT), self.newest_requests.of(partition)
            times = [*([datetime.fromisoformat(stored)] if stored else []), *([unchanged] if unchanged else [])]
            return any(requested_at < time for time in known_times(times, self.warnings))

        for partition in partitions:
            try:
                self._quarantine(
                    partition, bad_rows[partition], query=query_text(query), good_rows=len(items[partition])
                )
            except (LakeUnavailable, TooManyBadRows) as error:
                failed[partition] = error
        # As late as possible, but once for all: on an object store it is a request.
        self.newest_requests.refresh()
        accepted = {partition: items[partition] for partition in partitions if partition not in failed}
        tables = rows_by_group(self.table, accepted, metrics=self.metrics)
        outcomes = failed | self.lake.write_all(
            self.table.name, tables, metadata=metadata, check_replacement=check_replacement, is_newer=is_newer
        )
        results: list[PartitionResult] = []
        for partition in partitions:
            if not isinstance(outcome := outcomes[partition], WriteResult):
                results.append(FailedPartition(partition=partition, error=outcome))
                continue
            if not bad_rows[partition]:
                self._remove_quarantined(self.lake.quarantine.path_of(self.table.name, partition))
            results.append(
                WrittenPartition(
                    partition=partition,
                    file=outcome,
                    rows=tables[partition],
                    bad_rows=len(bad_rows[partition]),
                    diff=diffs.get(partition) if outcome.changed else None,
                )
            )
        self.records.add([_record(result, requested_at) for result in results])
        return results

    def _quarantine(self, partition: Partition, bad_rows: Sequence[BadRow], *, query: str, good_rows: int) -> None:
        if bad_rows:
            self.lake.quarantine.write(self.lake.quarantine.path_of(self.table.name, partition), bad_rows, query=query)
        total = good_rows + len(bad_rows)
        self.guard.check_bad_rows(len(bad_rows), total=total, subject="rows of this partition are bad")

    def _remove_quarantined(self, path: str) -> None:
        """Remove a quarantine file. If that fails, the check `quarantine_is_empty` reports it until the next fetch."""
        if path in self.quarantined:
            with suppress(LakeUnavailable):
                self.lake.storage.remove(path)


async def open_writer(
    table: RawTable,
    lake: Lake,
    *,
    guard: WriteGuard,
    metrics: tuple[Metric, ...],
    results: MemoryObjectSendStream[PartitionResult],
    records: RunRecords,
    warnings: list[str],
) -> PartitionWriter:
    """Return a writer that knows the quarantine files of its table; none if the lake cannot be listed."""
    quarantined: Set[str] = set()
    with suppress(LakeUnavailable):
        quarantined = {file.path for file in await anyio.to_thread.run_sync(lake.quarantine.files, table.name)}
    newest_requests = partial(NewestRequests, lake.fetch_records, table.name, own=records)
    return PartitionWriter(
        table=table,
        lake=lake,
        guard=guard,
        metrics=metrics,
        results=results,
        records=records,
        newest_requests=await anyio.to_thread.run_sync(newest_requests),
        quarantined=quarantined,
        warnings=warnings,
    )


def known_times(times: Iterable[datetime], warnings: list[str]) -> list[datetime]:
    """Return stored times without those of a clock that was wrong, of which it warns."""
    latest = utc_now() + MAX_CLOCK_ERROR
    found = [*times]
    known = [time for time in found if time <= latest]
    if len(known) < len(found) and WRONG_CLOCK not in warnings:
        warnings.append(WRONG_CLOCK)
    return known


def _record(result: PartitionResult, requested_at: datetime) -> FetchRecord:
    day, instance_id = result.partition.day, result.partition.instance_id
    if isinstance(result, FailedPartition):
        return FetchRecord(day, instance_id, requested_at, error=result.reason.encode(errors="replace").decode())
    return FetchRecord(day, instance_id, requested_at, result.file.content_hash, result.file.changed)
