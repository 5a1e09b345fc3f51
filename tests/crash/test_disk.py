"""A disk that is full, read-only, unmounted or without permissions: no data is lost, and errors name a fix."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable
from tests.conftest import as_user, files, stored_rows
from tests.crash.disk_scenarios import SCENARIOS, SMALL
from tests.crash.fork_server import REPOSITORY
from tests.crash.lake_writers import TABLE_NAME, partition_rows
from tests.crash.restated_sandbox import DAILY, INGESTED_PARTITIONS, PUBLISHED, RAW_TABLES, ingest_all, restated_sandbox

pytestmark = pytest.mark.faults

NOBODY_UID = 65_534
# Commands that start a process in its own mount namespace: for all users, if user namespaces are allowed; for root.
MOUNT_NAMESPACES = (("unshare", "--map-root-user", "--mount"), ("unshare", "--mount"))


def can_mount(prefix: tuple[str, ...]) -> bool:
    """Return whether a process can mount a tmpfs if its command has a prefix."""
    with tempfile.TemporaryDirectory() as directory:
        mount = [*prefix, "mount", "-t", "tmpfs", "none", directory]
        return bool(shutil.which(prefix[0])) and subprocess.run(mount, capture_output=True, check=False).returncode == 0


def available_scenarios() -> list[tuple[tuple[str, ...], str, str]]:
    """Return the command prefix, kind of disk and name of each scenario that is possible on this machine."""
    kinds: list[tuple[tuple[str, ...], str]] = [((), "limit")]
    kinds += [(prefix, "tmpfs") for prefix in MOUNT_NAMESPACES if can_mount(prefix)][:1]
    return [(prefix, kind, scenario.__name__) for prefix, kind in kinds for scenario in SCENARIOS[kind]]


@pytest.mark.parametrize(
    ("prefix", "kind", "scenario"), available_scenarios(), ids=lambda value: value if value else ""
)
def test_lake_survives_disk_scenario(prefix: tuple[str, ...], kind: str, scenario: str, tmp_path: Path) -> None:
    process = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.crash.disk_scenarios", kind, str(tmp_path), scenario],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr


def without_root_rights() -> AbstractContextManager[None]:
    """Run a block as the user nobody if this process is root, which ignores permission bits."""
    return as_user(NOBODY_UID) if os.geteuid() == 0 else nullcontext()


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that all users can enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_root_without_write_permission_can_be_read_and_stays_unchanged(public_directory: Path) -> None:
    root = public_directory / "lake"
    lake = Lake(str(root))
    lake.write(TABLE_NAME, SMALL, partition_rows(SMALL, 1))
    before = files(root)
    directories = [path for path in root.rglob("*") if path.is_dir()]
    for directory in (root, *directories):
        directory.chmod(0o555)
    try:
        with without_root_rights():
            for attempt in (
                lambda: lake.write(TABLE_NAME, SMALL, partition_rows(SMALL, 2)),
                lambda: Lake(str(root / "deeper")).check_writable(),
                lake.check_writable,
            ):
                with pytest.raises(LakeUnavailable, match="Permission denied.*may be written by this user"):
                    attempt()
            assert lake.read(TABLE_NAME, [SMALL], schema=POSTS_SCHEMA).equals(partition_rows(SMALL, 1))
    finally:
        for directory in (root, *directories):
            directory.chmod(0o755)
    assert files(root) == before
    assert lake.write(TABLE_NAME, SMALL, partition_rows(SMALL, 2)).changed


def test_root_without_read_permission_raises_instead_of_being_empty(public_directory: Path) -> None:
    root = public_directory / "lake"
    lake = Lake(str(root))
    lake.write(TABLE_NAME, SMALL, partition_rows(SMALL, 1))
    root.chmod(0)
    try:
        with without_root_rights():
            for attempt in (
                lambda: lake.read(TABLE_NAME, [SMALL], schema=POSTS_SCHEMA),
                lambda: lake.partitions(TABLE_NAME),
                lambda: lake.read_metadata(TABLE_NAME, SMALL),
                lambda: lake.write(TABLE_NAME, SMALL, partition_rows(SMALL, 2)),
            ):
                with pytest.raises(LakeUnavailable, match="Permission denied.*may be written by this user"):
                    attempt()
    finally:
        root.chmod(stat.S_IRWXU)
    assert lake.read(TABLE_NAME, [SMALL], schema=POSTS_SCHEMA).equals(partition_rows(SMALL, 1))


def test_root_that_is_unmounted_during_a_run_fails_the_remaining_partitions(tmp_path: Path) -> None:
    """The run must not continue in the empty mount point."""
    root, unmounted = tmp_path / "lake", tmp_path / "unmounted"
    with restated_sandbox() as sandbox:
        assert ingest_all(root, *RAW_TABLES, base_url=sandbox.base_url).failed == []
        before = files(root)
        sandbox.restate(1)
        sandbox.on_first_request(DAILY, lambda: root.rename(unmounted))
        result = ingest_all(root, *RAW_TABLES, base_url=sandbox.base_url)

        assert len(result.succeeded) == len(result.failed) == len(INGESTED_PARTITIONS)
        for failed in result.failed:
            assert isinstance(failed.error, LakeUnavailable)
            assert "check that the lake's root can be reached" in str(failed.error)
        assert not root.exists()
        after = files(unmounted)
        assert after.keys() == before.keys()
        assert {path.partition("/")[0] for path in before if after[path] != before[path]} == {PUBLISHED.name}

        unmounted.rename(root)
        assert ingest_all(root, *RAW_TABLES, base_url=sandbox.base_url).failed == []
        for (table_name, each), rows in sandbox.rows_by_version[1].items():
            assert stored_rows(root, table_name, each.day, each.instance_id or "") == rows
