"""Write the partitions of verified responses."""

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio
import anyio.to_thread
import msgspec
import pyarrow as pa
from anyio import CapacityLimiter
from anyio.streams.memory import MemoryObjectSendStream

from later_reporting_dagster.client import ListResult
from later_reporting_dagster.contract import Metric, PerformanceQuery
from later_reporting_dagster.contract.days import utc_now
from later_reporting_dagster.ingest.progress import (
    FailedPartition,
    PartitionError,
    PartitionResult,
    Progress,
    WrittenPartition,
)
from later_reporting_dagster.ingest.query_plan import query_text
from later_reporting_dagster.ingest.replacement import (
    InDoubt,
    PartitionDiff,
    PartitionRows,
    ReceivedRows,
    TooManyBadRows,
    WriteGuard,
    assign_rows,
    keys_of,
    with_stored_rows,
)
from later_reporting_dagster.lake import FileDamaged
from later_reporting_dagster.lake.coverage import MAX_CLOCK_ERROR, FileRecord, RunRecords
from later_reporting_dagster.lake.lake import FETCHED_AT, Lake, ReplacementRejected, WriteResult
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.storage import LakeUnavailable
from later_reporting_dagster.lake.tables import RawTable, rows_by_group

# The lake makes the partitions of a batch durable together, which is faster than one at a time.
BATCH_SIZE = 16
WRITER_THREADS = 4

WRONG_CLOCK = "Some results were stored by a clock that was over an hour fast: they count as older than this run's"

_Result = TypeVar("_Result")
_Unit = TypeVar("_Unit")


class UnitWriter(Protocol[_Unit]):
    """Writes files, or periods of a table: `PartitionWriter` and `PeriodsWriter`."""

    lake: Lake
    guard: WriteGuard
    metrics: tuple[Metric, ...]
    progress: Progress
    keeping: set[str | None]

    @property
    def table(self) -> RawTable: ...

    def stored_keys(self, unit: _Unit, /) -> Set[Hashable]: ...

    async def write(
        self,
        query: PerformanceQuery,
        result: ListResult,
        units: Sequence[_Unit],
        /,
        *,
        kept: Set[Hashable],
        is_confirmed: bool = False,
    ) -> Mapping[_Unit, InDoubt]: ...

    async def fail(self, units: Collection[_Unit], error: PartitionError, /) -> None: ...


@dataclass(kw_only=True, eq=False)
class PartitionWriter:
    """Writes the results of one run to a raw table, and sends the result of each partition. It lists the lake first.

    A file stays if its content, or an equal response of another run, was requested later than the response.

    Attributes:
        results: receives each result once. While it is full, nothing more is written.
        progress: gets what is odd about the responses, and counts their rows.
        records: gets the result of each partition; whoever began them saves them at the end.
        keeping: the instances of which a stored row is left; None for campaigns.
    """

    table: RawTable
    lake: Lake
    guard: WriteGuard
    metrics: tuple[Metric, ...]
    results: MemoryObjectSendStream[PartitionResult]
    progress: Progress
    records: RunRecords
    keeping: set[str | None] = field(default_factory=set, init=False)
    _threads: CapacityLimiter = field(default_factory=partial(CapacityLimiter, WRITER_THREADS), init=False)

    def __post_init__(self) -> None:
        # What the run writes replaces these. If the lake cannot be listed, writing reports it.
        self._quarantined: Set[str] = frozenset()
        with suppress(LakeUnavailable):
            self._quarantined = {file.path for file in self.lake.quarantine.files(self.table.name)}

    async def write(
        self,
        query: PerformanceQuery,
        result: ListResult,
        partitions: Sequence[Partition],
        *,
        kept: Set[Hashable] = frozenset(),
        is_confirmed: bool = False,
    ) -> dict[Partition, InDoubt]:
        """Write partitions of a query and its bad rows. A partition without rows becomes a file without rows.

        Returns the partitions that have no result yet, because stored rows may not be gone, although the response lacks
        them.

        Args:
            partitions: those of its partitions to write; of campaigns, its only day.
            kept: the keys whose stored row stays, if the response does not have it.
            is_confirmed: whether stored rows may be replaced by none.
        """
        self.progress.oddities.update(result.oddities)
        received = await self._in_thread(assign_rows, query, result, partitions)
        await self._in_thread(self._quarantine_unassigned, query, received, result.total_items)
        counts = Counter(received=result.total_items, others=received.others, quarantined=len(received.unassigned))
        in_doubt: dict[Partition, InDoubt] = {}
        for rows in received.by_partition.values():
            rows.kept |= kept
        # As it is stored, so that an equal time is not a later one.
        requested_at = result.requested_at.replace(microsecond=result.requested_at.microsecond // 1000 * 1000)
        write = partial(self._write_batch, query=query, requested_at=requested_at, is_confirmed=is_confirmed)

        async def write_batch(batch: Sequence[Partition]) -> None:
            outcomes, fates = await self._in_thread(write, {each: received.by_partition[each] for each in batch})
            counts.update(fates)
            for outcome in outcomes:
                if (doubt := _doubt(outcome)) is not None:
                    in_doubt[outcome.partition] = doubt
                else:
                    await self.results.send(outcome)

        async with anyio.create_task_group() as batches:
            for start in range(0, len(partitions), BATCH_SIZE):
                batches.start_soon(write_batch, partitions[start : start + BATCH_SIZE])
        self.progress.rows_by_fate.update(counts)
        return in_doubt

    async def fail(self, partitions: Collection[Partition], error: PartitionError) -> None:
        failed = [FailedPartition(partition=partition, error=error) for partition in partitions]
        if not isinstance(error, ValueError):  # of an invalid instance id, which may be no Unicode
            await self._in_thread(self.records.add, [_record(self.table, each, utc_now()) for each in failed])
        for each in failed:
            await self.results.send(each)

    async def _in_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        # AnyIO's task groups do not cancel it: a write that has begun ends before the run does. asyncio's would.
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)

    def _quarantine_unassigned(self, query: PerformanceQuery, received: ReceivedRows, total: int) -> None:
        """Quarantine the bad rows that belong to no partition. If there are too many, all partitions fail."""
        text, day_range = query_text(query), (query.start_date, query.end_date)
        path = self.lake.quarantine.path_of_query(self.table.name, text, day_range)
        if not received.unassigned:
            self._remove_quarantined(path)
            return
        try:
            self.lake.quarantine.write(path, received.unassigned, query=text)
            subject = "rows of the query are bad and name no partition"
            self.guard.check_bad_rows(len(received.unassigned), total=total, subject=subject)
        except (LakeUnavailable, TooManyBadRows) as error:
            for rows in received.by_partition.values():
                rows.problem = error

    def _write_batch(
        self,
        received: Mapping[Partition, PartitionRows],
        *,
        query: PerformanceQuery,
        requested_at: datetime,
        is_confirmed: bool,
    ) -> tuple[list[PartitionResult], Counter[str]]:
        """For each partition, quarantine its bad rows and write the others; return the results, in the same order.

        Also returns how many of the rows were written, are in quarantine, or are those of partitions that failed.
        """
        metadata = {
            FETCHED_AT: requested_at.isoformat(timespec="milliseconds"),
            "queries": msgspec.json.encode([query_text(query)]).decode(),
            "metrics": msgspec.json.encode([metric.api_name for metric in query.metrics]).decode(),
        }
        failed: dict[Partition, LakeUnavailable | ReplacementRejected] = {}
        diffs: dict[Partition, PartitionDiff] = {}

        def check_replacement(partition: Partition, old: pa.Table, new: pa.Table) -> None:
            rows = received[partition]
            diffs[partition] = self.guard.check_replacement(old, new, rows, table=self.table, is_confirmed=is_confirmed)

        def is_newer(partition: Partition, key_values: Mapping[str, str]) -> bool:
            stored, unchanged = key_values.get(FETCHED_AT), self.records.newer_response(partition)
            times = [*([datetime.fromisoformat(stored)] if stored else []), *([unchanged] if unchanged else [])]
            return any(requested_at < time for time in known_times(times, self.progress.warnings))

        for partition, rows in received.items():
            try:
                if rows.bad_rows:
                    path = self.lake.quarantine.path_of(self.table.name, partition)
                    self.lake.quarantine.write(path, rows.bad_rows, query=query_text(query))
                self.guard.check_received(rows)
            except (LakeUnavailable, ReplacementRejected) as error:
                failed[partition] = error
        # As late as possible, but once for all: on an object store it is a request.
        self.records.look_for_newer()
        accepted = {partition: rows.items for partition, rows in received.items() if partition not in failed}
        tables = rows_by_group(self.table, accepted, metrics=self.metrics)
        for partition in [each for each in tables if received[each].kept]:
            new = tables.pop(partition)
            try:
                stored = self._stored_rows(partition, new.schema)
            except LakeUnavailable as error:
                failed[partition] = error
            else:
                tables[partition] = with_stored_rows(new, stored, received[partition].kept, self.table)
        outcomes = failed | self.lake.write_all(
            self.table.name, tables, metadata=metadata, check_replacement=check_replacement, is_newer=is_newer
        )
        results: list[PartitionResult] = []
        fates: Counter[str] = Counter()
        for partition, rows in received.items():
            fates["quarantined"] += len(rows.bad_rows)
            outcome = outcomes[partition]
            if not isinstance(outcome, WriteResult):
                results.append(FailedPartition(partition=partition, error=outcome))
                fates["failed"] += len(rows.items)
                continue
            fates["written"] += len(rows.items)
            if not rows.bad_rows:
                self._remove_quarantined(self.lake.quarantine.path_of(self.table.name, partition))
            diff = diffs.get(partition) if outcome.changed else None
            if diff.removed < diff.rows_before if diff else rows.items and not outcome.changed:
                self.keeping.add(partition.instance_id)
            results.append(
                WrittenPartition(
                    partition=partition, file=outcome, rows=tables[partition], bad_rows=len(rows.bad_rows), diff=diff
                )
            )
        self.records.add([_record(self.table, result, requested_at) for result in results if not _doubt(result)])
        return results, fates

    def stored_keys(self, partition: Partition) -> Set[Hashable]:
        schema = pa.schema([field for field in self.table.table.schema if field.name in self.table.key])
        return {*keys_of(self._stored_rows(partition, schema), self.table.key)}

    def _stored_rows(self, partition: Partition, schema: pa.Schema) -> pa.Table:
        """Return the stored rows; none if the file does not exist or is damaged."""
        with suppress(FileDamaged):
            if stored := self.lake.read_daily_file(self.table.name, partition, schema=schema):
                return stored
        return schema.empty_table()

    def _remove_quarantined(self, path: str) -> None:
        """Remove a quarantine file. If that fails, the check `quarantine_is_empty` reports it until the next fetch."""
        if path in self._quarantined:
            with suppress(LakeUnavailable):
                self.lake.storage.remove(path)


def known_times(times: Iterable[datetime], warnings: list[str]) -> list[datetime]:
    """Return stored times without those of a clock that was wrong, of which it warns."""
    latest = utc_now() + MAX_CLOCK_ERROR
    found = [*times]
    known = [time for time in found if time <= latest]
    if len(known) < len(found) and WRONG_CLOCK not in warnings:
        warnings.append(WRONG_CLOCK)
    return known


def _doubt(result: PartitionResult) -> InDoubt | None:
    return result.error if isinstance(result, FailedPartition) and isinstance(result.error, InDoubt) else None


def _record(table: RawTable, result: PartitionResult, at: datetime) -> FileRecord:
    record = FileRecord(table.name, result.partition.day, result.partition.instance_id)
    if isinstance(result, FailedPartition):
        return record._replace(failed_at=at, error=result.reason.encode(errors="replace").decode())
    return record._replace(requested_at=at, content_hash=result.file.content_hash)
