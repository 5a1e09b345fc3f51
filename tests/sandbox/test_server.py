"""The sandbox on a port: in the foreground until it is interrupted, and in a thread."""

import signal
import socket
import subprocess
import sys

import httpx
import pytest

from later_reporting_dagster.sandbox import World, create_app, running_sandbox, serve

SERVE = """
from datetime import date
from later_reporting_dagster.sandbox import BANNER, World, create_app, serve

def on_ready(base_url):
    print(BANNER, base_url, sep="\\n", flush=True)

serve(create_app(World.up_to(date(2026, 3, 1), instances=1)), port=0, on_ready=on_ready)
print("stopped")
"""


def test_serve_tells_its_address_when_it_accepts_connections_and_ends_quietly_when_interrupted() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "SYNTHETIC" in process.stdout.readline()
        base_url = process.stdout.readline().strip()
        assert base_url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{base_url}/v2/instances", timeout=20).status_code == 401
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "stopped\n"
        assert process.stderr.read() == ""
        assert process.wait(timeout=20) == 0


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
