"""Serves the sandbox on a real port: in the foreground for people, in a thread for the demo and for tests."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

DEFAULT_PORT = 8484
BANNER = "SYNTHETIC DATA: this sandbox invents every instance, creator, post and number that it serves."


def serve(app: ASGIApp, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT, on_ready: Callable[[str], None]) -> None:
    """Serves `app` until it is interrupted. `on_ready` is called once with the base URL, when connections are accepted.

    Port 0 takes a free one.

    Raises:
        OSError: the address cannot be bound.
    """
    with _listener(host, port) as listener:
        on_ready(_base_url(listener))
        with contextlib.suppress(KeyboardInterrupt):
            _server(app).run(sockets=[listener])


@contextlib.contextmanager
def running_sandbox(app: ASGIApp, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serves `app` from a thread of its own while the block runs, and gives its base URL.

    Raises:
        OSError: the address cannot be bound.
        RuntimeError: the server stopped before it had started.
    """
    with _listener(host, port) as listener:
        server = _server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="sandbox", daemon=True)
        thread.start()
        try:
            while not server.started:
                if not thread.is_alive():
                    raise RuntimeError("the sandbox did not start: its log says why")
                time.sleep(0.005)
            yield _base_url(listener)
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def _listener(host: str, port: int) -> socket.socket:
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def _base_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    # All addresses are no address to connect to, and the client sends no token over http to another than loopback.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(app: ASGIApp) -> uvicorn.Server:
    """Quiet but for errors; idle connections live longer than a rate window, as behind a load balancer."""
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none", timeout_keep_alive=75)
    )
