"""Staged files: kept while their writer runs, removed after it died."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from later_reporting_dagster.lake import Lake, Partition, partition_path
from tests.crash import lake_writers
from tests.crash.lake_writers import TABLE_NAME, partition_rows

PARTITION = lake_writers.PARTITIONS[0]


def write_staged_file(root: Path, partition: Partition, *, seconds_ago: int) -> Path:
    """Write a staged file as left by a writer that died."""
    path = (root / partition_path(TABLE_NAME, partition)).with_name(
        f".stage-{int(time.time()) - seconds_ago}-{'0' * 16}"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PAR1 and not much more")
    return path


def test_staged_file_is_kept_while_its_writer_holds_the_lock(tmp_path: Path) -> None:
    lake, file = Lake(str(tmp_path)), write_staged_file(tmp_path, PARTITION, seconds_ago=60)
    writer = os.open(file, os.O_RDWR)
    fcntl.flock(writer, fcntl.LOCK_EX)
    lake.write(TABLE_NAME, PARTITION, partition_rows(PARTITION, 1))
    assert file.exists()
    os.close(writer)
    lake.write(TABLE_NAME, PARTITION, partition_rows(PARTITION, 2))
    assert not file.exists()


def test_staged_file_is_locked_during_the_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[Path] = []
    sync = os.fsync

    def try_lock(descriptor: int) -> None:
        for stage in lake_writers.staged_files(tmp_path):
            with stage.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    locked.append(stage)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", try_lock)
    Lake(str(tmp_path)).write(TABLE_NAME, PARTITION, partition_rows(PARTITION, 1))
    assert len({*locked}) == 1
    assert lake_writers.staged_files(tmp_path) == []
