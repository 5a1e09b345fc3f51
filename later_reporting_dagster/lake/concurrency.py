"""Many small files at once: each costs little but the wait for it."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

# Files read at the same time: enough to hide the latency of an object store, few enough for any file limit.
READERS = 16

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


def side_by_side(function: Callable[[_Given], _Result], arguments: Iterable[_Given]) -> list[_Result]:
    """The results in order, computed in threads; the first failure is raised."""
    given = list(arguments)
    if len(given) < 2:
        return [function(argument) for argument in given]
    with ThreadPoolExecutor(min(READERS, len(given))) as threads:
        return list(threads.map(function, given))
