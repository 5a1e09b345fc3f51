"""Tests with malicious servers: each request ends in an error, within its deadlines."""

import functools
import gzip
import json
import re
import time
import zlib
from collections.abc import Iterator

import pytest

from later_reporting_dagster.client import AccessToken, LaterError, RetryPolicy
from later_reporting_dagster.contract import CURSOR
from tests.client.raw_server import Respond, raw_server
from tests.client.scripted_api import fetch_posts, nest_metrics, post

pytestmark = pytest.mark.faults

ATTEMPTS = 2
SLACK_SECONDS = 60  # for a busy machine
LARGE = 4_000_000  # just below the limit of a body

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = b"Content-Encoding: gzip\r\n"


def response_with(body: bytes, *headers: bytes) -> bytes:
    return OK + b"".join(headers) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def endless(start: bytes, part: bytes, *, pause: float = 0.0) -> Respond:
    """Send `start`, then `part` for ever."""

    def respond(request: bytes) -> Iterator[bytes]:
        yield start
        while True:
            time.sleep(pause)
            yield part

    return respond


def always_ok(body: bytes) -> Respond:
    return lambda request: [response_with(body)]


@functools.cache
def zeros() -> bytes:
    """Return a gigabyte of zeros, compressed."""
    compressor = zlib.compressobj(wbits=31)
    first, more = (compressor.compress(bytes(2**24)) + compressor.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + more * 63


def bomb(request: bytes) -> Iterator[bytes]:
    """Send a gigabyte in a small compressed body."""
    yield response_with(zeros(), GZIP)


# Responses to any request, for a token or for data.
RESPONSES: dict[str, Respond] = {
    "silence": endless(b"", b"", pause=0.1),
    "headers without end": endless(OK, b"Name: value\r\n" * 1000),
    "body at a drip": endless(OK + CHUNKED, b"1\r\n \r\n", pause=0.1),
    "body without end": endless(OK + CHUNKED, b"10000\r\n%b\r\n" % bytes(2**16)),
    "bomb": bomb,
    # Blocks that decompress to no byte.
    "gzip of nothing": endless(OK + GZIP + b"\r\n" + gzip.compress(b"")[:10], bytes.fromhex("000000ffff") * 10_000),
    "nesting": always_ok(b'{"data":' * (LARGE // 8)),
}


def cursors_to_large_rows(request: bytes) -> Iterator[bytes]:
    """Send pages of large rows, each with a next cursor."""
    found = re.search(rb"nextCursor=c(\d+)", request)
    number = int(found[1]) if found else 0
    text = "\N{GRINNING FACE}" + "x" * (LARGE // 110)  # with an emoji, each character takes four bytes of memory
    rows = [post(number * 100 + each, postDate="2024-07-01T00:00:00Z", contentUrl=text) for each in range(100)]
    body = json.dumps({"data": [*map(nest_metrics, rows)], "nextCursor": f"c{number + 1}"}).encode()
    yield response_with(body, b"Set-Cookie: c%d=%b\r\n" % (number, b"x" * 1000))


# Responses to a data request with a valid token.
PAGES: dict[str, Respond] = {
    "rows of arrays": always_ok(b'{"data":[%b1],"nextCursor":null}' % (b"[[[]]]," * 100_000)),
    "cursors to large rows": cursors_to_large_rows,
}

CASES = {f"{name}-{kind}": (kind, respond, 0.5) for name, respond in RESPONSES.items() for kind in ("token", "posts")}
CASES |= {name: ("posts", respond, 10.0) for name, respond in PAGES.items()}


@pytest.mark.parametrize("name", CASES)
def test_malicious_server_causes_an_error_within_its_deadlines(name, new_client, july) -> None:
    kind, respond, deadline = CASES[name]
    options = {} if kind == "token" else {"credentials": AccessToken("ready")}
    retry = RetryPolicy(max_attempts=ATTEMPTS)
    started = time.monotonic()
    with raw_server(respond) as base_url:
        client = new_client(base_url=base_url, api_version=CURSOR, timeout_seconds=deadline, retry=retry, **options)
        with pytest.raises(LaterError) as raised:
            fetch_posts(client, july)
    assert time.monotonic() - started < ATTEMPTS * deadline + SLACK_SECONDS
    assert re.match(f"(RetriesExhausted|UnexpectedResponse|TooManyRows): {kind}", f"{raised.typename}: {raised.value}")
