"""Plan the queries for a set of partitions with as few requests as possible. No I/O.

A partition is one UTC day of one instance. A `post_date` response can be split into days by the `postDate` of each
post, so contiguous days of the same instances become one range query. Scattered days are merged too if that costs fewer
requests. A `performance_date` response cannot be split, so each day is a separate query for all its instances
(docs/api.md, "Date basis").
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from math import ceil
from typing import TypeVar
from urllib.parse import urlencode

from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.parameters import (
    MAX_PAGE_NUMBER,
    MAX_PAGE_SIZE,
    ContentType,
    DateBasis,
    Platform,
    platform_of,
)
from later_reporting_dagster.contract.query import PerformanceQuery, group_by_url_length
from later_reporting_dagster.lake import Partition

# The client fetches as many pages in descending order as in ascending order.
MAX_POSTS_PER_QUERY = 2 * MAX_PAGE_NUMBER * MAX_PAGE_SIZE
# Posts in each part when a query with too many posts is split. Well below `MAX_POSTS_PER_QUERY`, because posts are not
# spread evenly, and because the client also limits the bytes of a query: 60,000 posts of 700 bytes are 42 MB of the
# 50 MB that it accepts.
MAX_POSTS_PER_PART = MAX_POSTS_PER_QUERY * 3 // 5
# The API allows two years. 730 days are within two years whether or not there is a leap year.
MAX_DAYS = 730
# The pages of a cursor query are fetched one after the other, and its last page is half empty on average. So a range of
# days is fetched as queries of some 25 pages: several at a time, for 2 % more pages.
PAGES_PER_CURSOR_QUERY = 25
# While the number of posts is not known.
FIRST_DAYS_PER_CURSOR_QUERY = 7

_DAY = timedelta(days=1)
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class _PartitionRange:
    """All partitions of contiguous days, `start` and `end` inclusive, × `instances`."""

    start: date
    end: date
    instances: frozenset[str]


def plan_queries(
    partitions: Collection[Partition],
    *,
    date_basis: DateBasis,
    rows_per_file: float | None = None,
    metrics: tuple[Metric, ...] = DEFAULT_METRICS,
) -> list[PerformanceQuery]:
    """Return the queries whose responses contain each of `partitions` exactly once, in order of date.

    A query covers other partitions as well only if that costs fewer requests by `rows_per_file`, the mean rows of a
    partition.
    """
    instances_of_day: dict[date, set[str]] = defaultdict(set)
    for partition in partitions:
        instances_of_day[partition.day].add(str(partition.instance_id))
    if date_basis is DateBasis.POST_DATE:
        ranges = _contiguous_ranges(instances_of_day, max_days=MAX_DAYS)
        if rows_per_file is not None:
            ranges = _merge_ranges(ranges, rows_per_file=rows_per_file)
    else:
        ranges = _contiguous_ranges(instances_of_day, max_days=1)
    return [
        PerformanceQuery(
            start_date=each.start, end_date=each.end, instance_ids=instance_ids, date_basis=date_basis, metrics=metrics
        )
        for each in ranges
        for instance_ids in group_by_url_length(sorted(each.instances))
    ]


def partitions_of(query: PerformanceQuery) -> list[Partition]:
    """Return the partitions that a query covers: each of its days × each of its instances, in order of day."""
    days = days_between(query.start_date, query.end_date)
    return [Partition(day, instance_id) for day in days for instance_id in query.instance_ids]


def query_text(query: PerformanceQuery) -> str:
    """Return a query as a URL query string, as it is recorded in file metadata and in quarantine."""
    return urlencode(query.filter_parameters())


def split_query(query: PerformanceQuery, *, parts: int = 2) -> list[PerformanceQuery]:
    """Split a query by days, or a single day by instances, into at most `parts` queries; empty for one partition."""
    return split_by_days(query, parts=parts) or split_by_instances(query, parts=parts)


def split_by_days(query: PerformanceQuery, *, parts: int = 2) -> list[PerformanceQuery]:
    """Split a `post_date` query into at most `parts` ranges of days; empty for a single day."""
    days = days_between(query.start_date, query.end_date)
    if query.date_basis is not DateBasis.POST_DATE or len(days) == 1:
        return []
    return [replace(query, start_date=part[0], end_date=part[-1]) for part in _even_parts(days, parts)]


def split_by_instances(query: PerformanceQuery, *, parts: int = 2) -> list[PerformanceQuery]:
    """Split a query into at most `parts` groups of instances; empty for a single instance."""
    if len(query.instance_ids) == 1:
        return []
    return [replace(query, instance_ids=tuple(part)) for part in _even_parts(query.instance_ids, parts)]


def split_by_content(query: PerformanceQuery, *, parts: int = 2) -> list[PerformanceQuery]:
    """Split a query by platforms, or a query of a single platform by its content types.

    The parts miss posts if the API reference does not list their content type and no filter matches it. Compare the sum
    of the parts' totals with the total of the query; if that is unknown, find the content types that no part selects.
    A query of a single content type has no parts.
    """
    if not query.content_types and len(query.platforms) != 1:
        platforms = query.platforms or tuple(Platform)
        return [replace(query, platforms=tuple(part)) for part in _even_parts(platforms, parts)]
    content_types = query.content_types or tuple(name for name in ContentType if platform_of(name) in query.platforms)
    if len(content_types) < 2:
        return []
    return [replace(query, platforms=(), content_types=tuple(part)) for part in _even_parts(content_types, parts)]


def number_of_parts(total_items: int | None, *, posts_each: int) -> int:
    """Return the number of parts, at least 2, that have `posts_each` posts each if posts are spread evenly."""
    return 2 if total_items is None else max(2, ceil(total_items / posts_each))


def days_per_cursor_query(*, rows_per_day: float | None) -> int:
    """Return how many days one cursor query covers, given the posts of a day as far as they are known."""
    if rows_per_day is None:
        return FIRST_DAYS_PER_CURSOR_QUERY
    return max(1, int(PAGES_PER_CURSOR_QUERY * MAX_PAGE_SIZE / max(rows_per_day, 1)))


def split_after(query: PerformanceQuery, *, days: int) -> tuple[PerformanceQuery, PerformanceQuery | None]:
    """Split a query after its first days; the second part is None if there are no more days, or by performance date."""
    last = query.start_date + timedelta(days=days - 1)
    if query.date_basis is not DateBasis.POST_DATE or last >= query.end_date:
        return query, None
    return replace(query, end_date=last), replace(query, start_date=last + _DAY)


def _contiguous_ranges(instances_of_day: Mapping[date, Collection[str]], *, max_days: int) -> list[_PartitionRange]:
    """Return runs of contiguous days with the same instances, at most `max_days` long, in order of date."""
    ranges: list[_PartitionRange] = []
    for day in sorted(instances_of_day):
        instances = frozenset(instances_of_day[day])
        last = ranges[-1] if ranges else None
        if last and (last.end + _DAY, last.instances) == (day, instances) and (day - last.start).days < max_days:
            ranges[-1] = replace(last, end=day)
        else:
            ranges.append(_PartitionRange(day, day, instances))
    return ranges


def _merge_ranges(ranges: Sequence[_PartitionRange], *, rows_per_file: float) -> list[_PartitionRange]:
    """Merge neighbouring ranges wherever one query costs fewer requests than two.

    A merged range has all days from the first to the last × all instances of both.
    """

    def pages(of: _PartitionRange) -> int:
        files = ((of.end - of.start).days + 1) * len(of.instances)
        return max(1, ceil(files * rows_per_file / MAX_PAGE_SIZE))

    merged: list[_PartitionRange] = []
    for current in ranges:
        while merged:
            last = merged[-1]
            union = _PartitionRange(last.start, current.end, last.instances | current.instances)
            if (union.end - union.start).days >= MAX_DAYS or pages(union) >= pages(last) + pages(current):
                break
            merged.pop()
            current = union
        merged.append(current)
    return merged


def _even_parts(items: Sequence[_Item], parts: int) -> list[Sequence[_Item]]:
    """Split a sequence into at most `parts` contiguous runs whose lengths differ by at most one."""
    parts = min(parts, len(items))
    edges = [len(items) * index // parts for index in range(parts + 1)]
    return [items[low:high] for low, high in pairwise(edges)]
