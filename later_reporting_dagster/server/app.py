"""The routes of the API as an ASGI application over a store."""

import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import msgspec
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

from later_reporting_dagster.client.auth import is_loopback
from later_reporting_dagster.contract.parameters import TOKEN_PATH, ApiVersion
from later_reporting_dagster.server.routes import (
    ApiRoute,
    PageQuery,
    ProblemError,
    bad_request,
    json_response,
    problem_response,
)
from later_reporting_dagster.server.tokens import Client, Tokens

_MAX_BODY_BYTES = 16_384  # credentials take a few hundred
_ANYONE = Client("", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent a request."""

    instance_ids: tuple[str, ...] | None  # that it can access; None: all
    # Identifies the token, or the address of a client without one: a pagination belongs to one session.
    session: str

    def instances(self, requested: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """Return the instances of a query, None for all; raise the 403 if the caller cannot access one of them."""
        if self.instance_ids is None:
            return requested
        if forbidden := set(requested or ()) - set(self.instance_ids):
            raise forbidden_instances(forbidden)
        return self.instance_ids if requested is None else requested


def forbidden_instances(instance_ids: Iterable[str]) -> ProblemError:
    detail = f"these credentials cannot access {', '.join(sorted(instance_ids))}"
    return ProblemError(HTTPStatus.FORBIDDEN, detail)


Page = Callable[[Any, PageQuery, Caller], Awaitable[Response]]
"""Returns a page, or the one object, of a route to a caller, whose query has only instances that the caller can access.

It raises `ProblemError`: 400 for a metric that the query cannot have, 403 for an instance that does not exist.
"""


class RateLimitMiddleware:
    """Rejects requests of an IP address beyond a limit in a sliding window, and states the limit in every response.

    Token requests count; rejected requests do not, so that a client that waits for the window is always admitted
    (docs/api.md, "Rate limit").
    """

    def __init__(self, app: ASGIApp, *, requests: int, window_seconds: float, clock: Callable[[], float]) -> None:
        self._app, self._requests, self._window_seconds, self._clock = app, requests, window_seconds, clock
        self._headers = [
            (b"x-ratelimit-limit", f"{requests}".encode()),
            (b"x-ratelimit-window", f"{window_seconds:g}".encode()),
        ]
        # When requests of each address were admitted. Addresses are in the order of their newest request.
        self._admitted: dict[str, deque[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._headers]
            await send(message)

        if not self._admit(scope):
            await PlainTextResponse("Too Many Requests", status_code=429)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _admit(self, scope: Scope) -> bool:
        client, now = scope.get("client"), self._clock()
        address, expired = client[0] if client else "", now - self._window_seconds
        self._admitted[address] = admitted = self._admitted.pop(address, deque())
        while admitted and admitted[0] <= expired:
            admitted.popleft()
        # Otherwise a client with many addresses could fill the memory.
        while (oldest := next(iter(self._admitted))) != address and self._admitted[oldest][-1] <= expired:
            del self._admitted[oldest]
        if len(admitted) >= self._requests:
            return False
        admitted.append(now)
        return True


def api_app(
    pages: Mapping[ApiRoute, Page],
    *,
    tokens: Tokens | None,
    rate_limit: tuple[int, float],
    api_version: ApiVersion | None,
    clock: Callable[[], float],
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """Return the routes of the API as an ASGI application.

    Args:
        pages: The routes to serve, those with most requests first; any other path is a 404.
        tokens: None: requests need no token, but a loopback address or `localhost` as their host.
        rate_limit: Requests of an address, and the seconds of their window.
        api_version: None: that which the parameters of a request belong to.
        clock: Return seconds since the epoch, for tokens and the rate limit.
    """
    requests, window_seconds = rate_limit
    handlers = _Handlers(tokens=tokens, api_version=api_version, clock=clock)
    app = Starlette(
        lifespan=lifespan,
        routes=[
            *(Route(route.path, handlers.endpoint(route, page)) for route, page in pages.items()),
            Route(TOKEN_PATH, handlers.token, methods=["POST"]),
        ],
        middleware=[Middleware(RateLimitMiddleware, requests=requests, window_seconds=window_seconds, clock=clock)],
        exception_handlers={HTTPException: _http_error, Exception: _unexpected_error},
    )
    app.router.redirect_slashes = False
    return app


class _Credentials(msgspec.Struct, frozen=True, rename="camel"):
    client_id: str
    client_secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handlers:
    tokens: Tokens | None
    api_version: ApiVersion | None
    clock: Callable[[], float]

    async def token(self, request: Request) -> Response:
        try:
            credentials = msgspec.json.decode(await _read_body(request), type=_Credentials)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ClientDisconnect):
            raise bad_request("the body must be a JSON object with the strings clientId and clientSecret") from None
        token = "no.token.needed"
        if self.tokens is not None:
            token = self.tokens.issue(credentials.client_id, credentials.client_secret, now=self.clock())
        return json_response({"jwt": token})

    def endpoint(self, route: ApiRoute, page_of: Page) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            caller = self._authorize(request)
            query_string = cast(bytes, request.scope["query_string"]).decode("latin-1")
            query, page = route.parse(query_string, self.api_version)
            return await page_of(replace(query, instance_ids=caller.instances(query.instance_ids)), page, caller)

        return respond

    def _authorize(self, request: Request) -> Caller:
        """Return the client of a request; raise the 401 without a valid token."""
        if self.tokens is None:
            # Any web page whose name is made to resolve to 127.0.0.1 could send the request (DNS rebinding).
            if not is_loopback(_host(request)):
                detail = "without authentication, the host of a URL must be localhost or a loopback address"
                raise ProblemError(HTTPStatus.FORBIDDEN, detail)
            client, session = _ANYONE, request.client.host if request.client else ""
        else:
            authorization = request.headers.get("authorization", "")
            client = self.tokens.client_of(authorization, now=self.clock())
            session = hashlib.sha256(authorization.encode("utf-8", "replace")).hexdigest()
        request.state.client_id = client.client_id
        return Caller(instance_ids=client.instance_ids, session=session)


def _host(request: Request) -> str:
    header = request.headers.get("host", "").lower()
    name, separator, port = header.rpartition(":")
    return (name if separator and port.isdigit() else header).removeprefix("[").removesuffix("]")


async def _http_error(request: Request, error: Exception) -> Response:
    http = cast(HTTPException, error)
    return problem_response(http.status_code, http.detail, getattr(http, "type", ""), headers=http.headers)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    """Return the response to a request that fails because of a bug. Starlette raises the error again, for the log."""
    return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, "an error in this server: see its log")


async def _read_body(request: Request) -> bytes:
    """Return the body of a request; respond with 413 if it is larger than any valid one."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(413, f"the body has more than {_MAX_BODY_BYTES} bytes", {"Connection": "close"})
    return body
