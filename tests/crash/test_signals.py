"""A backfill that is interrupted during a fetch fails its run; the next one fetches the remaining partitions."""

import signal
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import Service, Truth
from tests.crash import backfill_command, lake_writers
from tests.crash.restated_sandbox import DAILY, DAYS, INGESTED_PARTITIONS, NO_RESPONSE
from tests.ingest.conftest import assert_lake_matches
from tests.services import WAIT_SECONDS, wait_until

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGTERM], ids=lambda signal_sent: signal_sent.name)
def test_interrupted_backfill_fails_its_run_and_can_be_repeated(
    signal_sent: signal.Signals, service: Service, truth: Truth, tmp_path: Path
) -> None:
    root, arguments = tmp_path / "lake", backfill_command.backfill_arguments(DAILY.name)
    environment = backfill_command.user_environment(tmp_path, base_url=service.base_url, lake_root=str(root))
    service.override = lambda request: NO_RESPONSE if str(DAYS[-1]) in request.url.query else None
    with backfill_command.start_command(*arguments, environment=environment) as process:
        try:
            wait_until("a file is written", lambda: any(root.rglob("part-0.parquet")))
            process.send_signal(signal_sent)
            output, _ = process.communicate(timeout=WAIT_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 130
    assert output.splitlines()[-1] == (
        "Error: interrupted: what was written is kept, and `backfill --only-missing` fetches the rest"
    )
    assert lake_writers.staged_files(root) == []
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE]

    service.override = lambda request: None
    repeated = backfill_command.start_command(*arguments, environment=environment)
    output, _ = repeated.communicate(timeout=WAIT_SECONDS)
    assert repeated.returncode == 0, output
    assert_lake_matches(root, DAILY, INGESTED_PARTITIONS, truth)
