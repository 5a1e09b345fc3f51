"""Reads quarantined rows again with the present reader, and lands what is good now. No request is made.

A row is taken from quarantine only once it lies in its partition, so that a crash in between costs nothing: the next
replay finds it there.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache

import pyarrow as pa

from later_reporting_dagster.contract import (
    DOCUMENT_METRICS,
    BadRow,
    DateBasis,
    Metric,
    Post,
    metrics_in,
    post_from_json,
)
from later_reporting_dagster.ingest.homeless import possible_of
from later_reporting_dagster.ingest.source import Source
from later_reporting_dagster.lake import (
    POST_KEY,
    Lake,
    LakeUnavailable,
    Partition,
    PartitionDamaged,
    QuarantinedRow,
    Written,
    posts_schema,
    posts_table,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What became of the quarantined rows of one partition, or of those of a query that told none.

    Attributes:
        partition: the one that good rows were for; None for rows that are still of none.
        merged: rows that are good now and have been added to it.
        already_there: rows that are good now, and whose key lay in the partition: what lies there stays.
        still_bad: rows that stay in quarantine, because they still cannot be true or cannot be placed.
        written: the partition as it is now, if rows were added to it.
        error: why rows that are good now stay in quarantine all the same.
    """

    partition: Partition | None
    merged: int = 0
    already_there: int = 0
    still_bad: int = 0
    written: Written | None = None
    error: str = ""


def replay(lake: Lake, source: Source, *, now: datetime) -> Iterator[Replayed]:
    """Reads each quarantined row of a table again, partition by partition, and yields what came of it.

    A partition that has not landed is not made of the rows that were bad: it would not be whole. One that has keeps its
    columns: a row is read for the metrics that its partition was asked for.

    Raises:
        LakeUnavailable: the quarantine cannot be read or written. What was merged until then stays merged.
        PartitionDamaged: a quarantine file is not what the lake writes.
    """

    @lru_cache
    def metrics_of(partition: Partition | None) -> tuple[Metric, ...]:
        with suppress(LakeUnavailable, PartitionDamaged):  # which merging meets again, and tells
            if partition is not None and (facts := lake.facts(source.asset, partition)) is not None:
                return metrics_in(facts.columns)
        return DOCUMENT_METRICS

    groups: dict[Partition | str, list[QuarantinedRow]] = {}
    for row in lake.quarantined(source.asset):
        groups.setdefault(row.partition or row.query, []).append(row)
    for place, rows in groups.items():
        good: dict[Partition, list[tuple[QuarantinedRow, Post]]] = {}
        left: list[QuarantinedRow] = []
        for row in rows:
            post = _read(row, metrics_of(row.partition))
            partition = None if isinstance(post, BadRow) else _place_of(post, row, source)
            if partition != row.partition and partition is not None:
                post = _read(row, metrics_of(partition))
            if isinstance(post, BadRow):
                left.append(replace(row, reason=post.reason))
            elif partition is None:
                left.append(replace(row, reason="it belongs to another partition, or tells none"))
            else:
                good.setdefault(partition, []).append((row, post))
        still_bad = len(left)
        for partition, found in sorted(good.items()):
            posts = [post for _, post in found]
            outcome = _merge(lake, source, partition, posts, metrics=metrics_of(partition), now=now)
            if outcome.error:
                left += [row for row, _ in found]
            yield outcome
        if left != rows:
            _set_aside(lake, source, place, left)
        if still_bad:
            yield Replayed(partition=place if isinstance(place, Partition) else None, still_bad=still_bad)


def _read(row: QuarantinedRow, metrics: tuple[Metric, ...]) -> Post | BadRow:
    try:
        fields = json.loads(row.raw)
        nested = isinstance(fields, Mapping) and isinstance(fields.get("metrics"), Mapping)
        return post_from_json(fields, metrics=metrics, nested=nested)
    except (ValueError, RecursionError) as error:
        return BadRow(reason=f"its raw JSON cannot be read: {error}", raw=row.raw)


def _place_of(post: Post, row: QuarantinedRow, source: Source) -> Partition | None:
    """The partition that a post is to be merged into; None when it is not one that the row may belong to."""
    may_be = frozenset([row.partition]) if row.partition else possible_of(row)
    posted = post.post_date.astimezone(UTC).date()
    if source.date_basis is DateBasis.POST_DATE:
        partition = Partition(posted, post.instance_id)
    else:
        days = {each.day for each in may_be}
        if len(days) != 1 or posted > min(days):
            return None
        partition = Partition(min(days), post.instance_id)
    return partition if partition in may_be else None


def _merge(
    lake: Lake,
    source: Source,
    partition: Partition,
    posts: Sequence[Post],
    *,
    metrics: tuple[Metric, ...],
    now: datetime,
) -> Replayed:
    try:
        facts = lake.facts(source.asset, partition)
        if facts is None:
            return Replayed(partition=partition, error="the partition has not landed yet: materialize it first")
        stored = lake.read(source.asset, [partition], schema=posts_schema(metrics))
        there = set(zip(*(stored[name].to_pylist() for name in POST_KEY), strict=True))
        new = {post.key: post for post in posts if post.key not in there}
        if not new:
            return Replayed(partition=partition, already_there=len(posts))
        rows = pa.concat_tables([stored, posts_table(list(new.values()), metrics=metrics)])
        table = rows.sort_by([(name, "ascending") for name in POST_KEY])
        told = {**facts.facts, "replayed_at": now.astimezone(UTC).isoformat(timespec="milliseconds")}
        written = lake.write(source.asset, partition, table, facts=told)
    except (LakeUnavailable, PartitionDamaged) as error:
        return Replayed(partition=partition, error=str(error))
    return Replayed(partition=partition, merged=len(new), already_there=len(posts) - len(new), written=written)


def _set_aside(lake: Lake, source: Source, place: Partition | str, rows: Sequence[QuarantinedRow]) -> None:
    bad_rows = [BadRow(reason=row.reason, raw=row.raw) for row in rows]
    if isinstance(place, str):
        lake.quarantine_query(
            source.asset, bad_rows, query=place, possible=possible_of(rows[0]) if rows else frozenset()
        )
    else:
        lake.quarantine(source.asset, place, bad_rows, query=rows[0].query if rows else "")
