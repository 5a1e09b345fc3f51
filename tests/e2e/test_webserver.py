"""Dagster's web server without a daemon: a run that is terminated, and checks that stay red."""

import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.crash.lake_writers import staged_files
from tests.crash.restated_sandbox import NO_RESPONSE
from tests.e2e.dagster_dev import DEFINITIONS, INSTANCES, DagsterDev, running_dagster
from tests.services import wait_until

pytestmark = pytest.mark.e2e

ASSET = "post_metrics_daily"
TERMINATE = "mutation ($id: String!) { terminateRun(runId: $id) { __typename } }"
RUN = """query ($id: ID!) {
  runOrError(runId: $id) { ... on Run { status endTime } }
  logsForRun(runId: $id, limit: 1000) { ... on EventConnection {
    events { __typename ... on MaterializationEvent { partition } }
  } }
}"""


def ended_run(dagster: DagsterDev, run_id: str) -> Any:
    """Wait until a run has ended, and return its status, the time of its end, and its events."""

    def ended() -> Any:
        run = dagster.graphql(RUN, id=run_id)
        return run["runOrError"]["status"] in ("CANCELED", "FAILURE", "SUCCESS") and run

    return wait_until(f"run {run_id} ends", ended)


@pytest.mark.parametrize("module", [DEFINITIONS, "tests.e2e.multiprocess_definitions"])
def test_run_terminated_during_a_fetch_is_canceled_and_the_next_fetches_the_rest(module: str, tmp_path: Path) -> None:
    with running_dagster(tmp_path, module=module) as dagster:
        days = dagster.days[:4]
        dagster.service.override = lambda request: NO_RESPONSE if str(days[-1]) in request.url.query else None
        run_id = dagster.launch(ASSET, days=days)
        wait_until("the other days are written", lambda: len(dagster.files(ASSET)) == 3 * len(INSTANCES))

        terminated = dagster.graphql(TERMINATE, id=run_id)
        assert terminated["terminateRun"]["__typename"] == "TerminateRunSuccess"
        run = ended_run(dagster, run_id)
        assert run["runOrError"]["status"] == "CANCELED"
        logged = [each["partition"] for each in run["logsForRun"]["events"] if "partition" in each]
        assert sorted(logged) == [str(day) for day in days[:3]]
        wait_until("its processes end", lambda: subprocess.run(["pgrep", "-f", run_id], check=False).returncode == 1)
        lake = Path(dagster.environment["LATER_LAKE_ROOT"])
        assert staged_files(lake) == []
        assert not any(path.stat().st_mtime > run["runOrError"]["endTime"] for path in lake.rglob("*.parquet"))
        printed = [path.read_text() for path in Path(dagster.environment["DAGSTER_HOME"]).rglob("*.err")]
        assert printed
        assert not any("Task was destroyed" in each for each in printed)

        dagster.service.override = lambda request: None
        assert ended_run(dagster, dagster.launch(ASSET, days=days))["runOrError"]["status"] == "SUCCESS"
        assert len(dagster.files(ASSET)) == 4 * len(INSTANCES)


RED = [("post_metrics_daily", "rows_unique_by_key"), ("organic_paid_daily", "is_current")]
EVALUATION = """query ($asset: AssetKeyInput!, $check: String!) {
  assetCheckExecutions(assetKey: $asset, checkName: $check, limit: 1) { evaluation { success description } }
}"""


def test_checks_stay_red_in_the_ui_until_the_day_that_failed_is_healed(tmp_path: Path) -> None:
    with running_dagster(tmp_path) as dagster:

        def results(*assets: str, days: Sequence[date]) -> dict[tuple[str, str], tuple[bool, str]]:
            """Launch a run with the checks, and return their newest results."""
            run = ended_run(dagster, dagster.launch(*assets, days=days, checks=RED))
            assert run["runOrError"]["status"] == "SUCCESS"
            found = {}
            for asset, name in RED:
                data = dagster.graphql(EVALUATION, asset={"path": ["later", asset]}, check=name)
                evaluation = data["assetCheckExecutions"][0]["evaluation"]
                found[asset, name] = evaluation["success"], evaluation["description"]
            return found

        tables, days = [asset for asset, _ in RED], dagster.days[:3]
        assert all(passed for passed, _ in results(*tables, days=days).values())
        raw, rolled_up = (dagster.files(asset) for asset in tables)
        rows = pq.ParquetFile(raw[len(INSTANCES)]).read()
        pq.write_table(pa.concat_tables([rows, rows]), raw[len(INSTANCES)])
        rolled_up[1].write_bytes(b"no Parquet")
        assert not any(passed for passed, _ in results(days=[]).values())
        for passed, description in results(*tables, days=days[:1]).values():
            assert not passed
            assert description.endswith(f" (also at {days[1]}, where this had failed)")
        assert all(passed for passed, _ in results(*tables, days=days[1:2]).values())
        assert all(passed for passed, _ in results(*tables, days=days[:1]).values())
