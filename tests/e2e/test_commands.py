"""Dagster's own commands in a clone of the repository, each in a subprocess."""

from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from tests.docs.conftest import Shell
from tests.e2e.dagster_dev import INSTANCES, REPOSITORY, clean_environment, sandbox_environment

pytestmark = pytest.mark.e2e


def test_dg_checks_the_definitions_of_a_clone(tmp_path: Path) -> None:
    no_settings = {**clean_environment(), "HOME": str(tmp_path), "COLUMNS": "300"}
    printed = Shell(REPOSITORY, no_settings).run_process("bash", "-c", "dg check defs 2>&1")
    assert "All definitions loaded successfully" in printed


@pytest.mark.parametrize("days", [1, 3])
def test_dagster_materializes_a_raw_table_and_its_rollup(days: int, tmp_path: Path) -> None:
    with sandbox_environment(tmp_path) as (_, environment):
        first = date.fromisoformat(environment["LATER_START_DATE"])
        partitions = [str(first + timedelta(days=number)) for number in range(days)]
        range_ = f"{partitions[0]}...{partitions[-1]}"
        Shell(REPOSITORY, environment).run_process(
            *("dagster", "asset", "materialize", "-m", "later_reporting_dagster.definitions"),
            *("--select", "later/post_metrics_daily,later/organic_paid_daily"),
            *(("--partition", *partitions) if days == 1 else ("--partition-range", range_)),
        )

    files = sorted(path for path in (tmp_path / "lake").rglob("*.parquet") if "_fetches" not in path.parts)
    assert [file.parts[file.parts.index("lake") + 1 : -1] for file in files] == [
        *(("organic_paid_daily", f"date={day}") for day in partitions),
        *(
            ("post_metrics_daily", f"date={day}", f"instance_id={instance}")
            for day in partitions
            for instance in INSTANCES
        ),
    ]
    # Not in what the command prints: a second process copies the output of a step, and may miss its last line.
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        (record,) = instance.get_run_records()
        evaluations = instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    assert len(evaluations) == 7 + 2
