"""Which content types have which metrics. That it depends on them is documented [C]; on what, is our own invention.

A filter takes a metric when every content type that it lets in has it: so the document's metrics are valid everywhere,
and what only stories have is valid for nothing but stories.
"""

from collections.abc import Collection, Iterable, Mapping

from later_reporting_dagster.contract.enums import ContentType
from later_reporting_dagster.contract.metrics import METRICS

_REELS = {ContentType.INSTAGRAM_REEL, ContentType.FACEBOOK_REEL}
_YOUTUBE = {ContentType.YOUTUBE_VIDEO, ContentType.YOUTUBE_SHORTS}
_STORIES = {ContentType.INSTAGRAM_STORY}
_INSTAGRAM = {ContentType.INSTAGRAM_POST, ContentType.INSTAGRAM_REEL, *_STORIES}
_FACEBOOK = {name for name in ContentType if name.startswith("facebook")}
_VIDEOS = {*_REELS, *_YOUTUBE, ContentType.TIKTOK, ContentType.FACEBOOK_LIVE}
_TWITTER = {"twitter"}

_ONLY: Mapping[str, Collection[str]] = {
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


def has(content_type: str, name: str) -> bool:
    """Whether posts of a content type have the metric that the API calls `name`."""
    return name not in _ONLY or content_type in _ONLY[name]


def not_supported(names: Iterable[str], content_types: Collection[str]) -> list[str]:
    """Those of `names` that cannot be asked for with a filter that lets `content_types` in, unknown names included."""
    known = {metric.api_name for metric in METRICS}
    return [name for name in names if name not in known or not all(has(each, name) for each in content_types)]
