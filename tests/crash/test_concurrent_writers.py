"""Concurrent writers and readers in several processes: readers see complete partitions only."""

from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import Service, Truth
from tests.crash import backfill_command, lake_writers
from tests.crash.child_process import ChildProcess
from tests.crash.restated_sandbox import DAYS, INGESTED_PARTITIONS, PUBLISHED
from tests.ingest.conftest import assert_lake_matches

pytestmark = pytest.mark.faults

VERSIONS = 6


def test_reader_sees_complete_partitions_during_writes(tmp_path: Path) -> None:
    ChildProcess(lake_writers.write, root=str(tmp_path), version=0, seed=0).wait_for_success()
    reader = ChildProcess(lake_writers.watch, root=str(tmp_path), until=VERSIONS)
    for version in range(1, VERSIONS + 1):
        pair = [ChildProcess(lake_writers.write, root=str(tmp_path), version=version, seed=each) for each in (1, 2)]
        for child in pair:
            child.wait_for_success()
    reader.wait_for_success()
    assert lake_writers.staged_files(tmp_path) == []


def test_two_concurrent_backfills_write_correct_partitions(tmp_path: Path, service: Service, truth: Truth) -> None:
    root = tmp_path / "lake"
    environment = backfill_command.user_environment(tmp_path, base_url=service.base_url, lake_root=str(root))
    pair = [
        backfill_command.start_command(*backfill_command.backfill_arguments(PUBLISHED.name), environment=environment)
        for _ in range(2)
    ]
    for process in pair:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    assert_lake_matches(root, PUBLISHED, INGESTED_PARTITIONS, truth)
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS] * 2
        key = dg.AssetKey(["later", PUBLISHED.name])
        assert len(instance.get_materialized_partitions(key)) == len(DAYS)
