"""Ctrl-C and other stop signals: of commands, of the processes that they start, and where Python would lose them."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from dagster import DagsterExecutionInterruptedError

# A stop that takes longer leaves a process that does not respond, which is killed.
MAX_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.1
_DELAY_SECONDS = 0.1  # after the callback, which would lose the second interrupt too


@contextmanager
def stop_signals_handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Call a handler on SIGINT, SIGTERM, and SIGHUP unless this process ignores it (`nohup`), while the block runs."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old_handler in previous.items():
            signal.signal(number, old_handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `KeyboardInterrupt` in the main thread on a stop signal while the block runs.

    Without this, a shell that starts the process in the background makes it ignore SIGINT, and Dagster, which treats
    SIGTERM as SIGINT, makes it ignore SIGTERM as well.
    """
    with stop_signals_handled_by(signal.default_int_handler):
        yield


@contextmanager
def lost_interrupts_repeated() -> Iterator[None]:
    """Repeat each interrupt whose exception Python loses while the block runs: Ctrl-C, or the one that Dagster raises.

    A signal handler may run inside a weak reference's callback or a destructor. Python cannot raise an exception from
    there: it prints "Exception ignored in …" and goes on. SQLAlchemy has such a callback for each of its connections.
    """
    print_unraisable, main_thread = sys.unraisablehook, threading.main_thread().ident

    def repeat_interrupt(unraisable: "sys.UnraisableHookArgs") -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt | DagsterExecutionInterruptedError):
            threading.Timer(_DELAY_SECONDS, signal.pthread_kill, [main_thread, signal.SIGINT]).start()
        else:
            print_unraisable(unraisable)

    sys.unraisablehook = repeat_interrupt
    try:
        yield
    finally:
        sys.unraisablehook = print_unraisable


def run_until_stopped(command: Sequence[str]) -> int | None:
    """Run a command, and when it ends or this process receives a stop signal, end all processes that it started.

    Return the exit code of the command; None if a signal stopped it.
    """
    received: list[int] = []
    with stop_signals_handled_by(lambda number, _frame: received.append(number)):
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


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a process, wait until no process of its group is left, and end what remains.

    The process ends its children itself. Sent to the whole group, the signal would interrupt each child of
    `dagster dev` twice, and a Python process that is interrupted while it ends prints a traceback.
    """
    process.terminate()
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + MAX_STOP_SECONDS
        while time.monotonic() < deadline:
            process.poll()  # an ended child belongs to its group until its exit code is read
            if not _signal_group(process, 0):
                return
            time.sleep(_POLL_SECONDS)
        _signal_group(process, number)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to all processes of a group, or only test for them with 0; return whether there are any."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True
