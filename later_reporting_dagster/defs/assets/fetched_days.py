"""The tables that are fetched day by day: their step, and its run, which logs each day once its files are done."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext
from pydantic import Field

from later_reporting_dagster.client import ClientEvent, LaterClient
from later_reporting_dagster.defs.asset_steps import AssetStep, RunStep, table_spec
from later_reporting_dagster.defs.component_settings import ComponentSettings
from later_reporting_dagster.defs.events import combined_failure, log_materialization, logged_instances, preview
from later_reporting_dagster.defs.partitions import build_partitions_def
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.partition_writer import PartitionResult, WrittenPartition
from later_reporting_dagster.ingest.result_stream import Progress, stream
from later_reporting_dagster.lake import Column, Partition, WriteResult
from later_reporting_dagster.lake.lake import FETCHED_AT
from later_reporting_dagster.lake.parquet_file import FileMetadata
from later_reporting_dagster.lake.tables import RawTable
from later_reporting_dagster.rollups.rollup_tables import Cadence

Emit = Callable[[PartitionResult], None]
# The columns of posts, or of campaigns, that a preview shows.
_PREVIEW_COLUMNS = (
    *("instance_id", "post_id", "content_type", "creator_handle_name", "campaign_id", "paid_ad_spend"),
    *("impressions", "engagements", "paid_impressions", "paid_engagements"),
)
# Set by a caller that runs the asset inside the caller's process, such as the CLI; never set in a run that Dagster
# launches. Called after each change.
PROGRESS_LISTENER: ContextVar[Callable[[Progress], None] | None] = ContextVar("PROGRESS_LISTENER", default=None)


@dataclass(slots=True)
class _Day:
    """The files of one day, by instance; the instance is None if a file has the rows of all.

    Attributes:
        present: instances that have a file.
        pending: files without a result yet.
        changes: how many rows were added, removed and restated in replaced files.
    """

    day: date
    present: set[str | None] = field(default_factory=set)
    pending: set[str | None] = field(default_factory=set)
    written: dict[str | None, WriteResult] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    bad_rows: int = 0
    changes: Counter[str] = field(default_factory=Counter)
    preview: dg.TableMetadataValue | None = None

    def add(self, result: PartitionResult) -> None:
        """Add the result of one of the pending files."""
        instance_id = result.partition.instance_id
        self.pending.discard(instance_id)
        if not isinstance(result, WrittenPartition):
            self.failed[str(instance_id)] = result.reason
            return
        self.present.add(instance_id)
        self.written[instance_id] = result.file
        self.bad_rows += result.bad_rows
        if self.preview is None and result.rows.num_rows:
            shown = [name for name in _PREVIEW_COLUMNS if name in result.rows.column_names]
            self.preview = preview(result.rows.select(shown))
        if (diff := result.diff) is not None:
            self.changes.update(rows_added=diff.added, rows_removed=diff.removed, rows_restated=diff.restated)


class FetchConfig(dg.Config):
    """Run config of a fetch; by default it fetches every selected day."""

    only_missing: bool = Field(default=False, description="Fetch only files that are not in the lake.")
    accept_shrinking: bool = Field(
        default=False,
        description="Also replace files that lose more rows than LATER_SHRINK_LIMIT_PERCENT allows, or all values of"
        " their metrics. Use it if rows or values were really deleted.",
    )


def fetched_step(
    settings: ComponentSettings,
    table: RawTable,
    columns: Sequence[Column],
    *,
    description: str,
    config: type[FetchConfig],
    run: RunStep,
) -> AssetStep:
    """Return the step of a table that is fetched day by day. A backfill of any number of days is one run."""
    spec = table_spec(
        settings,
        table.name,
        columns,
        description=description,
        group_name=table.rows,
        tags={"later/layer": "raw", "later/date_basis": str(table.date_basis)},
        partitions_def=build_partitions_def(Cadence.DAY, settings.start_date),
        freshness_policy=settings.freshness,
    )
    return AssetStep(
        name=settings.op_name(table.name),
        specs=[spec],
        run=run,
        config=config,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=settings.pool,
    )


class FetchRun:
    """One run of a raw table. Memory grows with the number of days, not of rows.

    Attributes:
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

        `fetch` calls `plan` and emits the result of each pair exactly once.
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
                self.failed[str(result.partition)] = result.reason
            self._notify()
            files = self._days[result.partition.day]
            files.add(result)
            if not files.pending:
                self._log_day(self._days.pop(files.day))
        self._log_unfetched_days()
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

    def _log_unfetched_days(self) -> None:
        """Log the days without a file to fetch of which Dagster does not know all files.

        Files of the lake may be those of a run that was killed before it logged their day, or of an earlier instance of
        Dagster.
        """
        if not self._days:  # as after a run that is not limited to missing files
            return
        logged = logged_instances(self._context.instance, self._context.asset_key)
        for files in self._days.values():
            if len(files.present) > logged.get(str(files.day), 0):
                self._log_day(files)

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
            data_version=day_version(of_day),
            metadata={
                "dagster/partition_row_count": sum(file.rows for file in of_day.values()),
                "dagster/uri": self.lake.day_url(self._table_name, files.day),
                **({"instances": len(files.present)} if self.expected else {}),
                "files_changed": changed,
                **({"missing_instances": dg.MetadataValue.json(missing)} if missing else {}),
                **({"failed_instances": dg.MetadataValue.json(files.failed)} if files.failed else {}),
                **({"bad_rows": files.bad_rows} if files.bad_rows else {}),
                **{f"change/{name}": count for name, count in files.changes.items()},
                **({} if files.preview is None else {"preview": files.preview}),
            },
        )


def day_version(files: Mapping[str | None, WriteResult | FileMetadata]) -> str:
    """Return the data version of a day: a SHA-256 of the content of all its files, and of when that was fetched.

    The latter, because a file that was lost or damaged may be fetched again with its old rows, and what was computed
    without them has to follow.
    """
    lines = [f"{name!a} {file.content_hash} {file.key_values.get(FETCHED_AT)}\n" for name, file in files.items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
