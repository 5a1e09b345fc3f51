"""Snapshots: the rows of a query, written once by DuckDB, from which all pages of a pagination are read.

A snapshot is a table of rows in no order. A block is a copy of 50,000 of them in an order that is asked for, so that a
page is a range of it. Each table has a database file of its own, because DuckDB does not shrink a file from which a
table is dropped. The least recently used files are removed.

Names of tables: `{key}_{version}` for the rows of a query, with `_{part}` for a block.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import duckdb

from later_reporting_dagster.contract.parameters import MAX_PAGE_NUMBER, MAX_PAGE_SIZE
from later_reporting_dagster.lake.database import literal
from later_reporting_dagster.server.responses import ProblemError

_logger = logging.getLogger(__name__)

ROW, TIE = "row", "tie"
"""Columns of the rows of a snapshot: a row as JSON, and a number that orders rows of equal sort values."""

BLOCK_ROWS = MAX_PAGE_NUMBER * MAX_PAGE_SIZE
"""Numbered pages are all in the first block."""

MAX_FILES = 256  # each is kept open

_MAX_KEPT, _MAX_KEPT_LENGTH = 32, 2**20  # blocks of which rows are kept in memory, and the length of these

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


class LimitReached(OutOfSpace):
    """All files together need more than `--snapshot-gb`."""

    def __init__(self) -> None:
        super().__init__("--snapshot-gb is reached")


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


class Tables:
    """The tables of all snapshots, each in a database file. Other threads may only call the methods that write.

    Args:
        max_bytes: Size of all files in the folder, with those that are being written and what DuckDB spills.
        memory_gb: Memory limit of each write.
    """

    def __init__(self, folder: Path, *, max_bytes: float, memory_gb: float) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self.memory_gb = memory_gb
        # One thread, in which rows of a range come in their order. Pages need little memory.
        self._connection = duckdb.connect(config={"memory_limit": f"{500 * memory_gb:.0f}MB", "threads": 1})
        self.rows: OrderedDict[str, int] = OrderedDict()  # number of rows of each table, the last one used last
        self.headers: dict[str, Mapping[str, str]] = {}  # of the responses with rows of a snapshot
        self._pinned: Counter[str] = Counter()
        self._writing: list[duckdb.DuckDBPyConnection] = []  # in other threads, the longest one first
        # Rows of the blocks that were read last, and the number of the first of them. A name stands for the same rows.
        self._kept: OrderedDict[str, tuple[int, list[str]]] = OrderedDict()

    def close(self) -> None:
        self._connection.close()

    def read(self, name: str, rows: slice) -> bytes:
        """Return some rows of a block as a JSON array.

        A page that follows those in memory is read with the next four, which takes little longer.
        """
        first, kept = self._kept.pop(name, (0, []))
        if not first <= rows.start <= rows.stop <= first + len(kept):
            pages = 5 if kept and rows.start == first + len(kept) else 1
            end = rows.start + pages * (rows.stop - rows.start)
            sql = f'SELECT "{ROW}" FROM "{name}".t WHERE rowid BETWEEN ? AND ?'
            found = self._connection.execute(sql, [rows.start, end - 1]).fetchall()
            first, kept = rows.start, [row for (row,) in found]
        if sum(map(len, kept)) <= _MAX_KEPT_LENGTH:
            self._kept[name] = first, kept
        if len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        return f"[{','.join(kept[rows.start - first : rows.stop - first])}]".encode()

    def write_rows(self, name: str, sql: str, connection: duckdb.DuckDBPyConnection) -> None:
        """Write the rows of a query. A snapshot has `ROW`, `TIE` and the columns that they can be sorted by."""
        path = self.folder / name
        self._writing.append(connection)
        try:
            connection.execute(f"SET max_temp_directory_size = '{self._max_bytes:.0f}B'")
            # Small groups: each thread keeps the rows of one in memory before they are written.
            connection.execute(f"ATTACH {literal(str(path))} AS new (ROW_GROUP_SIZE 20480)")
            connection.execute(f"CREATE TABLE new.t AS {sql}")
            connection.execute("CHECKPOINT new")
            connection.execute("DETACH new")
        except Exception as error:
            self.remove_file(name)
            if any(reason in str(error) for reason in _NO_SPACE):
                raise DiskFull(error) from error
            if isinstance(error, duckdb.InterruptException) or "max_temp_directory_size" in str(error):
                raise LimitReached from error
            if "Out of Memory" in str(error):
                detail = "the query needs more memory than --memory-gb allows: query fewer days, or raise it"
                raise ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, detail) from error
            raise
        finally:
            self._writing.remove(connection)

    def interrupt_longest_write(self) -> None:
        """Make the longest write in other threads raise `LimitReached`: DuckDB has no limit for the size of a file."""
        for connection in self._writing[:1]:
            with suppress(duckdb.Error):  # it was closed meanwhile
                connection.interrupt()

    def write_block(self, name: str, *, of: str, order: str, number: int) -> str:
        """Write the rows of a block, with those of a page that begins at its end."""
        chosen = (
            f"SELECT rowid FROM rows.t ORDER BY {order}, rowid"
            f" LIMIT {BLOCK_ROWS + MAX_PAGE_SIZE - 1} OFFSET {number * BLOCK_ROWS}"
        )
        sql = f'SELECT "{ROW}" FROM rows.t WHERE rowid IN ({chosen}) ORDER BY {order}, rowid'
        with tempfile.TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as spill:
            config: dict[str, Any] = {"memory_limit": f"{1000 * self.memory_gb:.0f}MB", "temp_directory": spill}
            with duckdb.connect(config=config) as connection:
                connection.execute(f"ATTACH {literal(str(self.folder / of))} AS rows (READ_ONLY)")
                self.write_rows(name, sql, connection)
        return name

    def add(self, name: str) -> None:
        """Add a table that has been written, unless it is too large."""
        if not self.make_room():
            self.remove_file(name)
            raise LimitReached
        self._connection.execute(f'ATTACH {literal(str(self.folder / name))} AS "{name}" (READ_ONLY)')
        ((self.rows[name],),) = self._connection.execute(f'SELECT count(*) FROM "{name}".t').fetchall()

    @contextmanager
    def pinned(self, *names: str) -> Iterator[None]:
        """Keep tables during the `with` block."""
        self._pinned.update(names)
        try:
            yield
        finally:
            self._pinned.subtract(names)
            self._pinned += Counter()  # without those that are no longer pinned

    def make_room(self, max_bytes: float | None = None) -> bool:
        """Remove the least recently used tables that are not pinned until the limit is kept; return whether it is."""
        max_bytes = self._max_bytes if max_bytes is None else max_bytes
        for name in [each for each in self.rows if each not in self._pinned]:
            if _size(self.folder) <= max_bytes and len(self.rows) < MAX_FILES:
                return True
            del self.rows[name]
            self.headers.pop(name, None)
            self._connection.execute(f'DETACH "{name}"')
            self.remove_file(name)
        return _size(self.folder) <= max_bytes

    def remove_file(self, name: str) -> None:
        for suffix in ("", ".wal"):
            (self.folder / f"{name}{suffix}").unlink(missing_ok=True)


def table_name(key: str, version: bytes) -> str:
    return f"{key}_{version.hex()}"


def digest(*values: object) -> str:
    """Return a short text that stands for some values: a query can have thousands of ids."""
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _size(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # removed meanwhile
                total += 512 * Path(parent, name).lstat().st_blocks
    return total
