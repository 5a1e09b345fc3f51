"""Tests with malicious servers: each request ends in an error, within its deadlines."""

import asyncio
import functools
import gzip
import json
import re
import time
import zlib
from collections.abc import Iterator
from datetime import date

import pytest

from later_reporting_dagster.client import (
    AccessToken,
    ClientCredentials,
    LaterClient,
    LaterError,
    RateLimiter,
    RetryPolicy,
)
from later_reporting_dagster.contract import CURSOR, PAGED, PerformanceQuery
from tests.client.raw_server import Respond, raw_server
from tests.client.scripted_api import nest_metrics, post

pytestmark = pytest.mark.faults

ATTEMPTS = 2
SLACK_SECONDS = 20  # for a busy machine
LARGE = 4_000_000  # just below the limit of a body

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
    "headers without end": endless(OK, b"Name: value\r\n" * 1000),
    "body at a drip": endless(OK + CHUNKED, b"1\r\n \r\n", pause=0.1),
    "body without end": endless(OK + CHUNKED, b"10000\r\n%b\r\n" % bytes(2**16)),
    "gzip of gzip": bomb(twice=True),
    # Blocks that decompress to no byte.
    "gzip of nothing": endless(OK + GZIP + b"\r\n" + gzip.compress(b"")[:10], bytes.fromhex("000000ffff") * 10_000),
    "redirect": always(
        response_with(b"", b"Location: https://elsewhere.invalid/\r\n", status=b"HTTP/1.1 302 Found\r\n")
    ),
    "nesting": always_ok(b'{"data":' * (LARGE // 8)),
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


# Responses to a data request with a valid token, and the kind of the request.
PAGES: dict[str, tuple[str, Respond]] = {
    "401 of gzip of gzip": ("renewing", bomb(twice=True, status=UNAUTHORIZED)),
    "401 without end": ("renewing", endless(UNAUTHORIZED + CHUNKED, b"10000\r\n%b\r\n" % bytes(2**16))),
    "a hundred thousand rows": ("cursor", always_ok(b'{"data":[%b{}],"nextCursor":null}' % (b"{}," * 100_000))),
    "rows of arrays": ("cursor", always_ok(b'{"data":[%b1],"nextCursor":null}' % (b"[[[]]]," * 100_000))),
    "cursors to large rows": ("cursor", cursor_pages(100, size=LARGE // 110)),
    "a total beyond any number": (
        "paged",
        always(
            response_with(
                b'{"data":[],"pagination":{"page":1,"pageSize":1,"totalPages":1,"totalItems":9%s}}' % (b"0" * 999)
            )
        ),
    ),
}


VALID_TOKEN = always_ok(b'{"jwt":"good"}')
CASES = {
    f"{name}-{kind}": (kind, respond, respond, 0.5)
    for name, respond in RESPONSES.items()
    for kind in ("token", "cursor")
}
CASES |= {name: (kind, respond, VALID_TOKEN, 10.0) for name, (kind, respond) in PAGES.items()}


@pytest.mark.parametrize("name", CASES)
def test_malicious_server_causes_an_error_within_its_deadlines(name: str) -> None:
    kind, respond, respond_to_token, deadline = CASES[name]
    with raw_server(lambda request: (respond_to_token if b"POST /" in request else respond)(request)) as base_url:
        started = time.monotonic()
        error = asyncio.run(error_of(base_url, kind, deadline))
    assert re.match("(RetriesExhausted|UnexpectedResponse|TooManyPosts): (token|posts)", error)
    assert time.monotonic() - started < ATTEMPTS * deadline + SLACK_SECONDS


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
        with pytest.raises(LaterError) as raised:
            await client.fetch_posts(PerformanceQuery(start_date=day, end_date=day, instance_ids=("a",)))
    return f"{type(raised.value).__name__}: {raised.value}"
