"""A disk that is full: no data is lost, and errors name a fix."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable
from tests.conftest import files
from tests.crash import lake_writers
from tests.crash.lake_writers import TABLE_NAME, partition_rows

pytestmark = pytest.mark.faults

SMALL, LARGE = lake_writers.PARTITIONS[0], lake_writers.PARTITIONS[3]
TOO_LARGE = "File too large.*has free space"


@contextmanager
def files_limited_to(bytes_: int) -> Iterator[None]:
    """Limit the size of the files that this process writes, which fails like a full disk and needs no rights."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk_changes_no_file_and_writes_succeed_after_it_is_freed(tmp_path: Path) -> None:
    root, new = tmp_path / "lake", lake_writers.PARTITIONS[-1]
    lake = Lake(str(root))
    for partition in (SMALL, LARGE):
        lake.write(TABLE_NAME, partition, partition_rows(partition, 1))
    before, quarantined = files(root), lake.quarantine.path_of(TABLE_NAME, SMALL)
    with files_limited_to(0):
        for attempt in (
            lambda: lake.write(TABLE_NAME, SMALL, partition_rows(SMALL, 2)),
            lambda: lake.write(TABLE_NAME, LARGE, partition_rows(LARGE, 2)),
            lambda: lake.write(TABLE_NAME, new, partition_rows(new, 2)),
            lambda: lake.quarantine.write(quarantined, [BadRow(reason="r", raw="x" * 9_000)], query="q"),
        ):
            with pytest.raises(LakeUnavailable, match=TOO_LARGE):
                attempt()
            assert files(root) == before
        for partition in (SMALL, LARGE):
            assert lake.read(TABLE_NAME, [partition], schema=POSTS_SCHEMA).equals(partition_rows(partition, 1))
            assert not lake.write(TABLE_NAME, partition, partition_rows(partition, 1)).changed  # needs no space
    for partition in (SMALL, LARGE, new):
        assert lake.write(TABLE_NAME, partition, partition_rows(partition, 2)).changed
        assert lake.read(TABLE_NAME, [partition], schema=POSTS_SCHEMA).equals(partition_rows(partition, 2))
