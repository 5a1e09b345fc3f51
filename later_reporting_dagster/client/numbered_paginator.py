"""Pagination by page numbers: page 1 states the totals, and the other pages are fetched concurrently.

A list is complete if all pages state the same totals, no row repeats, and there are as many rows as the total says
(docs/api.md, "Posts performance").
"""

import asyncio
from collections.abc import Sequence

from later_reporting_dagster.client.errors import TooManyPosts
from later_reporting_dagster.client.pagination import (
    Inconsistency,
    PageReader,
    count_pages,
    find_duplicates,
    find_unrequested_rows,
)
from later_reporting_dagster.client.route import FIRST_PAGE, ListResult, PageRequest, Route
from later_reporting_dagster.contract import MAX_PAGE_NUMBER, Page, Pagination


async def fetch_numbered_pages(reader: PageReader, *, max_rows: int | None = None) -> ListResult:
    """Fetch and verify a list of the paged version.

    Args:
        reader: a new reader of the list.
        max_rows: the maximum number of rows that the caller accepts; None for as many as the API can return.

    Raises:
        TooManyPosts: page 1 states more rows than the pages can return or than `max_rows`, or the pages have too many
            bytes.
        Inconsistency: the pages are not a complete list.
        LaterError: a page cannot be fetched.
    """
    route = reader.route
    first = await reader.fetch(FIRST_PAGE)
    assert first.pagination is not None  # the parsers of the paged version require it
    total_items = first.pagination.total_items
    remaining = remaining_pages(first.pagination, both_ends=route.is_sorted)
    if remaining is None or total_items > (max_rows or total_items):
        raise TooManyPosts(
            f"{route.description}: {total_items} items on {count_pages(first.pagination)} pages are too many for one"
            f" query. {route.too_long_advice}",
            total_items=total_items,
        )
    tasks: list[asyncio.Task[Page]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(reader.fetch(page)) for page in remaining]
    except BaseExceptionGroup as failures:
        tasks.clear()  # the traceback refers to this frame, and would keep the pages in memory
        error = failures.exceptions[0]
        if isinstance(error, TooManyPosts):  # raised for a later page, where the total is not known
            error.total_items = total_items
        raise error from None
    pages = [first, *(task.result() for task in tasks)]
    from_start = 1 + sum(not page.from_end for page in remaining)
    return merge_ends(route, pages[:from_start], pages[from_start:], total_items=total_items)


def remaining_pages(first: Pagination, *, both_ends: bool) -> list[PageRequest] | None:
    """Return the pages to fetch after page 1, or None if the list has more pages than can be fetched.

    The API serves page numbers up to 500. Later pages are fetched from the other end, with one page of overlap, because
    posts with the same time may be in a different order there. If the last page is full, the first page from the other
    end is fetched too, because only that page shows whether more rows follow.

    Args:
        first: pagination of page 1.
        both_ends: whether the list can be fetched in reverse order.
    """
    from_start = min(count_pages(first), MAX_PAGE_NUMBER)
    beyond = count_pages(first) - from_start
    if beyond > (MAX_PAGE_NUMBER if both_ends else 0):
        return None
    last_is_full = both_ends and first.total_items == count_pages(first) * first.page_size
    from_end = min(beyond + 1, MAX_PAGE_NUMBER) if beyond or last_is_full else 0
    return [PageRequest(number) for number in range(2, from_start + 1)] + [
        PageRequest(number, from_end=True) for number in range(1, from_end + 1)
    ]


def merge_ends(route: Route, pages: Sequence[Page], from_end: Sequence[Page], *, total_items: int) -> ListResult:
    """Return the rows of a list that was fetched from both ends, each row of the overlap once.

    Args:
        route: the list.
        pages: the pages from the start, in order.
        from_end: the pages from the end, in order.
        total_items: the number of rows that page 1 states.

    Raises:
        Inconsistency: the pages are not the complete list.
    """
    start, end = ListResult.of_pages(pages), ListResult.of_pages(from_end)
    keys, keys_from_end = route.row_keys(start), route.row_keys(end)
    if problem := find_duplicates(keys) or find_duplicates(keys_from_end):
        raise Inconsistency(problem)
    seen = set(keys)
    if (received := len(seen.union(keys_from_end))) != total_items:
        raise Inconsistency(f"received {received} rows of {total_items}")
    if route.posts_query and (problem := find_unrequested_rows(route.posts_query, [*pages, *from_end])):
        raise Inconsistency(problem)
    return ListResult(
        start.items + [item for item in end.items if route.key(item) not in seen],
        start.bad_rows + [row for row in end.bad_rows if row.raw not in seen],
        start.pages + end.pages,
    )
