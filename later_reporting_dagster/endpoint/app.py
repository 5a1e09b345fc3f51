"""The routes of the API as an ASGI application over a store."""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

from later_reporting_dagster.contract.parameters import (
    CAMPAIGNS_PATH,
    CAMPAIGNS_PERFORMANCE_PATH,
    INSTANCES_PATH,
    METRICS_MEMBER,
    POSTS_PERFORMANCE_PATH,
    TOKEN_PATH,
    ApiVersion,
    ProblemType,
)
from later_reporting_dagster.endpoint.pages import page_body
from later_reporting_dagster.endpoint.problem_responses import ProblemError, bad_request, problem_response
from later_reporting_dagster.endpoint.query_parameters import (
    parse_campaign_performance_query,
    parse_campaigns_query,
    parse_page_query,
    parse_posts_query,
)
from later_reporting_dagster.endpoint.rate_limit import RateLimit, RateLimitMiddleware
from later_reporting_dagster.endpoint.store import Caller, PageResponse, PostStore
from later_reporting_dagster.endpoint.tokens import Client, Tokens

_MAX_BODY_BYTES = 16_384  # credentials take a few hundred
_ANYONE = Client("", "")


def create_app(
    store: PostStore,
    *,
    tokens: Tokens | None,
    rate_limit: RateLimit,
    api_version: Callable[[str], ApiVersion],
    clock: Callable[[], float],
    delay: Callable[[], Awaitable[None]] | None = None,
    more_routes: Sequence[Route] = (),
    lifespan: Lifespan[Starlette] | None = None,
) -> Starlette:
    """Return the routes of the API as an ASGI application.

    Args:
        store: The data.
        tokens: Issues and recognizes tokens; None: requests need no token.
        rate_limit: The limit of each IP address.
        api_version: Return the API version of a request when it arrives, given its query string.
        clock: Return seconds since the epoch, for tokens and the rate limit.
        delay: Awaited before each admitted request; None: no delay.
        more_routes: Routes that the API does not have. They need no token, and the rate limit does not apply to them.
        lifespan: Entered when the server starts, and left when it stops; None: nothing.
    """
    handlers = _Handlers(store=store, tokens=tokens, api_version=api_version, clock=clock)
    app = Starlette(
        lifespan=lifespan,
        routes=[*handlers.routes(), *more_routes],
        middleware=[
            Middleware(
                RateLimitMiddleware,
                limit=rate_limit,
                clock=clock,
                delay=delay,
                unlimited_paths={route.path for route in more_routes},
            )
        ],
        exception_handlers={ProblemError: _problem_error, HTTPException: _http_error, Exception: _unexpected_error},
    )
    app.router.redirect_slashes = False
    return app


class _Credentials(msgspec.Struct, frozen=True, rename="camel"):
    client_id: str
    client_secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Handlers:
    """Request handlers of the routes; see `create_app`."""

    store: PostStore
    tokens: Tokens | None
    api_version: Callable[[str], ApiVersion]
    clock: Callable[[], float]

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
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ClientDisconnect):
            raise bad_request("the body must be a JSON object with the strings clientId and clientSecret") from None
        token: str | None = "no.token.needed"
        if self.tokens is not None:
            token = self.tokens.issue(credentials.client_id, credentials.client_secret, now=self.clock())
        if token is None:
            detail = "clientId or clientSecret is wrong"
            raise ProblemError(HTTPStatus.UNAUTHORIZED, ProblemType.INVALID_CLIENT_CREDENTIALS, detail)
        return _json_response({"jwt": token})

    async def instances(self, request: Request) -> Response:
        caller = self._authorize(request)
        query_string = _query_string(request)
        page = parse_page_query(query_string, self.api_version(query_string))
        instance_ids = caller.instance_ids if caller.instance_ids is not None else await self.store.instance_ids()
        return _json_response(page_body({"instanceIds": instance_ids[page.rows]}, page=page, total=len(instance_ids)))

    async def posts_performance(self, request: Request) -> Response:
        caller = self._authorize(request)
        query_string = _query_string(request)
        query, page = parse_posts_query(query_string, self.api_version(query_string))
        if unsupported := self.store.unsupported_metrics(query):
            raise bad_request(f"{METRICS_MEMBER} not supported for these filters: {', '.join(unsupported)}")
        return _page_response(await self.store.posts_page(query, page, caller))

    async def list_campaigns(self, request: Request) -> Response:
        caller = self._authorize(request)
        await self.store.check_route(CAMPAIGNS_PATH)
        query_string = _query_string(request)
        instance_ids, page = parse_campaigns_query(query_string, self.api_version(query_string))
        return _page_response(await self.store.campaigns_page(instance_ids, page, caller))

    async def campaigns_performance(self, request: Request) -> Response:
        caller = self._authorize(request)
        await self.store.check_route(CAMPAIGNS_PERFORMANCE_PATH)
        query_string = _query_string(request)
        query, page = parse_campaign_performance_query(query_string, self.api_version(query_string))
        if unsupported := self.store.unsupported_campaign_metrics(query):
            raise bad_request(f"{METRICS_MEMBER} not supported: {', '.join(unsupported)}")
        return _page_response(await self.store.campaign_performance_page(query, page, caller))

    def _authorize(self, request: Request) -> Caller:
        """Return the client of a request; raise `ProblemError` 401 without a valid token."""
        host = request.client.host if request.client else ""
        if self.tokens is None:
            client, session = _ANYONE, host
        else:
            authorization = request.headers.get("authorization", "")
            client = self.tokens.client_of(authorization, now=self.clock())
            session = hashlib.sha256(authorization.encode("utf-8", "replace")).hexdigest()
        request.state.client_id = client.client_id
        return Caller(instance_ids=client.instance_ids, session=session)


async def _problem_error(request: Request, error: Exception) -> Response:
    problem = cast(ProblemError, error)
    return problem_response(problem.status, problem.type, str(problem))


async def _http_error(request: Request, error: Exception) -> Response:
    """Return the response to an unknown route or method. Its type is undocumented: `ANL_00` and the status."""
    http = cast(HTTPException, error)
    return problem_response(http.status_code, f"ANL_00{http.status_code}", http.detail, headers=http.headers)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    """Return the response to a request that fails because of a bug. Starlette raises the error again, for the log."""
    return problem_response(
        HTTPStatus.INTERNAL_SERVER_ERROR, ProblemType.INTERNAL, "an error in this server: see its log"
    )


async def _read_body(request: Request) -> bytes:
    """Return the body of a request; respond with 413 if it is larger than any valid one."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(413, f"the body has more than {_MAX_BODY_BYTES} bytes", {"Connection": "close"})
    return body


def _page_response(page: PageResponse) -> Response:
    return Response(msgspec.json.encode(page.body), headers=page.headers, media_type="application/json")


def _json_response(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _query_string(request: Request) -> str:
    return cast(bytes, request.scope["query_string"]).decode("latin-1")
