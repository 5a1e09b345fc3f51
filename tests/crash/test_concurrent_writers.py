"""Concurrent writers and readers in several processes: readers see complete partitions only."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import files, stored_rows
from tests.crash import backfill_command, lake_writers
from tests.crash.child_process import ChildProcess
from tests.crash.restated_sandbox import (
    DAYS,
    INGESTED_PARTITIONS,
    PUBLISHED,
    RestatedSandbox,
    RowsByPartition,
    restated_sandbox,
)

pytestmark = pytest.mark.faults

VERSIONS = 6


@pytest.fixture(scope="module")
def sandbox() -> Iterator[RestatedSandbox]:
    with restated_sandbox() as sandbox:
        yield sandbox


def assert_lake_equals(rows: RowsByPartition, root: Path, *, table_names: tuple[str, ...]) -> None:
    """Assert that a lake has exactly the ingested partitions of some raw tables with the given rows."""
    found = [path for path in files(root) if path.endswith(".parquet")]
    assert {path.partition("/")[0] for path in found} == set(table_names)
    assert len(found) == len(table_names) * len(INGESTED_PARTITIONS)
    for table_name in table_names:
        for each in INGESTED_PARTITIONS:
            assert stored_rows(root, table_name, each.day, each.instance_id or "") == rows[table_name, each]


def test_reader_sees_complete_partitions_during_writes(tmp_path: Path) -> None:
    ChildProcess(lake_writers.write, root=str(tmp_path), version=0, seed=0).wait_for_success()
    reader = ChildProcess(lake_writers.watch, root=str(tmp_path), until=VERSIONS)
    for version in range(1, VERSIONS + 1):
        pair = [ChildProcess(lake_writers.write, root=str(tmp_path), version=version, seed=each) for each in (1, 2)]
        for child in pair:
            child.wait_for_success()
    reader.wait_for_success()
    assert lake_writers.staged_files(tmp_path) == []


def test_two_concurrent_backfills_write_correct_partitions(tmp_path: Path, sandbox: RestatedSandbox) -> None:
    sandbox.restate(2)
    root = tmp_path / "lake"
    environment = backfill_command.user_environment(tmp_path, base_url=sandbox.base_url, lake_root=str(root))
    pair = [
        backfill_command.start_command(*backfill_command.backfill_arguments(PUBLISHED.name), environment=environment)
        for _ in range(2)
    ]
    for process in pair:
        output, _ = process.communicate()
        assert process.returncode == 0, output
    assert_lake_equals(sandbox.rows_by_version[2], root, table_names=(PUBLISHED.name,))
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS] * 2
        key = dg.AssetKey(["later", PUBLISHED.name])
        assert len(instance.get_materialized_partitions(key)) == len(DAYS)
