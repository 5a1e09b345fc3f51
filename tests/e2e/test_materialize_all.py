"""All partitions of all assets in one backfill, as the UI launches them: all are complete, and nothing follows."""

from pathlib import Path
from typing import Any

import pytest

from later_reporting_dagster.cli.demo import DAGSTER_YAML
from tests.e2e.dagster_dev import daemon_is_healthy, running_dagster
from tests.services import wait_until

# With one asset of each kind: each step is a process of some seconds.
TABLES = (
    *("post_metrics_daily", "posts_published", "campaign_performance_daily", "instances", "coverage", "campaigns"),
    *("organic_paid_daily", "organic_paid_daily_by_campaign", "organic_paid_weekly", "campaign_performance_periods"),
    *("organic_paid_by_campaign", "campaign_results", "posts", "organic_paid_report"),
)
STATE = """{
  runsOrError { ... on Runs { results { runId status endTime tags { key } assetSelection { path } } } }
  partitionBackfillsOrError { ... on PartitionBackfills { results { status endTimestamp } } }
  sensorOrError(sensorSelector: {
    sensorName: "later_rollups"
    repositoryName: "__repository__"
    repositoryLocationName: "later_reporting_dagster.definitions"
  }) { ... on Sensor { sensorState { ticks(limit: 20) { status timestamp } } } }
}"""


@pytest.mark.e2e
@pytest.mark.timeout(1800)  # on a busy machine
def test_materialize_all_is_complete_and_nothing_follows(tmp_path: Path) -> None:
    variables = {"LATER_TABLES": ",".join(TABLES)}
    with running_dagster(
        tmp_path, "dagster", "dev", dagster_yaml=DAGSTER_YAML.read_text(), variables=variables
    ) as dagster:

        def state_when_idle() -> Any:
            """Return the state, once the sensor has requested nothing in a tick after all backfills and runs."""
            state = dagster.graphql(STATE)
            if not all(backfill["endTimestamp"] for backfill in state["partitionBackfillsOrError"]["results"]):
                return None
            ended = max((run["endTime"] or float("inf") for run in state["runsOrError"]["results"]), default=0.0)
            ticks = state["sensorOrError"]["sensorState"]["ticks"]
            return any(tick["timestamp"] > ended and tick["status"] == "SKIPPED" for tick in ticks) and state

        wait_until("the daemon is healthy", lambda: daemon_is_healthy(dagster))
        before = wait_until("the sensor is idle", state_when_idle)["runsOrError"]["results"]
        dagster.backfill(*TABLES)
        after = wait_until("all runs have ended", state_when_idle)["runsOrError"]["results"]
        runs = [run for run in after if run not in before]
        assert {run["status"] for run in runs} == {"SUCCESS"}
        # At the due hour, a schedule requests a run of checks.
        of_assets = [run for run in runs if run["assetSelection"]]
        tags = {tag["key"] for run in of_assets for tag in run["tags"]}
        assert "later/requested_by" not in tags, of_assets
        for node in dagster.assets().values():
            assert node["assetMaterializations"], node
            for check in node["assetChecksOrError"]["checks"]:
                assert check["executionForLatestMaterialization"], (node, check)
