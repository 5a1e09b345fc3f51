"""Serve an application on a port: in the foreground for the command line, in a thread for the demo and tests."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

DEFAULT_PORT = 8484
MAX_CONNECTIONS = 500
FIRST_REQUEST_SECONDS = 30.0
"""Longest time from a connection to the head of its first request."""


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a socket that accepts connections; with port 0, on any free one."""
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def serve(app: ASGIApp, listener: socket.socket, *, on_ready: Callable[[str], None]) -> None:
    """Serve an application until it is interrupted, and close the socket; call `on_ready` once with the base URL."""
    # The caller may interrupt it as soon as it reads what `on_ready` printed, before the server handles signals.
    with listener, contextlib.suppress(KeyboardInterrupt):
        on_ready(_base_url(listener))
        _server(app).run(sockets=[listener])


@contextlib.contextmanager
def running_server(app: ASGIApp) -> Iterator[str]:
    """Serve an application in a thread while the `with` block runs; yield the base URL."""
    with listen() as listener:
        server = _server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="server", daemon=True)
        thread.start()
        try:
            while not server.started:
                if not thread.is_alive():
                    raise RuntimeError("the server did not start; see its log")
                time.sleep(0.005)
            yield _base_url(listener)
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def _base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    # Clients cannot connect to the wildcard address, and send tokens over http only to loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Connection(H11Protocol):
    """A connection that is closed if there are too many, or if its first request is late.

    Not httptools, which uvicorn takes if it is installed: it has no limit of the size of a head. That of h11 is 64 KB.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        self.loop.call_later(FIRST_REQUEST_SECONDS, self._close_without_request)

    def _close_without_request(self) -> None:
        if self.scope is None:
            self.transport.abort()


def _server(app: ASGIApp) -> uvicorn.Server:
    """Return a server that logs warnings only and keeps idle connections for longer than a rate-limit window."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            http=_Connection,
            ws="none",
            # The address of a client is that of its connection: a header could name any other one.
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,  # seconds for requests in progress; containers are killed after ten
        )
    )
