"""The metrics that only the cursor API version has, and which content types have them.

The API reference documents that supported metrics depend on the filters, but not how (docs/api.md, "Cursor version").
The table below is invented, apart from the metrics of Instagram reels. A query supports a metric if every content type
that its filters include supports it: the metrics of the paged version are valid in every query, the navigation metrics
only in queries for stories.
"""

from collections.abc import Collection, Iterable, Mapping

import numpy as np

from later_reporting_dagster.contract.metrics import METRICS
from later_reporting_dagster.contract.parameters import ContentType
from later_reporting_dagster.server.sandbox.synthetic_world import (
    CONTENT_TYPES,
    NOT_AVAILABLE,
    IntArray,
    World,
    child,
    floor,
    log_normal,
    quotient,
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
# Additive metrics of the cursor version: the metric that each is a part of, and its mean share in thousandths.
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
}
# Reach metrics of the cursor version: the impressions that each is based on, and its maximum share in thousandths.
_REACH: Mapping[str, tuple[str, int]] = {
    "organicReach": ("impressions", 500),
    "reach": ("impressions", 550),
    "paidReach": ("paidImpressions", 450),
}


def supports(content_type: str, metric: str) -> bool:
    return metric not in _CONTENT_TYPES_BY_METRIC or content_type in _CONTENT_TYPES_BY_METRIC[metric]


def find_unsupported_metrics(names: Iterable[str], content_types: Collection[str]) -> list[str]:
    """Return the names that are unknown or that one of the content types does not support."""
    known = {metric.api_name for metric in METRICS}
    return [name for name in names if name not in known or not all(supports(each, name) for each in content_types)]


def cursor_only_metrics(world: World, rows: IntArray, *, since: int, until: int) -> dict[str, IntArray]:
    """Return the metrics that only the cursor API version has, and what accrued; arguments as in `World.metrics`.

    Metrics that a content type does not support are not available. Additive metrics are shares of engagements or
    impressions and accrue like these. Reach is not additive: most of it is reached in the first days.
    """
    posts, key, totals = world.posts, world.post_keys(rows), world.totals(rows)
    values = world.accrued(rows, since=since, until=until, parts=_PARTS)
    for name, (base, per_mille) in _REACH.items():
        reached = np.minimum(totals[base] * per_mille // 1000, np.maximum(values[base], 0))
        values[name] = np.where(values[base] == NOT_AVAILABLE, NOT_AVAILABLE, reached)
    followers = floor(log_normal(child(key, posts.creator_id[rows]), "followers", median=20_000, sigma=1.2))
    values["followersAtPostDate"], values["potentialReach"] = followers, followers * 3 // 2
    # In hundredths of a millisecond. That the unit of the total is that of the average is invented.
    watch_time = 100 * values["views"] * (3_000 + floor(20_000 * uniform(key, "watched")))
    values["videoViewTotalTime"] = np.where(values["views"] == NOT_AVAILABLE, NOT_AVAILABLE, watch_time)
    values["avgWatchTime"] = quotient(values["videoViewTotalTime"], values["views"], scale=1)
    for name in values:
        supported = np.array([supports(content_type, name) for content_type, _, _ in CONTENT_TYPES])
        values[name] = np.where(supported[posts.content_type[rows]], values[name], NOT_AVAILABLE)
    return values
