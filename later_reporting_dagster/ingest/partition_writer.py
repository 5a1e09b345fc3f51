"""Lands verified answers: splits each into its partitions, writes them, and tells what came of it."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from urllib.parse import parse_qsl, urlencode

import msgspec
import pyarrow as pa

from later_reporting_dagster.client import LaterError, Walk
from later_reporting_dagster.contract import BadRow, DateBasis, Metric, Post, PostPerformanceQuery
from later_reporting_dagster.ingest.partition_diff import Changes, changes_between
from later_reporting_dagster.ingest.query_plan import partitions_between, partitions_of
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.ingest.write_guard import Guard, TooManyBadRows
from later_reporting_dagster.lake import (
    Lake,
    LakeUnavailable,
    NotReplaced,
    Partition,
    PartitionDamaged,
    QuarantineFile,
    Written,
    posts_tables,
)

# Partitions of an answer that are made durable together, and such batches that are written side by side.
WRITTEN_TOGETHER = 16
WRITERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Landed:
    """A partition that lies in the lake, complete and verified, with its rows as written.

    `changes` is what that changed; None when nothing did, or when there was nothing before that could be read.
    """

    partition: Partition
    written: Written
    table: pa.Table
    bad_rows: int
    changes: Changes | None = None


# Of the service, of the lake, of the guard, or of an instance id that cannot be a partition.
Reason = LaterError | LakeUnavailable | NotReplaced | ValueError


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A partition that stayed as it was, and why."""

    partition: Partition
    error: Reason

    def __post_init__(self) -> None:
        # The frames of a trace hold the pages over which it was raised, and outcomes are kept.
        self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None


Outcome = Landed | Failed


class Landing:
    """Where the answers of one run go. It lists at once what earlier runs set aside.

    Args:
        source: the table, and how its posts belong to days.
        lake: where it lies.
        wanted: the partitions that the run is for; others stay as they are.
        deliver: told of each of them once.
        guard: decides what is not let pass.
        metrics: those that each partition gets a column of.
        now: the clock, in any zone.
    """

    def __init__(
        self,
        *,
        source: Source,
        lake: Lake,
        wanted: frozenset[Partition],
        deliver: Callable[[Outcome], None],
        guard: Guard,
        metrics: tuple[Metric, ...],
        now: Callable[[], datetime],
    ) -> None:
        self._source = source
        self._lake = lake
        self._wanted = wanted
        self._deliver = deliver
        self._guard = guard
        self._metrics = metrics
        self._now = now
        self._files_before: list[QuarantineFile] = []
        # Partitions that may have a file of bad rows, which a response without any has to remove.
        self._quarantined: Collection[Partition | None] = wanted
        with suppress(LakeUnavailable):
            self._files_before = lake.quarantine.files(source.asset)
            self._quarantined = {file.partition for file in self._files_before}
        self._landed: set[Partition] = set()
        # Queries of this run with bad rows that name no partition.
        self._filed: set[str] = set()

    def wanted_of(self, query: PostPerformanceQuery) -> list[Partition]:
        """What a query is asked for: a query that was widened fills other partitions too, which stay as they are."""
        return [partition for partition in partitions_of(query) if partition in self._wanted]

    def fail(self, query: PostPerformanceQuery, error: Reason) -> None:
        """Tells that what a query was asked for stays as it was."""
        self._fail(self.wanted_of(query), error)

    def land(self, query: PostPerformanceQuery, walks: Sequence[Walk], planned: PostPerformanceQuery) -> None:
        """Splits an answer into its partitions and writes them; a day without posts is a file without rows.

        Their files tell the planned query: into how many parts that came to be asked for is no fact of the posts.
        """
        asset, lake = self._source.asset, self._lake
        partitions = self.wanted_of(query)
        posts: dict[Partition, list[Post]] = {partition: [] for partition in partitions}
        cells = {(partition.day, partition.instance_id): members for partition, members in posts.items()}
        for walk in walks:
            for post in walk.posts:
                if (members := cells.get((_day_of(post.post_date, query), post.instance_id))) is not None:
                    members.append(post)
        all_bad_rows = [row for walk in walks for row in walk.bad_rows]
        bad_rows, unassigned = _by_partition(all_bad_rows, query)
        asked = named(query)
        facts = {
            "fetched_at": self._now().astimezone(UTC).isoformat(timespec="milliseconds"),
            "queries": msgspec.json.encode([named(planned)]).decode(),
            "metrics": msgspec.json.encode([metric.api_name for metric in self._metrics]).decode(),
        }
        try:
            if unassigned:
                self._filed.add(asked)
                lake.quarantine.write_query(asset, unassigned, query=asked, days=(query.start_date, query.end_date))
                rows = sum(len(walk.posts) for walk in walks) + len(all_bad_rows)
                self._guard.check_bad_rows(
                    len(unassigned), of=rows, what="the query, which do not tell their partition,"
                )
        except (LakeUnavailable, TooManyBadRows) as error:
            self._fail(partitions, error)
            return

        def write(some: Sequence[Partition]) -> list[Outcome]:
            came_to: dict[Partition, Written | LakeUnavailable | NotReplaced] = {}
            for partition in some:
                bad, good = bad_rows.get(partition, []), posts[partition]
                try:
                    if bad or partition in self._quarantined:
                        lake.quarantine.write(asset, partition, bad, query=asked)
                    self._guard.check_bad_rows(len(bad), of=len(good) + len(bad), what="this partition")
                except (LakeUnavailable, TooManyBadRows) as error:
                    came_to[partition] = error
            whole = {partition: posts[partition] for partition in some if partition not in came_to}
            tables = posts_tables(whole, metrics=self._metrics)
            changes: dict[Partition, Changes] = {}

            def review(partition: Partition, old: pa.Table, new: pa.Table) -> None:
                changes[partition] = found = changes_between(old, new)
                self._guard.check_changes(found, bad_rows=len(bad_rows.get(partition, [])))

            came_to |= lake.write_all(asset, tables, facts=facts, review=review)
            return [
                Failed(partition=partition, error=written)
                if not isinstance(written := came_to[partition], Written)
                else Landed(
                    partition=partition,
                    written=written,
                    table=tables[partition],
                    bad_rows=len(bad_rows.get(partition, [])),
                    changes=changes.get(partition),
                )
                for partition in some
            ]

        together = range(0, len(partitions), WRITTEN_TOGETHER)
        with ThreadPoolExecutor(WRITERS) as writers:
            for outcomes in writers.map(lambda start: write(partitions[start : start + WRITTEN_TOGETHER]), together):
                self._landed.update(outcome.partition for outcome in outcomes if isinstance(outcome, Landed))
                for outcome in outcomes:
                    self._deliver(outcome)

    def clear_refetched(self) -> None:
        """Remove earlier files of bad rows that name no partition, once this run has landed all of their queries.

        The new responses say all that there is to say of those partitions, and have files of their own for such rows.
        A file of which a part was not fetched again stays whole.
        """
        landed_days = {partition.day for partition in self._landed}
        for file in self._files_before:
            if file.days is None or not landed_days.issuperset(file.days):
                continue
            # What cannot be read or removed stays for the next run; `quarantine_is_empty` reports it.
            with suppress(LakeUnavailable, PartitionDamaged):
                for query in {row.query for row in self._lake.quarantine.rows_in(file)} - self._filed:
                    partitions = partitions_between(*file.days, _instances_in(query))
                    if partitions and self._landed.issuperset(partitions):
                        self._lake.quarantine.remove(file)

    def _fail(self, partitions: Sequence[Partition], error: Reason) -> None:
        for partition in partitions:
            self._deliver(Failed(partition=partition, error=error))


def _day_of(post_date: datetime, query: PostPerformanceQuery) -> date:
    """The day of the partition that a row belongs to: its own UTC day, or the one that was asked for."""
    if query.date_basis is DateBasis.PERFORMANCE_DATE:
        return query.start_date
    return post_date.astimezone(UTC).date()


def _by_partition(
    bad_rows: Sequence[BadRow], query: PostPerformanceQuery
) -> tuple[dict[Partition, list[BadRow]], list[BadRow]]:
    """Bad rows under the partition that they belong to, and those whose partition cannot be read."""
    partitions = set(partitions_of(query))
    found: dict[Partition, list[BadRow]] = {}
    unassigned: list[BadRow] = []
    for row in bad_rows:
        partition = _partition_of(row, query)
        if partition in partitions:
            found.setdefault(partition, []).append(row)
        else:
            unassigned.append(row)
    return found, unassigned


def _partition_of(row: BadRow, query: PostPerformanceQuery) -> Partition | None:
    instance_id = row.instance_id or (query.instance_ids[0] if len(query.instance_ids) == 1 else None)
    if instance_id is None:
        return None
    if query.start_date == query.end_date:
        return Partition(day=query.start_date, instance_id=instance_id)
    return None if row.post_date is None else Partition(day=row.post_date.date(), instance_id=instance_id)


def named(query: PostPerformanceQuery) -> str:
    """A query as files tell it."""
    return urlencode(query.question())


def _instances_in(query: str) -> list[str]:
    """Return the instance ids of a query that `named` wrote."""
    return [value for name, value in parse_qsl(query) if name == "instanceIds"]
