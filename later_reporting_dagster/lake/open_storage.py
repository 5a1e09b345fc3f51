"""Open a lake's root: a local disk, or any fsspec filesystem with no request that the lake does not need."""

import errno
import inspect
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import fsspec

from later_reporting_dagster.lake.paths import INSTANCE_PREFIX
from later_reporting_dagster.lake.storage import (
    FileVersion,
    Storage,
    map_concurrently,
    redacted,
    unavailable_error,
    without_credentials,
)

# The schemes of object stores, and the extra of this package that installs the fsspec filesystem of each.
_EXTRAS = {"s3": "s3", "s3a": "s3", "abfs": "azure", "abfss": "azure", "az": "azure", "gs": "gcs", "gcs": "gcs"}
# Protocols with an atomic put: the object appears under its name when the upload is complete.
_ATOMIC_PUT = {"memory", "oss", *_EXTRAS}
# Writing takes seconds. An older staged file was left by a writer that died.
STALE_AFTER_SECONDS = 3600
_CACHE = re.compile(r"(\w+::)*(\w*cache|cached):")


def open_storage(root: str, options: Mapping[str, Any]) -> Storage:
    """Return the storage of a local path or an fsspec URL, given the options of its filesystem; see `Lake`."""
    if not root.strip():
        raise ValueError("the lake's root is empty: give a directory or an fsspec URL, such as s3://bucket/lake")
    location, scheme = without_credentials(root), root.partition("://")[0]
    if _CACHE.match(root):
        raise ValueError(
            f"the lake's root {location} goes through a cache, which returns outdated files: give it without the cache"
        )
    try:
        filesystem, path = _open_filesystem(root, options)
    except (ValueError, ImportError) as error:
        reason = redacted(str(error), root, options)
        if isinstance(error, ImportError) and scheme in _EXTRAS:
            reason += f": pip install 'later-reporting-dagster[{_EXTRAS[scheme]}]'"
        raise ValueError(
            f"the lake's root {location} cannot be opened: {reason}. Give a directory or a URL of a scheme that fsspec"
            " knows, with its package installed, and check the storage options and environment variables of the store"
        ) from None
    except Exception as error:
        raise unavailable_error("open", location, error, root, options) from None
    if isinstance(filesystem, fsspec.get_filesystem_class("file")):
        return _LocalStorage(Path(path))
    return _FsspecStorage(filesystem, path, root=root, options=options)


def _open_filesystem(root: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    if _EXTRAS.get(root.partition("://")[0]) == "gcs":
        # By default gcsfs returns a filesystem that first looks up the kind of each bucket by gRPC. It does so again
        # for every file if it may not, and waits for a minute each time if a proxy or an emulator does not support
        # gRPC. The lake needs only the JSON API, which this class uses.
        gcs = import_module("gcsfs.core").GCSFileSystem
        return gcs(**{**gcs._get_kwargs_from_urls(root), **options}), gcs._strip_protocol(root)
    filesystem, path = fsspec.core.url_to_fs(root, **options)
    return filesystem, path


class _LocalStorage(Storage):
    """A directory on this machine. A file is staged beside its target, synced and renamed."""

    is_remote = False

    def __init__(self, root: Path) -> None:
        super().__init__(str(root), {})
        self._root = root
        self._root_existed = root.is_dir()

    def native_path(self, path: str) -> str | None:
        # DuckDB reads these characters as a glob pattern, and they cannot be escaped.
        return None if re.search(r"[*?[]", str(self._root)) else self.location(path)

    def location(self, path: str) -> str:
        return str(self._root / path)

    def directories(self) -> list[str]:
        with self._translated_errors("list", ""), suppress(FileNotFoundError):
            return sorted(entry.name for entry in os.scandir(self._root) if entry.is_dir())
        return []

    def named_files(self, directories: Sequence[str], name: str) -> dict[str, FileVersion]:
        def find(directory: str) -> dict[str, FileVersion]:
            found: dict[str, FileVersion] = {}
            with self._translated_errors("list", directory):
                self._add_named(directory, name, found)
            return found

        return dict(chain.from_iterable(found.items() for found in map_concurrently(find, directories)))

    def _add_named(self, directory: str, name: str, found: dict[str, FileVersion]) -> None:
        if version := self._version(f"{directory}/{name}"):
            found[f"{directory}/{name}"] = version
        # To inspect one file is faster than to open its directory: 2.9 s instead of 12 s for 212,000 files.
        if directory.rpartition("/")[2].startswith(INSTANCE_PREFIX):
            return
        with suppress(FileNotFoundError), os.scandir(f"{self._root}/{directory}") as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    self._add_named(f"{directory}/{entry.name}", name, found)

    def versions(self, paths: Sequence[str]) -> dict[str, FileVersion]:
        found: dict[str, FileVersion] = {}
        for path in paths:
            with self._translated_errors("inspect", path):
                if version := self._version(path):
                    found[path] = version
        return found

    def _version(self, path: str) -> FileVersion | None:
        try:
            status = os.stat(f"{self._root}/{path}")  # noqa: PTH116 - measurably faster for thousands of files
        except FileNotFoundError:
            return None
        return FileVersion(status.st_size, f"{status.st_size}-{status.st_mtime_ns}", modified=status.st_mtime)

    def _read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def _write(self, path: str, data: bytes) -> None:
        target = self._root / path
        self._prepare_directory(target.parent)
        stage = target.with_name(_new_stage_name())
        try:
            with stage.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            stage.replace(target)
        except BaseException:
            with suppress(OSError):
                stage.unlink()
            raise
        # Parents, too: if another writer has just created one, it may not be durable yet.
        for directory in target.parents[: len(target.parts) - len(self._root.parts)]:
            _sync_directory(directory)

    def _remove(self, path: str) -> None:
        (self._root / path).unlink()

    def _prepare_directory(self, directory: Path) -> None:
        """Create a directory below the root, and remove stale staged files from it.

        If the root existed before and is missing now, it is not created again: its disk may be unmounted.
        """
        # Read the flag before checking the root: another thread may create the root in between and set the flag.
        root_existed = self._root_existed
        if not self._root.is_dir():
            if root_existed:
                raise FileNotFoundError(errno.ENOENT, "the lake's root no longer exists")
            for new in reversed([self._root, *(parent for parent in self._root.parents if not parent.exists())]):
                new.mkdir(exist_ok=True)
                _sync_directory(new.parent)
        self._root_existed = True
        directory.mkdir(parents=True, exist_ok=True)
        for file in directory.iterdir():
            if _is_stale(file.name):
                file.unlink(missing_ok=True)


class _FsspecStorage(Storage):
    """Any fsspec filesystem.

    If puts are atomic, a file is put under its final name. On these filesystems a rename is a copy followed by a
    delete, so a rename would not be atomic. On other filesystems a file is staged beside its target and moved; the
    replacement is as atomic as the move of that filesystem.
    """

    is_remote = True

    def __init__(self, filesystem: Any, path: str, *, root: str, options: Mapping[str, Any]) -> None:
        super().__init__(root, options)
        self._filesystem = filesystem
        self._path = path.rstrip("/")
        scheme, separator, rest = without_credentials(root).partition("://")
        self._location = f"{scheme}{separator}{rest.rstrip('/')}"
        protocols = {filesystem.protocol} if isinstance(filesystem.protocol, str) else {*filesystem.protocol}
        self._puts_are_atomic = not _ATOMIC_PUT.isdisjoint(protocols)
        self._lists_by_prefix = self._puts_are_atomic and "prefix" in inspect.signature(filesystem.find).parameters
        # s3fs otherwise looks up the size first, to read files above 50 MB in parts. Worse, it takes the size from a
        # cached listing, though the file may have been replaced since. Releases before 2025.5 read every file in one
        # request, and do not know the argument.
        knows_argument = "s3" in protocols and "max_concurrency" in inspect.signature(filesystem.cat_file).parameters
        self._read_options = {"max_concurrency": 1} if knows_argument else {}

    def location(self, path: str) -> str:
        return f"{self._location}/{path}"

    def directories(self) -> list[str]:
        with self._translated_errors("list", ""), suppress(FileNotFoundError):
            self._filesystem.invalidate_cache()
            listed = self._filesystem.ls(self._path, detail=True)
            return sorted(each["name"].rstrip("/").rpartition("/")[2] for each in listed if each["type"] == "directory")
        return []

    def named_files(self, directories: Sequence[str], name: str) -> dict[str, FileVersion]:
        prefixes = tuple(f"{directory}/" for directory in directories)
        found = self._found(prefixes).items()
        return {path: version for path, version in found if path.startswith(prefixes) and path.endswith(f"/{name}")}

    def versions(self, paths: Sequence[str]) -> dict[str, FileVersion]:
        directories = {f"{path.rpartition('/')[0]}/" for path in paths}
        found = self._found(paths if self._lists_by_prefix else sorted(directories))
        return {path: found[path] for path in paths if path in found}

    def _full_path(self, path: str) -> str:
        return f"{self._path}/{path}"

    def _found(self, prefixes: Sequence[str]) -> dict[str, FileVersion]:
        """Return at least the files whose paths begin with one of the prefixes."""
        if self._lists_by_prefix and prefixes:
            return self._find(os.path.commonprefix(prefixes))
        return dict(chain.from_iterable(listed.items() for listed in map_concurrently(self._find, prefixes)))

    def _find(self, prefix: str) -> dict[str, FileVersion]:
        """Return the version of each file whose path begins with `prefix`, by path.

        Unless the filesystem lists by prefix, `prefix` has to end with a slash.
        """
        # Filesystems differ in whether paths begin with a slash.
        root, full_prefix = self._full_path("").lstrip("/"), self._full_path(prefix).lstrip("/")
        directory, options = self._full_path(prefix).rstrip("/"), {}
        if self._lists_by_prefix:
            # From the bucket: below a directory, filesystems first look up whether it is a file, or list again if they
            # found nothing.
            directory, _, key = full_prefix.partition("/")
            options = {"prefix": key}
        with self._translated_errors("list", prefix.rstrip("/")), suppress(FileNotFoundError):
            # fsspec caches listings, but other processes may have written files since.
            self._filesystem.invalidate_cache()
            found = self._filesystem.find(directory, detail=True, **options)
            by_path = ((name.lstrip("/"), details) for name, details in found.items())
            return {
                path.removeprefix(root): _version_of(details)
                for path, details in by_path
                if path.startswith(full_prefix)
            }
        return {}

    def _read(self, path: str) -> bytes:
        return bytes(self._filesystem.cat_file(self._full_path(path), **self._read_options))

    def _write(self, path: str, data: bytes) -> None:
        target = self._full_path(path)
        if self._puts_are_atomic:
            self._filesystem.pipe_file(target, data)
            return
        directory = target.rpartition("/")[0]
        self._filesystem.makedirs(directory, exist_ok=True)
        self._filesystem.invalidate_cache()
        for name in self._filesystem.ls(directory, detail=False):
            if _is_stale(name.rpartition("/")[2]):
                with suppress(FileNotFoundError):
                    self._filesystem.rm_file(name)
        stage = f"{directory}/{_new_stage_name()}"
        try:
            self._filesystem.pipe_file(stage, data)
            self._filesystem.mv(stage, target)
        except BaseException:
            with suppress(Exception):
                self._filesystem.rm_file(stage)
            raise

    def _remove(self, path: str) -> None:
        self._filesystem.rm_file(self._full_path(path))


def _version_of(details: Mapping[str, Any]) -> FileVersion:
    """Return the version from the details in a listing, whose keys differ between fsspec filesystems."""
    size = int(details.get("size") or 0)
    if tag := details.get("ETag") or details.get("etag"):
        return FileVersion(size, f"{size}-{tag}")
    modified = details.get("mtime") or details.get("LastModified") or details.get("last_modified")
    if isinstance(modified, datetime):
        # For a naive time, any fixed zone works: it is only compared with times that are read in the same way.
        modified = (modified if modified.tzinfo else modified.replace(tzinfo=UTC)).timestamp()
    if not isinstance(modified, int | float):
        return FileVersion(size, None)
    return FileVersion(size, f"{size}-{modified!r}", modified=float(modified))


def _new_stage_name() -> str:
    # Readers, and tools that discover datasets, skip names that begin with a dot.
    return f".stage-{int(time.time())}-{secrets.token_hex(8)}"


def _is_stale(name: str) -> bool:
    """Return whether a file was staged more than `STALE_AFTER_SECONDS` ago, by the time in its name."""
    staged = re.match(r"\.stage-(\d+)", name)
    return staged is not None and time.time() - int(staged[1]) > STALE_AFTER_SECONDS


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network mounts do not support syncing a directory: their server decides when a new name is durable.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
