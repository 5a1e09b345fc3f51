"""A disk that is full, read-only, gone or not ours: nothing is lost, and the error says what to do."""

import os
import re
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
from tests.conftest import acting_as, files, stored_rows
from tests.crash.landings import BOX, DAILY, PUBLISHED, SOURCES, landed, restated_service
from tests.crash.nursery import REPOSITORY
from tests.crash.small_disk import SCENARIOS, SMALL
from tests.crash.writes import ASSET, stages, version_of

NOBODY = 65_534
# What gives a process mounts of its own: as anyone where users may have namespaces, else as root.
MOUNTS_OF_ITS_OWN = (("unshare", "--map-root-user", "--mount"), ("unshare", "--mount"))


def can_mount(prefix: tuple[str, ...]) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        mount = [*prefix, "mount", "-t", "tmpfs", "none", directory]
        return bool(shutil.which(prefix[0])) and subprocess.run(mount, capture_output=True, check=False).returncode == 0


def disks() -> list[tuple[tuple[str, ...], str, str]]:
    """What this machine lets its users do: a limit of file sizes always, and a disk of one's own mostly."""
    found: list[tuple[tuple[str, ...], str]] = [((), "limit")]
    found += [(prefix, "tmpfs") for prefix in MOUNTS_OF_ITS_OWN if can_mount(prefix)][:1]
    return [(prefix, kind, scenario.__name__) for prefix, kind in found for scenario in SCENARIOS[kind]]


@pytest.mark.parametrize(("prefix", "kind", "scenario"), disks(), ids=lambda value: value if value else "")
def test_nothing_is_lost_on_a_disk_that(prefix: tuple[str, ...], kind: str, scenario: str, tmp_path: Path) -> None:
    played = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.crash.small_disk", kind, str(tmp_path), scenario],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 0, played.stderr


def powerless() -> AbstractContextManager[None]:
    """Permission bits do not bind root: where this is root, the block runs as nobody."""
    return acting_as(NOBODY) if os.geteuid() == 0 else nullcontext()


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A directory that everyone may enter, as those of tests are not."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_a_root_without_the_right_to_write_is_read_and_left_as_it_is(reachable: Path) -> None:
    root = reachable / "lake"
    lake = Lake(str(root))
    lake.write(ASSET, SMALL, version_of(SMALL, 1))
    before = files(root)
    directories = [path for path in root.rglob("*") if path.is_dir()]
    for directory in (root, *directories):
        directory.chmod(0o555)
    try:
        with powerless():
            for attempt in (
                lambda: lake.write(ASSET, SMALL, version_of(SMALL, 2)),
                lambda: Lake(str(root / "deeper")).check_writable(),
                lake.check_writable,
            ):
                with pytest.raises(LakeUnavailable, match="Permission denied.*the rights it lacks there, or name"):
                    attempt()
            assert lake.read(ASSET, [SMALL], schema=POSTS_SCHEMA).equals(version_of(SMALL, 1))
    finally:
        for directory in (root, *directories):
            directory.chmod(0o755)
    assert files(root) == before
    assert lake.write(ASSET, SMALL, version_of(SMALL, 2)).changed


def test_a_root_that_may_not_even_be_looked_at_is_unavailable_and_never_empty(reachable: Path) -> None:
    root = reachable / "lake"
    lake = Lake(str(root))
    lake.write(ASSET, SMALL, version_of(SMALL, 1))
    root.chmod(0)
    try:
        with powerless():
            for attempt in (
                lambda: lake.read(ASSET, [SMALL], schema=POSTS_SCHEMA),
                lambda: lake.partitions(ASSET),
                lambda: lake.facts(ASSET, SMALL),
                lambda: lake.write(ASSET, SMALL, version_of(SMALL, 2)),
            ):
                with pytest.raises(LakeUnavailable, match="Permission denied.*the rights it lacks there, or name"):
                    attempt()
    finally:
        root.chmod(stat.S_IRWXU)
    assert lake.read(ASSET, [SMALL], schema=POSTS_SCHEMA).equals(version_of(SMALL, 1))


def test_a_root_that_vanishes_amid_a_run_fails_the_rest_of_it_and_nothing_is_lost(tmp_path: Path) -> None:
    """As a disk does that is unmounted: the run must not go on in the empty directory below it."""
    root, away = tmp_path / "lake", tmp_path / "away"
    with restated_service() as service:
        assert landed(root, *SOURCES, base_url=service.base_url).failed == []
        before = files(root)
        service.restate(1)
        service.when_asked_for(DAILY, lambda: root.rename(away))
        outcome = landed(root, *SOURCES, base_url=service.base_url)

        assert len(outcome.good) == len(outcome.failed) == len(BOX)
        for failed in outcome.failed:
            assert isinstance(failed.error, LakeUnavailable)
            assert "check that the lake's root is there and mounted" in str(failed.error)
        assert not root.exists()
        after = files(away)
        assert after.keys() == before.keys()
        assert {path.partition("/")[0] for path in before if after[path] != before[path]} == {PUBLISHED.asset}

        away.rename(root)
        assert landed(root, *SOURCES, base_url=service.base_url).failed == []
        for (asset, each), rows in service.answers[1].items():
            assert stored_rows(root, asset, each.day, each.instance_id or "") == rows


# Runs as root up to the write, for another user may not be able to read Python's own files.
WRITER = """
import os, sys
from later_reporting_dagster.lake import Lake
from tests.crash.small_disk import SMALL
from tests.crash.writes import ASSET, version_of

root, group, umask, user = sys.argv[1], *map(int, sys.argv[2:])
Lake("memory://warm").write(ASSET, SMALL, version_of(SMALL, 1))
os.umask(umask)
os.setgroups([group])
os.setgid(user)
os.setuid(user)
lake = Lake(root)
for number in range(20):
    lake.write(ASSET, SMALL, version_of(SMALL, 2 * number + user % 2))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")
def test_users_of_one_group_write_together_where_their_umask_lets_them(reachable: Path) -> None:
    root, group = reachable / "lake", 54_320
    root.mkdir()
    os.chown(root, 0, group)
    root.chmod(0o2775)

    def errors_of_writers(umask: int) -> list[str]:
        command = [sys.executable, "-c", WRITER, str(root), str(group), str(umask)]
        users = ("54321", "54322")
        # Coverage's file is not theirs to write.
        env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        writers = [
            subprocess.Popen([*command, user], cwd=REPOSITORY, stderr=subprocess.PIPE, env=env) for user in users
        ]
        return [error for writer in writers if (error := writer.communicate(timeout=120)[1].decode())]

    assert errors_of_writers(0o002) == []
    assert stages(root) == []
    stored = Lake(str(root)).read(ASSET, [SMALL], schema=POSTS_SCHEMA)
    assert any(stored.equals(version_of(SMALL, last)) for last in (38, 39))
    shutil.rmtree(root / ASSET)
    (error,) = errors_of_writers(0o022)
    assert re.search("Permission denied.*give this user the rights it lacks there", error)
