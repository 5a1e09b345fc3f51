"""The sandbox with faults of servers, proxies and networks, and with rows that the API reference does not describe.

`FAULTS` replace or damage a correct response. `MALFORMATIONS` alter rows that are chosen by the seed and their key, so
that a row is the same in every response.
"""

import asyncio
import gzip
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from email.utils import formatdate
from itertools import accumulate
from random import Random
from typing import Any, cast

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import UNSET, Raw, structs
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.contract.parameters import (
    CAMPAIGNS_PATH,
    CAMPAIGNS_PERFORMANCE_PATH,
    CURSOR,
    INSTANCES_PATH,
    PAGED,
    POSTS_PERFORMANCE_PATH,
    TOKEN_PATH,
    ApiVersion,
    DateBasis,
)
from later_reporting_dagster.server.query_parameters import PostsQuery, parse_posts_query
from later_reporting_dagster.server.responses import JsonObject, PageQuery, expired_cursor, problem_response
from later_reporting_dagster.server.sandbox import SandboxOptions, World, create_app
from later_reporting_dagster.server.sandbox.served_posts import ServedPosts, nest_metrics, render_posts
from later_reporting_dagster.server.sandbox.synthetic_world import IntArray

FAULTS_HEADER = "X-Sandbox-Faults"
"""With the value `off`, a request gets the current data without a fault. Malformed rows stay malformed."""

_POSTS = (POSTS_PERFORMANCE_PATH,)
_PAGES = (*_POSTS, CAMPAIGNS_PATH, CAMPAIGNS_PERFORMANCE_PATH)
_DATA = (*_PAGES, INSTANCES_PATH)
_ALL_PATHS = (*_DATA, TOKEN_PATH)
_BEFORE_STATUS_LINE = -1
_PENDING_SHARE = 0.02  # of all posts, if faults add some
_HTML = "<!DOCTYPE html>\n<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>\n"


def draw(shares: Mapping[str, float], random: Random) -> str | None:
    """Draw one name with its probability; None with the remaining probability."""
    number = random.random()
    bounds = zip(shares, accumulate(shares.values()), strict=True)
    return next((name for name, bound in bounds if number < bound), None)


class ChangingPosts(ServedPosts):
    """Posts of which faults add and remove some, and of whose rows some are malformed.

    Attributes:
        altered: By malformation, the original keys of the altered rows that were served.
    """

    def __init__(self, world: World, *, malformed_rows: Mapping[str, float], seed: int, adds_posts: bool) -> None:
        super().__init__(world)
        self.altered: dict[str, set[tuple[str, int, int]]] = {name: set() for name in malformed_rows}
        self._shares, self._seed = malformed_rows, seed
        is_pending = np.random.default_rng(seed).random(len(world.posts)) < (_PENDING_SHARE if adds_posts else 0)
        self._pending = self.is_served & is_pending
        self.is_served &= ~is_pending
        self._changes = Counter[bool]()

    def change(self, query: PostsQuery, *, add: bool, random: Random, limit: int) -> bool:
        """Add or remove a post that matches a query; return False if there is none, or after `limit` changes."""
        rows = self.matching(query)
        candidates = rows[(self._pending if add else self.is_served)[rows]]
        if not len(candidates) or self._changes[add] >= limit:
            return False
        row = random.choice(candidates.tolist())
        self.is_served[row], self._pending[row] = add, False
        self._changes[add] += 1
        return True

    def page(self, query: PostsQuery, page: PageQuery) -> JsonObject:
        """Return the body of a page. A cursor counts posts that are not served too: a change does not shift it."""
        if not page.api_version.uses_cursors:
            return super().page(query, page)
        rows = self.matching(query)
        offsets = np.flatnonzero(self.is_served[rows])
        offsets = offsets[offsets >= page.offset]
        current, following = offsets[: page.size], offsets[page.size :]
        next_cursor = page.cursor_to(int(following[0])) if len(following) else None
        return {"data": self.render(query, rows[current]), "nextCursor": next_cursor}

    def render(self, query: PostsQuery, rows: IntArray) -> list[JsonObject]:
        posts = render_posts(self._world, query, rows=rows)
        return [nest_metrics(self._altered(row), query) for row in posts]

    def _altered(self, row: JsonObject) -> JsonObject:
        key = (row["instanceId"], row["campaignId"], row["postId"])
        name = draw(self._shares, Random(f"{self._seed} {key}"))
        changed = row | (MALFORMATIONS[name](row) if name else {})
        altered = {name: value for name, value in changed.items() if value is not UNSET}
        if name and altered != row:
            self.altered[name].add(key)
        return altered


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSettings:
    retry_after_seconds: int = 1
    slow_seconds: float = 45.0
    huge_bytes: int = 64 * 2**20
    max_changes: int = 20  # posts to add, and to remove, while the sandbox runs


@dataclass(frozen=True, slots=True)
class Reply:
    """A response and how to send it.

    Attributes:
        headers: Headers by lower-case name, without `content-length`.
        delay: Seconds to wait before sending.
        close_after: Bytes of the body after which to close the connection; None: send the whole body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    delay: float = 0.0
    close_after: int | None = None

    def instead(self, status: int, body: str, **headers: str) -> "Reply":
        """Return another response with the rate-limit headers of this one."""
        named = {name.replace("_", "-"): value for name, value in ({"content_type": "text/plain"} | headers).items()}
        return replace(self, status=status, body=body.encode(), headers={**self.headers, **named})

    def html(self, status: int, title: str) -> "Reply":
        return self.instead(status, _HTML.format(title), content_type="text/html; charset=utf-8")

    def problem(self, status: int, detail: str) -> "Reply":
        body = bytes(problem_response(status, detail).body).decode()
        return self.instead(status, body, content_type="application/problem+json")

    def encoded(self, encoding: str, body: bytes) -> "Reply":
        return replace(self, body=body, headers={**self.headers, "content-encoding": encoding})


@dataclass(slots=True)
class State:
    """What faults change for later requests: the posts, the API version, and which `authorization` is revoked."""

    posts: ChangingPosts
    api_version: ApiVersion
    has_switched_version: bool = False
    revoked: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a fault depends on besides the response."""

    random: Random  # of this request
    settings: FaultSettings
    state: State
    query_string: str
    authorization: str

    def posts_query(self) -> tuple[PostsQuery, PageQuery]:
        return parse_posts_query(self.query_string, self.state.api_version)

    def change_a_post(self, *, add: bool) -> bool:
        query, _ = self.posts_query()
        return self.state.posts.change(query, add=add, random=self.random, limit=self.settings.max_changes)


Change = Callable[[Reply, Context], Reply | None]


@dataclass(frozen=True, slots=True)
class Fault:
    """Replaces or damages a 200 response of some routes, unless that is impossible: then `apply` returns None."""

    apply: Change
    paths: tuple[str, ...] = _ALL_PATHS
    api_versions: tuple[ApiVersion, ...] = (PAGED, CURSOR)


# Faults of any response


def _retry_after_date(reply: Reply, context: Context) -> Reply:
    date = formatdate(math.ceil(time.time()) + context.settings.retry_after_seconds, usegmt=True)
    return reply.instead(429, "Too Many Requests", retry_after=date)


def _revoked_token(reply: Reply, context: Context) -> Reply:
    context.state.revoked.add(context.authorization)
    return reply.problem(401, "the bearer token is invalid or has expired")


def _switched_api_version(reply: Reply, context: Context) -> Reply | None:
    if context.state.has_switched_version:
        return None
    context.state.has_switched_version = True
    context.state.api_version = CURSOR if context.state.api_version is PAGED else PAGED
    return reply


def _padded(reply: Reply, context: Context) -> Reply:
    padding = b" " * (context.settings.huge_bytes - len(reply.body))
    return replace(reply, body=reply.body[:-1] + padding + reply.body[-1:])


def _cut_json(reply: Reply, context: Context) -> Reply:
    return replace(reply, body=reply.body[: context.random.randrange(1, len(reply.body))])


def _cut_gzip(reply: Reply, context: Context) -> Reply:
    whole = gzip.compress(reply.body)
    # Before the checksum and size, the last 8 bytes.
    return reply.encoded("gzip", whole[: context.random.randrange(1, len(whole) - 8)])


RESPONSE_FAULTS: Mapping[str, Fault] = {
    "http-429-seconds": Fault(
        lambda reply, context: reply.instead(
            429, "Too Many Requests", retry_after=str(context.settings.retry_after_seconds)
        )
    ),
    "http-429-date": Fault(_retry_after_date),
    "http-429": Fault(lambda reply, _: reply.instead(429, "Too Many Requests")),
    "http-500": Fault(lambda reply, _: reply.problem(500, "an unexpected error occurred")),
    "http-503": Fault(lambda reply, _: reply.instead(503, "upstream connect error")),
    "http-502-html": Fault(lambda reply, _: reply.html(502, "502 Bad Gateway")),
    "http-200-html": Fault(lambda reply, _: reply.html(200, "Back soon")),
    "connection-closed": Fault(lambda reply, _: replace(reply, close_after=_BEFORE_STATUS_LINE)),
    "body-cut": Fault(lambda reply, context: replace(reply, close_after=context.random.randrange(len(reply.body)))),
    "json-truncated": Fault(_cut_json),
    "slow": Fault(lambda reply, context: replace(reply, delay=context.settings.slow_seconds)),
    "huge-body": Fault(_padded),
    "token-revoked": Fault(_revoked_token, _DATA),
    "token-route-down": Fault(lambda reply, _: reply.instead(503, "no healthy upstream"), (TOKEN_PATH,)),
    "redirect": Fault(lambda reply, _: reply.instead(302, "", location="http://127.0.0.1:9/")),
    "wrong-content-type": Fault(
        lambda reply, _: reply.instead(reply.status, reply.body.decode(), content_type="text/html")
    ),
    "gzip": Fault(lambda reply, _: reply.encoded("gzip", gzip.compress(reply.body))),
    "brotli": Fault(  # although no request accepts it
        lambda reply, _: reply.encoded("br", pa.compress(reply.body, codec="brotli", asbytes=True))
    ),
    "gzip-cut": Fault(_cut_gzip),
    "switch-api-version": Fault(_switched_api_version, _DATA),
}


# Faults of pages


def _page(change: Callable[[JsonObject, Context], JsonObject | None]) -> Change:
    """Return a fault that changes the JSON of a page."""

    def apply(reply: Reply, context: Context) -> Reply | None:
        # Not msgspec: malformed rows have what it does not read, such as NaN.
        body = change(json.loads(reply.body), context)
        return None if body is None else replace(reply, body=json.dumps(body).encode())

    return apply


def _total(change: Callable[[int, int], int]) -> Change:
    """Return a fault that replaces the total, given its correct value and the page size."""

    def apply(body: JsonObject, _: Context) -> JsonObject | None:
        pagination = body["pagination"]
        size, correct = pagination["pageSize"], pagination["totalItems"]
        total = change(correct, size)
        if total < 0 or total == correct:
            return None
        return body | {"pagination": pagination | {"totalItems": total, "totalPages": -(-total // size)}}

    return _page(apply)


def _has_next(body: JsonObject) -> bool:
    if "nextCursor" in body:
        return body["nextCursor"] is not None
    return bool(body["pagination"]["page"] < body["pagination"]["totalPages"])


def _data_only(body: JsonObject, _: Context) -> JsonObject:
    return {"data": body["data"]}


def _same_cursor(body: JsonObject, context: Context) -> JsonObject | None:
    _, page = context.posts_query()
    return body | {"nextCursor": page.cursor_to(page.offset)} if _has_next(body) else None


def _no_next_cursor(body: JsonObject, _: Context) -> JsonObject | None:
    return body | {"nextCursor": None} if _has_next(body) else None


def _expired_cursor(reply: Reply, context: Context) -> Reply | None:
    error = expired_cursor()
    return reply.problem(error.status_code, error.detail) if "nextCursor=" in context.query_string else None


def _short_page(body: JsonObject, context: Context) -> JsonObject | None:
    return body | {"data": body["data"][: context.random.randrange(len(body["data"]))]} if _has_next(body) else None


def _previous_page(body: JsonObject, context: Context) -> JsonObject | None:
    query, page = context.posts_query()
    if page.offset == 0 or not body["data"]:
        return None
    previous = context.state.posts.page(query, structs.replace(page, offset=max(0, page.offset - page.size)))
    return body | {"data": json.loads(msgspec.json.encode(previous["data"]))}


def _last_post(change: Callable[[Context], JsonObject | None]) -> Change:
    """Return a fault that changes fields of the last post of a page."""

    def apply(body: JsonObject, context: Context) -> JsonObject | None:
        *others, last = body["data"] or [None]
        changes = change(context)
        return None if last is None or changes is None else body | {"data": [*others, last | changes]}

    return _page(apply)


def _days_after_range(context: Context) -> JsonObject | None:
    """Return a date that no time zone explains, by post date; by performance date, posts may have any date."""
    query, _ = context.posts_query()
    is_by_post_date = query.basis is DateBasis.POST_DATE
    return {"postDate": f"{query.end + timedelta(days=2)}T00:00:00.000Z"} if is_by_post_date else None


def _added_post(reply: Reply, context: Context) -> Reply | None:
    return reply if context.change_a_post(add=True) else None


def _removed_post(reply: Reply, context: Context) -> Reply | None:
    return reply if context.change_a_post(add=False) else None


def _exchanged_posts(reply: Reply, context: Context) -> Reply | None:
    return _added_post(reply, context) and (_removed_post(reply, context) or reply)


POST_CHANGING_FAULTS: Mapping[str, Fault] = {
    "post-inserted": Fault(_added_post, _POSTS),
    "post-removed": Fault(_removed_post, _POSTS),
    "post-exchanged": Fault(_exchanged_posts, _POSTS),
}
PAGE_FAULTS: Mapping[str, Fault] = {
    "pagination-missing": Fault(_page(_data_only), _PAGES, (PAGED,)),
    "total-too-high": Fault(_total(lambda total, _: total + 1), _PAGES, (PAGED,)),
    "total-too-low": Fault(_total(lambda total, _: total - 1), _PAGES, (PAGED,)),
    "total-without-last-page": Fault(_total(lambda total, size: (total - 1) // size * size or total), _PAGES, (PAGED,)),
    "cursor-missing": Fault(_page(_data_only), _PAGES, (CURSOR,)),
    "cursor-repeated": Fault(_page(_same_cursor), _POSTS, (CURSOR,)),
    "cursor-null-early": Fault(_page(_no_next_cursor), _PAGES, (CURSOR,)),
    "cursor-expired": Fault(_expired_cursor, _PAGES, (CURSOR,)),
    "page-short": Fault(_page(_short_page), _PAGES),
    "page-repeated": Fault(_page(_previous_page), _POSTS),
    **POST_CHANGING_FAULTS,
    "post-outside-range": Fault(_last_post(_days_after_range), _POSTS),
    "post-of-other-instance": Fault(_last_post(lambda _: {"instanceId": "instance_of_somebody_else"}), _POSTS),
}
FAULTS: Mapping[str, Fault] = {**RESPONSE_FAULTS, **PAGE_FAULTS}


class FaultySandbox:
    """The sandbox with faults, as an ASGI application under uvicorn.

    The fault of a request depends on the seed, the method and URL, and the number of earlier requests with these: not
    on concurrent requests. Where a fault is impossible, such as a repeated page for the first page, the response is
    correct.

    Attributes:
        faults: Probabilities by name in `FAULTS`; tests empty it while the sandbox runs.
        injected: Number of injected faults, by fault.
        posts: What is served at the moment.

    Args:
        malformed_rows: Shares of all rows by name in `MALFORMATIONS`.
        seed: Selects the requests with faults and the malformed rows.
    """

    def __init__(
        self,
        world: World,
        *,
        faults: Mapping[str, float] | None = None,
        malformed_rows: Mapping[str, float] | None = None,
        seed: int = 0,
        settings: FaultSettings | None = None,
        options: SandboxOptions | None = None,
    ) -> None:
        options = options or SandboxOptions()
        self.faults = dict(faults or {})
        self.injected = Counter(dict.fromkeys(self.faults, 0))
        adds_posts = not {"post-inserted", "post-exchanged"}.isdisjoint(self.faults)
        self.posts = ChangingPosts(world, malformed_rows=malformed_rows or {}, seed=seed, adds_posts=adds_posts)
        self._state = state = State(self.posts, options.api_version)
        self._app: ASGIApp = create_app(world, options=options, posts=self.posts, api_version=lambda: state.api_version)
        self._settings = settings or FaultSettings()
        self._seed = seed
        self._request_counts: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, api_version = Headers(scope=scope), self._state.api_version
        authorization = headers.get("authorization", "")
        if authorization in self._state.revoked:
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"authorization"]}
        fault, random = (None, Random(0)) if headers.get(FAULTS_HEADER) == "off" else self._draw(scope)
        if fault is None or scope["path"] not in FAULTS[fault].paths or api_version not in FAULTS[fault].api_versions:
            await self._app(scope, receive, send)
            return
        reply = await self._reply(scope, receive)
        context = Context(
            random=random,
            settings=self._settings,
            state=self._state,
            query_string=scope["query_string"].decode("latin-1"),
            authorization=authorization,
        )
        if reply.status == 200 and (faulty := FAULTS[fault].apply(reply, context)):
            self.injected[fault] += 1
            reply = faulty
        await _send(reply, receive, send)

    def _draw(self, scope: Scope) -> tuple[str | None, Random]:
        request = f"{scope['method']} {scope['path']}?{scope['query_string'].decode('latin-1')}"
        self._request_counts[request] += 1
        random = Random(f"{self._seed} {request} {self._request_counts[request]}")
        return draw(self.faults, random), random

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, collect)
        headers = dict(Headers(raw=messages[0]["headers"]))
        del headers["content-length"]
        return Reply(messages[0]["status"], headers, b"".join(message["body"] for message in messages[1:]))


async def _send(reply: Reply, receive: Receive, send: Send) -> None:
    if reply.delay:
        # Only while the client is connected, so that a slow response does not delay a shutdown.
        with suppress(TimeoutError):
            await asyncio.wait_for(_disconnected(receive), reply.delay)
    is_cut = reply.close_after is not None
    if reply.close_after != _BEFORE_STATUS_LINE:
        headers = Response(reply.body, headers=reply.headers).raw_headers
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body[: reply.close_after], "more_body": is_cut})
    if is_cut:
        # ASGI has no message that closes the connection: use the transport of uvicorn's `send`.
        cast(Any, send).__self__.transport.close()
        await _disconnected(receive)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# Malformed rows


def _unknown_fields(row: JsonObject) -> JsonObject:
    profile = row["creatorProfile"] | {"followers": 2**53 + 1}
    return {"boosts": 12, "audience": {"ages": [18, None, 24.5], "größte": "Zoë"}, "creatorProfile": profile}


def _without_nulls(row: JsonObject) -> JsonObject:
    profile = {name: value for name, value in row["creatorProfile"].items() if value is not None}
    return {name: UNSET for name, value in row.items() if value is None} | {"creatorProfile": profile}


def _creator_name(row: JsonObject, name: object) -> JsonObject:
    return {"creatorProfile": row["creatorProfile"] | {"fullName": name}}


def _zero_ids(row: JsonObject) -> JsonObject:
    # A separate campaign keeps the keys of two posts with the id 0 different.
    return {"creatorId": 0, "postId": 0, "campaignId": row["postId"] * 100_000 + row["campaignId"]}


def _with_offset(row: JsonObject) -> JsonObject:
    """Return the same instant at +14:00, mostly on the next local day."""
    offset = timezone(timedelta(hours=14))
    return {"postDate": datetime.fromisoformat(row["postDate"]).astimezone(offset).isoformat()}


MALFORMATIONS: Mapping[str, Callable[[JsonObject], JsonObject]] = {
    "unknown-fields": _unknown_fields,
    "unknown-content-type": lambda _: {"contentType": "instagram_hologram"},
    "unknown-platform": lambda _: {"contentType": "threads_post"},
    "profile-missing": lambda _: {"creatorProfile": UNSET},
    "profile-null": lambda _: {"creatorProfile": None},
    "absent-for-null": _without_nulls,
    "whole-float": lambda _: {"impressions": Raw(b"8500.0")},
    "fractional-count": lambda _: {"impressions": Raw(b"8500.5")},
    "infinite-number": lambda _: {"cpe": Raw(b"1e400")},
    "nan": lambda _: {"cpe": Raw(b"NaN")},
    "negative-count": lambda _: {"impressions": -(10**12)},
    "count-beyond-floats": lambda _: {"impressions": 2**53 + 1},
    "count-beyond-int64": lambda _: {"impressions": Raw(b"18446744073709551616")},
    "text-for-number": lambda _: {"engagements": "1240"},
    "date-without-milliseconds": lambda row: {"postDate": f"{row['postDate'][:19]}Z"},
    "date-with-offset": _with_offset,
    "date-without-zone": lambda row: {"postDate": row["postDate"].rstrip("Z")},
    "date-last-microsecond": lambda row: {"postDate": f"{row['postDate'][:10]}T23:59:59.999999Z"},
    "date-impossible": lambda row: {"postDate": f"2023-02-29{row['postDate'][10:]}"},
    "ids-zero": _zero_ids,
    "id-negative": lambda row: {"postId": -row["postId"]},
    "id-huge": lambda row: {"postId": 2**63 - 1 - row["postId"]},
    "id-beyond-int64": lambda row: {"postId": Raw(str(2**64 + row["postId"]).encode())},
    "right-to-left": lambda row: _creator_name(row, "\u202eadA\u202c \u2067عادة\u2069"),
    "newlines": lambda row: _creator_name(row, "A\r\nd\n\x00a\x85\u2028b"),
    "lone-surrogate": lambda row: _creator_name(row, Raw(rb'"A\ud83dd"')),
    "megabyte-text": lambda row: _creator_name(row, "Ada " * 2**18),
}
"""What a row has instead, `UNSET` for what it lacks. Rows with different keys get different keys."""
