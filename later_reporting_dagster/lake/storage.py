"""Whole files on a local disk or any fsspec filesystem, replaced so that a reader sees the old one or the new one.

Nothing here knows what is in a file: the lake decides that, and says by `check` whether what was staged may be shown.
"""

import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import fsspec
import pyarrow.fs

# Readers and dataset discovery skip names that begin with a dot.
_STAGE = ".stage-"
# A writer is done with its stage within seconds. One this old was left by a writer that died.
STALE_AFTER_SECONDS = 3600

# On these a put is atomic: the object appears whole, under its own name, when the upload is complete.
_ATOMIC_PUT = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss"}
# Here what stands before an @ is a container or part of a path, not a user.
_WITHOUT_USER = {"abfs", "abfss", "file", "local"}


class LakeUnavailable(OSError):  # noqa: N818 - named for what it is
    """The lake cannot be read or written. The message names the place and the next step, and holds no credentials."""


class Storage(Protocol):
    """Files below one root. Paths are relative to it and `/`-separated; all methods raise `LakeUnavailable`."""

    @property
    def arrow_filesystem(self) -> pyarrow.fs.FileSystem:
        """The same files for pyarrow, which finds them by `full_path`."""

    def full_path(self, path: str) -> str:
        """The file's path within its filesystem."""

    def shown(self, path: str) -> str:
        """Where a file lies, for people: without credentials."""

    def read(self, path: str) -> bytes | None:
        """The whole file; None when there is none."""

    def write(self, path: str, data: bytes, *, check: Callable[[bytes], None]) -> None:
        """Replaces the whole file at once. `check` sees the staged bytes first; what it raises leaves all as it was."""

    def remove(self, path: str) -> None:
        """Removes a file, if there is one."""

    def files(self, under: str) -> list[str]:
        """Paths of all files below a directory, stages excepted; none when there is no such directory."""


def storage_at(root: str, options: Mapping[str, Any]) -> Storage:
    """The storage behind a local path or an fsspec URL.

    Raises:
        ValueError: the root is empty, or its scheme is unknown or lacks its package.
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
    if isinstance(filesystem, fsspec.get_filesystem_class("file")):
        return _LocalStorage(Path(path))
    return _FsspecStorage(filesystem, path, root=root, options=options)


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


class _LocalStorage:
    """A directory of this machine: stage beside the target, sync, check, rename."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._root_was_there = root.is_dir()

    @property
    def arrow_filesystem(self) -> pyarrow.fs.FileSystem:
        return pyarrow.fs.LocalFileSystem()

    def full_path(self, path: str) -> str:
        return str(self._root / path)

    def shown(self, path: str) -> str:
        return str(self._root / path)

    def read(self, path: str) -> bytes | None:
        with self._explained("read", path):
            try:
                return (self._root / path).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, path: str, data: bytes, *, check: Callable[[bytes], None]) -> None:
        # When this returns, the file outlives a loss of power.
        target = self._root / path
        with self._explained("write", path):
            grown = self._make_directory(target.parent)
            for file in target.parent.iterdir():
                if _is_stale_stage(file.name):
                    file.unlink(missing_ok=True)
            stage = target.parent / _stage_name()
            try:
                self._stage(stage, data)
                check(stage.read_bytes())
                stage.replace(target)
            except BaseException:
                with suppress(OSError):
                    stage.unlink(missing_ok=True)
                raise
            for directory in (target.parent, *grown):
                _sync_directory(directory)

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

    def _stage(self, stage: Path, data: bytes) -> None:
        with stage.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def _make_directory(self, directory: Path) -> list[Path]:
        """Makes a directory below the root and gives the directories that gained an entry by it.

        A root that was there and is gone is not made anew: it may be a disk that is no longer mounted.
        """
        # Asked before looking: another thread may be making the root at this very moment.
        was_there = self._root_was_there
        missing: list[Path] = []
        while not directory.is_dir() and directory != self._root:
            missing.append(directory)
            directory = directory.parent
        if not self._root.is_dir():
            if was_there:
                raise FileNotFoundError(errno.ENOENT, "the lake's root has vanished")
            self._root.mkdir(parents=True, exist_ok=True)
        self._root_was_there = True
        for new in reversed(missing):
            new.mkdir(exist_ok=True)
        return [new.parent for new in missing]

    @contextmanager
    def _explained(self, action: str, path: str) -> Iterator[None]:
        try:
            yield
        except LakeUnavailable:
            raise
        except OSError as error:
            raise _unavailable(action, self.shown(path), error) from error


class _FsspecStorage:
    """Any other fsspec filesystem.

    Where a put is atomic, the whole object is put once, under its own name, and nothing is staged: a rename there is
    a copy and a delete, between which readers would see neither or both. Elsewhere the file is staged beside the
    target, read back, checked and moved, which is as atomic as that filesystem's own move.
    """

    def __init__(self, filesystem: Any, path: str, *, root: str, options: Mapping[str, Any]) -> None:
        self._filesystem = filesystem
        self._path = path.rstrip("/")
        self._root = root
        self._options = options
        protocol = filesystem.protocol
        self._puts_are_atomic = not _ATOMIC_PUT.isdisjoint([protocol] if isinstance(protocol, str) else protocol)

    @property
    def arrow_filesystem(self) -> pyarrow.fs.FileSystem:
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self._filesystem))

    def full_path(self, path: str) -> str:
        return f"{self._path}/{path}"

    def shown(self, path: str) -> str:
        return f"{without_credentials(self._root).rstrip('/')}/{path}"

    def read(self, path: str) -> bytes | None:
        with self._explained("read", path):
            try:
                return bytes(self._filesystem.cat_file(self.full_path(path)))
            except FileNotFoundError:
                return None

    def write(self, path: str, data: bytes, *, check: Callable[[bytes], None]) -> None:
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


def _stage_name() -> str:
    return f"{_STAGE}{int(time.time())}-{secrets.token_hex(8)}"


def _is_stale_stage(name: str) -> bool:
    if not name.startswith(_STAGE):
        return False
    made = name.removeprefix(_STAGE).partition("-")[0]
    return not made.isdigit() or time.time() - int(made) > STALE_AFTER_SECONDS


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
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
        case errno.EACCES | errno.EPERM | errno.EROFS:
            step = "give this user the rights it lacks there, or name another place as the lake's root"
        case errno.ENOENT:
            step = "check that the lake's root is there and mounted"
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
