"""Run asynchronous code in a step: in an event loop of its own thread.

So signals never interrupt a coroutine, the loop goes on while Dagster writes an event, and a step works where a loop is
already running, as in a notebook. Leaving the portal, as an interrupt does, cancels the tasks of the loop, waits for
them and for their threads, and closes generators. Dagster's own asynchronous assets do neither.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any, TypeVar

from anyio import CancelScope
from anyio.from_thread import start_blocking_portal

_Item = TypeVar("_Item")
_END = object()


def iterate(items: AsyncGenerator[_Item]) -> Generator[_Item]:
    """Yield what an async generator yields."""
    lock = asyncio.Lock()
    scope: CancelScope | None = None

    async def following() -> Any:
        nonlocal scope
        async with lock:
            with CancelScope() as scope:
                return await anext(items, _END)
        return _END

    async def close() -> None:
        # `following` is cancelled here: the end of the loop would cancel every task at once, also one that waits for a
        # thread. By its scope, because an interrupt may come before its future is known.
        if scope is not None:
            scope.cancel()
        async with lock:  # until a cancelled `following` has ended
            await items.aclose()

    with start_blocking_portal() as portal:
        try:
            while (result := portal.call(following)) is not _END:
                yield result
        except BaseException:
            portal.call(close)
            raise


def wait_for(function: Callable[[], Awaitable[_Item]]) -> _Item:
    """Call a coroutine function, and return its result."""
    with start_blocking_portal() as portal:
        return portal.call(function)
