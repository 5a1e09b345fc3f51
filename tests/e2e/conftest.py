"""Fixtures for browser tests: one Dagster and one browser per file, because they take long to start."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import Ui, chromium, open_ui
from tests.e2e.dagster_dev import DagsterDev, dagster_dev


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    """`dagster dev`, with nothing materialized yet."""
    with dagster_dev(tmp_path_factory.mktemp("dagster")) as dagster:
        yield dagster


# Not for the whole session: Playwright keeps an event loop in this thread, so that tests cannot start another.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def ui(browser: Browser, dagster: DagsterDev, tmp_path: Path) -> Iterator[Ui]:
    """The UI of `dagster`. A last screenshot is kept among the files of the test."""
    with open_ui(browser, dagster, tmp_path / "last-screenshot.png") as ui:
        yield ui
