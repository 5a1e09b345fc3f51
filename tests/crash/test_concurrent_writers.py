"""Concurrent writers and readers in several processes: readers see complete partitions only."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake
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


def partition_versions(root: Path) -> list[int | None]:
    """Return the version of each partition, after comparing all of its rows; None for a partition without rows."""
    found: list[int | None] = []
    for partition in lake_writers.PARTITIONS:
        table = Lake(str(root)).read(lake_writers.TABLE_NAME, [partition], schema=POSTS_SCHEMA)
        version = table["campaign_id"][0].as_py() if len(table) else None
        assert table.equals(lake_writers.partition_rows(partition, version or 0))
        found.append(version)
    return found


def assert_lake_equals(rows: RowsByPartition, root: Path, *, table_names: tuple[str, ...]) -> None:
    """Assert that a lake has exactly the ingested partitions of some raw tables with the given rows."""
    found = [path for path in files(root) if path.endswith(".parquet")]
    assert {path.partition("/")[0] for path in found} == set(table_names)
    assert len(found) == len(table_names) * len(INGESTED_PARTITIONS)
    for table_name in table_names:
        for each in INGESTED_PARTITIONS:
            assert stored_rows(root, table_name, each.day, each.instance_id or "") == rows[table_name, each]


def test_partition_written_by_two_processes_has_the_rows_of_one_of_them(tmp_path: Path) -> None:
    for version in range(0, 2 * VERSIONS, 2):
        pair = [ChildProcess(lake_writers.write, root=str(tmp_path), version=version + each, seed=7) for each in (0, 1)]
        for child in pair:
            child.wait_for_success()
        assert {each for each in partition_versions(tmp_path) if each is not None} <= {version, version + 1}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.name != "part-0.parquet"] == []


def test_reader_sees_complete_partitions_during_writes(tmp_path: Path) -> None:
    ChildProcess(lake_writers.write, root=str(tmp_path), version=0, seed=0).wait_for_success()
    reader = ChildProcess(lake_writers.watch, root=str(tmp_path), until=VERSIONS)
    for version in range(1, VERSIONS + 1):
        pair = [ChildProcess(lake_writers.write, root=str(tmp_path), version=version, seed=each) for each in (1, 2)]
        for child in pair:
            child.wait_for_success()
    reader.wait_for_success()


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
