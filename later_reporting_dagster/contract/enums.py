"""The closed lists of the document, so that a misspelt value never reaches the wire."""

from enum import StrEnum


class Platform(StrEnum):
    """Top-level platforms; one includes all its content types [S]."""

    INSTAGRAM = "instagram"
    TIKTOK = "tiktok"
    FACEBOOK = "facebook"
    YOUTUBE = "youtube"
    TWITTER = "twitter"


class ContentType(StrEnum):
    """Content types that a query may name [S].

    The document's own list is cut off, so an answer may hold others: there a content type is a plain string.
    """

    INSTAGRAM_POST = "instagram_post"
    INSTAGRAM_REEL = "instagram_reel"
    INSTAGRAM_STORY = "instagram_story"
    FACEBOOK_POST = "facebook_post"
    FACEBOOK_LIVE = "facebook_live"
    FACEBOOK_GROUP = "facebook_group"
    FACEBOOK_REEL = "facebook_reel"
    TIKTOK = "tiktok"
    YOUTUBE_VIDEO = "youtube_video"
    YOUTUBE_SHORTS = "youtube_shorts"


class DateBasis(StrEnum):
    """Which date a query filters by [S].

    `POST_DATE`: posts published in the range, with their metrics to date.
    `PERFORMANCE_DATE`: posts of any age, with only the metrics recorded inside the range.
    """

    POST_DATE = "post_date"
    PERFORMANCE_DATE = "performance_date"


class SortProperty(StrEnum):
    """Fields that the service sorts by [S]; any other is HTTP 400 `ANL_00422` [D]."""

    ENGAGEMENTS = "engagements"
    IMPRESSIONS = "impressions"
    ENGAGEMENT_RATE = "engagementRate"
    ESTIMATED_VALUE_GENERATED = "estimatedValueGenerated"
    CPE = "cpe"
    CPM = "cpm"
    POST_DATE = "postDate"
    PAID_ENGAGEMENTS = "paidEngagements"
    PAID_IMPRESSIONS = "paidImpressions"
    PAID_ENGAGEMENT_RATE = "paidEngagementRate"
    PAID_CPE = "paidCpe"
    PAID_CPM = "paidCpm"


class SortDirection(StrEnum):
    """Order of a sorted answer; the service's default is `DESC` [S]."""

    ASC = "ASC"
    DESC = "DESC"


class ProblemType(StrEnum):
    """Known problem types [D]. `INVALID_SORT` arrives with HTTP 400, not 422."""

    VALIDATION = "ANL_00400"
    INVALID_SORT = "ANL_00422"
    UNAUTHORIZED = "ANL_00401"
    FORBIDDEN = "ANL_00403"
    NOT_FOUND = "ANL_00404"
    INTERNAL = "ANL_00500"
    INVALID_CLIENT_CREDENTIALS = "INVALID_CLIENT_CREDENTIALS"


def platform_of(content_type: str | None) -> Platform | None:
    """The platform that a content type belongs to, known or not: `instagram_reel` is on instagram.

    None when its first word is none of the document's platforms: nothing is invented.
    """
    if content_type is None:
        return None
    name = content_type.partition("_")[0]
    return Platform(name) if name in set(Platform) else None
