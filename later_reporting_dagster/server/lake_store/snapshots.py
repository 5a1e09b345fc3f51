"""Snapshots: the rows of a query in their order, from which all pages of a pagination are read.

The first page makes one, as a table in a temporary DuckDB file of its own. The least recently used ones are dropped.
"""

import errno
import fcntl
import logging
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from itertools import count
from pathlib import Path

import duckdb

from later_reporting_dagster.lake.database import literal
from later_reporting_dagster.server.routes import ProblemError

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
    """The rows of a query, as they were in some version of the files."""

    version: bytes
    file: Path
    total: int  # number of the rows
    bytes: int
    headers: Mapping[str, str]  # of the responses with its pages


class Snapshots:
    """The snapshots that are kept, by query and version. Other threads may only call `write`.

    Args:
        max_bytes: Size of all files that are kept; also that of what a write may spill, and so of what it writes.
    """

    def __init__(self, folder: Path, *, max_bytes: float) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._numbers = count()
        self._kept: OrderedDict[tuple[bytes, bytes], Snapshot] = OrderedDict()  # the last one used last
        # One thread, in which rows of a range come in their order. Pages need little memory.
        self._connection = duckdb.connect(config={"memory_limit": "200MB", "threads": 1})

    def close(self) -> None:
        self._connection.close()

    def write(self, sql: str, connection: duckdb.DuckDBPyConnection) -> Path:
        """Write the rows of a query in their order, before `add` keeps them; raise `OutOfSpace`."""
        file = self.folder / f"s{next(self._numbers)}"
        try:
            connection.execute(f"SET max_temp_directory_size = '{self._max_bytes:.0f}B'")
            # Small groups: each thread keeps the rows of one in memory before they are written.
            connection.execute(f"ATTACH {literal(str(file))} AS new (ROW_GROUP_SIZE 20480)")
            connection.execute(f"CREATE TABLE new.t AS {sql}")
            connection.execute("CHECKPOINT new")
            connection.execute("DETACH new")
        except Exception as error:
            _remove(file)
            if any(reason in str(error) for reason in _NO_SPACE):
                raise DiskFull(error) from error
            if "max_temp_directory_size" in str(error):
                raise OutOfSpace(error) from error
            raise
        return file

    def add(self, query: bytes, version: bytes, file: Path, headers: Mapping[str, str]) -> Snapshot:
        """Keep what has been written, and drop others for it; raise `OutOfSpace` if it alone is too big."""
        size = file.stat().st_size
        if size > self._max_bytes:
            _remove(file)
            raise OutOfSpace(f"{size:,} bytes are more than --snapshot-gb")
        self._connection.execute(f"ATTACH {literal(str(file))} AS {file.name} (READ_ONLY)")
        ((total,),) = self._connection.execute(f"SELECT count(*) FROM {file.name}.t").fetchall()
        added = self._kept[query, version] = Snapshot(version, file, total, size, headers)
        while sum(each.bytes for each in self._kept.values()) > self._max_bytes or len(self._kept) > MAX_FILES:
            self._drop_oldest()
        return added

    def get(self, query: bytes, version: bytes) -> Snapshot | None:
        """Return a snapshot, which becomes the one that was used last; None if it is not kept."""
        if (query, version) in self._kept:
            self._kept.move_to_end((query, version))
        return self._kept.get((query, version))

    def read(self, snapshot: Snapshot, rows: slice) -> bytes:
        """Return some rows of a snapshot that is kept as a JSON array."""
        sql = f'SELECT "{ROW}" FROM {snapshot.file.name}.t WHERE rowid BETWEEN ? AND ?'
        found = self._connection.execute(sql, [rows.start, rows.stop - 1]).fetchall()
        return f"[{','.join(row for (row,) in found)}]".encode()

    def clear(self) -> None:
        """Drop all snapshots, because the disk is full."""
        while self._kept:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, dropped = self._kept.popitem(last=False)
        self._connection.execute(f"DETACH {dropped.file.name}")
        _remove(dropped.file)


def _remove(file: Path) -> None:
    for path in (file, file.with_name(f"{file.name}.wal")):
        path.unlink(missing_ok=True)
