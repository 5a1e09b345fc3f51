"""The sandbox application: the routes of the API over a synthetic world."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import cast

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.contract.api_version import PAGED, ApiVersion
from later_reporting_dagster.contract.campaign_metrics import CAMPAIGN_METRICS
from later_reporting_dagster.contract.enums import ProblemType
from later_reporting_dagster.contract.limits import (
    CAMPAIGNS_PATH,
    CAMPAIGNS_PERFORMANCE_PATH,
    INSTANCES_PATH,
    POSTS_PERFORMANCE_PATH,
    TOKEN_PATH,
)
from later_reporting_dagster.sandbox.campaign_pages import CampaignStore
from later_reporting_dagster.sandbox.list_pages import JsonObject, RequestedPage, page_body
from later_reporting_dagster.sandbox.post_store import PostStore
from later_reporting_dagster.sandbox.problem_responses import ProblemError, bad_request, problem_response, unauthorized
from later_reporting_dagster.sandbox.query_parameters import (
    parse_campaign_performance_query,
    parse_campaigns_query,
    parse_page_query,
    parse_posts_query,
)
from later_reporting_dagster.sandbox.synthetic_world import World

_REFUSALS: Mapping[int, tuple[ProblemType, str]] = {
    403: (ProblemType.FORBIDDEN, "these credentials cannot access campaigns"),
    404: (ProblemType.NOT_FOUND, "Not Found"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """Options of the sandbox that do not depend on its data.

    Attributes:
        client_id: The only valid client id.
        client_secret: Its secret.
        instance_scope: Instances that the credentials can access; None: all of the world.
        latency_seconds: Delay of each admitted request.
        requests_per_window: Requests of an IP address in any window; default: docs/api.md, "Rate limit".
        window_seconds: Length of the sliding window; default: docs/api.md, "Rate limit".
        token_lifetime_seconds: From a token's `iat` to its `exp`; default: docs/api.md, "Authentication".
        api_version: API version of the list routes.
        refused_campaign_metrics: Metrics that the campaign performance route does not offer.
        campaigns_status: Status of the response to all requests for campaigns and their performance: 403 or 404; None:
            serve them.

    Raises:
        ValueError: `campaigns_status` is another status, or a refused metric is unknown.
    """

    client_id: str = "sandbox-client"
    client_secret: str = "sandbox-secret"  # noqa: S105 - valid in the sandbox only
    instance_scope: tuple[str, ...] | None = None
    latency_seconds: float = 0.0
    requests_per_window: int = 120
    window_seconds: float = 60.0
    token_lifetime_seconds: int = 43_200
    api_version: ApiVersion = PAGED
    refused_campaign_metrics: tuple[str, ...] = ()
    campaigns_status: int | None = None

    def __post_init__(self) -> None:
        if self.campaigns_status not in (None, *_REFUSALS):
            raise ValueError(f"campaigns_status must be 403 or 404, not {self.campaigns_status}")
        known = {metric.api_name for metric in CAMPAIGN_METRICS}
        if unknown := [name for name in self.refused_campaign_metrics if name not in known]:
            raise ValueError(f"unknown campaign metric: {', '.join(unknown)}")

    @property
    def rate_limit_headers(self) -> dict[str, str]:
        """Headers of every response."""
        return {"X-Ratelimit-Limit": str(self.requests_per_window), "X-Ratelimit-Window": f"{self.window_seconds:g}"}


def create_app(
    world: World,
    *,
    options: SandboxOptions | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    posts: PostStore | None = None,
    page_response: Callable[[RequestedPage], JsonObject] = RequestedPage.body,
    api_version: Callable[[], ApiVersion] | None = None,
) -> Starlette:
    """Return the sandbox as an ASGI application.

    Args:
        world: All instances and posts.
        options: Options of the sandbox; None: the documented limits.
        clock: Return seconds since the epoch, for tokens and the rate limit.
        sleep: Wait for the latency.
        posts: The posts to serve; None: all posts of the world.
        page_response: Return the body of a page of posts, of campaigns or of their performance.
        api_version: Return the API version of a request when it arrives; None: that of the options.

    Raises:
        ValueError: `instance_scope` has an instance that the world does not have.
    """
    options = options or SandboxOptions()
    scope = _instance_scope(world, options)
    posts = posts or PostStore(world)
    handlers = _Handlers(
        options=options,
        instance_ids=scope,
        clock=clock,
        posts=posts,
        campaigns=CampaignStore(world, posts, refused_metrics=options.refused_campaign_metrics),
        page_response=page_response,
        api_version=api_version or (lambda: options.api_version),
    )
    app = Starlette(
        routes=handlers.routes(),
        middleware=[Middleware(_RateLimitMiddleware, options=options, clock=clock, sleep=sleep)],
        exception_handlers={ProblemError: _problem_error, HTTPException: _http_error},
    )
    app.router.redirect_slashes = False
    return app


def _instance_scope(world: World, options: SandboxOptions) -> tuple[str, ...]:
    """Return the instances that the credentials can access; raise `ValueError` if the world does not have one."""
    scope = world.instance_ids if options.instance_scope is None else options.instance_scope
    if unknown := set(scope) - set(world.instance_ids):
        raise ValueError(f"instance_scope has instances that this world does not have: {', '.join(sorted(unknown))}")
    return scope


_MAX_BODY_BYTES = 16_384  # credentials take a few hundred


class _Credentials(msgspec.Struct, frozen=True, rename="camel"):
    client_id: str
    client_secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handlers:
    """Request handlers of the routes.

    Attributes:
        options: Options of the sandbox.
        instance_ids: Instances that the credentials can access.
        clock: Return seconds since the epoch.
        posts: The posts to serve.
        campaigns: The campaigns to serve.
        page_response: Return the body of a page.
        api_version: Return the current API version.
    """

    options: SandboxOptions
    instance_ids: tuple[str, ...]
    clock: Callable[[], float]
    posts: PostStore
    campaigns: CampaignStore
    page_response: Callable[[RequestedPage], JsonObject]
    api_version: Callable[[], ApiVersion]

    def routes(self) -> list[Route]:
        return [
            Route(TOKEN_PATH, self.token, methods=["POST"]),
            Route(INSTANCES_PATH, self.instances),
            Route(POSTS_PERFORMANCE_PATH, self.posts_performance),
            Route(CAMPAIGNS_PATH, self.list_campaigns),
            Route(CAMPAIGNS_PERFORMANCE_PATH, self.campaigns_performance),
        ]

    async def token(self, request: Request) -> Response:
        try:
            credentials = msgspec.json.decode(await _read_body(request), type=_Credentials)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise bad_request("the body must be a JSON object with the strings clientId and clientSecret") from None
        if (credentials.client_id, credentials.client_secret) != (self.options.client_id, self.options.client_secret):
            detail = "clientId or clientSecret is wrong"
            raise ProblemError(HTTPStatus.UNAUTHORIZED, ProblemType.INVALID_CLIENT_CREDENTIALS, detail)
        return _json_response({"jwt": _issue_token(self.options, self.clock())})

    async def instances(self, request: Request) -> Response:
        self._authorize(request)
        page = parse_page_query(_query_string(request), self.api_version())
        data = {"instanceIds": self.instance_ids[page.rows]}
        return _json_response(page_body(data, page=page, total=len(self.instance_ids)))

    async def posts_performance(self, request: Request) -> Response:
        self._authorize(request)
        query, page = parse_posts_query(_query_string(request), self.api_version())
        query = replace(query, instance_ids=self._in_scope(query.instance_ids))
        render = partial(self.posts.page, query)
        return _json_response(self.page_response(RequestedPage(page=page, render=render, posts_query=query)))

    async def list_campaigns(self, request: Request) -> Response:
        self._authorize(request)
        self._refuse_campaigns()
        instance_ids, page = parse_campaigns_query(_query_string(request), self.api_version())
        render = partial(self.campaigns.page, self._in_scope(instance_ids))
        return _json_response(self.page_response(RequestedPage(page=page, render=render)))

    async def campaigns_performance(self, request: Request) -> Response:
        self._authorize(request)
        self._refuse_campaigns()
        query, page = parse_campaign_performance_query(
            _query_string(request), self.api_version(), refused_metrics=self.options.refused_campaign_metrics
        )
        posts = replace(query.posts, instance_ids=self._in_scope(query.posts.instance_ids))
        render = partial(self.campaigns.performance_page, replace(query, posts=posts))
        return _json_response(self.page_response(RequestedPage(page=page, render=render)))

    def _in_scope(self, instance_ids: tuple[str, ...] | None) -> tuple[str, ...]:
        """Return the requested instances, or all that the credentials can access."""
        if forbidden := set(instance_ids or ()) - set(self.instance_ids):
            detail = f"these credentials cannot access {', '.join(sorted(forbidden))}"
            raise ProblemError(HTTPStatus.FORBIDDEN, ProblemType.FORBIDDEN, detail)
        return self.instance_ids if instance_ids is None else instance_ids

    def _refuse_campaigns(self) -> None:
        """Raise the error of the options, if the campaign routes are refused."""
        if self.options.campaigns_status is not None:
            problem_type, detail = _REFUSALS[self.options.campaigns_status]
            raise ProblemError(HTTPStatus(self.options.campaigns_status), problem_type, detail)

    def _authorize(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthorized("a bearer token is required")
        if not _is_valid(token.strip(), self.options, now=self.clock()):
            raise unauthorized("the bearer token is invalid or has expired")


class _RateLimitMiddleware:
    """Limits the requests of an IP address in a sliding window, and adds the rate-limit headers to every response.

    Token requests count; rejected requests do not, so that a client that waits for the window is always admitted.
    Admitted requests wait for the latency.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        options: SandboxOptions,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._app, self._options, self._clock, self._sleep = app, options, clock, sleep
        self._admitted: defaultdict[str, deque[float]] = defaultdict(deque)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._options.rate_limit_headers)
            await send(message)

        if not self._admit(scope):
            await PlainTextResponse("Too Many Requests", status_code=429)(scope, receive, send_with_headers)
            return
        if self._options.latency_seconds:
            await self._sleep(self._options.latency_seconds)
        await self._app(scope, receive, send_with_headers)

    def _admit(self, scope: Scope) -> bool:
        """Count a request if the window has room for it; return whether it has."""
        client = scope.get("client")
        admitted, now = self._admitted[client[0] if client else ""], self._clock()
        while admitted and admitted[0] <= now - self._options.window_seconds:
            admitted.popleft()
        if len(admitted) >= self._options.requests_per_window:
            return False
        admitted.append(now)
        return True


class _Claims(msgspec.Struct, frozen=True):
    sub: str
    iat: int
    exp: int


def _issue_token(options: SandboxOptions, now: float) -> str:
    """Return an HS256 JWT that is valid from `now`, in seconds since the epoch. Tokens are not stored."""
    issued_at = int(now)
    claims = _Claims(sub=options.client_id, iat=issued_at, exp=issued_at + options.token_lifetime_seconds)
    header = _base64url(msgspec.json.encode({"alg": "HS256", "typ": "JWT"}))
    signed = header + b"." + _base64url(msgspec.json.encode(claims))
    return (signed + b"." + _signature(signed, options)).decode()


def _is_valid(token: str, options: SandboxOptions, *, now: float) -> bool:
    signed, _, signature = token.encode("utf-8", "replace").rpartition(b".")
    if not hmac.compare_digest(signature, _signature(signed, options)):
        return False
    payload = signed.partition(b".")[2]
    return now < msgspec.json.decode(base64.urlsafe_b64decode(payload + b"=="), type=_Claims).exp


def _signature(signed: bytes, options: SandboxOptions) -> bytes:
    key = hashlib.sha256(f"{options.client_id}\n{options.client_secret}".encode()).digest()
    return _base64url(hmac.digest(key, signed, "sha256"))


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


async def _problem_error(request: Request, error: Exception) -> Response:
    problem = cast(ProblemError, error)
    return problem_response(problem.status, problem.type, str(problem))


async def _http_error(request: Request, error: Exception) -> Response:
    """Return the response to an unknown route or method. Its type is undocumented: `ANL_00` and the status."""
    http = cast(HTTPException, error)
    return problem_response(http.status_code, f"ANL_00{http.status_code}", http.detail, headers=http.headers)


async def _read_body(request: Request) -> bytes:
    """Return the body of a request; respond with 413 if it is larger than any valid one."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(413, f"the body has more than {_MAX_BODY_BYTES} bytes", {"Connection": "close"})
    return body


def _json_response(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _query_string(request: Request) -> str:
    return cast(bytes, request.scope["query_string"]).decode("latin-1")
