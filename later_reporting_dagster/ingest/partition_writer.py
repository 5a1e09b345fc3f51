"""Split verified query results into partitions, write them, and report the result of each partition."""

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from urllib.parse import parse_qsl

import msgspec
import pyarrow as pa

from later_reporting_dagster.client import LaterError, ListResult
from later_reporting_dagster.contract import BadRow, DateBasis, Metric, PerformanceQuery, Post
from later_reporting_dagster.ingest.partition_diff import PartitionDiff, diff_partitions
from later_reporting_dagster.ingest.query_plan import partitions_between, partitions_of, query_text
from later_reporting_dagster.ingest.raw_tables import RawTable
from later_reporting_dagster.ingest.write_guard import TooManyBadRows, WriteGuard
from later_reporting_dagster.lake import (
    FETCHED_AT,
    FileDamaged,
    Lake,
    LakeUnavailable,
    Partition,
    QuarantineFile,
    ReplacementRejected,
    WriteResult,
    posts_tables,
)

# The lake makes the partitions of a batch durable together, which is faster than one at a time.
BATCH_SIZE = 16
WRITER_THREADS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPartition:
    """A partition that is stored in the lake, complete and verified.

    Attributes:
        partition: the day and the instance.
        file: the file in the lake, and whether it changed.
        posts: the rows of the file.
        bad_rows: number of its rows in quarantine.
        diff: what changed; None if nothing changed, or if there was no readable file before.
    """

    partition: Partition
    file: WriteResult
    posts: pa.Table
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


PartitionResult = WrittenPartition | FailedPartition


class PartitionWriter:
    """Writes the query results of one run, and reports each partition of the run once.

    Args:
        table: the raw table.
        lake: where it is stored.
        partitions: the partitions of the run. Others are never written, even if a query covers them.
        on_result: called once per partition, in the thread that calls `write` or `fail`.
        guard: limits on what may be replaced.
        metrics: the metric columns of every partition.
        now: the current time, in any time zone.
    """

    def __init__(
        self,
        *,
        table: RawTable,
        lake: Lake,
        partitions: frozenset[Partition],
        on_result: Callable[[PartitionResult], None],
        guard: WriteGuard,
        metrics: tuple[Metric, ...],
        now: Callable[[], datetime],
    ) -> None:
        self._table_name = table.name
        self._lake = lake
        self._partitions = partitions
        self._on_result = on_result
        self._guard = guard
        self._metrics = metrics
        self._now = now
        # The content hash of each written file; None if the partition has bad rows.
        self._written: dict[Partition, str | None] = {}
        self._queries_with_unassigned_rows: set[str] = set()

    def partitions_to_write(self, query: PerformanceQuery) -> list[Partition]:
        """Return the partitions of the run that a query covers."""
        return [partition for partition in partitions_of(query) if partition in self._partitions]

    def fail(self, query: PerformanceQuery, error: PartitionError) -> None:
        """Report that the partitions of a query were not replaced."""
        self._fail(self.partitions_to_write(query), error)

    def write(self, query: PerformanceQuery, result: ListResult, *, planned: PerformanceQuery) -> None:
        """Write the partitions of a query and its bad rows; a day without posts becomes a file without rows.

        Args:
            query: the query that was fetched.
            result: its rows.
            planned: the query of the plan that `query` is a part of. It is recorded in file metadata, which
                therefore does not depend on how the query was split.
        """
        partitions = self.partitions_to_write(query)
        writer = _QueryWriter(
            self._lake,
            self._table_name,
            query=query,
            rows=_group_by_partition(query, result, partitions=partitions),
            guard=self._guard,
            metrics=self._metrics,
            file_metadata=self._file_metadata(planned),
        )
        if writer.rows.unassigned:
            self._queries_with_unassigned_rows.add(query_text(query))
        try:
            writer.quarantine_unassigned_rows()
        except (LakeUnavailable, TooManyBadRows) as error:
            self._fail(partitions, error)
            return
        batches = [partitions[start : start + BATCH_SIZE] for start in range(0, len(partitions), BATCH_SIZE)]
        with ThreadPoolExecutor(WRITER_THREADS) as threads:
            for batch in threads.map(writer.write_partitions, batches):
                for outcome in batch:
                    if isinstance(outcome, WrittenPartition):
                        self._written[outcome.partition] = None if outcome.bad_rows else outcome.file.content_hash
                    self._on_result(outcome)

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
            for file in self._lake.quarantine.files(self._table_name):
                with suppress(LakeUnavailable, FileDamaged):
                    if self._is_outdated(file, written_days):
                        self._lake.quarantine.remove(file)

    def _is_outdated(self, file: QuarantineFile, written_days: Set[date]) -> bool:
        """Return whether a quarantine file is outdated; see `remove_outdated_quarantine_files`.

        Raises:
            LakeUnavailable: a file cannot be read.
            FileDamaged: a file is damaged.
        """
        if file.partition is not None:
            written = self._written.get(file.partition)
            if written is None:
                return False
            stored = self._lake.read_metadata(self._table_name, file.partition)
            return stored is not None and stored.content_hash == written
        # Checked first, because it needs no read: a file is kept if the first or the last day was not written.
        if file.day_range is None or not written_days >= set(file.day_range):
            return False
        queries = {row.query for row in self._lake.quarantine.rows_in(file)}
        return bool(queries) and all(self._is_superseded(query, file.day_range) for query in queries)

    def _is_superseded(self, query: str, day_range: tuple[date, date]) -> bool:
        """Return whether this run has written all partitions of an earlier query, with no unassigned rows."""
        partitions = partitions_between(*day_range, _instance_ids_in(query))
        return (
            query not in self._queries_with_unassigned_rows
            and bool(partitions)
            and self._written.keys() >= set(partitions)
        )

    def _file_metadata(self, planned: PerformanceQuery) -> dict[str, str]:
        return {
            FETCHED_AT: self._now().astimezone(UTC).isoformat(timespec="milliseconds"),
            "queries": msgspec.json.encode([query_text(planned)]).decode(),
            "metrics": msgspec.json.encode([metric.api_name for metric in self._metrics]).decode(),
        }

    def _fail(self, partitions: Iterable[Partition], error: PartitionError) -> None:
        for partition in partitions:
            self._on_result(FailedPartition(partition=partition, error=error))


def _instance_ids_in(text: str) -> list[str]:
    """Return the instance ids of a query that an earlier run recorded with `query_text`."""
    return [value for name, value in parse_qsl(text) if name == "instanceIds"]


@dataclass(frozen=True, slots=True)
class _QueryRows:
    """The rows of a query's results.

    Attributes:
        posts: posts by partition to write; a partition without posts has an empty list.
        bad_rows: bad rows by partition; partitions without bad rows are left out.
        unassigned: bad rows whose partition is unknown or is not covered by the query.
        total: number of all rows, including posts of partitions that are not written.
    """

    posts: Mapping[Partition, list[Post]]
    bad_rows: Mapping[Partition, list[BadRow]]
    unassigned: Sequence[BadRow]
    total: int


def _group_by_partition(query: PerformanceQuery, result: ListResult, *, partitions: Sequence[Partition]) -> _QueryRows:
    posts: dict[Partition, list[Post]] = {partition: [] for partition in partitions}
    # Looked up by a plain tuple, because creating a Partition for each post is slow.
    posts_of = {(partition.day, partition.instance_id): members for partition, members in posts.items()}
    for post in result.items:
        if (members := posts_of.get((_day_of(post, query), post.instance_id))) is not None:
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


def _day_of(post: Post, query: PerformanceQuery) -> date:
    """Return the day of a post's partition: for `performance_date` the query's only day, else its UTC publish day."""
    if query.date_basis is DateBasis.PERFORMANCE_DATE:
        return query.start_date
    return post.post_date.astimezone(UTC).date()


def _partition_of_bad_row(row: BadRow, query: PerformanceQuery) -> Partition | None:
    """Return the partition of a bad row; None if its instance or day cannot be read or inferred from the query."""
    instance_id = row.instance_id or (query.instance_ids[0] if len(query.instance_ids) == 1 else None)
    if instance_id is None:
        return None
    if query.start_date == query.end_date:
        return Partition(day=query.start_date, instance_id=instance_id)
    return None if row.post_date is None else Partition(day=row.post_date.date(), instance_id=instance_id)


class _QueryWriter:
    """Writes the rows of one query. `write_partitions` may run in several threads, for different partitions."""

    def __init__(
        self,
        lake: Lake,
        table_name: str,
        *,
        query: PerformanceQuery,
        rows: _QueryRows,
        guard: WriteGuard,
        metrics: tuple[Metric, ...],
        file_metadata: Mapping[str, str],
    ) -> None:
        self.rows = rows
        self._lake = lake
        self._table_name = table_name
        self._query = query
        self._query_text = query_text(query)
        self._guard = guard
        self._metrics = metrics
        self._file_metadata = file_metadata
        self._diffs: dict[Partition, PartitionDiff] = {}

    def quarantine_unassigned_rows(self) -> None:
        """Write the bad rows without a partition to quarantine, if there are any.

        Raises:
            LakeUnavailable: they cannot be written.
            TooManyBadRows: the guard rejects the whole query.
        """
        unassigned = self.rows.unassigned
        if not unassigned:
            return
        day_range = (self._query.start_date, self._query.end_date)
        self._lake.quarantine.write_rows_without_partition(
            self._table_name, unassigned, query=self._query_text, day_range=day_range
        )
        self._guard.check_bad_rows(
            len(unassigned), total=self.rows.total, subject="rows of the query are bad and name no partition"
        )

    def write_partitions(self, partitions: Sequence[Partition]) -> list[PartitionResult]:
        """For each partition, quarantine its bad rows and write its posts; return its result, in the same order."""
        failed: dict[Partition, LakeUnavailable | ReplacementRejected] = {}
        for partition in partitions:
            try:
                self._quarantine_bad_rows(partition)
            except (LakeUnavailable, TooManyBadRows) as error:
                failed[partition] = error
        accepted = {partition: self.rows.posts[partition] for partition in partitions if partition not in failed}
        tables = posts_tables(accepted, metrics=self._metrics)
        written = self._lake.write_all(
            self._table_name, tables, metadata=self._file_metadata, check_replacement=self._check_replacement
        )
        outcomes = failed | written
        return [self._result(partition, outcomes[partition], tables.get(partition)) for partition in partitions]

    def _quarantine_bad_rows(self, partition: Partition) -> None:
        bad_rows = self._bad_rows(partition)
        if bad_rows:
            self._lake.quarantine.write(self._table_name, partition, bad_rows, query=self._query_text)
        total = len(self.rows.posts[partition]) + len(bad_rows)
        self._guard.check_bad_rows(len(bad_rows), total=total, subject="rows of this partition are bad")

    def _check_replacement(self, partition: Partition, old: pa.Table, new: pa.Table) -> None:
        diff = diff_partitions(old, new)
        self._diffs[partition] = diff
        self._guard.check_diff(diff, bad_rows=len(self._bad_rows(partition)))

    def _result(
        self, partition: Partition, outcome: WriteResult | LakeUnavailable | ReplacementRejected, posts: pa.Table | None
    ) -> PartitionResult:
        if not isinstance(outcome, WriteResult):
            return FailedPartition(partition=partition, error=outcome)
        return WrittenPartition(
            partition=partition,
            file=outcome,
            posts=posts,
            bad_rows=len(self._bad_rows(partition)),
            diff=self._diffs.get(partition),
        )

    def _bad_rows(self, partition: Partition) -> list[BadRow]:
        return self.rows.bad_rows.get(partition, [])
