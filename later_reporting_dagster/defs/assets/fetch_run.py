"""One run of a raw table: fetch in a background thread, and log each day once all of its files are done."""

import asyncio
import contextlib
import contextvars
import hashlib
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date
from queue import Full, Queue
from typing import Any, TypeVar

import dagster as dg
import pyarrow as pa
from dagster import AssetExecutionContext

from later_reporting_dagster.client import (
    ClientEvent,
    LaterClient,
    PageFetched,
    PagesRefetched,
    RateLimitWait,
    RequestRetried,
)
from later_reporting_dagster.defs.events import PREVIEW_ROWS, combined_failure, log_materialization, preview
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.partition_writer import PartitionResult, WrittenPartition
from later_reporting_dagster.lake import Partition, WriteResult
from later_reporting_dagster.lake.parquet_file import FileMetadata

# The columns of the preview of posts. The preview of campaigns has all columns but the unknown fields.
PREVIEW_COLUMNS = (
    "instance_id",
    "post_id",
    "content_type",
    "creator_handle_name",
    "impressions",
    "engagements",
    "paid_impressions",
    "paid_engagements",
)
# Shorter waits are normal under the rate limit and are not logged.
MIN_LOGGED_WAIT_SECONDS = 5.0
# Maximum number of results in the queue. Bounds memory if logging days is slower than fetching them.
QUEUE_SIZE = 64

_Result = TypeVar("_Result")
Emit = Callable[[PartitionResult], None]


@dataclass(slots=True)
class Progress:
    """What a run has done so far: partitions to fetch, written and failed, rows in files, and pages received.

    Attributes:
        warnings: what the caller should know although the run succeeds.
        status: the current wait, such as "waiting 30 s for the rate limit"; empty while pages arrive.
    """

    table_name: str
    partitions: int = 0
    written: int = 0
    failed: int = 0
    rows: int = 0
    requests: int = 0
    retries: int = 0
    rate_limit_waits: int = 0
    warnings: list[str] = field(default_factory=list)
    status: str = ""

    def count(self, event: ClientEvent) -> str:
        """Count an event of the client, and return what to log about it; an empty text for nothing."""
        match event:
            case PageFetched():
                self.requests += 1
                self.status = ""
            case RateLimitWait():
                self.rate_limit_waits += 1
                # Concurrent requests wait at the same time; one log line is enough for all of them.
                if event.seconds >= MIN_LOGGED_WAIT_SECONDS and not self.status.startswith("waiting"):
                    self.status = f"waiting {event.seconds:.0f} s for the rate limit"
                    return self.status.capitalize()
            case RequestRetried():
                self.retries += 1
                self.status = f"retrying in {event.wait_seconds:.0f} s"
                return f"Retrying in {event.wait_seconds:.1f} s: {event.reason}"
            case PagesRefetched():
                return f"Fetching again from the first page: {event.reason}"
        return ""


# Set by a caller that runs the asset inside the caller's process, such as the CLI; never set in a run that Dagster
# launches. Called after each change.
PROGRESS_LISTENER: ContextVar[Callable[[Progress], None] | None] = ContextVar("PROGRESS_LISTENER", default=None)


@dataclass(slots=True)
class _Day:
    """The files of one day, by instance; the instance is None if a file has the rows of all.

    Attributes:
        present: instances that have a file.
        pending: files without a result yet.
        changes: what changed in replaced files: rows added, removed and restated, and the total of each metric.
    """

    day: date
    present: set[str | None] = field(default_factory=set)
    pending: set[str | None] = field(default_factory=set)
    written: dict[str | None, WriteResult] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    bad_rows: int = 0
    changes: dict[str, float] = field(default_factory=dict)
    preview: pa.Table | None = None

    def add(self, result: PartitionResult) -> None:
        """Add the result of one of the pending files."""
        instance_id = result.partition.instance_id
        self.pending.discard(instance_id)
        if not isinstance(result, WrittenPartition):
            self.failed[str(instance_id)] = str(result.error)
            return
        self.present.add(instance_id)
        self.written[instance_id] = result.file
        self.bad_rows += result.bad_rows
        if self.preview is None or not self.preview.num_rows:
            names = [name for name in PREVIEW_COLUMNS if name in result.rows.column_names]
            rows = result.rows.select(names) if "post_id" in names else result.rows.drop_columns(["extra"])
            self.preview = rows.slice(0, PREVIEW_ROWS)
        if (diff := result.diff) is not None:
            rows_changed = {"rows_added": diff.added, "rows_removed": diff.removed, "rows_restated": diff.restated}
            totals = {name: total.change for name, total in diff.totals.items() if total.change}
            for name, change in {**rows_changed, **totals}.items():
                self.changes[name] = self.changes.get(name, 0) + change


class FetchRun:
    """One run of a raw table. Memory grows with the number of days, not of rows.

    Attributes:
        lake: where the files are written.
        failed: the reason by partition, of each that failed.
        expected: the instances that each day should have; empty if a file has all instances.
    """

    def __init__(self, context: AssetExecutionContext, later: LaterReportingResource, table_name: str) -> None:
        self.lake = later.lake()
        self.failed: dict[str, str] = {}
        self.expected: Sequence[str] = ()
        self._context = context
        self._later = later
        self._table_name = table_name
        self._progress = Progress(table_name)
        self._listener = PROGRESS_LISTENER.get()
        self._days: dict[date, _Day] = {}
        self._days_materialized = self._files_changed = 0

    def plan(self, pairs: Collection[Partition], *, only_missing: bool) -> list[Partition]:
        """Return the pairs to fetch: all, or those without a file. Call it once, before the first result."""
        self._days = {day: _Day(day) for day in sorted({partition.day for partition in pairs})}
        present = self.lake.partitions(self._table_name, days=[*self._days])
        for partition in present:
            self._days[partition.day].present.add(partition.instance_id)
        to_fetch = sorted({*pairs}.difference(present if only_missing else ()), key=str)
        for partition in to_fetch:
            self._days[partition.day].pending.add(partition.instance_id)
        self._progress.partitions = len(to_fetch)
        self._context.log.info(
            f"Fetching {len(to_fetch)} files of {len(self._days)} days since {min(self._days, default=None)}"
            + ", only missing files" * only_missing
        )
        return to_fetch

    def run(self, fetch: Callable[[LaterClient, Emit], Coroutine[Any, Any, None]]) -> None:
        """Fetch with an open client in a background thread, and log each day once its last file is done.

        Args:
            fetch: calls `plan` and emits the result of each pair exactly once.
        """
        client, progress = self._later.client(on_event=self._on_event), self._progress

        async def fetch_with_client(emit: Emit) -> None:
            async with client:
                await fetch(client, emit)

        for result in stream(fetch_with_client):
            if isinstance(result, WrittenPartition):
                progress.written += 1
                progress.rows += result.file.rows
            else:
                progress.failed += 1
                self.failed[str(result.partition)] = str(result.error)
            self._notify()
            files = self._days[result.partition.day]
            files.add(result)
            if not files.pending:
                self._log_day(self._days.pop(files.day))
        # Days that Dagster does not know although they have all files, because a run was killed or is new.
        known = self._context.instance.get_materialized_partitions(self._context.asset_key)
        for files in self._days.values():
            if not files.pending and str(files.day) not in known:
                self._log_day(files)
        self._context.log.info(
            f"{progress.written} of {progress.partitions} files written, {self._files_changed} of them changed;"
            f" {self._days_materialized} days materialized; {progress.rows} rows; {progress.requests} requests,"
            f" {progress.retries} retries, {progress.rate_limit_waits} waits for the rate limit"
        )

    def warn(self, message: str) -> None:
        """Log a warning, and keep it for the caller of the run."""
        self._context.log.warning(message)
        self._progress.warnings.append(message)
        self._notify()

    def failure(self) -> dg.Failure:
        """Return one failure for all partitions that failed."""
        return combined_failure(self.failed, what="file", written=self._progress.written)

    def _on_event(self, event: ClientEvent) -> None:
        """Count and log an event of the client; called from the thread that fetches."""
        if line := self._progress.count(event):
            self._context.log.info(line)
        self._notify()

    def _notify(self) -> None:
        if self._listener is not None:
            self._listener(self._progress)

    def _log_day(self, files: _Day) -> None:
        """Log the materialization of a day, unless all of its requested files failed."""
        if files.failed and not files.written:
            return
        kept = [Partition(files.day, name) for name in files.present - files.written.keys()]
        stored = self.lake.read_all_metadata(self._table_name, kept)
        of_day: dict[str | None, WriteResult | FileMetadata] = {
            **files.written,
            **{partition.instance_id: file for partition, file in stored.items()},
        }
        changed = sum(file.changed for file in files.written.values())
        missing = [name for name in self.expected if name not in files.present]
        self._days_materialized += 1
        self._files_changed += changed
        log_materialization(
            self._context,
            files.day,
            data_version=day_version({name: file.content_hash for name, file in of_day.items()}),
            metadata={
                "dagster/partition_row_count": sum(file.rows for file in of_day.values()),
                "dagster/uri": self.lake.day_url(self._table_name, files.day),
                **({"instances": len(files.present)} if self.expected else {}),
                "files_changed": changed,
                **({"missing_instances": dg.MetadataValue.json(missing)} if missing else {}),
                **({"failed_instances": dg.MetadataValue.json(files.failed)} if files.failed else {}),
                **({"bad_rows": files.bad_rows} if files.bad_rows else {}),
                **{f"change/{name}": round(change, 6) for name, change in files.changes.items()},
                **({} if files.preview is None else {"preview": preview(files.preview)}),
            },
        )


def day_version(content_hashes: Mapping[str | None, str]) -> str:
    """Return the data version of a day: a SHA-256 of the content hashes of all its files, by instance id.

    If one file has the rows of all instances, the version is its content hash.
    """
    if None in content_hashes:
        return content_hashes[None]
    lines = [f"{instance_id!a} {content_hashes[instance_id]}\n" for instance_id in sorted(map(str, content_hashes))]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class StreamClosed(Exception):  # noqa: N818 - named for what happened
    """The iterator was closed, so no more results are accepted."""


def stream(start: Callable[[Callable[[_Result], None]], Coroutine[Any, Any, None]]) -> Iterator[_Result]:
    """Run the coroutine `start(emit)` in its own thread and event loop, and yield each result that it emits.

    `emit` may be called from any thread; it blocks while the queue is full. If the coroutine raises an exception, the
    results that it emitted are yielded first, then the exception is raised. Closing the iterator, as an interrupt of
    the run does, cancels the coroutine.
    """
    queue: Queue[Any] = Queue(maxsize=QUEUE_SIZE)
    closed = threading.Event()
    end = object()
    errors: list[BaseException] = []
    loop = asyncio.new_event_loop()

    def emit(result: object) -> None:
        while not closed.is_set():
            with contextlib.suppress(Full):
                queue.put(result, timeout=0.2)
                return
        raise StreamClosed

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(start(emit))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that iterates
            errors.append(error)
        with contextlib.suppress(StreamClosed):
            emit(end)

    def cancel_all() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="later-reporting-ingest", daemon=True)
    thread.start()
    try:
        while (result := queue.get()) is not end:
            yield result
        if errors:
            raise errors[0]
    finally:
        closed.set()
        with contextlib.suppress(RuntimeError):  # the coroutine has finished, and its thread has closed the loop
            loop.call_soon_threadsafe(cancel_all)
        thread.join(timeout=10)
