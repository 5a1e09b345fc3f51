"""fsspec filesystem through which DuckDB reads a lake whose files it cannot, or must not, open by path.

Each file is read as a whole, by one request.
"""

import hashlib
import io
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

import fsspec

from later_reporting_dagster.lake.storage import LakeUnavailable, Storage


@dataclass(frozen=True, eq=False)
class _Content:
    """The bytes of one version of a file. A class, because there are no weak references to `bytes`.

    Every open file refers to its content, so it is kept until the last one is closed.
    """

    data: bytes


class _OpenFile(io.BytesIO):
    """A file that DuckDB has opened."""

    def __init__(self, content: _Content) -> None:
        super().__init__(content.data)  # shares the bytes until they are written to
        self._content = content


class LakeFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """Read-only filesystem with the methods that DuckDB calls, over the storage of a lake.

    Attributes:
        errors: for each path, why the file could not be read. DuckDB replaces these errors by its own.

    Args:
        storage: the storage of the lake.
        protocol: the scheme of the URLs. DuckDB uses this filesystem for all URLs with this scheme.
        only_allowed: whether only files passed to `allow` can be opened.
    """

    # fsspec would otherwise return the same instance for equal arguments.
    cachable = False

    def __init__(self, storage: Storage, protocol: str, *, only_allowed: bool = False) -> None:
        super().__init__()
        self.protocol = protocol
        self.errors: dict[str, LakeUnavailable] = {}
        self._storage = storage
        self._allowed: set[str] | None = set() if only_allowed else None
        self._contents: WeakValueDictionary[str, _Content] = WeakValueDictionary()
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def url(self, path: str) -> str:
        """Return the URL of a file, given its path relative to the lake's root."""
        return f"{self.protocol}://{path}"

    def allow(self, paths: Iterable[str]) -> None:
        """Allow more files to be opened, by path."""
        if self._allowed is not None:
            self._allowed.update(paths)

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the path itself: `*` and `[` are part of the names of files here, not patterns."""
        return [path]

    def open(self, path: str, mode: str = "rb", **_: Any) -> _OpenFile:
        """Read the whole file.

        Raises:
            PermissionError: the mode is not `rb`, or the file is not allowed.
            LakeUnavailable: the file cannot be read, or does not exist.
        """
        path = path.removeprefix(self.url(""))
        if mode != "rb" or (self._allowed is not None and path not in self._allowed):
            raise _access_denied(path)
        # DuckDB opens a file for its footer and, before closing it, again for its rows. Sharing the content saves a
        # request, and both see one version of the file.
        content = self._contents.get(path) or _Content(self._read(path))
        with self._lock:
            self._contents[path] = content
            self._sizes[path] = len(content.data)
        return _OpenFile(content)

    def isdir(self, path: str) -> bool:
        """Raise `PermissionError`: DuckDB looks for a directory only before it writes."""
        raise _access_denied(path)

    def size(self, path: str) -> int:
        """Return the size of a file when it was last opened."""
        return self._sizes[path.removeprefix(self.url(""))]

    def modified(self, path: str) -> datetime:  # noqa: ARG002
        """Return the current time, so that DuckDB does not reuse what it cached of a file in an earlier query."""
        return datetime.now(UTC)

    def _read(self, path: str) -> bytes:
        try:
            data = self._storage.read(path)
            if data is None:
                raise removed_file_error(self._storage, path)
        except LakeUnavailable as error:
            self.errors[path] = error
            raise
        self.errors.pop(path, None)
        return data


def _access_denied(path: str) -> PermissionError:
    return PermissionError(f"access to {path} is disabled: only files of the tables can be read")


def protocol_for(storage: Storage) -> str:
    """Return a URL scheme that differs between storages, so that several storages can share a connection."""
    return f"later{hashlib.sha256(storage.identity.encode()).hexdigest()[:16]}"


def removed_file_error(storage: Storage, path: str) -> LakeUnavailable:
    """Return the error for a file that was listed but no longer exists."""
    return LakeUnavailable(f"cannot read {storage.location(path)}: it was removed meanwhile. Next step: run again")
