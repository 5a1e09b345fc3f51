"""The pages of a list, by number or by cursor, and the checks that they form one complete and consistent list.

docs/api.md, "Posts performance" and "Cursor version", says what is checked, and "What is accepted", when a list with
repeated rows, or with another number of rows than its total, is complete nevertheless.
"""

import asyncio
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import msgspec

from later_reporting_dagster.client.errors import ApiVersionChanged, QueryRejected, TooManyRows
from later_reporting_dagster.client.retries import Request, Response
from later_reporting_dagster.client.transport import ClientEvent, Transport
from later_reporting_dagster.contract.page import ListResult, UnreadableBody
from later_reporting_dagster.contract.parameters import DEFAULT_PAGE_SIZE, MAX_PAGE_NUMBER, MAX_PAGE_SIZE, ApiVersion
from later_reporting_dagster.contract.query import Query
from later_reporting_dagster.contract.route import PageRequest, Route
from later_reporting_dagster.contract.rows import BadRow

# Limits on the pages of one list and on their bodies, to bound memory: about 70,000 posts of 700 bytes. In memory they
# may take four times as much, because a string that contains an emoji takes four bytes per character.
MAX_PAGES = 1000
MAX_BYTES = 48 * 2**20
# A page may be empty because all of its rows were filtered out. This many empty pages in a row are a server fault.
MAX_EMPTY_PAGES_IN_A_ROW = 10
NO_CONTENT = 204


class Inconsistency(Exception):  # noqa: N818 - named for what happened
    """The pages are inconsistent, for the reason in the message."""


@dataclass(frozen=True, slots=True)
class FetchedList:
    """A list that was fetched to its end.

    Attributes:
        keys: the keys of all rows as they came.
        problem: why rows may be missing; None if the list is complete.
    """

    result: ListResult
    keys: Sequence[Hashable]
    problem: str | None = None

    def proves(self, other: "FetchedList", *, is_sorted: bool) -> bool:
        """Return whether both have the same rows, and not in the same order, if the order was reversed."""
        is_other_order = self.keys != other.keys or len({*self.keys}) == 1 or not is_sorted
        return {*self.keys} == {*other.keys} and is_other_order


@dataclass(eq=False)
class PageReader:
    """Fetches pages of one list, `from_end` in reverse order, with `max_attempts` of each request.

    The number and the size of the pages are limited: a faulty service could state a next cursor on every page, and
    pages are kept in memory.
    """

    transport: Transport
    route: Route
    query: Query
    api_version: ApiVersion
    personal_data: bool = True
    max_attempts: int | None = None
    page_size: int = MAX_PAGE_SIZE
    from_end: bool = False
    _total_items: int | None = None
    _pages: int = 0
    _bytes: int = 0

    @property
    def description(self) -> str:
        return self.route.describe(self.query)

    async def read(self, number: int = 1, *, cursor: str | None = None) -> ListResult:
        """Fetch a page, and verify that it belongs to the query and to the list that started with page 1."""
        page = PageRequest(number, self.from_end, cursor)
        found = await self.read_unverified(page)
        if found.is_unsure:
            found = await self.read_unverified(page)
        # At once, because the pages that follow would be discarded.
        if found.number not in (None, number):
            raise Inconsistency(f"{page} was requested, but page {found.number} was returned")
        total_items = self._total_items = found.stated_total if self._total_items is None else self._total_items
        if not self.api_version.uses_cursors and found.stated_total not in (None, total_items):
            raise Inconsistency(f"page 1 states {total_items} items, {page} states {found.stated_total}")
        if problem := self.route.find_problem(self.query, found):
            raise Inconsistency(problem)
        return found

    async def read_unverified(self, page: PageRequest) -> ListResult:
        parameters = self.route.parameters(self.query, self.api_version, page, page_size=self.page_size)
        request = Request(
            f"{self.route.path}?{urlencode(parameters)}", f"{self.description}, {page}", max_attempts=self.max_attempts
        )
        found = await self.transport.request(request, parse=self._parse)
        self.transport.on_event(ClientEvent("page"))
        return found

    def _parse(self, response: Response) -> ListResult:
        version, page = self.api_version, ListResult([], is_unsure=True)
        try:
            if response.status != NO_CONTENT:
                page = self.route.parse_page(response.body, self.query, version, personal_data=self.personal_data)
        except UnreadableBody as error:
            if error.api_version is None:
                raise
            raise ApiVersionChanged(
                f"the service responds in API version {error.api_version}, not in {version}. Run again: the next"
                f" run detects the version. If LATER_API_VERSION is set, set it to {error.api_version} or auto."
            ) from None
        if response.status != 200:
            page.oddities[f"status {response.status}"] += 1
        self._pages, self._bytes = self._pages + 1, self._bytes + len(response.body)
        if self._pages > MAX_PAGES or self._bytes > MAX_BYTES:
            raise TooManyRows(
                f"{self.description}: the list has more than {MAX_PAGES} pages or {MAX_BYTES} bytes."
                f" {self.route.advice}"
            )
        return replace(page, requested_at=response.requested_at)

    def complete(self, pages: Sequence[ListResult], *, total_items: int | None = None) -> FetchedList:
        """Return all pages of the list as one. Equal rows are one; others with the same key are bad rows.

        Raises:
            Inconsistency: rows are missing, and no other fetch could show that they are not.
        """
        route = self.route
        result = ListResult.merged(pages)
        keys, received = route.row_keys(result), result.total_items
        problem = None
        if total_items not in (None, received, len({*keys})):  # a total may count equal rows once
            problem = f"received {received} rows of {total_items}"
            sizes = [page.total_items for page in pages if page.total_items]
            is_even = len({*sizes[:-1]}) <= 1 and all(page.total_items for page in pages[: len(sizes)])
            if not (sizes and is_even and route.is_sorted):
                raise Inconsistency(problem)
            result.oddities["another number of rows than the total"] += 1
        if repeated := len(result.items) - len({*map(route.key, result.items)}):
            problem = f"{repeated} of {received} rows are duplicates"
            if reason := route.find_problem(self.query, result):
                raise Inconsistency(reason)
            result = _without_repeated_rows(route, result)
        if self.from_end:
            result.items.reverse()
        return FetchedList(result, keys, problem)


def _without_repeated_rows(route: Route, result: ListResult) -> ListResult:
    by_key: dict[Hashable, list[Any]] = {}
    for item in result.items:
        by_key.setdefault(route.key(item), []).append(item)
    items: list[Any] = []
    bad_rows = [*result.bad_rows]
    oddities: Counter[str] = Counter()
    for key, rows in by_key.items():
        if rows.count(rows[0]) == len(rows):
            items.append(rows[0])
            oddities["equal row twice"] += len(rows) - 1
        else:
            bad_rows += [
                BadRow(
                    reason=f"{len(rows)} rows have the same key, and not the same values",
                    raw=msgspec.json.encode(row).decode(),
                    instance_id=getattr(row, "instance_id", None),
                    post_date=getattr(row, "post_date", None),
                    row_key=key,
                )
                for row in rows
            ]
    return replace(result, items=items, bad_rows=bad_rows, oddities=result.oddities + oddities)


async def fetch_numbered_pages(reader: PageReader, *, max_rows: int | None = None) -> FetchedList:
    """Fetch and verify a list of the paged version; raise if it has more than `max_rows`."""
    route = reader.route
    first = await reader.read()
    total_items = first.stated_total
    if total_items is None:
        return reader.complete(await _pages_without_total(reader, first))
    # A page may be smaller than was asked for.
    size = first.total_items if 0 < first.total_items < total_items else max(reader.page_size, first.total_items)
    # The page after a full last page shows that no rows follow.
    last = total_items // size + 1
    if last > MAX_PAGE_NUMBER or total_items > (max_rows or total_items):
        raise TooManyRows(
            f"{reader.description}: {total_items} items on {-(-total_items // size)} pages are too many for one query."
            f" {route.advice}",
            total_items=total_items,
        )

    async def read(number: int) -> ListResult:
        try:
            return await reader.read(number)
        except QueryRejected:
            if (number - 1) * size < total_items:
                raise
            return ListResult([])  # no such page

    tasks: list[asyncio.Task[ListResult]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(read(number)) for number in range(2, last + 1)]
    except BaseExceptionGroup as failures:
        tasks.clear()  # the traceback refers to this frame, and would keep the pages in memory
        error = failures.exceptions[0]
        if isinstance(error, TooManyRows):  # raised for a later page, where the total is not known
            error.total_items = total_items
        raise error from None
    return reader.complete([first, *(task.result() for task in tasks)], total_items=total_items)


async def _pages_without_total(reader: PageReader, first: ListResult) -> list[ListResult]:
    """Return the pages up to one that is not full: the server's default size may be in force.

    A page that is larger than was asked for is that of a server without pages.
    """
    pages, keys = [first], {*reader.route.row_keys(first)}
    while DEFAULT_PAGE_SIZE <= pages[-1].total_items <= MAX_PAGE_SIZE:
        number = len(pages) + 1
        try:
            pages.append(await reader.read(number))
        except QueryRejected:
            break  # no such page
        new_keys = {*reader.route.row_keys(pages[-1])}
        if new_keys and new_keys <= keys:
            raise Inconsistency(f"page {number} has the rows of page {number - 1}, which was full")
        keys |= new_keys
    return pages


async def fetch_cursor_pages(reader: PageReader, *, max_rows: int | None = None) -> FetchedList:
    """Fetch and verify a list of the cursor version; raise if it has more than `max_rows`."""
    route = reader.route
    pages: list[ListResult] = []
    keys: set[Hashable] = set()
    cursors: set[str] = set()
    rows = empty_pages = 0
    cursor: str | None = None
    size = MAX_PAGE_SIZE
    try:
        while True:
            number = len(pages) + 1
            page = await reader.read(number, cursor=cursor)
            page_keys = route.row_keys(page)
            # Rows may be missing from a page that is not full, although another one follows.
            is_short = page.next_cursor is not None and page.total_items < size
            if is_short and route.row_keys(await reader.read(number, cursor=cursor)) != page_keys:
                raise Inconsistency(f"page {number} has other rows when fetched again")
            # On the last page it is a row that comes twice, which the reverse order shows.
            if page.next_cursor is not None and page.total_items and keys.issuperset(page_keys):
                raise Inconsistency(f"page {number} has rows of earlier pages only")
            pages.append(page)
            keys.update(page_keys)
            rows += page.total_items
            if max_rows is not None and rows > max_rows:
                raise TooManyRows(  # noqa: TRY301 - one handler for this one and those of the reader
                    f"{reader.description}: more than {max_rows} items are too many for one query. {route.advice}"
                )
            if (cursor := page.next_cursor) is None:
                break
            if cursor in cursors:
                raise Inconsistency(f"the cursor of page {number} repeats an earlier one")
            empty_pages = 0 if page.total_items else empty_pages + 1
            if empty_pages >= MAX_EMPTY_PAGES_IN_A_ROW:
                raise Inconsistency(f"{empty_pages} empty pages in a row, each with a next cursor")
            cursors.add(cursor)
            if len(pages) == 1:  # pages may be smaller than was asked for
                size = page.total_items or size
        if rows < (page.stated_total or 0):
            raise Inconsistency(f"the list ended after {rows} rows of {page.stated_total}")
        # Rows may be missing after a last page that is full.
        if route.is_sorted and page.total_items >= size:
            other_end = await reader.read_unverified(PageRequest(1, not reader.from_end))
            if missing := len({*route.row_keys(other_end)} - keys):
                raise Inconsistency(f"{missing} rows are missing after the last page, which was full")
    except QueryRejected as error:
        if cursor is None or error.status == 403:
            raise
        raise Inconsistency(f"the cursor of page {len(pages) + 1} was rejected: {error}") from None
    except TooManyRows as error:
        if route.is_sorted:
            error.content_types = frozenset(post.content_type for each in pages for post in each.items)
        raise
    return reader.complete(pages)
