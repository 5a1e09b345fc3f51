"""Commands that use the API's default address say so first, and contact it only with credentials."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from later_reporting_dagster.client import RetryPolicy
from tests.cli.conftest import User

BACKFILL = ("backfill", "--asset", "later/posts_published", "--start", "2024-03-01", "--end", "2024-03-01")
commands = pytest.mark.parametrize(
    ("command", "action"),
    [(("instances",), "Listing instances at"), (("doctor",), "Checking"), (BACKFILL, "Fetching from")],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)


@dataclass
class RejectingProxy:
    """An HTTPS proxy that rejects every connection, and records the hosts that were requested."""

    url: str
    hosts: list[str] = field(default_factory=list)


@contextmanager
def rejecting_proxy() -> Iterator[RejectingProxy]:
    """Run a `RejectingProxy` while the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = RejectingProxy(f"http://127.0.0.1:{listener.getsockname()[1]}")

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as reader:
                    proxy.hosts.append(reader.readline().decode().split()[1])
                    while reader.readline().strip():
                        pass
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def proxy(user: User, monkeypatch: pytest.MonkeyPatch) -> Iterator[RejectingProxy]:
    """The proxy of a user who has credentials and has not set `LATER_BASE_URL`."""
    with rejecting_proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.delenv("LATER_BASE_URL")
        monkeypatch.setattr(RetryPolicy, "wait_after", lambda *_arguments, **_options: None)
        yield proxy


@commands
def test_default_host_is_named_before_it_is_contacted(
    command: tuple[str, ...], action: str, user: User, proxy: RejectingProxy
) -> None:
    result = user.run(*command)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == f"{action} https://reporting.api.later.com (LATER_BASE_URL is not set)"
    assert set(proxy.hosts) == {"reporting.api.later.com:443"}


@commands
def test_default_host_is_not_contacted_without_credentials(
    command: tuple[str, ...], action: str, user: User, proxy: RejectingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LATER_CLIENT_ID")
    result = user.run(*command)
    assert result.exit_code == 1
    assert "LATER_CLIENT_ID" in result.output
    assert action not in result.stderr
    assert proxy.hosts == []


def test_host_that_is_set_is_not_named(user: User) -> None:
    assert user.run("instances").stderr == ""
