"""Tests of the version cache: processes of one user share it, and other users cannot interfere."""

import asyncio
import logging
import os
import stat
import tempfile
from pathlib import Path

import pytest

from later_reporting_dagster.client import (
    RateLimiter,
    VersionCache,
    rate_limit_state_path,
    rate_limit_store,
    version_cache_path,
)
from later_reporting_dagster.client import file_rate_limit_store as file_store_module
from later_reporting_dagster.contract import CURSOR, PAGED
from tests.client.scripted_api import FakeTime
from tests.conftest import as_user, files


def test_cache_file_is_in_the_folder_of_the_shared_rate_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = version_cache_path("https://example.com")
    assert path.parent == rate_limit_state_path("https://example.com").parent
    assert path.name.startswith("version-")
    assert path != version_cache_path("https://example.org")


def test_version_is_stored_for_other_processes_of_the_user_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "version"
    VersionCache(path).store(CURSOR)
    assert VersionCache(path).load() is CURSOR
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    VersionCache(path).store(PAGED)
    assert VersionCache(path).load() is PAGED


@pytest.mark.parametrize("content", [b"", b"page", b"\xff\xfe"])
def test_file_without_a_version_name_is_ignored(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "version"
    path.write_bytes(content)
    assert VersionCache(path).load() is None


def test_file_that_cannot_be_written_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    cache = VersionCache(tmp_path / "file" / "version")
    with caplog.at_level(logging.INFO):
        cache.store(CURSOR)
    assert cache.load() is CURSOR
    assert "the API version is not cached for other processes" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")
@pytest.mark.parametrize("scenario", ["no home", "folder of another user", "linked folder", "folder open to others"])
def test_links_of_another_user_cannot_redirect_writes(
    scenario: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, time: FakeTime
) -> None:
    victim, other = 54_321, 54_322
    with tempfile.TemporaryDirectory() as directory:
        shared, home = Path(directory) / "shared", Path(directory) / "home"
        monkeypatch.setattr(tempfile, "tempdir", str(shared))
        monkeypatch.setenv("XDG_CACHE_HOME", str(shared))
        monkeypatch.setenv("HOME", str(home))
        rate, version = rate_limit_state_path("https://a"), version_cache_path("https://a")
        folder = rate.parent
        if scenario == "no home":
            monkeypatch.delenv("HOME")
            monkeypatch.delenv("XDG_CACHE_HOME")
            folder = shared / f"user-{victim}" / folder.name
        Path(directory).chmod(0o755)
        shared.mkdir()
        shared.chmod(0o1777)
        home.mkdir()
        os.chown(home, victim, victim)
        with as_user(victim):
            for name in (rate.name, version.name):
                (home / name).write_text("precious")
            if scenario == "folder open to others":
                folder.mkdir()
                folder.chmod(0o777)
        with as_user(other):
            if scenario == "linked folder":
                folder.symlink_to(home)
            else:
                folder.mkdir(parents=True, exist_ok=True)
                for name in (rate.name, version.name):
                    (folder / name).symlink_to(home / name)
        before = files(home)
        file_store_module._warn_once.cache_clear()
        with as_user(victim):
            for _ in range(2):
                store = rate_limit_store("", base_url="https://a", clock=time)
                limiter = RateLimiter(requests=1, store=store, clock=time, sleep=time.sleep)
                asyncio.run(limiter.acquire())
                assert asyncio.run(limiter.acquire()) > 60
                cache = VersionCache(version_cache_path("https://a"))
                cache.store(CURSOR)
                assert cache.load() is CURSOR
        assert files(home) == before
        # A missing cache folder is logged once for all limiters, an unusable file by each of the two limiters.
        warnings = caplog.text.count("the rate limit is not shared with other processes")
        assert warnings == (1 if scenario == "no home" else 2)
