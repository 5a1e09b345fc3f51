"""Run a function over many small files in threads, to hide the latency of each."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Enough to hide the latency of an object store, few enough for any limit on open files.
MAX_THREADS = 16

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


def map_concurrently(function: Callable[[_Argument], _Result], arguments: Iterable[_Argument]) -> list[_Result]:
    """Return `function` of each argument, in order, computed in up to `MAX_THREADS` threads.

    Raises:
        Exception: the first one that `function` raised, in the order of the arguments.
    """
    items = list(arguments)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(MAX_THREADS, len(items))) as threads:
        return list(threads.map(function, items))
