"""A server that sends raw bytes, which need not be HTTP."""

import re
import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

Respond = Callable[[bytes], Iterable[bytes]]
"""Return the parts of a raw response to a raw request."""


@contextmanager
def raw_server(respond: Respond, *, keep_alive: bool = True) -> Iterator[str]:
    """Serve while the block runs; yield the base URL. Without `keep_alive`, close each connection after a response."""
    ended = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                while head := self.rfile.readline():
                    while (line := self.rfile.readline()).strip():
                        head += line
                    length = re.search(rb"(?i)\ncontent-length: (\d+)", head)
                    for part in respond(head + b"\r\n" + self.rfile.read(int(length[1]) if length else 0)):
                        if ended.is_set():
                            return
                        self.wfile.write(part)
                    if not keep_alive:
                        return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            ended.set()
            server.shutdown()
