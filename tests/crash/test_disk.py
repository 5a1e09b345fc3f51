"""A disk that is full or unmounted: no data is lost, and errors name a fix."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable
from tests.conftest import files, stored_rows
from tests.crash import lake_writers
from tests.crash.lake_writers import TABLE_NAME, partition_rows
from tests.crash.restated_sandbox import (
    DAILY,
    INGESTED_PARTITIONS,
    PUBLISHED,
    ingest_days,
    ingest_without_failures,
    restated_sandbox,
)

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
    before = files(root)
    with files_limited_to(0):
        for attempt in (
            lambda: lake.write(TABLE_NAME, SMALL, partition_rows(SMALL, 2)),
            lambda: lake.write(TABLE_NAME, LARGE, partition_rows(LARGE, 2)),
            lambda: lake.write(TABLE_NAME, new, partition_rows(new, 2)),
            lambda: lake.quarantine.write(TABLE_NAME, SMALL, [BadRow(reason="r", raw="x" * 9_000)], query="q"),
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


def test_ingest_to_a_full_disk_fails_single_partitions_which_the_next_run_writes(tmp_path: Path) -> None:
    root = tmp_path / "lake"
    with restated_sandbox() as sandbox:
        assert not ingest_days(root, PUBLISHED, base_url=sandbox.base_url).failed
        sandbox.restate(1)
        before = files(root)
        with files_limited_to(6_144):  # enough for some partitions, but not for all
            result = ingest_days(root, PUBLISHED, base_url=sandbox.base_url)
        assert result.failed
        for failed in result.failed.values():
            with pytest.raises(LakeUnavailable, match=TOO_LARGE):
                raise failed.error
        after = files(root)
        assert after.keys() == before.keys()
        changed = [each for each in result.written.values() if each.file.changed]
        assert sum(after[path] != before[path] for path in before) == len(changed)
        assert not ingest_days(root, PUBLISHED, base_url=sandbox.base_url).failed
        for each in INGESTED_PARTITIONS:
            rows = stored_rows(root, PUBLISHED.name, each.day, each.instance_id or "")
            assert rows == sandbox.rows_by_version[1][PUBLISHED.name, each]


def test_root_that_is_unmounted_during_a_run_fails_the_remaining_partitions(tmp_path: Path) -> None:
    """The run must not continue in the empty mount point."""
    root, unmounted = tmp_path / "lake", tmp_path / "unmounted"
    with restated_sandbox() as sandbox:
        ingest_without_failures(str(root), base_url=sandbox.base_url)
        before = files(root)
        sandbox.restate(1)
        sandbox.on_first_request(DAILY, lambda: root.rename(unmounted))
        result = ingest_days(root, DAILY, base_url=sandbox.base_url)

        assert len(result.failed) == len(INGESTED_PARTITIONS)
        for failed in result.failed.values():
            assert isinstance(failed.error, LakeUnavailable)
            assert "check that the lake's root can be reached" in str(failed.error)
        assert not root.exists()
        assert files(unmounted) == before

        unmounted.rename(root)
        ingest_without_failures(str(root), base_url=sandbox.base_url)
        for (table_name, each), rows in sandbox.rows_by_version[1].items():
            assert stored_rows(root, table_name, each.day, each.instance_id or "") == rows
