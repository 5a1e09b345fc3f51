"""One Dagster and one browser for all tests of a file: they take longer to start than most tests to run."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import Ui, chromium, window
from tests.e2e.dagster_dev import DagsterDev, dagster_dev


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    """`dagster dev`, with nothing materialized yet."""
    with dagster_dev(tmp_path_factory.mktemp("dagster")) as dagster:
        yield dagster


# Not for longer than a file: while it is there, this thread has an event loop, and no test can start one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def ui(browser: Browser, dagster: DagsterDev, tmp_path: Path) -> Iterator[Ui]:
    """A window on `dagster`. What it showed last is kept as a picture among the test's files."""
    with window(browser, dagster, tmp_path / "seen-last.png") as ui:
        yield ui
