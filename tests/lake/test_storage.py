import errno
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, LakeUnavailable, Partition, partition_path
from later_reporting_dagster.lake.storage import STALE_AFTER_SECONDS, storage_at, without_credentials
from tests.lake.conftest import DAY, MovingFileSystem, files_of, rows


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
        lake.quarantine("posts", DAY, [BadRow(reason="r", raw="{}")], query="q")
    assert files_of(tmp_path) == before


def test_staged_bytes_that_a_remote_filesystem_lost_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake("moving://loses")
    lake.write("posts", DAY, rows(20))
    files = MovingFileSystem().find("/loses")
    put = MovingFileSystem.pipe_file
    monkeypatch.setattr(MovingFileSystem, "pipe_file", lambda self, path, value: put(self, path, value[:-1]))
    with pytest.raises(LakeUnavailable, match="does not read back as it was written"):
        lake.write("posts", DAY, rows(3))
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
def test_a_write_that_fails_leaves_the_partition_and_no_stage(
    stop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", DAY, rows(20))
    before = files_of(tmp_path)
    monkeypatch.setattr(*{"fsync": (os, "fsync"), "rename": (Path, "replace")}[stop], failing(errno.EIO))
    with pytest.raises(LakeUnavailable, match=r"cannot write .*Input/output error.*Next step"):
        lake.write("posts", DAY, rows(3))
    assert files_of(tmp_path) == before


def test_a_full_disk_leaves_the_partition_and_no_stage(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", DAY, rows(3))
    before = files_of(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(LakeUnavailable, match="File too large"):
            lake.write("posts", DAY, rows(200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "the rights it lacks"),
        (errno.EACCES, "the rights it lacks"),
        (errno.EIO, "can be reached"),
    ],
)
def test_a_failure_names_the_place_the_reason_and_the_next_step(
    number: int, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "open", failing(number))
    with pytest.raises(LakeUnavailable) as caught:
        Lake(str(tmp_path)).write("posts", DAY, rows())
    message = str(caught.value)
    assert partition_path("posts", DAY) in message
    assert os.strerror(number) in message
    assert step in message


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
        lambda: lake.quarantined("posts"),
        lambda: lake.quarantine("posts", DAY, [], query="q"),
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
    ("root", "reason"),
    [("nosuch://bucket/lake", "nosuch"), ("", "root is empty"), (" ", "root is empty")],
)
def test_a_root_that_cannot_be_is_refused_with_what_to_give(root: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Lake(root)


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


def test_a_place_on_a_local_disk_is_shown_as_a_path_that_can_be_opened(tmp_path: Path) -> None:
    lake = Lake(f"file://{tmp_path}/lake")
    lake.write("posts", DAY, rows())
    assert Path(lake.url("posts", DAY)).is_file()
