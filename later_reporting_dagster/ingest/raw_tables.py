"""The two raw tables and the date basis of each."""

from dataclasses import dataclass

from later_reporting_dagster.contract import DateBasis


@dataclass(frozen=True, slots=True)
class RawTable:
    """A raw table: its name in the lake, and the date basis of its queries."""

    name: str
    date_basis: DateBasis


POST_METRICS_DAILY = RawTable("post_metrics_daily", DateBasis.PERFORMANCE_DATE)
POSTS_PUBLISHED = RawTable("posts_published", DateBasis.POST_DATE)
RAW_TABLES = (POST_METRICS_DAILY, POSTS_PUBLISHED)
