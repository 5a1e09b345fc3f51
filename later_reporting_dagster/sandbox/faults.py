"""The sandbox with faults: what servers, proxies and networks do to answers, done for real and on demand."""

import asyncio
import gzip
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from random import Random
from typing import Any

import msgspec
import numpy as np
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.contract.enums import ProblemType, SortProperty
from later_reporting_dagster.contract.limits import INSTANCES_PATH, POSTS_PERFORMANCE_PATH, TOKEN_PATH
from later_reporting_dagster.contract.revision import CURSOR, PAGED, REVISIONS, Revision
from later_reporting_dagster.sandbox.answers import envelope, matching_rows, nested, rendered
from later_reporting_dagster.sandbox.chances import checked_chances, drawn
from later_reporting_dagster.sandbox.hostile import HostileRows
from later_reporting_dagster.sandbox.parameters import PageRequest, Question
from later_reporting_dagster.sandbox.problems import Refusal, invalid, problem
from later_reporting_dagster.sandbox.service import SandboxOptions, create_app
from later_reporting_dagster.sandbox.world import IntArray, World

Document = dict[str, Any]

FAULTS_HEADER = "X-Sandbox-Faults"
"""With `off`, a request is answered by what is true now: the data as it is, hostile rows included, and no fault."""

LATE_SHARE = 0.02  # of all posts, when posts are to arrive during a walk
_CHUNK = b" " * 2**20
_BEFORE_ANYTHING = -1
_HTML = b"<!DOCTYPE html>\n<html><head><title>%s</title></head><body><h1>%s</h1></body></html>\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSettings:
    """How bad the faults are.

    Attributes:
        retry_after_seconds: What a 429 asks to wait.
        slow_seconds: How long a slow answer takes: longer than the 30 seconds that clients commonly wait.
        huge_bytes: Size of a huge body.
        redirect_to: Where a redirect leads.
        changes: How many posts at most arrive, and how many vanish, while the sandbox runs.
        switches: How often at most the service begins to speak the other revision.
    """

    retry_after_seconds: int = 1
    slow_seconds: float = 45.0
    huge_bytes: int = 200 * 2**20
    redirect_to: str = "http://127.0.0.1:9/"
    changes: int = 20
    switches: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes over the wire, and how.

    Attributes:
        status: HTTP status.
        headers: By lower-case name, without the length of the body.
        body: As sent.
        delay: Seconds of silence before it.
        padding: Bytes of white space before the body's last byte, sent without telling a length.
        closes_at: Bytes of the body after which the connection is closed, negative before the status line; None: never.
        revokes: Whether the token that asked is good no longer.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    padding: int = 0
    closes_at: int | None = None
    revokes: bool = False


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What an altered answer may depend on: its own chance, the settings, and seconds since the epoch."""

    random: Random
    settings: FaultSettings
    now: float


@dataclass(frozen=True, slots=True)
class WireFault:
    """Replaces or damages a good answer; one that is not good passes as it is.

    With `refuses` the service is not asked, as when the rate limit itself refuses: the request does not count.
    """

    name: str
    description: str
    change: Callable[[Answer, Circumstances], Answer]
    routes: tuple[str, ...] = (TOKEN_PATH, INSTANCES_PATH, POSTS_PERFORMANCE_PATH)
    refuses: bool = False
    revisions: tuple[Revision, ...] = (PAGED, CURSOR)


@dataclass(frozen=True, slots=True)
class PageFault:
    """Answers a page of posts otherwise; None when it cannot with this page, which is then answered as it is due.

    `revisions` are those whose pages can be so.
    """

    name: str
    description: str
    change: Callable[["AskedPage"], Document | None]
    revisions: tuple[Revision, ...] = (PAGED, CURSOR)


@dataclass(frozen=True, slots=True)
class RevisionFault:
    """From the request that draws it on, the service speaks the other revision."""

    name: str
    description: str
    revisions: tuple[Revision, ...] = (PAGED, CURSOR)


Fault = WireFault | PageFault | RevisionFault


class FaultySandbox:
    """The service over `world` with faults, as an ASGI application. It has to be the outermost one.

    A request's fate hangs on the seed, on its method and URL, and on how often these were asked for: not on what runs
    beside it. A fault that cannot be with a request, as a repeated page with the first, leaves it alone. Closing a
    connection needs uvicorn.

    Attributes:
        injected: How many faults of each kind were injected.
        altered: By the kind of hostile row, the true keys of the rows that were altered and served.

    Args:
        world: What there is to report.
        faults: Probabilities by the names of `FAULTS`; together at most 1.
        hostile: Shares of all rows by the names of `HOSTILE`; together at most 1.
        seed: Another seed is another course of events.
        settings: How bad the faults are.
        options: How the service behaves otherwise.
        clock: Seconds since the epoch.
        sleep: Waits for latency and for slow answers.

    Raises:
        ValueError: a name or a probability is wrong, or the options are.
    """

    def __init__(
        self,
        world: World,
        *,
        faults: Mapping[str, float] | None = None,
        hostile: Mapping[str, float] | None = None,
        seed: int = 0,
        settings: FaultSettings | None = None,
        options: SandboxOptions | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._faults = checked_chances(faults or {}, known=FAULTS, what="fault")
        self._seed = seed
        self._settings = settings or FaultSettings()
        self._options = options or SandboxOptions()
        self._revision = self._options.revision
        self._switches = 0
        self._clock = clock
        self._sleep = sleep
        self._hostile = HostileRows(hostile or {}, seed=seed)
        late_seed = seed if {"post-inserted", "post-exchanged"} & self._faults.keys() else None
        self._posts = ServedPosts(world, alter=self._hostile, late_seed=late_seed)
        self._app: ASGIApp = create_app(
            world,
            options=self._options,
            clock=clock,
            sleep=sleep,
            answer=self._answer_page,
            revision=lambda: self._revision,
        )
        self._times_asked: Counter[str] = Counter()
        self._revoked: set[str] = set()
        self.injected = Counter(dict.fromkeys(self._faults, 0))

    @property
    def altered(self) -> Mapping[str, set[tuple[str, int, int]]]:
        """By the kind of hostile row, the true keys of the rows that were altered and served."""
        return self._hostile.altered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or does to it what it has drawn."""
        headers = Headers(scope=scope)
        authorization = headers.get("authorization", "")
        if authorization in self._revoked:
            scope = {**scope, "headers": list(scope["headers"])}
            MutableHeaders(scope=scope)["authorization"] = "Bearer revoked"
        path = scope["path"]
        fault, random = self._drawn(scope) if headers.get(FAULTS_HEADER) != "off" else (None, Random(0))
        _drawn_page_fault.set((fault, random) if isinstance(fault, PageFault) else None)
        if isinstance(fault, RevisionFault) and path != TOKEN_PATH:
            self._switch(fault)
        befallen = isinstance(fault, WireFault) and path in fault.routes
        if not befallen and path != TOKEN_PATH:
            await self._app(scope, receive, send)
            return
        if isinstance(fault, WireFault) and fault.refuses:
            answer = Answer(200, {name.lower(): value for name, value in self._options.rate_limit_headers.items()})
        else:
            answer = await self._asked(scope, receive)
        if isinstance(fault, WireFault) and befallen and answer.status == HTTPStatus.OK:
            answer = fault.change(answer, Circumstances(random, self._settings, self._clock()))
            self.injected[fault.name] += 1
            if answer.revokes:
                self._revoked.add(authorization)
        await self._deliver(answer, receive, send)

    def _drawn(self, scope: Scope) -> tuple[Fault | None, Random]:
        asked = f"{scope['method']} {scope['path']}?{scope['query_string'].decode('latin-1')}"
        self._times_asked[asked] += 1
        random = Random(f"{self._seed} {asked} {self._times_asked[asked]}")
        name = drawn(self._faults, random)
        return FAULTS[name] if name else None, random

    def _switch(self, fault: RevisionFault) -> None:
        if self._switches < self._settings.switches:
            self._revision = next(each for each in REVISIONS.values() if each is not self._revision)
            self._switches += 1
            self.injected[fault.name] += 1

    def _answer_page(self, question: Question, page: PageRequest) -> Document:
        if (drawn_fault := _drawn_page_fault.get()) and page.revision in drawn_fault[0].revisions:
            fault, random = drawn_fault
            try:
                answer = fault.change(AskedPage(self._posts, question, page, random, self._settings))
            except Refusal:
                self.injected[fault.name] += 1
                raise
            if answer is not None:
                self.injected[fault.name] += 1
                return answer
        return self._posts.page(question, page)

    async def _asked(self, scope: Scope, receive: Receive) -> Answer:
        """The service's own answer."""
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in messages[0]["headers"]}
        headers.pop("content-length", None)
        body = b"".join(message["body"] for message in messages[1:])
        if scope["path"] == TOKEN_PATH and messages[0]["status"] == HTTPStatus.OK:
            # Tokens of one second are equal: this one is good again.
            self._revoked.discard(f"Bearer {msgspec.json.decode(body)['jwt']}")
        return Answer(messages[0]["status"], headers, body)

    async def _deliver(self, answer: Answer, receive: Receive, send: Send) -> None:
        if answer.delay:
            await self._wait(answer.delay, receive)
        if answer.closes_at == _BEFORE_ANYTHING:
            await _hang_up(receive, send)
            return
        headers = {**answer.headers} if answer.padding else {**answer.headers, "content-length": str(len(answer.body))}
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
        if answer.closes_at is not None:
            await send({"type": "http.response.body", "body": answer.body[: answer.closes_at], "more_body": True})
            await _hang_up(receive, send)
            return
        body = answer.body
        if answer.padding:
            await send({"type": "http.response.body", "body": body[:-1], "more_body": True})
            for start in range(0, answer.padding, len(_CHUNK)):
                chunk = _CHUNK[: answer.padding - start]
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            body = body[-1:]
        await send({"type": "http.response.body", "body": body})

    async def _wait(self, seconds: float, receive: Receive) -> None:
        """Waits, but no longer than the client does, so that the sandbox can be ended."""
        waits = [asyncio.ensure_future(wait) for wait in (self._sleep(seconds), _disconnected(receive))]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()


_drawn_page_fault: ContextVar[tuple[PageFault, Random] | None] = ContextVar("drawn page fault", default=None)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _hang_up(receive: Receive, send: Send) -> None:
    """Closes the connection under an answer, for which ASGI has no word: uvicorn's `send` knows its transport."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionError("this server does not let an application close a connection: use uvicorn, and no wrapper")
    transport.close()
    await _disconnected(receive)


class ServedPosts:
    """The posts as they are served now: some have not arrived yet, some have vanished, hostile ones are altered.

    Args:
        world: all posts, ever.
        alter: makes of a row what is served.
        late_seed: chooses posts that have not arrived yet; None: all have.
    """

    def __init__(
        self, world: World, *, alter: Callable[[Document], Document | msgspec.Raw], late_seed: int | None = None
    ) -> None:
        self._world = world
        self._alter = alter
        self._ever = lru_cache(maxsize=32)(lambda question: matching_rows(world, question))
        count = len(world.posts)
        self._late = np.zeros(count, dtype=np.bool_)
        if late_seed is not None:
            self._late = np.random.default_rng(late_seed).random(count) < LATE_SHARE
        self._vanished = np.zeros(count, dtype=np.bool_)
        self._arrivals = self._departures = 0

    def rows(self, question: Question) -> IntArray:
        """Positions of all posts that answer the question now, in its order."""
        ever = self._ever(question)
        return ever[~(self._late[ever] | self._vanished[ever])]

    def page(self, question: Question, page: PageRequest) -> Document:
        """A page as it is due. What comes or goes meanwhile moves no place that a cursor leads to."""
        if page.revision.has_totals:
            return self.page_of(question, page, self.rows(question))
        ever = self._ever(question)
        places = np.flatnonzero(~(self._late[ever] | self._vanished[ever]))
        places = places[places >= page.start]
        here, after = places[: page.size], places[page.size :]
        following = int(after[0]) if len(after) else len(ever)
        return envelope(self._shown(question, ever[here]), page=page, total=len(ever), next_start=following)

    def page_of(self, question: Question, page: PageRequest, rows: IntArray) -> Document:
        """A page of `rows`."""
        return envelope(self._shown(question, rows[page.rows]), page=page, total=len(rows))

    def _shown(self, question: Question, rows: IntArray) -> list[Any]:
        return [nested(self._alter(row), question) for row in rendered(self._world, question, rows)]

    def days(self, rows: IntArray) -> IntArray:
        """The days on which posts were published, as ordinals."""
        return self._world.posts.day[rows]

    def one_arrives(self, question: Question, *, random: Random, at_most: int) -> bool:
        """Lets in a post that answers the question, if one is late and not so many have arrived already."""
        ever = self._ever(question)
        late = ever[self._late[ever]]
        if not len(late) or self._arrivals >= at_most:
            return False
        self._late[random.choice(late.tolist())] = False
        self._arrivals += 1
        return True

    def one_vanishes(self, question: Question, *, random: Random, at_most: int) -> bool:
        """Takes away a post that answers the question for good, unless so many have vanished already."""
        rows = self.rows(question)
        if not len(rows) or self._departures >= at_most:
            return False
        self._vanished[random.choice(rows.tolist())] = True
        self._departures += 1
        return True


@dataclass(frozen=True, slots=True)
class AskedPage:
    """A page of posts that was asked for, and all that a fault needs to answer it otherwise."""

    posts: ServedPosts
    question: Question
    page: PageRequest
    random: Random
    settings: FaultSettings

    def as_due(self) -> Document:
        """The right answer."""
        return self.posts.page(self.question, self.page)


# Answers instead of the service's own. All but a refused one have been counted by the rate limit.


def _instead(answer: Answer, status: int, body: bytes, content_type: str, **headers: str) -> Answer:
    """Another answer, with the rate-limit headers that every answer carries [D]."""
    kept = {name: value for name, value in answer.headers.items() if name.startswith("x-ratelimit-")}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(answer, status=status, body=body, headers={**kept, "content-type": content_type, **more})


def _page_of_html(answer: Answer, status: HTTPStatus, title: str) -> Answer:
    return _instead(answer, status, _HTML % (title.encode(), title.encode()), "text/html; charset=utf-8")


def _problem(answer: Answer, status: HTTPStatus, problem_type: ProblemType, detail: str) -> Answer:
    return _instead(answer, status, bytes(problem(status, problem_type, detail).body), "application/problem+json")


def _too_many(answer: Answer, **headers: str) -> Answer:
    return _instead(answer, HTTPStatus.TOO_MANY_REQUESTS, b"Too Many Requests", "text/plain", **headers)


def _http_date(given: Circumstances) -> str:
    return formatdate(math.ceil(given.now) + given.settings.retry_after_seconds, usegmt=True)


def _revoked(answer: Answer, given: Circumstances) -> Answer:
    detail = "the bearer token is invalid or has expired"
    return replace(_problem(answer, HTTPStatus.UNAUTHORIZED, ProblemType.UNAUTHORIZED, detail), revokes=True)


def _encoded(answer: Answer, body: bytes, encoding: str) -> Answer:
    return replace(answer, body=body, headers={**answer.headers, "content-encoding": encoding})


def _brotli(body: bytes) -> bytes:
    import pyarrow as pa  # slow to import, and seldom needed

    return bytes(pa.compress(body, codec="brotli", asbytes=True))


def _gzip_cut(answer: Answer, given: Circumstances) -> Answer:
    whole = gzip.compress(answer.body, mtime=0)
    return _encoded(answer, whole[: given.random.randrange(1, len(whole) - 8)], "gzip")  # 8: the checksum


# Pages otherwise than they are due.


def _with_total(asked: AskedPage, change: Callable[[int, int], int]) -> Document | None:
    """The page with another total; `change` makes it of the true total and the page size. None if it is the same."""
    due = asked.as_due()
    true = due["pagination"]["totalItems"]
    total = change(true, asked.page.size)
    if total < 0 or total == true:
        return None
    return envelope(due["data"], page=asked.page, total=total)


def _without_pagination(asked: AskedPage) -> Document:
    return {"data": asked.as_due()["data"]}


def _previous_rows(asked: AskedPage) -> Document | None:
    if asked.page.start == 0 or not asked.as_due()["data"]:
        return None
    previous = asked.posts.page(asked.question, replace(asked.page, start=max(0, asked.page.start - asked.page.size)))
    return asked.as_due() | {"data": previous["data"]}


def _shuffled(asked: AskedPage) -> Document | None:
    """As if posts were sorted by their day alone, and the order within a day left to chance."""
    rows = asked.posts.rows(asked.question)
    if asked.question.sort_property is not SortProperty.POST_DATE or len(rows) < 2:
        return None
    days = asked.posts.days(rows)
    by_chance = np.array(asked.random.sample(range(len(rows)), len(rows)))
    day_number = np.cumsum(np.diff(days, prepend=days[0]) != 0)  # in the order that was asked for
    return asked.posts.page_of(asked.question, asked.page, rows[np.lexsort((by_chance, day_number))])


def _with_last_row(asked: AskedPage, change: Callable[[Document], Document]) -> Document | None:
    due = asked.as_due()
    if not due["data"]:
        return None
    return due | {"data": [*due["data"][:-1], change(due["data"][-1])]}


def _with_row_of_another_day(asked: AskedPage) -> Document | None:
    day = asked.question.end + timedelta(days=1)
    return _with_last_row(asked, lambda row: row | {"postDate": f"{day}T00:00:00.000Z"})


def _with_row_of_another_instance(asked: AskedPage) -> Document | None:
    return _with_last_row(asked, lambda row: row | {"instanceId": "instance_of_somebody_else"})


def _short(asked: AskedPage) -> Document | None:
    due = asked.as_due()
    if _is_last(asked.page, due):
        return None
    return due | {"data": due["data"][: asked.random.randrange(len(due["data"]))]}


def _is_last(page: PageRequest, due: Document) -> bool:
    return page.number >= due["pagination"]["totalPages"] if page.revision.has_totals else due["nextCursor"] is None


def _without_cursor(asked: AskedPage) -> Document:
    return {"data": asked.as_due()["data"]}


def _with_its_own_cursor(asked: AskedPage) -> Document | None:
    due = asked.as_due()
    return None if _is_last(asked.page, due) else due | {"nextCursor": asked.page.cursor_to(asked.page.start)}


def _without_what_follows(asked: AskedPage) -> Document | None:
    due = asked.as_due()
    return None if _is_last(asked.page, due) else due | {"nextCursor": None}


def _refused_cursor(asked: AskedPage) -> Document | None:
    if asked.page.start == 0:
        return None
    raise invalid("nextCursor is invalid, has expired, or belongs to a query with other parameters")


def _after_an_arrival(asked: AskedPage) -> Document | None:
    at_most = asked.settings.changes
    happened = asked.posts.one_arrives(asked.question, random=asked.random, at_most=at_most)
    return asked.as_due() if happened else None


def _after_a_departure(asked: AskedPage) -> Document | None:
    at_most = asked.settings.changes
    happened = asked.posts.one_vanishes(asked.question, random=asked.random, at_most=at_most)
    return asked.as_due() if happened else None


def _after_an_exchange(asked: AskedPage) -> Document | None:
    answer = _after_an_arrival(asked)
    return answer and (_after_a_departure(asked) or answer)


_DATA_PATHS = (INSTANCES_PATH, POSTS_PERFORMANCE_PATH)

FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        WireFault(
            "http-429-seconds",
            "429, Retry-After in seconds",
            lambda answer, given: _too_many(answer, retry_after=str(given.settings.retry_after_seconds)),
            refuses=True,
        ),
        WireFault(
            "http-429-date",
            "429, Retry-After as an HTTP date",
            lambda answer, given: _too_many(answer, retry_after=_http_date(given)),
            refuses=True,
        ),
        WireFault("http-429", "429 without Retry-After", lambda answer, _: _too_many(answer), refuses=True),
        WireFault(
            "http-500",
            "500 with the documented problem",
            lambda answer, _: _problem(
                answer, HTTPStatus.INTERNAL_SERVER_ERROR, ProblemType.INTERNAL, "an unexpected error occurred"
            ),
        ),
        WireFault(
            "http-503",
            "503 as plain text",
            lambda answer, _: _instead(answer, HTTPStatus.SERVICE_UNAVAILABLE, b"upstream connect error", "text/plain"),
        ),
        WireFault(
            "http-502-html",
            "502 with a page of HTML",
            lambda answer, _: _page_of_html(answer, HTTPStatus.BAD_GATEWAY, "502 Bad Gateway"),
        ),
        WireFault(
            "http-200-html",
            "200 with a page of HTML",
            lambda answer, _: _page_of_html(answer, HTTPStatus.OK, "Back soon"),
        ),
        WireFault(
            "connection-closed",
            "the connection is closed before any byte of the answer",
            lambda answer, _: replace(answer, closes_at=_BEFORE_ANYTHING),
        ),
        WireFault(
            "body-cut",
            "the connection is closed amid the body",
            lambda answer, given: replace(answer, closes_at=given.random.randrange(len(answer.body))),
        ),
        WireFault(
            "json-truncated",
            "a whole answer whose JSON is cut off",
            lambda answer, given: replace(answer, body=answer.body[: given.random.randrange(1, len(answer.body))]),
        ),
        WireFault(
            "slow",
            "an answer that takes longer than clients wait, 45 s",
            lambda answer, given: replace(answer, delay=given.settings.slow_seconds),
        ),
        WireFault(
            "huge-body",
            "the right answer, blown up to 200 MB by white space",
            lambda answer, given: replace(answer, padding=given.settings.huge_bytes - len(answer.body)),
        ),
        WireFault(
            "token-revoked",
            "401, and so for all that follows with the same token",
            _revoked,
            routes=_DATA_PATHS,
        ),
        WireFault(
            "token-route-down",
            "503 on the token route",
            lambda answer, _: _instead(answer, HTTPStatus.SERVICE_UNAVAILABLE, b"no healthy upstream", "text/plain"),
            routes=(TOKEN_PATH,),
        ),
        WireFault(
            "redirect",
            "302 to another host",
            lambda answer, given: _instead(
                answer, HTTPStatus.FOUND, b"", "text/plain", location=given.settings.redirect_to
            ),
        ),
        WireFault(
            "wrong-content-type",
            "the right answer, called text/html",
            lambda answer, _: replace(answer, headers={**answer.headers, "content-type": "text/html"}),
        ),
        WireFault(
            "gzip",
            "the right answer, compressed by gzip",
            lambda answer, _: _encoded(answer, gzip.compress(answer.body, mtime=0), "gzip"),
        ),
        WireFault(
            "brotli",
            "the right answer, compressed by brotli, asked for or not",
            lambda answer, _: _encoded(answer, _brotli(answer.body), "br"),
        ),
        WireFault("gzip-cut", "a gzip body that is cut off", _gzip_cut),
        PageFault("pagination-missing", "a page without `pagination`", _without_pagination, revisions=(PAGED,)),
        PageFault(
            "total-too-high",
            "totalItems is one more",
            lambda asked: _with_total(asked, lambda total, _: total + 1),
            revisions=(PAGED,),
        ),
        PageFault(
            "total-too-low",
            "totalItems is one less",
            lambda asked: _with_total(asked, lambda total, _: total - 1),
            revisions=(PAGED,),
        ),
        PageFault(
            "total-without-last-page",
            "totalItems leaves out the last page, if it is not the only one",
            lambda asked: _with_total(asked, lambda total, size: (total - 1) // size * size or total),
            revisions=(PAGED,),
        ),
        PageFault(
            "total-changing",
            "totalItems is more by another number in each answer",
            lambda asked: _with_total(asked, lambda total, _: total + asked.random.randint(1, 9)),
            revisions=(PAGED,),
        ),
        PageFault("cursor-missing", "a page without `nextCursor`", _without_cursor, revisions=(CURSOR,)),
        PageFault(
            "cursor-repeated", "nextCursor leads to the same page again", _with_its_own_cursor, revisions=(CURSOR,)
        ),
        PageFault(
            "cursor-null-early",
            "nextCursor is null on a page that is not the last",
            _without_what_follows,
            revisions=(CURSOR,),
        ),  # fmt: skip
        PageFault("cursor-expired", "400 for a cursor, as if it had expired", _refused_cursor, revisions=(CURSOR,)),
        RevisionFault("switch-revision", "from then on the service speaks the other revision, once"),
        PageFault("page-repeated", "a page has the rows of the one before it", _previous_rows),
        PageFault(
            "post-inserted", "a post arrives, up to 20 in all; until then a few are held back", _after_an_arrival
        ),
        PageFault("post-removed", "a post vanishes for good, up to 20 in all", _after_a_departure),
        PageFault(
            "post-exchanged",
            "a post arrives and another vanishes at once, so that totals do not tell, up to 20 times",
            _after_an_exchange,
        ),
        PageFault("ties-shuffled", "posts are sorted by day alone, within a day by chance", _shuffled),
        PageFault("post-outside-range", "a post has the date of the day after the range", _with_row_of_another_day),
        PageFault("post-of-other-instance", "a post is of an instance not asked for", _with_row_of_another_instance),
        PageFault("page-short", "a page that is not the last has fewer rows; they are nowhere else", _short),
    )
}
"""All faults, by name."""
