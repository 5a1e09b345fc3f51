import errno
import fcntl
import os
import re
import shutil
import stat
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

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable, Partition, partition_path
from later_reporting_dagster.lake.storage import STALE_AFTER_SECONDS, Storage, storage_at, without_credentials
from tests.lake.conftest import DAY, BucketFileSystem, MovingFileSystem, MuteFileSystem, files_of, rows


def failing(number: int) -> Callable[..., Any]:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def test_staged_bytes_that_a_disk_lost_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", DAY, rows(20))
    before = files_of(tmp_path)

    def lose_the_tail(descriptor: int) -> None:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - 1)

    monkeypatch.setattr(os, "fsync", lose_the_tail)
    with pytest.raises(LakeUnavailable, match="does not read back as it was written.*Next step"):
        lake.write("posts", DAY, rows(3))
    with pytest.raises(LakeUnavailable, match="does not read back as it was written.*Next step"):
        lake.quarantine.write("posts", DAY, [BadRow(reason="r", raw="{}")], query="q")
    assert files_of(tmp_path) == before


def test_staged_bytes_that_a_remote_filesystem_lost_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake("moving://loses")
    lake.write("posts", DAY, rows(20))
    files = MovingFileSystem().find("/loses")
    put = MovingFileSystem.pipe_file
    monkeypatch.setattr(MovingFileSystem, "pipe_file", lambda self, path, value: put(self, path, value[:-1]))
    with pytest.raises(LakeUnavailable, match="does not read back as it was written"):
        lake.write("posts", DAY, rows(3))
    with pytest.raises(
        LakeUnavailable, match="^cannot write moving://loses/_quarantine/.*does not read back as it was"
    ):
        lake.quarantine.write("posts", DAY, [BadRow(reason="r", raw="{}")], query="q")
    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(rows(20))
    assert MovingFileSystem().find("/loses") == files


def test_an_object_store_gets_one_put_under_the_final_name(monkeypatch: pytest.MonkeyPatch) -> None:
    puts: list[str] = []
    put = MemoryFileSystem.pipe_file

    def remember(self: MemoryFileSystem, path: str, value: bytes) -> None:
        puts.append(path)
        put(self, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", remember)
    Lake("memory://one-put").write("posts", DAY, rows())
    assert puts == [f"/one-put/{partition_path('posts', DAY)}"]


@pytest.mark.parametrize("stop", ["fsync", "rename"])
def test_of_files_written_together_one_that_fails_leaves_the_others_to_themselves_and_no_stage(
    stop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_at(str(tmp_path), {})
    storage.write_all(dict.fromkeys(["a/file", "b/file"], b"old"), check=lambda _path, _staged: True)
    home, name = {"fsync": (os, "fsync"), "rename": (Path, "replace")}[stop]
    done, calls = getattr(home, name), count()
    monkeypatch.setattr(home, name, lambda *given: failing(errno.EIO)() if next(calls) == 1 else done(*given))

    failed = storage.write_all({f"{each}/file": each.encode() for each in "abc"}, check=lambda _path, _staged: True)

    assert list(failed) == ["b/file"]
    assert files_of(tmp_path) == {"a/file": b"a", "b/file": b"old", "c/file": b"c"}


def test_a_writer_that_is_interrupted_leaves_what_was_and_no_stage(tmp_path: Path) -> None:
    storage = storage_at(str(tmp_path), {})

    def interrupt(path: str, _staged: bytes) -> bool:
        if path == "b/file":
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        storage.write_all({f"{each}/file": each.encode() for each in "abc"}, check=interrupt)
    assert files_of(tmp_path) == {"a/file": b"a"}


def test_nothing_is_shown_before_it_is_durable_nor_told_before_its_place_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[tuple[str, str]] = []
    sync, replace, root = os.fsync, Path.replace, tmp_path / "new" / "lake"

    def note_sync(descriptor: int) -> None:
        log.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path).as_posix()))
        sync(descriptor)

    def note_replace(stage: Path, target: Path) -> Path:
        log.append(("show", stage.relative_to(tmp_path).as_posix()))
        return replace(stage, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    storage = storage_at(str(root), {})
    storage.write_all({"t/a/file": b"a", "t/b/file": b"b"}, check=lambda path, _: not log.append(("check", path)))

    # The root's own place, the files, their check and their rename, and each directory on the way to them, once.
    stages = [path for what, path in log if what == "show"]
    assert [Path(stage).parent.as_posix() for stage in stages] == ["new/lake/t/a", "new/lake/t/b"]
    assert log == [
        ("sync", "."),
        ("sync", "new"),
        *(("sync", stage) for stage in stages),
        ("check", "t/a/file"),
        ("show", stages[0]),
        ("check", "t/b/file"),
        ("show", stages[1]),
        ("sync", "new/lake/t/a"),
        ("sync", "new/lake/t"),
        ("sync", "new/lake"),
        ("sync", "new/lake/t/b"),
    ]


@pytest.mark.parametrize(
    ("number", "written"), [(errno.EIO, False), (errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EBADF, True)]
)
def test_a_file_whose_directory_is_not_durable_is_told_unless_directories_are_not_synced_there(
    number: int, written: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path / "new"))
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: failing(number)() if stat.S_ISDIR(os.fstat(file).st_mode) else sync(file)
    )
    with nullcontext() if written else pytest.raises(LakeUnavailable, match=r"cannot write .*Input/output.*Next step"):
        assert lake.write("posts", DAY, rows(3)).rows == 3


RIGHTS = "give this user the rights it lacks there, or name another place as the lake's root"
IN_THE_WAY = "a file stands where a directory is due: move it, or name another place as the lake's root"
UNFIT = "name another place as the lake's root: the file system there does not sync or replace files"
ANYTHING = "check that the lake's root can be reached with these settings and run again"


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (errno.ENOSPC, "free some space there and run again"),
        (errno.EDQUOT, "free some space there and run again"),
        (errno.EFBIG, "raise the limit on the size of files there (ulimit -f) and run again"),
        (errno.EACCES, RIGHTS),
        (errno.EPERM, RIGHTS),
        (errno.EROFS, RIGHTS),
        (errno.ENOENT, "check that the lake's root is there and mounted"),
        (errno.ENOTDIR, IN_THE_WAY),
        (errno.EISDIR, IN_THE_WAY),
        (errno.EEXIST, IN_THE_WAY),
        (errno.EIO, ANYTHING),
        (errno.EINVAL, UNFIT),
        (errno.ENOTSUP, UNFIT),
        (errno.ENOSYS, UNFIT),
        (errno.EXDEV, UNFIT),
    ],
)
def test_a_failure_names_the_place_the_reason_and_the_next_step(
    number: int, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(LakeUnavailable) as caught:
        Lake(str(tmp_path)).write("posts", DAY, rows())
    place, reason = tmp_path / partition_path("posts", DAY), f"[Errno {number}] {os.strerror(number)}"
    assert str(caught.value) == f"cannot write {place}: {reason}. Next step: {step}"


USES: dict[str, Callable[[Storage], object]] = {
    "read": lambda storage: storage.read("t/file"),
    "write": lambda storage: put(storage, "t/file", b"data"),
    "remove": lambda storage: storage.remove("t/file"),
    "list": lambda storage: storage.files("t/file"),
    "look at": lambda storage: storage.versions(["t/file"]),
}


@pytest.mark.parametrize("action", USES)
def test_what_cannot_be_done_to_a_file_of_this_machine_is_told(action: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("", encoding="utf-8")
    place = tmp_path / "t" / "file"
    with pytest.raises(LakeUnavailable) as caught:
        USES[action](storage_at(str(tmp_path), {}))
    told = str(caught.value)
    assert told.startswith(f"cannot {action} {place}: [Errno ")
    assert told.endswith(f". Next step: {IN_THE_WAY}")


@pytest.mark.parametrize("action", USES)
@pytest.mark.parametrize("kind", [MovingFileSystem, BucketFileSystem])
def test_what_cannot_be_done_to_a_remote_file_is_told(
    kind: type[MemoryFileSystem], action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = {MovingFileSystem: "moving", BucketFileSystem: "bucket"}[kind]
    storage = storage_at(f"{scheme}://user:hunter2@host/lake/", {})

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise RuntimeError

    for name in ("cat_file", "pipe_file", "rm_file", "find", "info"):
        monkeypatch.setattr(kind, name, refuse)
    with pytest.raises(LakeUnavailable) as caught:
        USES[action](storage)
    done = "list" if action == "look at" else action
    assert str(caught.value) == f"cannot {done} {scheme}://host/lake/t/file: RuntimeError. Next step: {ANYTHING}"


def test_a_filesystem_that_cannot_be_opened_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    monkeypatch.setattr(fsspec.core, "url_to_fs", failing(errno.EIO))
    with pytest.raises(LakeUnavailable) as caught:
        storage_at("sftp://user:hunter2@host/lake", {})
    reason = f"[Errno {errno.EIO}] {os.strerror(errno.EIO)}"
    assert str(caught.value) == f"cannot open sftp://host/lake: {reason}. Next step: {ANYTHING}"


@pytest.mark.parametrize("kind", ["file", "memory", "moving"])
def test_what_is_hidden_is_not_listed(kind: str, tmp_path: Path) -> None:
    storage = storage_at(f"{kind}://{tmp_path}", {})
    for path in ("t/a/file", "t/a/.stage-1", "t/.hidden"):
        put(storage, path, b"data")
    assert storage.files("t") == ["t/a/file"]
    assert storage.files("u") == []
    if kind == "file":
        put(storage, "t/.trash/file", b"data")
        assert storage.files("t") == ["t/a/file"]


def test_a_writer_whose_stage_was_swept_meanwhile_tells_its_own_failure(tmp_path: Path) -> None:
    def sweep(_path: str, _staged: bytes) -> bool:
        for stage in tmp_path.glob("a/.stage-*"):
            stage.unlink()
        raise LakeUnavailable("it is not what was written")

    failed = storage_at(str(tmp_path), {}).write_all({"a/file": b"a"}, check=sweep)
    assert {path: str(error) for path, error in failed.items()} == {"a/file": "it is not what was written"}


def test_a_filesystem_without_locks_is_written_to_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    Lake(str(tmp_path)).write("posts", DAY, rows())
    assert list(files_of(tmp_path)) == [partition_path("posts", DAY)]


def test_a_root_that_vanished_is_not_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "mounted"
    lake = Lake(str(root))
    lake.check_writable()
    shutil.rmtree(root)
    with pytest.raises(LakeUnavailable, match="the lake's root has vanished.*there and mounted"):
        lake.write("posts", DAY, rows())
    with pytest.raises(LakeUnavailable, match="vanished"):
        lake.check_writable()
    assert not root.exists()


@pytest.mark.parametrize("attempt", range(20))
def test_writers_that_start_together_make_the_root_together(tmp_path: Path, attempt: int) -> None:
    lake = Lake(str(tmp_path / "new" / str(attempt)))
    days = [Partition(date(2024, 1, 1) + timedelta(days=number)) for number in range(8)]
    together = threading.Barrier(len(days))

    def write(day: Partition) -> bool:
        together.wait(10)
        return lake.write("posts", day, rows()).changed

    with ThreadPoolExecutor(len(days)) as writers:
        assert all(writers.map(write, days))


def test_a_root_that_is_a_file_is_unavailable_for_everything(tmp_path: Path) -> None:
    root = tmp_path / "file"
    root.write_text("", encoding="utf-8")
    lake = Lake(str(root))
    for use in (
        lake.check_writable,
        lambda: lake.write("posts", DAY, rows()),
        lambda: lake.read("posts", [DAY], schema=POSTS_SCHEMA),
        lambda: lake.partitions("posts"),
        lambda: lake.quarantine.rows("posts"),
        lambda: lake.quarantine.write("posts", DAY, [], query="q"),
    ):
        with pytest.raises(LakeUnavailable, match="a file stands where a directory is due"):
            use()


def test_a_store_that_does_not_give_back_what_is_written_is_not_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake("memory://forgets")
    monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_args, **_kwargs: b"")
    with pytest.raises(LakeUnavailable, match="does not give back"):
        lake.check_writable()
    assert MemoryFileSystem().find("/forgets") == []


def stage(root: str, age: int) -> tuple[Any, str]:
    storage = storage_at(root, {})
    path = f"{partition_path('posts', DAY).rpartition('/')[0]}/.stage-{int(time.time()) - age}-0123"
    filesystem = storage.arrow_filesystem
    filesystem.create_dir(storage.full_path(path).rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(storage.full_path(path)) as file:
        file.write(b"half a fi")
    return filesystem, storage.full_path(path)


@pytest.mark.parametrize("kind", ["file", "moving"])
@pytest.mark.parametrize(("age", "stays"), [(0, True), (STALE_AFTER_SECONDS + 60, False)])
def test_a_stage_is_never_read_and_goes_when_its_writer_must_be_dead(
    kind: str, age: int, stays: bool, tmp_path: Path
) -> None:
    root = f"{kind}://{tmp_path}"
    filesystem, path = stage(root, age)
    lake = Lake(root)
    assert lake.partitions("posts") == []
    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).num_rows == 0

    lake.write("posts", DAY, rows())

    assert (filesystem.get_file_info(path).size is not None) == stays
    assert lake.partitions("posts") == [DAY]
    assert lake.dataset("posts", POSTS_SCHEMA).count_rows() == 20


@pytest.mark.parametrize(
    ("root", "reason"), [("nosuch://bucket/lake", "nosuch"), ("", "root is empty"), (" ", "root is empty")]
)
def test_a_root_that_cannot_be_is_refused_with_what_to_give(root: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Lake(root)


@pytest.mark.parametrize("kind", ["simplecache", "filecache", "blockcache"])
def test_a_root_behind_a_cache_is_refused_with_what_to_give(kind: str, tmp_path: Path) -> None:
    def write_thrice(root: str, options: dict[str, Any]) -> None:
        for number in (10, 1000, 10):  # the third would be compared to what the cache holds, which is the first
            Lake(root, storage_options=options).write("posts", DAY, rows(number))
            assert Lake(str(tmp_path)).read("posts", [DAY], schema=POSTS_SCHEMA).num_rows == number

    for root, options, instead in (
        (f"{kind}::file://{tmp_path}", {}, f", as file://{tmp_path}"),
        (f"{kind}://{tmp_path}", {"target_protocol": "file"}, ""),
        (f"dir::{kind}::file://{tmp_path}", {}, f", as dir::file://{tmp_path}"),
        (f"{kind}::memory://user:hunter2@host/lake", {}, ", as memory://host/lake"),
    ):
        with pytest.raises(ValueError, match="goes through a cache") as caught:
            write_thrice(root, options)
        assert str(caught.value).endswith(f"give it without the cache{instead}")


def test_a_scheme_without_its_package_says_which_one_and_hides_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def needs_package(*_args: Any, **_kwargs: Any) -> None:
        raise ImportError("install paramiko to open sftp://user:hunter2@host/lake")

    monkeypatch.setattr(fsspec.core, "url_to_fs", needs_package)
    with pytest.raises(ValueError, match=r"sftp://host/lake cannot be opened: install paramiko") as caught:
        Lake("sftp://user:hunter2@host/lake")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("root", "shown"),
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
def test_a_root_is_shown_without_its_credentials(root: str, shown: str) -> None:
    assert without_credentials(root) == shown


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
    ("denied", "shown"),
    [
        ("s3cr3t-and-more is not for s3cr3t", "… is not for …"),
        ("more-and-s3cr3t is not for s3cr3t", "… is not for …"),
        ("s3cr3t is refused by http://127.0.0.1:9000 after 5 s", "… is refused by http://127.0.0.1:9000 after 5 s"),
    ],
)
def test_of_options_secrets_are_hidden_whole_and_addresses_stay_readable(
    denied: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = {"endpoint_url": "http://127.0.0.1:9000", "key": "s3cr3t", "secret": denied.split()[0], "timeout": 5}
    storage = storage_at("memory://bucket/lake", {"client": client})

    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise RuntimeError(denied)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", refuse)
    with pytest.raises(LakeUnavailable, match=f": {re.escape(shown)}\\. Next step"):
        storage.read("t/file")


def test_a_place_on_a_local_disk_is_shown_as_a_path_that_can_be_opened(tmp_path: Path) -> None:
    lake = Lake(f"file://{tmp_path}/lake")
    lake.write("posts", DAY, rows())
    assert Path(lake.url("posts", DAY)).is_file()


PATHS = ["posts/date=2024-01-01/a", "posts/date=2024-01-02/a", "posts/date=2024-01-02/b"]


def put(storage: Storage, path: str, data: bytes) -> None:
    storage.write(path, data, check=lambda _path, _staged: True)


@pytest.mark.parametrize("kind", ["file", "memory", "moving", "bucket"])
def test_what_the_caller_does_not_want_to_be_shown_is_not(kind: str, tmp_path: Path) -> None:
    storage = storage_at(f"{kind}://{tmp_path}", {})
    put(storage, PATHS[0], b"before")

    def refuse(_path: str, staged: bytes) -> bool:
        raise LakeUnavailable(f"not {staged!r}")

    with pytest.raises(LakeUnavailable, match="not b'after'"):
        storage.write(PATHS[0], b"after", check=refuse)
    assert storage.write_all({PATHS[0]: b"after", PATHS[1]: b""}, check=refuse).keys() == {PATHS[0], PATHS[1]}
    with pytest.raises(LakeUnavailable, match="does not read back as it was written, so nothing was replaced"):
        storage.write(PATHS[0], b"after", check=lambda _path, _staged: False)
    assert (storage.read(PATHS[0]), storage.read(PATHS[1])) == (b"before", None)


@pytest.mark.parametrize("kind", ["file", "memory", "moving", "bucket"])
def test_versions_are_of_the_files_that_are_there_and_change_with_them(kind: str, tmp_path: Path) -> None:
    storage = storage_at(f"{kind}://{tmp_path}", {})
    assert storage.versions(PATHS) == {}
    for path in PATHS[1:]:
        put(storage, path, b"one")
    before = storage.versions(PATHS)
    assert before.keys() == set(PATHS[1:])
    assert [version.bytes for version in before.values()] == [3, 3]
    assert all(version.identity for version in before.values())
    assert storage.versions(PATHS) == before
    assert storage.versions(PATHS[1:2]) == {PATHS[1]: before[PATHS[1]]}

    # Of another size, because a clock of files may not tick in between.
    put(storage, PATHS[1], b"three")
    after = storage.versions(PATHS)
    assert after[PATHS[1]].identity != before[PATHS[1]].identity
    assert after[PATHS[2]] == before[PATHS[2]]


def test_only_a_version_that_rests_on_time_tells_it(tmp_path: Path) -> None:
    for kind, told in (("file", True), ("memory", True), ("bucket", False), ("mute", False)):
        storage = storage_at(f"{kind}://{tmp_path}", {})
        put(storage, PATHS[0], b"one")
        (version,) = storage.versions(PATHS).values()
        assert (version.modified is not None) is told
        assert version.modified is None or abs(version.modified - time.time()) < 60
        assert (version.identity is None) is (kind == "mute")


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
        ({"modify": "20240101000000", "created": AWARE}, None, None),  # when it was made says nothing of its content
    ],
)
def test_a_version_is_what_each_filesystem_calls_it(
    details: dict[str, Any], identity: str | None, modified: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = storage_at("mute://versions", {})
    monkeypatch.setattr(MuteFileSystem, "info", lambda self, path: {"name": path, "size": 3, **details})
    (version,) = storage.versions(PATHS[:1]).values()
    assert (version.bytes, version.identity, version.modified) == (3, identity, modified)
