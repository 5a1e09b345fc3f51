"""The pages of a list, by number or by cursor, and the checks that they form one complete and consistent list.

By number, page 1 states the totals, and the other pages are fetched concurrently. The list is complete if all pages
state the same totals, no row repeats, and there are as many rows as the total says (docs/api.md, "Posts performance").

By cursor, each page has the cursor of the next one, and no page states totals. The list is complete if the pagination
has ended, no row and no cursor repeats, and each row matches the query. What else could hide a lost row is checked: a
page before the last that is not full is fetched again, and if the last page is full, the first page in reverse order is
fetched too (docs/api.md, "Cursor version").
"""

import asyncio
from collections.abc import Hashable, Iterable, Sequence
from datetime import UTC, datetime, time
from urllib.parse import urlencode

from later_reporting_dagster.client.errors import ApiVersionChanged, QueryRejected, TooManyPosts
from later_reporting_dagster.client.retries import Request, Response
from later_reporting_dagster.client.route import FIRST_PAGE, NEVER, ListResult, PageRequest, Route
from later_reporting_dagster.client.transport import PageFetched, Transport
from later_reporting_dagster.contract.page import Page, Pagination, UnreadableBody
from later_reporting_dagster.contract.parameters import MAX_PAGE_NUMBER, MAX_PAGE_SIZE, ApiVersion, DateBasis
from later_reporting_dagster.contract.query import PerformanceQuery
from later_reporting_dagster.contract.safe_line import safe_line

MAX_PAGES = 2 * MAX_PAGE_NUMBER  # all numbered pages, from the start and from the end
# Limit on the bodies of one pagination, to bound memory: about 70,000 posts of 700 bytes. In memory they may take four
# times as much, because a string that contains an emoji takes four bytes per character.
MAX_BYTES = 48 * 2**20
# A page may be empty because all of its rows were filtered out. This many empty pages in a row are a server fault.
MAX_EMPTY_PAGES_IN_A_ROW = 10


class Inconsistency(Exception):  # noqa: N818 - named for what happened
    """The pages are inconsistent, for the reason in the message."""


class PageReader:
    """Fetches pages of one pagination.

    The number and the size of the pages are limited: a faulty service could state a next cursor on every page, and
    pages are kept in memory.

    Attributes:
        requested_at: when the first of its pages was requested.
    """

    def __init__(self, transport: Transport, route: Route, api_version: ApiVersion) -> None:
        self.route = route
        self._transport = transport
        self._version = api_version
        self.requested_at = NEVER
        self._first: Pagination | None = None
        self._pages = self._bytes = 0

    async def fetch(self, page: PageRequest, *, verify: bool = True) -> Page:
        """Fetch a page; `verify`: that it belongs to the list that started with page 1."""
        route = self.route
        request = Request(
            f"{route.path}?{urlencode(route.parameters(self._version, page))}",
            f"{route.description}, {page}",
            max_attempts=route.max_attempts,
        )
        found = await self._transport.request(request, parse=self._parse)
        self._transport.on_event(PageFetched())
        if verify and (pagination := found.pagination) is not None:
            self._first = self._first or pagination
            if problem := find_page_inconsistency(page, pagination, rows=found.rows, first=self._first):
                raise Inconsistency(problem)  # at once, because the pages that follow would be discarded
        return found

    def _parse(self, response: Response) -> Page:
        try:
            page = self.route.parse_page(response.body, self._version)
        except UnreadableBody as error:
            if error.api_version is None:
                raise
            raise ApiVersionChanged(self._version.name, error.api_version.name) from None
        self.requested_at = min(self.requested_at, response.requested_at)
        self._pages, self._bytes = self._pages + 1, self._bytes + len(response.body)
        if self._pages > MAX_PAGES or self._bytes > MAX_BYTES:
            raise TooManyPosts(
                f"{self.route.description}: the list has more than {MAX_PAGES} pages or {MAX_BYTES} bytes."
                f" {self.route.too_long_advice}"
            )
        return page


def find_page_inconsistency(page: PageRequest, pagination: Pagination, *, rows: int, first: Pagination) -> str | None:
    """Return why a numbered page does not belong to the list that started with page 1; None if it does."""
    total_items, size = first.total_items, first.page_size
    if pagination.page != page.number:
        return f"{page} was requested, but page {pagination.page} was returned"
    if (pagination.total_items, pagination.page_size) != (total_items, size):
        return (
            f"page 1 states {total_items} items in pages of {size}, "
            f"{page} states {pagination.total_items} in pages of {pagination.page_size}"
        )
    # The API reference leaves open whether an empty list has one page or none, and whether `totalPages` counts pages
    # beyond the last number that can be requested.
    pages = count_pages(pagination)
    if (pagination.total_pages or 1) not in (pages, min(pages, MAX_PAGE_NUMBER)):
        return f"{page} states {pagination.total_pages} pages for {total_items} items in pages of {size}"
    expected = min(size, total_items - (page.number - 1) * size)
    if rows != expected:
        return f"{page} has {rows} rows instead of {expected}, for {total_items} items in pages of {size}"
    return None


def count_pages(pagination: Pagination) -> int:
    """Return the number of pages that the stated totals imply, at least 1."""
    return max(1, -(-pagination.total_items // pagination.page_size)) if pagination.page_size > 0 else 1


def find_unrequested_rows(query: PerformanceQuery, pages: Iterable[Page]) -> str | None:
    """Describe posts and bad rows that the query's filters exclude; return None if there are none."""
    pages = [*pages]
    posts = [post for page in pages for post in page.items]
    rows = [*posts, *(row for page in pages for row in page.bad_rows)]
    instances = {row.instance_id for row in rows}
    content_types = {name for name in {post.content_type for post in posts} if query.selects(name) is False}
    dates = [row.post_date for row in rows if row.post_date is not None]
    if query.instance_ids and (other := instances - {None, *query.instance_ids}):
        return f"rows of instances that were not requested: {_examples(other)}"
    if content_types:
        return f"rows of content types that were not requested: {_examples(content_types)}"
    if dates:
        earliest, latest = min(dates), max(dates)
        # By performance date, posts may be older than the range, but not newer.
        if query.date_basis is DateBasis.POST_DATE and earliest < datetime.combine(query.start_date, time.min, UTC):
            return f"a row of {earliest.isoformat()}, before {query.start_date}"
        if latest > datetime.combine(query.end_date, time.max, UTC):
            return f"a row of {latest.isoformat()}, after {query.end_date}"
    return None


def _examples(values: Iterable[object]) -> str:
    return safe_line(", ".join(sorted(map(repr, values))[:5]))


async def fetch_numbered_pages(reader: PageReader, *, max_rows: int | None = None) -> ListResult:
    """Fetch and verify a list of the paged version; raise if it has more than `max_rows`."""
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
    end is fetched too, because only that page shows whether more rows follow. `both_ends`: whether the list can be
    fetched in reverse order.
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
    """Return the rows of a list that was fetched from both ends, each row of the overlap once."""
    start, end = ListResult.of(pages), ListResult.of(from_end)
    keys, keys_from_end = route.row_keys(start), route.row_keys(end)
    for each in (keys, keys_from_end):
        if duplicates := len(each) - len(set(each)):
            raise Inconsistency(f"{duplicates} of {len(each)} rows are duplicates")
    seen = set(keys)
    if (received := len(seen.union(keys_from_end))) != total_items:
        raise Inconsistency(f"received {received} rows of {total_items}")
    if route.posts_query and (problem := find_unrequested_rows(route.posts_query, [*pages, *from_end])):
        raise Inconsistency(problem)
    return ListResult(
        start.items + [item for item in end.items if route.key(item) not in seen],
        start.bad_rows + [row for row in end.bad_rows if row.key not in seen],
        start.pages + end.pages,
    )


async def fetch_cursor_pages(reader: PageReader, *, max_rows: int | None = None) -> ListResult:
    """Fetch and verify a list of the cursor version; raise if it has more than `max_rows`."""
    route = reader.route
    pages: list[Page] = []
    keys: set[Hashable] = set()
    cursors: set[str] = set()
    empty_pages = 0
    request = FIRST_PAGE
    try:
        while True:
            page = await reader.fetch(request)
            page_keys, before = route.row_keys(page), len(keys)
            # Rows may be missing from a page that is not full, although another one follows.
            is_short = page.next_cursor is not None and page.rows < MAX_PAGE_SIZE
            if is_short and route.row_keys(await reader.fetch(request)) != page_keys:
                raise Inconsistency(f"{request} has other rows when fetched again")
            if page.rows > MAX_PAGE_SIZE:
                raise Inconsistency(f"{request} has {page.rows} rows")
            pages.append(page)
            keys.update(page_keys)
            if duplicates := before + page.rows - len(keys):
                raise Inconsistency(f"{duplicates} of {before + page.rows} rows are duplicates")
            if route.posts_query and (problem := find_unrequested_rows(route.posts_query, [page])):
                raise Inconsistency(problem)
            if max_rows is not None and len(keys) > max_rows:
                raise TooManyPosts(  # noqa: TRY301 - one handler for this one and those of the reader
                    f"{route.description}: more than {max_rows} items are too many for one query."
                    f" {route.too_long_advice}"
                )
            if page.next_cursor is None:
                break
            if page.next_cursor in cursors:
                raise Inconsistency(f"the cursor of {request} repeats an earlier one")
            empty_pages = 0 if page.rows else empty_pages + 1
            if empty_pages >= MAX_EMPTY_PAGES_IN_A_ROW:
                raise Inconsistency(f"{empty_pages} empty pages in a row, each with a next cursor")
            cursors.add(page.next_cursor)
            request = PageRequest(len(pages) + 1, cursor=page.next_cursor)
        # Rows may be missing after a last page that is full.
        if route.is_sorted and page.rows == MAX_PAGE_SIZE:
            last = await reader.fetch(PageRequest(1, from_end=True))
            if missing := len({*route.row_keys(last)} - keys):
                raise Inconsistency(f"{missing} rows are missing after the last page, which was full")
    except QueryRejected as error:
        if request.cursor is None or error.status == 403:
            raise
        raise Inconsistency(f"the cursor of {request} was rejected: {error}") from None
    except TooManyPosts as error:
        if route.posts_query:
            error.content_types = frozenset(post.content_type for each in pages for post in each.items)
        raise
    return ListResult.of(pages)
