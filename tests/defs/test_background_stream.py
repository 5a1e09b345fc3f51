"""The background stream yields results as they are emitted, and leaves no thread waiting when it is closed."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from later_reporting_dagster.defs import background_stream
from later_reporting_dagster.defs.background_stream import QUEUE_SIZE, stream
from tests.services import WAIT_SECONDS


def test_stream_yields_everything_to_a_slow_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    was_full = threading.Event()

    class RecordingQueue(queue.Queue[Any]):
        def put(self, *args: Any, **options: Any) -> None:
            try:
                super().put(*args, **options)
            except queue.Full:
                was_full.set()
                raise

    monkeypatch.setattr(background_stream, "Queue", RecordingQueue)

    async def start(emit: Callable[[int], None]) -> None:
        for number in range(2 * QUEUE_SIZE):
            await asyncio.to_thread(emit, number)

    results = stream(start)
    received = [next(results)]
    assert was_full.wait(WAIT_SECONDS)
    assert [*received, *results] == list(range(2 * QUEUE_SIZE))


def test_stream_yields_a_result_before_the_next_one_is_emitted() -> None:
    received = threading.Event()

    async def start(emit: Callable[[str], None]) -> None:
        emit("first")
        await asyncio.to_thread(received.wait, 10)
        emit("second")

    results = stream(start)
    assert next(results) == "first"
    received.set()
    assert list(results) == ["second"]


def test_stream_raises_an_error_after_the_results_before_it() -> None:
    async def start(emit: Callable[[int], None]) -> None:
        emit(1)
        raise LookupError("the rest is lost")

    results = stream(start)
    assert next(results) == 1
    with pytest.raises(LookupError, match="the rest is lost"):
        next(results)


def test_closing_the_stream_cancels_the_coroutine() -> None:
    cancelled = threading.Event()

    async def start(emit: Callable[[int], None]) -> None:
        emit(1)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    results: Any = stream(start)
    assert next(results) == 1
    results.close()
    assert cancelled.is_set()


def test_closing_the_stream_releases_a_thread_that_waits_to_emit() -> None:
    ended = threading.Event()

    def flood(emit: Callable[[int], None]) -> None:
        try:
            for number in range(10 * QUEUE_SIZE):
                emit(number)
        finally:
            ended.set()

    async def start(emit: Callable[[int], None]) -> None:
        await asyncio.to_thread(flood, emit)

    results = cast(Any, stream(start))
    assert next(results) == 0
    results.close()
    assert ended.wait(10)


def test_stream_can_be_closed_while_the_coroutine_finishes(monkeypatch: pytest.MonkeyPatch) -> None:
    may_finish = threading.Event()

    class LoopClosedBeforeCancellation(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *args: Any, **options: Any) -> asyncio.Handle:
            may_finish.set()
            deadline = time.monotonic() + 10
            while not self.is_closed() and time.monotonic() < deadline:
                time.sleep(0.01)
            return super().call_soon_threadsafe(*args, **options)

    async def start(emit: Callable[[int], None]) -> None:
        emit(1)
        may_finish.wait(10)

    monkeypatch.setattr(asyncio, "new_event_loop", LoopClosedBeforeCancellation)
    results = cast(Any, stream(start))
    assert next(results) == 1
    results.close()
