"""Python's search for objects that refer to each other, paused while a million objects that do not are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collection() -> Iterator[None]:
    """Pause the collection of cycles.

    It looks at all objects again and again while their number grows: to list a million files then takes 1.7 times as
    long. What has no cycle is freed as always. As another thread may resume it meanwhile, nothing may rely on it.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
