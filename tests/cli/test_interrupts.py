"""Interrupts that arrive where Python cannot raise an exception."""

import signal
import time
import weakref
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from dagster._utils.interrupts import raise_interrupts_as

from later_reporting_dagster.cli.interrupts import interruptible, lost_interrupts_repeated


class Connection:
    """An object that a weak reference can refer to."""


def call_in_a_weak_references_callback(function: Callable[[], Any]) -> None:
    connection = Connection()
    reference = weakref.ref(connection, lambda _: function())
    del connection
    assert reference() is None


def lose_an_interrupt() -> None:
    call_in_a_weak_references_callback(lambda: signal.raise_signal(signal.SIGINT))
    for _ in range(2000):  # not in one call: a signal that arrives just before it would only be seen after it
        time.sleep(0.01)


def test_lost_keyboard_interrupt_is_raised_again() -> None:
    # Tests that a shell has started in the background ignore SIGINT.
    with pytest.raises(KeyboardInterrupt), interruptible(), lost_interrupts_repeated():
        lose_an_interrupt()


def test_lost_interrupt_of_dagster_is_raised_again() -> None:
    with (
        pytest.raises(dg.DagsterExecutionInterruptedError),
        lost_interrupts_repeated(),
        raise_interrupts_as(dg.DagsterExecutionInterruptedError),
    ):
        lose_an_interrupt()


def test_other_errors_are_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = []
    monkeypatch.setattr("sys.unraisablehook", printed.append)
    with lost_interrupts_repeated():
        call_in_a_weak_references_callback(lambda: 1 / 0)
    assert [each.exc_type for each in printed] == [ZeroDivisionError]
