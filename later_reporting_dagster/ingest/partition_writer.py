"""Split verified results of queries into partitions, and write them."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pyarrow as pa

from later_reporting_dagster.client import LaterError, ListResult
from later_reporting_dagster.contract import BadRow, DateBasis, Metric, PerformanceQuery, Post
from later_reporting_dagster.ingest.query_plan import partitions_between, partitions_of, query_text
from later_reporting_dagster.ingest.write_guard import PartitionDiff, TooManyBadRows, WriteGuard, diff_partitions
from later_reporting_dagster.lake.lake import FETCHED_AT, Lake, ReplacementRejected, WriteResult
from later_reporting_dagster.lake.parquet_file import FileDamaged
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.quarantine import QuarantineFile
from later_reporting_dagster.lake.storage import LakeUnavailable
from later_reporting_dagster.lake.tables import RawTable, rows_by_group

# The lake makes the partitions of a batch durable together, which is faster than one at a time.
BATCH_SIZE = 16
WRITER_THREADS = 2


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
        return self.error.reason if isinstance(self.error, LaterError) else str(self.error)


PartitionResult = WrittenPartition | FailedPartition


@dataclass(frozen=True, slots=True)
class _QueryRows:
    """The rows of a query's results.

    Attributes:
        items: the valid rows by partition to write; a partition without rows has an empty list.
        bad_rows: bad rows by partition; partitions without bad rows are left out.
        unassigned: bad rows whose partition is unknown or is not covered by the query.
        total: number of all rows, including those of partitions that are not written.
    """

    items: Mapping[Partition, list[Any]]
    bad_rows: Mapping[Partition, list[BadRow]]
    unassigned: Sequence[BadRow]
    total: int


def _group_by_partition(query: PerformanceQuery, result: ListResult, *, partitions: Sequence[Partition]) -> _QueryRows:
    if any(partition.instance_id is None for partition in partitions):  # a day of all instances
        (day,) = partitions
        return _QueryRows({day: result.items}, {day: result.bad_rows}, (), result.total_items)
    posts: dict[Partition, list[Post]] = {partition: [] for partition in partitions}
    # Looked up by a plain tuple, because creating a Partition for each post is slow.
    posts_of = {(partition.day, partition.instance_id): members for partition, members in posts.items()}
    only_day = query.start_date if query.date_basis is DateBasis.PERFORMANCE_DATE else None
    for post in result.items:
        post_day = only_day or post.post_date.astimezone(UTC).date()
        if (members := posts_of.get((post_day, post.instance_id))) is not None:
            members.append(post)
    covered = set(partitions_of(query))
    bad_rows: dict[Partition, list[BadRow]] = {}
    unassigned: list[BadRow] = []
    for row in result.bad_rows:
        partition = _partition_of_bad_row(row, query)
        if partition in covered:
            bad_rows.setdefault(partition, []).append(row)
        else:
            unassigned.append(row)
    return _QueryRows(posts, bad_rows, unassigned, result.total_items)


def _partition_of_bad_row(row: BadRow, query: PerformanceQuery) -> Partition | None:
    """Return the partition of a bad row; None if its instance or day cannot be read or inferred from the query."""
    instance_id = row.instance_id or (query.instance_ids[0] if len(query.instance_ids) == 1 else None)
    if instance_id is None:
        return None
    if query.start_date == query.end_date:
        return Partition(day=query.start_date, instance_id=instance_id)
    return None if row.post_date is None else Partition(day=row.post_date.date(), instance_id=instance_id)


@dataclass(kw_only=True, eq=False, slots=True)
class PartitionWriter:
    """Writes the results of one run to a raw table, and reports the result of each partition to `on_result`."""

    table: RawTable
    lake: Lake
    guard: WriteGuard
    metrics: tuple[Metric, ...]
    on_result: Callable[[PartitionResult], None]
    now: Callable[[], datetime]
    # The content hash of each written file; None if the partition has bad rows.
    _written: dict[Partition, str | None] = field(default_factory=dict, init=False)
    _queries_with_unassigned_rows: set[str] = field(default_factory=set, init=False)

    def write(
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
        rows = _group_by_partition(query, result, partitions=partitions)
        text = query_text(query)
        try:
            self._quarantine_unassigned_rows(query, rows)
        except (LakeUnavailable, TooManyBadRows) as error:
            self.fail(partitions, error)
            return
        write_batch = partial(self._write_batch, rows=rows, query=text, metadata=self._file_metadata(planned or query))
        batches = [partitions[start : start + BATCH_SIZE] for start in range(0, len(partitions), BATCH_SIZE)]
        with ThreadPoolExecutor(WRITER_THREADS) as threads:
            for batch in threads.map(write_batch, batches):
                for outcome in batch:
                    if isinstance(outcome, WrittenPartition):
                        self._written[outcome.partition] = None if outcome.bad_rows else outcome.file.content_hash
                    self.on_result(outcome)

    def fail(self, partitions: Iterable[Partition], error: PartitionError) -> None:
        for partition in partitions:
            self.on_result(FailedPartition(partition=partition, error=error))

    def remove_outdated_quarantine_files(self) -> None:
        """Remove the quarantine files that are outdated, now that all queries of the run have been written.

        They are found by one listing, so another run may have made them at any time. The file of a partition is
        outdated if this run has written the partition without bad rows, and its rows are still the ones that this run
        wrote: if another run has replaced them since, the file is that run's. The file of a query is outdated if this
        run has written all partitions of that query.

        A file that cannot be listed, read or removed stays; the check `quarantine_is_empty` reports it. The next run
        that writes its partitions removes it.
        """
        written_days = {partition.day for partition in self._written}
        with suppress(LakeUnavailable):
            for file in self.lake.quarantine.files(self.table.name):
                with suppress(LakeUnavailable, FileDamaged):
                    if self._is_outdated(file, written_days):
                        self.lake.storage.remove(file.path)

    def _is_outdated(self, file: QuarantineFile, written_days: Set[date]) -> bool:
        if file.partition is not None:
            written = self._written.get(file.partition)
            if written is None:
                return False
            stored = self.lake.read_metadata(self.table.name, file.partition)
            return stored is not None and stored.content_hash == written
        # Checked first, because it needs no read: a file is kept if the first or the last day was not written.
        if file.day_range is None or not written_days >= set(file.day_range):
            return False
        queries = {row.query for row in self.lake.quarantine.rows_in(file)}
        return bool(queries) and all(self._is_superseded(query, file.day_range) for query in queries)

    def _is_superseded(self, query: str, day_range: tuple[date, date]) -> bool:
        """Return whether this run has written all partitions of an earlier query, with no unassigned rows."""
        instance_ids = [value for name, value in parse_qsl(query) if name == "instanceIds"]
        partitions = partitions_between(*day_range, instance_ids)
        return (
            query not in self._queries_with_unassigned_rows
            and bool(partitions)
            and self._written.keys() >= set(partitions)
        )

    def _file_metadata(self, planned: PerformanceQuery) -> dict[str, str]:
        return {
            FETCHED_AT: self.now().astimezone(UTC).isoformat(timespec="milliseconds"),
            "queries": msgspec.json.encode([query_text(planned)]).decode(),
            "metrics": msgspec.json.encode([metric.api_name for metric in planned.metrics]).decode(),
        }

    def _quarantine_unassigned_rows(self, query: PerformanceQuery, rows: _QueryRows) -> None:
        if not rows.unassigned:
            return
        text, count = query_text(query), len(rows.unassigned)
        self._queries_with_unassigned_rows.add(text)
        self.lake.quarantine.write_rows_without_partition(
            self.table.name, rows.unassigned, query=text, day_range=(query.start_date, query.end_date)
        )
        self.guard.check_bad_rows(count, total=rows.total, subject="rows of the query are bad and name no partition")

    def _write_batch(
        self, partitions: Sequence[Partition], *, rows: _QueryRows, query: str, metadata: Mapping[str, str]
    ) -> list[PartitionResult]:
        """For each partition, quarantine its bad rows and write the others; return its result, in the same order."""
        bad_rows = {partition: rows.bad_rows.get(partition, []) for partition in partitions}
        failed: dict[Partition, LakeUnavailable | ReplacementRejected] = {}
        diffs: dict[Partition, PartitionDiff] = {}

        def check_replacement(partition: Partition, old: pa.Table, new: pa.Table) -> None:
            diffs[partition] = diff_partitions(old, new, key=self.table.key, known_metrics=self.table.known_metrics)
            self.guard.check_diff(diffs[partition], bad_rows=len(bad_rows[partition]), rows=self.table.rows)

        for partition in partitions:
            try:
                self._quarantine(partition, bad_rows[partition], query=query, good_rows=len(rows.items[partition]))
            except (LakeUnavailable, TooManyBadRows) as error:
                failed[partition] = error
        accepted = {partition: rows.items[partition] for partition in partitions if partition not in failed}
        tables = rows_by_group(self.table, accepted, metrics=self.metrics)
        outcomes = failed | self.lake.write_all(
            self.table.name, tables, metadata=metadata, check_replacement=check_replacement
        )
        return [
            WrittenPartition(
                partition=partition,
                file=outcome,
                rows=tables[partition],
                bad_rows=len(bad_rows[partition]),
                diff=diffs.get(partition),
            )
            if isinstance(outcome := outcomes[partition], WriteResult)
            else FailedPartition(partition=partition, error=outcome)
            for partition in partitions
        ]

    def _quarantine(self, partition: Partition, bad_rows: Sequence[BadRow], *, query: str, good_rows: int) -> None:
        if bad_rows:
            self.lake.quarantine.write(self.table.name, partition, bad_rows, query=query)
        total = good_rows + len(bad_rows)
        self.guard.check_bad_rows(len(bad_rows), total=total, subject="rows of this partition are bad")
