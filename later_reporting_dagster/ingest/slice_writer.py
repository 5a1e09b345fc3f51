"""Write the rows of verified responses, and send the result of each slice."""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio import CapacityLimiter
from anyio.streams.memory import MemoryObjectSendStream

from later_reporting_dagster.client import ListResult
from later_reporting_dagster.contract import Metric, PerformanceQuery
from later_reporting_dagster.contract.days import MAX_CLOCK_ERROR, utc_now
from later_reporting_dagster.ingest.daily_files import DailyFiles
from later_reporting_dagster.ingest.decide import (
    AskAgain,
    Policy,
    Reason,
    Received,
    Reject,
    WriteLimits,
    has_results,
    too_many_bad_rows,
)
from later_reporting_dagster.ingest.periods_file import PeriodsFile
from later_reporting_dagster.ingest.progress import (
    FailedSlice,
    Progress,
    SliceError,
    SliceOutcome,
    SliceResult,
    WrittenSlice,
)
from later_reporting_dagster.ingest.replacement import ReceivedRows, SliceRows, assign_rows
from later_reporting_dagster.ingest.slices import Slice, subject_of
from later_reporting_dagster.lake import LakeUnavailable
from later_reporting_dagster.lake.tables import rows_by_group

# The lake makes the files of a batch durable together, which is faster than one at a time.
BATCH_SIZE = 16
WRITER_THREADS = 4

WRONG_CLOCK = "Some results were stored by a clock that was over an hour fast: they count as older than this run's"

_Result = TypeVar("_Result")


@dataclass(kw_only=True, eq=False)
class SliceWriter:
    """Writes the responses of one run to the files of a table.

    Attributes:
        results: receives each result once. While it is full, nothing more is written.
        progress: gets what is odd about the responses, and counts their rows.
        keeping: the instances of which a stored row with results is left; None for files with the rows of all.
    """

    files: DailyFiles | PeriodsFile
    limits: WriteLimits
    metrics: tuple[Metric, ...]
    results: MemoryObjectSendStream[SliceResult]
    progress: Progress
    keeping: set[str | None] = field(default_factory=set, init=False)
    _threads: CapacityLimiter = field(default_factory=partial(CapacityLimiter, WRITER_THREADS), init=False)

    async def write_response(
        self,
        query: PerformanceQuery,
        result: ListResult,
        slices: Sequence[Slice],
        *,
        kept: Set[Hashable] = frozenset(),
        is_confirmed: bool = False,
        doubt: AskAgain | None = None,
    ) -> dict[Slice, AskAgain]:
        """Write the rows of a query, and quarantine its bad rows. A slice without rows becomes a file without rows.

        Returns what has no result yet, because stored rows may not be gone, although the response lacks them.

        Args:
            slices: those to write, or the only period of the query.
            kept: the keys whose stored row stays, if the response does not have it.
            is_confirmed: whether stored rows may be replaced by none.
            doubt: why what is written now is not the result yet.
        """
        self.progress.oddities.update(result.oddities)
        received = await self._in_thread(assign_rows, query, result, slices)
        await self._in_thread(self._quarantine_unassigned, query, received, result.total_items)
        fates = self.progress.rows_by_fate
        fates.update(received=result.total_items, others=received.others, quarantined=len(received.unassigned))
        for rows in received.by_slice.values():
            rows.kept |= kept
        policy = Policy(
            table=self.files.table, limits=self.limits, latest=utc_now() + MAX_CLOCK_ERROR, is_confirmed=is_confirmed
        )
        unconfirmed: dict[Slice, AskAgain] = {}

        async def write_and_send(batch: Sequence[Slice]) -> None:
            rows = {each: received.by_slice[each] for each in batch}
            outcomes = await self._in_thread(self._write_batch, rows, query, result.requested_at, policy)
            for each, outcome in outcomes.items():
                fates["quarantined"] += len(rows[each].bad_rows)
                if isinstance(outcome, AskAgain):
                    fates["failed"] += len(rows[each].items)
                    unconfirmed[each] = outcome
                    continue
                if isinstance(outcome, WrittenSlice) and doubt is not None and not outcome.is_newer:
                    fates["written"] += outcome.rows.num_rows
                    unconfirmed[each] = doubt
                    continue
                if isinstance(outcome, WrittenSlice) and self._keeps_results(outcome):
                    self.keeping.add(subject_of(each))
                await self.results.send(outcome)

        async with anyio.create_task_group() as batches:
            for start in range(0, len(slices), BATCH_SIZE):
                batches.start_soon(write_and_send, slices[start : start + BATCH_SIZE])
        if self.files.has_wrong_clock:
            self.progress.warn(WRONG_CLOCK)
        return unconfirmed

    def _keeps_results(self, written: WrittenSlice) -> bool:
        # What the API totals for an account has a row, even if it has no posts.
        table = self.files.table
        return written.keeps_stored_rows and not (table.one_instance_per_query and not has_results(written.rows, table))

    async def fail(self, slices: Collection[Slice], error: SliceError) -> None:
        failed = [FailedSlice(slice=each, error=error) for each in slices]
        if not isinstance(error, ValueError):  # of an invalid instance id, which may be no Unicode
            await self._in_thread(self.files.record_failures, failed, utc_now())
        for each in failed:
            await self.results.send(each)

    async def _in_thread(self, function: Callable[..., _Result], *arguments: Any) -> _Result:
        # AnyIO's task groups do not cancel it: a write that has begun ends before the run does. asyncio's would.
        return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)

    def _quarantine_unassigned(self, query: PerformanceQuery, received: ReceivedRows, total: int) -> None:
        """Quarantine the bad rows that belong to no slice. If there are too many, all slices fail."""
        subject = "rows of the query are bad and name no partition"
        try:
            self.files.quarantine_unassigned(received.unassigned, query)
            problem = too_many_bad_rows(self.limits, len(received.unassigned), total=total, subject=subject)
        except LakeUnavailable as error:
            problem = Reject(Reason.LAKE, str(error))
        if problem is not None:
            for rows in received.by_slice.values():
                rows.problem = problem

    def _write_batch(
        self, rows: Mapping[Any, SliceRows], query: PerformanceQuery, requested_at: datetime, policy: Policy
    ) -> Mapping[Any, SliceOutcome]:
        items = {each: of_slice.items for each, of_slice in rows.items()}
        tables = rows_by_group(policy.table, items, metrics=self.metrics)
        # As it is stored, so that an equal time is not a later one.
        requested_at = requested_at.replace(microsecond=requested_at.microsecond // 1000 * 1000)
        received = {
            each: Received(
                rows=tables[each],
                requested_at=requested_at,
                bad_rows=of_slice.bad_rows,
                unplaced=of_slice.unplaced,
                kept=of_slice.kept,
                problem=of_slice.problem,
            )
            for each, of_slice in rows.items()
        }
        return self.files.store(received, query, policy)
