"""The contract over HTTP: one client that paces itself, renews its token, tries again, and hands out whole answers."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlencode

import httpx

from later_reporting_dagster.client.answers import (
    Answer,
    Question,
    describe,
    question_of,
    rate_limit_in,
    server_time_in,
)
from later_reporting_dagster.client.auth import AccessToken, ClientCredentials
from later_reporting_dagster.client.errors import (
    ContractBroken,
    MetricsRefused,
    QueryRefused,
    TooManyPosts,
    WalkInconsistent,
)
from later_reporting_dagster.client.events import (
    ClientEvent,
    PageFetched,
    RevisionChanged,
    WalkRepeated,
)
from later_reporting_dagster.client.exchange import Exchange, Tally
from later_reporting_dagster.client.limiter import RateLimiter
from later_reporting_dagster.client.memory import RevisionMemory
from later_reporting_dagster.client.retry import RetryPolicy
from later_reporting_dagster.client.trail import Reach, Trail, is_suspiciously_full, is_suspiciously_short, same_rows
from later_reporting_dagster.client.walk import (
    FIRST,
    Place,
    Walk,
    as_walked,
    keys_of,
    pages_in,
    places_after_first,
    problem_of,
    problem_of_instances,
    problem_of_page,
    repeated,
    without_overlap,
)
from later_reporting_dagster.contract import (
    CURSOR,
    INSTANCES_PATH,
    MAXIMUM_PAGE_SIZE,
    METRICS_MEMBER,
    PAGED,
    POSTS_PERFORMANCE_PATH,
    CursorPage,
    InstancesCursorPage,
    InstancesPage,
    OtherRevision,
    Page,
    Pagination,
    PostPerformanceQuery,
    Revision,
    SortDirection,
    UnreadablePage,
    cursor_page_from_body,
    instances_cursor_page_from_body,
    instances_page_from_body,
    metrics_asked_for,
    page_from_body,
)

logger = logging.getLogger(__name__)

WALKS = 2
ADVICE_ON_POSTS = "Posts may be arriving just now: try later, or ask for fewer days or instances at once."
# A service that changes its revision more often within one walk has none.
REVISIONS_OF_A_WALK = 4


class _Paged(Protocol):
    @property
    def pagination(self) -> Pagination: ...


_Result = TypeVar("_Result")
_PageType = TypeVar("_PageType", bound=_Paged)


@dataclass(frozen=True, slots=True)
class Probe:
    """What one small answer tells of the service: its revision, its rate limit, and its clock in UTC.

    None where it says nothing.
    """

    revision: Revision
    limit: int | None
    window_seconds: float | None
    server_time: datetime | None


@dataclass(slots=True)
class _Asked:
    """A query that is under way, as far as it is still wanted."""

    query: PostPerformanceQuery
    tally: Tally = field(default_factory=Tally)


@dataclass(frozen=True, slots=True)
class _FirstInstances:
    """What the instances route answers when nothing is said of pages: it tells the revision."""

    revision: Revision
    instance_ids: tuple[str, ...]
    are_all: bool


class LaterClient:
    """Speaks to the Reporting API; an asynchronous context manager, for one event loop.

    Several walks may run at once: they share the connections, the token, the limiter and `concurrency`.

    Args:
        base_url: scheme and host of the service; https, unless it is loopback.
        credentials: client credentials, or a ready token.
        limiter: turns for every single request, retries and token requests included.
        revision: the revision of the API that the service speaks; None to ask it, and to notice when that changes.
        memory: what is known of it, so that it is not asked each time.
        second_looks: the share of finished walks in a revision, 0 to 1, that are walked once more to be compared:
            the only thing that tells rows which a service without totals leaves out now and then, or which slip to
            another page while as many arrive as vanish. Each doubles a walk's requests.
        concurrency: requests in flight at once.
        timeout_seconds: for connecting, for each silence of the service, and for a whole body.
        retry: how often and how long.
        on_event: told of pages, waits and retries as they happen.
        transport: in place of the network.
        clock: seconds since the epoch, for tokens and `Retry-After`.
        sleep: waits for seconds between retries.
        random: 0 to 1, to spread retries.

    Raises:
        ValueError: the base URL cannot be one, or would send the token in the clear; or no request may be in flight.
    """

    def __init__(
        self,
        *,
        base_url: str,
        credentials: ClientCredentials | AccessToken,
        limiter: RateLimiter,
        revision: Revision | None = PAGED,
        memory: RevisionMemory | None = None,
        second_looks: Mapping[Revision, float] = MappingProxyType({}),
        concurrency: int = 8,
        timeout_seconds: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        on_event: Callable[[ClientEvent], None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency is at least 1, not {concurrency}")
        self._memory = memory or RevisionMemory()
        self._tells_itself = revision is None
        self._revision = self._memory.recall() if revision is None else revision
        self._second_looks = second_looks
        self._asking_revision = asyncio.Lock()
        self.concurrency = concurrency
        self._on_event = on_event
        self._random = random
        self._exchange = Exchange(
            base_url=base_url,
            credentials=credentials,
            limiter=limiter,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            retry=retry,
            tell=self._tell,
            transport=transport,
            clock=clock,
            sleep=sleep,
            random=random,
        )

    async def __aenter__(self) -> Self:
        await self._exchange.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._exchange.__aexit__(kind, error, traceback)

    async def revision(self) -> Revision:
        """The revision that the service speaks, asked for with one request where that is not known yet.

        Raises:
            LaterError: as `walk`.
        """
        async with self._asking_revision:
            if self._revision is None:
                self._note_revision((await self._first_instances()).revision)
            return self._revision or PAGED

    async def instances(self) -> tuple[str, ...]:
        """The ids of all instances that the credentials reach, in the order of the service [D].

        Raises:
            LaterError: as `walk`.
        """
        if self._revision is None:
            first = await self._first_instances()
            self._note_revision(first.revision)
            if first.are_all:
                return first.instance_ids
        return await self._in_its_revision(
            "instances", paged=self._instances_by_page, by_cursor=self._instances_by_cursor
        )

    async def walk(
        self, query: PostPerformanceQuery, *, most_posts: int | None = None, reach: Reach | None = None
    ) -> Walk:
        """The whole answer to a query, verified before anyone sees a row of it.

        Args:
            query: what to ask. Its page, page size, cursor and sorting do not matter: a walk has its own.
            most_posts: how many posts the caller wants at once; all that can be reached when None. It is held against
                totals, where there are any.
            reach: until which day the answer is wanted, asked as the walk goes on, where there are no totals. What is
                cut off stays unanswered, and the query of the walk is without it.

        Raises:
            TooManyPosts: it holds more than that, or than the service counts to; only its first page was fetched.
            WalkInconsistent: the pages did not add up, and did not when walked again.
            InstanceForbidden: the credentials do not reach one of its instances.
            MetricsRefused: not all of its metrics can be asked for with its filters.
            QueryRefused: the service does not accept it.
            CredentialsRejected: nothing will be answered.
            ContractBroken: the answer is none of the document's.
            Retriable: it failed for longer than the retry policy covers.
        """
        asked = _Asked(query)
        return await self._in_its_revision(
            describe(query),
            paged=lambda: self._walk_by_page(asked, most_posts=most_posts),
            by_cursor=lambda: self._walk_by_cursor(asked, reach=reach),
        )

    async def probe(self) -> Probe:
        """Asks for some instances, to see whether the service answers, its revision, its rate limit, and its clock.

        Raises:
            LaterError: as `walk`.
        """

        def read(answer: Answer) -> Probe:
            limit, window_seconds = rate_limit_in(answer.headers) or (None, None)
            return Probe(
                revision=_first_instances_in(answer).revision,
                limit=limit,
                window_seconds=window_seconds,
                server_time=server_time_in(answer.headers),
            )

        probe = await self._exchange.get(INSTANCES_PATH, question=Question("instances"), read=read, tally=Tally())
        if self._tells_itself:
            self._note_revision(probe.revision)
        return probe

    # Which revision it is

    async def _first_instances(self) -> _FirstInstances:
        return await self._exchange.get(
            INSTANCES_PATH, question=Question("instances"), read=_first_instances_in, tally=Tally()
        )

    def _note_revision(self, revision: Revision) -> None:
        before, self._revision = self._revision, revision
        if before is revision:
            return
        self._memory.keep(revision)
        if before is not None:
            changed = RevisionChanged(before.name, revision.name)
            # Whoever listens will say it.
            logger.log(logging.INFO if self._on_event else logging.WARNING, "%s", changed)
            self._tell(changed)

    async def _has_left(self, revision: Revision) -> bool:
        """Whether the service speaks another revision by now, as its instances tell."""
        async with self._asking_revision:
            if self._revision is revision:
                self._note_revision((await self._first_instances()).revision)
            return self._revision is not revision

    async def _in_its_revision(
        self,
        what: str,
        *,
        paged: Callable[[], Awaitable[_Result]],
        by_cursor: Callable[[], Awaitable[_Result]],
    ) -> _Result:
        """Asks in the revision that the service speaks, and once more where it has changed under the asking."""
        for _ in range(REVISIONS_OF_A_WALK):
            revision = await self.revision()
            try:
                return await (paged if revision.has_totals else by_cursor)()
            except _RevisionLeft:
                continue
        raise ContractBroken(
            f"{what}: the service answers now in one revision of the API, now in another. Try again later, or set the"
            " one that it should speak (LATER_API_REVISION)."
        )

    async def _get_list(
        self,
        path: str,
        parameters: Sequence[tuple[str, str]],
        *,
        revision: Revision,
        question: Question,
        read: Callable[[bytes], _Result],
        tally: Tally,
    ) -> _Result:
        """A page of a list, asked for in a revision.

        Raises:
            _RevisionLeft: the service speaks the other one.
        """

        def read_body(answer: Answer) -> _Result:
            try:
                return read(answer.body)
            except OtherRevision as other:
                if self._tells_itself:
                    raise
                raise UnreadablePage(str(other)) from None  # it was said to speak this one: perhaps the next time

        try:
            return await self._exchange.get(
                f"{path}?{urlencode(parameters)}", question=question, read=read_body, tally=tally
            )
        except OtherRevision as other:
            self._note_revision(other.revision)
            raise _RevisionLeft from None
        except QueryRefused as error:
            if self._tells_itself and error.status == 400 and await self._has_left(revision):
                raise _RevisionLeft from None
            raise

    async def _until_it_adds_up(
        self, what: str, attempt: Callable[[], Awaitable[_Result]], *, advice: str = "Try later."
    ) -> _Result:
        """Walks all pages, and once more when they are no whole answer.

        Raises:
            WalkInconsistent: they were none each time.
        """
        problem: str | None = None
        for _ in range(WALKS):
            if problem is not None:
                logger.info("%s: %s; all pages again", what, problem)
                self._tell(WalkRepeated(problem))
            try:
                return await attempt()
            except _Misfit as misfit:
                problem = str(misfit)
        raise WalkInconsistent(
            f"{what}: walked {WALKS} times, and the pages do not add up: {problem}. Nothing of it was used. {advice}"
        )

    def _looks_twice(self, revision: Revision) -> bool:
        return self._random() < self._second_looks.get(revision, 0.0)

    # Numbered pages

    async def _instances_by_page(self) -> tuple[str, ...]:
        async def fetch(place: Place) -> InstancesPage:
            return await self._get_list(
                INSTANCES_PATH,
                _page_parameters(PAGED, place.number),
                revision=PAGED,
                question=Question(f"instances, {place}"),
                read=instances_page_from_body,
                tally=Tally(),
            )

        async def attempt() -> tuple[str, ...]:
            pages, _ = await _all_pages(
                "instances", fetch, both_ends=False, rows_of=lambda page: len(page.data.instance_ids)
            )
            if problem := problem_of_instances(pages):
                raise _Misfit(problem)
            return tuple(instance_id for page in pages for instance_id in page.data.instance_ids)

        return await self._until_it_adds_up("instances", attempt)

    async def _walk_by_page(self, asked: _Asked, *, most_posts: int | None) -> Walk:
        query, tally = asked.query, asked.tally

        async def fetch(place: Place) -> Page:
            asked_page = as_walked(query, place)
            page = await self._get_list(
                POSTS_PERFORMANCE_PATH,
                asked_page.parameters(PAGED),
                revision=PAGED,
                question=question_of(asked_page),
                read=partial(page_from_body, metrics=metrics_asked_for(query.metrics)),
                tally=tally,
            )
            total_items = page.pagination.total_items
            pages = pages_in(page.pagination)
            self._tell(PageFetched(place.number, pages, rows=_rows_of(page), total_items=total_items))
            return page

        async def both_ends() -> tuple[list[Page], list[Page]]:
            pages, from_the_end = await _all_pages(
                describe(query), fetch, both_ends=True, most_items=most_posts, rows_of=_rows_of
            )
            if problem := problem_of(query, pages, from_the_end):
                raise _Misfit(problem)
            return pages, from_the_end

        async def attempt() -> Walk:
            pages, from_the_end = await both_ends()
            # A single page is of one moment: nothing slips from it to another.
            if len(pages) > 1 and self._looks_twice(PAGED):
                _check_second_look(keys_of([*pages, *from_the_end]), keys_of(sum(await both_ends(), [])))
            posts, bad_rows = without_overlap(pages, from_the_end)
            return Walk(
                query=query,
                posts=posts,
                bad_rows=bad_rows,
                total_items=pages[0].pagination.total_items,
                pages=len(pages) + len(from_the_end),
                requests=tally.requests,
                retries=tally.retries,
            )

        return await self._until_it_adds_up(describe(query), attempt, advice=ADVICE_ON_POSTS)

    # Cursors

    async def _instances_by_cursor(self) -> tuple[str, ...]:
        async def fetch(cursor: str | None) -> InstancesCursorPage:
            return await self._get_list(
                INSTANCES_PATH,
                _page_parameters(CURSOR, cursor),
                revision=CURSOR,
                question=Question("instances"),
                read=instances_cursor_page_from_body,
                tally=Tally(),
            )

        async def attempt() -> tuple[str, ...]:
            ids: list[str] = []
            cursors: list[str | None] = [None]
            while True:
                try:
                    page = await fetch(cursors[-1])
                except QueryRefused as error:
                    if cursors[-1] is None:
                        raise
                    raise _Misfit(f"its cursor was refused: {error}") from None
                ids += page.data.instance_ids
                if problem := repeated(ids):
                    raise _Misfit(problem)
                if page.next_cursor is None:
                    return tuple(ids)
                if page.next_cursor in cursors:
                    raise _Misfit(f"page {len(cursors)} leads to one that was there already")
                cursors.append(page.next_cursor)

        return await self._until_it_adds_up("instances", attempt)

    async def _walk_by_cursor(self, asked: _Asked, *, reach: Reach | None) -> Walk:
        async def attempt() -> Walk:
            nonlocal reach
            trail = Trail(asked.query)
            try:
                await self._follow(trail, asked, reach=reach)
                posts, bad_rows = trail.rows_until(asked.query.end_date)
                if self._looks_twice(CURSOR):
                    second = Trail(asked.query)
                    await self._follow(second, asked, reach=None)
                    _check_second_look([*(post.key for post in posts), *(row.raw for row in bad_rows)], second.keys)
            except _Misfit:
                if not trail.is_in_order:
                    reach = None  # days are told apart by their order: such an answer has to be walked to its end
                raise
            return Walk(
                query=asked.query,
                posts=posts,
                bad_rows=bad_rows,
                total_items=len(posts) + len(bad_rows),
                pages=trail.pages,
                requests=asked.tally.requests,
                retries=asked.tally.retries,
            )

        return await self._until_it_adds_up(describe(asked.query), attempt, advice=ADVICE_ON_POSTS)

    async def _follow(self, trail: Trail, asked: _Asked, *, reach: Reach | None) -> None:
        """Walks page by page, as far as the query is wanted.

        Raises:
            _Misfit: what came is no whole answer.
        """
        query, cursor = asked.query, None
        while True:
            number = trail.pages + 1
            try:
                page = await self._cursor_page(query, cursor, number=number, tally=asked.tally)
                if is_suspiciously_short(page):
                    again = await self._cursor_page(query, cursor, number=number, tally=asked.tally)
                    if not same_rows(page, again):
                        raise _Misfit(f"page {number} has other rows each time")
            except QueryRefused as error:
                if cursor is None:
                    raise
                raise _Misfit(f"the cursor to page {number} was refused: {error}") from None
            if problem := trail.add(page):
                raise _Misfit(problem)
            if page.next_cursor is None:
                await self._check_end(trail, page, query=query, tally=asked.tally)
                return
            if reach is not None and trail.latest is not None:
                asked.query = replace(asked.query, end_date=reach(trail.rows, trail.latest))
                if trail.latest.date() > asked.query.end_date:
                    if not trail.is_in_order:
                        raise _Misfit("the posts are not in the order of their days")
                    return
            cursor = page.next_cursor

    async def _check_end(self, trail: Trail, last: CursorPage, *, query: PostPerformanceQuery, tally: Tally) -> None:
        if is_suspiciously_full(last):
            newest = as_walked(query, Place(1, from_the_end=True))
            page = await self._cursor_page(newest, None, number=1, tally=tally)
            if missed := set(keys_of([page])) - trail.keys:
                raise _Misfit(f"{len(missed)} rows at the end did not come, although the last page was full")

    async def _cursor_page(
        self, query: PostPerformanceQuery, cursor: str | None, *, number: int, tally: Tally
    ) -> CursorPage:
        asked_page = query if query.sort_direction is SortDirection.DESC else as_walked(query, cursor=cursor)
        try:
            page = await self._get_list(
                POSTS_PERFORMANCE_PATH,
                asked_page.parameters(CURSOR),
                revision=CURSOR,
                question=question_of(query, page=number),
                read=partial(cursor_page_from_body, metrics=metrics_asked_for(query.metrics)),
                tally=tally,
            )
        except QueryRefused as error:
            # The service tells by words alone what it is that it refuses; they decide no more than what is tried next.
            if cursor is None and error.status == 400 and METRICS_MEMBER in error.detail:
                raise MetricsRefused(str(error), detail=error.detail) from None
            raise
        self._tell(PageFetched(number, None, rows=_rows_of(page), total_items=None))
        return page

    def _tell(self, event: ClientEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)


class _Misfit(Exception):  # noqa: N818 - named for what it is
    """The pages are not one whole answer, and why."""


class _RevisionLeft(Exception):  # noqa: N818 - named for what it is
    """The service does not speak the revision any more in which it was asked."""


async def _all_pages(
    what: str,
    fetch: Callable[[Place], Coroutine[Any, Any, _PageType]],
    *,
    both_ends: bool,
    most_items: int | None = None,
    rows_of: Callable[[_PageType], int],
) -> tuple[list[_PageType], list[_PageType]]:
    """Page 1, then the others at once, those from the end apart.

    Raises:
        TooManyPosts: there are more than are wanted, or than can be reached; only page 1 was fetched.
        _Misfit: a page does not belong to the answer that page 1 began.
    """

    async def fetch_fitting(place: Place, first: Pagination | None = None) -> _PageType:
        page = await fetch(place)
        if problem := problem_of_page(place, page.pagination, rows=rows_of(page), first=first or page.pagination):
            raise _Misfit(problem)  # at once: each page that follows would be a request for nothing
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


def _check_second_look(first: Iterable[Hashable], second: Iterable[Hashable]) -> None:
    if differ := {*first} ^ {*second}:
        raise _Misfit(f"at a second look {len(differ)} rows were others")


async def _together(work: Sequence[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Runs all at once; the first failure ends the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def _first_instances_in(answer: Answer) -> _FirstInstances:
    try:
        page = instances_page_from_body(answer.body)
    except OtherRevision:
        by_cursor = instances_cursor_page_from_body(answer.body)
        return _FirstInstances(CURSOR, tuple(by_cursor.data.instance_ids), are_all=by_cursor.next_cursor is None)
    ids = tuple(page.data.instance_ids)
    return _FirstInstances(PAGED, ids, are_all=problem_of_instances([page]) is None)


def _rows_of(page: Page | CursorPage) -> int:
    return len(page.posts) + len(page.bad_rows)


def _page_parameters(revision: Revision, place: int | str | None) -> list[tuple[str, str]]:
    size = (revision.size_parameter, str(MAXIMUM_PAGE_SIZE))
    return [size] if place is None else [size, (revision.place_parameter, str(place))]
