"""What a writer has staged is never read, is left alone while the writer lives, and goes when it is dead."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from later_reporting_dagster.lake import Lake, Partition, partition_path
from tests.crash import writes
from tests.crash.writes import ASSET, version_of

PARTITION = writes.PARTITIONS[0]


def staged(root: Path, partition: Partition, *, seconds_ago: int, data: bytes = b"PAR1 and not much more") -> Path:
    """A stage as a writer leaves it that dies."""
    path = (root / partition_path(ASSET, partition)).with_name(f".stage-{int(time.time()) - seconds_ago}-{'0' * 16}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_stage_stays_for_as_long_as_its_writer_lives(tmp_path: Path) -> None:
    lake, stage = Lake(str(tmp_path)), staged(tmp_path, PARTITION, seconds_ago=60)
    writer = os.open(stage, os.O_RDWR)
    fcntl.flock(writer, fcntl.LOCK_EX)
    lake.write(ASSET, PARTITION, version_of(PARTITION, 1))
    assert stage.exists()
    os.close(writer)
    lake.write(ASSET, PARTITION, version_of(PARTITION, 2))
    assert not stage.exists()


def test_a_stage_is_locked_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[Path] = []
    sync = os.fsync

    def try_the_lock(descriptor: int) -> None:
        for stage in writes.stages(tmp_path):
            with stage.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    refused.append(stage)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", try_the_lock)
    Lake(str(tmp_path)).write(ASSET, PARTITION, version_of(PARTITION, 1))
    assert len({*refused}) == 1
    assert writes.stages(tmp_path) == []
