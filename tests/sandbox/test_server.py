"""Serving the sandbox on a port. `tests/cli/test_sandbox.py` tests the interruption of `serve`."""

import socket

import httpx
import pytest

from later_reporting_dagster.sandbox import World, create_app, running_server, serve


def test_port_in_use_raises_os_error(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="[Aa]ddress"):
            serve(create_app(world), port=port, on_ready=lambda url: None)
        with pytest.raises(OSError, match="[Aa]ddress"), running_server(create_app(world), port=port):
            pass


def test_running_sandbox_stops_after_its_block(world: World) -> None:
    with running_server(create_app(world)) as base_url:
        assert httpx.get(base_url).status_code == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(base_url)
