"""Run an ingest in the background, for a caller without an event loop, such as a Dagster step, and count its work."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from queue import Full, Queue
from typing import Any, TypeVar

from later_reporting_dagster.client import ClientEvent, PageFetched, PagesRefetched, RateLimitWait, RequestRetried

# Maximum number of results in the queue. Bounds memory if the caller is slower than the ingest.
QUEUE_SIZE = 64
# Shorter waits are normal under the rate limit and are not logged.
MIN_LOGGED_WAIT_SECONDS = 5.0

_Result = TypeVar("_Result")


@dataclass(slots=True)
class Progress:
    """What a run has done so far: partitions to fetch, written and failed, rows in files, and pages received.

    Attributes:
        warnings: what the caller should know although the run succeeds.
        status: the current wait, such as "waiting 30 s for the rate limit"; empty while pages arrive.
    """

    table_name: str
    partitions: int = 0
    written: int = 0
    failed: int = 0
    rows: int = 0
    requests: int = 0
    retries: int = 0
    rate_limit_waits: int = 0
    warnings: list[str] = field(default_factory=list)
    status: str = ""

    def count(self, event: ClientEvent) -> str:
        """Count an event of the client, and return what to log about it; an empty text for nothing."""
        match event:
            case PageFetched():
                self.requests += 1
                self.status = ""
            case RateLimitWait():
                self.rate_limit_waits += 1
                # Concurrent requests wait at the same time; one log line is enough for all of them.
                if event.seconds >= MIN_LOGGED_WAIT_SECONDS and not self.status.startswith("waiting"):
                    self.status = f"waiting {event.seconds:.0f} s for the rate limit"
                    return self.status.capitalize()
            case RequestRetried():
                self.retries += 1
                self.status = f"retrying in {event.wait_seconds:.0f} s"
                return f"Retrying in {event.wait_seconds:.1f} s: {event.reason}"
            case PagesRefetched():
                return f"Fetching again from the first page: {event.reason}"
        return ""


class StreamClosed(Exception):  # noqa: N818 - named for what happened
    """The iterator was closed, so no more results are accepted."""


def stream(start: Callable[[Callable[[_Result], None]], Coroutine[Any, Any, None]]) -> Iterator[_Result]:
    """Run the coroutine `start(emit)` in its own thread and event loop, and yield each result that it emits.

    `emit` may be called from any thread; it blocks while the queue is full. If the coroutine raises an exception, the
    results that it emitted are yielded first, then the exception is raised. Closing the iterator, as an interrupt of
    the run does, cancels the coroutine.
    """
    queue: Queue[Any] = Queue(maxsize=QUEUE_SIZE)
    closed = threading.Event()
    end = object()
    errors: list[BaseException] = []
    loop = asyncio.new_event_loop()

    def emit(result: object) -> None:
        while not closed.is_set():
            with contextlib.suppress(Full):
                queue.put(result, timeout=0.2)
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

    def cancel_all() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

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
            loop.call_soon_threadsafe(cancel_all)
        thread.join(timeout=10)
