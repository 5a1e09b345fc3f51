"""What a writer has staged is never read, is left alone while the writer lives, and goes when it is dead."""

import fcntl
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition, partition_path
from tests.crash import writes
from tests.crash.writes import ASSET, version_of

PARTITION = writes.PARTITIONS[0]


def staged(root: Path, partition: Partition, *, seconds_ago: int, data: bytes = b"PAR1 and not much more") -> Path:
    """A stage as a writer leaves it that dies."""
    path = (root / partition_path(ASSET, partition)).with_name(f".stage-{int(time.time()) - seconds_ago}-{'0' * 16}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("seconds_ago", [0, 60, 86_400])
def test_a_stage_is_nothing_to_any_reader(seconds_ago: int, tmp_path: Path) -> None:
    """Not even one that is whole: nobody has checked it."""
    lake = Lake(str(tmp_path))
    lake.write(ASSET, PARTITION, version_of(PARTITION, 1))
    whole = (tmp_path / partition_path(ASSET, PARTITION)).read_bytes()
    never_written = writes.PARTITIONS[1]
    for partition in (PARTITION, never_written):
        staged(tmp_path, partition, seconds_ago=seconds_ago, data=whole)

    assert lake.partitions(ASSET) == [PARTITION]
    assert lake.facts(ASSET, never_written) is None
    assert lake.read(ASSET, [PARTITION, never_written], schema=POSTS_SCHEMA).equals(version_of(PARTITION, 1))
    assert lake.dataset(ASSET, POSTS_SCHEMA).count_rows() == len(version_of(PARTITION, 1))
    assert pa.dataset.dataset(tmp_path / ASSET).count_rows() == len(version_of(PARTITION, 1))


@pytest.mark.parametrize(("seconds_ago", "stays"), [(0, True), (60, False), (86_400, False)])
def test_the_next_write_removes_the_stage_of_a_dead_writer(seconds_ago: int, stays: bool, tmp_path: Path) -> None:
    stage = staged(tmp_path, PARTITION, seconds_ago=seconds_ago)
    Lake(str(tmp_path)).write(ASSET, PARTITION, version_of(PARTITION, 1))
    assert stage.exists() is stays


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
