"""Faults of servers, proxies and networks, by name: each replaces or damages a correct response."""

import gzip
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import formatdate
from http import HTTPStatus
from random import Random

import msgspec
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
)
from later_reporting_dagster.server.query_parameters import PostsQuery, parse_posts_query
from later_reporting_dagster.server.responses import JsonObject, PageQuery, expired_cursor, problem_response
from later_reporting_dagster.server.sandbox.served_posts import PENDING, REMOVED, SERVED, ServedPosts

CLOSE_BEFORE_STATUS_LINE = -1

_POSTS = (POSTS_PERFORMANCE_PATH,)
_PAGES = (*_POSTS, CAMPAIGNS_PATH, CAMPAIGNS_PERFORMANCE_PATH)
_DATA = (*_PAGES, INSTANCES_PATH)
_ALL_PATHS = (*_DATA, TOKEN_PATH)
_HTML = b"<!DOCTYPE html>\n<html><head><title>%s</title></head><body><h1>%s</h1></body></html>\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSettings:
    retry_after_seconds: int = 1
    slow_seconds: float = 45.0  # longer than the common client timeout of 30 seconds
    huge_bytes: int = 64 * 2**20
    max_changes: int = 20  # posts to add, and to remove, while the sandbox runs


@dataclass(frozen=True, slots=True)
class FaultResponse:
    """A response and how to send it.

    Attributes:
        headers: Headers by lower-case name, without `content-length`.
        delay: Seconds to wait before sending.
        close_after: Bytes of the body after which to close the connection, or `CLOSE_BEFORE_STATUS_LINE`; None: send
            the whole body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    delay: float = 0.0
    close_after: int | None = None


@dataclass(slots=True)
class FaultState:
    """What faults change for later requests: the posts, the API version, and which `authorization` is revoked."""

    posts: ServedPosts
    api_version: ApiVersion
    has_switched_version: bool = False
    revoked: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultContext:
    """What a fault depends on besides the response."""

    random: Random  # of this request
    settings: FaultSettings
    state: FaultState
    query_string: str
    authorization: str

    def posts_query(self) -> tuple[PostsQuery, PageQuery]:
        return parse_posts_query(self.query_string, self.state.api_version)

    def change_a_post(self, before: int, after: int) -> bool:
        """Change the state of a post of the query, for later requests; return False if that is impossible."""
        query, _ = self.posts_query()
        limit = self.settings.max_changes
        return self.state.posts.change_state(query, before, after, random=self.random, limit=limit)


ResponseChange = Callable[[FaultResponse, FaultContext], FaultResponse | None]
BodyChange = Callable[[JsonObject, FaultContext], JsonObject | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """Replaces or damages a 200 response of some routes, unless that is impossible: then `apply` returns None."""

    name: str
    description: str
    apply: ResponseChange
    paths: tuple[str, ...] = _ALL_PATHS
    api_versions: tuple[ApiVersion, ...] = (PAGED, CURSOR)


# Faults of any response


def _instead(response: FaultResponse, status: int, body: bytes, **headers: str) -> FaultResponse:
    """Return another response, with the rate-limit headers of this one."""
    changed = {name.replace("_", "-"): value for name, value in {"content_type": "text/plain", **headers}.items()}
    return replace(response, status=status, body=body, headers={**response.headers, **changed})


def _html_page(response: FaultResponse, status: int, title: bytes) -> FaultResponse:
    return _instead(response, status, _HTML % (title, title), content_type="text/html; charset=utf-8")


def _problem(response: FaultResponse, status: int, detail: str) -> FaultResponse:
    body = bytes(problem_response(status, detail).body)
    return _instead(response, status, body, content_type="application/problem+json")


def _too_many_requests(response: FaultResponse, **headers: str) -> FaultResponse:
    return _instead(response, HTTPStatus.TOO_MANY_REQUESTS, b"Too Many Requests", **headers)


def _retry_after_date(response: FaultResponse, context: FaultContext) -> FaultResponse:
    date = formatdate(math.ceil(time.time()) + context.settings.retry_after_seconds, usegmt=True)
    return _too_many_requests(response, retry_after=date)


def _revoked_token(response: FaultResponse, context: FaultContext) -> FaultResponse:
    context.state.revoked.add(context.authorization)
    return _problem(response, HTTPStatus.UNAUTHORIZED, "the bearer token is invalid or has expired")


def _switched_api_version(response: FaultResponse, context: FaultContext) -> FaultResponse | None:
    if context.state.has_switched_version:
        return None
    context.state.has_switched_version = True
    context.state.api_version = CURSOR if context.state.api_version is PAGED else PAGED
    return response


def _padded(response: FaultResponse, context: FaultContext) -> FaultResponse:
    padding = b" " * (context.settings.huge_bytes - len(response.body))
    return replace(response, body=response.body[:-1] + padding + response.body[-1:])


def _cut_json(response: FaultResponse, context: FaultContext) -> FaultResponse:
    return replace(response, body=response.body[: context.random.randrange(1, len(response.body))])


def _encoded(response: FaultResponse, encoding: str, body: bytes) -> FaultResponse:
    return replace(response, body=body, headers={**response.headers, "content-encoding": encoding})


def _cut_gzip(response: FaultResponse, context: FaultContext) -> FaultResponse:
    whole = gzip.compress(response.body)
    end = context.random.randrange(1, len(whole) - 8)  # before the checksum and size, the last 8 bytes
    return _encoded(response, "gzip", whole[:end])


RESPONSE_FAULTS = (
    Fault("http-429-seconds", "429 with Retry-After in seconds",
          lambda response, context: _too_many_requests(
              response, retry_after=str(context.settings.retry_after_seconds))),
    Fault("http-429-date", "429 with Retry-After as an HTTP date", _retry_after_date),
    Fault("http-429", "429 without Retry-After", lambda response, _: _too_many_requests(response)),
    Fault("http-500", "500 with a documented problem body",
          lambda response, _: _problem(response, 500, "an unexpected error occurred")),
    Fault("http-503", "503 as plain text", lambda response, _: _instead(response, 503, b"upstream connect error")),
    Fault("http-502-html", "502 with an HTML page", lambda response, _: _html_page(response, 502, b"502 Bad Gateway")),
    Fault("http-200-html", "200 with an HTML page", lambda response, _: _html_page(response, 200, b"Back soon")),
    Fault("connection-closed", "connection closed before the first byte of the response",
          lambda response, _: replace(response, close_after=CLOSE_BEFORE_STATUS_LINE)),
    Fault("body-cut", "connection closed within the body",
          lambda response, context: replace(response, close_after=context.random.randrange(len(response.body)))),
    Fault("json-truncated", "complete response with truncated JSON", _cut_json),
    Fault("slow", "response after 45 s, longer than common client timeouts",
          lambda response, context: replace(response, delay=context.settings.slow_seconds)),
    Fault("huge-body", "correct response, padded to 64 MB with white space", _padded),
    Fault("token-revoked", "401, also for later requests with the same token", _revoked_token, _DATA),
    Fault("token-route-down", "503 on the token route",
          lambda response, _: _instead(response, 503, b"no healthy upstream"), (TOKEN_PATH,)),
    Fault("redirect", "302 to another host",
          lambda response, _: _instead(response, 302, b"", location="http://127.0.0.1:9/")),
    Fault("wrong-content-type", "correct response with the content type text/html",
          lambda response, _: _instead(response, response.status, response.body, content_type="text/html")),
    Fault("gzip", "correct response, compressed by gzip",
          lambda response, _: _encoded(response, "gzip", gzip.compress(response.body))),
    Fault("brotli", "correct response, compressed by brotli even if not accepted",
          lambda response, _: _encoded(response, "br", pa.compress(response.body, codec="brotli", asbytes=True))),
    Fault("gzip-cut", "truncated gzip body", _cut_gzip),
    Fault("switch-api-version", "switch to the other API version for later requests", _switched_api_version, _DATA),
)  # fmt: skip


# Faults of pages


def _page(change: BodyChange) -> ResponseChange:
    """Return a fault that changes the JSON of a page."""

    def apply(response: FaultResponse, context: FaultContext) -> FaultResponse | None:
        # Not msgspec: malformed rows have what it does not read, such as NaN.
        body = change(json.loads(response.body), context)
        return None if body is None else replace(response, body=json.dumps(body).encode())

    return apply


def _total(change: Callable[[int, int], int]) -> ResponseChange:
    """Return a fault that replaces the total, given its correct value and the page size."""

    def apply(body: JsonObject, _: FaultContext) -> JsonObject | None:
        pagination = body["pagination"]
        size, correct = pagination["pageSize"], pagination["totalItems"]
        total = change(correct, size)
        if total < 0 or total == correct:
            return None
        return body | {"pagination": pagination | {"totalItems": total, "totalPages": -(-total // size)}}

    return _page(apply)


def _data_only(body: JsonObject, _: FaultContext) -> JsonObject:
    return {"data": body["data"]}


def _has_next(body: JsonObject) -> bool:
    if "nextCursor" in body:
        return body["nextCursor"] is not None
    return bool(body["pagination"]["page"] < body["pagination"]["totalPages"])


def _same_cursor(body: JsonObject, context: FaultContext) -> JsonObject | None:
    _, page = context.posts_query()
    return body | {"nextCursor": page.cursor_to(page.offset)} if _has_next(body) else None


def _no_next_cursor(body: JsonObject, _: FaultContext) -> JsonObject | None:
    return body | {"nextCursor": None} if _has_next(body) else None


def _expired_cursor(response: FaultResponse, context: FaultContext) -> FaultResponse | None:
    error = expired_cursor()
    return _problem(response, error.status_code, error.detail) if "nextCursor=" in context.query_string else None


def _short_page(body: JsonObject, context: FaultContext) -> JsonObject | None:
    return body | {"data": body["data"][: context.random.randrange(len(body["data"]))]} if _has_next(body) else None


def _previous_page(body: JsonObject, context: FaultContext) -> JsonObject | None:
    query, page = context.posts_query()
    if page.offset == 0 or not body["data"]:
        return None
    previous = context.state.posts.page(query, structs.replace(page, offset=max(0, page.offset - page.size)))
    return body | {"data": json.loads(msgspec.json.encode(previous["data"]))}


def _last_post(change: Callable[[FaultContext], JsonObject]) -> ResponseChange:
    """Return a fault that changes fields of the last post of a page."""

    def apply(body: JsonObject, context: FaultContext) -> JsonObject | None:
        *others, last = body["data"] or [None]
        return None if last is None else body | {"data": [*others, last | change(context)]}

    return _page(apply)


def _day_after_range(context: FaultContext) -> JsonObject:
    query, _ = context.posts_query()
    return {"postDate": f"{query.end + timedelta(days=1)}T00:00:00.000Z"}


def _added_post(response: FaultResponse, context: FaultContext) -> FaultResponse | None:
    return response if context.change_a_post(PENDING, SERVED) else None


def _removed_post(response: FaultResponse, context: FaultContext) -> FaultResponse | None:
    return response if context.change_a_post(SERVED, REMOVED) else None


def _exchanged_posts(response: FaultResponse, context: FaultContext) -> FaultResponse | None:
    return _added_post(response, context) and (_removed_post(response, context) or response)


PAGE_FAULTS = (
    Fault("pagination-missing", "page without pagination", _page(_data_only), _PAGES, (PAGED,)),
    Fault("total-too-high", "totalItems is too high by one", _total(lambda total, _: total + 1), _PAGES, (PAGED,)),
    Fault("total-too-low", "totalItems is too low by one", _total(lambda total, _: total - 1), _PAGES, (PAGED,)),
    Fault("total-without-last-page", "totalItems excludes the last of several pages",
          _total(lambda total, size: (total - 1) // size * size or total), _PAGES, (PAGED,)),
    Fault("cursor-missing", "page without nextCursor", _page(_data_only), _PAGES, (CURSOR,)),
    Fault("cursor-repeated", "nextCursor points to the same page again", _page(_same_cursor), _POSTS, (CURSOR,)),
    Fault("cursor-null-early", "nextCursor is null before the last page", _page(_no_next_cursor), _PAGES, (CURSOR,)),
    Fault("cursor-expired", "400 for a cursor, as if it had expired", _expired_cursor, _PAGES, (CURSOR,)),
    Fault("page-short", "page with missing rows before the last page", _page(_short_page), _PAGES),
    Fault("page-repeated", "page with the rows of the previous page", _page(_previous_page), _POSTS),
    Fault("post-inserted", "a post is added, up to 20 in total; they are missing before", _added_post, _POSTS),
    Fault("post-removed", "a post is removed, up to 20 in total", _removed_post, _POSTS),
    Fault("post-exchanged", "a post is added and another one removed, so that totals stay the same, up to 20 times",
          _exchanged_posts, _POSTS),
    Fault("post-outside-range", "a post with the day after the range", _last_post(_day_after_range), _POSTS),
    Fault("post-of-other-instance", "a post of an instance that was not requested",
          _last_post(lambda _: {"instanceId": "instance_of_somebody_else"}), _POSTS),
)  # fmt: skip

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in (*RESPONSE_FAULTS, *PAGE_FAULTS)}
