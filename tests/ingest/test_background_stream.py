"""Outcomes come out of the event loop as they are delivered, and nobody is left waiting."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from later_reporting_dagster.ingest.background_stream import WAITING_OUTCOMES, stream


def test_who_takes_his_time_gets_all_of_them() -> None:
    async def start(deliver: Callable[[int], None]) -> None:
        for number in range(2 * WAITING_OUTCOMES):
            await asyncio.to_thread(deliver, number)

    outcomes = stream(start)
    taken = [next(outcomes)]
    time.sleep(0.5)  # longer than a delivery waits before it looks whether anybody is there
    assert [*taken, *outcomes] == list(range(2 * WAITING_OUTCOMES))


def test_an_outcome_is_there_before_the_next_one_is_made() -> None:
    taken = threading.Event()

    async def start(deliver: Callable[[str], None]) -> None:
        deliver("first")
        await asyncio.to_thread(taken.wait, 10)
        deliver("second")

    outcomes = stream(start)
    assert next(outcomes) == "first"
    taken.set()
    assert list(outcomes) == ["second"]


def test_an_error_is_raised_after_what_was_delivered_before_it() -> None:
    async def start(deliver: Callable[[int], None]) -> None:
        deliver(1)
        raise LookupError("the rest is lost")

    outcomes = stream(start)
    assert next(outcomes) == 1
    with pytest.raises(LookupError, match="the rest is lost"):
        next(outcomes)


def test_closing_it_cancels_what_is_under_way() -> None:
    cancelled = threading.Event()

    async def start(deliver: Callable[[int], None]) -> None:
        deliver(1)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    outcomes = cast(Iterator[Any], stream(start))
    assert next(outcomes) == 1
    outcomes.close()  # type: ignore[attr-defined]
    assert cancelled.is_set()


def test_closing_it_frees_a_thread_that_waits_to_deliver() -> None:
    ended = threading.Event()

    async def start(deliver: Callable[[int], None]) -> None:
        def flood() -> None:
            try:
                for number in range(10 * WAITING_OUTCOMES):
                    deliver(number)
            finally:
                ended.set()

        await asyncio.to_thread(flood)

    outcomes = cast(Any, stream(start))
    assert next(outcomes) == 0
    outcomes.close()
    assert ended.wait(10)
