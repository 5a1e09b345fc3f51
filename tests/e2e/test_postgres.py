"""The whole project on Postgres: a backfill by the daemon, automation after it, checks, and a canceled run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from later_reporting_dagster.defs.posts_checks import DAYS_ADD_UP
from tests.crash.restated_sandbox import NO_RESPONSE
from tests.e2e.dagster_dev import DAYS, DagsterDev, dagster_dev, wait_until
from tests.e2e.test_cancel import TERMINATE, final_status, launch
from tests.services import postgres_storage, running_postgres

pytestmark = pytest.mark.services

RAW, ROLLUP, WINDOWS = "posts_published", "organic_paid_by_publish_day", "organic_paid_by_creator"
BACKFILL = """mutation ($parameters: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $parameters) {
    __typename ... on LaunchBackfillSuccess { backfillId }
  }
}"""
BACKFILL_STATUS = """query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status runs { runId } } }
}"""
ASSET = """query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode {
    partitionStats { numMaterialized numFailed }
    assetMaterializations(limit: 100) { partition runId }
    assetChecksOrError { ... on AssetChecks { checks {
      name executionForLatestMaterialization { status evaluation { success } }
    } } }
  } }
}"""
RUN = """query ($id: ID!) {
  runOrError(runId: $id) { ... on Run { assetMaterializations { partition } } }
  logsForRun(runId: $id) { ... on EventConnection { events { __typename } } }
}"""


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture(scope="module")
def dagster(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    """`dagster dev` whose storage is the PostgreSQL server."""
    with dagster_dev(tmp_path_factory.mktemp("postgres"), configuration=postgres_storage(postgres_url)) as dagster:
        yield dagster


def asset_node(dagster: DagsterDev, asset: str) -> Any:
    """Return what the page of an asset shows."""
    return dagster.graphql(ASSET, key={"path": ["later", asset]})["assetNodeOrError"]


def materialized(dagster: DagsterDev, asset: str) -> set[str]:
    return {each["partition"] for each in asset_node(dagster, asset)["assetMaterializations"]}


def test_backfill_automation_and_checks(dagster: DagsterDev) -> None:
    parameters = {"assetSelection": [{"path": ["later", RAW]}], "partitionNames": [*map(str, dagster.days)], "tags": []}
    backfill = dagster.graphql(BACKFILL, parameters=parameters)["launchPartitionBackfill"]["backfillId"]

    def finished() -> Any:
        status = dagster.graphql(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]
        return status["status"].startswith(("COMPLETED", "FAILED")) and status

    status = wait_until("the backfill ends", finished)
    assert status["status"] == "COMPLETED_SUCCESS"
    (run,) = status["runs"]
    assert_shows(dagster, RAW)
    page = dagster.graphql(RUN, id=run["runId"])
    assert {each["partition"] for each in page["runOrError"]["assetMaterializations"]} == {*map(str, dagster.days)}
    logged = [event["__typename"] for event in page["logsForRun"]["events"]]
    assert logged.count("MaterializationEvent") == DAYS

    wait_until("automation rolls up all days", lambda: len(materialized(dagster, ROLLUP)) == DAYS)
    assert_shows(dagster, ROLLUP)
    wait_until("automation computes the windows", lambda: materialized(dagster, WINDOWS))


def assert_shows(dagster: DagsterDev, asset: str) -> None:
    """Assert that an asset's page shows all days, each once, and the results of all checks of its last run."""

    def page_with_results() -> Any:
        page = asset_node(dagster, asset)
        executions = [execution_of(check) for check in checks_of(page)]
        return all(each and each["status"] != "IN_PROGRESS" for each in executions) and page

    page = wait_until("the checks are evaluated", page_with_results)
    assert page["partitionStats"] == {"numMaterialized": DAYS, "numFailed": 0}
    assert sorted(each["partition"] for each in page["assetMaterializations"]) == [*map(str, dagster.days)]
    assert {execution_of(check)["status"] for check in checks_of(page)} == {"SUCCEEDED"}


def checks_of(page: Any) -> list[Any]:
    """Return the checks of an asset that its own runs evaluate."""
    return [each for each in page["assetChecksOrError"]["checks"] if each["name"] != DAYS_ADD_UP.name]


def execution_of(check: Any) -> Any:
    return check["executionForLatestMaterialization"]


def logged_materializations(dagster: DagsterDev, run_id: str) -> int:
    """Count the materializations in the output of a run, which has them before they are stored."""
    outputs = Path(dagster.environment["DAGSTER_HOME"]).rglob(f"{run_id}/compute_logs/*.err")
    return sum(output.read_text().count("ASSET_MATERIALIZATION - ") for output in outputs)


def test_canceled_run_stores_the_days_that_it_wrote(dagster: DagsterDev) -> None:
    days, table = dagster.days[:4], "post_metrics_daily"
    dagster.service.override = lambda request: NO_RESPONSE if str(days[-1]) in request.url.query else None
    run_id = launch(dagster, days[0], days[-1])
    wait_until("three days are logged", lambda: logged_materializations(dagster, run_id) == 3)

    assert dagster.graphql(TERMINATE, id=run_id)["terminateRun"]["__typename"] == "TerminateRunSuccess"

    assert final_status(dagster, run_id) == "CANCELED"
    assert materialized(dagster, table) == {*map(str, days[:3])}
