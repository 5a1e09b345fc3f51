"""All partitions of all assets launched together in the UI: all are complete, and nothing follows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from later_reporting_dagster.cli.demo import DAGSTER_YAML
from tests.e2e.browser import Ui, open_ui
from tests.e2e.dagster_dev import DagsterDev, daemon_is_healthy, running_dagster
from tests.services import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # on a busy machine

RAW, ROLLUPS = ("post_metrics_daily", "posts_published"), ("organic_paid_daily", "organic_paid_daily_by_campaign")
# With one asset of each kind: each step is a process of some seconds.
TABLES = (
    *(*RAW, *ROLLUPS, "instances", "coverage", "campaigns", "campaign_performance_daily", "organic_paid_weekly"),
    *("campaign_performance_periods", "organic_paid_by_campaign", "campaign_results", "posts", "organic_paid_report"),
)
STATE = """{
  runsOrError { ... on Runs { results { runId status endTime tags { key } assetSelection { path } } } }
  partitionBackfillsOrError { ... on PartitionBackfills { results { status endTimestamp } } }
  sensorOrError(sensorSelector: {
    sensorName: "later_automation"
    repositoryName: "__repository__"
    repositoryLocationName: "later_reporting_dagster.definitions"
  }) { ... on Sensor { sensorState { ticks(limit: 20) { status timestamp } } } }
}"""


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterDev]:
    folder, yaml = tmp_path_factory.mktemp("dagster"), DAGSTER_YAML.read_text()
    variables = {"LATER_TABLES": ",".join(TABLES)}
    with running_dagster(folder, "dagster", "dev", dagster_yaml=yaml, variables=variables) as dagster:
        wait_until("the daemon is healthy", lambda: daemon_is_healthy(dagster))
        yield dagster


@pytest.fixture
def ui(browser: Browser, dagster: DagsterDev, tmp_path: Path) -> Iterator[Ui]:
    with open_ui(browser, dagster, tmp_path / "last-screenshot.png") as ui:
        yield ui


def test_materialize_all_is_complete_and_nothing_follows(ui: Ui, dagster: DagsterDev) -> None:
    before = {run["runId"] for run in _wait_until_idle(dagster)["runsOrError"]["results"]}
    ui.open("/asset-groups")
    ui.launch_all()

    state = _wait_until_idle(dagster)
    runs = [run for run in state["runsOrError"]["results"] if run["runId"] not in before]
    assert {run["status"] for run in runs} == {"SUCCESS"}
    assert not any(map(_is_of_automation, runs)), [(run["assetSelection"], run["endTime"]) for run in runs]
    for node in dagster.assets().values():
        assert node["assetMaterializations"], node
        for check in node["assetChecksOrError"]["checks"]:
            assert check["executionForLatestMaterialization"], (node, check)


def _wait_until_idle(dagster: DagsterDev) -> Any:
    """Wait until automation has requested nothing in a tick after all backfills and runs; return the state."""

    def idle_state() -> Any:
        state = dagster.graphql(STATE)
        if not all(backfill["endTimestamp"] for backfill in state["partitionBackfillsOrError"]["results"]):
            return None
        ended = max((run["endTime"] or float("inf") for run in state["runsOrError"]["results"]), default=0.0)
        ticks = state["sensorOrError"]["sensorState"]["ticks"]
        return any(tick["timestamp"] > ended and tick["status"] == "SKIPPED" for tick in ticks) and state

    return wait_until("all backfills have ended, and a tick of automation requested nothing", idle_state)


def _is_of_automation(run: Any) -> bool:
    """Return whether automation requested a run of assets. At the due hour, it requests runs of checks only."""
    return (
        run is not None
        and bool(run["assetSelection"])
        and "dagster/from_automation_condition" in {tag["key"] for tag in run["tags"]}
    )
