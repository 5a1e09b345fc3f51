import asyncio
import errno
import os
import re
import shutil
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from later_reporting_dagster.lake import (
    POST_COLUMNS,
    POSTS_SCHEMA,
    Lake,
    LakeUnavailable,
    Table,
    open_dataset,
    partition_path,
)
from later_reporting_dagster.lake.open_storage import STALE_AFTER_SECONDS, _ObjectStorage, open_storage
from later_reporting_dagster.lake.storage import Storage, without_credentials
from tests.conftest import files
from tests.lake.conftest import DAY, BucketFileSystem, rows
from tests.services import WAIT_SECONDS


class SlowFileSystem(AsyncFileSystem):
    """An object store whose puts take a while, in the event loop that fsspec has in a thread of its own."""

    cachable = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.files: dict[str, bytes] = {}
        self.begun, self.interrupted = threading.Event(), threading.Event()

    async def _pipe_file(self, path: str, value: bytes, **_: Any) -> None:
        self.begun.set()
        await asyncio.to_thread(self.interrupted.wait, WAIT_SECONDS)
        await asyncio.sleep(0.3)
        self.files[path] = value


def test_interrupt_of_a_write_waits_until_the_file_is_there() -> None:
    """Else a run would end, and the file appear afterwards."""
    filesystem = SlowFileSystem()
    storage = _ObjectStorage(filesystem, "bucket", root="slow://bucket", options={})

    def interrupt() -> None:
        filesystem.begun.wait(WAIT_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)
        filesystem.interrupted.set()

    sender = threading.Thread(target=interrupt)
    others = signal.signal(signal.SIGINT, signal.default_int_handler)  # Dagster leaves one of its own behind
    sender.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            storage.write("a/file", b"a")
    finally:
        signal.signal(signal.SIGINT, others)
    assert filesystem.files == {"bucket/a/file": b"a"}
    sender.join()


def test_interrupt_of_the_start_of_a_thread_waits_until_the_file_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem = SlowFileSystem()
    storage = _ObjectStorage(filesystem, "bucket", root="slow://bucket", options={})
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if threading.current_thread() is threading.main_thread():
            filesystem.begun.wait(WAIT_SECONDS)
            filesystem.interrupted.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        storage.write("a/file", b"a")
    assert filesystem.files == {"bucket/a/file": b"a"}


def test_interrupted_write_leaves_no_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(stage: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_storage(str(tmp_path), {}).write("a/file", b"a")
    assert files(tmp_path) == {}


def test_write_syncs_the_file_before_its_rename_and_directories_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[tuple[str, str]] = []
    sync, replace, root = os.fsync, Path.replace, tmp_path / "new" / "lake"

    def log_sync(descriptor: int) -> None:
        log.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path).as_posix()))
        sync(descriptor)

    def log_replace(stage: Path, target: Path) -> Path:
        log.append(("rename", stage.relative_to(tmp_path).as_posix()))
        return replace(stage, target)

    monkeypatch.setattr(os, "fsync", log_sync)
    monkeypatch.setattr(Path, "replace", log_replace)
    open_storage(str(root), {}).write("t/a/file", b"a")

    # The parents of the root, the file, its rename, then each directory up to the root.
    (stage,) = (path for action, path in log if action == "rename")
    assert Path(stage).parent.as_posix() == "new/lake/t/a"
    directories = [("sync", f"new/lake/{path}".rstrip("/")) for path in ("t/a", "t", "")]
    assert log == [("sync", "."), ("sync", "new"), ("sync", stage), ("rename", stage), *directories]


@pytest.mark.parametrize(("number", "written"), [(errno.EIO, False), (errno.EINVAL, True)])
def test_failed_sync_of_a_directory_is_an_error_unless_unsupported(
    number: int, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path / "new"))

    def fail_for_directories(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail_for_directories)
    with nullcontext() if written else pytest.raises(LakeUnavailable, match=r"cannot write .*Input/output.*Next step"):
        assert lake.write("posts", DAY, rows(3)).rows == 3


NEXT_STEP = (
    "Next step: check that the lake's root can be reached with these settings, has free space, and may be written by"
    " this user; then run again"
)


ACTIONS: dict[str, Callable[[Storage], object]] = {
    "read": lambda storage: storage.read("t/file"),
    "write": lambda storage: storage.write("t/file", b"data"),
    "remove": lambda storage: storage.remove("t/file"),
    "list": lambda storage: storage.named_files(["t"], "file"),
    "list files": lambda storage: storage.files_in("t"),
    "inspect": lambda storage: storage.versions(["t/file"]),
}


@pytest.mark.parametrize("action", sorted(ACTIONS.keys() - {"inspect"}))  # such a file does not exist
def test_failed_action_on_a_local_file_names_it(action: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("", encoding="utf-8")
    location = tmp_path / "t" / "file"
    with pytest.raises(LakeUnavailable) as caught:
        ACTIONS[action](open_storage(str(tmp_path), {}))
    message = str(caught.value)
    is_list = action.startswith("list")
    assert message.startswith(
        f"cannot {'list' if is_list else action} {location.parent if is_list else location}: [Errno "
    )
    assert message.endswith(NEXT_STEP)


@pytest.mark.parametrize("action", ACTIONS)
def test_failed_action_on_a_remote_file_names_it_without_credentials(
    action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage("bucket://user:hunter2@host/lake/", {})

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError

    for name in ("cat_file", "pipe_file", "rm_file", "find"):
        monkeypatch.setattr(BucketFileSystem, name, refuse)
    with pytest.raises(LakeUnavailable) as caught:
        ACTIONS[action](storage)
    reported = "list" if action.startswith(("list", "inspect")) else action
    path = "t" if action.startswith("list") else "t/file"
    assert str(caught.value) == f"cannot {reported} bucket://host/lake/{path}: RuntimeError. {NEXT_STEP}"


def test_missing_root_is_not_created_again(tmp_path: Path) -> None:
    root = tmp_path / "mounted"
    lake = Lake(str(root))
    lake.check_writable()
    shutil.rmtree(root)
    with pytest.raises(LakeUnavailable, match="the lake's root no longer exists"):
        lake.write("posts", DAY, rows())
    with pytest.raises(LakeUnavailable, match="no longer exists"):
        lake.check_writable()
    assert not root.exists()


@pytest.mark.parametrize(("age", "is_kept"), [(0, True), (STALE_AFTER_SECONDS + 60, False)])
def test_stage_is_never_read_and_removed_when_stale(age: int, is_kept: bool, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    stage = Path(lake.url("posts", DAY)).with_name(f".stage-{int(time.time()) - age}-0123")
    stage.parent.mkdir(parents=True)
    stage.write_bytes(b"half a fi")
    assert lake.partitions("posts") == []
    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).num_rows == 0

    lake.write("posts", DAY, rows())

    assert stage.exists() == is_kept
    assert lake.partitions("posts") == [DAY]
    assert open_dataset(lake, Table("posts", POST_COLUMNS)).count_rows() == 20


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        ("nosuch://bucket/lake", "nosuch"),
        (" ", "root is empty"),
        ("simplecache::memory://u:hunter2@b/l", "neither on a local disk nor in an object store"),
        ("dir::memory://b", "neither on a local disk nor in an object store"),
    ],
)
def test_invalid_root_is_rejected(root: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Lake(root)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("/data/a@b?c", "/data/a@b?c"),
        ("s3://bucket/lake", "s3://bucket/lake"),
        ("sftp://user:pass@host/lake", "sftp://host/lake"),
        ("sftp://user:p/a@s:s@host/lake", "sftp://host/lake"),
        ("sftp://user:p://s@host/lake", "sftp://host/lake"),
        ("ftp://token@host/lake", "ftp://host/lake"),
        ("https://host/lake?sig=secret", "https://host/lake"),
        ("abfs://container@account.dfs.core.windows.net/lake", "abfs://container@account.dfs.core.windows.net/lake"),
    ],
)
def test_without_credentials(root: str, expected: str) -> None:
    assert without_credentials(root) == expected


@pytest.mark.parametrize(
    ("option", "denial", "redacted"),
    [
        ("http://user:hunter2@proxy:3128", "http://user:hunter2@proxy:3128 refused", "http://proxy:3128 refused"),
        ("http://user:hunter2@proxy:3128", "proxy refused user with hunter2", "proxy refused … with …"),
        ("http://user:p%2Fw@proxy:3128", "proxy refused p/w", "proxy refused …"),
        ("http://t0ken@proxy", "proxy refused t0ken", "proxy refused …"),
        ("https://host/lake?sig=s3cr3t", "https://host/lake?sig=s3cr3t refused", "https://host/lake refused"),
        ("https://host/lake?sig=s3cr3t", "s3cr3t refused", "… refused"),
        ("Url=http://host;Key=s3cr3t", "Url=http://host;Key=s3cr3t refused", "… refused"),
        ("s3cr3t", "memory://user:pa55word@bucket/lake, pa55word, s3cr3t", "memory://bucket/lake, …, …"),
    ],
)
def test_credentials_in_urls_of_options_are_redacted(
    option: str, denial: str, redacted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake("memory://user:pa55word@bucket/lake", storage_options={"client": {"proxies": [option]}})

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError(denial)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(LakeUnavailable, match=f": {re.escape(redacted)}\\. Next step") as caught:
        lake.write("posts", DAY, rows())
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "pa55word" not in f"{caught.value} {lake!r}"
    assert lake.url("posts", DAY) == f"memory://bucket/lake/{partition_path('posts', DAY)}"


PATHS = ["posts/date=2024-01-01/a", "posts/date=2024-01-02/a", "posts/date=2024-01-02/b"]


@pytest.mark.parametrize("kind", ["file", "bucket"])
def test_versions_of_existing_files_change_with_them(kind: str, tmp_path: Path) -> None:
    storage = open_storage(f"{kind}://{tmp_path}", {})
    assert storage.versions(PATHS) == {}
    for path in PATHS[1:]:
        storage.write(path, b"one")
    before = storage.versions(PATHS)
    assert before.keys() == set(PATHS[1:])
    assert [version.bytes for version in before.values()] == [3, 3]
    assert all(version.identity for version in before.values())
    assert storage.versions(PATHS) == before
    assert storage.versions(PATHS[1:2]) == {PATHS[1]: before[PATHS[1]]}

    # Another size, because two writes may have the same modification time.
    storage.write(PATHS[1], b"three")
    after = storage.versions(PATHS)
    assert after[PATHS[1]].identity != before[PATHS[1]].identity
    assert after[PATHS[2]] == before[PATHS[2]]


AWARE = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("details", "identity"),
    [
        ({"ETag": '"abc"', "LastModified": AWARE}, '3-"abc"'),  # s3fs
        ({"etag": "CJ=", "mtime": AWARE, "md5Hash": "m"}, "3-CJ="),  # gcsfs
        ({"etag": '"0x8D"', "last_modified": AWARE, "creation_time": AWARE}, '3-"0x8D"'),  # adlfs
        ({"ETag": "", "mtime": 7}, None),
    ],
)
def test_version_from_the_keys_of_each_filesystem(
    details: dict[str, Any], identity: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage("memory://versions", {})
    found = {f"/versions/{PATHS[0]}": {"size": 3, **details}}
    monkeypatch.setattr(MemoryFileSystem, "find", lambda *_args, **_kwargs: found)
    (version,) = storage.versions(PATHS[:1]).values()
    assert version == (3, identity)


@pytest.mark.parametrize(
    ("root", "module", "package"),
    [("s3://b/l", "s3fs", "s3fs"), ("abfs://b/l", "adlfs", "adlfs"), ("gs://b/l", "gcsfs.core", "gcsfs")],
)
def test_missing_package_of_an_object_store_is_named(
    root: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # importing it fails
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, root.partition("://")[0], raising=False)
    with pytest.raises(ValueError, match=f"pip install {package}\\."):
        Lake(root)
