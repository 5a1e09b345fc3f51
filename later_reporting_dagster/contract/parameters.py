"""Routes and versions of the API, and the values and bounds of its query parameters."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

POSTS_PERFORMANCE_PATH = "/v2/posts/performance"
INSTANCES_PATH = "/v2/instances"
CAMPAIGNS_PATH = "/v2/campaigns"
CAMPAIGNS_PERFORMANCE_PATH = "/v2/campaigns/performance"
INSTANCES_PERFORMANCE_PATH = "/v2/instances/performance"
PERFORMANCE_OVER_TIME_PATH = "/v2/instances/performance-over-time"
TOKEN_PATH = "/oauth/token"  # noqa: S105 - a route, not a secret

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 100
MAX_PAGE_NUMBER = 500
MAX_CAMPAIGN_IDS = 50
MAX_RANGE_YEARS = 2


def years_later(day: date, years: int) -> date:
    """Return the same calendar day `years` later; February 29 becomes February 28 in a year without a leap day."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return day.replace(year=day.year + years, day=28)


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """How a version of the API paginates lists and returns metrics.

    Attributes:
        pagination_member: envelope member beside `data` that holds the page's position or the next cursor.
        uses_cursors: whether a page is requested by a cursor, which the previous page returns, and not by a number.
            Then no page states totals, a query lists its metrics, and a row returns them nested under `metrics`.
    """

    name: str
    page_size_parameter: str
    page_parameter: str
    pagination_member: str
    uses_cursors: bool

    def __str__(self) -> str:
        return self.name


METRICS_MEMBER = "metrics"
"""In the cursor version: the query parameter that lists them, and the member of a post that holds them."""

PAGED = ApiVersion("paged", "pageSize", "pageNumber", "pagination", uses_cursors=False)
"""Numbered pages with totals (docs/api.md, "Posts performance")."""

CURSOR = ApiVersion("cursor", "limit", "nextCursor", "nextCursor", uses_cursors=True)
"""Cursors without totals, and metrics requested by name (docs/api.md, "Cursor version")."""

API_VERSIONS: Mapping[str, ApiVersion] = {version.name: version for version in (PAGED, CURSOR)}


def version_of_envelope(members: Collection[str]) -> ApiVersion | None:
    """Return the API version whose pagination member is among `members`; None if neither or both are."""
    found = [version for version in API_VERSIONS.values() if version.pagination_member in members]
    return found[0] if len(found) == 1 else None


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


class SortDirection(StrEnum):
    """Values of `sortDirection`; the API's default is `DESC`."""

    ASC = "ASC"
    DESC = "DESC"


def platform_of(content_type: str | None) -> Platform | None:
    """Return the platform named by the first word of a content type, if any: `instagram_reel` belongs to instagram."""
    if content_type is None:
        return None
    name = content_type.partition("_")[0]
    return Platform(name) if name in set(Platform) else None


# The networks of posts that are read. No query can be narrowed to those that are no `Platform`.
NETWORKS = (*(platform.value for platform in Platform), "linkedin", "pinterest", "snapchat", "blog", "twitch")
# Those whose posts creators report themselves: what they earned is entered once (docs/api.md, "Freshness").
SELF_REPORTED = ("facebook", "twitter", "youtube", "linkedin", "twitch", "blog")
# Content types whose first word is not their network; of `image` and `video`, none is stated.
OTHER_TYPES: Mapping[str, str] = {"musical_ly": "tiktok"}


def network_of(content_type: str | None) -> str | None:
    """Return the network of a content type of a post, if it is known (docs/api.md, "Posts performance")."""
    if content_type is None:
        return None
    name = OTHER_TYPES.get(content_type, content_type.partition("_")[0])
    return name if name in NETWORKS else None
