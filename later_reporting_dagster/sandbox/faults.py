"""What servers, proxies and networks do to answers: each fault by its name, as a change of what is due."""

import gzip
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import formatdate
from http import HTTPStatus
from random import Random

import numpy as np
import pyarrow as pa

from later_reporting_dagster.contract.api_version import CURSOR, PAGED, Revision
from later_reporting_dagster.contract.enums import ProblemType, SortProperty
from later_reporting_dagster.contract.limits import INSTANCES_PATH, POSTS_PERFORMANCE_PATH, TOKEN_PATH
from later_reporting_dagster.sandbox.post_pages import envelope
from later_reporting_dagster.sandbox.post_store import Document, ServedPosts
from later_reporting_dagster.sandbox.problem_responses import invalid, problem
from later_reporting_dagster.sandbox.query_parameters import PageRequest, Question

BEFORE_ANYTHING = -1
_ALL_PATHS = (TOKEN_PATH, INSTANCES_PATH, POSTS_PERFORMANCE_PATH)
_BOTH = (PAGED, CURSOR)
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
    """

    retry_after_seconds: int = 1
    slow_seconds: float = 45.0
    huge_bytes: int = 200 * 2**20
    redirect_to: str = "http://127.0.0.1:9/"
    changes: int = 20


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


WireChange = Callable[[Answer, Circumstances], Answer]


@dataclass(frozen=True, slots=True)
class WireFault:
    """Replaces or damages a good answer; one that is not good passes as it is.

    With `refuses` the service is not asked, as when the rate limit itself refuses: the request does not count.
    """

    name: str
    description: str
    change: WireChange
    routes: tuple[str, ...] = _ALL_PATHS
    refuses: bool = False
    revisions: tuple[Revision, ...] = _BOTH


PageChange = Callable[["AskedPage"], Document | None]


@dataclass(frozen=True, slots=True)
class PageFault:
    """Answers a page of posts otherwise; None when it cannot with this page, which is then answered as it is due.

    `revisions` are those whose pages can be so.
    """

    name: str
    description: str
    change: PageChange
    revisions: tuple[Revision, ...] = _BOTH


@dataclass(frozen=True, slots=True)
class RevisionFault:
    """From the first request that draws it on, the service speaks the other revision."""

    name: str
    description: str
    revisions: tuple[Revision, ...] = _BOTH


Fault = WireFault | PageFault | RevisionFault


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


def _text(status: HTTPStatus, body: bytes) -> WireChange:
    return lambda answer, _: _instead(answer, status, body, "text/plain")


def _html(status: HTTPStatus, title: bytes) -> WireChange:
    return lambda answer, _: _instead(answer, status, _HTML % (title, title), "text/html; charset=utf-8")


def _problem(answer: Answer, status: HTTPStatus, problem_type: ProblemType, detail: str) -> Answer:
    return _instead(answer, status, bytes(problem(status, problem_type, detail).body), "application/problem+json")


def _too_many(answer: Answer, **headers: str) -> Answer:
    return _instead(answer, HTTPStatus.TOO_MANY_REQUESTS, b"Too Many Requests", "text/plain", **headers)


def _http_date(given: Circumstances) -> str:
    return formatdate(math.ceil(given.now) + given.settings.retry_after_seconds, usegmt=True)


def _redirected(answer: Answer, given: Circumstances) -> Answer:
    return _instead(answer, HTTPStatus.FOUND, b"", "text/plain", location=given.settings.redirect_to)


def _failed(answer: Answer, _: Circumstances) -> Answer:
    detail = "an unexpected error occurred"
    return _problem(answer, HTTPStatus.INTERNAL_SERVER_ERROR, ProblemType.INTERNAL, detail)


def _revoked(answer: Answer, given: Circumstances) -> Answer:
    detail = "the bearer token is invalid or has expired"
    return replace(_problem(answer, HTTPStatus.UNAUTHORIZED, ProblemType.UNAUTHORIZED, detail), revokes=True)


def _encoded(answer: Answer, body: bytes, encoding: str) -> Answer:
    return replace(answer, body=body, headers={**answer.headers, "content-encoding": encoding})


def _gzip(answer: Answer, _: Circumstances) -> Answer:
    return _encoded(answer, gzip.compress(answer.body, mtime=0), "gzip")


def _brotli(answer: Answer, _: Circumstances) -> Answer:
    return _encoded(answer, bytes(pa.compress(answer.body, codec="brotli", asbytes=True)), "br")


def _gzip_cut(answer: Answer, given: Circumstances) -> Answer:
    whole = _gzip(answer, given)
    return replace(whole, body=whole.body[: given.random.randrange(1, len(whole.body) - 8)])  # 8: the checksum


# Pages otherwise than they are due.


def _with_total(change: Callable[[int, AskedPage], int]) -> PageChange:
    """The page with another total, that `change` makes of the true one. None if it is the same."""

    def changed(asked: AskedPage) -> Document | None:
        due = asked.as_due()
        true = due["pagination"]["totalItems"]
        total = change(true, asked)
        return None if total < 0 or total == true else envelope(due["data"], page=asked.page, total=total)

    return changed


def _without_last_page(total: int, asked: AskedPage) -> int:
    return (total - 1) // asked.page.size * asked.page.size or total


def _data_alone(asked: AskedPage) -> Document:
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


def _with_cursor(cursor_of: Callable[[PageRequest], str | None]) -> PageChange:
    """A page that is not the last, with another cursor to the next."""

    def changed(asked: AskedPage) -> Document | None:
        due = asked.as_due()
        return None if _is_last(asked.page, due) else due | {"nextCursor": cursor_of(asked.page)}

    return changed


def _refused_cursor(asked: AskedPage) -> Document | None:
    if asked.page.start == 0:
        return None
    raise invalid("nextCursor is invalid, has expired, or belongs to a query with other parameters")


def _after_an_arrival(asked: AskedPage) -> Document | None:
    arrived = asked.posts.one_arrives(asked.question, random=asked.random, at_most=asked.settings.changes)
    return asked.as_due() if arrived else None


def _after_a_departure(asked: AskedPage) -> Document | None:
    vanished = asked.posts.one_vanishes(asked.question, random=asked.random, at_most=asked.settings.changes)
    return asked.as_due() if vanished else None


def _after_an_exchange(asked: AskedPage) -> Document | None:
    answer = _after_an_arrival(asked)
    return answer and (_after_a_departure(asked) or answer)


_DATA_PATHS = (INSTANCES_PATH, POSTS_PERFORMANCE_PATH)
_PAGED, _CURSOR = (PAGED,), (CURSOR,)

_FAULTS: tuple[Fault, ...] = (
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
    WireFault("http-500", "500 with the documented problem", _failed),
    WireFault("http-503", "503 as plain text", _text(HTTPStatus.SERVICE_UNAVAILABLE, b"upstream connect error")),
    WireFault("http-502-html", "502 with a page of HTML", _html(HTTPStatus.BAD_GATEWAY, b"502 Bad Gateway")),
    WireFault("http-200-html", "200 with a page of HTML", _html(HTTPStatus.OK, b"Back soon")),
    WireFault(
        "connection-closed",
        "the connection is closed before any byte of the answer",
        lambda answer, _: replace(answer, closes_at=BEFORE_ANYTHING),
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
    WireFault("token-revoked", "401, and so for all that follows with the same token", _revoked, routes=_DATA_PATHS),
    WireFault(
        "token-route-down",
        "503 on the token route",
        _text(HTTPStatus.SERVICE_UNAVAILABLE, b"no healthy upstream"),
        routes=(TOKEN_PATH,),
    ),
    WireFault("redirect", "302 to another host", _redirected),
    WireFault(
        "wrong-content-type",
        "the right answer, called text/html",
        lambda answer, _: replace(answer, headers={**answer.headers, "content-type": "text/html"}),
    ),
    WireFault("gzip", "the right answer, compressed by gzip", _gzip),
    WireFault("brotli", "the right answer, compressed by brotli, asked for or not", _brotli),
    WireFault("gzip-cut", "a gzip body that is cut off", _gzip_cut),
    PageFault("pagination-missing", "a page without `pagination`", _data_alone, _PAGED),
    PageFault("total-too-high", "totalItems is one more", _with_total(lambda total, _: total + 1), _PAGED),
    PageFault("total-too-low", "totalItems is one less", _with_total(lambda total, _: total - 1), _PAGED),
    PageFault(
        "total-without-last-page",
        "totalItems leaves out the last page, if it is not the only one",
        _with_total(_without_last_page),
        _PAGED,
    ),
    PageFault(
        "total-changing",
        "totalItems is more by another number in each answer",
        _with_total(lambda total, asked: total + asked.random.randint(1, 9)),
        _PAGED,
    ),
    PageFault("cursor-missing", "a page without `nextCursor`", _data_alone, _CURSOR),
    PageFault(
        "cursor-repeated",
        "nextCursor leads to the same page again",
        _with_cursor(lambda page: page.cursor_to(page.start)),
        _CURSOR,
    ),
    PageFault(
        "cursor-null-early", "nextCursor is null on a page that is not the last", _with_cursor(lambda _: None), _CURSOR
    ),
    PageFault("cursor-expired", "400 for a cursor, as if it had expired", _refused_cursor, _CURSOR),
    RevisionFault("switch-revision", "from then on the service speaks the other revision, once"),
    PageFault("page-repeated", "a page has the rows of the one before it", _previous_rows),
    PageFault("post-inserted", "a post arrives, up to 20 in all; until then a few are held back", _after_an_arrival),
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

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _FAULTS}
"""All faults, by name."""
