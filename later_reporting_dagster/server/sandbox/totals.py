"""Sums over the posts of the sandbox: for the performance of campaigns, and for the totals of accounts."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import date
from itertools import groupby

import numpy as np
from msgspec.structs import replace

from later_reporting_dagster.contract.days import days_between
from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS, OVER_TIME_METRICS
from later_reporting_dagster.contract.parameters import Platform
from later_reporting_dagster.server.query_parameters import MetricsQuery, OverTimeQuery
from later_reporting_dagster.server.responses import JsonObject, PageQuery, page_body
from later_reporting_dagster.server.sandbox.cursor_metrics import cursor_only_metrics
from later_reporting_dagster.server.sandbox.served_posts import (
    are_in_range,
    json_values,
    matching_rows,
    metric_days,
    with_metrics,
)
from later_reporting_dagster.server.sandbox.synthetic_world import (
    CAMPAIGNS,
    CONTENT_TYPES,
    NOT_AVAILABLE,
    RATES,
    IntArray,
    Keys,
    World,
    campaign_positions,
    child,
    quotient,
    uniform,
)

# Additive metrics: the total that each is a part of, and its mean share in thousandths. Money is in hundredths, so that
# the share of an amount per conversion is large. `paidRevenue` is not a metric: returns on ad spend come from it.
_PARTS: Mapping[str, tuple[str, int]] = {
    "clicks": ("impressions", 12),
    "paidClicks": ("paidImpressions", 15),
    "paidInitialPlays": ("paidImpressions", 350),
    "paidRevenue": ("paidCost", 1_800),
    "trackingLinksClicks": ("impressions", 8),
    "trackingLinksConversions": ("trackingLinksClicks", 60),
    "trackingLinksConversionValue": ("trackingLinksConversions", 4_500_000),
    "affiliateLinksClicks": ("impressions", 6),
    "affiliateLinksConversions": ("affiliateLinksClicks", 50),
    "affiliateLinksSales": ("affiliateLinksConversions", 6_000_000),
    "affiliateLinksCommissionEarned": ("affiliateLinksSales", 100),
}
_SHARES_OF_CAMPAIGNS_WITH_LINKS = {"trackingLinks": 0.6, "affiliateLinks": 0.5}


def _campaign_only_metrics(world: World, rows: IntArray, *, since: int, until: int) -> dict[str, IntArray]:
    """Return the additive metrics of posts, those that the API has for campaigns only, and the revenue of paid posts.

    They accrue like the other metrics of a post. Some campaigns have no tracking links, some no affiliate links: these
    metrics of their posts are not available. Arguments and units are those of `World.metrics`.
    """
    posts = world.posts
    values = world.accrued(rows, since=since, until=until, parts=_PARTS)
    numbers = campaign_positions(posts.campaign_id[rows]) % CAMPAIGNS
    campaign_keys = keys_of_campaigns(world.instance_keys[posts.instance[rows]], numbers)
    for prefix, share_of_campaigns in _SHARES_OF_CAMPAIGNS_WITH_LINKS.items():
        has_links = uniform(campaign_keys, prefix) < share_of_campaigns
        for name in _PARTS:
            if name.startswith(prefix):
                values[name] = np.where(has_links, values[name], NOT_AVAILABLE)
    return values


def keys_of_campaigns(instance_keys: Keys, numbers: IntArray) -> Keys:
    """Return the keys of campaigns for random draws, which differ from those of the days of an instance."""
    return child(instance_keys, -1 - numbers)


# In hundredths: the metrics that each is a quotient of, and its scale. Costs per result are blended: those of both
# channels over the results of both. The units of the rates that posts do not have are invented: returns per amount
# spent, and conversions per 100 clicks.
_RATES: Mapping[str, tuple[str, str, int]] = {
    **RATES,
    "cpe": ("cost+paidCost", "engagements+paidEngagements", 1),
    "cpm": ("cost+paidCost", "impressions+paidImpressions", 1_000),
    "impressionsPerPost": ("impressions", "postsCount", 100),
    "estimatedRoi": ("estimatedValueGenerated", "cost", 100),
    "returnOnInvestment": ("estimatedValueGenerated", "cost", 100),
    "paidReturnOnAdSpend": ("paidRevenue", "paidCost", 100),
    "affiliateLinksConversionRate": ("affiliateLinksConversions", "affiliateLinksClicks", 10_000),
    "affiliateLinksRoi": ("affiliateLinksCommissionEarned", "cost", 100),
}
# Counts of posts or of their creators: all, or those with paid results.
_COUNTS = {"postsCount": False, "influencersCount": False, "paidPostsCount": True, "paidInfluencersCount": True}
_OTHER_NAMES = {"estimatedContentCost": "cost", "paidAdSpend": "paidCost"}


class PostSums:
    """Sums over groups of posts, in the ascending order of the groups.

    Args:
        rows: Positions in `world.posts`.
        groups: The group of each of them.
        query: The query whose days count.
    """

    def __init__(self, world: World, rows: IntArray, groups: IntArray, query: MetricsQuery) -> None:
        order = np.argsort(groups, kind="stable")
        rows, self._group = rows[order], groups[order]
        self.groups, self._starts = np.unique(self._group, return_index=True)
        self._creator_id, self._content_type = world.posts.creator_id[rows], world.posts.content_type[rows]
        self._columns: dict[str, IntArray] = {}
        since, until = metric_days(world, query)
        for columns in (_campaign_only_metrics, cursor_only_metrics):
            self._columns |= columns(world, rows, since=since, until=until)

    def metric(self, name: str) -> IntArray:
        """Return a metric by its API name, by group: `NOT_AVAILABLE` for null, money and rates in hundredths."""
        if name in _RATES:
            numerator, denominator, scale = _RATES[name]
            return quotient(self._total(numerator), self._total(denominator), scale=scale)
        if name in _COUNTS:
            is_counted = (self._columns["paidImpressions"] > 0) | (not _COUNTS[name])
            if "osts" in name:
                return np.add.reduceat(is_counted.astype(np.int64), self._starts)
            pairs = np.unique(np.stack([self._group, self._creator_id])[:, is_counted], axis=1)
            return np.bincount(np.searchsorted(self.groups, pairs[0]), minlength=len(self.groups))
        values = self._columns[_OTHER_NAMES.get(name, name)]
        is_available = values != NOT_AVAILABLE
        any_available = np.logical_or.reduceat(is_available, self._starts)
        sums = np.add.reduceat(np.where(is_available, values, 0), self._starts)
        return np.where(any_available, sums, NOT_AVAILABLE)

    def rendered(self, names: Iterable[str], positions: IntArray | slice = slice(None)) -> list[JsonObject]:
        """Return metrics of the groups at some positions, each as a JSON object."""
        columns = {name: json_values(name, self.metric(name)[positions]) for name in names}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def _total(self, names: str) -> IntArray:
        """Return the sum of one or two metrics, of those that are available."""
        values = np.stack([self.metric(name) for name in names.split("+")])
        total = np.where(values == NOT_AVAILABLE, 0, values).sum(axis=0)
        return np.where((values == NOT_AVAILABLE).all(axis=0), NOT_AVAILABLE, total)

    def platforms(self, position: int) -> list[Platform]:
        content_types = self._content_type[self._group == self.groups[position]]
        return sorted({CONTENT_TYPES[content_type][1] for content_type in content_types.tolist()})


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
