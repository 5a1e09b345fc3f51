"""What the document says, and nothing else. No I/O, no Dagster."""

from later_reporting_dagster.contract.enums import (
    ContentType,
    DateBasis,
    Platform,
    ProblemType,
    SortDirection,
    SortProperty,
    platform_of,
)
from later_reporting_dagster.contract.limits import (
    DEFAULT_PAGE_SIZE,
    INSTANCES_PATH,
    MAXIMUM_CAMPAIGN_IDS,
    MAXIMUM_PAGE_NUMBER,
    MAXIMUM_PAGE_SIZE,
    MAXIMUM_RANGE_YEARS,
    POSTS_PERFORMANCE_PATH,
    TOKEN_PATH,
    years_later,
)
from later_reporting_dagster.contract.metrics import METRICS, Channel, Kind, Metric
from later_reporting_dagster.contract.page import (
    InstancesPage,
    Page,
    Pagination,
    UnreadablePage,
    instances_page_from_body,
    page_from_body,
)
from later_reporting_dagster.contract.post import BadRow, CreatorProfile, Post, post_from_json
from later_reporting_dagster.contract.problem import Problem
from later_reporting_dagster.contract.query import PostPerformanceQuery

__all__ = [
    "DEFAULT_PAGE_SIZE",
    "INSTANCES_PATH",
    "MAXIMUM_CAMPAIGN_IDS",
    "MAXIMUM_PAGE_NUMBER",
    "MAXIMUM_PAGE_SIZE",
    "MAXIMUM_RANGE_YEARS",
    "METRICS",
    "POSTS_PERFORMANCE_PATH",
    "TOKEN_PATH",
    "BadRow",
    "Channel",
    "ContentType",
    "CreatorProfile",
    "DateBasis",
    "InstancesPage",
    "Kind",
    "Metric",
    "Page",
    "Pagination",
    "Platform",
    "Post",
    "PostPerformanceQuery",
    "Problem",
    "ProblemType",
    "SortDirection",
    "SortProperty",
    "UnreadablePage",
    "instances_page_from_body",
    "page_from_body",
    "platform_of",
    "post_from_json",
    "years_later",
]
