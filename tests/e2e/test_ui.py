"""The Dagster UI in a browser, with a real webserver, daemon and API."""

import re
from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.crash.lake_writers import staged_files
from tests.crash.restated_sandbox import NO_RESPONSE
from tests.e2e.browser import GREEN, Ui
from tests.e2e.dagster_dev import INSTANCES, REJECTED_INSTANCE, DagsterDev, wait_until

pytestmark = pytest.mark.e2e

CONFIG = "ops:\n  later__post_metrics_daily:\n    config:\n      "
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
    """Wait until a run has ended, and return its status."""

    def status() -> str | None:
        current: str = dagster.graphql(STATUS, id=run_id)["runOrError"]["status"]
        return current if current in ("CANCELED", "FAILURE", "SUCCESS") else None

    return wait_until(f"run {run_id} ends", status)


def test_run_terminated_during_a_fetch_is_canceled_and_the_next_fetches_the_rest(dagster: DagsterDev) -> None:
    first, *_, last = days = dagster.days[:4]

    def files() -> list[Path]:
        return [path for path in dagster.files(ASSET) if path.parts[-3] in {f"date={day}" for day in days}]

    dagster.service.override = lambda request: NO_RESPONSE if str(last) in request.url.query else None
    stopped = launch(dagster, first, last)
    wait_until("a file is written", files)

    assert dagster.graphql(TERMINATE, id=stopped)["terminateRun"]["__typename"] == "TerminateRunSuccess"

    assert final_status(dagster, stopped) == "CANCELED"
    assert staged_files(Path(dagster.environment["LATER_LAKE_ROOT"])) == []
    assert not any(f"date={last}" in path.parts for path in files())
    dagster.service.override = lambda request: None
    assert final_status(dagster, launch(dagster, first, last)) == "SUCCESS"
    assert len(files()) == 4 * len(INSTANCES)


def test_ui_shows_a_rejected_instance_until_its_days_are_materialized_again(ui: Ui, dagster: DagsterDev) -> None:
    # At any hour, the newest due day is among the last three.
    days = dagster.days[-3:]
    dagster.reject(rejected=True)
    try:
        ui.launch("post_metrics_daily", days=days)
        ui.open_only_run(status="Failure")
    finally:
        dagster.reject(rejected=False)

    ui.expect_text(re.compile(r"3 files failed and were not changed; 9 written\."))
    for day in days:
        ui.expect_text(re.compile(f"{day} {REJECTED_INSTANCE}: .*HTTP 403"))

    ui.open_partition("post_metrics_daily", days[0])
    for day in days:
        ui.expect_colour(str(day), GREEN)
    expect(ui.page.get_by_role("row", name="instances 3", exact=True)).to_be_visible()
    missing = ui.page.get_by_role("row", name=re.compile("^missing_instances "))
    expect(missing).to_contain_text(REJECTED_INSTANCE)

    ui.open_check("post_metrics_daily", "every_instance_is_present", result="Failed")
    # Other days may be missing, too.
    ui.expect_text(re.compile(rf"^\d+ files are missing: .*\d days\): {REJECTED_INSTANCE}\."))
    ui.open_check("post_metrics_daily", "newest_due_day_is_present", result="Failed")
    ui.expect_text(re.compile(rf"^\d{{4}}-\d\d-\d\d is missing for {REJECTED_INSTANCE}: materialize it$"))

    requests = dagster.service.data_requests
    ui.launch("post_metrics_daily", days=days, config=f"{CONFIG}only_missing: true")
    ui.open_only_run(status="Success")

    assert dagster.service.data_requests - requests == len(days)
    ui.open_check("post_metrics_daily", "newest_due_day_is_present", result="Succeeded")
    ui.open_partition("post_metrics_daily", days[0])
    expect(ui.page.get_by_role("row", name="instances 4", exact=True)).to_be_visible()
    expect(missing).to_have_count(0)

    # A run of an asset checks only what it fetched. A run of a check reads the whole lake.
    ui.open_check("post_metrics_daily", "rows_unique_by_key", result="Succeeded")
    ui.page.get_by_role("button", name="execute Execute", exact=True).click()
    ui.open_launched_run()
    ui.expect_text(re.compile("^Success$"))
    ui.open_check("post_metrics_daily", "rows_unique_by_key", result="Succeeded")
    ui.expect_text(re.compile(rf"^All \d+ rows of {len(dagster.files('post_metrics_daily'))} files$"))
