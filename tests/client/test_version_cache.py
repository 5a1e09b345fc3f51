"""What a service was last heard to speak is known to the next process, and to nobody else."""

import asyncio
import logging
import os
import stat
import tempfile
from pathlib import Path

import pytest

from later_reporting_dagster.client import RateLimiter, RevisionMemory, remembered_revision_path, shared_state_path
from later_reporting_dagster.client import rate_limiter as limiter_module
from later_reporting_dagster.contract import CURSOR, PAGED
from tests.client.service import FakeTime
from tests.conftest import acting_as, files


def test_it_lies_beside_the_shared_rate_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = remembered_revision_path("https://example.com")
    assert path.parent == shared_state_path("https://example.com").parent
    assert path.name.startswith("revision-")
    assert path != remembered_revision_path("https://example.org")


def test_the_next_process_knows_and_only_this_user(tmp_path: Path) -> None:
    path = tmp_path / "no" / "folders" / "yet" / "revision"
    RevisionMemory(path).keep(CURSOR)
    assert RevisionMemory(path).recall() is CURSOR
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    RevisionMemory(path).keep(PAGED)
    assert RevisionMemory(path).recall() is PAGED


@pytest.mark.parametrize("content", [b"", b"page", b"\xff\xfe"])
def test_what_names_no_revision_is_as_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "revision"
    path.write_bytes(content)
    assert RevisionMemory(path).recall() is None


def test_a_file_that_cannot_be_written_costs_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    memory = RevisionMemory(tmp_path / "file" / "revision")
    with caplog.at_level(logging.INFO):
        memory.keep(CURSOR)
    assert memory.recall() is CURSOR
    assert "the revision of the API is not kept for other processes" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")
@pytest.mark.parametrize("place", ["no home", "folder of another user", "linked folder", "folder open to others"])
def test_another_user_cannot_have_files_overwritten_by_planting_links(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, time: FakeTime
) -> None:
    victim, other = 54_321, 54_322
    with tempfile.TemporaryDirectory() as directory:
        shared, home = Path(directory) / "shared", Path(directory) / "home"
        monkeypatch.setattr(tempfile, "tempdir", str(shared))
        monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
        monkeypatch.setenv("HOME", str(home))
        rate, revision = shared_state_path("https://a"), remembered_revision_path("https://a")
        folder = rate.parent
        if place == "no home":
            monkeypatch.delenv("HOME")
            monkeypatch.delenv("XDG_CACHE_HOME")
            folder = shared / f"user-{victim}" / folder.name
        Path(directory).chmod(0o755)
        shared.mkdir()
        shared.chmod(0o1777)
        home.mkdir()
        os.chown(home, victim, victim)
        with acting_as(victim):
            for name in (rate.name, revision.name):
                (home / name).write_text("precious")
            if place == "folder open to others":
                folder.mkdir()
                folder.chmod(0o777)
        with acting_as(other):
            if place == "linked folder":
                folder.symlink_to(home)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                for name in (rate.name, revision.name):
                    (folder / name).symlink_to(home / name)
        before = files(home)
        limiter_module._warn_once.cache_clear()
        with acting_as(victim):
            for _ in range(2):
                state = shared_state_path("https://a")
                limiter = RateLimiter(requests=1, state_path=state, clock=time, sleep=time.sleep)
                asyncio.run(limiter.acquire())
                assert asyncio.run(limiter.acquire()) > 60
                memory = RevisionMemory(remembered_revision_path("https://a"))
                memory.keep(CURSOR)
                assert memory.recall() is CURSOR
        assert files(home) == before
        # Of a state that cannot be used each limiter tells; that there is no place for one is told once.
        told = caplog.text.count("the rate limit is not shared with other processes")
        assert told == (1 if place == "no home" else 2)
