"""Run a command until it ends or this process is told to stop, and end all processes that it started."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

# A stop that takes longer leaves a process that does not respond, which is killed.
MAX_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.1


def run_until_stopped(command: Sequence[str]) -> int | None:
    """Run a command, and when it ends or this process receives a stop signal, end all of its descendants.

    Stop signals are SIGINT, SIGTERM, and SIGHUP unless this process ignores it (`nohup`). Descendants that do not end
    are killed.

    Args:
        command: the program and its arguments.

    Returns:
        The exit code of the command; None if a signal stopped it.

    Raises:
        OSError: the program cannot be started.
    """
    with _received_signals() as received:
        # In a session of its own, the command receives no Ctrl-C from the terminal, but only the signal sent below.
        process = subprocess.Popen(command, start_new_session=True)
        try:
            while not received:
                try:
                    return process.wait(timeout=_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
            return None
        finally:
            _end_group(process)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the main thread on SIGINT and SIGTERM while the block runs.

    Without this, a shell that starts the process in the background makes it ignore SIGINT, and Dagster, which treats
    SIGTERM as SIGINT, makes it ignore SIGTERM as well.
    """
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in previous:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _received_signals() -> Iterator[list[int]]:
    """Collect the stop signals that this process receives while the block runs, in place of acting on them."""
    received: list[int] = []

    def handler(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield received
    finally:
        for number, old_handler in previous.items():
            signal.signal(number, old_handler)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a process, wait until no process of its group is left, and end what remains.

    The process ends its children itself. Sent to the whole group, the signal would interrupt each child of
    `dagster dev` twice, and a Python process that is interrupted while it ends prints a traceback.
    """
    process.terminate()
    for number in (signal.SIGTERM, signal.SIGKILL):
        if _group_ends(process):
            return
        _signal_group(process, number)
    process.wait()


def _group_ends(process: subprocess.Popen[bytes]) -> bool:
    """Wait until no process of a group is left; return False if there still is one after `MAX_STOP_SECONDS`."""
    deadline = time.monotonic() + MAX_STOP_SECONDS
    while time.monotonic() < deadline:
        process.poll()  # an ended child belongs to its group until its exit code is read
        if not _signal_group(process, 0):
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to all processes of a group, or only test for them with 0; return whether there are any."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True
