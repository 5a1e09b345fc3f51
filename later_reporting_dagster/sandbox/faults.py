"""Faults of servers, proxies and networks, by name: each replaces or damages a correct response."""

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
from msgspec import structs

from later_reporting_dagster.contract.parameters import (
    CAMPAIGNS_PATH,
    CAMPAIGNS_PERFORMANCE_PATH,
    CURSOR,
    INSTANCES_PATH,
    PAGED,
    POSTS_PERFORMANCE_PATH,
    TOKEN_PATH,
    ApiVersion,
    ProblemType,
    SortProperty,
)
from later_reporting_dagster.endpoint.query_parameters import PostsQuery
from later_reporting_dagster.endpoint.responses import (
    JsonObject,
    PageRequest,
    expired_cursor,
    page_body,
    problem_response,
)
from later_reporting_dagster.sandbox.served_posts import RequestedPage, ServedPosts

CLOSE_BEFORE_STATUS_LINE = -1
_DATA_PATHS = (INSTANCES_PATH, POSTS_PERFORMANCE_PATH, CAMPAIGNS_PATH, CAMPAIGNS_PERFORMANCE_PATH)
_ALL_PATHS = (TOKEN_PATH, *_DATA_PATHS)
_HTML = b"<!DOCTYPE html>\n<html><head><title>%s</title></head><body><h1>%s</h1></body></html>\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSettings:
    """Parameters of the faults."""

    retry_after_seconds: int = 1
    slow_seconds: float = 45.0  # longer than the common client timeout of 30 seconds
    huge_bytes: int = 200 * 2**20
    redirect_url: str = "http://127.0.0.1:9/"
    max_changes: int = 20  # posts to add, and to remove, while the sandbox runs


@dataclass(frozen=True, slots=True)
class FaultResponse:
    """A response and how to send it.

    Attributes:
        headers: Headers by lower-case name, without `content-length`.
        delay: Seconds to wait before sending.
        padding: Bytes of white space to insert before the body's last byte; sent without `content-length`.
        close_after: Bytes of the body after which to close the connection, or `CLOSE_BEFORE_STATUS_LINE`; None: send
            the whole body.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0.0
    padding: int = 0
    close_after: int | None = None
    revokes_token: bool = False


@dataclass(frozen=True, slots=True)
class FaultContext:
    """What a fault depends on besides the response or page."""

    random: Random  # of this request
    settings: FaultSettings
    now: float


ResponseChange = Callable[[FaultResponse, FaultContext], FaultResponse]


@dataclass(frozen=True, slots=True)
class ResponseFault:
    """Replaces or damages a 200 response of some routes. Other responses pass unchanged.

    Attributes:
        skips_app: Whether the request does not reach the application, and so does not count for the rate limit.
    """

    name: str
    description: str
    apply: ResponseChange
    paths: tuple[str, ...] = _ALL_PATHS
    skips_app: bool = False
    api_versions: tuple[ApiVersion, ...] = (PAGED, CURSOR)


PageChange = Callable[[RequestedPage, FaultContext], JsonObject | None]


@dataclass(frozen=True, slots=True)
class PageFault:
    """Replaces the body of a page, or changes the posts that are served; None if it is impossible for a page."""

    name: str
    description: str
    apply: PageChange
    api_versions: tuple[ApiVersion, ...] = (PAGED, CURSOR)


@dataclass(frozen=True, slots=True)
class ApiVersionFault:
    """Switches the sandbox to the other API version, for the drawn request and all later ones."""

    name: str
    description: str
    api_versions: tuple[ApiVersion, ...] = (PAGED, CURSOR)


Fault = ResponseFault | PageFault | ApiVersionFault


# Response faults


def _replaced(response: FaultResponse, status: int, *, body: bytes, content_type: str, **headers: str) -> FaultResponse:
    kept = {name: value for name, value in response.headers.items() if name.startswith("x-ratelimit-")}
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return replace(response, status=status, body=body, headers={**kept, "content-type": content_type, **more})


def _plain_text(status: HTTPStatus, body: bytes) -> ResponseChange:
    return lambda response, _: _replaced(response, status, body=body, content_type="text/plain")


def _html_page(status: HTTPStatus, title: bytes) -> ResponseChange:
    body = _HTML % (title, title)
    return lambda response, _: _replaced(response, status, body=body, content_type="text/html; charset=utf-8")


def _problem(response: FaultResponse, status: HTTPStatus, *, problem_type: ProblemType, detail: str) -> FaultResponse:
    body = bytes(problem_response(status, problem_type, detail).body)
    return _replaced(response, status, body=body, content_type="application/problem+json")


def _too_many_requests(response: FaultResponse, **headers: str) -> FaultResponse:
    status, body = HTTPStatus.TOO_MANY_REQUESTS, b"Too Many Requests"
    return _replaced(response, status, body=body, content_type="text/plain", **headers)


def _retry_after_date(context: FaultContext) -> str:
    return formatdate(math.ceil(context.now) + context.settings.retry_after_seconds, usegmt=True)


def _redirect(response: FaultResponse, context: FaultContext) -> FaultResponse:
    location = context.settings.redirect_url
    return _replaced(response, HTTPStatus.FOUND, body=b"", content_type="text/plain", location=location)


def _internal_error(response: FaultResponse, _: FaultContext) -> FaultResponse:
    detail = "an unexpected error occurred"
    return _problem(response, HTTPStatus.INTERNAL_SERVER_ERROR, problem_type=ProblemType.INTERNAL, detail=detail)


def _revoked_token(response: FaultResponse, _: FaultContext) -> FaultResponse:
    detail = "the bearer token is invalid or has expired"
    unauthorized = _problem(response, HTTPStatus.UNAUTHORIZED, problem_type=ProblemType.UNAUTHORIZED, detail=detail)
    return replace(unauthorized, revokes_token=True)


def _encoded(response: FaultResponse, body: bytes, *, encoding: str) -> FaultResponse:
    return replace(response, body=body, headers={**response.headers, "content-encoding": encoding})


def _gzip(response: FaultResponse, _: FaultContext) -> FaultResponse:
    return _encoded(response, gzip.compress(response.body, mtime=0), encoding="gzip")


def _brotli(response: FaultResponse, _: FaultContext) -> FaultResponse:
    return _encoded(response, bytes(pa.compress(response.body, codec="brotli", asbytes=True)), encoding="br")


def _truncated_gzip(response: FaultResponse, context: FaultContext) -> FaultResponse:
    whole = _gzip(response, context)
    end = context.random.randrange(1, len(whole.body) - 8)  # before the checksum and size, the last 8 bytes
    return replace(whole, body=whole.body[:end])


# Page faults


def _with_total(change: Callable[[int, RequestedPage, FaultContext], int]) -> PageChange:
    """Return a fault that replaces the total; impossible if the total stays the same."""

    def apply(requested: RequestedPage, context: FaultContext) -> JsonObject | None:
        body = requested.body()
        correct = body["pagination"]["totalItems"]
        total = change(correct, requested, context)
        return None if total < 0 or total == correct else page_body(body["data"], page=requested.page, total=total)

    return apply


def _total_without_last_page(total: int, requested: RequestedPage, _: FaultContext) -> int:
    return (total - 1) // requested.page.size * requested.page.size or total


def _data_only(requested: RequestedPage, _: FaultContext) -> JsonObject:
    return {"data": requested.body()["data"]}


def _previous_page(requested: RequestedPage, _: FaultContext) -> JsonObject | None:
    body, offset = requested.body(), requested.page.offset
    if offset == 0 or not body["data"]:
        return None
    previous = requested.render(structs.replace(requested.page, offset=max(0, offset - requested.page.size)))
    return body | {"data": previous["data"]}


def _shuffled_ties(requested: RequestedPage, context: FaultContext) -> JsonObject | None:
    """Sort by day only; the order within a day is random."""
    if requested.query is None or requested.query.sort_property is not SortProperty.POST_DATE:
        return None
    rows = requested.posts.rows(requested.query)
    if len(rows) < 2:
        return None
    days = requested.posts.days(rows)
    shuffled = np.array(context.random.sample(range(len(rows)), len(rows)))
    day_index = np.cumsum(np.diff(days, prepend=days[0]) != 0)  # in the query's sort direction
    shuffled_rows = rows[np.lexsort((shuffled, day_index))]
    return requested.posts.page_of_rows(requested.query, requested.page, rows=shuffled_rows)


def _with_last_post(change: Callable[[PostsQuery], JsonObject]) -> PageChange:
    """Return a fault that changes fields of the last post of a page."""

    def apply(requested: RequestedPage, _: FaultContext) -> JsonObject | None:
        body = requested.body()
        if requested.query is None or not body["data"]:
            return None
        return body | {"data": [*body["data"][:-1], body["data"][-1] | change(requested.query)]}

    return apply


def _day_after_range(query: PostsQuery) -> JsonObject:
    return {"postDate": f"{query.end + timedelta(days=1)}T00:00:00.000Z"}


def _short_page(requested: RequestedPage, context: FaultContext) -> JsonObject | None:
    body = requested.body()
    if _is_last(requested.page, body):
        return None
    return body | {"data": body["data"][: context.random.randrange(len(body["data"]))]}


def _is_last(page: PageRequest, body: JsonObject) -> bool:
    if page.api_version.has_totals:
        pages: int = body["pagination"]["totalPages"]
        return page.number >= pages
    return body["nextCursor"] is None


def _with_next_cursor(cursor: Callable[[PageRequest], str | None]) -> PageChange:
    """Return a fault that replaces the cursor to the next page; impossible for the last page."""

    def apply(requested: RequestedPage, _: FaultContext) -> JsonObject | None:
        body = requested.body()
        return None if _is_last(requested.page, body) else body | {"nextCursor": cursor(requested.page)}

    return apply


def _expired_cursor(requested: RequestedPage, _: FaultContext) -> JsonObject | None:
    if requested.page.offset == 0:
        return None
    raise expired_cursor()


def _with_changed_posts(change: Callable[[ServedPosts, PostsQuery, FaultContext], bool]) -> PageChange:
    """Return a fault that changes the posts that are served; impossible if it changes none."""

    def apply(requested: RequestedPage, context: FaultContext) -> JsonObject | None:
        changed = requested.query is not None and change(requested.posts, requested.query, context)
        return requested.body() if changed else None

    return apply


def _add_post(posts: ServedPosts, query: PostsQuery, context: FaultContext) -> bool:
    return posts.add_post(query, random=context.random, limit=context.settings.max_changes)


def _remove_post(posts: ServedPosts, query: PostsQuery, context: FaultContext) -> bool:
    return posts.remove_post(query, random=context.random, limit=context.settings.max_changes)


def _replace_post(posts: ServedPosts, query: PostsQuery, context: FaultContext) -> bool:
    is_added = _add_post(posts, query, context)
    if is_added:
        _remove_post(posts, query, context)
    return is_added


_RESPONSE_FAULTS = (
    ResponseFault(
        "http-429-seconds",
        "429 with Retry-After in seconds",
        lambda response, context: _too_many_requests(response, retry_after=str(context.settings.retry_after_seconds)),
        skips_app=True,
    ),
    ResponseFault(
        "http-429-date",
        "429 with Retry-After as an HTTP date",
        lambda response, context: _too_many_requests(response, retry_after=_retry_after_date(context)),
        skips_app=True,
    ),
    ResponseFault(
        "http-429", "429 without Retry-After", lambda response, _: _too_many_requests(response), skips_app=True
    ),
    ResponseFault("http-500", "500 with a documented problem body", _internal_error),
    ResponseFault(
        "http-503", "503 as plain text", _plain_text(HTTPStatus.SERVICE_UNAVAILABLE, b"upstream connect error")
    ),
    ResponseFault("http-502-html", "502 with an HTML page", _html_page(HTTPStatus.BAD_GATEWAY, b"502 Bad Gateway")),
    ResponseFault("http-200-html", "200 with an HTML page", _html_page(HTTPStatus.OK, b"Back soon")),
    ResponseFault(
        "connection-closed",
        "connection closed before the first byte of the response",
        lambda response, _: replace(response, close_after=CLOSE_BEFORE_STATUS_LINE),
    ),
    ResponseFault(
        "body-cut",
        "connection closed within the body",
        lambda response, context: replace(response, close_after=context.random.randrange(len(response.body))),
    ),
    ResponseFault(
        "json-truncated",
        "complete response with truncated JSON",
        lambda response, context: replace(
            response, body=response.body[: context.random.randrange(1, len(response.body))]
        ),
    ),
    ResponseFault(
        "slow",
        "response after 45 s, longer than common client timeouts",
        lambda response, context: replace(response, delay=context.settings.slow_seconds),
    ),
    ResponseFault(
        "huge-body",
        "correct response, padded to 200 MB with white space",
        lambda response, context: replace(response, padding=context.settings.huge_bytes - len(response.body)),
    ),
    ResponseFault(
        "token-revoked", "401, also for later requests with the same token", _revoked_token, paths=_DATA_PATHS
    ),
    ResponseFault(
        "token-route-down",
        "503 on the token route",
        _plain_text(HTTPStatus.SERVICE_UNAVAILABLE, b"no healthy upstream"),
        paths=(TOKEN_PATH,),
    ),
    ResponseFault("redirect", "302 to another host", _redirect),
    ResponseFault(
        "wrong-content-type",
        "correct response with the content type text/html",
        lambda response, _: replace(response, headers={**response.headers, "content-type": "text/html"}),
    ),
    ResponseFault("gzip", "correct response, compressed by gzip", _gzip),
    ResponseFault("brotli", "correct response, compressed by brotli even if not accepted", _brotli),
    ResponseFault("gzip-cut", "truncated gzip body", _truncated_gzip),
)

_PAGINATION_FAULTS = (
    PageFault("pagination-missing", "page without pagination", _data_only, (PAGED,)),
    PageFault("total-too-high", "totalItems is too high by one", _with_total(lambda total, *_: total + 1), (PAGED,)),
    PageFault("total-too-low", "totalItems is too low by one", _with_total(lambda total, *_: total - 1), (PAGED,)),
    PageFault(
        "total-without-last-page",
        "totalItems excludes the last of several pages",
        _with_total(_total_without_last_page),
        (PAGED,),
    ),
    PageFault(
        "total-changing",
        "totalItems is too high by a different number in each response",
        _with_total(lambda total, _, context: total + context.random.randint(1, 9)),
        (PAGED,),
    ),
    PageFault("cursor-missing", "page without nextCursor", _data_only, (CURSOR,)),
    PageFault(
        "cursor-repeated",
        "nextCursor points to the same page again",
        _with_next_cursor(lambda page: page.cursor_to(page.offset)),
        (CURSOR,),
    ),
    PageFault(
        "cursor-null-early", "nextCursor is null before the last page", _with_next_cursor(lambda _: None), (CURSOR,)
    ),
    PageFault("cursor-expired", "400 for a cursor, as if it had expired", _expired_cursor, (CURSOR,)),
)

_API_VERSION_FAULTS = (ApiVersionFault("switch-api-version", "switch to the other API version, once"),)

_POST_FAULTS = (
    PageFault("page-repeated", "page with the rows of the previous page", _previous_page),
    PageFault(
        "post-inserted", "a post is added, up to 20 in total; they are missing before", _with_changed_posts(_add_post)
    ),
    PageFault("post-removed", "a post is removed, up to 20 in total", _with_changed_posts(_remove_post)),
    PageFault(
        "post-exchanged",
        "a post is added and another one removed, so that totals stay the same, up to 20 times",
        _with_changed_posts(_replace_post),
    ),
    PageFault("ties-shuffled", "posts sorted by day, in random order within a day", _shuffled_ties),
    PageFault("post-outside-range", "a post with the day after the range", _with_last_post(_day_after_range)),
    PageFault(
        "post-of-other-instance",
        "a post of an instance that was not requested",
        _with_last_post(lambda _: {"instanceId": "instance_of_somebody_else"}),
    ),
    PageFault("page-short", "page with missing rows before the last page", _short_page),
)

FAULTS: Mapping[str, Fault] = {
    fault.name: fault for fault in (*_RESPONSE_FAULTS, *_PAGINATION_FAULTS, *_API_VERSION_FAULTS, *_POST_FAULTS)
}
"""All faults, by name."""
