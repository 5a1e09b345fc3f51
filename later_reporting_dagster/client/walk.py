"""All pages of one query, and the proof that they are one answer: nothing lost, nothing doubled, nothing foreign."""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time

from later_reporting_dagster.contract import (
    MAXIMUM_PAGE_NUMBER,
    MAXIMUM_PAGE_SIZE,
    BadRow,
    DateBasis,
    InstancesPage,
    Page,
    Pagination,
    Post,
    PostPerformanceQuery,
    SortDirection,
    SortProperty,
    platform_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """The whole and verified answer to `query`, in the order of the service: by post date, oldest first.

    `requests` counts what went over the wire for it, `retries` those of them that repeated another; token requests
    are not among them.
    """

    query: PostPerformanceQuery
    posts: list[Post] = field(repr=False)
    bad_rows: list[BadRow] = field(repr=False)
    total_items: int
    pages: int
    requests: int
    retries: int


def as_walked(query: PostPerformanceQuery) -> PostPerformanceQuery:
    """The query as a walk asks it: the largest pages, in an order to which new posts add at the end."""
    return replace(
        query,
        page_size=MAXIMUM_PAGE_SIZE,
        page_number=1,
        sort_property=SortProperty.POST_DATE,
        sort_direction=SortDirection.ASC,
    )


def pages_in(pagination: Pagination) -> int:
    """How many pages an answer has by its own totals, and at least the one that said so."""
    return max(1, math.ceil(pagination.total_items / pagination.page_size)) if pagination.page_size > 0 else 1


def problem_of_page(number: int, pagination: Pagination, *, rows: int, first: Pagination) -> str | None:
    """Why a page cannot belong to an answer that began with `first`; None when it can.

    Args:
        number: the page that was asked for.
        pagination: what it says of itself.
        rows: how many rows it holds.
        first: what page 1 said of itself.
    """
    total_items, size = first.total_items, first.page_size
    if pagination.page != number:
        return f"page {number} was asked for, and page {pagination.page} answered"
    if (pagination.total_items, pagination.page_size) != (total_items, size):
        return (
            f"page 1 says {total_items} items by {size}, "
            f"page {number} says {pagination.total_items} by {pagination.page_size}"
        )
    # The document does not say whether an answer without rows has one page or none, nor whether pages beyond the
    # last that can be asked for are counted.
    pages = pages_in(pagination)
    if (pagination.total_pages or 1) not in (pages, min(pages, MAXIMUM_PAGE_NUMBER)):
        return f"page {number} says that {total_items} items by {size} are {pagination.total_pages} pages"
    due = min(size, total_items - (number - 1) * size)
    if rows != due:
        return f"page {number} has {rows} rows where {total_items} items by {size} leave {due} for it"
    return None


def problem_of(query: PostPerformanceQuery, pages: Sequence[Page]) -> str | None:
    """Why pages 1, 2, … are not the one whole answer to `query`; None when they are."""
    posts = [post for page in pages for post in page.posts]
    bad_rows = [row for page in pages for row in page.bad_rows]
    keys: list[Hashable] = [(post.instance_id, post.campaign_id, post.post_id) for post in posts]
    keys += [row.raw for row in bad_rows]
    sizes = [(page.pagination, len(page.posts) + len(page.bad_rows)) for page in pages]
    return _problem_of_sum(keys, sizes) or _foreign_row(query, posts, bad_rows)


def problem_of_instances(pages: Sequence[InstancesPage]) -> str | None:
    """Why pages 1, 2, … are not the one whole list of instances; None when they are."""
    keys = [instance_id for page in pages for instance_id in page.data.instance_ids]
    return _problem_of_sum(keys, [(page.pagination, len(page.data.instance_ids)) for page in pages])


def _problem_of_sum(keys: Sequence[Hashable], sizes: Sequence[tuple[Pagination, int]]) -> str | None:
    first, _ = sizes[0]
    for number, (pagination, rows) in enumerate(sizes, start=1):
        if problem := problem_of_page(number, pagination, rows=rows, first=first):
            return problem
    distinct = len(set(keys))
    if distinct != len(keys):
        return f"{len(keys) - distinct} of {len(keys)} rows came twice"
    if distinct != first.total_items:
        return f"{distinct} rows came of {first.total_items}"
    return None


def _foreign_row(query: PostPerformanceQuery, posts: Sequence[Post], bad_rows: Sequence[BadRow]) -> str | None:
    rows: list[Post | BadRow] = [*posts, *bad_rows]
    instances = {row.instance_id for row in rows}
    campaigns = {post.campaign_id for post in posts}
    content_types = {post.content_type for post in posts}
    dates = [row.post_date for row in rows if row.post_date is not None]
    if query.instance_ids and (foreign := instances - {None, *query.instance_ids}):
        return f"rows of instances that were not asked for: {_some(foreign)}"
    if query.campaign_ids and (foreign_campaigns := campaigns - {*query.campaign_ids}):
        return f"rows of campaigns that were not asked for: {_some(foreign_campaigns)}"
    # A content type that the document does not list may belong to any platform: it is no proof against the answer.
    if query.platforms and (
        foreign := {name for name in content_types if platform_of(name) not in (None, *query.platforms)}
    ):
        return f"rows of platforms that were not asked for: {_some(foreign)}"
    if query.content_types and (foreign := content_types - {None, *query.content_types}):
        return f"rows of content types that were not asked for: {_some(foreign)}"
    if query.date_basis is DateBasis.POST_DATE and dates:
        earliest, latest = min(dates), max(dates)
        if earliest < datetime.combine(query.start_date, time.min, UTC):
            return f"a row of {earliest.isoformat()}, before {query.start_date}"
        if latest > datetime.combine(query.end_date, time.max, UTC):
            return f"a row of {latest.isoformat()}, after {query.end_date}"
    return None


def _some(values: Iterable[object]) -> str:
    return ", ".join(sorted(map(repr, values))[:5])
