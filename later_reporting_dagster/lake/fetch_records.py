"""What fetches did: one file per run and table, `{root}/_fetches/{table}/YYYY-MM-DD_{run id}.parquet`.

A response that changes nothing writes no data file, so only its record shows that it came. The date is the UTC day on
which the run began. Other readers of the lake skip names that begin with an underscore.
"""

import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime
from itertools import chain

import pyarrow as pa

from later_reporting_dagster.lake.parquet_file import FileDamaged, from_parquet, parse_metadata, to_parquet
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.storage import LakeUnavailable, Storage

_DIRECTORY = "_fetches"
_PATH = re.compile(rf"{_DIRECTORY}/[^/]+/(\d{{4}}-\d\d-\d\d)_([^/]+)\.parquet")
_SCHEMA = pa.schema(
    [
        pa.field("date", pa.date32(), nullable=False),
        pa.field("instance_id", pa.string()),
        pa.field("requested_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("content_hash", pa.string()),
        pa.field("changed", pa.bool_(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
# Metadata of the file.
_ODDITIES = "oddities"
# The whole file is written again while the run goes on, and this part of its time may be spent on that.
_MAX_SHARE_OF_TIME = 0.05


@dataclass(frozen=True, slots=True)
class FetchRecord:
    """The result of a fetch of a partition.

    Attributes:
        requested_at: when the first request of the response was sent; of a failure, when it was recorded.
        content_hash: the content of the response, as that of a file; None for a failure.
        changed: whether the response has replaced a file, or is the first.
        error: None unless it failed.
    """

    day: date
    instance_id: str | None
    requested_at: datetime
    content_hash: str | None = None
    changed: bool = False
    error: str | None = None

    @property
    def partition(self) -> Partition:
        return Partition(self.day, self.instance_id)


@dataclass(frozen=True, slots=True)
class RecordFile:
    """The records of a run, or of as much of it as was recorded."""

    path: str
    day: date
    run_id: str


class RunRecords:
    """The records of a run for one table. They survive a kill, but for those of the last moments.

    `oddities`: what was odd about the responses, with how often.
    """

    def __init__(self, storage: Storage, path: str, inherited: Iterable[FetchRecord]) -> None:
        self.path = path
        self.oddities: Counter[str] = Counter()
        self._storage = storage
        self._records = [*inherited]
        self._lock = threading.Lock()
        self._saved, self._next_save = 0, 0.0

    def add(self, records: Iterable[FetchRecord]) -> None:
        """Record results; save them if the last time was long ago, as long as saving takes."""
        with self._lock:
            self._records += records
            is_due = time.monotonic() >= self._next_save
        if is_due:
            self.save()

    def save(self) -> None:
        """Write the file. If the lake is unavailable, the next call writes it."""
        with self._lock, suppress(LakeUnavailable):
            if len(self._records) == self._saved:
                return
            started = time.monotonic()
            self._storage.write(self.path, _to_bytes(self._records, self.oddities))
            self._saved, ended = len(self._records), time.monotonic()
            self._next_save = ended + (ended - started) / _MAX_SHARE_OF_TIME


class FetchRecords:
    """The records of all runs of a lake."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def begin(
        self, table_name: str, *, run_id: str = "", now: datetime, inherited: Iterable[FetchRecord] = ()
    ) -> RunRecords:
        """Return the records of a run that begins; nothing is written until there are some.

        `inherited`: what it takes over from the run that it continues.
        """
        day, run_id = now.astimezone(UTC).date(), run_id or secrets.token_hex(16)
        path = f"{_DIRECTORY}/{table_name}/{day}_{run_id}.parquet"
        return RunRecords(self._storage, path, inherited)

    def files(self, table_name: str) -> list[RecordFile]:
        """List the files of a table. It takes one listing."""
        found = map(_parse_path, self.versions(table_name))
        return [file for file in found if file]

    def fetched_by(self, table_name: str, run_id: str) -> list[FetchRecord]:
        """Return what a run has fetched, and the runs that it continued."""
        paths = [file.path for file in self.files(table_name) if file.run_id == run_id]
        return [record for record in self.read(paths) if record.error is None]

    def read(self, paths: Sequence[str]) -> list[FetchRecord]:
        """Read files, skipping those that are damaged or were removed."""
        return [*chain.from_iterable(self._storage.map(self._read, paths))]

    def oddities(self, table_name: str) -> tuple[Counter[str], int]:
        """Return what was odd about the responses of the last runs, and the number of these runs."""
        counts: Counter[str] = Counter()
        paths = [file.path for file in self.files(table_name)]
        for data in self._storage.map(self._storage.read, paths):
            with suppress(FileDamaged):
                counts.update(json.loads(parse_metadata(data).key_values.get(_ODDITIES, "{}")) if data else {})
        return counts, len(paths)

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._storage.remove(path)

    def versions(self, table_name: str) -> dict[str, str | None]:
        """Return the identity of the version of each file of a table, by path. It takes one listing."""
        found = self._storage.files_in(f"{_DIRECTORY}/{table_name}")
        return {path: version.identity for path, version in found.items() if _parse_path(path)}

    def _read(self, path: str) -> list[FetchRecord]:
        data = self._storage.read(path)
        with suppress(FileDamaged):
            if data is not None:
                columns = from_parquet(data, schema=_SCHEMA).to_pydict().values()
                return [FetchRecord(*values) for values in zip(*columns, strict=True)]
        return []


class NewestRequests:
    """When the newest response of each partition was requested, by other runs since this object was made.

    Earlier requests are older than any request of the caller.
    """

    def __init__(self, records: FetchRecords, table_name: str, *, own: RunRecords) -> None:
        self._records, self._table_name, self._own = records, table_name, own
        self._seen: dict[str, str | None] = {}
        with suppress(LakeUnavailable):
            self._seen = records.versions(table_name)
        self._newest: dict[Partition, datetime] = {}
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Look for new records. It takes one listing, and reads only files that have changed.

        If the lake is unavailable, it looks for none: writing reports that error.
        """
        with self._lock, suppress(LakeUnavailable):
            listed = self._records.versions(self._table_name)
            changed = [
                path
                for path, identity in listed.items()
                if path != self._own.path and (identity is None or self._seen.get(path) != identity)
            ]
            for record in self._records.read(changed):
                if record.error is None:
                    known = self._newest.get(record.partition, record.requested_at)
                    self._newest[record.partition] = max(known, record.requested_at)
            self._seen = listed

    def of(self, partition: Partition) -> datetime | None:
        """Return the time as of the last `refresh`; None without a record."""
        return self._newest.get(partition)


def newest_by_partition(records: Iterable[FetchRecord]) -> dict[Partition, FetchRecord]:
    """Return the newest record of each partition."""
    return {record.partition: record for record in sorted(records, key=lambda record: record.requested_at)}


def _parse_path(path: str) -> RecordFile | None:
    match = _PATH.fullmatch(path)
    with suppress(ValueError):  # such as 2026-13-30: not a file of a fetch
        return match and RecordFile(path, date.fromisoformat(match[1]), match[2])
    return None


def _to_bytes(records: Sequence[FetchRecord], oddities: Mapping[str, int]) -> bytes:
    columns = zip(*map(astuple, records), strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    rows = pa.Table.from_arrays(arrays, schema=_SCHEMA)
    return to_parquet(rows, content_hash="", key_values={_ODDITIES: json.dumps({**oddities})})
