"""A browser for each file, because it takes long to start; and a daemon that breaks, in tests of recovery."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import chromium
from tests.e2e.recovery import Recovery


# Not for the whole session: Playwright keeps an event loop in this thread, so that tests cannot start another.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def recovery(running: Recovery) -> Iterator[Recovery]:
    """The daemon that the module runs, with nothing to do."""
    running.wait_until_healed()
    running.breaking()
    yield running
    print(f"\n{running.log()}\nidle after {time.time() - running.broken_at:.0f} s")
