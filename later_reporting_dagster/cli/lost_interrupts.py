"""Raise an interrupt again if Python has lost it.

A signal handler may run inside a weak reference's callback or a destructor. Python cannot raise an exception from
there: it prints "Exception ignored in …" and goes on. SQLAlchemy has such a callback for each of its connections.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dagster import DagsterExecutionInterruptedError

_DELAY_SECONDS = 0.1  # after the callback, which would lose the second one too


@contextmanager
def lost_interrupts_repeated() -> Iterator[None]:
    """Repeat each signal whose exception is lost while the block runs: Ctrl-C, or the one that Dagster raises."""
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
