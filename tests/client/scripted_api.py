"""A small server of the API for the client's tests, with scripted faults and a record of all requests."""

import asyncio
import base64
import json
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from later_reporting_dagster.contract import (
    CURSOR,
    DEFAULT_METRICS,
    METRICS,
    PAGED,
    ApiVersion,
    DateBasis,
    Metric,
    PerformanceQuery,
)
from later_reporting_dagster.contract.page import ListResult
from later_reporting_dagster.contract.route import POSTS_PERFORMANCE
from later_reporting_dagster.contract.rows import Notes
from tests.conftest import problem

CLIENT_ID, CLIENT_SECRET = "the-client", "s3cret/that+is=hidden"
Fault = Response | Callable[[Request], Awaitable[Response | None]]


class FakeTime:
    """A clock that advances by sleeping only."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self.now = now
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def post(number: int, *, instance_id: str = "a", post_date: datetime | None = None, **changes: object) -> dict:
    """Return a row of the API; `number` is its id and its minute of July 2024."""
    post_date = post_date or datetime(2024, 7, 1, tzinfo=UTC) + timedelta(minutes=number)
    row = {
        "instanceId": instance_id,
        "campaignId": 1,
        "postId": number,
        "postDate": post_date.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "contentType": "instagram_reel",
        "impressions": number * 10,
        "engagements": 0,
        "cpm": None,
    }
    return row | changes


def jwt(**claims: object) -> str:
    parts = [{"alg": "none"}, claims, {"signature": "x"}]
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)


METRIC_NAMES = {metric.api_name for metric in METRICS}


def nest_metrics(row: dict) -> dict:
    """Return a row in the form of the cursor version."""
    metrics = {name: value for name, value in row.items() if name in METRIC_NAMES}
    return {name: value for name, value in row.items() if name not in METRIC_NAMES} | {"metrics": metrics}


def page_body(rows: list[dict], *, page: int, page_size: int, total_items: int) -> dict:
    total_pages = math.ceil(total_items / page_size)
    pagination = {"page": page, "pageSize": page_size, "totalItems": total_items, "totalPages": total_pages}
    return {"data": rows, "pagination": pagination}


def posts_page_from_body(
    body: bytes, api_version: ApiVersion = PAGED, *, personal_data: bool = True, **filters: Any
) -> ListResult:
    """Parse a page of the posts of July, as the client does."""
    query = PerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 31), **filters)
    return POSTS_PERFORMANCE.parse_page(body, query, api_version, personal_data=personal_data)


def post_parser(
    metrics: tuple[Metric, ...] = DEFAULT_METRICS, *, nested: bool = False, of_days: bool = False
) -> Callable[[Any], Any]:
    basis, day = DateBasis.PERFORMANCE_DATE if of_days else DateBasis.POST_DATE, date(2024, 7, 1)
    query = PerformanceQuery(start_date=day, end_date=day, date_basis=basis, metrics=metrics)
    parse = POSTS_PERFORMANCE.row_parser(query, CURSOR if nested else PAGED)
    return lambda row: parse(row, Notes())


@dataclass
class ScriptedApi:
    """An ASGI application that implements the API reference, except for scripted faults.

    Attributes:
        by_cursor: whether it is of the cursor version; parameters of the other version are rejected.
        max_page_size: of a page that asks for more.
        faults: responses to the next data requests, or functions that return one; None for a regular response.
        token_faults: responses to the next token requests.
        change_body: changes the body of each data response, given the page number.
        headers: headers of each response.
        token_lifetime: seconds; None for tokens without `exp`.
        tokens: expiry of each token.
    """

    by_cursor: bool = False
    posts: list[dict] = field(default_factory=list)
    max_page_size: int = 100
    instance_ids: list[str] = field(default_factory=lambda: ["a", "b"])
    faults: deque[Fault | None] = field(default_factory=deque)
    token_faults: deque[Response] = field(default_factory=deque)
    change_body: Callable[[int, dict], dict] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    token_lifetime: float | None = 3600.0
    clock: Callable[[], float] = field(default_factory=FakeTime)
    requests: list[Request] = field(default_factory=list)
    tokens: dict[str, float] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        self.requests.append(request)
        response = await self._respond(request)
        response.headers.update(self.headers)
        await response(scope, receive, send)

    def requests_to(self, path: str = "/v2/posts/performance") -> list[Request]:
        return [request for request in self.requests if request.url.path == path]

    async def _respond(self, request: Request) -> Response:
        if request.url.path == "/oauth/token":
            return self.token_faults.popleft() if self.token_faults else await self._token(request)
        if self.faults and (fault := self.faults.popleft()) is not None:
            response = fault if isinstance(fault, Response) else await fault(request)
            if response is not None:
                return response
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens.get(token, -math.inf) <= self.clock():
            return problem(401, "ANL_00401", detail=f"not a token: {token}")
        given, is_instances = request.query_params, request.url.path == "/v2/instances"
        unknown = {"pageSize", "pageNumber"} if self.by_cursor else {"limit", "nextCursor", "metrics"}
        if unknown & given.keys() or (self.by_cursor and not is_instances and "metrics" not in given):
            return problem(400, "ANL_00400")
        return self._page(request, all_rows=self.instance_ids if is_instances else self.posts)

    def _page(self, request: Request, *, all_rows: list) -> Response:
        given, is_instances = request.query_params, request.url.path == "/v2/instances"
        size = min(int(given.get("limit" if self.by_cursor else "pageSize", 50)), self.max_page_size)
        start = (
            int(given.get("nextCursor", "c0")[1:]) if self.by_cursor else (int(given.get("pageNumber", 1)) - 1) * size
        )
        if given.get("sortDirection") == "DESC":
            all_rows = all_rows[::-1]
        rows = all_rows[start : start + size]
        number = start // size + 1
        body = page_body(rows, page=number, page_size=size, total_items=len(all_rows))
        if self.by_cursor:
            cursor = f"c{start + size}" if start + size < len(all_rows) else None
            body = {"data": rows if is_instances else [nest_metrics(row) for row in rows], "nextCursor": cursor}
        if is_instances:
            body["data"] = {"instanceIds": rows}
        return JSONResponse(self.change_body(number, body) if self.change_body else body)

    async def _token(self, request: Request) -> Response:
        given = await request.json()
        if given != {"clientId": CLIENT_ID, "clientSecret": CLIENT_SECRET}:
            return problem(401, "INVALID_CLIENT_CREDENTIALS", detail=f"no such client: {given}")
        return JSONResponse({"jwt": self.new_token()})

    def new_token(self) -> str:
        expiry = math.inf if self.token_lifetime is None else self.clock() + self.token_lifetime
        claims = {"number": len(self.tokens)} | ({} if self.token_lifetime is None else {"exp": expiry})
        token = jwt(**claims)
        self.tokens[token] = expiry
        return token

    def revoke_tokens(self) -> None:
        self.tokens = dict.fromkeys(self.tokens, -math.inf)


THREE_PAGES = [post(number, instance_id="ab"[number % 2]) for number in range(250)]


def run_with(client, function):
    async def run():
        async with client:
            return await function(client)

    return asyncio.run(run())


def fetch_posts(client, query, **options):
    return run_with(client, lambda client: client.fetch(POSTS_PERFORMANCE, query, **options))


def fetch_instances(client):
    return run_with(client, lambda client: client.fetch_instances())


def of_type(events, kind):
    return [event for event in events if event.kind == kind]
