"""Pagination by cursors: each page has the cursor of the next one, and no page states totals.

A list is complete if the pagination has ended, no row and no cursor repeats, and each row matches the query. What else
could hide a lost row is checked: a page before the last that is not full is fetched again, and if the last page is
full, the first page in reverse order is fetched too (docs/api.md, "Cursor version").
"""

from collections.abc import Hashable

from later_reporting_dagster.client.errors import QueryRejected, TooManyPosts
from later_reporting_dagster.client.pagination import Inconsistency, PageReader, find_unrequested_rows
from later_reporting_dagster.client.route import FIRST_PAGE, ListResult, PageRequest
from later_reporting_dagster.contract import MAX_PAGE_SIZE, Page

# A page may be empty because all of its rows were filtered out. This many empty pages in a row are a server fault.
MAX_EMPTY_PAGES_IN_A_ROW = 10


async def fetch_cursor_pages(reader: PageReader, *, max_rows: int | None = None) -> ListResult:
    """Fetch and verify a list of the cursor version.

    Args:
        reader: a new reader of the list.
        max_rows: the maximum number of rows that the caller accepts; None for any number.

    Raises:
        TooManyPosts: there are more rows than `max_rows`, or the pages are too many, or have too many bytes.
        Inconsistency: the pages are not a complete list.
        LaterError: a page cannot be fetched.
    """
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
        if request.cursor is None:
            raise
        raise Inconsistency(f"the cursor of {request} was rejected: {error}") from None
    except TooManyPosts as error:
        if route.posts_query:
            error.content_types = frozenset(post.content_type for each in pages for post in each.items)
        raise
    return ListResult.of_pages(pages)
