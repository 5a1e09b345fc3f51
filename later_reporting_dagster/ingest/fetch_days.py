"""The entrance of the ingest: fetch days of a table, and yield each once all of its files have a result.

async for day in fetch_days(DayFetch(table=POSTS_PUBLISHED, days=days, …), client=client, lake=lake, …):
…
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial

import anyio
import anyio.to_thread
import pyarrow as pa

from later_reporting_dagster.client import LaterClient, QueryRejected
from later_reporting_dagster.contract import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.days import utc_now
from later_reporting_dagster.contract.instances import Instances
from later_reporting_dagster.ingest.daily_files import AbsentPosts, DailyFiles
from later_reporting_dagster.ingest.decide import WriteLimits
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.progress import Progress, SliceResult, WrittenSlice
from later_reporting_dagster.ingest.slice_writer import SliceWriter
from later_reporting_dagster.lake import Lake, Partition, WriteResult
from later_reporting_dagster.lake.coverage import FileRecord, RunRecords, fetched_by, intact_of
from later_reporting_dagster.lake.file_metadata import FileMetadata
from later_reporting_dagster.lake.tables import RawTable

# Results that wait until the consumer asks for them. If it is slower than the API, fewer queries are fetched.
BUFFERED_RESULTS = 64
# Rows of a day that are kept for a preview.
SAMPLE_ROWS = 5


@dataclass(frozen=True, kw_only=True)
class DayFetch:
    """What to fetch, and how.

    Attributes:
        instances: those of this step. Without a setting and a list, the list is fetched.
        instance_ids: only these, but for retired ones; empty for all that are to fetch.
        metrics: each file has a column for each, even if the API has no values.
        padding_days: by how many days each range of `post_date` is asked wider on each side, for an account whose days
            are not those of UTC: 0 or 1.
        pairs: if given, only these (day, instance) pairs.
        only_missing: fetch only files that are missing or stale.
        stale: the files that are stale, although they exist.
        absent: posts that files lack, although results name them; None if that is unknown, or the table has others.
        continued_run: what this run, and those that it continued, have fetched is left out.
        personal_data: whether personal data may be stored.
    """

    table: RawTable
    days: Sequence[date]
    instances: Instances = Instances()  # noqa: RUF009 - frozen
    instance_ids: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    padding_days: int = 0
    limits: WriteLimits = field(default_factory=WriteLimits)
    pairs: Set[Partition] | None = None
    only_missing: bool = False
    stale: Set[Partition] = frozenset()
    absent: AbsentPosts | None = None
    run_id: str = ""
    continued_run: str | None = None
    personal_data: bool = True


@dataclass(eq=False, slots=True)
class FetchedDay:
    """The files of one day, by instance; the instance is None if a file has the rows of all.

    Attributes:
        expected: the instances that a complete day has; empty if a file has the rows of all.
        present: the instances that have a file.
        pending: the instances without a result yet.
        failed: reasons.
        bad_rows: rows in quarantine.
        changes: how many rows were added, removed and restated in replaced files.
        sample: the first rows of a file.
    """

    day: date
    expected: Sequence[str]
    present: set[str | None] = field(default_factory=set)
    pending: set[str | None] = field(default_factory=set)
    written: dict[str | None, WriteResult] = field(default_factory=dict)
    failed: dict[str | None, str] = field(default_factory=dict)
    bad_rows: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    sample: pa.Table | None = None

    def add(self, result: SliceResult) -> None:
        """Add the result of one of the pending files."""
        instance_id = result.slice.instance_id
        self.pending.discard(instance_id)
        if not isinstance(result, WrittenSlice):
            self.failed[instance_id] = result.reason
            return
        self.present.add(instance_id)
        self.written[instance_id] = result.file
        self.bad_rows += result.bad_rows
        if self.sample is None and result.rows.num_rows:
            self.sample = result.rows.slice(0, SAMPLE_ROWS)
        if (diff := result.diff) is not None:
            self.changes.update(rows_added=diff.added, rows_removed=diff.removed, rows_restated=diff.restated)


async def fetch_days(
    fetch: DayFetch,
    *,
    client: LaterClient,
    lake: Lake,
    progress: Progress | None = None,
    now: Callable[[], datetime] = utc_now,
) -> AsyncGenerator[FetchedDay]:
    """Fetch and write days concurrently, and yield each when it is done; at the end those with nothing to fetch.

    A failed file is part of its day, and not raised. Memory grows with the number of days, not of rows. Closing the
    generator cancels all requests, waits for writes that have begun, and closes the client.

    Args:
        client: not yet open.
        progress: counts what has been done so far.
        now: the clock of the records' day; requests have that of the client.

    Raises:
        LaterError: the instances cannot be listed, or there is none.
        LakeUnavailable: the lake cannot be listed.
        RouteRefused: the API does not offer the route of an optional table.
    """
    progress = progress or Progress(fetch.table.name)
    days: dict[date, FetchedDay] = {}
    sender, results = anyio.create_memory_object_stream[SliceResult](BUFFERED_RESULTS)

    async def work() -> None:
        instances, names = fetch.instances, tuple[str, ...]()
        if fetch.table.has_file_per_instance:
            instances = await _with_list(fetch, client)
            names = _names(fetch, instances, progress)
        inherited: list[FileRecord] = []
        if fetch.continued_run is not None:
            inherited = await anyio.to_thread.run_sync(fetched_by, lake, fetch.table.name, fetch.continued_run)
        days.update(await anyio.to_thread.run_sync(_plan, fetch, instances, names, lake, inherited))
        partitions = [Partition(day.day, name) for day in days.values() for name in day.pending]
        progress.slices = len(partitions)
        new_records = partial(RunRecords, run_id=fetch.run_id, now=now(), inherited=inherited)
        records = await anyio.to_thread.run_sync(new_records, lake, fetch.table.name)
        records.oddities = progress.oddities
        open_files = partial(DailyFiles, personal_data=fetch.personal_data, absent=fetch.absent)
        files = await anyio.to_thread.run_sync(open_files, fetch.table, lake, records)
        writer = SliceWriter(files=files, limits=fetch.limits, metrics=fetch.metrics, results=sender, progress=progress)
        try:
            await ingest(
                partitions,
                writer,
                client=client,
                instances=instances,
                instance_ids=fetch.instance_ids,
                padding_days=fetch.padding_days,
            )
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(records.save)

    async def produce() -> None:
        # It alone opens the client and starts tasks, so none of their scopes is open while this generator is suspended.
        with scope:
            async with sender, client, anyio.create_task_group() as tasks:
                tasks.start_soon(work)

    # Cancels the producer. `Task.cancel` would end the client while it closes its connections, and leave them open.
    scope = anyio.CancelScope()
    producer = asyncio.create_task(produce())
    try:
        async for result in results:
            progress.add(result)
            day = days[result.slice.day]
            day.add(result)
            if not day.pending:
                yield days.pop(day.day)
        await producer
        progress.check_conservation()
        for day in days.values():
            yield day
    except BaseExceptionGroup as group:
        raise _first_error(group) from None
    finally:
        with anyio.CancelScope(shield=True):
            scope.cancel()
            await asyncio.gather(producer, return_exceptions=True)
        results.close()


async def _with_list(fetch: DayFetch, client: LaterClient) -> Instances:
    """Return the instances of the step, with the list of the API if it decides what is fetched."""
    instances = fetch.instances
    named = instances.limited_to(fetch.instance_ids).configured
    if not named and instances.listed is None:
        instances = replace(instances, listed=frozenset(await client.fetch_instances()))
    if not (named or instances.listed):
        raise QueryRejected(
            "The credentials have no access to any instance: have instances added to their scope.", status=403
        )
    return instances


def _names(fetch: DayFetch, instances: Instances, progress: Progress) -> tuple[str, ...]:
    """Return the instances to fetch. A warning names those that are asked for, and retired."""
    limited = instances.limited_to(fetch.instance_ids)
    if named := limited.configured - limited.to_fetch:
        progress.warnings.append(
            f"Retired, so not fetched: {', '.join(sorted(named))}. Leave them out, or undo it by"
            " `later-reporting retire --undo ID`"
        )
    return tuple(sorted(limited.to_fetch))


def _plan(
    fetch: DayFetch, instances: Instances, names: Sequence[str], lake: Lake, fetched_before: Collection[FileRecord]
) -> dict[date, FetchedDay]:
    """Return the days, each with the files that are present and pending."""
    partitions = {*fetch.table.expected_files(fetch.days, names)}
    if fetch.pairs is not None:
        partitions &= fetch.pairs
    # Of a run that is limited to some instances, a complete day needs the others, too.
    expected = tuple(sorted(instances.expected.union(names))) if fetch.table.has_file_per_instance else ()
    days = {day: FetchedDay(day, expected) for day in sorted({partition.day for partition in partitions})}
    files = lake.file_versions(fetch.table.name, days=days)
    stored = {partition for partition, version in files.items() if version.bytes}
    for partition in intact_of(lake, fetch.table.name, files) - fetch.stale if fetch.only_missing else stored:
        days[partition.day].present.add(partition.instance_id)
    for partition in partitions - {record.partition for record in fetched_before}:
        day = days[partition.day]
        if not (fetch.only_missing and partition.instance_id in day.present):
            day.pending.add(partition.instance_id)
    return days


def files_of_day(day: FetchedDay, table: RawTable, lake: Lake) -> dict[str | None, WriteResult | FileMetadata]:
    """Return the files of a day by instance: those that were written, and the others that can be read."""
    others = [Partition(day.day, name) for name in day.present - day.written.keys()]
    stored = lake.read_all_metadata(table.name, others)
    intact = {each.instance_id: file for each, file in stored.items() if not isinstance(file, Exception)}
    return {**day.written, **intact}


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that ended a task group; the others are of tasks that it cancelled."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
