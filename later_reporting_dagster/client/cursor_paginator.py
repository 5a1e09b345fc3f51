"""Pagination by cursors: each page has the cursor of the next one, and no page states totals."""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from later_reporting_dagster.client.client_events import ClientEvent, PageFetched
from later_reporting_dagster.client.cursor_state import (
    CursorState,
    EndDateCallback,
    is_suspiciously_full,
    is_suspiciously_short,
)
from later_reporting_dagster.client.errors import MetricsRejected, QueryRejected, TooManyPosts
from later_reporting_dagster.client.list_route import FEWER_INSTANCES_ADVICE, ListResult, ListRoute
from later_reporting_dagster.client.pagination import PageRef, QueryResult, find_duplicates, page_query, row_keys
from later_reporting_dagster.client.refetch import (
    ADVICE_ON_POSTS,
    Inconsistency,
    check_verification,
    fetch_until_consistent,
)
from later_reporting_dagster.client.responses import describe_query, page_context
from later_reporting_dagster.client.versioned_transport import FEWER_POSTS_ADVICE, PaginationSize, VersionedTransport
from later_reporting_dagster.contract import (
    CURSOR,
    METRICS_MEMBER,
    POSTS_PERFORMANCE_PATH,
    CursorPage,
    ListPage,
    PostPerformanceQuery,
    cursor_page_from_body,
    metrics_from_query_field,
)

_PageType = TypeVar("_PageType", bound=CursorPage | ListPage)


@dataclass(slots=True)
class QueryInProgress:
    """A query. While its pages are fetched, an `EndDateCallback` may move its end date to an earlier day."""

    query: PostPerformanceQuery


class CursorPaginator:
    """Paginator of the cursor version, whose pages have no totals (docs/api.md, "Cursor version").

    Example:
        A list of 101 instances on two pages:

        >>> import asyncio, json
        >>> from later_reporting_dagster.client.list_route import INSTANCES
        >>> names = [f"instance_{number:03d}" for number in range(101)]
        >>> bodies = [
        ...     json.dumps({"data": {"instanceIds": names[:100]}, "nextCursor": "MTAw"}).encode(),
        ...     json.dumps({"data": {"instanceIds": names[100:]}, "nextCursor": None}).encode(),
        ... ]

        The paginator follows `nextCursor` until it is null:

        >>> class CannedPages:
        ...     async def get_page(self, path, parameters, *, parse, **options):
        ...         print("GET", path, parameters)
        ...         return parse(bodies.pop(0))
        >>> paginator = CursorPaginator(CannedPages(), on_event=print)
        >>> result = asyncio.run(paginator.fetch_list(INSTANCES))
        GET /v2/instances [('limit', '100')]
        GET /v2/instances [('limit', '100'), ('nextCursor', 'MTAw')]
        >>> result.items == names
        True

    Args:
        transport: fetches pages.
        on_event: called for pages, and when pages are fetched again.
        should_verify: called after the last page; if it returns True, all pages are fetched once more to compare their
            row keys.
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
        """Fetch all rows of a list, in the order of the API.

        Raises:
            LaterError: as `LaterClient.fetch_posts`.
        """
        return await fetch_until_consistent(
            lambda: route.description, partial(self._fetch_list_once, route), on_event=self._on_event
        )

    async def fetch_posts(self, progress: QueryInProgress, *, end_date_callback: EndDateCallback | None) -> QueryResult:
        """Fetch all posts of a query up to its end date, which `end_date_callback` may move to an earlier day.

        Raises:
            LaterError: as `LaterClient.fetch_posts`.
        """

        async def fetch() -> QueryResult:
            nonlocal end_date_callback
            state = CursorState(progress.query)
            try:
                return await self._fetch_posts_once(state, progress, end_date_callback=end_date_callback)
            except Inconsistency:
                if not state.is_in_order:
                    end_date_callback = None  # ending early requires rows in the order of their days
                raise
            except TooManyPosts as error:
                error.content_types = state.content_types
                raise

        return await fetch_until_consistent(
            lambda: describe_query(progress.query), fetch, on_event=self._on_event, advice=ADVICE_ON_POSTS
        )

    async def _fetch_list_once(self, route: ListRoute) -> ListResult:
        pages = await self._list_pages(route)
        if route.has_progress and self._should_verify():
            check_verification(route.row_keys(pages), route.row_keys(await self._list_pages(route)))
        return ListResult.of_pages(pages)

    async def _list_pages(self, route: ListRoute) -> list[ListPage]:
        pages: list[ListPage] = []
        cursors: set[str] = set()
        cursor, size = None, PaginationSize(FEWER_INSTANCES_ADVICE)
        while True:
            try:
                page = await _fetch_twice_if_short(
                    partial(self._list_page, route, cursor, size), row_keys=route.row_keys, number=len(pages) + 1
                )
            except QueryRejected as error:
                if cursor is None:
                    _raise_if_metrics_rejected(error, route.metric_names)
                    raise
                raise Inconsistency(f"the cursor was rejected: {error}") from None
            pages.append(page)
            if route.has_progress:
                self._on_event(PageFetched(len(pages), page.rows))
            cursor = page.next_cursor
            if cursor is None:
                if problem := find_duplicates(route.row_keys(pages)):
                    raise Inconsistency(problem)
                return pages
            if cursor in cursors:
                raise Inconsistency(f"the cursor of page {len(cursors) + 1} repeats an earlier one")
            cursors.add(cursor)

    async def _list_page(self, route: ListRoute, cursor: str | None, size: PaginationSize) -> ListPage:
        return await self._transport.get_page(
            route.path,
            route.page_parameters(CURSOR, cursor),
            api_version=CURSOR,
            context=route.context(),
            size=size,
            parse=lambda body: route.parse_page(body, CURSOR),
        )

    async def _fetch_posts_once(
        self, state: CursorState, progress: QueryInProgress, *, end_date_callback: EndDateCallback | None
    ) -> QueryResult:
        await self._follow_cursors(state, progress, end_date_callback=end_date_callback)
        posts, bad_rows = state.rows_until(progress.query.end_date)
        if self._should_verify():
            second = CursorState(progress.query)
            await self._follow_cursors(second, progress, end_date_callback=None)
            check_verification([*(post.key for post in posts), *(row.raw for row in bad_rows)], second.keys)
        return QueryResult(
            query=progress.query,
            posts=posts,
            bad_rows=bad_rows,
            total_items=len(posts) + len(bad_rows),
            pages=state.pages,
        )

    async def _follow_cursors(
        self, state: CursorState, progress: QueryInProgress, *, end_date_callback: EndDateCallback | None
    ) -> None:
        """Fetch pages until the last one, or until a page has posts after the query's end date.

        Raises:
            Inconsistency: the pages are not a complete list.
        """
        query, cursor, size = progress.query, None, PaginationSize(FEWER_POSTS_ADVICE)
        while True:
            page = await self._checked_page(query, cursor, number=state.pages + 1, size=size)
            if problem := state.add(page):
                raise Inconsistency(problem)
            if page.next_cursor is None:
                await self._check_last_page(state, page, query=query, size=size)
                return
            if end_date_callback is not None and state.latest is not None:
                progress.query = replace(progress.query, end_date=end_date_callback(state.rows, state.latest))
                if state.latest.date() > progress.query.end_date:
                    if not state.is_in_order:
                        raise Inconsistency("the posts are not in the order of their days")
                    return
            cursor = page.next_cursor

    async def _checked_page(
        self, query: PostPerformanceQuery, cursor: str | None, *, number: int, size: PaginationSize
    ) -> CursorPage:
        """Fetch a page; if it is suspiciously short, fetch it again to compare its row keys."""
        try:
            page = await _fetch_twice_if_short(
                partial(self._page, query, PageRef(number), cursor=cursor, size=size), row_keys=row_keys, number=number
            )
        except QueryRejected as error:
            if cursor is None:
                raise
            raise Inconsistency(f"the cursor of page {number} was rejected: {error}") from None
        return page

    async def _check_last_page(
        self, state: CursorState, last: CursorPage, *, query: PostPerformanceQuery, size: PaginationSize
    ) -> None:
        """If the last page is full, check that no row follows it, by fetching the first page in reverse order."""
        if is_suspiciously_full(last):
            page = await self._page(query, PageRef(1, from_end=True), cursor=None, size=size)
            if missing := set(row_keys([page])) - state.keys:
                raise Inconsistency(f"{len(missing)} rows are missing after the last page, which was full")

    async def _page(
        self, query: PostPerformanceQuery, page: PageRef, *, cursor: str | None, size: PaginationSize
    ) -> CursorPage:
        # A cursor request contains no page number. `PostPerformanceQuery` needs one nevertheless and rejects numbers
        # above 500, so it gets 1; the real number is used in messages and events only.
        query_of_page = page_query(query, replace(page, number=1), cursor=cursor)
        try:
            response = await self._transport.get_page(
                POSTS_PERFORMANCE_PATH,
                query_of_page.parameters(CURSOR),
                api_version=CURSOR,
                context=page_context(query, page),
                size=size,
                parse=partial(cursor_page_from_body, metrics=metrics_from_query_field(query.metrics)),
            )
        except QueryRejected as error:
            if cursor is None:
                _raise_if_metrics_rejected(error)
            raise
        self._on_event(PageFetched(page.number, response.rows))
        return response


async def _fetch_twice_if_short(
    fetch: Callable[[], Awaitable[_PageType]], *, row_keys: Callable[[Sequence[_PageType]], list[Hashable]], number: int
) -> _PageType:
    """Fetch a page; if it is suspiciously short, fetch it again to compare its row keys.

    Raises:
        Inconsistency: the row keys differ.
    """
    page = await fetch()
    if is_suspiciously_short(page) and row_keys([page]) != row_keys([await fetch()]):
        raise Inconsistency(f"page {number} has other rows when fetched again")
    return page


def _raise_if_metrics_rejected(error: QueryRejected, names: Sequence[str] = ()) -> None:
    """Raise `MetricsRejected` if the text of a rejection mentions the parameter `metrics`, or one of these metrics.

    Only the text shows whether the metrics are the reason. A wrong guess costs requests, and the caller may count
    metrics as rejected that the API accepts; they are then null.
    """
    if error.status == 400 and any(name in error.detail for name in (METRICS_MEMBER, *names)):
        raise MetricsRejected(str(error), detail=error.detail) from None
