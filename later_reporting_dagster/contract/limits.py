"""Routes of the API, and the bounds of its query parameters (docs/api.md, "Posts performance")."""

from datetime import date

POSTS_PERFORMANCE_PATH = "/v2/posts/performance"
INSTANCES_PATH = "/v2/instances"
CAMPAIGNS_PATH = "/v2/campaigns"
CAMPAIGNS_PERFORMANCE_PATH = "/v2/campaigns/performance"
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
