"""fsspec filesystem through which DuckDB and Arrow read a lake whose files they cannot, or must not, open by path.

Each file is read as a whole, by one request.
"""

import io
import re
import threading
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote
from weakref import WeakValueDictionary

import fsspec

from later_reporting_dagster.lake.paths import INSTANCE_PREFIX
from later_reporting_dagster.lake.storage import LakeUnavailable, Storage

# In the URL of a path that `hides_instance`, in place of `instance_id=`.
_HIDDEN_PREFIX = "hidden-"


def hides_instance(path: str) -> bool:
    """Return whether the URL of a path has no `instance_id=`, because the id, such as `a/../b`, has the part `..`.

    DuckDB decodes the ids in paths, and then takes such a part for the folder above, which is not allowed.
    """
    return ".." in path and ".." in re.split(r"[/\\]", unquote(path))


class _OpenFile(io.BytesIO):
    def __init__(self, data: bytes) -> None:
        super().__init__(data)  # shares the bytes until they are written to
        self.data = data


class LakeFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """Read-only filesystem with the methods that DuckDB and Arrow call, over the storage of a lake.

    Attributes:
        protocol: the scheme of the URLs, for which DuckDB uses this filesystem.
        allowed: the paths that can be opened; None for all.
    """

    protocol = "later"
    # fsspec would otherwise return the same instance for equal arguments.
    cachable = False

    def __init__(self, storage: Storage, *, allowed: set[str] | None = None) -> None:
        super().__init__()
        self.allowed = allowed
        self._storage = storage
        self._open_files: WeakValueDictionary[str, _OpenFile] = WeakValueDictionary()
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def url(self, path: str) -> str:
        if hides_instance(path):
            path = path.replace("%", "%25").replace(INSTANCE_PREFIX, _HIDDEN_PREFIX)
        return f"{self.protocol}://{path}"

    def path_of(self, url: str) -> str:
        """Return the path that `url` was given."""
        path = url.removeprefix(f"{self.protocol}://")
        if f"/{_HIDDEN_PREFIX}" not in path:
            return path
        return path.replace(_HIDDEN_PREFIX, INSTANCE_PREFIX).replace("%25", "%")

    def glob(self, path: str, **_: Any) -> list[str]:
        """Return the path itself: `*` and `[` are part of the names of files here, not patterns."""
        return [path]

    def open(self, path: str, mode: str = "rb", **_: Any) -> _OpenFile:
        path = self.path_of(path)
        if mode != "rb" or (self.allowed is not None and path not in self.allowed):
            raise _access_denied(path)
        # DuckDB opens a file for its footer and, before closing it, again for its rows. Sharing the content saves a
        # request, and both see one version of the file.
        earlier = self._open_files.get(path)
        file = _OpenFile(self._read(path) if earlier is None else earlier.data)
        with self._lock:
            self._open_files[path] = file
            self._sizes[path] = len(file.data)
        return file

    def isfile(self, path: str) -> bool:  # noqa: ARG002
        """Return True: Arrow asks before it opens a file, which would be another request."""
        return True

    def isdir(self, path: str) -> bool:
        """Raise `PermissionError`: DuckDB looks for a directory only before it writes."""
        raise _access_denied(path)

    def rm(self, path: str, **_: Any) -> None:
        """Raise `PermissionError`: DuckDB removes what a COPY with OVERWRITE would replace."""
        raise _access_denied(path)

    def size(self, path: str) -> int:
        """Return the size of a file when it was last opened."""
        return self._sizes[self.path_of(path)]

    def modified(self, path: str) -> datetime:  # noqa: ARG002
        """Return the current time, so that DuckDB does not reuse what it cached of a file in an earlier query."""
        return datetime.now(UTC)

    def _read(self, path: str) -> bytes:
        data = self._storage.read(path)
        if data is None:
            raise removed_file_error(self._storage.location(path))
        return data


def _access_denied(path: str) -> PermissionError:
    return PermissionError(f"access to {path} is disabled: only files of the tables can be read")


def removed_file_error(location: str) -> LakeUnavailable:
    return LakeUnavailable(f"cannot read {location}: it was removed meanwhile. Next step: run again")
