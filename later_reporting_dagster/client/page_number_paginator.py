"""Numbered pages with totals: the first tells how many there are, the others are asked for at once."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from later_reporting_dagster.client.client_events import ClientEvent, PageFetched
from later_reporting_dagster.client.errors import TooManyPosts
from later_reporting_dagster.client.pagination import (
    FIRST,
    Place,
    Walk,
    as_walked,
    keys_of,
    pages_in,
    places_after_first,
    problem_of,
    problem_of_page,
    repeated,
    without_overlap,
)
from later_reporting_dagster.client.refetch import ADVICE_ON_POSTS, Misfit, check_second_look, until_it_adds_up
from later_reporting_dagster.client.responses import Question, describe, question_of
from later_reporting_dagster.client.version_detection import Lists, Volume, page_parameters
from later_reporting_dagster.contract import (
    INSTANCES_PATH,
    PAGED,
    POSTS_PERFORMANCE_PATH,
    InstancesPage,
    Page,
    Pagination,
    PostPerformanceQuery,
    instances_page_from_body,
    metrics_asked_for,
    page_from_body,
)

_Result = TypeVar("_Result")
_PageType = TypeVar("_PageType", bound=Page | InstancesPage)


class NumberedPages:
    """Fetches whole answers from numbered pages.

    Args:
        lists: fetches pages.
        tell: called for pages, and for walks that are repeated.
        looks_twice: whether to fetch a finished walk of several pages once more, to compare their rows.
    """

    def __init__(self, lists: Lists, *, tell: Callable[[ClientEvent], None], looks_twice: Callable[[], bool]) -> None:
        self._lists = lists
        self._tell = tell
        self._looks_twice = looks_twice

    async def instances(self) -> tuple[str, ...]:
        """All instances, in the order of the service; errors as of `LaterClient.walk`."""

        async def fetch(place: Place, volume: Volume) -> InstancesPage:
            return await self._lists.get(
                INSTANCES_PATH,
                page_parameters(PAGED, place.number),
                revision=PAGED,
                question=Question(f"instances, {place}"),
                volume=volume,
                read=instances_page_from_body,
            )

        async def attempt() -> tuple[str, ...]:
            pages, _ = await _all_pages("instances", fetch, both_ends=False)
            ids = [instance_id for page in pages for instance_id in page.data.instance_ids]
            if problem := repeated(ids):  # each page has as many as its total leaves for it
                raise Misfit(problem)
            return tuple(ids)

        return await until_it_adds_up(lambda: "instances", attempt, tell=self._tell)

    async def walk(self, query: PostPerformanceQuery, *, most_posts: int | None) -> Walk:
        """The whole answer to a query; arguments and errors as of `LaterClient.walk`."""

        async def fetch(place: Place, volume: Volume) -> Page:
            asked_page = as_walked(query, place)
            page = await self._lists.get(
                POSTS_PERFORMANCE_PATH,
                asked_page.parameters(PAGED),
                revision=PAGED,
                question=question_of(asked_page),
                volume=volume,
                read=partial(page_from_body, metrics=metrics_asked_for(query.metrics)),
            )
            self._tell(PageFetched(place.number, page.rows))
            return page

        async def look() -> tuple[list[Page], list[Page]]:
            pages, from_the_end = await _all_pages(describe(query), fetch, both_ends=True, most_items=most_posts)
            if problem := problem_of(query, pages, from_the_end):
                raise Misfit(problem)
            return pages, from_the_end

        async def attempt() -> Walk:
            pages, from_the_end = await look()
            # A single page is of one moment: nothing slips from it to another.
            if len(pages) > 1 and self._looks_twice():
                again, again_from_the_end = await look()
                check_second_look(keys_of([*pages, *from_the_end]), keys_of([*again, *again_from_the_end]))
            posts, bad_rows = without_overlap(pages, from_the_end)
            return Walk(
                query=query,
                posts=posts,
                bad_rows=bad_rows,
                total_items=pages[0].pagination.total_items,
                pages=len(pages) + len(from_the_end),
            )

        return await until_it_adds_up(lambda: describe(query), attempt, tell=self._tell, advice=ADVICE_ON_POSTS)


async def _all_pages(
    what: str,
    fetch: Callable[[Place, Volume], Coroutine[Any, Any, _PageType]],
    *,
    both_ends: bool,
    most_items: int | None = None,
) -> tuple[list[_PageType], list[_PageType]]:
    """Fetch page 1, then the others at once; return those from the beginning and those from the end.

    Raises:
        TooManyPosts: there are more than are wanted, or than can be reached; only page 1 was fetched.
        Misfit: a page does not belong to the answer that page 1 began.
    """
    volume = Volume()

    async def fetch_fitting(place: Place, first: Pagination | None = None) -> _PageType:
        page = await fetch(place, volume)
        if problem := problem_of_page(place, page.pagination, rows=page.rows, first=first or page.pagination):
            raise Misfit(problem)  # at once: each page that follows would be a request for nothing
        return page

    first = await fetch_fitting(FIRST)
    total_items = first.pagination.total_items
    places = places_after_first(first.pagination, both_ends=both_ends)
    if places is None or total_items > (most_items or total_items):
        raise TooManyPosts(
            f"{what}: {total_items} items are {pages_in(first.pagination)} pages, more than can be asked"
            " for at once. Ask for fewer days or instances.",
            total_items=total_items,
        )
    rest = await _together([fetch_fitting(place, first.pagination) for place in places])
    count = 1 + sum(not place.from_the_end for place in places)
    return [first, *rest][:count], [first, *rest][count:]


async def _together(work: Sequence[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Run all at once; the first failure ends the others and is raised as itself."""
    tasks: list[asyncio.Task[_Result]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(one) for one in work]
    except BaseExceptionGroup as failures:
        tasks.clear()  # the trace holds this frame, and so the results, until garbage is collected
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
