"""The shortest path through the Dagster UI: materialize a partition, and see its checks."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import Ui, open_ui
from tests.e2e.dagster_dev import INSTANCES, dagster_webserver


@pytest.fixture
def ui(browser: Browser, tmp_path: Path) -> Iterator[Ui]:
    """The UI without a daemon, with nothing materialized yet."""
    with dagster_webserver(tmp_path) as dagster, open_ui(browser, dagster, tmp_path / "last-screenshot.png") as ui:
        yield ui


def test_ui_materializes_a_partition_and_shows_its_checks(ui: Ui) -> None:
    day = ui.dagster.days[-1]

    ui.launch("posts_published", days=[day])

    ui.expect_text(re.compile("^Success$"))
    for check in ("rows_unique_by_key", "rows_belong_to_partition"):
        ui.open_check("posts_published", check, result="Succeeded")
    assert [path.parts[-3:-1] for path in ui.dagster.files("posts_published")] == [
        (f"date={day}", f"instance_id={instance}") for instance in INSTANCES
    ]
