"""The metrics of the posts of the sandbox, and which content types have them.

The API reference documents that supported metrics depend on the filters, but not how (docs/api.md, "Cursor version").
The table below is invented, apart from the metrics of Instagram reels. A query supports a metric if every content type
that its filters include supports it: the metrics of the paged version are valid in every query, the navigation metrics
only in queries for stories.
"""

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from later_reporting_dagster.contract.parameters import ContentType
from later_reporting_dagster.server.sandbox.synthetic_world import (
    ACCRUED,
    CONTENT_TYPES,
    NOT_AVAILABLE,
    WHOLE,
    IntArray,
    World,
    campaign_numbers,
    child,
    floor,
    keys_of_campaigns,
    log_normal,
    uniform,
)

_YOUTUBE = {ContentType.YOUTUBE_VIDEO, ContentType.YOUTUBE_SHORTS}
_STORIES = {ContentType.INSTAGRAM_STORY}
_INSTAGRAM = {ContentType.INSTAGRAM_POST, ContentType.INSTAGRAM_REEL, *_STORIES}
_FACEBOOK = {name for name in ContentType if name.startswith("facebook")}
_VIDEOS = {
    *(ContentType.INSTAGRAM_REEL, ContentType.FACEBOOK_REEL, ContentType.FACEBOOK_LIVE, ContentType.TIKTOK),
    *_YOUTUBE,
}
_TWITTER = {"twitter"}

# Metrics that are missing here are supported by every content type.
_CONTENT_TYPES_BY_METRIC: Mapping[str, Collection[str]] = {
    "shares": {*_INSTAGRAM, *_FACEBOOK, *_TWITTER, ContentType.TIKTOK},
    "saves": {*_INSTAGRAM, ContentType.TIKTOK},
    "views": {*_VIDEOS, *_STORIES},
    "replies": {*_STORIES, *_TWITTER},
    "reposts": {*_TWITTER, ContentType.TIKTOK},
    "reach": {*_INSTAGRAM, *_FACEBOOK},
    "organicReach": {*_INSTAGRAM, *_FACEBOOK},
    "videoViewTotalTime": _VIDEOS,
    "avgWatchTime": {ContentType.INSTAGRAM_REEL},
    "navigationTapExit": _STORIES,
    "navigationTapBack": _STORIES,
    "navigationTapForward": _STORIES,
    "navigationSwipeForward": _STORIES,
    "crosspostedViews": {ContentType.INSTAGRAM_REEL},
    "crosspostedFacebookOnlyViews": {ContentType.INSTAGRAM_REEL},
    "paidShares": {*_INSTAGRAM, *_FACEBOOK, ContentType.TIKTOK},
    "paidSaves": _INSTAGRAM,
    "paidViews": {*_VIDEOS, *_STORIES},
    "paidReach": {*_INSTAGRAM, *_FACEBOOK, ContentType.TIKTOK},
}
# How quantities accrue over a post's lifetime: views and reactions may be withdrawn later, and what is paid for accrues
# while the post is boosted.
_VIEWS, _REACTIONS, _PAID = range(3)
ACCRUING: Mapping[str, int] = {
    "impressions": _VIEWS,
    "engagements": _REACTIONS,
    "estimatedValueGenerated": _REACTIONS,
    "paidImpressions": _PAID,
    "paidEngagements": _PAID,
    "paidCost": _PAID,
}
"""The quantities in the order of `Posts.totals`: counts, and money in hundredths."""

# More of them: for each, the quantity that it is a part of, and its mean share in thousandths. Money is in hundredths,
# so that the share of an amount per conversion is large. From `clicks` on, they are metrics of campaigns only;
# `paidRevenue` is no metric: returns on ad spend come from it.
_PARTS: Mapping[str, tuple[str, int]] = {
    "likes": ("engagements", 700),
    "comments": ("engagements", 80),
    "shares": ("engagements", 60),
    "saves": ("engagements", 50),
    "replies": ("engagements", 20),
    "reposts": ("engagements", 30),
    "totalInteractions": ("engagements", 950),
    "views": ("impressions", 600),
    "navigationTapForward": ("impressions", 300),
    "navigationTapBack": ("impressions", 40),
    "navigationTapExit": ("impressions", 60),
    "navigationSwipeForward": ("impressions", 80),
    "crosspostedViews": ("impressions", 200),
    "crosspostedFacebookOnlyViews": ("impressions", 90),
    "paidLikes": ("paidEngagements", 700),
    "paidComments": ("paidEngagements", 60),
    "paidShares": ("paidEngagements", 50),
    "paidSaves": ("paidEngagements", 40),
    "paidViews": ("paidImpressions", 600),
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
# Reach: the impressions that each is based on, and its maximum share in thousandths.
_REACH: Mapping[str, tuple[str, int]] = {
    "organicReach": ("impressions", 500),
    "reach": ("impressions", 550),
    "paidReach": ("paidImpressions", 450),
}
# In hundredths: the quantities that each is a quotient of, and its scale. The units are those of docs/api.md, "Metrics,
# null and units".
RATES: Mapping[str, tuple[str, str, int]] = {
    "engagementRate": ("engagements", "impressions", 10_000),
    "cpe": ("cost", "engagements", 1),
    "cpm": ("cost", "impressions", 1_000),
    "paidEngagementRate": ("paidEngagements", "paidImpressions", 10_000),
    "paidCpe": ("paidCost", "paidEngagements", 1),
    "paidCpm": ("paidCost", "paidImpressions", 1_000),
    "avgWatchTime": ("videoViewTotalTime", "views", 1),
}


def supports(content_type: str, metric: str) -> bool:
    return metric not in _CONTENT_TYPES_BY_METRIC or content_type in _CONTENT_TYPES_BY_METRIC[metric]


class PostMetrics:
    """The metrics of some posts on some days, each computed when it is first read.

    Columns by API name, also the content cost (`cost`) and the ad spend (`paidCost`): whole counts; money, times and
    rates in hundredths; `NOT_AVAILABLE` for null. What accrues on all days adds up to the total. Rows are positions in
    `world.posts`, days the first and the last one as proleptic ordinals.
    """

    def __init__(self, world: World, rows: IntArray, days: tuple[int, int]) -> None:
        self._world, self._posts, self._rows = world, world.posts, rows
        self._keys = world.post_keys(rows)
        first, last = days
        self._before, self._after = self._accrued_shares(first), self._accrued_shares(last + 1)
        self._is_boosted = last >= self._posts.day[rows] + self._posts.boost_age[rows]
        self._columns: dict[str, IntArray] = {}

    def __getitem__(self, name: str) -> IntArray:
        if name not in self._columns:
            self._columns[name] = np.where(self._is_supported(name), self._column(name), NOT_AVAILABLE)
        return self._columns[name]

    def _is_supported(self, name: str) -> NDArray[np.bool_]:
        """Return which posts have a metric: by their content type and, for links, by their campaign."""
        of_content_types = np.array([supports(content_type, name) for content_type, _, _ in CONTENT_TYPES])
        supported = of_content_types[self._posts.content_type[self._rows]]
        for prefix, share in _SHARES_OF_CAMPAIGNS_WITH_LINKS.items():
            if name.startswith(prefix):
                instance_keys = self._world.instance_keys[self._posts.instance[self._rows]]
                campaign_keys = keys_of_campaigns(instance_keys, campaign_numbers(self._posts.campaign_id[self._rows]))
                supported &= uniform(campaign_keys, prefix) < share
        return supported

    def _column(self, name: str) -> IntArray:
        if name in RATES:
            numerator, denominator, scale = RATES[name]
            return quotient(self[numerator], self[denominator], scale=scale)
        if name in _REACH:
            # Not additive: most of it is reached in the first days.
            base, per_mille = _REACH[name]
            reached = np.minimum(self._total(base)[0] * per_mille // 1000, np.maximum(self[base], 0))
            return np.where(self[base] == NOT_AVAILABLE, NOT_AVAILABLE, reached)
        if name in ("followersAtPostDate", "potentialReach"):
            keys = child(self._keys, self._posts.creator_id[self._rows])
            followers = floor(log_normal(keys, "followers", median=20_000, sigma=1.2))
            return followers if name == "followersAtPostDate" else followers * 3 // 2
        if name == "videoViewTotalTime":
            # In hundredths of a millisecond. That the unit of the total is that of the average is invented.
            watch_time = 100 * self["views"] * (3_000 + floor(20_000 * uniform(self._keys, "watched")))
            return np.where(self["views"] == NOT_AVAILABLE, NOT_AVAILABLE, watch_time)
        if name == "cost":
            is_known = self._posts.cost_day[self._rows] <= self._world.last_day.toordinal()
            return np.where(is_known, self._posts.cost[self._rows], NOT_AVAILABLE)
        total, kind = self._total(name)
        recorded = total * self._after[kind] // WHOLE - total * self._before[kind] // WHOLE
        # Paid metrics are not available before the first day of a boost.
        is_available = (total != NOT_AVAILABLE) & (self._is_boosted if kind == _PAID else True)
        return np.where(is_available, recorded, NOT_AVAILABLE)

    def _total(self, name: str) -> tuple[IntArray, int]:
        """Return a quantity at the end of the lifetime, and how it accrues."""
        if name in ACCRUING:
            return self._posts.totals[[*ACCRUING].index(name), self._rows], ACCRUING[name]
        whole_name, per_mille = _PARTS[name]
        whole, kind = self._total(whole_name)
        share = floor(per_mille * (0.5 + uniform(self._keys, name)))
        return np.where(whole == NOT_AVAILABLE, NOT_AVAILABLE, whole * share // 1000), kind

    def _accrued_shares(self, day: int) -> tuple[IntArray, IntArray, IntArray]:
        """Return the shares of totals that accrued before a day, in units of 1 / WHOLE, by kind."""
        posts, rows = self._posts, self._rows
        lifetime, boost_days = posts.lifetime_days[rows], posts.boost_days[rows]
        age = np.clip(day - posts.day[rows], 0, lifetime)
        age = np.where(age <= self._world.days_to_results[rows], 0, age)
        views = ACCRUED[posts.decay[rows], lifetime, age]
        is_before_withdrawal = (age == posts.withdrawal_age[rows]) & (age > 0)
        withdrawn = posts.withdrawn[:, rows] * is_before_withdrawal
        paid = WHOLE * np.clip(age - posts.boost_age[rows], 0, boost_days) // boost_days
        return views + withdrawn[_VIEWS], views + withdrawn[_REACTIONS], paid


def quotient(numerator: IntArray, denominator: IntArray, *, scale: int) -> IntArray:
    """Return `scale * numerator / denominator`, rounded half up.

    The result is not available if a part is not available or the denominator is not above 0.
    """
    available = (numerator != NOT_AVAILABLE) & (denominator > 0)
    divisor = np.where(available, denominator, 1)
    return np.where(available, (2 * scale * numerator + divisor) // (2 * divisor), NOT_AVAILABLE)
