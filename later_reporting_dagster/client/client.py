"""The contract over HTTP: one client that paces itself, renews its token, tries again, and hands out whole answers."""

import asyncio
import itertools
import json
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import urlencode

import httpx
import msgspec

from later_reporting_dagster.client.address import checked_base_url, is_loopback
from later_reporting_dagster.client.answers import (
    Answer,
    Question,
    describe,
    error_in,
    question_of,
    rate_limit_in,
    server_time_in,
    why_untrusted,
)
from later_reporting_dagster.client.auth import AccessToken, BearerAuth, ClientCredentials, is_header_safe
from later_reporting_dagster.client.errors import (
    ContractBroken,
    QueryRefused,
    Retriable,
    TooManyPosts,
    WalkInconsistent,
)
from later_reporting_dagster.client.events import ClientEvent, PageFetched, Retried, Waited, WalkRepeated
from later_reporting_dagster.client.limiter import RateLimiter
from later_reporting_dagster.client.retry import RetryPolicy
from later_reporting_dagster.client.walk import (
    FIRST,
    Place,
    Walk,
    as_walked,
    pages_in,
    places_after_first,
    problem_of,
    problem_of_instances,
    problem_of_page,
    without_overlap,
)
from later_reporting_dagster.contract import (
    INSTANCES_PATH,
    MAXIMUM_PAGE_SIZE,
    POSTS_PERFORMANCE_PATH,
    TOKEN_PATH,
    InstancesPage,
    Page,
    Pagination,
    PostPerformanceQuery,
    Problem,
    UnreadablePage,
    instances_page_from_body,
    metrics_asked_for,
    page_from_body,
)

logger = logging.getLogger(__name__)


def _holds_no_headers(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("receive_response_headers.complete")


# At its debug level httpcore logs the headers of each answer, and a service that echoes a request has the token there.
logging.getLogger("httpcore.http11").addFilter(_holds_no_headers)

MAXIMUM_BODY_BYTES = 32 * 2**20  # a page of 100 posts has about 70 KB
WALKS = 2
NOTABLE_WAIT_SECONDS = 1.0
# Shorter than the five seconds after which common servers close an idle connection under a request.
KEEPALIVE_SECONDS = 4.0


class _Paged(Protocol):
    @property
    def pagination(self) -> Pagination: ...


_Result = TypeVar("_Result")
_PageType = TypeVar("_PageType", bound=_Paged)


@dataclass(frozen=True, slots=True)
class Probe:
    """What one small answer tells of the service: its rate limit, and its clock in UTC; None where it says nothing."""

    limit: int | None
    window_seconds: float | None
    server_time: datetime | None


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    retries: int = 0


class _TokenAnswer(msgspec.Struct):
    jwt: str


class LaterClient:
    """Speaks to the Reporting API; an asynchronous context manager, for one event loop.

    Several walks may run at once: they share the connections, the token, the limiter and `concurrency`.

    Args:
        base_url: scheme and host of the service; https, unless it is loopback.
        credentials: client credentials, or a ready token.
        limiter: turns for every single request, retries and token requests included.
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
        self._base_url = checked_base_url(base_url)
        self._credentials = credentials
        self._limiter = limiter
        self._timeout_seconds = timeout_seconds
        self._retry = retry
        self._on_event = on_event
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._in_flight = asyncio.Semaphore(concurrency)
        if isinstance(credentials, AccessToken):
            self._auth = BearerAuth(take_turn=self._take_turn, token=credentials, clock=clock)
        else:
            self._auth = BearerAuth(take_turn=self._take_turn, fetch_token=self._fetch_token, clock=clock)
        self._http = httpx.AsyncClient(
            transport=transport,
            timeout=timeout_seconds,
            # One more than for the data: a request that waits for its token keeps its own place.
            limits=httpx.Limits(max_connections=concurrency + 1, keepalive_expiry=KEEPALIVE_SECONDS),
            headers={"Accept": "application/json", "User-Agent": "later-reporting-dagster"},
            event_hooks={"response": [self._learn_from]},
            follow_redirects=False,
            trust_env=not is_loopback(httpx.URL(self._base_url).host),  # no proxy stands before loopback
        )

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    async def instances(self) -> tuple[str, ...]:
        """The ids of all instances that the credentials reach, in the order of the service [D].

        Raises:
            LaterError: as `walk`.
        """

        async def fetch(place: Place) -> InstancesPage:
            return await self._get(
                f"{INSTANCES_PATH}?{_page_parameters(MAXIMUM_PAGE_SIZE, place.number)}",
                question=Question(f"instances, {place}"),
                read=lambda answer: instances_page_from_body(answer.body),
                tally=_Tally(),
            )

        pages, _ = await self._all_pages(
            "instances",
            fetch,
            both_ends=False,
            rows_of=lambda page: len(page.data.instance_ids),
            problem_in=lambda pages, _: problem_of_instances(pages),
        )
        return tuple(instance_id for page in pages for instance_id in page.data.instance_ids)

    async def walk(self, query: PostPerformanceQuery, *, most_posts: int | None = None) -> Walk:
        """The whole answer to a query, verified before anyone sees a row of it.

        Args:
            query: what to ask. Its page, page size and sorting do not matter: a walk has its own.
            most_posts: how many posts the caller wants at once; all that can be reached when None.

        Raises:
            TooManyPosts: it holds more than that, or than the service counts to; only its first page was fetched.
            WalkInconsistent: the pages did not add up, and did not when walked again.
            InstanceForbidden: the credentials do not reach one of its instances.
            QueryRefused: the service does not accept it.
            CredentialsRejected: nothing will be answered.
            ContractBroken: the answer is none of the document's.
            Retriable: it failed for longer than the retry policy covers.
        """
        tally, metrics = _Tally(), metrics_asked_for(query.metrics)

        async def fetch(place: Place) -> Page:
            asked_page = as_walked(query, place)
            page = await self._get(
                f"{POSTS_PERFORMANCE_PATH}?{urlencode(asked_page.parameters())}",
                question=question_of(asked_page),
                read=lambda answer: page_from_body(answer.body, metrics=metrics),
                tally=tally,
            )
            total_items = page.pagination.total_items
            pages = pages_in(page.pagination)
            self._tell(PageFetched(place.number, pages, rows=_rows_of(page), total_items=total_items))
            return page

        pages, from_the_end = await self._all_pages(
            describe(query),
            fetch,
            both_ends=True,
            most_items=most_posts,
            rows_of=_rows_of,
            problem_in=lambda pages, from_the_end: problem_of(query, pages, from_the_end),
        )
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

    async def probe(self) -> Probe:
        """Asks for one instance, to see whether the service answers, its rate limit, and its clock.

        Raises:
            LaterError: as `walk`.
        """

        def read(answer: Answer) -> Probe:
            instances_page_from_body(answer.body)
            limit, window_seconds = rate_limit_in(answer.headers) or (None, None)
            return Probe(limit=limit, window_seconds=window_seconds, server_time=server_time_in(answer.headers))

        url = f"{INSTANCES_PATH}?{_page_parameters(1, 1)}"
        return await self._get(url, question=Question("instances, page 1"), read=read, tally=_Tally())

    async def _all_pages(
        self,
        what: str,
        fetch: Callable[[Place], Coroutine[Any, Any, _PageType]],
        *,
        both_ends: bool,
        most_items: int | None = None,
        rows_of: Callable[[_PageType], int],
        problem_in: Callable[[Sequence[_PageType], Sequence[_PageType]], str | None],
    ) -> tuple[list[_PageType], list[_PageType]]:
        """Page 1, then the others at once, those from the end apart; all of them again if they do not add up."""

        async def fetch_fitting(place: Place, first: Pagination | None = None) -> _PageType:
            page = await fetch(place)
            if problem := problem_of_page(place, page.pagination, rows=rows_of(page), first=first or page.pagination):
                raise _Misfit(problem)  # at once: each page that follows would be a request for nothing
            return page

        problem: str | None = None
        for _ in range(WALKS):
            if problem is not None:
                logger.info("%s: %s; all pages again", what, problem)
                self._tell(WalkRepeated(problem))
            try:
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
                pages, from_the_end = [first, *rest][:count], [first, *rest][count:]
            except _Misfit as misfit:
                problem = str(misfit)
            else:
                if (problem := problem_in(pages, from_the_end)) is None:
                    return pages, from_the_end
        raise WalkInconsistent(
            f"{what}: walked {WALKS} times, and the pages do not add up: {problem}. Nothing of it was used. "
            "Posts may be arriving just now: try later, or ask for fewer days or instances at once."
        )

    async def _fetch_token(self) -> str:
        """Asks for a token, in a turn that the caller has taken."""
        credentials = self._credentials
        assert isinstance(credentials, ClientCredentials)
        body = {"clientId": credentials.client_id, "clientSecret": credentials.client_secret}
        request = self._http.build_request(
            "POST",
            f"{self._base_url}{TOKEN_PATH}",
            content=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        question = Question("token", is_for_token=True)
        return await self._ask(request, question=question, read=_token_in, tally=_Tally(), auth=None)

    async def _get(self, path: str, *, question: Question, read: Callable[[Answer], _Result], tally: _Tally) -> _Result:
        try:
            request = self._http.build_request("GET", f"{self._base_url}{path}")
        except httpx.InvalidURL as error:
            raise QueryRefused(f"{question.text}: {error}. Ask for fewer instances at once.") from None
        return await self._ask(request, question=question, read=read, tally=tally, auth=self._auth)

    async def _ask(
        self,
        request: httpx.Request,
        *,
        question: Question,
        read: Callable[[Answer], _Result],
        tally: _Tally,
        auth: BearerAuth | None,
    ) -> _Result:
        """Sends a request until it has a good answer, or one that no repetition would change."""
        for attempt in itertools.count(1):
            # The token request has no place among the data requests: they hold theirs while they wait for it.
            async with self._in_flight if auth else nullcontext():
                outcome = await self._attempt(
                    request, attempt=attempt, question=question, read=read, tally=tally, auth=auth
                )
            if not isinstance(outcome, Retriable):
                return outcome
            wait = self._retry.wait_after(attempt, asked_for=outcome.wait_seconds, jitter=self._random())
            if wait is None:
                raise Retriable(
                    f"{outcome}. Given up after {attempt} attempts: try again later.",
                    wait_seconds=outcome.wait_seconds,
                )
            logger.info("%s; again in %.1f s", outcome, wait)
            self._tell(Retried(str(outcome), wait))
            tally.retries += 1
            await self._sleep(wait)
            if auth is None:  # which would take a turn for each sending
                await self._take_turn()
        raise AssertionError("unreachable")

    async def _attempt(
        self,
        request: httpx.Request,
        *,
        attempt: int,
        question: Question,
        read: Callable[[Answer], _Result],
        tally: _Tally,
        auth: BearerAuth | None,
    ) -> _Result | Retriable:
        """Sends a request once. What may pass is returned, what is final is raised."""
        try:
            answer = await self._exchange(request, auth=auth, tally=tally)
        except (httpx.RequestError, TimeoutError, _BodyTooLarge) as error:
            if reason := why_untrusted(error):
                # No trust comes from asking again, and nothing was sent yet.
                raise ContractBroken(
                    f"{question.text}: {self._base_url} has a certificate that this machine does not trust: {reason}."
                    " Check the base URL; where a proxy opens TLS, name its certificate by SSL_CERT_FILE."
                ) from None
            return Retriable(f"{question.text}: {type(error).__name__} {error}".rstrip())
        if answer.status == 200:
            try:
                return read(answer)
            except UnreadablePage as error:
                return Retriable(f"{question.text}: HTTP 200, but {error}")
        unsaid_wait = self._retry.unsaid_wait_after(attempt, window_seconds=self._limiter.window_seconds)
        failure = error_in(answer, question, now=self._clock(), unsaid_wait_seconds=unsaid_wait)
        if not isinstance(failure, Retriable):
            raise failure
        if answer.status == 429 and failure.wait_seconds is not None:
            self._limiter.penalize(min(failure.wait_seconds, self._retry.longest_wait_seconds))
        return failure

    async def _exchange(self, request: httpx.Request, *, auth: BearerAuth | None, tally: _Tally) -> Answer:
        tally.requests += 1
        response = await self._http.send(request, auth=auth, stream=True)
        replays = len(response.history)
        tally.requests += replays
        tally.retries += replays
        try:
            async with asyncio.timeout(self._timeout_seconds):
                body = await _body_of(response)
        finally:
            await response.aclose()
        if response.status_code != 200:  # only such bodies are quoted
            body = self._quotable(body, sent=response.request)
        return Answer(response.status_code, response.headers, body)

    async def _take_turn(self) -> None:
        await self._limiter.acquire(on_wait=self._tell_of_wait)

    async def _learn_from(self, response: httpx.Response) -> None:
        if limit := rate_limit_in(response.headers):
            self._limiter.learn(limit=limit[0], window_seconds=limit[1])

    def _tell_of_wait(self, seconds: float) -> None:
        if seconds >= NOTABLE_WAIT_SECONDS:
            logger.info("%.1f s until the rate limit has room for the next request", seconds)
        self._tell(Waited(seconds, "rate limit"))

    def _tell(self, event: ClientEvent) -> None:
        if self._on_event is not None:
            self._on_event(event)

    def _quotable(self, body: bytes, *, sent: httpx.Request) -> bytes:
        """What may be quoted of a refusal, even if the service echoes what it was sent: a problem without secrets."""
        # The token that was sent may be another than the one that is in use by now.
        secrets = [self._auth.secret or "", sent.headers.get("Authorization", "").removeprefix("Bearer ")]
        if isinstance(self._credentials, ClientCredentials):
            secrets += [self._credentials.client_secret, self._credentials.client_id]
        return msgspec.json.encode(Problem.from_body(body).without(secrets))


class _Misfit(Exception):  # noqa: N818 - named for what it is
    """A page does not belong to the answer that page 1 began."""


class _BodyTooLarge(Exception):  # noqa: N818 - named for what it is
    """The body is longer than any that the contract could give."""


async def _together(work: Sequence[Coroutine[Any, Any, _Result]]) -> list[_Result]:
    """Runs all at once; the first failure ends the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _body_of(response: httpx.Response) -> bytes:
    size, chunks = 0, []
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > MAXIMUM_BODY_BYTES:
            raise _BodyTooLarge(f"more than {MAXIMUM_BODY_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def _token_in(answer: Answer) -> str:
    try:
        token = msgspec.json.decode(answer.body, type=_TokenAnswer).jwt
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        token = ""
    if not is_header_safe(token):
        raise UnreadablePage("not a token")  # and no more: the body may hold one
    return token


def _rows_of(page: Page) -> int:
    return len(page.posts) + len(page.bad_rows)


def _page_parameters(page_size: int, page_number: int) -> str:
    return urlencode({"pageSize": page_size, "pageNumber": page_number})
