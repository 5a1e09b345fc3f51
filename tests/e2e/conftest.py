"""A daemon that breaks, in tests of recovery."""

import time
from collections.abc import Iterator

import pytest

from tests.e2e.recovery import Recovery


@pytest.fixture
def recovery(running: Recovery) -> Iterator[Recovery]:
    """The daemon that the module runs, with nothing to do."""
    running.wait_until_healed()
    running.breaking()
    yield running
    print(f"\n{running.log()}\nidle after {time.time() - running.broken_at:.0f} s")
