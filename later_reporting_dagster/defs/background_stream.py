"""Run a coroutine in a background thread and iterate over its results, so that handling one does not delay the next."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterator
from queue import Full, Queue
from typing import Any, TypeVar

_Result = TypeVar("_Result")

# Maximum number of results in the queue. Bounds memory if handling results is slower than fetching them.
QUEUE_SIZE = 64


class StreamClosed(Exception):  # noqa: N818 - named for what happened
    """The iterator was closed, so no more results are accepted."""


def stream(start: Callable[[Callable[[_Result], None]], Coroutine[Any, Any, None]]) -> Iterator[_Result]:
    """Run the coroutine `start(emit)` in its own thread and event loop, and yield each result that it emits.

    `emit` may be called from any thread; it blocks while the queue is full. If the coroutine raises an exception, the
    results that it emitted are yielded first, then the exception is raised. Closing the iterator cancels the coroutine.
    """
    queue: Queue[Any] = Queue(maxsize=QUEUE_SIZE)
    closed = threading.Event()
    end = object()
    errors: list[BaseException] = []
    loop = asyncio.new_event_loop()

    def emit(result: object) -> None:
        while not closed.is_set():
            try:
                queue.put(result, timeout=0.2)
            except Full:
                continue
            return
        raise StreamClosed

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(start(emit))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that iterates
            errors.append(error)
        with contextlib.suppress(StreamClosed):
            emit(end)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="later-reporting-ingest", daemon=True)
    thread.start()
    try:
        while (result := queue.get()) is not end:
            yield result
        if errors:
            raise errors[0]
    finally:
        closed.set()
        with contextlib.suppress(RuntimeError):  # the coroutine has finished, and its thread has closed the loop
            loop.call_soon_threadsafe(_cancel_all, loop)
        thread.join(timeout=10)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
