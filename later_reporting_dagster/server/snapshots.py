"""Snapshots: the rows of a query, rendered once, from which all pages of a pagination are read.

The rendered rows and the values that they can be sorted by are in an unnamed temporary file, which the system removes
when it is closed, also if the process is killed. In memory are the offsets of the rows, and the orders in use.
"""

import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from later_reporting_dagster.contract.parameters import MAX_PAGE_NUMBER, MAX_PAGE_SIZE

ROW, TIE = "row", "tie"
"""Columns of the batches of a snapshot: a row as JSON, and a number that orders rows of equal sort values."""

NO_INTEGER = np.iinfo(np.int64).min
"""Stands for null in an integer column that rows can be sorted by. In a column of floats, NaN does."""

MAX_SNAPSHOTS = 256  # each keeps a file open

_VALUE_BYTES = 8
_SEPARATOR = b","
_LEADING_ROWS = MAX_PAGE_NUMBER * MAX_PAGE_SIZE
_COPIED_ROWS = 1_000
_DTYPES = {pa.int64(): np.int64, pa.uint64(): np.uint64, pa.float64(): np.float64}

_Values = NDArray[Any]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column in the file of a snapshot, as (offset, number of values) of its part in each batch."""

    dtype: type[Any]
    parts: Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Order:
    """Positions of all rows in ascending order. Those without a value come last."""

    positions: _Values
    with_value: int


class SnapshotNotWritten(Exception):  # noqa: N818 - named for what happened
    """A snapshot cannot be written. The message has the reason and the next step."""


class Snapshot:
    """The rows of a query. Use `write_snapshot` to create one.

    Attributes:
        version: Identifies the files of the lake that the rows were read from.
        headers: Headers of the responses.
    """

    def __init__(
        self,
        file: "_TemporaryFile",
        *,
        version: bytes,
        starts: _Values,
        lengths: _Values,
        columns: Mapping[str, _Column],
    ) -> None:
        self.version = version
        self.headers: Mapping[str, str] = {}
        self._file = file
        self._starts, self._lengths = starts, lengths
        self._columns = columns
        self._orders: dict[str, _Order] = {}
        self._leading: dict[tuple[str, bool], _Values] = {}
        self._by_tie: _Values | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._starts)

    @property
    def file_size(self) -> int:
        """Size of the file in bytes."""
        return self._file.size

    def is_sorted_by(self, name: str, *, descending: bool) -> bool:
        """Return whether the rows have been sorted by a column, in this direction."""
        return (name, descending) in self._leading

    def sort_by(self, name: str, *, descending: bool, max_bytes: float) -> None:
        """Sort the rows by a column, unless they are already; two million rows take about half a second.

        Args:
            name: The column.
            descending: Whether to reverse the order.
            max_bytes: Size of the file up to which rows are copied in their order.
        """
        with self._lock:
            order = self._orders.get(name)
            if order is None:
                order = self._orders[name] = self._sorted_by(name)
            if (name, descending) not in self._leading:
                self._leading[name, descending] = self._copy_leading_rows(
                    order, descending=descending, max_bytes=max_bytes
                )

    def page(self, name: str, *, descending: bool, rows: slice) -> bytes:
        """Return some rows as a JSON array, in the order of a column by which the rows have been sorted.

        Args:
            name: The column.
            descending: Whether to reverse the order; rows without a value still come last.
            rows: The rows within the order.
        """
        start, stop, _ = rows.indices(len(self))
        offsets = self._leading[name, descending]
        if start < stop < len(offsets):
            offset = int(offsets[start])
            return b"[" + self._file.read(offset, int(offsets[stop]) - offset - len(_SEPARATOR)) + b"]"
        places = self._places(self._orders[name], start, stop, descending=descending)
        return b"[" + _SEPARATOR.join(self._file.read_parts(places)) + b"]"

    def _sorted_by(self, name: str) -> _Order:
        # Two stable sorts are three times as fast as `np.lexsort`.
        if self._by_tie is None:
            self._by_tie = np.argsort(self._read_column(TIE), kind="stable").astype(np.int32)
        values = self._read_column(name)[self._by_tie]
        has_value = ~np.isnan(values) if values.dtype.kind == "f" else values != NO_INTEGER
        order = np.argsort(values, kind="stable")
        has_value = has_value[order]
        order = np.concatenate([order[has_value], order[~has_value]])
        return _Order(self._by_tie[order], int(np.count_nonzero(has_value)))

    def _copy_leading_rows(self, order: _Order, *, descending: bool, max_bytes: float) -> _Values:
        """Copy the rows that numbered pages can reach, in their order: a page of them is then read by one call.

        Returns:
            The offset of each copied row, and of the end.
        """
        offsets = [np.array([self._file.size])]
        # Beyond the limit, or if the disk is full, rows are read where they are.
        try:
            with self._file.truncated_on_error():
                for start in range(0, min(len(self), _LEADING_ROWS), _COPIED_ROWS):
                    if self._file.size >= max_bytes:
                        break
                    places = self._places(order, start, min(start + _COPIED_ROWS, len(self)), descending=descending)
                    self._file.write(_SEPARATOR.join([*self._file.read_parts(places), b""]))
                    offsets.append(offsets[-1][-1] + np.cumsum([length + len(_SEPARATOR) for _, length in places]))
        except SnapshotNotWritten:
            return offsets[0]
        return np.concatenate(offsets)

    def _places(self, order: _Order, start: int, stop: int, *, descending: bool) -> list[tuple[int, int]]:
        """Return the offset and the length of some rows of an order."""
        ranks = np.arange(start, stop)
        if descending:
            ranks = np.where(ranks < order.with_value, order.with_value - 1 - ranks, ranks)
        positions = order.positions[ranks]
        return [*zip(self._starts[positions].tolist(), self._lengths[positions].tolist(), strict=True)]

    def _read_column(self, name: str) -> _Values:
        if not len(self):  # there was no batch
            return np.empty(0, np.int64)
        column = self._columns[name]
        parts = [self._file.read(offset, count * _VALUE_BYTES) for offset, count in column.parts]
        return np.frombuffer(b"".join(parts), column.dtype)


def write_snapshot(batches: Iterable[pa.RecordBatch], *, version: bytes, directory: str | None) -> Snapshot:
    """Write the rows of some batches to a snapshot.

    Args:
        batches: Batches with the columns `ROW`, `TIE` and those that rows can be sorted by, without nulls.
        version: Version of the snapshot.
        directory: Directory of the temporary file; None: that of the system.

    Raises:
        SnapshotNotWritten: The file cannot be written.
    """
    file = _TemporaryFile(directory)
    with file.truncated_on_error():
        return _write_rows(file, batches, version=version)


def _write_rows(file: "_TemporaryFile", batches: Iterable[pa.RecordBatch], *, version: bytes) -> Snapshot:
    starts, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    parts: dict[str, list[tuple[int, int]]] = {}
    dtypes: dict[str, type[Any]] = {}
    for batch in batches:
        rows = batch.column(ROW).cast(pa.large_string())
        ends = np.frombuffer(rows.buffers()[1], np.int64)[rows.offset : rows.offset + len(rows) + 1]
        # Copies: a view of any column of a batch would keep all its columns in memory.
        starts.append(file.size + ends[:-1] - ends[0])
        lengths.append(np.diff(ends).astype(np.int32))
        file.write(memoryview(rows.buffers()[2] or b"")[int(ends[0]) : int(ends[-1])])
        for name in batch.schema.names:
            if name != ROW:
                column = batch.column(name)
                dtypes[name] = _DTYPES[column.type]
                parts.setdefault(name, []).append((file.size, len(column)))
                # Not `to_numpy`, which imports pandas.
                values = memoryview(column.buffers()[1])[_VALUE_BYTES * column.offset :]
                file.write(values[: _VALUE_BYTES * len(column)])
    columns = {name: _Column(dtypes[name], places) for name, places in parts.items()}
    return Snapshot(
        file, version=version, starts=np.concatenate(starts), lengths=np.concatenate(lengths), columns=columns
    )


class _TemporaryFile:
    """A file without a name, which is removed when the last reference to it is.

    Args:
        directory: Its directory; None: that of the system.
    """

    def __init__(self, directory: str | None) -> None:
        with _translated_errors():
            self._descriptor, path = tempfile.mkstemp(prefix="later-reporting-snapshot-", dir=directory)
            weakref.finalize(self, os.close, self._descriptor)
            Path(path).unlink()
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append data."""
        rest = memoryview(data)
        with _translated_errors():
            while rest:
                written = os.write(self._descriptor, rest)
                self.size += written
                rest = rest[written:]

    @contextmanager
    def truncated_on_error(self) -> Iterator[None]:
        """Free the space of what has been written in the block if it fails: the error may keep the file open."""
        size = self.size
        try:
            yield
        except BaseException:
            os.ftruncate(self._descriptor, size)
            self.size = size
            raise

    def read(self, offset: int, size: int) -> bytes:
        """Return a part of the file."""
        return os.pread(self._descriptor, size, offset)

    def read_parts(self, places: Iterable[tuple[int, int]]) -> list[bytes]:
        """Return the parts of the file at some offsets, of some sizes."""
        # Not mapped into memory: the pages of a mapped file count as memory of the process.
        read, descriptor = os.pread, self._descriptor
        return [read(descriptor, size, offset) for offset, size in places]


def snapshot_not_written(error: OSError) -> SnapshotNotWritten:
    """Return the error for a temporary file that cannot be written."""
    return SnapshotNotWritten(
        f"a temporary file cannot be written ({error.strerror}): free disk space, or set --snapshot-directory"
    )


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise snapshot_not_written(error) from error


class SnapshotCache:
    """The latest snapshots, by the rows that they have and their version. The least recently used are dropped.

    Args:
        max_bytes: Size of all snapshots. One that is larger is kept until another one is added.
    """

    def __init__(self, max_bytes: float) -> None:
        self.max_bytes = max_bytes
        self._snapshots: OrderedDict[tuple[Hashable, bytes], Snapshot] = OrderedDict()

    def get(self, rows: Hashable, version: bytes) -> Snapshot | None:
        """Return a snapshot if it is still there."""
        snapshot = self._snapshots.get((rows, version))
        if snapshot is not None:
            self._snapshots.move_to_end((rows, version))
        return snapshot

    def add(self, rows: Hashable, snapshot: Snapshot) -> None:
        """Add a snapshot, and drop others to make room for it."""
        self._snapshots[rows, snapshot.version] = snapshot
        self.make_room()

    def clear(self) -> None:
        """Drop all snapshots."""
        self._snapshots.clear()

    def make_room(self) -> None:
        """Drop snapshots until the limit is kept: each order of a snapshot needs space, too."""
        total = sum(each.file_size for each in self._snapshots.values())
        while len(self._snapshots) > 1 and (total > self.max_bytes or len(self._snapshots) > MAX_SNAPSHOTS):
            _, dropped = self._snapshots.popitem(last=False)
            total -= dropped.file_size
