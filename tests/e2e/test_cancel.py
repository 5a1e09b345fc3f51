"""A run that is terminated by Dagster in the middle of a fetch, as by the button in its UI."""

from datetime import date
from pathlib import Path

from tests.crash.landings import UNANSWERED
from tests.crash.writes import stages
from tests.e2e.dagster_dev import INSTANCES, DagsterDev, until

ASSET = "post_metrics_daily"
LAUNCH = """mutation ($parameters: ExecutionParams!) {
  launchPipelineExecution(executionParams: $parameters) { ... on LaunchRunSuccess { run { id } } }
}"""
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def launch(dagster: DagsterDev, first: date, last: date) -> str:
    """Starts a run that fetches these days, and returns its id."""
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
    return str(dagster.ask(LAUNCH, parameters=parameters)["launchPipelineExecution"]["run"]["id"])


def final_status(dagster: DagsterDev, run_id: str) -> str:
    def status() -> str | None:
        found: str = dagster.ask(STATUS, id=run_id)["runOrError"]["status"]
        return found if found in ("CANCELED", "FAILURE", "SUCCESS") else None

    return until(f"run {run_id} ends", status)


def test_a_run_terminated_in_mid_fetch_is_canceled_and_the_next_one_fetches_the_rest(dagster: DagsterDev) -> None:
    first, last = dagster.days[0], dagster.days[3]
    dagster.service.instead = lambda request: UNANSWERED if str(last) in request.url.query else None
    stopped = launch(dagster, first, last)
    until("a file is written", lambda: dagster.files(ASSET))

    assert dagster.ask(TERMINATE, id=stopped)["terminateRun"]["__typename"] == "TerminateRunSuccess"

    assert final_status(dagster, stopped) == "CANCELED"
    assert stages(Path(dagster.environment["LATER_LAKE_ROOT"])) == []
    assert not any(f"date={last}" in path.parts for path in dagster.files(ASSET))
    dagster.service.instead = lambda request: None
    assert final_status(dagster, launch(dagster, first, last)) == "SUCCESS"
    assert len(dagster.files(ASSET)) == 4 * len(INSTANCES)
