"""Servers that mean harm: each ends in a clear error, within its deadlines and in bounded memory.

The server sends raw bytes from the test's process; the client runs in a child process, whose peak of memory is read.
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
from tests.client.service import nested, page_body, post

ATTEMPTS = 2
SLACK_SECONDS = 20  # of a busy machine
MOST_MEGABYTES = 300
LARGE = 4_000_000  # less than a body may have

Answer = Callable[[bytes], Iterable[bytes]]
"""What is sent for a request."""

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = b"Content-Encoding: gzip\r\n"


def whole(body: bytes, *headers: bytes, status: bytes = OK) -> bytes:
    return status + b"".join(headers) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def endless(start: bytes, part: bytes, *, pause: float = 0.0) -> Answer:
    def answer(request: bytes) -> Iterator[bytes]:
        yield start
        while True:
            time.sleep(pause)
            yield part

    return answer


def once(answer: bytes) -> Answer:
    return lambda request: [answer]


@functools.cache
def zeros() -> bytes:
    """A gigabyte, packed."""
    packer = zlib.compressobj(wbits=31)
    first, more = (packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + more * 63


def bomb(*, again: bool = False, status: bytes = OK) -> Answer:
    def answer(request: bytes) -> Iterator[bytes]:
        packed = gzip.compress(zeros()) if again else zeros()
        yield whole(packed, b"Content-Encoding: gzip%b\r\n" % (b", gzip" * again), status=status)

    return answer


# In answer to any request, for a token or for data.
ANSWERS: dict[str, Answer] = {
    "silence": endless(b"", b"", pause=0.1),
    "head at a drip": endless(OK, b"x", pause=0.1),
    "early hints without end": endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", pause=0.001),
    "headers without end": endless(OK, b"Name: value\r\n" * 1000),
    "body at a drip": endless(OK + CHUNKED, b"1\r\n \r\n", pause=0.1),
    "body without end": endless(OK + CHUNKED, b"10000\r\n%b\r\n" % bytes(2**16)),
    "body of two-byte chunks": endless(OK + CHUNKED, b"2\r\n  \r\n" * 10_000),
    "body of 10 GB": endless(OK + b"Content-Length: 10000000000\r\n\r\n", bytes(2**16)),
    "gzip": bomb(),
    "gzip of gzip": bomb(again=True),
    # Blocks that unpack to no byte.
    "gzip of nothing": endless(OK + GZIP + b"\r\n" + gzip.compress(b"")[:10], bytes.fromhex("000000ffff") * 10_000),
    "gzip and more": endless(OK + GZIP + b"\r\n" + gzip.compress(b"{}"), bytes(2**16)),
    "redirect": once(whole(b"", b"Location: https://elsewhere.invalid/\r\n", status=b"HTTP/1.1 302 Found\r\n")),
    "nesting": once(whole(b'{"data":' * (LARGE // 8))),
    "one string": once(whole(b'"%b"' % (b"x" * LARGE))),
    "one number": once(whole(b"9" * LARGE)),
    "empty objects": once(whole(b"[%b{}]" % (b"{}," * (LARGE // 3)))),
}

UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\n"


def number_in(request: bytes, before: bytes) -> int:
    found = re.search(before + rb"(\d+)", request)
    return int(found[1]) if found else 0


def rows(number: int, count: int, size: int) -> list[dict]:
    """Rows that no other page has; an emoji makes each character of a text four bytes of memory."""
    text = "\N{GRINNING FACE}" + "x" * size
    return [post(number * count + each, postDate="2024-07-01T00:00:00Z", contentUrl=text) for each in range(count)]


def cursors(count: int, *, size: int = 0, **changes: object) -> Answer:
    def answer(request: bytes) -> Iterator[bytes]:
        number = number_in(request, b"nextCursor=c")
        data = [nested(row) | changes for row in rows(number, count, size)]
        body = json.dumps({"data": data, "nextCursor": f"c{number + 1}"}).encode()
        yield whole(body, b"Set-Cookie: c%d=%b\r\n" % (number, b"x" * 1000))

    return answer


def lists_of_instances(request: bytes) -> Iterator[bytes]:
    number = number_in(request, b"nextCursor=c") + 1
    data = {"instanceIds": [f"i{number}-{each}" for each in range(1000)]}
    yield whole(json.dumps({"data": data, "nextCursor": f"c{number}"}).encode())


def numbered(request: bytes) -> Iterator[bytes]:
    number = number_in(request, b"pageNumber=")
    body = page_body(rows(number, 100, LARGE // 110), page=number, page_size=100, total_items=50_000)
    yield whole(json.dumps(body).encode())


# In answer to a request for data, whose token is a good one; and how it is requested.
PAGES: dict[str, tuple[str, Answer]] = {
    "401 of gzip of gzip": ("renewing", bomb(again=True, status=UNAUTHORIZED)),
    "401 without end": ("renewing", endless(UNAUTHORIZED + CHUNKED, b"10000\r\n%b\r\n" % bytes(2**16))),
    "a million rows": ("cursor", once(whole(b'{"data":[%b{}],"nextCursor":null}' % (b"{}," * (LARGE // 3))))),
    "a nested row": ("cursor", once(whole(b'{"data":[%b' % (b'{"a":' * (LARGE // 5))))),
    "rows of arrays": ("cursor", once(whole(b'{"data":[%b1],"nextCursor":null}' % (b"[[[]]]," * (LARGE // 7))))),
    "cursors to new rows": ("cursor", cursors(100)),
    "cursors to a new row": ("cursor", cursors(1)),
    "cursors to large rows": ("cursor", cursors(100, size=LARGE // 110)),
    "cursors to large bad rows": ("cursor", cursors(100, size=LARGE // 110, metrics=5)),
    "cursors to new instances": ("instances", lists_of_instances),
    "numbered pages of large rows": ("paged", numbered),
    "a total beyond any number": (
        "paged",
        once(whole(b'{"data":[],"pagination":{"page":1,"pageSize":1,"totalPages":1,"totalItems":9%s}}' % (b"0" * 999))),
    ),
}


@contextmanager
def serving(answer: Answer, *, token: Answer) -> Iterator[str]:
    """Answer each request with bytes, as long as the client takes them."""

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = b""
            while (received := connection.recv(65536)) and not ended.is_set():
                request += received
                if b"\r\n\r\n" in request:
                    for part in (token if b"POST /" in request else answer)(request):
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


def attack(base_url: str, what: str, deadline: float) -> dict:
    """Request it by a client in a child process; return its error, the seconds, and the megabytes above idle."""
    command = [sys.executable, "-m", __name__, base_url, what, str(deadline)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=40, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    return json.loads(done.stdout)


TOKEN = once(whole(b'{"jwt":"good"}'))
CASES = {f"{name}-{what}": (what, each, each, 0.5) for name, each in ANSWERS.items() for what in ("token", "cursor")}
CASES |= {name: (what, each, TOKEN, 10.0) for name, (what, each) in PAGES.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_server_ends_in_an_error_within_its_deadlines_and_bounded_memory(name: str) -> None:
    what, answer, token, deadline = CASES[name]
    with serving(answer, token=token) as base_url:
        result = attack(base_url, what, deadline)
    assert re.match("(Retriable|ContractBroken|TooManyPosts): (token|posts|instances)", result["error"])
    assert result["seconds"] < ATTEMPTS * deadline + SLACK_SECONDS
    assert result["megabytes"] < MOST_MEGABYTES


def peak_megabytes() -> float:
    """The most memory so far, of which only Linux tells."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else 0.0


async def error_of(base_url: str, what: str, deadline: float) -> str:
    """How a request ends."""
    client = LaterClient(
        base_url=base_url,
        credentials=AccessToken("ready") if what == "cursor" else ClientCredentials("id", "secret"),
        limiter=RateLimiter(requests=1_000_000),
        revision=PAGED if what == "paged" else CURSOR,
        timeout_seconds=deadline,
        retry=RetryPolicy(attempts=ATTEMPTS, first_wait_seconds=0.0),
    )
    day = date(2024, 7, 1)
    async with client:
        try:
            if what == "instances":
                await client.instances()
            else:
                await client.walk(PostPerformanceQuery(start_date=day, end_date=day, instance_ids=("a",)))
        except LaterError as error:
            return f"{type(error).__name__}: {error}"[:300]
    return "none"


if __name__ == "__main__":
    idle, began = peak_megabytes(), time.monotonic()
    error = asyncio.run(error_of(sys.argv[1], sys.argv[2], float(sys.argv[3])))
    print(json.dumps({"error": error, "seconds": time.monotonic() - began, "megabytes": peak_megabytes() - idle}))
