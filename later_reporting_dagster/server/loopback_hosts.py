"""Middleware that rejects requests to a host name that is not of this machine.

A server without authentication on loopback would otherwise be readable by any web page whose name is made to resolve
to 127.0.0.1 (DNS rebinding).
"""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from later_reporting_dagster.contract.enums import ProblemType
from later_reporting_dagster.server.problem_responses import problem_response

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class LoopbackHostsMiddleware:
    """Rejects requests whose header `Host` names another host than `LOOPBACK_HOSTS`.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, unless its host is another one."""
        if (
            scope["type"] == "http"
            and _without_port(Headers(scope=scope).get("host", "").lower()) not in LOOPBACK_HOSTS
        ):
            detail = f"without authentication, the host of a URL must be {', '.join(LOOPBACK_HOSTS)}"
            response = problem_response(HTTPStatus.FORBIDDEN, ProblemType.FORBIDDEN, detail)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _without_port(host: str) -> str:
    name, separator, port = host.rpartition(":")
    return name if separator and port.isdigit() else host
