"""A backfill that is interrupted during a fetch fails its run; the next one fetches the remaining partitions."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import files, sandbox_settings, stored_rows
from tests.crash.lake_writers import staged_files
from tests.crash.restated_sandbox import DAILY, DAYS, INGESTED_PARTITIONS, restated_sandbox
from tests.services import WAIT_SECONDS, wait_until

pytestmark = pytest.mark.faults

DAYS_OF_TABLE = ["--asset", f"later/{DAILY.name}", "--start", str(DAYS[0]), "--end", str(DAYS[-1])]


@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGTERM], ids=lambda signal_sent: signal_sent.name)
def test_interrupted_backfill_fails_its_run_and_can_be_repeated(
    signal_sent: signal.Signals, dagster_home: Path, tmp_path: Path
) -> None:
    root = tmp_path / "lake"

    def start() -> subprocess.Popen[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("LATER_", "DAGSTER_"))},
            **sandbox_settings(sandbox.base_url, lake_root=str(root)),
            "DAGSTER_HOME": str(dagster_home),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        command = [sys.executable, "-m", "later_reporting_dagster.cli.main", "backfill", *DAYS_OF_TABLE]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path, env=environment
        )

    with restated_sandbox() as sandbox:
        sandbox.stall(DAYS[-1])
        with start() as process:
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
        assert staged_files(root) == []
        with dg.DagsterInstance.get() as instance:
            assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE]

        sandbox.stall(None)
        repeated = start()
        output, _ = repeated.communicate(timeout=WAIT_SECONDS)
        assert repeated.returncode == 0, output
        assert len([path for path in files(root) if path.endswith(".parquet")]) == len(INGESTED_PARTITIONS)
        for each in INGESTED_PARTITIONS:
            rows = sandbox.rows_by_version[0][DAILY.name, each]
            assert stored_rows(root, DAILY.name, each.day, each.instance_id or "") == rows
