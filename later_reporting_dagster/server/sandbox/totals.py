"""The totals of accounts in the sandbox: sums over posts, of which each counts once, even if in several campaigns."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import date
from itertools import groupby

import numpy as np
from msgspec.structs import replace

from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS, OVER_TIME_METRICS
from later_reporting_dagster.contract.parameters import Granularity
from later_reporting_dagster.server.query_parameters import MetricsQuery, OverTimeQuery
from later_reporting_dagster.server.responses import JsonObject, PageQuery, page_body
from later_reporting_dagster.server.sandbox.post_sums import PostSums
from later_reporting_dagster.server.sandbox.served_posts import are_in_range, matching_rows, with_metrics
from later_reporting_dagster.server.sandbox.synthetic_world import IntArray, World

# What the days of a bucket have in common.
_BUCKETS: Mapping[Granularity, Callable[[date], Hashable]] = {
    Granularity.DAY: lambda day: day,
    Granularity.WEEK: lambda day: day.isocalendar()[:2],
    Granularity.MONTH: lambda day: (day.year, day.month),
    Granularity.QUARTER: lambda day: (day.year, (day.month - 1) // 3),
    Granularity.YEAR: lambda day: day.year,
}


def account_body(world: World, query: MetricsQuery) -> JsonObject:
    """Return the body with the totals of all instances of a query."""
    names = query.metrics or [metric.api_name for metric in ACCOUNT_METRICS]
    return {"data": with_metrics({}, _totals(world, _posts_once(world, query), query, names), query)}


def over_time_page(world: World, query: OverTimeQuery, page: PageQuery) -> JsonObject:
    """Return the body of a page of buckets. Those without posts are left out."""
    names = query.metrics or [metric.api_name for metric in OVER_TIME_METRICS]
    posts = _posts_once(world, query)
    found = []
    for start, end in _buckets(query):
        bucket = replace(query, start=start, end=end)
        if len(rows := posts[are_in_range(world, bucket, posts)]):
            found.append((bucket, rows))
    data = [
        with_metrics({"startDate": bucket.start, "endDate": bucket.end}, _totals(world, rows, bucket, names), bucket)
        for bucket, rows in found[page.rows]
    ]
    return page_body(data, page=page, total=len(found))


def _buckets(query: OverTimeQuery) -> Iterator[tuple[date, date]]:
    """Return the first and the last day of each bucket. That the range cuts buckets is invented."""
    for _, days in groupby(days_between(query.start, query.end), _BUCKETS[query.granularity]):
        of_bucket = list(days)
        yield of_bucket[0], of_bucket[-1]


def _totals(world: World, rows: IntArray, query: MetricsQuery, names: Iterable[str]) -> JsonObject:
    found = PostSums(world, rows, np.zeros_like(rows), query).rendered(names)
    return found[0] if found else dict.fromkeys(names)


def _posts_once(world: World, query: MetricsQuery) -> IntArray:
    """Return the matching posts, of each its row with the lowest campaign id."""
    rows = matching_rows(world, query)
    rows = rows[np.argsort(world.posts.campaign_id[rows], kind="stable")]
    _, first = np.unique(world.post_keys(rows), return_index=True)
    return rows[first]
