"""Values that the API accepts in query parameters, and the problem types that it returns."""

from enum import StrEnum


class Platform(StrEnum):
    """Values of `platform`; each includes all content types of the platform (docs/api.md, "Posts performance")."""

    INSTAGRAM = "instagram"
    TIKTOK = "tiktok"
    FACEBOOK = "facebook"
    YOUTUBE = "youtube"
    TWITTER = "twitter"


class ContentType(StrEnum):
    """Values of `contentType` in a query (docs/api.md, "Posts performance").

    The list in the API reference is truncated, so a response may contain other content types. In a post, a content type
    is a plain string.
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
    """Which date a query filters by (docs/api.md, "Date basis").

    `POST_DATE`: posts published in the range, with their metrics to date.
    `PERFORMANCE_DATE`: posts of any age, with only the metrics recorded in the range.
    """

    POST_DATE = "post_date"
    PERFORMANCE_DATE = "performance_date"


class SortProperty(StrEnum):
    """Values of `sortProperty`; any other is rejected with HTTP 400 `ANL_00422` (docs/api.md, "Errors")."""

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
    """Values of `sortDirection`; the API's default is `DESC`."""

    ASC = "ASC"
    DESC = "DESC"


class ProblemType(StrEnum):
    """Known problem types (docs/api.md, "Errors"). `INVALID_SORT` is returned with HTTP 400, not 422."""

    VALIDATION = "ANL_00400"
    INVALID_SORT = "ANL_00422"
    UNAUTHORIZED = "ANL_00401"
    FORBIDDEN = "ANL_00403"
    NOT_FOUND = "ANL_00404"
    INTERNAL = "ANL_00500"
    INVALID_CLIENT_CREDENTIALS = "INVALID_CLIENT_CREDENTIALS"


def platform_of(content_type: str | None) -> Platform | None:
    """Return the platform named by the first word of a content type: `instagram_reel` belongs to instagram.

    Returns:
        None if the content type is None or its first word is not a known platform.
    """
    if content_type is None:
        return None
    name = content_type.partition("_")[0]
    return Platform(name) if name in set(Platform) else None
