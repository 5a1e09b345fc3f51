"""Limits of connections, read from plain sockets."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest
from starlette.responses import PlainTextResponse

from later_reporting_dagster.endpoint import http_server, running_server
from tests.services import WAIT_SECONDS

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """The address of a server that responds to everything."""
    with running_server(PlainTextResponse("hello")) as base_url:
        url = httpx.URL(base_url)
        yield url.host, url.port or 0


def read_to_end(connection: socket.socket) -> bytes:
    """Return what a server sends until it closes the connection."""
    received = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            received += part
    return received


def test_endless_request_head_is_refused(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=WAIT_SECONDS) as connection:
        with suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000)
        assert b" 200 " not in read_to_end(connection)


def test_connection_without_a_request_is_closed(monkeypatch: pytest.MonkeyPatch, address: tuple[str, int]) -> None:
    monkeypatch.setattr(http_server, "FIRST_REQUEST_SECONDS", 0.2)
    with socket.create_connection(address, timeout=WAIT_SECONDS) as connection:
        connection.sendall(REQUEST[:20])
        assert read_to_end(connection) == b""


def test_connections_beyond_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch, address: tuple[str, int]) -> None:
    monkeypatch.setattr(http_server, "MAX_CONNECTIONS", 2)
    with ExitStack() as stack:
        first, second, third = (
            stack.enter_context(socket.create_connection(address, timeout=WAIT_SECONDS)) for _ in range(3)
        )
        assert read_to_end(third) == b""
        for connection in (first, second):
            connection.sendall(REQUEST)
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
