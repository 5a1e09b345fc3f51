"""Fetch whole days of a raw table, and collect the results of a day's instances into one result per day."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa

from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.contract import DEFAULT_METRICS, Metric
from later_reporting_dagster.ingest.ingest import DEFAULT_GUARD, ingest
from later_reporting_dagster.ingest.partition_diff import PartitionDiff
from later_reporting_dagster.ingest.partition_writer import PartitionError, PartitionResult, WrittenPartition
from later_reporting_dagster.ingest.write_guard import WriteGuard
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.lake.raw_tables import RawTable

PREVIEW_ROWS = 5
# Tables are merged in batches, because each sort has a fixed cost that is higher than the cost of its rows.
PREVIEW_TABLES = 16
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
# The preview shows the posts with the highest values of one metric: the first of these that was requested.
PREVIEW_ORDER = ("impressions", "paid_impressions")


class NoInstances(ValueError):  # noqa: N818 - the name says what is wrong
    """The API lists no instance for the credentials, so there is nothing to fetch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPlan:
    """What a fetch covers, known before its first data request.

    Attributes:
        days: the days, sorted.
        instances: the instances of each day.
        pairs: the (day, instance) pairs to fetch: all days × instances, or some of them.
        present: all partitions on these days that had a file before the fetch, including those of other instances.
    """

    days: Sequence[date]
    instances: Sequence[str]
    pairs: frozenset[Partition]
    present: frozenset[Partition]


def plan_fetch(
    days: Collection[date],
    instances: Sequence[str],
    *,
    present: Collection[Partition],
    only_missing: bool,
    only_pairs: Collection[Partition] | None = None,
) -> FetchPlan:
    """Return the plan for all `days` × `instances`, limited to `only_pairs`, if given.

    With `only_missing`, leave out the pairs that are `present`.
    """
    pairs = frozenset(Partition(day, instance_id) for day in days for instance_id in instances)
    if only_pairs is not None:
        pairs &= frozenset(only_pairs)
    stored = frozenset(present)
    return FetchPlan(
        days=sorted(days), instances=tuple(instances), pairs=pairs - stored if only_missing else pairs, present=stored
    )


async def fetch_days(
    days: Collection[date],
    *,
    instances: Sequence[str],
    only_missing: bool,
    table: RawTable,
    client: LaterClient,
    lake: Lake,
    emit: Callable[[FetchPlan | PartitionResult], None],
    only_pairs: Collection[Partition] | None = None,
    guard: WriteGuard = DEFAULT_GUARD,
    metrics: tuple[Metric, ...] = DEFAULT_METRICS,
) -> None:
    """Fetch days of a raw table and write their files.

    Emits the plan first, then exactly one result for each of its pairs.

    Args:
        days: UTC days.
        instances: instance ids; empty for all that the API lists, which costs one request per 100 instances.
        only_missing: fetch only the (day, instance) pairs that have no file.
        only_pairs: fetch only these (day, instance) pairs.
        table: the raw table.
        client: an open client.
        lake: where the files are written.
        emit: called with the plan, then from worker threads with the results; while it blocks, fetching slows down.
        guard: limits on what may be replaced.
        metrics: the metrics to request.

    Raises:
        NoInstances: no instances are given, and the API lists none.
        LaterError: the instances cannot be listed.
        LakeUnavailable: the lake cannot be listed.
    """
    instance_ids = tuple(instances) or await client.fetch_instances()
    if not instance_ids:
        raise NoInstances("The credentials have no access to any instance: have instances added to their scope.")
    present = lake.partitions(table.name, days=days)
    plan = plan_fetch(days, instance_ids, present=present, only_missing=only_missing, only_pairs=only_pairs)
    emit(plan)
    await ingest(plan.pairs, table=table, client=client, lake=lake, on_result=emit, guard=guard, metrics=metrics)


@dataclass(slots=True)
class DayResult:
    """The results of one day.

    Attributes:
        day: the UTC day.
        pending: instances without a result yet.
        written: by instance id, the content hash of its file, including files that did not change.
        failed: instances whose file was not replaced, each with the error.
        rows: rows in the written files.
        files_changed: number of written files that changed.
        bad_rows: rows in quarantine.
        restatement: what changed in replaced files, as metadata: `change/rows_added`, `change/rows_removed`,
            `change/rows_restated`, and `change/<column>` for each metric whose total changed.
    """

    day: date
    pending: set[str]
    written: dict[str, str] = field(default_factory=dict)
    failed: dict[str, PartitionError] = field(default_factory=dict)
    rows: int = 0
    files_changed: int = 0
    bad_rows: int = 0
    restatement: dict[str, Any] = field(default_factory=dict)
    _posts: list[pa.Table] = field(default_factory=list)

    def add(self, result: PartitionResult) -> None:
        """Add the result of one of the pending instances."""
        instance_id = str(result.partition.instance_id)
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
        """The posts with the highest values of the preview's metric (`PREVIEW_ORDER`), in the columns of the preview.

        None if no file was written.
        """
        return _top_posts(self._posts) if self._posts else None

    def _add_to_preview(self, posts: pa.Table) -> None:
        names = set(posts.column_names)
        self._posts.append(posts.select([name for name in PREVIEW_COLUMNS if name in names]))
        if len(self._posts) >= PREVIEW_TABLES:
            self._posts = [_top_posts(self._posts)]

    def _add_diff(self, diff: PartitionDiff) -> None:
        for name, change in diff_metadata(diff).items():
            self.restatement[name] = round(self.restatement.get(name, 0) + change, 6)


class DayResults:
    """Collects the results of a fetch by day. Memory grows with the number of days, not of posts."""

    def __init__(self, plan: FetchPlan) -> None:
        self.plan = plan
        self._open = {day: DayResult(day, set()) for day in plan.days}
        for partition in plan.pairs:
            self._open[partition.day].pending.add(str(partition.instance_id))

    def days_without_pairs(self) -> Iterator[DayResult]:
        """Yield the days without a pair to fetch, because all of their files exist already."""
        for day in [day for day, result in self._open.items() if not result.pending]:
            yield self._open.pop(day)

    def add(self, result: PartitionResult) -> DayResult | None:
        """Add a result; return its day if it was the last result of that day."""
        day_result = self._open[result.partition.day]
        day_result.add(result)
        return None if day_result.pending else self._open.pop(day_result.day)


def diff_metadata(diff: PartitionDiff) -> dict[str, int | float]:
    """Return what changed in a replaced file, as metadata; see `DayResult.restatement`."""
    counts = {"rows_added": diff.added, "rows_removed": diff.removed, "rows_restated": diff.restated}
    totals = {column: total.change for column, total in diff.totals.items() if total.change}
    return {f"change/{name}": change for name, change in {**counts, **totals}.items()}


def day_version(content_hashes: Mapping[str, str]) -> str:
    """Return the data version of a day: a SHA-256 of the content hashes of all its files, by instance id."""
    lines = [f"{instance_id!a} {content_hash}\n" for instance_id, content_hash in sorted(content_hashes.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _top_posts(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the `PREVIEW_ROWS` rows with the highest values of the first metric of `PREVIEW_ORDER` that exists."""
    posts = pa.concat_tables(tables)
    order = [(name, "descending") for name in PREVIEW_ORDER if name in posts.column_names][:1]
    return (posts.sort_by(order) if order else posts).slice(0, PREVIEW_ROWS)
