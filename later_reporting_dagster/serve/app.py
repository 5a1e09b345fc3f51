"""The application of `later-reporting serve`: the routes of the API over a lake, behind an access log."""

import logging
import time
from http import HTTPStatus
from urllib.parse import unquote_plus

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.client.auth import is_loopback
from later_reporting_dagster.contract.parameters import CURSOR, METRICS_MEMBER, PAGED, ApiVersion, ProblemType
from later_reporting_dagster.endpoint.app import RateLimit, create_app
from later_reporting_dagster.endpoint.responses import problem_response
from later_reporting_dagster.endpoint.tokens import Tokens
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.serve.openapi_page import openapi_routes
from later_reporting_dagster.serve.store import LakeStore
from later_reporting_dagster.serve.store import ServeOptions as ServeOptions

_logger = logging.getLogger(__name__)

# More than the server can do: clients that adapt to the stated limit should not wait.
_NO_LIMIT = 1_000_000


def lake_app(lake: Lake, options: ServeOptions) -> ASGIApp:
    """Return the routes of the API over a lake, which it does not read before the first request and never writes to."""
    store = LakeStore(lake, options)
    tokens = Tokens(options.clients, lifetime_seconds=options.token_lifetime_seconds)
    app: ASGIApp = create_app(
        store,
        tokens=tokens if options.clients else None,
        rate_limit=RateLimit(options.requests_per_window or _NO_LIMIT, options.window_seconds),
        api_version=lambda query_string: options.api_version or version_of_parameters(query_string),
        clock=time.time,
        lifespan=lambda _: store.running(),
        more_routes=[Route("/healthz", _health), *openapi_routes()],
    )
    if not options.clients:
        app = LoopbackHostsMiddleware(app)
    return AccessLogMiddleware(app)


def version_of_parameters(query_string: str) -> ApiVersion:
    """Return the API version that the parameters of a request belong to; without any, the paged version."""
    # Not `parse_qsl`, which decodes the values too.
    sent = {part.partition("=")[0] for part in query_string.split("&")}
    names = {name if name.isalnum() else unquote_plus(name).removesuffix("[]") for name in sent}
    only_with_cursors = {CURSOR.page_size_parameter, CURSOR.page_parameter, METRICS_MEMBER}
    return PAGED if names.isdisjoint(only_with_cursors) else CURSOR


async def _health(request: Request) -> Response:  # noqa: ARG001
    return Response(msgspec.json.encode({"status": "ok"}), media_type="application/json")


class AccessLogMiddleware:
    """Logs who sent a request, its route, status, bytes and milliseconds.

    Nothing else of it: a secret may be anywhere in a request by mistake.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, size, started = 0, 0, time.perf_counter()

        async def count(message: Message) -> None:
            nonlocal status, size
            status = message.get("status", status)
            size += len(message.get("body", b""))
            await send(message)

        scope.setdefault("state", {})
        try:
            await self._app(scope, receive, count)
        finally:
            milliseconds = 1000 * (time.perf_counter() - started)
            _logger.info(
                "%s %s %s %s %s %d B %.0f ms",
                (scope.get("client") or ("-",))[0],
                scope["state"].get("client_id") or "-",
                scope["method"],
                scope["path"] if "endpoint" in scope else "(unknown path)",
                status or "-",
                size,
                milliseconds,
            )


class LoopbackHostsMiddleware:
    """Rejects requests whose header `Host` is neither `localhost` nor an address of this machine.

    A server without authentication would otherwise be readable by any web page whose name is made to resolve to
    127.0.0.1 (DNS rebinding).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_loopback(_host(Headers(scope=scope).get("host", "").lower())):
            detail = "without authentication, the host of a URL must be localhost or a loopback address"
            response = problem_response(HTTPStatus.FORBIDDEN, ProblemType.FORBIDDEN, detail)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _host(header: str) -> str:
    name, separator, port = header.rpartition(":")
    return (name if separator and port.isdigit() else header).removeprefix("[").removesuffix("]")
