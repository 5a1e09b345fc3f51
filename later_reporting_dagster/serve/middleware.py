"""Middleware of `later-reporting serve`: the access log, and the check of the host for a server without tokens."""

import logging
import re
import time
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.client.auth import is_loopback
from later_reporting_dagster.contract.parameters import API_VERSIONS, METRICS_MEMBER, ProblemType
from later_reporting_dagster.endpoint.problem_responses import problem_response

_logger = logging.getLogger(__name__)

# A secret may be anywhere in a request by mistake. So only these parameters are logged, and their values only if the
# request succeeded: then they are dates, ids and names.
_LOGGED_NAMES = (
    "startDate", "endDate", "instanceIds", "campaignIds", "platform", "contentType", "dateBasis", "sortProperty",
    "sortDirection", METRICS_MEMBER,
    *(version.page_size_parameter for version in API_VERSIONS.values()),
    "pageNumber",
)  # fmt: skip
_LOGGED_PARAMETER = re.compile(rf"({'|'.join(_LOGGED_NAMES)})(\[\]|%5B%5D|%5b%5d)?(=|$)")
_MAX_LOGGED_CHARACTERS = 500


class AccessLogMiddleware:
    """Logs who sent a request, its path, status, bytes and milliseconds; no header and no unknown parameter."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, and log it."""
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
                _logged_target(scope, with_values=status == HTTPStatus.OK),
                status or "-",
                size,
                milliseconds,
            )


def _logged_target(scope: Scope, *, with_values: bool) -> str:
    """Return the route of a request and its known parameters; without their values, only their names."""
    if "endpoint" not in scope:  # of no route
        return "(unknown path)"
    # As it was sent: to decode and to encode it again would take a third of the time of a page.
    query_string = scope["query_string"].decode("ascii", "backslashreplace")
    parameters = [each for each in query_string.split("&") if each]
    known = [each for each in parameters if _LOGGED_PARAMETER.match(each)]
    hidden = len(parameters) - len(known)
    if not with_values:
        known = [each.partition("=")[0] for each in known]
    query = "&".join(known)[:_MAX_LOGGED_CHARACTERS]
    if hidden:
        query += f" ({hidden} more)"
    return f"{scope['path']}?{query}" if query else str(scope["path"])


class LoopbackHostsMiddleware:
    """Rejects requests whose header `Host` is neither `localhost` nor an address of this machine.

    A server without authentication would otherwise be readable by any web page whose name is made to resolve to
    127.0.0.1 (DNS rebinding).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, unless its host is another one."""
        if scope["type"] == "http" and not is_loopback(_host(Headers(scope=scope).get("host", "").lower())):
            detail = "without authentication, the host of a URL must be localhost or a loopback address"
            response = problem_response(HTTPStatus.FORBIDDEN, ProblemType.FORBIDDEN, detail)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _host(header: str) -> str:
    name, separator, port = header.rpartition(":")
    return (name if separator and port.isdigit() else header).removeprefix("[").removesuffix("]")
