"""What the document says, and nothing else. No I/O, no Dagster."""

from later_reporting_dagster.contract.enums import (
    ContentType,
    DateBasis,
    Platform,
    SortDirection,
    SortProperty,
    platform_of,
)
from later_reporting_dagster.contract.excerpt import excerpt
from later_reporting_dagster.contract.limits import (
    INSTANCES_PATH,
    MAXIMUM_PAGE_NUMBER,
    MAXIMUM_PAGE_SIZE,
    POSTS_PERFORMANCE_PATH,
    TOKEN_PATH,
)
from later_reporting_dagster.contract.metrics import (
    DOCUMENT_METRICS,
    METRICS,
    Channel,
    Metric,
    metrics_asked_for,
    metrics_in,
    metrics_named,
    names_to_ask_for,
)
from later_reporting_dagster.contract.page import (
    CursorPage,
    InstancesCursorPage,
    InstancesPage,
    OtherRevision,
    Page,
    Pagination,
    UnreadablePage,
    cursor_page_from_body,
    instances_cursor_page_from_body,
    instances_page_from_body,
    page_from_body,
)
from later_reporting_dagster.contract.post import BadRow, CreatorProfile, Post, post_type
from later_reporting_dagster.contract.problem import Problem
from later_reporting_dagster.contract.query import PostPerformanceQuery
from later_reporting_dagster.contract.revision import CURSOR, METRICS_MEMBER, PAGED, REVISIONS, Revision

__all__ = [
    "CURSOR",
    "DOCUMENT_METRICS",
    "INSTANCES_PATH",
    "MAXIMUM_PAGE_NUMBER",
    "MAXIMUM_PAGE_SIZE",
    "METRICS",
    "METRICS_MEMBER",
    "PAGED",
    "POSTS_PERFORMANCE_PATH",
    "REVISIONS",
    "TOKEN_PATH",
    "BadRow",
    "Channel",
    "ContentType",
    "CreatorProfile",
    "CursorPage",
    "DateBasis",
    "InstancesCursorPage",
    "InstancesPage",
    "Metric",
    "OtherRevision",
    "Page",
    "Pagination",
    "Platform",
    "Post",
    "PostPerformanceQuery",
    "Problem",
    "Revision",
    "SortDirection",
    "SortProperty",
    "UnreadablePage",
    "cursor_page_from_body",
    "excerpt",
    "instances_cursor_page_from_body",
    "instances_page_from_body",
    "metrics_asked_for",
    "metrics_in",
    "metrics_named",
    "names_to_ask_for",
    "page_from_body",
    "platform_of",
    "post_type",
]
