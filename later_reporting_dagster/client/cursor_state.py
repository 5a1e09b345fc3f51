"""State of a cursor pagination, and the checks that replace totals, which the cursor version lacks.

The pages are complete if no row and no cursor repeats, each row matches the query, and one of these holds: the
pagination has ended; or it has passed the last day to fetch, and the rows are in the order of their days (docs/api.md,
"Cursor version").
"""

from collections.abc import Callable, Hashable
from datetime import UTC, date, datetime

from later_reporting_dagster.client.pagination import find_unrequested_rows, row_keys
from later_reporting_dagster.contract import MAX_PAGE_SIZE, BadRow, CursorPage, ListPage, Post, PostPerformanceQuery

# A page may be empty because all of its rows were filtered out. This many empty pages in a row are a server fault.
MAX_EMPTY_PAGES_IN_A_ROW = 10

EndDateCallback = Callable[[int, datetime], date]
"""Return the last day still to fetch, given the number of rows so far and the time of the newest post (UTC).

Called in the cursor version after each page except the last, starting with the first page that has a post. A callback
must follow these rules: It never returns a later day than in its previous call (in the first call: than the end date of
the query). If it returns an earlier day, that day is not before the day of the newest post. If the newest post is after
the day that it returned last, it returns that day again, and the pagination ends.
"""


class CursorState:
    """The pages of one cursor pagination, in order.

    Attributes:
        keys: identity of each row.
        pages: number of pages so far.
        latest: time of the newest post, in UTC; None before the first post.
        is_in_order: whether the posts so far are in ascending order of their days.
    """

    def __init__(self, query: PostPerformanceQuery) -> None:
        self._query = query
        self._posts: list[Post] = []
        self._bad_rows: list[BadRow] = []
        self._cursors: set[str] = set()
        self._empty_pages = 0
        self.keys: set[Hashable] = set()
        self.pages = 0
        self.latest: datetime | None = None
        self.is_in_order = True

    @property
    def rows(self) -> int:
        """Number of rows so far."""
        return len(self.keys)

    @property
    def content_types(self) -> frozenset[str | None]:
        """Content types of the posts so far."""
        return frozenset(post.content_type for post in self._posts)

    def add(self, page: CursorPage) -> str | None:
        """Add the next page; return why it is inconsistent with the previous pages; None if it is consistent."""
        keys = row_keys([page])
        duplicates = len(keys) - len(set(keys) - self.keys)
        problem = (
            (f"page {self.pages + 1} has {len(keys)} rows" if len(keys) > MAX_PAGE_SIZE else None)
            or (f"{duplicates} of {self.rows + len(keys)} rows are duplicates" if duplicates else None)
            or find_unrequested_rows(self._query, posts=page.posts, bad_rows=page.bad_rows)
            or self._find_cursor_problem(page.next_cursor, is_empty=not page.rows)
        )
        self.pages += 1
        self.keys.update(keys)
        self._posts += page.posts
        self._bad_rows += page.bad_rows
        for post in page.posts:
            instant = post.post_date.astimezone(UTC)
            self.is_in_order &= self.latest is None or self.latest.date() <= instant.date()
            self.latest = instant if self.latest is None else max(self.latest, instant)
        return problem

    def rows_until(self, last: date) -> tuple[list[Post], list[BadRow]]:
        """Return the posts and bad rows up to a day. Include bad rows without a date, which may be later."""
        return (
            [post for post in self._posts if post.post_date.astimezone(UTC).date() <= last],
            [row for row in self._bad_rows if row.post_date is None or row.post_date.date() <= last],
        )

    def _find_cursor_problem(self, cursor: str | None, *, is_empty: bool) -> str | None:
        self._empty_pages = self._empty_pages + 1 if is_empty else 0
        if cursor is None:
            return None
        if cursor in self._cursors:
            return f"the cursor of page {self.pages + 1} repeats an earlier one"
        if self._empty_pages >= MAX_EMPTY_PAGES_IN_A_ROW:
            return f"{self._empty_pages} empty pages in a row, each with a next cursor"
        self._cursors.add(cursor)
        return None


def is_suspiciously_short(page: CursorPage | ListPage) -> bool:
    """Return whether a page before the last is not full, so that rows may be missing from it."""
    return page.next_cursor is not None and page.rows < MAX_PAGE_SIZE


def is_suspiciously_full(page: CursorPage) -> bool:
    """Return whether the last page is full, so that rows may be missing after it."""
    return page.next_cursor is None and page.rows == MAX_PAGE_SIZE
