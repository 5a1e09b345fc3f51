"""Write the rows of verified responses, by the same rules to the files of days and to the periods of one file."""

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
from later_reporting_dagster.contract import BadRow, Metric, PerformanceQuery
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
    Unit,
    WriteGuard,
    assign_rows,
    with_stored_rows,
)
from later_reporting_dagster.lake import FileDamaged
from later_reporting_dagster.lake.coverage import MAX_CLOCK_ERROR, FileRecord, RunRecords
from later_reporting_dagster.lake.lake import FETCHED_AT, Lake, ReplacementRejected, WriteOutcome, WriteResult
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.storage import LakeUnavailable
from later_reporting_dagster.lake.tables import RawTable, rows_by_group

# The lake makes the partitions of a batch durable together, which is faster than one at a time.
BATCH_SIZE = 16
WRITER_THREADS = 4

WRONG_CLOCK = "Some results were stored by a clock that was over an hour fast: they count as older than this run's"

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteRules:
    """What decides about the rows of a response, which was requested at a time by a query.

    Attributes:
        received: the rows by partition or period.
        check_replacement: called with a partition or period, its stored rows and the new ones; raises
            `ReplacementRejected` to keep the stored ones.
        is_newer: called with a partition or period, and when what is stored was requested; returns whether it stays.
    """

    query: PerformanceQuery
    requested_at: datetime
    received: Mapping[Unit, PartitionRows]
    check_replacement: Callable[[Unit, pa.Table, pa.Table], None]
    is_newer: Callable[[Unit, Iterable[datetime]], bool]


class Store(Protocol):
    """Where the rows of responses go: `DailyFiles`, or the `PeriodsFile` of a table."""

    @property
    def table(self) -> RawTable: ...

    @property
    def lake(self) -> Lake: ...

    def stored_rows(self, unit: Unit, schema: pa.Schema) -> pa.Table:
        """Return the stored rows; none if there is no file, or it is damaged."""

    def quarantine(self, bad_rows: Sequence[BadRow], query: PerformanceQuery, unit: Unit | None) -> None:
        """Replace the bad rows of a partition or period; without it, those of a query that belong to no partition."""

    def write_all(self, rows: Mapping[Unit, pa.Table], rules: WriteRules) -> Mapping[Unit, WriteOutcome]:
        """Replace the stored rows, but for those of kept keys; return the result of each partition or period."""

    def record(self, results: Sequence[PartitionResult], at: datetime) -> None: ...


@dataclass(kw_only=True, eq=False)
class PartitionWriter:
    """Writes the responses of one run to a store, and sends the result of each partition or period.

    Attributes:
        results: receives each result once. While it is full, nothing more is written.
        progress: gets what is odd about the responses, and counts their rows.
        keeping: the instances of which a stored row is left; None for files with the rows of all.
    """

    store: Store
    guard: WriteGuard
    metrics: tuple[Metric, ...]
    results: MemoryObjectSendStream[PartitionResult]
    progress: Progress
    keeping: set[str | None] = field(default_factory=set, init=False)
    _threads: CapacityLimiter = field(default_factory=partial(CapacityLimiter, WRITER_THREADS), init=False)

    async def write(
        self,
        query: PerformanceQuery,
        result: ListResult,
        units: Sequence[Unit],
        *,
        kept: Set[Hashable] = frozenset(),
        is_confirmed: bool = False,
    ) -> dict[Unit, InDoubt]:
        """Write the rows of a query, and quarantine its bad rows. A partition without rows becomes a file without rows.

        Returns what has no result yet, because stored rows may not be gone, although the response lacks them.

        Args:
            units: the partitions to write, or the only period of the query.
            kept: the keys whose stored row stays, if the response does not have it.
            is_confirmed: whether stored rows may be replaced by none.
        """
        self.progress.oddities.update(result.oddities)
        received = await self._in_thread(assign_rows, query, result, units)
        await self._in_thread(self._quarantine_unassigned, query, received, result.total_items)
        counts = Counter(received=result.total_items, others=received.others, quarantined=len(received.unassigned))
        in_doubt: dict[Unit, InDoubt] = {}
        for rows in received.by_partition.values():
            rows.kept |= kept
        # As it is stored, so that an equal time is not a later one.
        requested_at = result.requested_at.replace(microsecond=result.requested_at.microsecond // 1000 * 1000)
        write = partial(self._write_batch, query=query, requested_at=requested_at, is_confirmed=is_confirmed)

        async def write_batch(batch: Sequence[Unit]) -> None:
            outcomes, fates = await self._in_thread(write, {unit: received.by_partition[unit] for unit in batch})
            counts.update(fates)
            for outcome in outcomes:
                if (doubt := _doubt(outcome)) is not None:
                    in_doubt[outcome.partition] = doubt
                else:
                    await self.results.send(outcome)

        async with anyio.create_task_group() as batches:
            for start in range(0, len(units), BATCH_SIZE):
                batches.start_soon(write_batch, units[start : start + BATCH_SIZE])
        self.progress.rows_by_fate.update(counts)
        return in_doubt

    async def fail(self, units: Collection[Unit], error: PartitionError) -> None:
        failed = [FailedPartition(partition=unit, error=error) for unit in units]
        if not isinstance(error, ValueError):  # of an invalid instance id, which may be no Unicode
            await self._in_thread(self.store.record, failed, utc_now())
        for each in failed:
            await self.results.send(each)

    async def _in_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        # AnyIO's task groups do not cancel it: a write that has begun ends before the run does. asyncio's would.
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)

    def _quarantine_unassigned(self, query: PerformanceQuery, received: ReceivedRows, total: int) -> None:
        """Quarantine the bad rows that belong to no partition. If there are too many, all partitions fail."""
        subject = "rows of the query are bad and name no partition"
        try:
            self.store.quarantine(received.unassigned, query, None)
            self.guard.check_bad_rows(len(received.unassigned), total=total, subject=subject)
        except (LakeUnavailable, TooManyBadRows) as error:
            for rows in received.by_partition.values():
                rows.problem = error

    def _write_batch(
        self,
        received: Mapping[Unit, PartitionRows],
        *,
        query: PerformanceQuery,
        requested_at: datetime,
        is_confirmed: bool,
    ) -> tuple[list[PartitionResult], Counter[str]]:
        """Quarantine bad rows and write the others; return the results, in the same order.

        Also returns how many of the rows were written, are in quarantine, or are those of files that failed or are
        newer.
        """
        table = self.store.table
        failed: dict[Unit, LakeUnavailable | ReplacementRejected] = {}
        diffs: dict[Unit, PartitionDiff] = {}
        newer: set[Unit] = set()

        def check_replacement(unit: Unit, old: pa.Table, new: pa.Table) -> None:
            diffs[unit] = self.guard.check_replacement(old, new, received[unit], table=table, is_confirmed=is_confirmed)

        def is_newer(unit: Unit, stored: Iterable[datetime]) -> bool:
            if any(requested_at < time for time in self._known(stored)):
                newer.add(unit)
            return unit in newer

        for unit, rows in received.items():
            try:
                if rows.bad_rows:
                    self.store.quarantine(rows.bad_rows, query, unit)
                self.guard.check_received(rows)
            except (LakeUnavailable, ReplacementRejected) as error:
                failed[unit] = error
        accepted = {unit: rows.items for unit, rows in received.items() if unit not in failed}
        tables = rows_by_group(table, accepted, metrics=self.metrics)
        rules = WriteRules(
            query=query,
            requested_at=requested_at,
            received=received,
            check_replacement=check_replacement,
            is_newer=is_newer,
        )
        outcomes = {**failed, **self.store.write_all(tables, rules)}
        results: list[PartitionResult] = []
        fates: Counter[str] = Counter()
        for unit, rows in received.items():
            fates["quarantined"] += len(rows.bad_rows)
            outcome = outcomes[unit]
            if not isinstance(outcome, WriteResult):
                results.append(FailedPartition(partition=unit, error=outcome))
                fates["failed"] += len(rows.items)
                continue
            fates["newer" if unit in newer else "written"] += len(rows.items)
            if not rows.bad_rows:
                self.store.quarantine([], query, unit)
            diff = diffs.get(unit) if outcome.changed else None
            if diff.removed < diff.rows_before if diff else rows.items and not outcome.changed:
                self.keeping.add(unit.instance_id)
            results.append(
                WrittenPartition(
                    partition=unit,
                    file=outcome,
                    rows=tables[unit],
                    bad_rows=len(rows.bad_rows),
                    diff=diff,
                    is_newer=unit in newer,
                )
            )
        self.store.record([result for result in results if not _doubt(result)], requested_at)
        return results, fates

    def _known(self, times: Iterable[datetime]) -> list[datetime]:
        """Return stored times without those of a clock that was wrong, of which it warns."""
        latest, found = utc_now() + MAX_CLOCK_ERROR, [*times]
        known = [time for time in found if time <= latest]
        if len(known) < len(found):
            self.progress.warn(WRONG_CLOCK)
        return known


class DailyFiles:
    """The files of a raw table: one for each partition. It lists the lake first.

    A file stays if its content, or an equal response of another run, was requested later than the response.

    `records` gets the result of each partition; whoever began them saves them at the end.
    """

    def __init__(self, table: RawTable, lake: Lake, records: RunRecords) -> None:
        self.table, self.lake, self._records = table, lake, records
        # What the run writes replaces these. If the lake cannot be listed, writing reports it.
        self._quarantined: Set[str] = frozenset()
        with suppress(LakeUnavailable):
            self._quarantined = {file.path for file in lake.quarantine.files(table.name)}

    def stored_rows(self, partition: Partition, schema: pa.Schema) -> pa.Table:
        with suppress(FileDamaged):
            if stored := self.lake.read_table(self.table.name, partition, schema=schema):
                return stored
        return schema.empty_table()

    def quarantine(self, bad_rows: Sequence[BadRow], query: PerformanceQuery, partition: Partition | None) -> None:
        if not (bad_rows or self._quarantined):
            return
        quarantine, days = self.lake.quarantine, (query.start_date, query.end_date)
        if partition is None:
            path = quarantine.path_of_query(self.table.name, query_text(query), days)
        else:
            path = quarantine.path_of(self.table.name, partition)
        if bad_rows:
            quarantine.write(path, bad_rows, query=query_text(query))
        elif path in self._quarantined:
            # If that fails, the check `quarantine_is_empty` reports it until the next fetch.
            with suppress(LakeUnavailable):
                self.lake.storage.remove(path)

    def write_all(self, rows: Mapping[Partition, pa.Table], rules: WriteRules) -> dict[Partition, WriteOutcome]:
        def is_newer(partition: Partition, key_values: Mapping[str, str]) -> bool:
            stored, unchanged = key_values.get(FETCHED_AT), self._records.newer_response(partition)
            times = [*([datetime.fromisoformat(stored)] if stored else []), *([unchanged] if unchanged else [])]
            return rules.is_newer(partition, times)

        metadata = {
            FETCHED_AT: rules.requested_at.isoformat(timespec="milliseconds"),
            "queries": msgspec.json.encode([query_text(rules.query)]).decode(),
            "metrics": msgspec.json.encode([metric.api_name for metric in rules.query.metrics]).decode(),
        }
        # As late as possible, but once for all: on an object store it is a request.
        self._records.look_for_newer()
        outcomes: dict[Partition, WriteOutcome] = {}
        tables: dict[Partition, pa.Table] = {}
        for partition, new in rows.items():
            tables[partition] = new
            if kept := rules.received[partition].kept:
                try:
                    stored = self.stored_rows(partition, new.schema)
                except LakeUnavailable as error:
                    outcomes[partition] = error
                    del tables[partition]
                else:
                    tables[partition] = with_stored_rows(new, stored, kept, self.table)
        check = rules.check_replacement
        return outcomes | self.lake.write_all(
            self.table.name, tables, metadata=metadata, check_replacement=check, is_newer=is_newer
        )

    def record(self, results: Sequence[PartitionResult], at: datetime) -> None:
        self._records.add([_record(self.table, result, at) for result in results])


def _doubt(result: PartitionResult) -> InDoubt | None:
    return result.error if isinstance(result, FailedPartition) and isinstance(result.error, InDoubt) else None


def _record(table: RawTable, result: PartitionResult, at: datetime) -> FileRecord:
    record = FileRecord(table.name, result.partition.day, result.partition.instance_id)
    if isinstance(result, FailedPartition):
        return record._replace(failed_at=at, error=result.reason.encode(errors="replace").decode())
    return record._replace(requested_at=at, content_hash=result.file.content_hash)
