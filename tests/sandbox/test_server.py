"""The sandbox on a port. Serving in the foreground until it is interrupted is tested by its command."""

import socket

import httpx
import pytest

from later_reporting_dagster.sandbox import World, create_app, running_sandbox, serve


def test_a_port_in_use_is_an_os_error(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="[Aa]ddress"):
            serve(create_app(world), port=port, on_ready=lambda url: None)
        with pytest.raises(OSError, match="[Aa]ddress"), running_sandbox(create_app(world), port=port):
            pass


def test_a_running_sandbox_stops_with_its_block(world: World) -> None:
    with running_sandbox(create_app(world)) as base_url:
        assert httpx.get(base_url).status_code == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(base_url)
