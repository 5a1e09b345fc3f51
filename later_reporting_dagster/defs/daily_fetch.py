"""One run of a raw table: fetch its days, and log the materialization of each once all of its files are done."""

import hashlib
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import AssetExecutionContext

from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.defs.background_stream import stream
from later_reporting_dagster.defs.materializations import combined_failure, log_materialization
from later_reporting_dagster.defs.metadata import preview
from later_reporting_dagster.defs.progress import Progress, ProgressReporter
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.ingest.partition_writer import PartitionError, PartitionResult, WrittenPartition
from later_reporting_dagster.ingest.write_guard import PartitionDiff
from later_reporting_dagster.lake import Partition, RawTable

PREVIEW_ROWS = 5
# Tables are merged in batches, because each sort has a fixed cost that is higher than the cost of its rows.
PREVIEW_TABLES = 16
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
# The preview shows the rows with the highest values of one metric: the first of these that was requested.
PREVIEW_ORDER = ("impressions", "paid_impressions")

Emit = Callable[[PartitionResult], None]


@dataclass(slots=True)
class DayResult:
    """The results of one day.

    Attributes:
        day: the UTC day.
        pending: files without a result yet, by instance; None for a file of all instances.
        written: by instance, the content hash of its file, including files that did not change.
        failed: instances whose file was not replaced, each with the error.
        rows: rows in the written files.
        files_changed: number of written files that changed.
        bad_rows: rows in quarantine.
        restatement: what changed in replaced files, as metadata: `change/rows_added`, `change/rows_removed`,
            `change/rows_restated`, and `change/<column>` for each metric whose total changed.
    """

    day: date
    pending: set[str | None]
    written: dict[str | None, str] = field(default_factory=dict)
    failed: dict[str | None, PartitionError] = field(default_factory=dict)
    rows: int = 0
    files_changed: int = 0
    bad_rows: int = 0
    restatement: dict[str, Any] = field(default_factory=dict)
    _preview: list[pa.Table] = field(default_factory=list)

    def add(self, result: PartitionResult) -> None:
        """Add the result of one of the pending files."""
        instance_id = result.partition.instance_id
        self.pending.discard(instance_id)
        if not isinstance(result, WrittenPartition):
            self.failed[instance_id] = result.error
            return
        self.written[instance_id] = result.file.content_hash
        self.rows += result.file.rows
        self.files_changed += result.file.changed
        self.bad_rows += result.bad_rows
        self._add_to_preview(result.rows)
        if result.diff is not None:
            self._add_diff(result.diff)

    @property
    def preview(self) -> pa.Table | None:
        """The rows with the highest values of the preview's metric (`PREVIEW_ORDER`); None if no file was written."""
        return _top_rows(self._preview) if self._preview else None

    def _add_to_preview(self, rows: pa.Table) -> None:
        names = [name for name in PREVIEW_COLUMNS if name in rows.column_names]
        self._preview.append(rows.select(names) if "post_id" in names else rows.drop_columns(["extra"]))
        if len(self._preview) >= PREVIEW_TABLES:
            self._preview = [_top_rows(self._preview)]

    def _add_diff(self, diff: PartitionDiff) -> None:
        counts = {"rows_added": diff.added, "rows_removed": diff.removed, "rows_restated": diff.restated}
        totals = {column: total.change for column, total in diff.totals.items() if total.change}
        for name, change in {**counts, **totals}.items():
            self.restatement[f"change/{name}"] = round(self.restatement.get(f"change/{name}", 0) + change, 6)


class DailyFetch:
    """One run of a raw table. Memory grows with the number of days, not of rows.

    Attributes:
        lake: where the files are written.
        reporter: counts what the run has done.
        failed: the reason by partition, of each that failed.
        expected: the instances that each day should have; empty if a file has all instances.
    """

    def __init__(self, context: AssetExecutionContext, later: LaterReportingResource, raw_table: RawTable) -> None:
        self.lake = later.lake()
        self.reporter = ProgressReporter(Progress(raw_table.name), log=context.log.info, warn=context.log.warning)
        self.failed: dict[str, str] = {}
        self.expected: Sequence[str] = ()
        self._context = context
        self._later = later
        self._table_name = raw_table.name
        # The instances that have a file, by day.
        self._present: dict[date, set[str | None]] = {}
        self._open: dict[date, DayResult] = {}
        self._days_materialized = self._files_changed = 0

    def plan(self, pairs: Collection[Partition], *, only_missing: bool) -> list[Partition]:
        """Return the pairs to fetch: all, or those without a file. Call it once, before the first result.

        Raises:
            LakeUnavailable: the lake cannot be listed.
        """
        days = sorted({partition.day for partition in pairs})
        present = self.lake.partitions(self._table_name, days=days)
        for partition in present:
            self._present.setdefault(partition.day, set()).add(partition.instance_id)
        to_fetch = sorted({*pairs}.difference(present if only_missing else ()), key=str)
        self._open = {day: DayResult(day, set()) for day in days}
        for partition in to_fetch:
            self._open[partition.day].pending.add(partition.instance_id)
        self.reporter.progress.partitions = len(to_fetch)
        self._context.log.info(
            f"Fetching {len(to_fetch)} files of {len(days)} days since {min(days, default=None)}"
            + ", only missing files" * only_missing
        )
        return to_fetch

    def run(self, fetch: Callable[[LaterClient, Emit], Coroutine[Any, Any, None]]) -> None:
        """Fetch with an open client in a background thread, and log each day once its last file is done.

        Args:
            fetch: calls `plan` and emits the result of each pair exactly once.

        Raises:
            LakeUnavailable: the lake cannot be read.
        """
        client = self._later.client(on_event=self.reporter.on_event)

        async def fetch_with_client(emit: Emit) -> None:
            async with client:
                await fetch(client, emit)

        for result in stream(fetch_with_client):
            self._record(result)
        # Days that Dagster does not know although they have all files, because a run was killed or is new.
        known = self._context.instance.get_materialized_partitions(self._context.asset_key)
        for day in self._open.values():
            if not day.pending and str(day.day) not in known:
                self._log_day(day)
        self._log_summary()

    def failure(self) -> dg.Failure:
        """Return one failure for all partitions that failed."""
        return combined_failure(self.failed, what="file", written=self.reporter.progress.written)

    def _record(self, result: PartitionResult) -> None:
        partition = result.partition
        if isinstance(result, WrittenPartition):
            self._present.setdefault(partition.day, set()).add(partition.instance_id)
            self.reporter.partition_written(rows=result.file.rows)
        else:
            self.failed[str(partition)] = str(result.error)
            self.reporter.partition_failed()
        day = self._open[partition.day]
        day.add(result)
        if not day.pending:
            del self._open[partition.day]
            self._log_day(day)

    def _log_day(self, result: DayResult) -> None:
        """Log the materialization of a day, unless all of its requested files failed."""
        if result.failed and not result.written:
            return
        present = self._present.get(result.day, set())
        kept = [Partition(result.day, name) for name in present - result.written.keys()]
        stored = self.lake.read_all_metadata(self._table_name, kept)
        hashes = {partition.instance_id: file.content_hash for partition, file in stored.items()}
        self._days_materialized += 1
        self._files_changed += result.files_changed
        log_materialization(
            self._context,
            result.day,
            data_version=day_version(hashes | result.written),
            metadata={
                "dagster/partition_row_count": result.rows + sum(file.rows for file in stored.values()),
                "dagster/uri": self.lake.day_url(self._table_name, result.day),
                **({"instances": len(present)} if self.expected else {}),
                "files_changed": result.files_changed,
                **day_metadata(result, missing=[name for name in self.expected if name not in present]),
            },
        )

    def _log_summary(self) -> None:
        progress = self.reporter.progress
        self._context.log.info(
            f"{progress.written} of {progress.partitions} files written, {self._files_changed} of them changed;"
            f" {self._days_materialized} days materialized; {progress.rows} rows; {progress.requests} requests,"
            f" {progress.retries} retries, {progress.rate_limit_waits} waits for the rate limit"
        )


def day_metadata(result: DayResult, *, missing: Sequence[str]) -> dict[str, Any]:
    """Return metadata of a fetched day: missing and failed instances, bad rows, and what a restatement changed."""
    failed = {str(name): str(result.failed[name]) for name in sorted(result.failed, key=str)}
    return {
        **({"missing_instances": dg.MetadataValue.json([*missing])} if missing else {}),
        **({"failed_instances": dg.MetadataValue.json(failed)} if failed else {}),
        **({"bad_rows": result.bad_rows} if result.bad_rows else {}),
        **result.restatement,
        **({} if result.preview is None else {"preview": preview(result.preview)}),
    }


def day_version(content_hashes: Mapping[str | None, str]) -> str:
    """Return the data version of a day: a SHA-256 of the content hashes of all its files, by instance id.

    If one file has the rows of all instances, the version is its content hash.
    """
    if None in content_hashes:
        return content_hashes[None]
    lines = [f"{instance_id!a} {content_hashes[instance_id]}\n" for instance_id in sorted(map(str, content_hashes))]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _top_rows(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the `PREVIEW_ROWS` rows with the highest values of the first metric of `PREVIEW_ORDER` that exists."""
    rows = pa.concat_tables(tables)
    order = [(name, "descending") for name in PREVIEW_ORDER if name in rows.column_names][:1]
    return (rows.sort_by(order) if order else rows).slice(0, PREVIEW_ROWS)
