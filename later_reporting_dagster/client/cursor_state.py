"""What a walk by cursor has seen, and whether it adds up: there is no total that it could be held against.

The proof is that no row and no cursor came twice, that each row is one that was asked for, and that the end was
reached, or a day beyond those that are wanted, the rows being in the order of their days.
"""

from collections.abc import Callable, Hashable
from datetime import UTC, date, datetime

from later_reporting_dagster.client.pagination import foreign_row, keys_of
from later_reporting_dagster.contract import MAXIMUM_PAGE_SIZE, BadRow, CursorPage, Post, PostPerformanceQuery

# A page may be empty where what it had is filtered out. Cursors that lead to nothing else lead nowhere.
EMPTY_PAGES_IN_A_ROW = 10

Reach = Callable[[int, datetime], date]
"""Says the last day that is wanted of a walk without totals, when so many rows have come, the latest of that instant.

It is asked after each page and may bring that day nearer, never farther away, and no nearer than the latest row.
"""


class Trail:
    """The pages of one walk by cursor, in their order.

    Attributes:
        keys: what tells each row from the others.
        pages: how many pages have come.
        latest: the newest row's instant, in UTC; None before any.
        is_in_order: whether no row is of an earlier day than one before it.
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
        """How many rows have come."""
        return len(self.keys)

    def add(self, page: CursorPage) -> str | None:
        """Takes the next page; why it cannot belong to the others, None when it can."""
        keys = keys_of([page])
        twice = len(keys) - len(set(keys) - self.keys)
        problem = (
            (f"page {self.pages + 1} has {len(keys)} rows" if len(keys) > MAXIMUM_PAGE_SIZE else None)
            or (f"{twice} of {self.rows + len(keys)} rows came twice" if twice else None)
            or foreign_row(self._query, page.posts, page.bad_rows)
            or self._problem_of_cursor(page.next_cursor, is_empty=not page.rows)
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
        """The rows of the days up to one, and those of no day: where a walk is cut, these may be beyond."""
        return (
            [post for post in self._posts if post.post_date.astimezone(UTC).date() <= last],
            [row for row in self._bad_rows if row.post_date is None or row.post_date.date() <= last],
        )

    def _problem_of_cursor(self, cursor: str | None, *, is_empty: bool) -> str | None:
        self._empty_pages = self._empty_pages + 1 if is_empty else 0
        if cursor is None:
            return None
        if cursor in self._cursors:
            return f"page {self.pages + 1} leads to one that was there already"
        if self._empty_pages >= EMPTY_PAGES_IN_A_ROW:
            return f"{self._empty_pages} pages without a row, and yet there should be more"
        self._cursors.add(cursor)
        return None


def is_suspiciously_short(page: CursorPage) -> bool:
    """Whether a page has room for rows and is not the last: it may have lost some, so it is asked for once more."""
    return page.next_cursor is not None and page.rows < MAXIMUM_PAGE_SIZE


def is_suspiciously_full(page: CursorPage) -> bool:
    """Whether a page is full and yet the last: only the other end tells that there is none after it."""
    return page.next_cursor is None and page.rows == MAXIMUM_PAGE_SIZE
