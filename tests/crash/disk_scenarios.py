"""Write to a full or read-only disk, in a process that has such a disk. The exit code is 0 if all checks pass.

    unshare --map-root-user --mount python -m tests.crash.disk_scenarios tmpfs DIRECTORY SCENARIO
    python -m tests.crash.disk_scenarios limit DIRECTORY SCENARIO

`tmpfs` mounts a small disk in memory, in its own mount namespace. `limit` limits the size of files and needs no rights.
`SCENARIOS` has the scenarios of each.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.ingest.partition_writer import FailedPartition
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable
from tests.conftest import files, stored_rows
from tests.crash import lake_writers
from tests.crash.lake_writers import TABLE_NAME, partition_rows
from tests.crash.restated_sandbox import INGESTED_PARTITIONS, PUBLISHED, ingest_all, restated_sandbox

DISK_BYTES = 1_048_576
FREE_BYTES = 24_576  # for some partitions, but not for all
SMALL, LARGE = lake_writers.PARTITIONS[0], lake_writers.PARTITIONS[3]


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that can be filled.

    Attributes:
        root: Root of a lake on the disk.
        error_pattern: Pattern of the error message when the disk is full.
        fill: Fill the disk except for a number of bytes.
        free: Make room again.
    """

    root: Path
    error_pattern: str
    fill: Callable[[int], None]
    free: Callable[[], None]


@contextmanager
def small_disk(kind: str, directory: Path) -> Iterator[Disk]:
    """Yield a disk of a kind: `tmpfs` or `limit`."""
    filler = directory / "filler"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(free_bytes: int) -> None:
        with filler.open("wb", buffering=0) as file:
            while _free_bytes(directory) > free_bytes:
                file.write(bytes(4096))

    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", directory], check=True)
        try:
            yield Disk(directory / "lake", "No space left on device.*has free space", fill, filler.unlink)
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)
    else:
        yield Disk(
            directory / "lake",
            "File too large",
            lambda free_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes // 4, limits[1])),
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
        )


def _free_bytes(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_bsize


def write_to_a_full_disk(disk: Disk) -> None:
    """Writes fail with an error that names a fix, leave all files unchanged, and succeed after the disk is freed."""
    lake = Lake(str(disk.root))
    for partition in (SMALL, LARGE):
        lake.write(TABLE_NAME, partition, partition_rows(partition, 1))
    before = files(disk.root)

    disk.fill(0)
    new = lake_writers.PARTITIONS[-1]
    for attempt in (
        lambda: lake.write(TABLE_NAME, SMALL, partition_rows(SMALL, 2)),
        lambda: lake.write(TABLE_NAME, LARGE, partition_rows(LARGE, 2)),
        lambda: lake.write(TABLE_NAME, new, partition_rows(new, 2)),
        lambda: lake.quarantine.write(TABLE_NAME, SMALL, [BadRow(reason="r", raw="x" * 9_000)], query="q"),
    ):
        with pytest.raises(LakeUnavailable, match=disk.error_pattern):
            attempt()
        assert files(disk.root) == before
    assert lake.partitions(TABLE_NAME) == sorted([SMALL, LARGE])
    for partition in (SMALL, LARGE):
        assert lake.read(TABLE_NAME, [partition], schema=POSTS_SCHEMA).equals(partition_rows(partition, 1))
        assert not lake.write(TABLE_NAME, partition, partition_rows(partition, 1)).changed  # needs no space

    disk.free()
    for partition in (SMALL, LARGE, new):
        assert lake.write(TABLE_NAME, partition, partition_rows(partition, 2)).changed
        assert lake.read(TABLE_NAME, [partition], schema=POSTS_SCHEMA).equals(partition_rows(partition, 2))


def ingest_to_a_full_disk(disk: Disk) -> None:
    """Partitions without space fail, one by one, and stay unchanged; the next run writes all of them."""
    with restated_sandbox() as sandbox:
        assert ingest_all(disk.root, PUBLISHED, base_url=sandbox.base_url).failed == []

        sandbox.restate(1)
        before = files(disk.root)
        disk.fill(FREE_BYTES)
        result = ingest_all(disk.root, PUBLISHED, base_url=sandbox.base_url)
        assert result.failed
        for failed in result.failed:
            assert isinstance(failed, FailedPartition)
            with pytest.raises(LakeUnavailable, match=disk.error_pattern):
                raise failed.error
        after = files(disk.root)
        assert after.keys() == before.keys()
        assert sum(after[path] != before[path] for path in before) == len(result.changed)
        assert len(result.succeeded) + len(result.failed) == len(INGESTED_PARTITIONS)

        disk.free()
        assert ingest_all(disk.root, PUBLISHED, base_url=sandbox.base_url).failed == []
        for each in INGESTED_PARTITIONS:
            rows = stored_rows(disk.root, PUBLISHED.name, each.day, each.instance_id or "")
            assert rows == sandbox.rows_by_version[1][PUBLISHED.name, each]


def write_to_a_read_only_disk(disk: Disk) -> None:
    """Reads succeed, writes fail with an error that names a fix, and all files stay unchanged."""
    lake = Lake(str(disk.root))
    lake.write(TABLE_NAME, SMALL, partition_rows(SMALL, 1))
    before = files(disk.root)
    subprocess.run(["mount", "-o", "remount,ro", disk.root.parent], check=True)
    for attempt in (
        lambda: lake.write(TABLE_NAME, SMALL, partition_rows(SMALL, 2)),
        lambda: lake.write(TABLE_NAME, LARGE, partition_rows(LARGE, 2)),
        lake.check_writable,
    ):
        with pytest.raises(LakeUnavailable, match="Read-only file system.*may be written by"):
            attempt()
    assert lake.read(TABLE_NAME, [SMALL], schema=POSTS_SCHEMA).equals(partition_rows(SMALL, 1))
    assert files(disk.root) == before
    subprocess.run(["mount", "-o", "remount,rw", disk.root.parent], check=True)
    assert lake.write(TABLE_NAME, SMALL, partition_rows(SMALL, 2)).changed


SCENARIOS = {
    "tmpfs": (write_to_a_full_disk, ingest_to_a_full_disk, write_to_a_read_only_disk),
    "limit": (write_to_a_full_disk, ingest_to_a_full_disk),
}


def main(kind: str, directory: str, scenario: str) -> None:
    """Run one scenario on a disk of a kind."""
    with small_disk(kind, Path(directory)) as disk:
        next(each for each in SCENARIOS[kind] if each.__name__ == scenario)(disk)


if __name__ == "__main__":
    main(*sys.argv[1:])
