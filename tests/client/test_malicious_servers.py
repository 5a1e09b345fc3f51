"""Tests with malicious servers: each request ends in an error, within its deadlines and in limited memory.

The server sends raw bytes from the test process. The client runs in a child process, whose peak memory is measured.
"""

import asyncio
import functools
import gzip
import json
import re
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

import pytest

from later_reporting_dagster.client import (
    AccessToken,
    ClientCredentials,
    LaterClient,
    LaterError,
    RateLimiter,
    RetryPolicy,
)
from later_reporting_dagster.contract import CURSOR, PAGED, PostPerformanceQuery
from tests.client.scripted_api import nest_metrics, page_body, post

pytestmark = pytest.mark.faults

ATTEMPTS = 2
SLACK_SECONDS = 20  # for a busy machine
MAX_MEGABYTES = 300
LARGE = 4_000_000  # just below the limit of a body

Respond = Callable[[bytes], Iterable[bytes]]
"""Return the parts of a raw response to a raw request."""

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = b"Content-Encoding: gzip\r\n"


def response_with(body: bytes, *headers: bytes, status: bytes = OK) -> bytes:
    return status + b"".join(headers) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def endless(start: bytes, part: bytes, *, pause: float = 0.0) -> Respond:
    """Send `start`, then `part` for ever."""

    def respond(request: bytes) -> Iterator[bytes]:
        yield start
        while True:
            time.sleep(pause)
            yield part

    return respond


def always(response: bytes) -> Respond:
    return lambda request: [response]


def always_ok(body: bytes) -> Respond:
    return always(response_with(body))


@functools.cache
def zeros() -> bytes:
    """Return a gigabyte of zeros, compressed."""
    compressor = zlib.compressobj(wbits=31)
    first, more = (compressor.compress(bytes(2**24)) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + more * 63


def bomb(*, twice: bool = False, status: bytes = OK) -> Respond:
    """Send a gigabyte in a small compressed body."""

    def respond(request: bytes) -> Iterator[bytes]:
        body = gzip.compress(zeros()) if twice else zeros()
        yield response_with(body, b"Content-Encoding: gzip%b\r\n" % (b", gzip" * twice), status=status)

    return respond


# Responses to any request, for a token or for data.
RESPONSES: dict[str, Respond] = {
    "silence": endless(b"", b"", pause=0.1),
    "head at a drip": endless(OK, b"x", pause=0.1),
    "early hints without end": endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", pause=0.001),
    "headers without end": endless(OK, b"Name: value\r\n" * 1000),
    "body at a drip": endless(OK + CHUNKED, b"1\r\n \r\n", pause=0.1),
    "body without end": endless(OK + CHUNKED, b"10000\r\n%b\r\n" % bytes(2**16)),
    "body of two-byte chunks": endless(OK + CHUNKED, b"2\r\n  \r\n" * 10_000),
    "body of 10 GB": endless(OK + b"Content-Length: 10000000000\r\n\r\n", bytes(2**16)),
    "gzip": bomb(),
    "gzip of gzip": bomb(twice=True),
    # Blocks that decompress to no byte.
    "gzip of nothing": endless(OK + GZIP + b"\r\n" + gzip.compress(b"")[:10], bytes.fromhex("000000ffff") * 10_000),
    "gzip and more": endless(OK + GZIP + b"\r\n" + gzip.compress(b"{}"), bytes(2**16)),
    "redirect": always(
        response_with(b"", b"Location: https://elsewhere.invalid/\r\n", status=b"HTTP/1.1 302 Found\r\n")
    ),
    "nesting": always_ok(b'{"data":' * (LARGE // 8)),
    "one string": always_ok(b'"%b"' % (b"x" * LARGE)),
    "one number": always(response_with(b"9" * LARGE)),
    "empty objects": always(response_with(b"[%b{}]" % (b"{}," * (LARGE // 3)))),
}

UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\n"


def number_after(prefix: bytes, *, request: bytes) -> int:
    found = re.search(prefix + rb"(\d+)", request)
    return int(found[1]) if found else 0


def rows(number: int, count: int, size: int) -> list[dict]:
    """Return rows of a page; with an emoji, each character of a text takes four bytes of memory."""
    text = "\N{GRINNING FACE}" + "x" * size
    return [post(number * count + each, postDate="2024-07-01T00:00:00Z", contentUrl=text) for each in range(count)]


def cursor_pages(count: int, *, size: int = 0, **changes: object) -> Respond:
    """Send pages of `count` rows, each with a next cursor."""

    def respond(request: bytes) -> Iterator[bytes]:
        number = number_after(b"nextCursor=c", request=request)
        data = [nest_metrics(row) | changes for row in rows(number, count, size)]
        body = json.dumps({"data": data, "nextCursor": f"c{number + 1}"}).encode()
        yield response_with(body, b"Set-Cookie: c%d=%b\r\n" % (number, b"x" * 1000))

    return respond


def instance_pages(request: bytes) -> Iterator[bytes]:
    number = number_after(b"nextCursor=c", request=request) + 1
    data = {"instanceIds": [f"i{number}-{each}" for each in range(1000)]}
    yield response_with(json.dumps({"data": data, "nextCursor": f"c{number}"}).encode())


def numbered_pages(request: bytes) -> Iterator[bytes]:
    number = number_after(b"pageNumber=", request=request)
    body = page_body(rows(number, 100, LARGE // 110), page=number, page_size=100, total_items=50_000)
    yield response_with(json.dumps(body).encode())


# Responses to a data request with a valid token, and the kind of the request.
PAGES: dict[str, tuple[str, Respond]] = {
    "401 of gzip of gzip": ("renewing", bomb(twice=True, status=UNAUTHORIZED)),
    "401 without end": ("renewing", endless(UNAUTHORIZED + CHUNKED, b"10000\r\n%b\r\n" % bytes(2**16))),
    "a million rows": ("cursor", always_ok(b'{"data":[%b{}],"nextCursor":null}' % (b"{}," * (LARGE // 3)))),
    "a nested row": ("cursor", always_ok(b'{"data":[%b' % (b'{"a":' * (LARGE // 5)))),
    "rows of arrays": ("cursor", always_ok(b'{"data":[%b1],"nextCursor":null}' % (b"[[[]]]," * (LARGE // 7)))),
    "cursors to new rows": ("cursor", cursor_pages(100)),
    "cursors to a new row": ("cursor", cursor_pages(1)),
    "cursors to large rows": ("cursor", cursor_pages(100, size=LARGE // 110)),
    "cursors to large bad rows": ("cursor", cursor_pages(100, size=LARGE // 110, metrics=5)),
    "cursors to new instances": ("instances", instance_pages),
    "numbered pages of large rows": ("paged", numbered_pages),
    "a total beyond any number": (
        "paged",
        always(
            response_with(
                b'{"data":[],"pagination":{"page":1,"pageSize":1,"totalPages":1,"totalItems":9%s}}' % (b"0" * 999)
            )
        ),
    ),
}


@contextmanager
def serving(respond: Respond, *, respond_to_token: Respond) -> Iterator[str]:
    """Run a server that sends raw responses until the client disconnects; yield its base URL."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = b""
            while (received := connection.recv(65536)) and not ended.is_set():
                request += received
                if b"\r\n\r\n" in request:
                    for part in (respond_to_token if b"POST /" in request else respond)(request):
                        connection.sendall(part)
                        if ended.is_set():
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


def measure(base_url: str, kind: str, deadline: float) -> dict:
    """Send a request from a child process; return its error, its seconds, and the megabytes above idle."""
    command = [sys.executable, "-m", __name__, base_url, kind, str(deadline)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=40, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    return json.loads(done.stdout)


VALID_TOKEN = always_ok(b'{"jwt":"good"}')
CASES = {
    f"{name}-{kind}": (kind, respond, respond, 0.5)
    for name, respond in RESPONSES.items()
    for kind in ("token", "cursor")
}
CASES |= {name: (kind, respond, VALID_TOKEN, 10.0) for name, (kind, respond) in PAGES.items()}


@pytest.mark.parametrize("name", CASES)
def test_malicious_server_causes_an_error_within_its_deadlines_and_limited_memory(name: str) -> None:
    kind, respond, respond_to_token, deadline = CASES[name]
    with serving(respond, respond_to_token=respond_to_token) as base_url:
        result = measure(base_url, kind, deadline)
    assert re.match("(RetriesExhausted|UnexpectedResponse|TooManyPosts): (token|posts|instances)", result["error"])
    assert result["seconds"] < ATTEMPTS * deadline + SLACK_SECONDS
    assert result["megabytes"] < MAX_MEGABYTES


def peak_megabytes() -> float:
    """Return the peak memory of this process on Linux, 0 elsewhere."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else 0.0


async def error_of(base_url: str, kind: str, deadline: float) -> str:
    """Return the error of a request."""
    client = LaterClient(
        base_url=base_url,
        credentials=AccessToken("ready") if kind == "cursor" else ClientCredentials("id", "secret"),
        limiter=RateLimiter(requests=1_000_000),
        api_version=PAGED if kind == "paged" else CURSOR,
        timeout_seconds=deadline,
        retry=RetryPolicy(max_attempts=ATTEMPTS, initial_backoff_seconds=0.0),
    )
    day = date(2024, 7, 1)
    async with client:
        try:
            if kind == "instances":
                await client.fetch_instances()
            else:
                await client.fetch_posts(PostPerformanceQuery(start_date=day, end_date=day, instance_ids=("a",)))
        except LaterError as error:
            return f"{type(error).__name__}: {error}"[:300]
    return "none"


if __name__ == "__main__":
    idle, started = peak_megabytes(), time.monotonic()
    error = asyncio.run(error_of(sys.argv[1], sys.argv[2], float(sys.argv[3])))
    print(json.dumps({"error": error, "seconds": time.monotonic() - started, "megabytes": peak_megabytes() - idle}))
