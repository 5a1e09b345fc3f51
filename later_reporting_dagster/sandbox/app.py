"""The documented endpoint itself, with the token and instances routes around it, over a synthetic world."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.contract.api_version import PAGED, Revision
from later_reporting_dagster.contract.enums import ProblemType
from later_reporting_dagster.contract.limits import INSTANCES_PATH, POSTS_PERFORMANCE_PATH, TOKEN_PATH
from later_reporting_dagster.sandbox.post_pages import envelope
from later_reporting_dagster.sandbox.post_store import ServedPosts
from later_reporting_dagster.sandbox.problem_responses import Refusal, invalid, problem, unauthorized
from later_reporting_dagster.sandbox.query_parameters import PageRequest, Question, read_page_query, read_posts_query
from later_reporting_dagster.sandbox.synthetic_world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """How the service behaves, whatever the data.

    Attributes:
        client_id: The one client that there is.
        client_secret: Its secret.
        instance_scope: Instances that the client reaches; None: all of the world.
        latency_seconds: How long each admitted request waits before it is answered.
        requests_per_window: Requests that one IP address may make in any window [D]: 120.
        window_seconds: Length of the window, which slides [D]: 60.
        token_lifetime_seconds: From a token's `iat` to its `exp` [D]: twelve hours.
        revision: How lists are asked for and answered.
    """

    client_id: str = "sandbox-client"
    client_secret: str = "sandbox-secret"  # noqa: S105 - opens nothing but the sandbox
    instance_scope: tuple[str, ...] | None = None
    latency_seconds: float = 0.0
    requests_per_window: int = 120
    window_seconds: float = 60.0
    token_lifetime_seconds: int = 43_200
    revision: Revision = PAGED

    @property
    def rate_limit_headers(self) -> dict[str, str]:
        """What every answer carries [D]."""
        return {"X-Ratelimit-Limit": str(self.requests_per_window), "X-Ratelimit-Window": f"{self.window_seconds:g}"}


_MOST_BODY_BYTES = 16_384  # credentials take some hundred


class _Credentials(msgspec.Struct, frozen=True, rename="camel"):
    client_id: str
    client_secret: str


def create_app(
    world: World,
    *,
    options: SandboxOptions | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    answer: Callable[[Question, PageRequest], dict[str, Any]] | None = None,
    revision: Callable[[], Revision] | None = None,
) -> Starlette:
    """Return the service over `world`, as an ASGI application.

    Args:
        world: all instances and posts.
        options: how the service behaves; None: as documented.
        clock: seconds since the epoch, for tokens and the rate limit.
        sleep: waits for the latency.
        answer: returns a page of posts; None: from the world, as documented.
        revision: returns the API version in force when a request comes; None: that of the options.

    Raises:
        ValueError: the scope names an instance that the world does not have.
    """
    options = options or SandboxOptions()
    scope = world.instance_ids if options.instance_scope is None else options.instance_scope
    if strangers := set(scope) - set(world.instance_ids):
        raise ValueError(f"instance_scope names what is not in this world: {', '.join(sorted(strangers))}")
    answer_page = answer or ServedPosts(world).page
    revision_now = revision or (lambda: options.revision)

    async def token(request: Request) -> Response:
        try:
            given = msgspec.json.decode(await _body(request), type=_Credentials)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise invalid("the body must be a JSON object with the strings clientId and clientSecret") from None
        if (given.client_id, given.client_secret) != (options.client_id, options.client_secret):
            detail = "clientId or clientSecret is wrong"
            raise Refusal(HTTPStatus.UNAUTHORIZED, ProblemType.INVALID_CLIENT_CREDENTIALS, detail)
        return _json({"jwt": _issued_token(options, clock())})

    async def instances(request: Request) -> Response:
        authorize(request)
        page = read_page_query(_query_string(request), revision_now())
        return _json(envelope({"instanceIds": scope[page.rows]}, page=page, total=len(scope)))

    async def posts_performance(request: Request) -> Response:
        authorize(request)
        question, page = read_posts_query(_query_string(request), revision_now())
        if forbidden := set(question.instance_ids or ()) - set(scope):
            detail = f"these credentials do not reach {', '.join(sorted(forbidden))}"
            raise Refusal(HTTPStatus.FORBIDDEN, ProblemType.FORBIDDEN, detail)
        if question.instance_ids is None:
            question = replace(question, instance_ids=scope)
        return _json(answer_page(question, page))

    def authorize(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise unauthorized("a bearer token is required")
        if not _is_valid(given.strip(), options, clock()):
            raise unauthorized("the bearer token is invalid or has expired")

    app = Starlette(
        routes=[
            Route(TOKEN_PATH, token, methods=["POST"]),
            Route(INSTANCES_PATH, instances),
            Route(POSTS_PERFORMANCE_PATH, posts_performance),
        ],
        middleware=[Middleware(_RateLimit, options=options, clock=clock, sleep=sleep)],
        exception_handlers={Refusal: _refused, HTTPException: _http_error},
    )
    app.router.redirect_slashes = False
    return app


class _RateLimit:
    """Admits so many requests of an IP address in any window, tokens included, and tells the limit in every answer.

    A refused request does not count, so that a client that waits out the window is always admitted. An admitted one
    waits for the latency.
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

        if not self._admits(scope):
            await PlainTextResponse("Too Many Requests", status_code=429)(scope, receive, send_with_headers)
            return
        if self._options.latency_seconds:
            await self._sleep(self._options.latency_seconds)
        await self._app(scope, receive, send_with_headers)

    def _admits(self, scope: Scope) -> bool:
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


def _issued_token(options: SandboxOptions, now: float) -> str:
    """Return an HS256 JWT that is valid from `now`, in seconds since the epoch. Nothing is stored."""
    issued_at = int(now)
    claims = _Claims(sub=options.client_id, iat=issued_at, exp=issued_at + options.token_lifetime_seconds)
    header = _base64(msgspec.json.encode({"alg": "HS256", "typ": "JWT"}))
    signed = header + b"." + _base64(msgspec.json.encode(claims))
    return (signed + b"." + _signature(signed, options)).decode()


def _is_valid(token: str, options: SandboxOptions, now: float) -> bool:
    signed, _, signature = token.encode("utf-8", "replace").rpartition(b".")
    if not hmac.compare_digest(signature, _signature(signed, options)):
        return False
    payload = signed.partition(b".")[2]
    return now < msgspec.json.decode(base64.urlsafe_b64decode(payload + b"=="), type=_Claims).exp


def _signature(signed: bytes, options: SandboxOptions) -> bytes:
    key = hashlib.sha256(f"{options.client_id}\n{options.client_secret}".encode()).digest()
    return _base64(hmac.digest(key, signed, "sha256"))


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


async def _refused(request: Request, error: Exception) -> Response:
    refusal = cast(Refusal, error)
    return problem(refusal.status, refusal.type, str(refusal))


async def _http_error(request: Request, error: Exception) -> Response:
    """Unknown routes and methods; the types follow the documented pattern, which ends in the status."""
    http = cast(HTTPException, error)
    return problem(http.status_code, f"ANL_00{http.status_code}", http.detail, headers=http.headers)


async def _body(request: Request) -> bytes:
    """Return a request's body, unless it is too large for one that is meant."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY_BYTES:
            raise HTTPException(413, f"the body has more than {_MOST_BODY_BYTES} bytes", {"Connection": "close"})
    return body


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _query_string(request: Request) -> str:
    return cast(bytes, request.scope["query_string"]).decode("latin-1")
