"""Pagination by page numbers: page 1 states the totals, and the other pages are fetched concurrently."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from later_reporting_dagster.client.client_events import ClientEvent, PageFetched
from later_reporting_dagster.client.errors import TooManyPosts
from later_reporting_dagster.client.list_route import FEWER_INSTANCES_ADVICE, ListResult, ListRoute
from later_reporting_dagster.client.pagination import (
    FIRST_PAGE,
    PageRef,
    QueryResult,
    count_pages,
    find_duplicates,
    find_inconsistency,
    find_page_inconsistency,
    merge_ends,
    page_query,
    remaining_pages,
    row_keys,
)
from later_reporting_dagster.client.refetch import (
    ADVICE_ON_POSTS,
    Inconsistency,
    check_verification,
    fetch_until_consistent,
)
from later_reporting_dagster.client.responses import describe_query, page_context
from later_reporting_dagster.client.versioned_transport import FEWER_POSTS_ADVICE, PaginationSize, VersionedTransport
from later_reporting_dagster.contract import (
    PAGED,
    POSTS_PERFORMANCE_PATH,
    ListPage,
    Page,
    Pagination,
    PostPerformanceQuery,
    metrics_from_query_field,
    page_from_body,
)

_Result = TypeVar("_Result")
_PageType = TypeVar("_PageType", bound=Page | ListPage)


class PageNumberPaginator:
    """Paginator of the paged version, whose pages have numbers and totals (docs/api.md, "Posts performance").

    Example:
        A list of 101 instances has two pages. The second one is:

        >>> second = b'''{
        ...     "data": {"instanceIds": ["instance_100"]},
        ...     "pagination": {"page": 2, "pageSize": 100, "totalItems": 101, "totalPages": 2}
        ... }'''

        Page 1 states the same totals, so the paginator requests page 2:

        >>> import asyncio, json
        >>> from later_reporting_dagster.client.list_route import INSTANCES
        >>> first = json.loads(second)
        >>> first["data"]["instanceIds"] = [f"instance_{number:03d}" for number in range(100)]
        >>> first["pagination"]["page"] = 1
        >>> bodies = {"1": json.dumps(first).encode(), "2": second}
        >>> class CannedPages:
        ...     async def get_page(self, path, parameters, *, parse, **options):
        ...         print("GET", path, parameters)
        ...         return parse(bodies[dict(parameters)["pageNumber"]])
        >>> paginator = PageNumberPaginator(CannedPages(), on_event=print)
        >>> instance_ids = asyncio.run(paginator.fetch_list(INSTANCES)).items
        GET /v2/instances [('pageSize', '100'), ('pageNumber', '1')]
        GET /v2/instances [('pageSize', '100'), ('pageNumber', '2')]
        >>> len(instance_ids), instance_ids[-1]
        (101, 'instance_100')

    Args:
        transport: fetches pages.
        on_event: called for pages, and when pages are fetched again.
        should_verify: called after the last page, unless it is the only one; if it returns True, all pages are fetched
            once more to compare their row keys.
    """

    def __init__(
        self,
        transport: VersionedTransport,
        *,
        on_event: Callable[[ClientEvent], None],
        should_verify: Callable[[], bool] = lambda: False,
    ) -> None:
        self._transport = transport
        self._on_event = on_event
        self._should_verify = should_verify

    async def fetch_list(self, route: ListRoute) -> ListResult:
        """Fetch all rows of a list, in the order of the API; raise the errors of `LaterClient.fetch_posts`."""
        return await fetch_until_consistent(
            lambda: route.description, partial(self._fetch_list_once, route), on_event=self._on_event
        )

    async def fetch_posts(self, query: PostPerformanceQuery, *, max_posts: int | None) -> QueryResult:
        """Fetch all posts of a query; see `LaterClient.fetch_posts` for arguments and errors."""
        return await fetch_until_consistent(
            lambda: describe_query(query),
            partial(self._fetch_posts_once, query, max_posts=max_posts),
            on_event=self._on_event,
            advice=ADVICE_ON_POSTS,
        )

    async def _fetch_list_once(self, route: ListRoute) -> ListResult:
        pages = await self._list_pages(route)
        if len(pages) > 1 and self._should_verify():
            check_verification(route.row_keys(pages), route.row_keys(await self._list_pages(route)))
        return ListResult.of_pages(pages)

    async def _list_pages(self, route: ListRoute) -> list[ListPage]:
        pages, _ = await _fetch_pages(
            route.description, partial(self._list_page, route), both_ends=False, advice=FEWER_INSTANCES_ADVICE
        )
        if problem := find_duplicates(route.row_keys(pages)):  # the number of rows was checked page by page
            raise Inconsistency(problem)
        return pages

    async def _list_page(self, route: ListRoute, page: PageRef, size: PaginationSize) -> ListPage:
        response = await self._transport.get_page(
            route.path,
            route.page_parameters(PAGED, page.number),
            api_version=PAGED,
            context=route.context(page),
            size=size,
            parse=lambda body: route.parse_page(body, PAGED),
        )
        if route.has_progress:
            self._on_event(PageFetched(page.number, response.rows))
        return response

    async def _fetch_posts_once(self, query: PostPerformanceQuery, *, max_posts: int | None) -> QueryResult:
        pages, from_end = await self._posts_pages(query, max_posts=max_posts)
        # A single page is a snapshot: no row can move to another page.
        if len(pages) > 1 and self._should_verify():
            pages_again, from_end_again = await self._posts_pages(query, max_posts=max_posts)
            check_verification(row_keys([*pages, *from_end]), row_keys([*pages_again, *from_end_again]))
        posts, bad_rows = merge_ends(pages, from_end)
        return QueryResult(
            query=query,
            posts=posts,
            bad_rows=bad_rows,
            total_items=pages[0].pagination.total_items,
            pages=len(pages) + len(from_end),
        )

    async def _posts_pages(
        self, query: PostPerformanceQuery, *, max_posts: int | None
    ) -> tuple[list[Page], list[Page]]:
        pages, from_end = await _fetch_pages(
            describe_query(query),
            partial(self._posts_page, query),
            both_ends=True,
            advice=FEWER_POSTS_ADVICE,
            max_items=max_posts,
        )
        if problem := find_inconsistency(query, pages, from_end):
            raise Inconsistency(problem)
        return pages, from_end

    async def _posts_page(self, query: PostPerformanceQuery, page: PageRef, size: PaginationSize) -> Page:
        query = page_query(query, page)
        response = await self._transport.get_page(
            POSTS_PERFORMANCE_PATH,
            query.parameters(PAGED),
            api_version=PAGED,
            context=page_context(query, page),
            size=size,
            parse=partial(page_from_body, metrics=metrics_from_query_field(query.metrics)),
        )
        self._on_event(PageFetched(page.number, response.rows))
        return response


async def _fetch_pages(
    description: str,
    fetch: Callable[[PageRef, PaginationSize], Coroutine[Any, Any, _PageType]],
    *,
    both_ends: bool,
    advice: str,
    max_items: int | None = None,
) -> tuple[list[_PageType], list[_PageType]]:
    """Fetch page 1, then the others concurrently; return the pages from the start and the pages from the end.

    Raises:
        TooManyPosts: page 1 states more items than the pages can return or than `max_items`, or the pages have too many
            bytes.
        Inconsistency: a page does not belong to the list that started with page 1.
    """
    size = PaginationSize(advice)
    first = await _fetch_checked(fetch, FIRST_PAGE, size=size)
    pagination = _pagination(first)
    total_items = pagination.total_items
    remaining = remaining_pages(pagination, both_ends=both_ends)
    if remaining is None or total_items > (max_items or total_items):
        raise TooManyPosts(
            f"{description}: {total_items} items on {count_pages(pagination)} pages are too many for one query."
            f" {advice}",
            total_items=total_items,
        )
    try:
        rest = await _gather([_fetch_checked(fetch, page, size=size, first=pagination) for page in remaining])
    except TooManyPosts as error:  # raised for a later page, where the total is not known
        error.total_items = total_items
        raise
    count = 1 + sum(not page.from_end for page in remaining)
    return [first, *rest][:count], [first, *rest][count:]


async def _fetch_checked(
    fetch: Callable[[PageRef, PaginationSize], Coroutine[Any, Any, _PageType]],
    page: PageRef,
    *,
    size: PaginationSize,
    first: Pagination | None = None,
) -> _PageType:
    response = await fetch(page, size)
    pagination = _pagination(response)
    if problem := find_page_inconsistency(page, pagination, rows=response.rows, first=first or pagination):
        raise Inconsistency(problem)  # at once, because the pages that follow would be discarded
    return response


def _pagination(page: Page | ListPage) -> Pagination:
    assert page.pagination is not None  # the parsers of the paged version require it
    return page.pagination


async def _gather(coroutines: Sequence[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Run coroutines concurrently; cancel the others and raise the error when one fails."""
    tasks: list[asyncio.Task[_Result]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failures:
        tasks.clear()  # the traceback refers to this frame, and would keep the results in memory
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
