"""Which queries to send: the number of requests is the cost of everything, so it is decided here, without I/O.

A partition is one UTC day of one instance. `post_date` responses can be split into days by each post's own date, so
contiguous days of the same instances become one range query, and scattered ones too where that costs fewer requests;
`performance_date` responses cannot, so each day is a query of its own over all its instances.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from math import ceil
from typing import TypeVar
from urllib.parse import quote

from later_reporting_dagster.contract import (
    MAXIMUM_PAGE_NUMBER,
    MAXIMUM_PAGE_SIZE,
    ContentType,
    DateBasis,
    Platform,
    PostPerformanceQuery,
    platform_of,
)
from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.lake import Partition

# A walk reaches as many pages from the end of an answer as from its beginning.
MAXIMUM_POSTS = 2 * MAXIMUM_PAGE_NUMBER * MAXIMUM_PAGE_SIZE
# The document allows two years; whole days short of that need no thought about leap years.
MAXIMUM_DAYS = 730
# Well inside what servers and proxies take as a request line (8 KiB), with room for the other parameters.
MAXIMUM_INSTANCE_CHARACTERS = 6_000
# A walk without totals is shared out among so many pages each: each share costs a page at most, its last, which is
# seldom full, and so a tenth at most. More would be too much to hold at once, each by one of those who walk.
FEWEST_PAGES_OF_A_SHARE = 10
MOST_PAGES_OF_A_SHARE = 50

_DAY = timedelta(days=1)
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class _Box:
    """Days, both inclusive, × instances."""

    start: date
    end: date
    instances: frozenset[str]


def plan(
    partitions: Collection[Partition],
    *,
    date_basis: DateBasis,
    known_rows: Mapping[Partition, int] | None = None,
    metrics: tuple[str, ...] = (),
) -> list[PostPerformanceQuery]:
    """Return the queries whose responses hold each of `partitions` exactly once, in order of date.

    They hold nothing else, unless `known_rows` says that this costs fewer requests.

    Args:
        partitions: what is wanted.
        date_basis: what the days mean.
        known_rows: how many rows a partition had when it was last fetched, wanted or not. No query is widened over a
            partition that is not in it.
        metrics: the API's names of what is asked for; none: those of the API reference.

    Raises:
        ValueError: a partition names no instance.
    """
    instances_of_day: dict[date, set[str]] = defaultdict(set)
    for partition in partitions:
        if partition.instance_id is None:
            raise ValueError(f"{partition} names no instance: posts are fetched per instance")
        instances_of_day[partition.day].add(partition.instance_id)
    if date_basis is DateBasis.POST_DATE:
        boxes = _merged(_boxes(instances_of_day, longest=MAXIMUM_DAYS), known_rows or {})
    else:
        boxes = _boxes(instances_of_day, longest=1)
    return [
        PostPerformanceQuery(
            start_date=box.start,
            end_date=box.end,
            instance_ids=instance_ids,
            date_basis=date_basis,
            page_size=MAXIMUM_PAGE_SIZE,
            metrics=metrics,
        )
        for box in boxes
        for instance_ids in _short_enough(sorted(box.instances))
    ]


def partitions_of(query: PostPerformanceQuery) -> list[Partition]:
    """Return the partitions that a query's response fills: each of its days × each of its instances."""
    return partitions_between(query.start_date, query.end_date, query.instance_ids)


def partitions_between(start: date, end: date, instance_ids: Iterable[str]) -> list[Partition]:
    """Return the partitions of the days from `start` to `end`, both inclusive, × instances, in order of day."""
    instance_ids = list(instance_ids)
    return [Partition(day, instance_id) for day in days_between(start, end) for instance_id in instance_ids]


def narrower(query: PostPerformanceQuery, *, parts: int = 2) -> list[PostPerformanceQuery]:
    """Split a query by dates, or else by instances, into queries that fill the same partitions together.

    As many as `parts`, where there are so many days or instances; none for a single partition.
    """
    return by_days(query, parts=parts) or by_instances(query, parts=parts)


def by_days(query: PostPerformanceQuery, *, parts: int = 2) -> list[PostPerformanceQuery]:
    """Split a query by dates alone; none for a single day."""
    days = days_between(query.start_date, query.end_date)
    if query.date_basis is not DateBasis.POST_DATE or len(days) == 1:
        return []
    return [replace(query, start_date=part[0], end_date=part[-1]) for part in _even_parts(days, parts)]


def parts_for(total_items: int, *, posts_each: int) -> int:
    """Return into how many parts to split so many posts, for at most `posts_each` if they are spread evenly."""
    return max(2, ceil(total_items / posts_each))


def shares(
    query: PostPerformanceQuery, *, rows: int, latest: datetime, idle: int
) -> tuple[PostPerformanceQuery, list[PostPerformanceQuery]]:
    """Return what a walk without totals should still fetch, and the queries for the days after that.

    The posts that are left are estimated from those that have come. The days are shared out only where each share is
    worth a walk of its own.

    Args:
        query: what the walk was to fetch.
        rows: how many have come.
        latest: the newest one's instant, in UTC.
        idle: how many others could walk.
    """
    days = days_between(latest.date() + _DAY, query.end_date)
    if query.date_basis is not DateBasis.POST_DATE or not days:
        return query, []
    walked = latest - datetime.combine(query.start_date, time.min, UTC)
    pages = rows / MAXIMUM_PAGE_SIZE * (len(days) * _DAY / max(walked, timedelta(seconds=1)))
    worth = int(pages // FEWEST_PAGES_OF_A_SHARE)
    count = min(worth, max(idle + 1, ceil(pages / MOST_PAGES_OF_A_SHARE))) if idle else 1
    first, *others = _even_parts(days, max(count, 1))
    return (
        replace(query, end_date=first[-1]),
        [replace(query, start_date=part[0], end_date=part[-1]) for part in others],
    )


def by_instances(query: PostPerformanceQuery, *, parts: int = 2) -> list[PostPerformanceQuery]:
    """Split a query by instances alone; none for a single instance."""
    if len(query.instance_ids) == 1:
        return []
    return [replace(query, instance_ids=tuple(part)) for part in _even_parts(query.instance_ids, parts)]


def by_content(query: PostPerformanceQuery, *, parts: int = 2) -> list[PostPerformanceQuery]:
    """Split a query of one partition that is too large: by platforms, then by content types of a platform.

    None where nothing is left to split by. The parts leave out what cannot be asked for, such as posts of a content
    type that the API reference does not list: compare their totals with the whole's.
    """
    if not query.content_types and len(query.platforms) != 1:
        platforms = query.platforms or tuple(Platform)
        return [replace(query, platforms=tuple(part)) for part in _even_parts(platforms, parts)]
    content_types = query.content_types or tuple(name for name in ContentType if platform_of(name) in query.platforms)
    if len(content_types) < 2:
        return []
    return [replace(query, platforms=(), content_types=tuple(part)) for part in _even_parts(content_types, parts)]


def _boxes(instances_of_day: Mapping[date, Collection[str]], *, longest: int) -> list[_Box]:
    """Return runs of contiguous days that want the same instances, none of more than `longest` days, by date."""
    boxes: list[_Box] = []
    for day in sorted(instances_of_day):
        instances = frozenset(instances_of_day[day])
        last = boxes[-1] if boxes else None
        if last and (last.end + _DAY, last.instances) == (day, instances) and (day - last.start).days < longest:
            boxes[-1] = replace(last, end=day)
        else:
            boxes.append(_Box(day, day, instances))
    return boxes


def _merged(boxes: Sequence[_Box], known_rows: Mapping[Partition, int]) -> list[_Box]:
    """Neighbouring boxes made one, from the first on, wherever one query costs fewer requests than two.

    A merged box has all days from the first to the last × all instances of both. Its cost is the pages of its rows.
    """
    merged: list[_Box] = []
    for box in boxes:
        while merged:
            last = merged[-1]
            wide = _Box(last.start, box.end, last.instances | box.instances)
            pages = _pages(wide, known_rows) if (wide.end - wide.start).days < MAXIMUM_DAYS else None
            if pages is None or pages >= (_pages(last, known_rows) or 1) + (_pages(box, known_rows) or 1):
                break
            merged.pop()
            box = wide
        merged.append(box)
    return merged


def _pages(box: _Box, known_rows: Mapping[Partition, int]) -> int | None:
    """Return the requests that a box costs; None when that is not known."""
    try:
        rows = sum(known_rows[each] for each in partitions_between(box.start, box.end, box.instances))
    except KeyError:
        return None
    return max(1, ceil(rows / MAXIMUM_PAGE_SIZE))


def _short_enough(instance_ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Group instances so that their part of the URL stays under a sane length."""
    group: list[str] = []
    characters = 0
    for instance_id in instance_ids:
        cost = len("&instanceIds=") + len(quote(instance_id, safe=""))
        if group and characters + cost > MAXIMUM_INSTANCE_CHARACTERS:
            yield tuple(group)
            group, characters = [], 0
        group.append(instance_id)
        characters += cost
    if group:
        yield tuple(group)


def _even_parts(items: Sequence[_Item], parts: int) -> list[Sequence[_Item]]:
    parts = min(parts, len(items))
    edges = [len(items) * index // parts for index in range(parts + 1)]
    return [items[low:high] for low, high in pairwise(edges)]
