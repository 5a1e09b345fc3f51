"""A server that sends raw bytes, which need not be HTTP."""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

Respond = Callable[[bytes], Iterable[bytes]]
"""Return the parts of a raw response to a raw request."""


@contextmanager
def raw_server(respond: Respond, *, keep_alive: bool = True) -> Iterator[str]:
    """Serve while the block runs; yield the base URL. Without `keep_alive`, close each connection after a response."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = b""
            while (received := connection.recv(65536)) and not ended.is_set():
                request += received
                head, _, body = request.partition(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                if b"\r\n\r\n" not in request or len(body) < int(length or b"0"):
                    continue
                for part in respond(request):
                    connection.sendall(part)
                    if ended.is_set():
                        return
                if not keep_alive:
                    return
                request = b""

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()

    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
