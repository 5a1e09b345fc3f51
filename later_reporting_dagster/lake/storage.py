"""Read and replace whole files below one root. Errors never have credentials."""

import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain, count
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from later_reporting_dagster.lake.file_metadata import FileMetadata
from later_reporting_dagster.lake.parquet_file import FileDamaged, parse_metadata

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")

# Enough to hide the latency of an object store, few enough for any limit on open files.
REMOTE_THREADS = 32
# Enough to sync several files at once. More threads compete for Python's interpreter lock.
LOCAL_THREADS = 4
# Files that are read ahead, and so are in memory together.
_FILES_AHEAD = 256
# Names the threads of each pool.
_POOLS = count()
# In URLs of these schemes, the part before an @ is a container or a part of the path, not a user.
_WITHOUT_USER = {"abfs", "abfss", "file", "local"}
# A whole URL. A connection string, for example, may contain a URL, but is not one.
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://\S*")
_NEXT_STEP = (
    "check that the lake's root can be reached with these settings, has free space, and may be written by this user;"
    " then run again"
)


class LakeUnavailable(OSError):  # noqa: N818 - a state of the lake, not a bug
    """The lake cannot be read or written. The message has the location and the next step, and no credentials."""


class ReplacedMeanwhile(LakeUnavailable):
    """Another writer has replaced the file since it was read, so it was not written."""


class FileVersion(NamedTuple):
    """The version of a file, as a listing reports it, and its size.

    Attributes:
        identity: identifies the version. Different versions have different identities, but for two of the same size
            and modification time on a local disk. None in memory, and in stores without ETags.
    """

    bytes: int
    identity: str | None


class Storage(ABC):
    """Files below one root, each replaced as a whole: a reader sees either the old file or the new one.

    Paths are relative to the root and `/`-separated. Any error is raised as `LakeUnavailable`.
    """

    is_remote: bool
    """Whether calls wait for a network."""

    def __init__(self, root: str, options: Mapping[str, Any]) -> None:
        self._secrets = root, options

    @property
    @abstractmethod
    def compares(self) -> bool:
        """Whether `put_all` keeps a file that another writer has replaced since it was read."""

    def map(self, function: Callable[[_Argument], _Result], arguments: Iterable[_Argument]) -> list[_Result]:
        """Return `function` of each argument, in order. Calls run in threads, because they wait for this storage."""
        items = list(arguments)
        if len(items) < 2:
            return [function(item) for item in items]
        return self._map_in_threads(function, items)

    def _map_in_threads(self, function: Callable[[_Argument], _Result], items: Sequence[_Argument]) -> list[_Result]:
        name = f"lake_{next(_POOLS)}_"
        try:
            with ThreadPoolExecutor(REMOTE_THREADS if self.is_remote else LOCAL_THREADS, name) as threads:
                return list(threads.map(function, items))
        finally:
            # The pool does not wait for a thread of whose start an interrupt came.
            while any(thread.name.startswith(name) for thread in threading.enumerate()):
                time.sleep(0.01)

    def read(self, path: str) -> bytes | None:
        """Read a whole file; None if it does not exist."""
        with self._translated_errors("read", path), suppress(FileNotFoundError):
            return self._read(path)
        return None

    def read_with_version(self, path: str) -> tuple[bytes, FileVersion | None] | None:
        """Read a whole file, and its version, which is None unless writing compares it; None if it does not exist."""
        with self._translated_errors("read", path), suppress(FileNotFoundError):
            return self._read_with_version(path)
        return None

    def read_all(self, paths: Sequence[str]) -> Iterator[bytes | LakeUnavailable | None]:
        """Yield each file as `read` does, or its error, in order. Threads read ahead.

        Decode a small file in the calling thread: several threads would mostly wait for Python's interpreter lock.
        """

        def read(path: str) -> bytes | LakeUnavailable | None:
            try:
                return self.read(path)
            except LakeUnavailable as error:
                return error

        # To hand over a file of a disk takes longer than to read it.
        together = 1 if self.is_remote else _FILES_AHEAD // LOCAL_THREADS
        for start in range(0, len(paths), _FILES_AHEAD):
            ahead = paths[start : start + _FILES_AHEAD]
            groups = [ahead[first : first + together] for first in range(0, len(ahead), together)]
            yield from chain.from_iterable(self.map(lambda group: [read(path) for path in group], groups))

    def read_footer(self, path: str) -> FileMetadata | None:
        """Read the footer of a Parquet file; None if the file does not exist. An object store sends the whole file."""
        data = self.read(path)
        return None if data is None else parse_metadata(data)

    def write(self, path: str, data: bytes) -> None:
        """Replace a file, or create it. After the return, it survives a loss of power."""
        for error in self.put_all({path: data}).values():
            raise error

    def put_all(
        self, files: Mapping[str, bytes], *, replaced: Mapping[str, FileVersion | None] | None = None
    ) -> dict[str, LakeUnavailable]:
        """Replace files, given by path; return the error of each that was not replaced. Interrupts wait for its end.

        `replaced`: the version of each file that may be replaced, None for none. If the storage compares, a file with
        another version stays, and its error is `ReplacedMeanwhile`.
        """

        def error_of(path: str) -> LakeUnavailable | None:
            try:
                with self._translated_errors("write", path):
                    self._write(path, files[path], replaced)
            except LakeUnavailable as error:
                return error
            return None

        # One file, too, in a thread: an interrupt waits until it is written. An interrupted call of fsspec would go on
        # in the thread of its event loop, and the file appear after the end of the run.
        errors = zip(files, self._map_in_threads(error_of, [*files]), strict=True)
        failed = {path: error for path, error in errors if error is not None}
        return failed | self._sync_directories([path for path in files if path not in failed])

    def _sync_directories(self, paths: Sequence[str]) -> dict[str, LakeUnavailable]:  # noqa: ARG002
        """Let the names of written files survive a loss of power, too; return the error of each for which it fails."""
        return {}

    def remove(self, path: str) -> None:
        """Remove a file, if it exists."""
        with self._translated_errors("remove", path), suppress(FileNotFoundError):
            self._remove(path)

    @abstractmethod
    def remove_directory(self, directory: str) -> None:
        """Remove a directory at the root with all that is below it, if it exists."""

    def native_path(self, path: str) -> str | None:  # noqa: ARG002
        """Return the path in the local file system; None if the file has to be read through this class."""
        return None

    @abstractmethod
    def location(self, path: str) -> str:
        """Return the location of a file for messages: a path on a local disk, else a URL, without credentials."""

    def signed_link(self, path: str, *, seconds: int, content_type: str) -> str:  # noqa: ARG002
        """Return a URL at which anybody can read a file of an object store for some time.

        Args:
            content_type: what the store says that the file is. A browser shows only what it knows.
        """
        raise ValueError(f"{self.location(path)} is on a disk, so no link leads to it: send a copy of the file")

    @abstractmethod
    def directories(self, directory: str = "") -> list[str]:
        """List the names of the directories in a directory, or at the root, sorted."""

    @abstractmethod
    def named_files(self, directories: Sequence[str], name: str) -> dict[str, FileVersion]:
        """Return the version of each file `name` below several directories, by path.

        An object store needs one request: it lists the common prefix of the directories, and the listing has the
        versions. A local disk is not searched below the directories of instances.
        """

    @abstractmethod
    def files_in(self, directory: str) -> dict[str, FileVersion]:
        """Return the version of each file of a directory without subdirectories, by path."""

    @abstractmethod
    def versions(self, paths: Sequence[str]) -> dict[str, FileVersion]:
        """Return the version of each of these files that exists.

        An object store needs one request: it lists the common prefix of `paths`.
        """

    @abstractmethod
    def _read(self, path: str) -> bytes: ...

    @abstractmethod
    def _read_with_version(self, path: str) -> tuple[bytes, FileVersion | None]: ...

    @abstractmethod
    def _write(self, path: str, data: bytes, replaced: Mapping[str, FileVersion | None] | None) -> None: ...

    @abstractmethod
    def _remove(self, path: str) -> None: ...

    @contextmanager
    def _translated_errors(self, action: str, path: str) -> Iterator[None]:
        """Raise any error as `LakeUnavailable`: each filesystem has its own classes of errors."""
        try:
            yield
        except (LakeUnavailable, FileDamaged):
            raise
        except Exception as error:
            unavailable = unavailable_error(action, self.location(path), error, *self._secrets)
            # A traceback also prints the chained error, so it is omitted if its message had to be redacted.
            raise unavailable from (error if str(error) in str(unavailable) else None)


def without_credentials(root: str) -> str:
    """Return a URL without its userinfo and query, which may hold credentials; a local path is unchanged."""
    scheme, separator, rest = root.partition("://")
    if not separator:
        return root
    rest = rest.partition("?")[0]
    if scheme not in _WITHOUT_USER:
        # Up to the last @ when there is a colon before it, because a password may contain / and @.
        rest = re.sub(r"^([^@]*:.*|[^/@]*)@", "", rest)
    return f"{scheme}://{rest}"


def unavailable_error(
    action: str, location: str, error: Exception, root: str, options: Mapping[str, Any]
) -> LakeUnavailable:
    """Return the error for a failed action. The message has no credentials of the root or the storage options."""
    reason = redacted(str(error) or type(error).__name__, root, options)
    return LakeUnavailable(f"cannot {action} {location}: {reason}. Next step: {_NEXT_STEP}")


def redacted(text: str, root: str, options: Mapping[str, Any]) -> str:
    """Return the text without the credentials in the root and in the strings of the storage options.

    Of a URL, the userinfo and the query are redacted, of any other option the whole string.
    """
    values = list(_string_values(options))
    urls = [root, *(value for value in values if _URL.fullmatch(value))]
    secret_texts = [value for value in values if not _URL.fullmatch(value)]
    for url in sorted(urls, key=len, reverse=True):
        location = without_credentials(url)
        text = text.replace(url, location)
        parts = [part for part in re.split(r"://|[@?:&=]", url) if part]
        # Libraries decode userinfo and queries.
        secret_texts += [part for part in [*parts, *map(unquote, parts)] if part not in location]
    for value in sorted(secret_texts, key=len, reverse=True):
        text = text.replace(value, "…")
    return text


def _string_values(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _string_values(each)
    elif isinstance(value, str) and value:
        yield value
