"""Routes and bounds of the document, and the day that lies two years on."""

from datetime import date

POSTS_PERFORMANCE_PATH = "/v2/posts/performance"
INSTANCES_PATH = "/v2/instances"
TOKEN_PATH = "/oauth/token"  # noqa: S105 - a route, not a secret

DEFAULT_PAGE_SIZE = 50
MAXIMUM_PAGE_SIZE = 100
MAXIMUM_PAGE_NUMBER = 500
MAXIMUM_CAMPAIGN_IDS = 50
MAXIMUM_RANGE_YEARS = 2


def years_later(day: date, years: int) -> date:
    """The same calendar day some years later; Feb 29 becomes Feb 28 where there is none."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return day.replace(year=day.year + years, day=28)
