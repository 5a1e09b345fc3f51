"""A command that is told to end in the middle of a fetch ends its run, and leaves whole files for the next to go on."""

import signal
from pathlib import Path

import dagster as dg
import pytest

from tests.crash import backfills, writes
from tests.crash.landings import DAILY, DAYS, restated_service
from tests.crash.test_together import assert_lake_is
from tests.e2e.dagster_dev import until

# A second on an idle machine.
SECONDS_TO_END = 60


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM], ids=lambda told: told.name)
def test_a_backfill_interrupted_in_mid_fetch_fails_its_run_and_the_next_fetches_the_rest(
    told: signal.Signals, tmp_path: Path
) -> None:
    root, typed = tmp_path / "lake", backfills.arguments(DAILY.asset)
    with restated_service() as service:
        environment = backfills.user_environment(tmp_path, base_url=service.base_url, lake_root=str(root))
        service.stall(DAYS[-1])
        with backfills.command(*typed, environment=environment) as process:
            try:
                until("a file is written", lambda: any(root.rglob("part-0.parquet")))
                process.send_signal(told)
                said, _ = process.communicate(timeout=SECONDS_TO_END)
            finally:
                process.kill()
        assert process.returncode == 1
        assert said.splitlines()[-1] == "Error: interrupted: what is written stays. Run it again for the rest."
        assert writes.stages(root) == []
        with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
            assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE]

        service.stall(None)
        again = backfills.command(*typed, environment=environment)
        said, _ = again.communicate(timeout=120)
        assert again.returncode == 0, said
        assert_lake_is(service.answers[0], root, sources=(DAILY.asset,))
