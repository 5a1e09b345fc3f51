"""Takes outcomes out of the event loop, so that logging one does not hold up the fetching of the next."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterator
from queue import Full, Queue
from typing import Any, TypeVar

_Outcome = TypeVar("_Outcome")

# Outcomes that may wait to be taken. It bounds the memory when taking them is slower than fetching.
WAITING_OUTCOMES = 64


class Abandoned(Exception):  # noqa: N818 - named for what happened
    """Nobody takes the outcomes any more."""


def stream(start: Callable[[Callable[[_Outcome], None]], Coroutine[Any, Any, None]]) -> Iterator[_Outcome]:
    """Runs `start(deliver)` in an event loop of a thread of its own, and yields what it delivers, as it comes.

    An exception of `start` is raised here after all that was delivered before it. Closing the iterator cancels it.
    """
    queue: Queue[Any] = Queue(maxsize=WAITING_OUTCOMES)
    abandoned = threading.Event()
    ended = object()
    errors: list[BaseException] = []
    loop = asyncio.new_event_loop()

    def deliver(outcome: object) -> None:
        while not abandoned.is_set():
            try:
                queue.put(outcome, timeout=0.2)
            except Full:
                continue
            return
        raise Abandoned

    def work() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(start(deliver))
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            errors.append(error)
        with contextlib.suppress(Abandoned):
            deliver(ended)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="later-reporting-ingest", daemon=True)
    thread.start()
    try:
        while (outcome := queue.get()) is not ended:
            yield outcome
        if errors:
            raise errors[0]
    finally:
        abandoned.set()
        if thread.is_alive() and not loop.is_closed():
            loop.call_soon_threadsafe(_cancel_all, loop)
        thread.join(timeout=10)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
