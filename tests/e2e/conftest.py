"""A browser for each file, because it takes long to start."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import chromium


# Not for the whole session: Playwright keeps an event loop in this thread, so that tests cannot start another.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser
