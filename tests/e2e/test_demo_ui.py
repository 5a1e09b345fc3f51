"""`later-reporting demo --ui` ends on one stop signal, with the webserver, the daemon and all code servers."""

import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e.dagster_dev import clean_environment, kill_group
from tests.services import WAIT_SECONDS, free_port, wait_until


def processes_of(directory: Path) -> set[int]:
    """Return the ids of all running processes that have the `DAGSTER_HOME` of a demo."""
    found = set()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended
            if f"DAGSTER_HOME={directory}/dagster-home".encode() in environment.read_bytes():
                found.add(int(environment.parent.name))
    return found


def is_served(port: int) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/server_info").is_success
    return False


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("number", "send", "ignored"),
    [
        (signal.SIGINT, os.killpg, ()),  # Ctrl-C in a terminal
        # A shell without job control starts a command in the background with this signal ignored.
        (signal.SIGTERM, os.kill, (signal.SIGINT,)),
    ],
    ids=["SIGINT to the group", "SIGTERM in the background"],
)
def test_demo_ui_ends_with_all_its_processes(
    number: signal.Signals, send: Callable[[int, int], None], ignored: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    port, folder = free_port(), tmp_path / "current"
    folder.mkdir()
    (folder / "dagster.py").write_text("raise SystemExit('code of the current folder')")
    options = ["--directory", str(tmp_path), "--days", "1", "--ui", "--ui-port", str(port)]
    with (tmp_path / "output.log").open("w") as output:
        process = subprocess.Popen(
            ["later-reporting", "demo", *options],
            cwd=folder,
            env={**clean_environment(), "XDG_CACHE_HOME": str(tmp_path / "cache")},
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: [signal.signal(each, signal.SIG_IGN) for each in ignored],  # noqa: PLW1509
        )
    try:
        wait_until("the UI responds", lambda: is_served(port))
        assert len(processes_of(tmp_path)) >= 4  # `dagster dev`, the webserver, the daemon and a code server
        send(process.pid, number)
        assert process.wait(timeout=WAIT_SECONDS) == 0
        wait_until("no process is left", lambda: not processes_of(tmp_path))
    finally:
        for pid in {process.pid, *processes_of(tmp_path)}:
            kill_group(pid)
        process.wait()
