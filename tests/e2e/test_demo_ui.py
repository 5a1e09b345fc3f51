"""`later-reporting demo --ui` ends on one stop signal, with the webserver, the daemon and all code servers."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.dagster_dev import clean_environment, kill_group
from tests.services import WAIT_SECONDS, free_port, wait_until

pytestmark = pytest.mark.e2e

# The signals that a command ignores if a shell without job control starts it in the background.
BACKGROUND = (signal.SIGINT,)


@dataclass(frozen=True, slots=True)
class DemoUi:
    """A running `demo --ui`, with all processes that it starts.

    Attributes:
        process: the command, which becomes `dagster dev`.
        url: of the UI.
        directory: `--directory`, which is unique, so that it marks the processes of this demo.
    """

    process: subprocess.Popen[str]
    url: str
    directory: Path

    def descendants(self) -> list[int]:
        """Return the ids of all running processes, except the command, that have the `DAGSTER_HOME` of this demo."""
        marker = f"DAGSTER_HOME={self.directory}/dagster-home".encode()
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and int(entry.name) != self.process.pid and marker in _environment(entry)
        ]

    def serves(self) -> bool:
        try:
            return httpx.get(f"{self.url}/server_info").is_success
        except httpx.TransportError:
            return False


def _environment(process: Path) -> bytes:
    """Return the environment that a process was started with; empty if it has ended."""
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


@contextmanager
def running_demo_ui(directory: Path, *, ignored: tuple[signal.Signals, ...] = ()) -> Iterator[DemoUi]:
    """Run `demo --ui` in a session of its own, with some signals ignored at its start, while the block runs."""
    port = free_port()
    command = ["demo", "--directory", str(directory), "--days", "1", "--ui", "--ui-port", str(port)]
    folder = directory / "current"
    folder.mkdir()
    (folder / "dagster.py").write_text("raise SystemExit('code of the current folder')")
    with (directory / "errors.log").open("w") as errors:
        process = subprocess.Popen(
            ["later-reporting", *command],
            cwd=folder,
            env={**clean_environment(), "PYTHONUNBUFFERED": "1", "XDG_CACHE_HOME": str(directory / "cache")},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: [signal.signal(number, signal.SIG_IGN) for number in ignored],  # noqa: PLW1509
        )
    demo = DemoUi(process, url=f"http://127.0.0.1:{port}", directory=directory)
    try:
        yield demo
    finally:
        for pid in {process.pid, *demo.descendants()}:
            kill_group(pid)
        process.communicate()


@pytest.mark.parametrize(
    ("number", "send", "ignored"),
    [
        (signal.SIGINT, os.killpg, ()),  # Ctrl-C in a terminal
        (signal.SIGTERM, os.kill, BACKGROUND),
    ],
    ids=["SIGINT to the group", "SIGTERM in the background"],
)
def test_demo_ui_ends_with_all_its_processes(
    number: signal.Signals, send: Callable[[int, int], None], ignored: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    with running_demo_ui(tmp_path, ignored=ignored) as demo:
        wait_until("the UI responds", demo.serves)
        assert len(demo.descendants()) >= 3  # the webserver, the daemon and a code server
        send(demo.process.pid, number)
        demo.process.communicate(timeout=WAIT_SECONDS)
        assert demo.process.returncode == 0
        wait_until("no process is left", lambda: not demo.descendants())
