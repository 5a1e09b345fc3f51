"""Whole files on a local disk or any fsspec filesystem, replaced so that a reader sees the old one or the new one.

Nothing here knows what is in a file: the lake decides that, and may pass a `check` of the staged bytes.
"""

import errno
import fcntl
import inspect
import os
import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs

from later_reporting_dagster.lake.concurrency import side_by_side

# Readers and dataset discovery skip names that begin with a dot.
_STAGE = ".stage-"
# A writer is done with its stage within seconds. One this old was left by a writer that died.
STALE_AFTER_SECONDS = 3600
# A younger one is locked while its writer lives, if not from its very first moment on.
LOCKED_AFTER_SECONDS = 2

# On these a put is atomic: the object appears whole, under its own name, when the upload is complete.
_ATOMIC_PUT = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss"}
# Here what stands before an @ is a container or part of a path, not a user.
_WITHOUT_USER = {"abfs", "abfss", "file", "local"}
# What a listing calls the version or the digest of a file's content, and the time at which it was last changed.
_VERSION_TAGS = ("ETag", "etag", "generation", "md5Hash", "md5")
_CHANGE_TIMES = ("mtime", "LastModified", "last_modified")


class LakeUnavailable(OSError):  # noqa: N818 - named for what it is
    """The lake cannot be read or written. The message names the place and the next step, and holds no credentials."""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What a listing says of a file, to tell its versions apart.

    Attributes:
        bytes: its size.
        identity: differs between versions, except two of one size and one `modified`; None where the filesystem tells
            nothing that can be trusted.
        modified: when it was last changed, in seconds since the epoch, if `identity` rests on that; else None.
    """

    bytes: int
    identity: str | None
    modified: float | None = None


# Whether a file's staged bytes, given with its path, may replace it.
Check = Callable[[str, bytes], bool]


class Storage(ABC):
    """Files below one root. Paths are relative to it and `/`-separated; all methods raise `LakeUnavailable`."""

    waits: bool
    """Whether a call waits for a network, so that several are best made concurrently."""

    @property
    @abstractmethod
    def arrow_filesystem(self) -> pyarrow.fs.FileSystem:
        """The same files for pyarrow, which finds them by `full_path`."""

    @abstractmethod
    def full_path(self, path: str) -> str:
        """The file's path within its filesystem."""

    def native_path(self, path: str) -> str | None:  # noqa: ARG002
        """The file's path for DuckDB to open; None when it has to be read through here."""
        return None

    @property
    @abstractmethod
    def identity(self) -> str:
        """What differs between storages of different files or credentials in this process; shows no credentials."""

    @abstractmethod
    def shown(self, path: str) -> str:
        """Where a file lies, for people: without credentials."""

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """The whole file; None when there is none."""

    def write(self, path: str, data: bytes, *, check: Check | None = None) -> None:
        """Replace a whole file at once; as `write_all`."""
        for error in self.write_all({path: data}, check=check).values():
            raise error

    @abstractmethod
    def write_all(self, files: Mapping[str, bytes], *, check: Check | None = None) -> dict[str, LakeUnavailable]:
        """Replace each file whole, and return the error of each that was not replaced.

        Args:
            files: the bytes by path.
            check: sees the staged bytes first; when it is false, or raises, the file stays as it was. By default they
                have to be the given ones. Where a put is atomic nothing is staged, and it sees what is about to be put.
        """

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file, if there is one."""

    @abstractmethod
    def files(self, under: str) -> list[str]:
        """Paths of all files below a directory, stages excepted; none when there is no such directory."""

    @abstractmethod
    def versions(self, paths: Sequence[str]) -> dict[str, FileVersion]:
        """Return the current version of each of these files that exists.

        Where a listing can be narrowed to a prefix it is one request, for the common prefix of `paths`.
        """

    def _check(self, path: str, staged: bytes, files: Mapping[str, bytes], check: Check | None) -> None:
        if not (staged == files[path] if check is None else check(path, staged)):
            raise LakeUnavailable(
                f"cannot write {self.shown(path)}: what was staged does not read back as it was written, so nothing was"
                " replaced. Next step: check that disk or store, and run again"
            )


def storage_at(root: str, options: Mapping[str, Any]) -> Storage:
    """The storage behind a local path or an fsspec URL.

    Raises:
        ValueError: the root is empty, its scheme is unknown or lacks its package, or it goes through a cache.
        LakeUnavailable: its filesystem cannot be reached.
    """
    if not root.strip():
        raise ValueError("the lake's root is empty: give a directory or an fsspec URL, such as s3://bucket/lake")
    shown = without_credentials(root)
    try:
        filesystem, path = fsspec.core.url_to_fs(root, **options)
    except (ValueError, ImportError) as error:
        raise ValueError(
            f"the lake's root {shown} cannot be opened: {_redacted(str(error), root, options)}."
            " Give a directory or a URL of a scheme that fsspec knows, with the package for it installed"
        ) from None
    except Exception as error:
        raise _unavailable("open", shown, error, root=root, options=options) from None
    if _is_cached(filesystem):
        plain = re.sub(r"\w*cached?::", "", root)
        raise ValueError(
            f"the lake's root {shown} goes through a cache, which returns files that have been replaced since: give it"
            f" without the cache{f', as {without_credentials(plain)}' * (plain != root)}"
        )
    if isinstance(filesystem, fsspec.get_filesystem_class("file")):
        return _LocalStorage(Path(path))
    return _FsspecStorage(filesystem, path, root=root, options=options)


def _is_cached(filesystem: Any) -> bool:
    # The class that all caches of fsspec descend from. `dir::` and `async_wrapper::` hold another filesystem, too.
    cache = fsspec.get_filesystem_class("blockcache")
    inner = getattr(filesystem, "fs", None) or getattr(filesystem, "sync_fs", None)
    return isinstance(filesystem, cache) or (isinstance(inner, fsspec.AbstractFileSystem) and _is_cached(inner))


def without_credentials(root: str) -> str:
    """A URL less its userinfo and query, which is where credentials lie; a local path as it is."""
    scheme, separator, rest = root.partition("://")
    if not separator:
        return root
    rest = rest.partition("?")[0]
    if scheme not in _WITHOUT_USER:
        # Up to the last @ when there is a colon before it: a password may itself hold / and @.
        rest = re.sub(r"^([^@]*:.*|[^/@]*)@", "", rest)
    return f"{scheme}://{rest}"


class _LocalStorage(Storage):
    """A directory of this machine: stage beside the target, sync, check, rename."""

    waits = False

    def __init__(self, root: Path) -> None:
        self._root = root
        self._root_was_there = root.is_dir()

    @property
    def arrow_filesystem(self) -> pyarrow.fs.FileSystem:
        return pyarrow.fs.LocalFileSystem()

    def full_path(self, path: str) -> str:
        return str(self._root / path)

    def native_path(self, path: str) -> str | None:
        # In a path that DuckDB is given these are a pattern, and nothing quotes them.
        return None if re.search(r"[*?[]", str(self._root)) else self.full_path(path)

    @property
    def identity(self) -> str:
        return str(self._root)

    def shown(self, path: str) -> str:
        return str(self._root / path)

    def read(self, path: str) -> bytes | None:
        with self._explained("read", path):
            try:
                return (self._root / path).read_bytes()
            except FileNotFoundError:
                return None

    def write_all(self, files: Mapping[str, bytes], *, check: Check | None = None) -> dict[str, LakeUnavailable]:
        # When this returns, the files outlive a loss of power. They go step by step together: to sync many files costs
        # a disk little more than to sync one, and each directory has to be synced but once.
        failed: dict[str, LakeUnavailable] = {}
        stages: dict[str, _Stage] = {}

        @contextmanager
        def attempt(path: str) -> Iterator[None]:
            try:
                with self._explained("write", path):
                    yield
            except LakeUnavailable as error:
                failed[path] = error
                if path in stages:
                    stages.pop(path).discard()

        try:
            for path, data in files.items():
                with attempt(path):
                    directory = (self._root / path).parent
                    self._make_directory(directory)
                    stages[path] = _Stage(directory)
                    stages[path].write(data)
            for path, stage in [*stages.items()]:
                with attempt(path):
                    stage.sync()
            for path, stage in [*stages.items()]:
                with attempt(path):
                    self._check(path, stage.read(), files, check)
                    stage.replace(self._root / path)
        except BaseException:
            for stage in stages.values():
                stage.discard()
            raise
        entered: dict[Path, list[str]] = {}
        for path in stages:
            target = self._root / path
            # All up to the root: one that another writer has just made is not durable before that writer is done.
            for directory in target.parents[: len(target.parts) - len(self._root.parts)]:
                entered.setdefault(directory, []).append(path)
        for directory, paths in entered.items():
            try:
                _sync_directory(directory)
            except OSError as error:
                failed |= {path: _unavailable("write", self.shown(path), error) for path in paths}
        return failed

    def remove(self, path: str) -> None:
        with self._explained("remove", path):
            (self._root / path).unlink(missing_ok=True)

    def files(self, under: str) -> list[str]:
        found: list[str] = []
        with self._explained("list", under):
            for directory, directories, names in os.walk(self._root / under, onerror=_raise_unless_absent):
                directories[:] = [name for name in directories if not name.startswith(".")]
                below = Path(directory).relative_to(self._root).as_posix()
                found += [f"{below}/{name}" for name in names if not name.startswith(".")]
        return found

    def versions(self, paths: Sequence[str]) -> dict[str, FileVersion]:
        found: dict[str, FileVersion] = {}
        for path in paths:
            with self._explained("look at", path), suppress(FileNotFoundError):
                status = os.stat(f"{self._root}/{path}")  # noqa: PTH116 - there are thousands of them
                found[path] = FileVersion(
                    status.st_size, f"{status.st_size}-{status.st_mtime_ns}", modified=status.st_mtime
                )
        return found

    def _make_directory(self, directory: Path) -> None:
        """Make a directory below the root, or remove abandoned stages from one that was there.

        A root that was there and is gone is not made anew: it may be a disk that is no longer mounted.
        """
        # Asked before looking: another thread may be making the root at this very moment.
        was_there = self._root_was_there
        if not self._root.is_dir():
            if was_there:
                raise FileNotFoundError(errno.ENOENT, "the lake's root has vanished")
            for new in reversed([self._root, *(above for above in self._root.parents if not above.exists())]):
                new.mkdir(exist_ok=True)
                _sync_directory(new.parent)
        self._root_was_there = True
        if not self._is_made(directory):
            for file in directory.iterdir():
                if _is_stale_stage(file.name) or _is_abandoned_stage(file):
                    file.unlink(missing_ok=True)

    def _is_made(self, directory: Path) -> bool:
        """Makes a directory with those above it, up to the root, which has to be there; False when it was there."""
        try:
            directory.mkdir()
        except FileExistsError:
            return False
        except FileNotFoundError:
            if directory.parent == self._root:
                raise
            self._is_made(directory.parent)
            directory.mkdir(exist_ok=True)
        return True

    @contextmanager
    def _explained(self, action: str, path: str) -> Iterator[None]:
        try:
            yield
        except LakeUnavailable:
            raise
        except OSError as error:
            raise _unavailable(action, self.shown(path), error) from error


class _FsspecStorage(Storage):
    """Any other fsspec filesystem.

    Where a put is atomic, the object is put once, under its own name: a rename there is a copy and a delete, between
    which readers would see neither or both. Elsewhere the file is staged beside the target, read back, checked and
    moved, which is as atomic as that filesystem's own move.
    """

    waits = True

    def __init__(self, filesystem: Any, path: str, *, root: str, options: Mapping[str, Any]) -> None:
        self._filesystem = filesystem
        self._path = path.rstrip("/")
        self._root = root
        self._options = options
        protocol = filesystem.protocol
        self._lists_by_prefix = "prefix" in inspect.signature(filesystem.find).parameters
        self._puts_are_atomic = not _ATOMIC_PUT.isdisjoint([protocol] if isinstance(protocol, str) else protocol)

    @property
    def arrow_filesystem(self) -> pyarrow.fs.FileSystem:
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self._filesystem))

    def full_path(self, path: str) -> str:
        return f"{self._path}/{path}"

    @property
    def identity(self) -> str:
        # fsspec has one filesystem for equal options.
        return f"{self._path} {id(self._filesystem)}"

    def shown(self, path: str) -> str:
        return f"{without_credentials(self._root).rstrip('/')}/{path}"

    def read(self, path: str) -> bytes | None:
        with self._explained("read", path):
            try:
                return bytes(self._filesystem.cat_file(self.full_path(path)))
            except FileNotFoundError:
                return None

    def write_all(self, files: Mapping[str, bytes], *, check: Check | None = None) -> dict[str, LakeUnavailable]:
        def failure(path: str) -> LakeUnavailable | None:
            try:
                self._put(path, files[path], check=lambda staged: self._check(path, staged, files, check))
            except LakeUnavailable as error:
                return error
            return None

        failures = zip(files, side_by_side(failure, files), strict=True)
        return {path: error for path, error in failures if error is not None}

    def _put(self, path: str, data: bytes, *, check: Callable[[bytes], None]) -> None:
        target = self.full_path(path)
        with self._explained("write", path):
            if self._puts_are_atomic:
                check(data)
                self._filesystem.pipe_file(target, data)
                return
            directory = target.rpartition("/")[0]
            self._filesystem.makedirs(directory, exist_ok=True)
            self._filesystem.invalidate_cache()
            for name in self._filesystem.ls(directory, detail=False):
                if _is_stale_stage(name.rpartition("/")[2]):
                    self._remove(name)
            stage = f"{directory}/{_stage_name()}"
            try:
                self._filesystem.pipe_file(stage, data)
                check(bytes(self._filesystem.cat_file(stage)))
                self._filesystem.mv(stage, target)
            except BaseException:
                with suppress(Exception):
                    self._remove(stage)
                raise

    def remove(self, path: str) -> None:
        with self._explained("remove", path):
            self._remove(self.full_path(path))

    def files(self, under: str) -> list[str]:
        with self._explained("list", under):
            # Listings are cached, and other processes write too.
            self._filesystem.invalidate_cache()
            try:
                found = self._filesystem.find(self.full_path(under))
            except FileNotFoundError:
                return []
        below_root = len(self._path.lstrip("/")) + 1
        paths = [name.lstrip("/")[below_root:] for name in found]
        return [path for path in paths if not path.rpartition("/")[2].startswith(".")]

    def versions(self, paths: Sequence[str]) -> dict[str, FileVersion]:
        under = os.path.commonprefix([self.full_path(path) for path in paths])
        with self._explained("list", under.removeprefix(self._path).lstrip("/")):
            self._filesystem.invalidate_cache()
            if not self._lists_by_prefix:
                asked = zip(paths, side_by_side(self._version, paths), strict=True)
                return {path: version for path, version in asked if version is not None}
            directory, _, prefix = under.rpartition("/")
            try:
                found = self._filesystem.find(directory, prefix=prefix, detail=True)
            except FileNotFoundError:
                return {}
        listed = {name.lstrip("/"): details for name, details in found.items()}
        names = ((path, self.full_path(path).lstrip("/")) for path in paths)
        return {path: _version_of(listed[name]) for path, name in names if name in listed}

    def _version(self, path: str) -> FileVersion | None:
        full_path = self.full_path(path)
        with suppress(FileNotFoundError):
            details = self._filesystem.info(full_path)
            version = _version_of(details)
            if version.identity is not None:
                return version
            with suppress(NotImplementedError):
                return _version_of({"size": details["size"], "mtime": self._filesystem.modified(full_path)})
            return version
        return None

    def _remove(self, full_path: str) -> None:
        with suppress(FileNotFoundError):
            self._filesystem.rm_file(full_path)

    @contextmanager
    def _explained(self, action: str, path: str) -> Iterator[None]:
        try:
            yield
        except LakeUnavailable:
            raise
        except Exception as error:  # each filesystem has errors of its own
            unavailable = _unavailable(action, self.shown(path), error, root=self._root, options=self._options)
            # The chained error is shown too, so it is left out where its own words had to be redacted.
            raise unavailable from (error if str(error) in str(unavailable) else None)


def _version_of(details: Mapping[str, Any]) -> FileVersion:
    size = int(details["size"])
    for name in _VERSION_TAGS:
        if tag := details.get(name):
            return FileVersion(size, f"{size}-{tag}")
    for name in _CHANGE_TIMES:
        match details.get(name):
            case datetime() as changed:
                # fsspec's own are aware; a time without a zone is at least always read alike.
                modified = (changed if changed.tzinfo else changed.replace(tzinfo=UTC)).timestamp()
                return FileVersion(size, f"{size}-{modified!r}", modified=modified)
            case int() | float() as modified:
                return FileVersion(size, f"{size}-{modified!r}", modified=float(modified))
    return FileVersion(size, None)


class _Stage:
    """A file that nobody reads yet, beside the one that it is to replace."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _stage_name()
        # Open until it is in place: what goes wrong with a file behind our back is told to those who hold it open.
        self._file = self._path.open("xb", buffering=0)
        # The lock ends with this process, however it ends. Where a filesystem has none, age alone tells.
        with suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def read(self) -> bytes:
        return self._path.read_bytes()

    def replace(self, target: Path) -> None:
        self._path.replace(target)
        self._file.close()

    def discard(self) -> None:
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._path.unlink()


def _stage_name() -> str:
    return f"{_STAGE}{int(time.time())}-{secrets.token_hex(8)}"


def _is_stale_stage(name: str, *, after_seconds: float = STALE_AFTER_SECONDS) -> bool:
    if not name.startswith(_STAGE):
        return False
    made = name.removeprefix(_STAGE).partition("-")[0]
    return not made.isdigit() or time.time() - int(made) > after_seconds


def _is_abandoned_stage(file: Path) -> bool:
    """Whether it is a stage that no process holds any more, in which case its writer died in the middle of it."""
    if _is_stale_stage(file.name, after_seconds=LOCKED_AFTER_SECONDS):
        with suppress(OSError), file.open("rb") as stage:
            fcntl.flock(stage, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    return False


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network mounts sync no directories: when a new name is durable is up to their server.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _unavailable(
    action: str, place: str, error: Exception, *, root: str = "", options: Mapping[str, Any] | None = None
) -> LakeUnavailable:
    match getattr(error, "errno", None):
        case errno.ENOSPC | errno.EDQUOT:
            step = "free some space there and run again"
        case errno.EFBIG:
            step = "raise the limit on the size of files there (ulimit -f) and run again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            step = "give this user the rights it lacks there, or name another place as the lake's root"
        case errno.ENOENT:
            step = "check that the lake's root is there and mounted"
        case errno.EINVAL | errno.ENOTSUP | errno.ENOSYS | errno.EXDEV:
            step = "name another place as the lake's root: the file system there does not sync or replace files"
        case errno.ENOTDIR | errno.EEXIST | errno.EISDIR:
            step = "a file stands where a directory is due: move it, or name another place as the lake's root"
        case _:
            step = "check that the lake's root can be reached with these settings and run again"
    reason = _redacted(str(error) or type(error).__name__, root, options or {})
    return LakeUnavailable(f"cannot {action} {place}: {reason}. Next step: {step}")


def _redacted(text: str, root: str, options: Mapping[str, Any]) -> str:
    """The text less the storage options' values, other than URLs, and the root's userinfo and query."""
    shown = without_credentials(root)
    hidden = [part for part in re.split(r"[@?:&=]", root) if part and part not in shown]
    hidden += [value for value in _texts(options) if "://" not in value]
    text = text.replace(root, shown) if root else text
    for value in sorted(hidden, key=len, reverse=True):
        text = text.replace(value, "…")
    return text


def _texts(options: Mapping[str, Any]) -> Iterator[str]:
    for value in options.values():
        if isinstance(value, Mapping):
            yield from _texts(value)
        elif isinstance(value, str) and value:
            yield value
