"""Metrics by content type, in the cursor API version.

The API reference documents that supported metrics depend on the filters, but not how (docs/api.md, "Cursor version").
The table below is invented. A query supports a metric if every content type that its filters include supports it: the
metrics of the paged version are valid in every query, the navigation metrics only in queries for stories.
"""

from collections.abc import Collection, Iterable, Mapping

from later_reporting_dagster.contract.metrics import METRICS
from later_reporting_dagster.contract.parameters import ContentType

_REELS = {ContentType.INSTAGRAM_REEL, ContentType.FACEBOOK_REEL}
_YOUTUBE = {ContentType.YOUTUBE_VIDEO, ContentType.YOUTUBE_SHORTS}
_STORIES = {ContentType.INSTAGRAM_STORY}
_INSTAGRAM = {ContentType.INSTAGRAM_POST, ContentType.INSTAGRAM_REEL, *_STORIES}
_FACEBOOK = {name for name in ContentType if name.startswith("facebook")}
_VIDEOS = {*_REELS, *_YOUTUBE, ContentType.TIKTOK, ContentType.FACEBOOK_LIVE}
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
    "avgWatchTime": _VIDEOS,
    "navigationTapExit": _STORIES,
    "navigationTapBack": _STORIES,
    "navigationTapForward": _STORIES,
    "navigationSwipeForward": _STORIES,
    "crosspostedViews": _REELS,
    "crosspostedFacebookOnlyViews": _REELS,
    "paidShares": {*_INSTAGRAM, *_FACEBOOK, ContentType.TIKTOK},
    "paidSaves": _INSTAGRAM,
    "paidViews": {*_VIDEOS, *_STORIES},
    "paidReach": {*_INSTAGRAM, *_FACEBOOK, ContentType.TIKTOK},
}


def supports(content_type: str, metric: str) -> bool:
    return metric not in _CONTENT_TYPES_BY_METRIC or content_type in _CONTENT_TYPES_BY_METRIC[metric]


def unsupported_metrics(names: Iterable[str], content_types: Collection[str]) -> list[str]:
    """Return the names that are unknown or that one of the content types does not support."""
    known = {metric.api_name for metric in METRICS}
    return [name for name in names if name not in known or not all(supports(each, name) for each in content_types)]
