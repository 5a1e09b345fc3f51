"""The lake's files for DuckDB where it cannot open them by their path: each is read whole, by one request."""

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
    """One version of a file, kept while anybody has it open."""

    data: bytes


class _OpenFile(io.BytesIO):
    """A file as DuckDB reads it."""

    def __init__(self, content: _Content) -> None:
        super().__init__(content.data)  # shares them
        self._content = content


class LakeFiles(fsspec.AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """A read-only filesystem of the methods that DuckDB calls, over a lake's storage.

    Attributes:
        errors: by path why a file could not be read, which DuckDB makes an error of its own.

    Args:
        storage: where the files lie.
        protocol: the scheme of their URLs, by which DuckDB finds this filesystem.
        only_allowed: whether only the files given to `allow` can be opened.
    """

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
        """Return the URL of a file below the lake's root."""
        return f"{self.protocol}://{path}"

    def allow(self, paths: Iterable[str]) -> None:
        """Let these files be opened too."""
        if self._allowed is not None:
            self._allowed.update(paths)

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the URL itself: all are given in full, and a glob's characters in them are their own."""
        return [path]

    def open(self, path: str, mode: str = "rb", **_: Any) -> _OpenFile:
        """Read the whole file.

        Raises:
            PermissionError: it is to be written, or is none of the allowed files.
            LakeUnavailable: it cannot be read, or there is none.
        """
        path = path.removeprefix(self.url(""))
        if mode != "rb" or (self._allowed is not None and path not in self._allowed):
            raise _refusal(path)
        # DuckDB opens a file for its footer and, before it closes that, again for its rows: one request serves both,
        # and both see one version of the file.
        content = self._contents.get(path) or _Content(self._read(path))
        with self._lock:
            self._contents[path] = content
            self._sizes[path] = len(content.data)
        return _OpenFile(content)

    def isdir(self, path: str) -> bool:
        """Refuse: DuckDB looks for a directory only where it is about to write."""
        raise _refusal(path)

    def size(self, path: str) -> int:
        """Return the size of the file as it was last opened."""
        return self._sizes[path.removeprefix(self.url(""))]

    def modified(self, path: str) -> datetime:  # noqa: ARG002
        """Return the time, so that DuckDB keeps nothing of a file for the next query."""
        return datetime.now(UTC)

    def _read(self, path: str) -> bytes:
        try:
            data = self._storage.read(path)
            if data is None:
                raise removed(self._storage, path)
        except LakeUnavailable as error:
            self.errors[path] = error
            raise
        self.errors.pop(path, None)
        return data


def _refusal(path: str) -> PermissionError:
    return PermissionError(f"access to {path} is disabled: files of the tables are read, and nothing else")


def protocol_of(storage: Storage) -> str:
    """Return a scheme that no other storage of this process has, for a connection that several share."""
    return f"later{hashlib.sha256(storage.identity.encode()).hexdigest()[:16]}"


def removed(storage: Storage, path: str) -> LakeUnavailable:
    """Return the error of a file that was listed and is not there."""
    return LakeUnavailable(f"cannot read {storage.shown(path)}: it has just been removed. Next step: run again")
