"""The two raw tables, by name and by what their days mean."""

from dataclasses import dataclass

from later_reporting_dagster.contract import DateBasis


@dataclass(frozen=True, slots=True)
class Source:
    """A raw table: its name in the lake and the date basis that its queries use."""

    asset: str
    date_basis: DateBasis


POST_METRICS_DAILY = Source("post_metrics_daily", DateBasis.PERFORMANCE_DATE)
POSTS_PUBLISHED = Source("posts_published", DateBasis.POST_DATE)
SOURCES = (POST_METRICS_DAILY, POSTS_PUBLISHED)
