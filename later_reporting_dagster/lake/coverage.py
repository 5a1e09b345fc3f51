"""What is known of each file that is fetched: the table `coverage`, and what runs have recorded since its last update.

A run adds a row for each response and each failure to a file of its own, `_fetches/{table}/YYYY-MM-DD_{run}.parquet`: a
response that changes nothing writes no data file. The date is the UTC day on which the run began; other readers of the
lake skip names that begin with an underscore. `coverage` has the newest row of each file, what the footer of the file
says, and a row for each file that is expected and missing. A file that is empty or cannot be read counts as missing.
Listing and footers rebuild the table, but for the times of requests.
"""

import hashlib
import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from later_reporting_dagster.contract.days import MAX_CLOCK_ERROR, utc_now
from later_reporting_dagster.lake.file_metadata import HASH_WITHOUT_REQUESTS, ODDITIES, FileMetadata, instant_text
from later_reporting_dagster.lake.garbage_collection import paused_collection
from later_reporting_dagster.lake.lake import Lake, WriteResult
from later_reporting_dagster.lake.parquet_file import (
    FileDamaged,
    content_hash_of,
    from_parquet,
    parse_metadata,
    to_parquet,
)
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.storage import FileVersion, LakeUnavailable
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, INSTANT, RAW_NAMES, RAW_TABLES, Column, schema_of

COVERAGE_COLUMNS = (
    Column("table_name", "string", False, "The table of the file; with day and instance, the row key"),
    Column("date", "date32[day]", False, "The UTC day of the file"),
    Column("instance_id", "string", True, "The instance of the file; null for campaign_performance_daily"),
    Column("has_file", "bool", False, "Whether the file exists and can be read; false for an expected file without it"),
    Column("rows", "int64", True, "Rows in the file; null without it", unit="rows"),
    Column("fetched_at", INSTANT, True, "When the file was first fetched; null if that is unknown"),
    Column("restated_at", INSTANT, True, "When a fetch last changed the content of the file; null if none has"),
    Column("requested_at", INSTANT, True, "When its newest response was requested, which may not have changed it"),
    Column("content_hash", "string", True, "Hash of the rows that the file has, or should have; null if unknown"),
    Column("file_version", "string", True, "Size of the file, and its modification time or ETag; null without it"),
    Column(
        "withdrawn_posts",
        "list<item: int64>",
        True,
        "Posts without a valid row in its newest response, which it had or results name; null if that is unknown",
    ),
    Column("failed_at", INSTANT, True, "When its last fetch failed; null if that succeeded"),
    Column("error", "string", True, "Why its last fetch failed; null if that succeeded"),
    Column("run_id", "string", True, "The run that fetched it last; null if that is unknown"),
    Column("metrics", "string", True, "Metrics that it was requested with: names of columns, separated by commas"),
)
_PLAIN_SCHEMA = schema_of(COVERAGE_COLUMNS)
_METRICS = _PLAIN_SCHEMA.get_field_index("metrics")
# A million files were requested with the same few metrics: as plain texts, these would be half of the memory.
COVERAGE_SCHEMA: pa.Schema = _PLAIN_SCHEMA.set(
    _METRICS, _PLAIN_SCHEMA.field(_METRICS).with_type(pa.dictionary(pa.int32(), pa.string()))
)

_DIRECTORY = "_fetches"
_PATH = re.compile(rf"{_DIRECTORY}/[^/]+/(\d{{4}}-\d\d-\d\d)_([^/]+)\.parquet")
# The rows of a run are kept as a file for this long, so that it can be executed again.
RECORD_DAYS = 2
# The whole file of a run is written again while the run goes on, and this part of its time may be spent on that.
_MAX_SHARE_OF_TIME = 0.05
# Footers take memory: a lake that was copied, or whose `coverage` was lost, may have a million that are new.
_FOOTERS_TOGETHER = 10_000
_METRIC_COLUMNS = {name: {metric.column for metric in table.known_metrics} for name, table in RAW_TABLES.items()}
NEVER = datetime.fromtimestamp(0, UTC)


class FileRecord(NamedTuple):
    """What is known of a file: a row of the table.

    Of what a run has recorded, only what a fetch knows is set: a content hash, or an error.
    """

    table_name: str
    day: date
    instance_id: str | None
    has_file: bool = False
    rows: int | None = None
    fetched_at: datetime | None = None
    restated_at: datetime | None = None
    requested_at: datetime | None = None
    content_hash: str | None = None
    file_version: str | None = None
    withdrawn_posts: Sequence[int] | None = None
    failed_at: datetime | None = None
    error: str | None = None
    run_id: str | None = None
    metrics: str | None = None

    @property
    def partition(self) -> Partition:
        return Partition(self.day, self.instance_id)

    @property
    def content_requested_at(self) -> datetime | None:
        """When the content of the file was requested."""
        return self.restated_at or self.fetched_at

    def describes(self, version: FileVersion) -> bool:
        """Return whether it is known of this version of the file whether it can be read."""
        return version.identity is not None and self.file_version == version.identity

    def without_file(self) -> "FileRecord":
        return FileRecord(self.table_name, self.day, self.instance_id)._replace(
            requested_at=self.requested_at, failed_at=self.failed_at, error=self.error, run_id=self.run_id
        )

    def with_footer(self, footer: FileMetadata | Exception, version: FileVersion) -> "FileRecord":
        """Return the record of a version of the file whose footer was read, or cannot be."""
        if isinstance(footer, Exception):
            return self.without_file()._replace(file_version=version.identity)
        return self._replace(
            has_file=True,
            rows=footer.rows,
            fetched_at=footer.first_fetched_at or footer.fetched_at,
            restated_at=footer.fetched_at if footer.first_fetched_at else None,
            content_hash=footer.content_hash,
            file_version=version.identity,
            metrics=_metrics_of(self.table_name, footer.columns),
        )

    def after_fetches(self, response: "FileRecord | None", failure: "FileRecord | None") -> "FileRecord":
        """Return the record after the newest response and the newest failure that runs have recorded.

        A file counts as missing if a later response than its own had another content: then an older one replaced it.
        """
        record, content = self, self.content_requested_at
        if response and response.requested_at:
            if content and response.requested_at > content and response.content_hash not in (None, self.content_hash):
                record = self.without_file()._replace(
                    file_version=self.file_version, content_hash=response.content_hash
                )
            record = record.with_response(response)
        record = record._replace(requested_at=max(filter(None, (record.requested_at, content)), default=None))
        if failure and failure.failed_at and (self.failed_at is None or failure.failed_at > self.failed_at):
            record = record._replace(failed_at=failure.failed_at, error=failure.error, run_id=failure.run_id)
        if record.failed_at and record.requested_at and record.requested_at >= record.failed_at:
            record = record._replace(failed_at=None, error=None)
        return record

    def with_response(self, response: "FileRecord") -> "FileRecord":
        """Return the record with the time of a response, and the posts that this lacked, unless it knows a later one.

        An equal time may be that of the file: its footer may be read before the run has saved what it recorded.
        """
        if response.requested_at is None or (self.requested_at and self.requested_at > response.requested_at):
            return self
        record = self._replace(requested_at=response.requested_at, run_id=response.run_id)
        known = response.withdrawn_posts is not None
        return record._replace(withdrawn_posts=response.withdrawn_posts) if known else record

    def was_requested_since(self, instant: datetime | None) -> bool:
        return instant is None or (self.requested_at is not None and self.requested_at >= instant)


@lru_cache(maxsize=256)
def _metrics_of(table_name: str, columns: tuple[str, ...]) -> str:
    """Return the metrics of a file: it has a column for each, also for one of which the API has no values."""
    return ",".join(name for name in columns if name in _METRIC_COLUMNS[table_name])


Files = Mapping[str, Mapping[Partition, FileVersion]]
# By table and partition.
Records = Mapping[tuple[str, Partition], FileRecord]


# What runs record


class RunRecords:
    """The rows of a run for one table, which survive a kill but for those of the last moments; and what others record.

    Attributes:
        oddities: what was odd about the responses, with how often.

    Args:
        now: when the run began. Nothing is written until there are some rows.
        inherited: what it takes over from the run that it continues.
    """

    def __init__(
        self, lake: Lake, table_name: str, *, run_id: str = "", now: datetime, inherited: Iterable[FileRecord] = ()
    ) -> None:
        self.run_id = run_id or secrets.token_hex(16)
        self.path = f"{_DIRECTORY}/{table_name}/{now.astimezone(UTC).date()}_{self.run_id}.parquet"
        self.oddities: Counter[str] = Counter()
        self._lake, self._table_name = lake, table_name
        self._records = [*inherited]
        self._lock, self._listing_lock = threading.Lock(), threading.Lock()
        self._saved, self._next_save = 0, 0.0
        self._newer: dict[Partition, datetime] = {}
        self._seen: Collection[RecordFile] = ()
        with suppress(LakeUnavailable):
            self._seen = record_files(lake, table_name)

    def add(self, records: Iterable[FileRecord]) -> None:
        """Record results; save them if the last time was long ago, as long as saving takes."""
        with self._lock:
            self._records += [record._replace(run_id=self.run_id) for record in records]
            is_due = time.monotonic() >= self._next_save
        if is_due:
            self.save()

    def save(self) -> None:
        """Write the file. If the lake is unavailable, the next call writes it."""
        with self._lock, suppress(LakeUnavailable):
            if len(self._records) == self._saved:
                return
            started = time.monotonic()
            data = to_parquet(
                to_table(self._records), content_hash="", key_values={ODDITIES: json.dumps({**self.oddities})}
            )
            self._lake.storage.write(self.path, data)
            self._saved, ended = len(self._records), time.monotonic()
            self._next_save = ended + (ended - started) / _MAX_SHARE_OF_TIME

    def look_for_newer(self) -> None:
        """Look for rows of other runs: list them, and read what has changed. What fails is reported by writing."""
        with self._listing_lock, suppress(LakeUnavailable):
            listed = record_files(self._lake, self._table_name)
            others = [file for file in listed if file.path != self.path]
            changed = [file for file in others if file.version is None or file not in self._seen]
            for record in read_records(self._lake, changed):
                if record.requested_at:
                    known = self._newer.get(record.partition, record.requested_at)
                    self._newer[record.partition] = max(known, record.requested_at)
            self._seen = listed

    def newer_response(self, partition: Partition) -> datetime | None:
        """Return when the newest response of other runs since this one began was requested, as of the last look."""
        return self._newer.get(partition)


class RecordFile(NamedTuple):
    """The file of a run's rows for a table."""

    path: str
    day: date
    run_id: str
    version: str | None


def record_files(lake: Lake, *table_names: str) -> list[RecordFile]:
    """List the files of the runs of tables. It takes one listing for each."""
    found = []
    listings = [lake.storage.files_in(f"{_DIRECTORY}/{name}") for name in table_names]
    for path, version in chain.from_iterable(files.items() for files in listings):
        with suppress(ValueError):  # a file that no run has written, of no day
            if match := _PATH.fullmatch(path):
                found.append(RecordFile(path, date.fromisoformat(match[1]), match[2], version.identity))
    return found


def read_records(lake: Lake, files: Iterable[RecordFile]) -> list[FileRecord]:
    """Read files, skipping those that are damaged or were removed."""
    return [*chain.from_iterable(records for records, _ in _read_runs(lake, files))]


def _read_runs(lake: Lake, files: Iterable[RecordFile]) -> list[tuple[list[FileRecord], Mapping[str, int]]]:
    """Return what runs have recorded: rows, and oddities; of a file that is damaged or was removed, nothing."""

    def read(file: RecordFile) -> tuple[list[FileRecord], Mapping[str, int]]:
        data = lake.storage.read(file.path)
        with suppress(FileDamaged):
            if data is not None:
                oddities = parse_metadata(data, required=[ODDITIES]).oddities
                return from_table(from_parquet(data, schema=COVERAGE_SCHEMA)), oddities
        return [], {}

    return lake.storage.map(read, files)


def fetched_by(lake: Lake, table_name: str, run_id: str) -> list[FileRecord]:
    """Return what a run has fetched, and the runs that it continued."""
    files = [file for file in record_files(lake, table_name) if file.run_id == run_id]
    return [record for record in read_records(lake, files) if record.error is None]


def recorded_oddities(lake: Lake, table_name: str) -> tuple[Counter[str], int]:
    """Return what was odd about the responses of the last runs, and the number of these runs."""
    counts: Counter[str] = Counter()
    files = record_files(lake, table_name)
    for _, oddities in _read_runs(lake, files):
        counts.update(oddities)
    return counts, len(files)


def newest_fetches(lake: Lake, table_names: Iterable[str]) -> Records:
    """Return what the last fetch of each file recorded, in the runs of the last days."""
    return _newest(read_records(lake, record_files(lake, *table_names)))


def _newest(records: Iterable[FileRecord]) -> dict[tuple[str, Partition], FileRecord]:
    """Return the newest record of each partition."""
    by_time = sorted(records, key=lambda record: record.requested_at or record.failed_at or NEVER)
    return {(record.table_name, record.partition): record for record in by_time}


# The table


def stored_coverage(lake: Lake) -> pa.Table:
    """Return the table as last written; without rows if there is none.

    As a record, a row takes 20 times as long as in Arrow, and there may be a million.
    """
    stored = lake.read_intact_table(COVERAGE_TABLE, schema=COVERAGE_SCHEMA)
    return COVERAGE_SCHEMA.empty_table() if stored is None else _without_wrong_times(stored)


def last_requested_at(stored: pa.Table) -> pa.ChunkedArray:
    """Return when each file was last requested; if that was before fetches were recorded, when its content was."""
    return pc.coalesce(stored["requested_at"], stored["restated_at"], stored["fetched_at"])


@paused_collection()
def intact_files(
    lake: Lake,
    table_names: Iterable[str],
    *,
    stored: pa.Table | None = None,
    reads_footers: bool = True,
    days: Collection[date] | None = None,
) -> Files:
    """Return the files of tables, without those that count as missing: empty ones, and those that cannot be read.

    Args:
        stored: the table as last written, if the caller has read it.
        reads_footers: of files that `coverage` does not know, if it exists. Without them, such a file counts as intact.
        days: those to list; default: all.
    """
    stored = stored_coverage(lake) if stored is None else stored
    files = {name: lake.file_versions(name, days=days) for name in table_names}
    return _intact(lake, files, stored, reads_footers=reads_footers)


def intact_of(lake: Lake, table_name: str, versions: Mapping[Partition, FileVersion]) -> Set[Partition]:
    """Return which of these files of a table are intact, as `intact_files` does."""
    return _intact(lake, {table_name: versions}, stored_coverage(lake), reads_footers=True)[table_name].keys()


def records_of(stored: pa.Table, table_name: str, partitions: Iterable[Partition]) -> dict[Partition, FileRecord]:
    """Return the records of some files; a file without a row has none."""
    rows = _Listing({}, {table_name: partitions}).rows_in(stored).drop_null()
    return {record.partition: record for record in from_table(stored.take(rows))}


def undescribed_days(files: Files, stored: pa.Table) -> set[date]:
    """Return the days with a file that no row describes, but for files without an identity, which nothing can."""
    listed = _Listing(files)
    is_unknown = ~listed.is_described(stored) & _bools(listed.versions.is_valid())
    return {listed.files[index][1].day for index in np.flatnonzero(is_unknown)}


@paused_collection()
def _intact(lake: Lake, files: Files, stored: pa.Table, *, reads_footers: bool) -> Files:
    listed = _Listing(files)
    is_described = listed.is_described(stored)
    missing = {
        name: {each for each, version in versions.items() if not version.bytes} for name, versions in files.items()
    }
    for index in np.flatnonzero(is_described & ~listed.of_row(stored, stored["has_file"])):
        name, partition = listed.files[index]
        missing[name].add(partition)
    unknown: dict[str, list[Partition]] = {}
    for index in np.flatnonzero(~is_described) if stored.num_rows and reads_footers else ():
        name, partition = listed.files[index]
        if files[name][partition].bytes and files[name][partition].identity:
            unknown.setdefault(name, []).append(partition)
    for name, partitions in unknown.items():
        footers = lake.read_all_metadata(name, partitions)
        missing[name].update(each for each, footer in footers.items() if isinstance(footer, Exception))
    return {
        name: {each: version for each, version in versions.items() if each not in missing[name]}
        if missing[name]
        else versions
        for name, versions in files.items()
    }


_KEY = ("table_name", "date", "instance_id")
_Bools = NDArray[np.bool_]


class _Listing:
    """Files in Arrow, to find their rows in the table: only what is new becomes Python.

    Attributes:
        files: in the order of the columns; at their end those that are missing.
        keys: the key of each, as a text.
        versions: the version of each; null without a file, or without an identity.
    """

    def __init__(self, files: Files, missing: Mapping[str, Iterable[Partition]] | None = None) -> None:
        self.files = [(name, each) for of_all in (files, missing or {}) for name in of_all for each in of_all[name]]
        identities = [version.identity for versions in files.values() for version in versions.values()]
        self.versions = pa.array(identities + [None] * (len(self.files) - len(identities)), pa.string())
        self.is_file = np.arange(len(self.files)) < len(identities)
        names = pa.array([name for name, _ in self.files], pa.string())
        days = pa.array([each.day for _, each in self.files], pa.date32())
        self.keys = _keys(names, days, pa.array([each.instance_id for _, each in self.files], pa.string()))
        self._rows: tuple[pa.Table, pa.Array] | None = None

    def rows_in(self, table: pa.Table) -> pa.Array:
        """Return the index of the row of each file; null if it has none."""
        if self._rows is None or self._rows[0] is not table:
            keys = _keys(*(table[name].combine_chunks() for name in _KEY))
            self._rows = table, pc.index_in(self.keys, value_set=keys)
        return self._rows[1]

    def of_row(self, table: pa.Table, values: pa.ChunkedArray) -> _Bools:
        """Return the value of the row of each file; false if it has none."""
        return _bools(values.combine_chunks().take(self.rows_in(table)))

    def is_described(self, table: pa.Table) -> _Bools:
        """Return of each file whether its row says of this version whether it can be read."""
        known = table["file_version"].combine_chunks().take(self.rows_in(table))
        return _bools(pc.equal(known, self.versions))


def _keys(names: pa.Array, days: pa.Array, instances: pa.Array) -> pa.Array:
    # A file of all instances has an empty id. Texts take a third of the memory of a join of three columns.
    return pc.binary_join_element_wise(names, days.cast(pa.string()), pc.fill_null(instances, ""), "/")


def _bools(values: pa.Array) -> _Bools:
    bools: _Bools = pc.fill_null(values, False).to_numpy(zero_copy_only=False)  # noqa: FBT003 - the value of nulls
    return bools


@dataclass(frozen=True, slots=True)
class Update:
    """The table as of now.

    Attributes:
        table: all rows, in stored order.
        changed: by table, the files whose footers were read; also damaged ones: the disk may have failed for a moment.
        damaged: why files cannot be read.
        recorded: the files of runs that it has taken over.
    """

    table: pa.Table
    changed: Mapping[str, Sequence[Partition]]
    recorded: Sequence[RecordFile]
    damaged: Sequence[LakeUnavailable | FileDamaged]


@paused_collection()
def update_records(lake: Lake, files: Files, missing: Mapping[str, Iterable[Partition]]) -> Update:
    """Return what is known now of these files, and of those that are missing."""
    stored = stored_coverage(lake)
    recorded = record_files(lake, *RAW_NAMES)
    of_runs = read_records(lake, recorded)
    responses = _newest(record for record in of_runs if not record.error)
    failures = _newest(record for record in of_runs if record.error)
    listed = _Listing(files, missing)
    is_known = listed.is_described(stored) & listed.of_row(stored, stored["has_file"])
    is_unchanged = is_known & listed.of_row(stored, _is_whole(stored))
    is_unchanged |= ~listed.is_file & listed.of_row(stored, _has_no_file(stored))
    is_new = ~is_unchanged
    fetched: dict[str, list[Partition]] = {}
    for name, partition in responses.keys() | failures.keys():
        fetched.setdefault(name, []).append(partition)
    is_new |= _bools(pc.is_in(listed.keys, value_set=_Listing({}, fetched).keys))
    rows = listed.rows_in(stored)
    before = _by_file(stored.take(rows.filter(pa.array(is_new)).drop_null()))
    changed: dict[str, list[Partition]] = {name: [] for name in files}
    damaged: list[LakeUnavailable | FileDamaged] = []
    records: dict[tuple[str, Partition], FileRecord] = {}
    indices = np.flatnonzero(is_new)
    for start in range(0, len(indices), _FOOTERS_TOGETHER):
        new = [(listed.files[index], is_known[index]) for index in indices[start : start + _FOOTERS_TOGETHER]]
        to_read: dict[str, list[Partition]] = {name: [] for name in files}
        for (name, partition), describes in new:
            if partition in files.get(name, ()):
                if not describes:
                    changed[name].append(partition)
                if not describes or before[name, partition].metrics is None:  # earlier releases did not record them
                    to_read[name].append(partition)
        footers = {name: lake.read_all_metadata(name, partitions) for name, partitions in to_read.items()}
        for key, _ in new:
            name, partition = key
            record = known = before.get(key) or FileRecord(name, partition.day, partition.instance_id)
            if (version := files.get(name, {}).get(partition)) is None:
                record = record.without_file()
            elif (footer := footers[name].get(partition)) is not None:
                record = record.with_footer(footer, version)
                if isinstance(footer, Exception):
                    damaged.append(footer)
            # Of a file that was contradicted, the response that did so may be recorded no more.
            response = responses.get(key) or (None if known.has_file else known)
            records[key] = record.after_fetches(response, failures.get(key))
    del listed  # as much memory as the rows, which are copied next
    table = _sorted(stored, rows.filter(pa.array(~is_new)), to_table(records.values()))
    return Update(table, changed, recorded, damaged)


def _sorted(stored: pa.Table, unchanged: pa.Array, new: pa.Table) -> pa.Table:
    """Return the unchanged rows and the new ones, in stored order. All rows are copied once, and not before."""
    rows = pa.concat_tables([stored, new])
    indices = pa.concat_arrays([unchanged.cast(pa.int64()), pa.array(np.arange(len(stored), len(rows)))])
    order = pc.sort_indices(rows.select(_KEY).take(indices), [(name, "ascending") for name in _KEY])
    return rows.take(indices.take(order))


def _is_whole(stored: pa.Table) -> pa.ChunkedArray:
    """Return whether a row of a file has what earlier releases did not record."""
    return pc.and_(pc.is_valid(stored["metrics"]), pc.is_valid(stored["requested_at"]))


def _has_no_file(stored: pa.Table) -> pa.ChunkedArray:
    """Return whether a row says of no file but that it is missing, and when it was requested."""
    says_more = pc.or_(pc.is_valid(stored["file_version"]), pc.is_valid(stored["content_hash"]))
    return pc.invert(pc.or_(stored["has_file"], says_more))


def write_coverage(lake: Lake, update: Update, table: pa.Table, *, today: date) -> tuple[WriteResult, str]:
    """Write the table; return its hash without the times of requests, which each response changes.

    Then the files of runs that began some days ago are removed.
    """
    version = content_hash_of(table.drop_columns(["requested_at", "failed_at", "error", "run_id"]))
    written = lake.write_table(COVERAGE_TABLE, table, metadata={HASH_WITHOUT_REQUESTS: version})
    for file in update.recorded:
        if not today - timedelta(days=RECORD_DAYS) <= file.day <= today + timedelta(days=1):
            lake.storage.remove(file.path)
    return written, version


def day_version(files: Mapping[str | None, tuple[str | None, str | None]]) -> str:
    """Return the data version of a day: a SHA-256 of the content hash of all its files, and of when that was fetched.

    The latter, because a file that was lost or damaged may be fetched again with its old rows, and what was computed
    without them has to follow.
    """
    lines = [f"{name!a} {content_hash} {fetched_at}\n" for name, (content_hash, fetched_at) in files.items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


class StoredDay(NamedTuple):
    """What the table says of the intact files of a day: its version, their number, and the number of their rows."""

    version: str
    files: int
    rows: int


def stored_days(stored: pa.Table, table_name: str) -> dict[date, StoredDay]:
    """Return what the table says of each day of a fetched table.

    Days with files that have no identity, of which nothing is known, are left out.
    """
    rows = stored.filter((pc.field("table_name") == table_name) & pc.field("has_file"))
    times = _values(pc.coalesce(rows["restated_at"], rows["fetched_at"]))
    names = ("date", "instance_id", "file_version", "content_hash", "rows")
    days = dict[date, StoredDay]()
    for day, of_day in groupby(zip(*(_values(rows[name]) for name in names), times, strict=True), key=itemgetter(0)):
        files = [*of_day]
        if all(identity for _, _, identity, *_ in files):
            contents = {instance_id: (content, at and instant_text(at)) for _, instance_id, _, content, _, at in files}
            days[day] = StoredDay(day_version(contents), len(files), sum(count or 0 for *_, count, _ in files))
    return days


def described_days(lake: Lake, stored: pa.Table, table_name: str, days: Mapping[date, StoredDay]) -> set[date]:
    """Return which days have, in a new listing, exactly the files that the table describes."""
    files = intact_files(lake, [table_name], stored=stored, reads_footers=False, days=days)
    present = Counter(partition.day for partition in files[table_name])
    return {day for day, each in days.items() if present[day] == each.files} - undescribed_days(files, stored)


def newest_requests(lake: Lake, files: Files) -> pa.Table:
    """Return when each of these files was last requested, by its footer, `coverage` and runs; null if that is unknown.

    Footers of files that `coverage` does not know are read. Those that count as missing are left out.
    """
    table = update_records(lake, files, {}).table
    return table.filter(pc.field("has_file")).select([*_KEY, "requested_at"])


def to_table(records: Iterable[FileRecord]) -> pa.Table:
    columns = [*zip(*records, strict=True)] or [()] * len(COVERAGE_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, COVERAGE_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=COVERAGE_SCHEMA)


def from_table(table: pa.Table) -> list[FileRecord]:
    columns = [_values(column) for column in _without_wrong_times(table.select(COVERAGE_SCHEMA.names)).columns]
    return [FileRecord(*values) for values in zip(*columns, strict=True)]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return the values, as `to_pylist` does. A run has written many files at one instant, which is converted once."""
    if not pa.types.is_temporal(column.type):
        return [*column.to_pylist()]
    encoded = column.combine_chunks().dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), None]  # of index -1
    return [values[index] for index in encoded.indices.fill_null(-1).to_pylist()]


def _by_file(table: pa.Table) -> dict[tuple[str, Partition], FileRecord]:
    return {(record.table_name, record.partition): record for record in from_table(table)}


def _without_wrong_times(table: pa.Table) -> pa.Table:
    """Return rows in which a time of a clock that was wrong is null."""
    latest = pa.scalar(utc_now() + MAX_CLOCK_ERROR, pa.timestamp("us", "UTC"))
    for number, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            times = table.column(number)
            if (newest := pc.max(times)).is_valid and newest.as_py() > latest.as_py():
                table = table.set_column(number, field, pc.if_else(pc.greater(times, latest), None, times))
    return table
