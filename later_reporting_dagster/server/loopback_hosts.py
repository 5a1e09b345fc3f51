"""Middleware that rejects requests to a host name that is not of this machine.

A server without authentication on loopback would otherwise be readable by any web page whose name is made to resolve
to 127.0.0.1 (DNS rebinding).
"""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from later_reporting_dagster.client.auth import is_loopback
from later_reporting_dagster.contract.parameters import ProblemType
from later_reporting_dagster.server.problem_responses import problem_response


class LoopbackHostsMiddleware:
    """Rejects requests whose header `Host` is neither `localhost` nor an address of this machine.

    Args:
        app: ASGI application.
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
