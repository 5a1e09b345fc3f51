"""An account of the API over HTTP: the sandbox, behind a server that records requests and changes responses."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter, RetryPolicy
from later_reporting_dagster.contract import DEFAULT_CAMPAIGN_METRICS, DEFAULT_METRICS, Metric
from later_reporting_dagster.probe.assumptions import Result, judge
from later_reporting_dagster.probe.sample import MAX_REQUESTS, Sample, fetch_sample
from tests.conftest import NO_RATE_LIMIT

LAST_DAY = date(2026, 11, 28)
POSTS, CAMPAIGNS, TOTALS = "/v2/posts/performance", "/v2/campaigns/performance", "/v2/instances/performance"


@dataclass(frozen=True)
class Asked:
    """A request, as far as a change of its response depends on it."""

    path: str
    first: date
    last: date
    basis: str
    size: int
    instance_ids: tuple[str, ...] = ()
    is_of_campaigns: bool = False

    @classmethod
    def of(cls, request: Request) -> "Asked":
        values = request.query_params
        first, last = (date.fromisoformat(values[name]) for name in ("startDate", "endDate"))
        size = int(values.get("pageSize") or values.get("limit") or 1)
        return cls(
            request.url.path,
            first,
            last,
            values["dateBasis"],
            size,
            (*values.getlist("instanceIds"),),
            "campaignIds" in values,
        )

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    def is_for(self, path: str, basis: str = "", *, days: int | None = None) -> bool:
        return self.path == path and basis in ("", self.basis) and days in (None, self.days)


Change = Callable[[Asked, list[dict[str, Any]]], list[dict[str, Any]]]


@dataclass
class Account:
    """An ASGI application. Each row of a response is changed as if its metrics were not nested.

    Attributes:
        change: changes the rows of a response of performance.
        days_more: days to add to the range that is requested of the sandbox.
        total: added to the stated totals.
        override: returns a response to send instead.
    """

    app: ASGIApp
    change: Change = lambda asked, rows: rows
    days_more: Callable[[Asked], int] = lambda asked: 0
    total: Callable[[Asked], int] = lambda asked: 0
    headers: Mapping[str, str] = field(default_factory=dict)
    override: Callable[[Request], Response | None] = lambda request: None
    requests: list[Request] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        self.requests.append(request)
        response = self.override(request) or await self._response(request, scope, receive)
        response.headers.update(self.headers)
        await response(scope, receive, send)

    async def _response(self, request: Request, scope: Scope, receive: Receive) -> Response:
        messages: list[Message] = []

        async def record(message: Message) -> None:
            messages.append(message)

        asked = Asked.of(request) if request.url.path in (POSTS, CAMPAIGNS, TOTALS) else None
        if asked is not None:
            last = asked.last + timedelta(days=self.days_more(asked))
            query = urlencode(request.query_params.multi_items() + [("endDate", str(last))])
            scope = scope | {"query_string": query.replace(f"endDate={asked.last}&", "").encode()}
        await self.app(scope, receive, record)
        content = b"".join(message.get("body", b"") for message in messages)
        stated = {name.decode(): value.decode() for name, value in messages[0]["headers"] if name.startswith(b"x-")}
        if messages[0]["status"] != 200:
            return Response(content, messages[0]["status"], stated, media_type="application/problem+json")
        body = json.loads(content)
        if asked is not None:
            self._change(asked, body)
        return JSONResponse(body, headers=stated)

    def _change(self, asked: Asked, body: Any) -> None:
        if is_object := isinstance(body["data"], dict):
            body["data"] = [body["data"]]
        names = [[*row.get("metrics", ())] for row in body["data"]]
        count = len(body["data"])
        flat = [row | row.pop("metrics", {}) for row in body["data"]]
        changed = self.change(asked, flat)
        body["data"] = [
            {name: value for name, value in row.items() if name not in nested}
            | ({"metrics": {name: row[name] for name in nested}} if nested else {})
            for row, nested in zip(changed, names[: len(changed)], strict=True)
        ]
        if is_object:
            (body["data"],) = body["data"]
        if "pagination" in body:
            body["pagination"]["totalItems"] += len(changed) - count + self.total(asked)


def run_probe(
    base_url: str,
    *,
    newest: date = LAST_DAY,
    metrics: tuple[Metric, ...] = DEFAULT_METRICS,
    credentials: ClientCredentials | None = None,
    attempts: int = 2,
) -> tuple[Sample, dict[str, Result]]:
    """Return what a probe of an account fetches, and its results by name."""

    async def fetch() -> Sample:
        async with LaterClient(
            base_url=base_url,
            credentials=credentials or ClientCredentials(NO_RATE_LIMIT.client_id, NO_RATE_LIMIT.client_secret),
            limiter=RateLimiter(requests=100_000),
            api_version=None,
            retry=RetryPolicy(max_attempts=attempts, initial_backoff_seconds=0),
            max_requests=MAX_REQUESTS,
        ) as client:
            return await fetch_sample(client, newest=newest, metrics=metrics, campaign_metrics=DEFAULT_CAMPAIGN_METRICS)

    sample = asyncio.run(fetch())
    return sample, {result.name: result for result in judge(sample)}


def broken(results: Mapping[str, Result]) -> set[str]:
    return {name for name, result in results.items() if result.verdict == "does not hold"}
