"""Concurrent writers and readers in several processes: readers see complete partitions only."""

from pathlib import Path

import pytest

from tests.crash import lake_writers
from tests.crash.child_process import ChildProcess

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
