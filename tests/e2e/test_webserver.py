"""Dagster's web server without a daemon: a run that is terminated, and the shortest path through the UI."""

import re
from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.crash.lake_writers import staged_files
from tests.crash.restated_sandbox import NO_RESPONSE
from tests.e2e.browser import open_ui
from tests.e2e.dagster_dev import INSTANCES, DagsterDev, dagster_webserver
from tests.services import wait_until

ASSET = "post_metrics_daily"
LAUNCH = """mutation ($parameters: ExecutionParams!) {
  launchPipelineExecution(executionParams: $parameters) { ... on LaunchRunSuccess { run { id } } }
}"""
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def launch(dagster: DagsterDev, first: date, last: date) -> str:
    """Start a run that fetches these days, and return its id."""
    selector = {
        "repositoryLocationName": "later_reporting_dagster.definitions",
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": ["later", ASSET]}],
        "assetCheckSelection": [],
    }
    tags = [
        {"key": f"dagster/asset_partition_range_{end}", "value": str(day)}
        for end, day in (("start", first), ("end", last))
    ]
    parameters = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
    return str(dagster.graphql(LAUNCH, parameters=parameters)["launchPipelineExecution"]["run"]["id"])


def final_status(dagster: DagsterDev, run_id: str) -> str:
    def status() -> str | None:
        current: str = dagster.graphql(STATUS, id=run_id)["runOrError"]["status"]
        return current if current in ("CANCELED", "FAILURE", "SUCCESS") else None

    return wait_until(f"run {run_id} ends", status)


@pytest.mark.e2e
def test_run_terminated_during_a_fetch_is_canceled_and_the_next_fetches_the_rest(tmp_path: Path) -> None:
    with dagster_webserver(tmp_path) as dagster:
        first, *_, last = dagster.days[:4]
        dagster.service.override = lambda request: NO_RESPONSE if str(last) in request.url.query else None
        stopped = launch(dagster, first, last)
        wait_until("a file is written", lambda: dagster.files(ASSET))

        assert dagster.graphql(TERMINATE, id=stopped)["terminateRun"]["__typename"] == "TerminateRunSuccess"

        assert final_status(dagster, stopped) == "CANCELED"
        assert staged_files(Path(dagster.environment["LATER_LAKE_ROOT"])) == []
        assert not any(f"date={last}" in path.parts for path in dagster.files(ASSET))
        dagster.service.override = lambda request: None
        assert final_status(dagster, launch(dagster, first, last)) == "SUCCESS"
        assert len(dagster.files(ASSET)) == 4 * len(INSTANCES)


def test_ui_materializes_a_partition_and_shows_its_checks(browser: Browser, tmp_path: Path) -> None:
    with dagster_webserver(tmp_path) as dagster, open_ui(browser, dagster, tmp_path / "last-screenshot.png") as ui:
        day = dagster.days[-1]
        ui.open("/assets/later/posts_published")
        ui.launch(days=[day])

        ui.expect_text(re.compile("^Success$"))
        ui.open("/assets/later/posts_published?view=checks")
        for check in ("rows_unique_by_key", "rows_belong_to_partition"):
            ui.expect_text(re.compile(f"^{check}.*Succeeded$"))
        assert [path.parts[-3:-1] for path in dagster.files("posts_published")] == [
            (f"date={day}", f"instance_id={instance}") for instance in INSTANCES
        ]
