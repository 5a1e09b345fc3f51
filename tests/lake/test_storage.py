import errno
import os
import re
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable, Partition, partition_path
from later_reporting_dagster.lake.storage import STALE_AFTER_SECONDS, Storage, open_storage, without_credentials
from tests.lake.conftest import DAY, BucketFileSystem, MovingFileSystem, UnversionedFileSystem, files_of, rows


def failing(number: int) -> Callable[..., Any]:
    """Return a function that raises the `OSError` of this number."""

    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def test_atomic_put_is_one_put_under_the_final_name(monkeypatch: pytest.MonkeyPatch) -> None:
    puts: list[str] = []
    put = MemoryFileSystem.pipe_file

    def remember(self: MemoryFileSystem, path: str, value: bytes) -> None:
        puts.append(path)
        put(self, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", remember)
    Lake("memory://one-put").write("posts", DAY, rows())
    assert puts == [f"/one-put/{partition_path('posts', DAY)}"]


@pytest.mark.parametrize("stop", ["fsync", "rename"])
def test_write_all_with_one_failure_writes_the_others_and_leaves_no_stage(
    stop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(str(tmp_path), {})
    storage.write_all(dict.fromkeys(["a/file", "b/file"], b"old"))
    owner, name = {"fsync": (os, "fsync"), "rename": (Path, "replace")}[stop]
    call, calls = getattr(owner, name), count()
    monkeypatch.setattr(owner, name, lambda *args: failing(errno.EIO)() if next(calls) == 1 else call(*args))

    failed = storage.write_all({f"{each}/file": each.encode() for each in "abc"})

    assert list(failed) == ["b/file"]
    assert files_of(tmp_path) == {"a/file": b"a", "b/file": b"old", "c/file": b"c"}


def test_interrupted_write_all_leaves_no_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Path.replace

    def interrupt(stage: Path, target: Path) -> Path:
        if target.parent.name == "b":
            raise KeyboardInterrupt
        return replace(stage, target)

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_storage(str(tmp_path), {}).write_all({f"{each}/file": each.encode() for each in "abc"})
    assert files_of(tmp_path) == {"a/file": b"a"}


def test_write_all_syncs_files_before_renames_and_directories_after(
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
    storage = open_storage(str(root), {})
    storage.write_all({"t/a/file": b"a", "t/b/file": b"b"})

    # The parent of the root, the files, the rename of each, then each directory up to the root, once.
    stages = [path for action, path in log if action == "rename"]
    assert [Path(stage).parent.as_posix() for stage in stages] == ["new/lake/t/a", "new/lake/t/b"]
    assert log == [
        ("sync", "."),
        ("sync", "new"),
        *(("sync", stage) for stage in stages),
        ("rename", stages[0]),
        ("rename", stages[1]),
        ("sync", "new/lake/t/a"),
        ("sync", "new/lake/t"),
        ("sync", "new/lake"),
        ("sync", "new/lake/t/b"),
    ]


@pytest.mark.parametrize(
    ("number", "written"), [(errno.EIO, False), (errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EBADF, True)]
)
def test_failed_sync_of_a_directory_is_an_error_unless_unsupported(
    number: int, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path / "new"))
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: failing(number)() if stat.S_ISDIR(os.fstat(file).st_mode) else sync(file)
    )
    with nullcontext() if written else pytest.raises(LakeUnavailable, match=r"cannot write .*Input/output.*Next step"):
        assert lake.write("posts", DAY, rows(3)).rows == 3


NEXT_STEP = (
    "Next step: check that the lake's root can be reached with these settings, has free space, and may be written by"
    " this user; then run again"
)


def test_error_has_the_location_the_reason_and_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(LakeUnavailable) as caught:
        Lake(str(tmp_path)).write("posts", DAY, rows())
    location = tmp_path / partition_path("posts", DAY)
    assert str(caught.value) == f"cannot write {location}: [Errno 28] No space left on device. {NEXT_STEP}"


ACTIONS: dict[str, Callable[[Storage], object]] = {
    "read": lambda storage: storage.read("t/file"),
    "write": lambda storage: storage.write("t/file", b"data"),
    "remove": lambda storage: storage.remove("t/file"),
    "list": lambda storage: storage.files("t/file"),
    "inspect": lambda storage: storage.versions(["t/file"]),
}


@pytest.mark.parametrize("action", ACTIONS)
def test_failed_action_on_a_local_file_names_it(action: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("", encoding="utf-8")
    location = tmp_path / "t" / "file"
    with pytest.raises(LakeUnavailable) as caught:
        ACTIONS[action](open_storage(str(tmp_path), {}))
    message = str(caught.value)
    assert message.startswith(f"cannot {action} {location}: [Errno ")
    assert message.endswith(NEXT_STEP)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("kind", [MovingFileSystem, BucketFileSystem])
def test_failed_action_on_a_remote_file_names_it_without_credentials(
    kind: type[MemoryFileSystem], action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = {MovingFileSystem: "moving", BucketFileSystem: "bucket"}[kind]
    storage = open_storage(f"{scheme}://user:hunter2@host/lake/", {})

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError

    for name in ("cat_file", "pipe_file", "rm_file", "find", "info"):
        monkeypatch.setattr(kind, name, refuse)
    with pytest.raises(LakeUnavailable) as caught:
        ACTIONS[action](storage)
    reported = "list" if action == "inspect" else action
    assert str(caught.value) == f"cannot {reported} {scheme}://host/lake/t/file: RuntimeError. {NEXT_STEP}"


@pytest.mark.parametrize("kind", ["file", "memory", "moving"])
def test_files_omits_hidden_files(kind: str, tmp_path: Path) -> None:
    storage = open_storage(f"{kind}://{tmp_path}", {})
    for path in ("t/a/file", "t/a/.stage-1", "t/.hidden"):
        storage.write(path, b"data")
    assert storage.files("t") == ["t/a/file"]
    assert storage.files("u") == []
    if kind == "file":
        storage.write("t/.trash/file", b"data")
        assert storage.files("t") == ["t/a/file"]


@pytest.mark.parametrize("root", ["memory://", "memory:///", "moving://"])
def test_root_may_be_the_root_of_the_filesystem(root: str) -> None:
    lake = Lake(root)
    table_name = f"posts-{root.count('/')}-{root.partition(':')[0]}"
    lake.write(table_name, DAY, rows())
    path = partition_path(table_name, DAY)
    assert lake.storage.files(table_name) == [path]
    assert [*lake.storage.versions([path])] == [path]
    assert lake.partitions(table_name) == [DAY]
    assert lake.url(table_name, DAY) == f"{root.partition(':')[0]}:///{path}"


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


@pytest.mark.parametrize("attempt", range(3))
def test_concurrent_writers_can_create_the_root(tmp_path: Path, attempt: int) -> None:
    lake = Lake(str(tmp_path / "new" / str(attempt)))
    days = [Partition(date(2024, 1, 1) + timedelta(days=number)) for number in range(8)]
    barrier = threading.Barrier(len(days))

    def write(day: Partition) -> bool:
        barrier.wait(10)
        return lake.write("posts", day, rows()).changed

    with ThreadPoolExecutor(len(days)) as writers:
        assert all(writers.map(write, days))


def test_check_writable_fails_when_the_store_loses_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake("memory://forgets")
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_args, **_kwargs: b"")
    with pytest.raises(LakeUnavailable, match="does not return what was written"):
        lake.check_writable()
    assert MemoryFileSystem().find("/forgets") == []


def leave_stage(root: str, age: int) -> tuple[Any, str]:
    """Write a staged file of this age in seconds; return its filesystem and path."""
    storage = open_storage(root, {})
    path = f"{partition_path('posts', DAY).rpartition('/')[0]}/.stage-{int(time.time()) - age}-0123"
    filesystem = storage.arrow_filesystem
    filesystem.create_dir(storage.full_path(path).rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(storage.full_path(path)) as file:
        file.write(b"half a fi")
    return filesystem, storage.full_path(path)


@pytest.mark.parametrize("kind", ["file", "moving"])
@pytest.mark.parametrize(("age", "is_kept"), [(0, True), (STALE_AFTER_SECONDS + 60, False)])
def test_stage_is_never_read_and_removed_when_stale(kind: str, age: int, is_kept: bool, tmp_path: Path) -> None:
    root = f"{kind}://{tmp_path}"
    filesystem, path = leave_stage(root, age)
    lake = Lake(root)
    assert lake.partitions("posts") == []
    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).num_rows == 0

    lake.write("posts", DAY, rows())

    assert (filesystem.get_file_info(path).size is not None) == is_kept
    assert lake.partitions("posts") == [DAY]
    assert lake.dataset("posts", POSTS_SCHEMA).count_rows() == 20


@pytest.mark.parametrize(
    ("root", "reason"), [("nosuch://bucket/lake", "nosuch"), ("", "root is empty"), (" ", "root is empty")]
)
def test_invalid_root_is_rejected(root: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Lake(root)


@pytest.mark.parametrize("kind", ["simplecache", "filecache", "blockcache"])
def test_root_behind_a_cache_is_rejected(kind: str, tmp_path: Path) -> None:
    def write_three_times(root: str, options: dict[str, Any]) -> None:
        for number in (10, 1000, 10):  # the third would be compared with the first, which the cache holds
            Lake(root, storage_options=options).write("posts", DAY, rows(number))
            assert Lake(str(tmp_path)).read("posts", [DAY], schema=POSTS_SCHEMA).num_rows == number

    for root, options, instead in (
        (f"{kind}::file://{tmp_path}", {}, f", as file://{tmp_path}"),
        (f"{kind}://{tmp_path}", {"target_protocol": "file"}, ""),
        (f"dir::{kind}::file://{tmp_path}", {}, f", as dir::file://{tmp_path}"),
        (f"{kind}::memory://user:hunter2@host/lake", {}, ", as memory://host/lake"),
    ):
        with pytest.raises(ValueError, match="goes through a cache") as caught:
            write_three_times(root, options)
        assert str(caught.value).endswith(f"give it without the cache{instead}")


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ("/data/a@b?c", "/data/a@b?c"),
        ("file:///data/a:b@c", "file:///data/a:b@c"),
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


def test_credentials_are_in_no_url_message_or_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake("memory://user:hunter2@host/lake", storage_options={"client": {"secret": "s3cr3t"}})

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError("denied: s3cr3t, memory://user:hunter2@host/lake, password hunter2")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    with pytest.raises(LakeUnavailable, match="denied") as caught:
        lake.write("posts", DAY, rows())
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    for text in (str(caught.value), lake.url("posts", DAY), repr(lake)):
        assert "hunter2" not in text
        assert "s3cr3t" not in text
    assert lake.url("posts", DAY) == f"memory://host/lake/{partition_path('posts', DAY)}"


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
    ],
)
def test_credentials_in_urls_of_options_are_redacted(
    option: str, denial: str, redacted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage("memory://bucket/lake", {"client": {"proxies": [option]}})

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError(denial)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(LakeUnavailable, match=f": {re.escape(redacted)}\\. Next step") as caught:
        storage.read("t/file")
    assert caught.value.__cause__ is None


PATHS = ["posts/date=2024-01-01/a", "posts/date=2024-01-02/a", "posts/date=2024-01-02/b"]


@pytest.mark.parametrize("kind", ["file", "memory", "moving", "bucket"])
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
    ("details", "identity", "modified"),
    [
        ({"ETag": '"abc"', "LastModified": AWARE}, '3-"abc"', None),  # s3fs
        ({"etag": "CJ=", "mtime": AWARE, "md5Hash": "m"}, "3-CJ=", None),  # gcsfs
        ({"etag": '"0x8D"', "last_modified": AWARE, "creation_time": AWARE}, '3-"0x8D"', None),  # adlfs
        ({"mtime": AWARE}, "3-1704067200.0", 1704067200.0),  # sftp
        ({"mtime": AWARE.replace(tzinfo=None)}, "3-1704067200.0", 1704067200.0),
        ({"mtime": 1704067200.25}, "3-1704067200.25", 1704067200.25),
        ({"ETag": "", "mtime": 7}, "3-7", 7.0),
        (
            {"modify": "20240101000000", "created": AWARE},
            None,
            None,
        ),  # a creation time does not change with the content
    ],
)
def test_version_from_the_keys_of_each_filesystem(
    details: dict[str, Any], identity: str | None, modified: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage("unversioned://versions", {})
    monkeypatch.setattr(UnversionedFileSystem, "info", lambda self, path: {"name": path, "size": 3, **details})
    (version,) = storage.versions(PATHS[:1]).values()
    assert (version.bytes, version.identity, version.modified) == (3, identity, modified)


@pytest.mark.parametrize(
    ("root", "package", "extra"),
    [("s3://b/l", "s3fs", "s3"), ("abfs://b/l", "adlfs", "azure"), ("gs://b/l", "gcsfs.core", "gcs")],
)
def test_missing_package_of_an_object_store_names_the_extra(
    root: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, root.partition("://")[0], raising=False)
    with pytest.raises(ValueError, match=rf"pip install 'later-reporting-dagster\[{extra}\]'"):
        Lake(root)
