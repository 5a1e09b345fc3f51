"""Snapshots: the rows of a query in their order, from which all pages of a pagination are read.

The first page makes one, as a table in a temporary DuckDB file of its own. Its name stands for the query, and for the
versions of the files of the lake that it was read from: what has the same name has the same rows. The least recently
used snapshots are dropped.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import duckdb

from later_reporting_dagster.lake.database import literal
from later_reporting_dagster.server.responses import ProblemError

_logger = logging.getLogger(__name__)

ROW = "row"
"""The column of a snapshot: a row as JSON."""

MAX_FILES = 256  # each is kept open
_FOLDER_PREFIX = "later-reporting-serve-"
_NO_SPACE = (os.strerror(errno.ENOSPC), os.strerror(errno.EFBIG), os.strerror(errno.EDQUOT))


class OutOfSpace(ProblemError):  # noqa: N818 - named for what happened
    """The rows of a query need more disk space than there is. The log has the reason, which may name folders."""

    def __init__(self, reason: object) -> None:
        _logger.error("No room for the rows of a query: %s", str(reason).partition("\n")[0])
        detail = (
            "the rows of this query need more temporary disk space than the server has: query fewer days or instances,"
            " or try again later"
        )
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, detail)


class DiskFull(OutOfSpace):
    """A file cannot be written."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """Create a temporary folder for the `with` block, and remove it at the end, with those that killed processes left.

    It is in the directory that `TMPDIR` names.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER_PREFIX}*"):
        # The lock fails while the process of the folder runs. An empty folder may be about to be locked.
        with suppress(OSError), _locked(folder):
            if any(folder.iterdir()):
                shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX, ignore_cleanup_errors=True) as name, _locked(Path(name)):
        (Path(name) / "in-use").touch()
        yield Path(name)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class Snapshot:
    """A snapshot that is kept.

    Attributes:
        total: Number of its rows.
        headers: Headers of the responses with its pages.
    """

    total: int
    bytes: int
    headers: Mapping[str, str] = field(default_factory=dict)


class Snapshots:
    """The snapshots that are kept, by name. Other threads may only call `write`.

    Args:
        max_bytes: Size of all files that are kept; also that of what a write may spill, and so of what it writes.
    """

    def __init__(self, folder: Path, *, max_bytes: float) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, Snapshot] = OrderedDict()  # the last one used last
        # One thread, in which rows of a range come in their order. Pages need little memory.
        self._connection = duckdb.connect(config={"memory_limit": "200MB", "threads": 1})

    def close(self) -> None:
        self._connection.close()

    def write(self, name: str, sql: str, connection: duckdb.DuckDBPyConnection) -> None:
        """Write the rows of a query in their order, before `add` keeps them; raise `OutOfSpace`."""
        try:
            connection.execute(f"SET max_temp_directory_size = '{self._max_bytes:.0f}B'")
            # Small groups: each thread keeps the rows of one in memory before they are written.
            connection.execute(f"ATTACH {literal(str(self.folder / name))} AS new (ROW_GROUP_SIZE 20480)")
            connection.execute(f"CREATE TABLE new.t AS {sql}")
            connection.execute("CHECKPOINT new")
            connection.execute("DETACH new")
        except Exception as error:
            self._remove_file(name)
            if any(reason in str(error) for reason in _NO_SPACE):
                raise DiskFull(error) from error
            if "max_temp_directory_size" in str(error):
                raise OutOfSpace(error) from error
            raise

    def add(self, name: str) -> None:
        """Keep a snapshot that has been written, and drop others for it; raise `OutOfSpace` if it alone is too big."""
        size = (self.folder / name).stat().st_size
        if size > self._max_bytes:
            self._remove_file(name)
            raise OutOfSpace(f"{size:,} bytes are more than --snapshot-gb")
        self._connection.execute(f'ATTACH {literal(str(self.folder / name))} AS "{name}" (READ_ONLY)')
        ((total,),) = self._connection.execute(f'SELECT count(*) FROM "{name}".t').fetchall()
        self._kept[name] = Snapshot(total, size)
        while sum(each.bytes for each in self._kept.values()) > self._max_bytes or len(self._kept) > MAX_FILES:
            self._drop_oldest()

    def get(self, name: str) -> Snapshot | None:
        """Return a snapshot, which becomes the one that was used last; None if it is not kept."""
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)

    def read(self, name: str, rows: slice) -> bytes:
        """Return some rows of a snapshot that is kept as a JSON array."""
        sql = f'SELECT "{ROW}" FROM "{name}".t WHERE rowid BETWEEN ? AND ?'
        found = self._connection.execute(sql, [rows.start, rows.stop - 1]).fetchall()
        return f"[{','.join(row for (row,) in found)}]".encode()

    def clear(self) -> None:
        """Drop all snapshots, because the disk is full."""
        while self._kept:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        name, _ = self._kept.popitem(last=False)
        self._connection.execute(f'DETACH "{name}"')
        self._remove_file(name)

    def _remove_file(self, name: str) -> None:
        for suffix in ("", ".wal"):
            (self.folder / f"{name}{suffix}").unlink(missing_ok=True)


def digest(*values: object) -> str:
    """Return a short text that stands for some values: a query can have thousands of ids."""
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
