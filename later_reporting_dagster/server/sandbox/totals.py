"""Sums over the posts of the sandbox: for the performance of campaigns, and for the totals of accounts."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import date
from itertools import groupby

import numpy as np
from msgspec.structs import replace

from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS, OVER_TIME_METRICS
from later_reporting_dagster.contract.parameters import Platform
from later_reporting_dagster.server.routes import (
    CAMPAIGN_SORT_PROPERTIES,
    JsonObject,
    MetricsQuery,
    OverTimeQuery,
    PageQuery,
    PostsQuery,
    page_body,
)
from later_reporting_dagster.server.sandbox.campaigns import campaigns_by_id
from later_reporting_dagster.server.sandbox.metrics import RATES, PostMetrics, quotient
from later_reporting_dagster.server.sandbox.served_posts import (
    are_in_range,
    json_values,
    matching_rows,
    metric_days,
    sorted_positions,
    with_metrics,
)
from later_reporting_dagster.server.sandbox.synthetic_world import CONTENT_TYPES, NOT_AVAILABLE, IntArray, World

# In hundredths: the metrics that each is a quotient of, and its scale. Those of posts are the same of totals: a
# plain cost per result is the content cost over organic results. Returns are ratios, and conversions per click a
# fraction.
_RATES: Mapping[str, tuple[str, str, int]] = {
    **RATES,
    "impressionsPerPost": ("impressions", "postsCount", 100),
    "estimatedRoi": ("estimatedValueGenerated", "cost", 100),
    "returnOnInvestment": ("estimatedValueGenerated", "cost", 100),
    "paidReturnOnAdSpend": ("paidRevenue", "paidCost", 100),
    "affiliateLinksConversionRate": ("affiliateLinksConversions", "affiliateLinksClicks", 100),
    "affiliateLinksRoi": ("affiliateLinksCommissionEarned", "cost", 100),
}
# Counts of posts or of their creators: all, or those with paid results.
_COUNTS = {"postsCount": False, "influencersCount": False, "paidPostsCount": True, "paidInfluencersCount": True}
# No creator of the sandbox is paid for anything but content.
_OTHER_NAMES = {"estimatedContentCost": "cost", "campaignsCost": "cost", "paidAdSpend": "paidCost"}


class PostSums:
    """Sums over groups of posts, in the ascending order of the groups; each of the rows has its group."""

    def __init__(self, world: World, rows: IntArray, groups: IntArray, query: MetricsQuery) -> None:
        order = np.argsort(groups, kind="stable")
        rows, self._group = rows[order], groups[order]
        self.groups, self._starts = np.unique(self._group, return_index=True)
        self._creator_id, self._content_type = world.posts.creator_id[rows], world.posts.content_type[rows]
        self._metrics = PostMetrics(world, rows, metric_days(world, query))

    def metric(self, name: str) -> IntArray:
        """Return a metric by its API name, by group: `NOT_AVAILABLE` for null, money and rates in hundredths."""
        if name in _RATES:
            numerator, denominator, scale = _RATES[name]
            return quotient(self.metric(numerator), self.metric(denominator), scale=scale)
        if name in _COUNTS:
            is_counted = (self._metrics["paidImpressions"] > 0) | (not _COUNTS[name])
            if "osts" in name:
                return np.add.reduceat(is_counted.astype(np.int64), self._starts)
            pairs = np.unique(np.stack([self._group, self._creator_id])[:, is_counted], axis=1)
            return np.bincount(np.searchsorted(self.groups, pairs[0]), minlength=len(self.groups))
        values = self._metrics[_OTHER_NAMES.get(name, name)]
        is_available = values != NOT_AVAILABLE
        any_available = np.logical_or.reduceat(is_available, self._starts)
        sums = np.add.reduceat(np.where(is_available, values, 0), self._starts)
        return np.where(any_available, sums, NOT_AVAILABLE)

    def rendered(self, names: Iterable[str], positions: IntArray | slice = slice(None)) -> list[JsonObject]:
        """Return metrics of the groups at some positions, each as a JSON object."""
        columns = {name: json_values(name, self.metric(name)[positions]) for name in names}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def platforms(self, position: int) -> list[Platform]:
        content_types = self._content_type[self._group == self.groups[position]]
        return sorted({CONTENT_TYPES[content_type][1] for content_type in content_types.tolist()})


def performance_page(world: World, query: PostsQuery, page: PageQuery) -> JsonObject:
    """Return the body of a page of the performance of the campaigns that have a post that matches."""
    rows = matching_rows(world, query)
    sums = PostSums(world, rows, world.posts.campaign_id[rows], query)
    order = np.arange(len(sums.groups))
    if query.sort_property is not None:
        order = sorted_positions(sums.metric(query.sort_property), query.sort_direction)
    shown = order[page.rows]
    metrics = sums.rendered(query.metrics or CAMPAIGN_SORT_PROPERTIES, shown)
    data = []
    for position, of_campaign in zip(shown.tolist(), metrics, strict=True):
        campaign = campaigns_by_id(world)[int(sums.groups[position])]
        # All names but `campaignId` are invented.
        details = {
            "campaignId": campaign["campaignId"],
            "dateRange": {"startDate": campaign["startDate"][:10], "endDate": None},
            "description": campaign["description"],
            "platforms": sums.platforms(position),
            "title": campaign["campaignName"],
        }
        if world.campaigns_name_instances:
            details |= {name: campaign[name] for name in ("campaignName", "instanceId")}
        data.append(with_metrics(details, of_campaign, query))
    return page_body(data, page=page, total=len(order))


# What the days of a bucket have in common.
_BUCKETS: Mapping[str, Callable[[date], Hashable]] = {
    "day": lambda day: day,
    "week": lambda day: day.isocalendar()[:2],
    "month": lambda day: (day.year, day.month),
    "quarter": lambda day: (day.year, (day.month - 1) // 3),
    "year": lambda day: day.year,
}


def account_totals(world: World, query: MetricsQuery, _page: PageQuery) -> JsonObject:
    """Return the body with the totals of all instances of a query."""
    names = query.metrics or [metric.api_name for metric in ACCOUNT_METRICS]
    return {"data": with_metrics({}, _totals(world, _posts_once(world, query), query, names), query)}


def buckets_page(world: World, query: OverTimeQuery, page: PageQuery) -> JsonObject:
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
