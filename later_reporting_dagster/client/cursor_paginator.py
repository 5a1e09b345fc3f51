"""Pages by cursor, without totals: each leads to the next, and what has come is the only proof that it is all."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from later_reporting_dagster.client.client_events import ClientEvent, PageFetched
from later_reporting_dagster.client.cursor_state import Reach, Trail, is_suspiciously_full, is_suspiciously_short
from later_reporting_dagster.client.errors import MetricsRefused, QueryRefused
from later_reporting_dagster.client.pagination import Place, Walk, as_walked, keys_of, repeated
from later_reporting_dagster.client.refetch import ADVICE_ON_POSTS, Misfit, check_second_look, until_it_adds_up
from later_reporting_dagster.client.responses import Question, describe, question_of
from later_reporting_dagster.client.version_detection import Lists, Volume, page_parameters
from later_reporting_dagster.contract import (
    CURSOR,
    INSTANCES_PATH,
    METRICS_MEMBER,
    POSTS_PERFORMANCE_PATH,
    CursorPage,
    InstancesCursorPage,
    PostPerformanceQuery,
    cursor_page_from_body,
    instances_cursor_page_from_body,
    metrics_asked_for,
)


@dataclass(slots=True)
class Asked:
    """A query that is under way, as far as it is still wanted."""

    query: PostPerformanceQuery


class CursorPages:
    """Fetches whole answers from pages by cursor.

    Args:
        lists: fetches pages.
        tell: called for pages, and for walks that are repeated.
        looks_twice: whether to fetch a finished walk once more, to compare their rows.
    """

    def __init__(self, lists: Lists, *, tell: Callable[[ClientEvent], None], looks_twice: Callable[[], bool]) -> None:
        self._lists = lists
        self._tell = tell
        self._looks_twice = looks_twice

    async def instances(self) -> tuple[str, ...]:
        """All instances, in the order of the service; errors as of `LaterClient.walk`."""

        async def fetch(cursor: str | None, volume: Volume) -> InstancesCursorPage:
            return await self._lists.get(
                INSTANCES_PATH,
                page_parameters(CURSOR, cursor),
                revision=CURSOR,
                question=Question("instances"),
                volume=volume,
                read=instances_cursor_page_from_body,
            )

        async def attempt() -> tuple[str, ...]:
            ids: list[str] = []
            cursors: set[str] = set()
            cursor, volume = None, Volume()
            while True:
                try:
                    page = await fetch(cursor, volume)
                except QueryRefused as error:
                    if cursor is None:
                        raise
                    raise Misfit(f"its cursor was refused: {error}") from None
                ids += page.data.instance_ids
                cursor = page.next_cursor
                if cursor is None and (problem := repeated(ids)):
                    raise Misfit(problem)
                if cursor is None:
                    return tuple(ids)
                if cursor in cursors:
                    raise Misfit(f"page {len(cursors) + 1} leads to one that was there already")
                cursors.add(cursor)

        return await until_it_adds_up(lambda: "instances", attempt, tell=self._tell)

    async def walk(self, asked: Asked, *, reach: Reach | None) -> Walk:
        """The answer to what is asked, as far as `reach` wants it; errors as of `LaterClient.walk`."""

        async def attempt() -> Walk:
            nonlocal reach
            trail = Trail(asked.query)
            try:
                await self._follow(trail, asked, reach=reach)
                posts, bad_rows = trail.rows_until(asked.query.end_date)
                if self._looks_twice():
                    second = Trail(asked.query)
                    await self._follow(second, asked, reach=None)
                    check_second_look([*(post.key for post in posts), *(row.raw for row in bad_rows)], second.keys)
            except Misfit:
                if not trail.is_in_order:
                    reach = None  # days are told apart by their order: such an answer has to be walked to its end
                raise
            return Walk(
                query=asked.query,
                posts=posts,
                bad_rows=bad_rows,
                total_items=len(posts) + len(bad_rows),
                pages=trail.pages,
            )

        return await until_it_adds_up(lambda: describe(asked.query), attempt, tell=self._tell, advice=ADVICE_ON_POSTS)

    async def _follow(self, trail: Trail, asked: Asked, *, reach: Reach | None) -> None:
        """Fetch page by page, as far as the query is wanted.

        Raises:
            Misfit: the pages are no whole answer.
        """
        query, cursor, volume = asked.query, None, Volume()
        while True:
            number = trail.pages + 1
            try:
                page = await self._page(query, cursor, number=number, volume=volume)
                if is_suspiciously_short(page):
                    again = await self._page(query, cursor, number=number, volume=volume)
                    if keys_of([page]) != keys_of([again]):
                        raise Misfit(f"page {number} has other rows each time")
            except QueryRefused as error:
                if cursor is None:
                    raise
                raise Misfit(f"the cursor to page {number} was refused: {error}") from None
            if problem := trail.add(page):
                raise Misfit(problem)
            if page.next_cursor is None:
                await self._check_end(trail, page, query=query, volume=volume)
                return
            if reach is not None and trail.latest is not None:
                asked.query = replace(asked.query, end_date=reach(trail.rows, trail.latest))
                if trail.latest.date() > asked.query.end_date:
                    if not trail.is_in_order:
                        raise Misfit("the posts are not in the order of their days")
                    return
            cursor = page.next_cursor

    async def _check_end(self, trail: Trail, last: CursorPage, *, query: PostPerformanceQuery, volume: Volume) -> None:
        if is_suspiciously_full(last):
            page = await self._page(query, None, number=1, volume=volume, from_the_end=True)
            if missed := set(keys_of([page])) - trail.keys:
                raise Misfit(f"{len(missed)} rows at the end did not come, although the last page was full")

    async def _page(
        self,
        query: PostPerformanceQuery,
        cursor: str | None,
        *,
        number: int,
        volume: Volume,
        from_the_end: bool = False,
    ) -> CursorPage:
        try:
            page = await self._lists.get(
                POSTS_PERFORMANCE_PATH,
                # By cursor a page has no number, which would be refused beyond 500.
                as_walked(query, Place(1, from_the_end), cursor=cursor).parameters(CURSOR),
                revision=CURSOR,
                question=question_of(query, page=number),
                volume=volume,
                read=partial(cursor_page_from_body, metrics=metrics_asked_for(query.metrics)),
            )
        except QueryRefused as error:
            # The service tells by words alone what it is that it refuses; they decide no more than what is tried next.
            if cursor is None and error.status == 400 and METRICS_MEMBER in error.detail:
                raise MetricsRefused(str(error), detail=error.detail) from None
            raise
        self._tell(PageFetched(number, page.rows))
        return page
