"""The thread that fetches, and the results that it hands over."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from later_reporting_dagster.ingest import result_stream
from later_reporting_dagster.ingest.result_stream import QUEUE_SIZE, stream
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

    monkeypatch.setattr(result_stream, "Queue", RecordingQueue)

    async def start(emit: Callable[[int], None]) -> None:
        for number in range(2 * QUEUE_SIZE):
            await asyncio.to_thread(emit, number)

    results = stream(start)
    received = [next(results)]
    assert was_full.wait(WAIT_SECONDS)
    assert [*received, *results] == list(range(2 * QUEUE_SIZE))


def test_stream_raises_an_error_after_the_results_before_it() -> None:
    async def start(emit: Callable[[int], None]) -> None:
        emit(1)
        raise LookupError("the rest is lost")

    results = stream(start)
    assert next(results) == 1
    with pytest.raises(LookupError, match="the rest is lost"):
        next(results)


def test_closing_the_stream_cancels_the_coroutine_and_releases_a_thread_that_waits_to_emit() -> None:
    cancelled, ended = threading.Event(), threading.Event()

    def flood(emit: Callable[[int], None]) -> None:
        try:
            for number in range(10 * QUEUE_SIZE):
                emit(number)
        finally:
            ended.set()

    async def start(emit: Callable[[int], None]) -> None:
        try:
            await asyncio.to_thread(flood, emit)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    results = cast(Any, stream(start))
    assert next(results) == 0
    results.close()
    assert cancelled.is_set()
    assert ended.wait(WAIT_SECONDS)
