"""Which queries to ask: the number of requests is the cost of everything, so it is decided here and purely.

A partition is one UTC day of one instance. `post_date` answers can be split into days by each post's own date, so
contiguous days of the same instances become one range query; `performance_date` answers cannot, so each day is a
query of its own over all its instances.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise
from math import ceil
from typing import TypeVar
from urllib.parse import quote

from later_reporting_dagster.contract import (
    MAXIMUM_PAGE_NUMBER,
    MAXIMUM_PAGE_SIZE,
    ContentType,
    DateBasis,
    PostPerformanceQuery,
)
from later_reporting_dagster.lake import Partition

# A walk reaches as many pages from the end of an answer as from its beginning.
MAXIMUM_POSTS = 2 * MAXIMUM_PAGE_NUMBER * MAXIMUM_PAGE_SIZE
# The document allows two years; whole days short of that need no thought about leap years.
MAXIMUM_DAYS = 730
# Well inside what servers and proxies take as a request line (8 KiB), with room for the other parameters.
MAXIMUM_INSTANCE_CHARACTERS = 6_000

_DAY = timedelta(days=1)
_Item = TypeVar("_Item")


def plan(partitions: Collection[Partition], *, date_basis: DateBasis) -> list[PostPerformanceQuery]:
    """The queries whose answers hold each of `partitions` exactly once and nothing else, in order of date.

    Raises:
        ValueError: a partition names no instance.
    """
    instances_of_day: dict[date, set[str]] = defaultdict(set)
    for partition in partitions:
        if partition.instance_id is None:
            raise ValueError(f"{partition} names no instance: posts are fetched per instance")
        instances_of_day[partition.day].add(partition.instance_id)
    longest = MAXIMUM_DAYS if date_basis is DateBasis.POST_DATE else 1
    return [
        PostPerformanceQuery(
            start_date=start,
            end_date=end,
            instance_ids=instance_ids,
            date_basis=date_basis,
            page_size=MAXIMUM_PAGE_SIZE,
        )
        for start, end, instances in _boxes(instances_of_day, longest=longest)
        for instance_ids in _short_enough(sorted(instances))
    ]


def partitions_of(query: PostPerformanceQuery) -> list[Partition]:
    """The partitions that a query's answer fills: each of its days × each of its instances."""
    return [
        Partition(day=day, instance_id=instance_id)
        for day in _days(query.start_date, query.end_date)
        for instance_id in query.instance_ids
    ]


def narrower(query: PostPerformanceQuery, *, total_items: int = 0) -> list[PostPerformanceQuery]:
    """Smaller queries that fill the same partitions together: split by dates, or else by instances.

    Enough parts for `total_items` posts, if they are spread evenly, and two at least; none for a single partition.
    """
    days = _days(query.start_date, query.end_date)
    if query.date_basis is DateBasis.POST_DATE and len(days) > 1:
        parts = _even_parts(days, total_items)
        return [replace(query, start_date=part[0], end_date=part[-1]) for part in parts]
    return by_instances(query, total_items=total_items)


def by_instances(query: PostPerformanceQuery, *, total_items: int = 0) -> list[PostPerformanceQuery]:
    """As `narrower`, but by instances alone: none for a single instance."""
    if len(query.instance_ids) == 1:
        return []
    return [replace(query, instance_ids=tuple(part)) for part in _even_parts(query.instance_ids, total_items)]


def by_content_types(query: PostPerformanceQuery, *, total_items: int) -> list[PostPerformanceQuery]:
    """Smaller queries for one partition that is too large for one query; none where it is down to one content type.

    They leave out posts of a type that the document does not list: hold their totals against the whole's.
    """
    if len(query.content_types) == 1:
        return []
    content_types = query.content_types or tuple(ContentType)
    return [replace(query, content_types=tuple(part)) for part in _even_parts(content_types, total_items)]


def _boxes(instances_of_day: dict[date, set[str]], *, longest: int) -> Iterator[tuple[date, date, set[str]]]:
    """Runs of contiguous days that want the same instances, none longer than `longest` days."""
    start: date | None = None
    end = date.min
    wanted: set[str] = set()
    for day in sorted(instances_of_day):
        instances = instances_of_day[day]
        if start is not None and day == end + _DAY and instances == wanted and (day - start).days < longest:
            end = day
            continue
        if start is not None:
            yield start, end, wanted
        start, end, wanted = day, day, instances
    if start is not None:
        yield start, end, wanted


def _short_enough(instance_ids: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Instances in groups whose part of the URL stays under a sane length."""
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


def _days(start: date, end: date) -> list[date]:
    return [start + timedelta(days=offset) for offset in range((end - start).days + 1)]


def _even_parts(items: Sequence[_Item], total_posts: int) -> list[Sequence[_Item]]:
    # A fifth of slack, because posts are never spread evenly.
    parts = min(max(2, ceil(total_posts / (MAXIMUM_POSTS * 0.8))), len(items))
    edges = [len(items) * index // parts for index in range(parts + 1)]
    return [items[low:high] for low, high in pairwise(edges)]
