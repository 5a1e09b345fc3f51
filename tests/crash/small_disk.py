"""Writes to a disk that is full, and to one that has become read-only, in a process of its own that has such a disk.

    unshare --map-root-user --mount python -m tests.crash.small_disk tmpfs DIRECTORY
    python -m tests.crash.small_disk limit DIRECTORY

The first needs a namespace of its own, in which it mounts a small disk in memory. The second needs nothing: no file may
grow beyond a limit, as on a file system that has one. Ends in peace when all is as it should be.
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
from later_reporting_dagster.ingest.partition_writer import Failed
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable
from tests.conftest import files, stored_rows
from tests.crash import writes
from tests.crash.landings import BOX, PUBLISHED, landed, restated_service
from tests.crash.writes import ASSET, version_of

SIZE = 1_048_576
# Room for a few partitions, and not for all.
LEFT = 24_576
SMALL, LARGE = writes.PARTITIONS[0], writes.PARTITIONS[3]


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that can be filled, and what a full one says."""

    root: Path
    says: str
    fill: Callable[[int], None]
    free: Callable[[], None]


@contextmanager
def small_disk(kind: str, directory: Path) -> Iterator[Disk]:
    """The disk; `fill` leaves about so many bytes."""
    filler = directory / "filler"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(left: int) -> None:
        with filler.open("wb", buffering=0) as file:
            while _free_bytes(directory) > left:
                file.write(bytes(4096))

    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", directory], check=True)
        try:
            yield Disk(directory / "lake", "No space left on device.*free some space", fill, filler.unlink)
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)
    else:
        yield Disk(
            directory / "lake",
            "File too large.*ulimit -f",
            lambda left: resource.setrlimit(resource.RLIMIT_FSIZE, (left // 4, limits[1])),
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
        )


def _free_bytes(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_bsize


def write_to_a_full_disk(disk: Disk) -> None:
    """What stands is untouched, nothing half is left, the error says what to do, and a freed disk takes it all."""
    lake = Lake(str(disk.root))
    for partition in (SMALL, LARGE):
        lake.write(ASSET, partition, version_of(partition, 1))
    before = files(disk.root)

    disk.fill(0)
    new = writes.PARTITIONS[-1]
    for attempt in (
        lambda: lake.write(ASSET, SMALL, version_of(SMALL, 2)),
        lambda: lake.write(ASSET, LARGE, version_of(LARGE, 2)),
        lambda: lake.write(ASSET, new, version_of(new, 2)),
        lambda: lake.quarantine.write(ASSET, SMALL, [BadRow(reason="r", raw="x" * 9_000)], query="q"),
    ):
        with pytest.raises(LakeUnavailable, match=disk.says):
            attempt()
        assert files(disk.root) == before
    assert lake.partitions(ASSET) == sorted([SMALL, LARGE])
    for partition in (SMALL, LARGE):
        assert lake.read(ASSET, [partition], schema=POSTS_SCHEMA).equals(version_of(partition, 1))
        assert not lake.write(ASSET, partition, version_of(partition, 1)).changed  # which needs no room

    disk.free()
    for partition in (SMALL, LARGE, new):
        assert lake.write(ASSET, partition, version_of(partition, 2)).changed
        assert lake.read(ASSET, [partition], schema=POSTS_SCHEMA).equals(version_of(partition, 2))


def land_on_a_full_disk(disk: Disk) -> None:
    """Each partition without room is told as failed, by itself, and stays as it was; the next run lands all."""
    with restated_service() as service:
        assert landed(disk.root, PUBLISHED, base_url=service.base_url).failed == []

        service.restate(1)
        before = files(disk.root)
        disk.fill(LEFT)
        outcome = landed(disk.root, PUBLISHED, base_url=service.base_url)
        assert outcome.failed
        for failed in outcome.failed:
            assert isinstance(failed, Failed)
            with pytest.raises(LakeUnavailable, match=disk.says):
                raise failed.error
        after = files(disk.root)
        assert after.keys() == before.keys()
        assert sum(after[path] != before[path] for path in before) == len(outcome.changed)
        assert len(outcome.good) + len(outcome.failed) == len(BOX)

        disk.free()
        assert landed(disk.root, PUBLISHED, base_url=service.base_url).failed == []
        for each in BOX:
            rows = stored_rows(disk.root, PUBLISHED.asset, each.day, each.instance_id or "")
            assert rows == service.answers[1][PUBLISHED.asset, each]


def write_to_a_read_only_disk(disk: Disk) -> None:
    """It is read as before, and the error of a write says what it needs."""
    lake = Lake(str(disk.root))
    lake.write(ASSET, SMALL, version_of(SMALL, 1))
    before = files(disk.root)
    subprocess.run(["mount", "-o", "remount,ro", disk.root.parent], check=True)
    for attempt in (
        lambda: lake.write(ASSET, SMALL, version_of(SMALL, 2)),
        lambda: lake.write(ASSET, LARGE, version_of(LARGE, 2)),
        lake.check_writable,
    ):
        with pytest.raises(LakeUnavailable, match="Read-only file system.*rights it lacks there, or name another"):
            attempt()
    assert lake.read(ASSET, [SMALL], schema=POSTS_SCHEMA).equals(version_of(SMALL, 1))
    assert files(disk.root) == before
    subprocess.run(["mount", "-o", "remount,rw", disk.root.parent], check=True)
    assert lake.write(ASSET, SMALL, version_of(SMALL, 2)).changed


SCENARIOS = {
    "tmpfs": (write_to_a_full_disk, land_on_a_full_disk, write_to_a_read_only_disk),
    "limit": (write_to_a_full_disk, land_on_a_full_disk),
}


def main(kind: str, directory: str, scenario: str) -> None:
    """Plays one scenario on a disk of that kind."""
    with small_disk(kind, Path(directory)) as disk:
        next(each for each in SCENARIOS[kind] if each.__name__ == scenario)(disk)


if __name__ == "__main__":
    main(*sys.argv[1:])
