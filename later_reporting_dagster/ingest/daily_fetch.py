"""Fetches whole days: every wanted instance of each, and what came of a day once all of its instances are known."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa

from later_reporting_dagster.client import LaterClient
from later_reporting_dagster.contract import DOCUMENT_METRICS, Metric
from later_reporting_dagster.ingest.ingest import DEFAULT_GUARD, ingest
from later_reporting_dagster.ingest.partition_writer import Landed, Outcome, Reason
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.ingest.write_guard import Guard
from later_reporting_dagster.lake import Lake, Partition

PREVIEW_ROWS = 5
# To sort the posts of one instance takes as long as to sort those of many.
PREVIEW_TABLES = 16
# The columns of a post that tell it apart at a glance.
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
# The preview shows the most seen posts: by the first of these metrics that was asked for.
PREVIEW_ORDER = ("impressions", "paid_impressions")


class NoInstances(ValueError):  # noqa: N818 - named for what is the case
    """The credentials reach no instance, so there is nothing to fetch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPlan:
    """What a fetch is for, known before its first data request.

    Attributes:
        days: the days of the fetch, sorted.
        instances: the instances wanted on each of them.
        pairs: the (day, instance) pairs to fetch; fewer than days × instances with `only_missing`.
        present: all partitions of the table that had a file before the fetch, of whatever day and instance.
    """

    days: Sequence[date]
    instances: Sequence[str]
    pairs: frozenset[Partition]
    present: frozenset[Partition]


def plan_fetch(
    days: Collection[date], instances: Sequence[str], *, present: Collection[Partition], only_missing: bool
) -> FetchPlan:
    """Return what to fetch: all `days` × `instances`, or with `only_missing` just those without a file."""
    wanted = frozenset(Partition(day, instance_id) for day in days for instance_id in instances)
    there = frozenset(present)
    return FetchPlan(
        days=sorted(days), instances=tuple(instances), pairs=wanted - there if only_missing else wanted, present=there
    )


async def fetch_days(
    days: Collection[date],
    *,
    instances: Sequence[str],
    only_missing: bool,
    source: Source,
    client: LaterClient,
    lake: Lake,
    emit: Callable[[FetchPlan | Outcome], None],
    guard: Guard = DEFAULT_GUARD,
    metrics: tuple[Metric, ...] = DOCUMENT_METRICS,
) -> None:
    """Fetch `days` of `instances`, or of all that the API lists when none are given, and write their files.

    Emits the plan first, then exactly one outcome for each of its pairs, from worker threads.

    Args:
        days: UTC days.
        instances: instance ids; empty: one request per 100 instances lists them.
        only_missing: fetch just the (day, instance) pairs that have no file.
        source: the raw table.
        client: an open client.
        lake: where the files are written.
        emit: takes the plan and the outcomes; may block, which holds up the fetching.
        guard: decides which responses are not written.
        metrics: the metrics to ask for.

    Raises:
        NoInstances: no instances are given, and the API lists none.
        LaterError: the API does not list the instances.
        LakeUnavailable: the lake cannot be listed.
    """
    wanted = tuple(instances) or await client.instances()
    if not wanted:
        raise NoInstances("The credentials reach no instance: have instances added to their scope.")
    plan = plan_fetch(days, wanted, present=lake.partitions(source.asset), only_missing=only_missing)
    emit(plan)
    await ingest(plan.pairs, source=source, client=client, lake=lake, deliver=emit, guard=guard, metrics=metrics)


@dataclass(slots=True)
class DayResult:
    """What a fetch came to on one day.

    Attributes:
        day: the UTC day.
        pending: instances whose outcome is not known yet.
        written: content hash of the file of each instance that was fetched, changed or not.
        failed: instances whose file stayed as it was, each with the reason.
        rows: rows in the fetched files.
        files_changed: how many of these files were written anew.
        bad_rows: rows in quarantine.
        restatement: rows added, removed and restated, and the change of each metric's total, in replaced files.
    """

    day: date
    pending: set[str]
    written: dict[str, str] = field(default_factory=dict)
    failed: dict[str, Reason] = field(default_factory=dict)
    rows: int = 0
    files_changed: int = 0
    bad_rows: int = 0
    restatement: dict[str, Any] = field(default_factory=dict)
    _posts: list[pa.Table] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of one of the pending instances."""
        instance_id = str(outcome.partition.instance_id)
        self.pending.discard(instance_id)
        if not isinstance(outcome, Landed):
            self.failed[instance_id] = outcome.error
            return
        self.written[instance_id] = outcome.written.content_hash
        self.rows += outcome.written.rows
        self.files_changed += outcome.written.changed
        self.bad_rows += outcome.bad_rows
        names = set(outcome.table.column_names)
        self._posts.append(outcome.table.select([name for name in PREVIEW_COLUMNS if name in names]))
        if len(self._posts) >= PREVIEW_TABLES:
            self._posts = [_most_seen(self._posts)]
        if (changes := outcome.changes) is not None:
            counts = {"rows_added": changes.added, "rows_removed": changes.removed, "rows_restated": changes.restated}
            totals = {column: total.change for column, total in changes.totals.items() if total.change}
            for name, change in {**counts, **totals}.items():
                self.restatement[f"change/{name}"] = round(self.restatement.get(f"change/{name}", 0) + change, 6)

    @property
    def preview(self) -> pa.Table | None:
        """The most seen posts in the columns of the preview; None when no file was fetched."""
        return _most_seen(self._posts) if self._posts else None


class DayResults:
    """Collects the outcomes of a fetch by day, in memory that grows with the days and not with their posts."""

    def __init__(self, plan: FetchPlan) -> None:
        self.plan = plan
        self._open = {day: DayResult(day, set()) for day in plan.days}
        for partition in plan.pairs:
            self._open[partition.day].pending.add(str(partition.instance_id))

    def complete(self) -> Iterator[DayResult]:
        """Yield the days on which nothing is to be fetched, because all of their files are there already."""
        for day in [day for day, result in self._open.items() if not result.pending]:
            yield self._open.pop(day)

    def add(self, outcome: Outcome) -> DayResult | None:
        """Add an outcome; return its day once it was the last one of that day."""
        result = self._open[outcome.partition.day]
        result.add(outcome)
        return None if result.pending else self._open.pop(result.day)


def day_version(content_hashes: Mapping[str, str]) -> str:
    """Return the data version of a day: a SHA-256 over the content hashes of all its files, by instance id."""
    lines = [f"{instance_id!a} {content_hash}\n" for instance_id, content_hash in sorted(content_hashes.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _most_seen(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the first rows of all tables by `PREVIEW_ORDER`."""
    posts = pa.concat_tables(tables)
    order = [(name, "descending") for name in PREVIEW_ORDER if name in posts.column_names][:1]
    return (posts.sort_by(order) if order else posts).slice(0, PREVIEW_ROWS)
