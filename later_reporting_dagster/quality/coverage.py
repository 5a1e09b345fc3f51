"""The table `coverage`: every file of the fetched tables, and every expected file that is missing.

It keeps what the footers of unchanged files say, so that each is read once. A file that is empty or cannot be read
counts as missing.
"""

import hashlib
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, Column, Lake, Partition, WriteResult, schema_of
from later_reporting_dagster.lake.fetch_records import FetchRecord, newest_by_partition
from later_reporting_dagster.lake.lake import FETCHED_AT, FIRST_FETCHED_AT
from later_reporting_dagster.lake.parquet_file import FileMetadata
from later_reporting_dagster.lake.paths import partition_sort_key
from later_reporting_dagster.lake.storage import FileVersion
from later_reporting_dagster.lake.tables import (
    COVERAGE_TABLE,
    FETCHED_BY_DAY,
    POST_METRICS_DAILY,
    POSTS_PUBLISHED,
    RAW_NAMES,
    RAW_TABLES,
)
from later_reporting_dagster.quality.instances import known_instances
from later_reporting_dagster.quality.late_posts import AbsentPosts, look_for_late_posts

# In the metadata of the file: the hash of its rows without the times of requests.
HASH_WITHOUT_REQUESTS = "hash_without_requests"

COVERAGE_COLUMNS = (
    Column("table_name", "string", False, "The table of the file; with day and instance, the row key"),
    Column("date", "date32[day]", False, "The UTC day of the file"),
    Column("instance_id", "string", True, "The instance of the file; null for campaign_performance_daily"),
    Column("has_file", "bool", False, "Whether the file exists and can be read; false for an expected file without it"),
    Column("rows", "int64", True, "Rows in the file; null without it", unit="rows"),
    Column("fetched_at", "timestamp[us, tz=UTC]", True, "When the file was first fetched; null if that is unknown"),
    Column(
        "restated_at",
        "timestamp[us, tz=UTC]",
        True,
        "When a fetch last changed the content of the file; null if none has",
    ),
    Column(
        "requested_at",
        "timestamp[us, tz=UTC]",
        True,
        "When the newest response for it was requested, which may not have changed it; null if that is unknown",
    ),
    Column("content_hash", "string", True, "Hash of the rows in the file; null without it"),
    Column(
        "file_version", "string", True, "Size of the file, and its modification time or ETag; null if it is missing"
    ),
    Column(
        "is_stale",
        "bool",
        True,
        "Whether a file of posts_published has stale posts, so that it is fetched again; null for other tables, and for"
        " days that are still restated, which are fetched daily",
    ),
    Column(
        "stale_posts",
        "list<item: int64>",
        True,
        "Posts with results that were requested after the file, which lacks them; null for other tables",
    ),
    Column("stale_since", "timestamp[us, tz=UTC]", True, "When these results were requested; null without stale posts"),
    Column(
        "withdrawn_posts",
        "list<item: int64>",
        True,
        "Posts with results that the API did not return for the day when it was last requested; null for other tables",
    ),
)
COVERAGE_SCHEMA: pa.Schema = schema_of(COVERAGE_COLUMNS)
# The records of a run are kept as files for this long, so that it can be executed again.
RECORD_DAYS = 2
Files = Mapping[str, Mapping[Partition, FileVersion]]


class FileState(NamedTuple):
    """A row of the table, without its key, and without `is_stale`, which follows from it."""

    has_file: bool
    rows: int | None = None
    fetched_at: datetime | None = None
    restated_at: datetime | None = None
    requested_at: datetime | None = None
    content_hash: str | None = None
    file_version: str | None = None
    stale_posts: Sequence[int] | None = None
    stale_since: datetime | None = None
    withdrawn_posts: Sequence[int] | None = None

    @property
    def content_requested_at(self) -> datetime | None:
        """When the content of the file was requested."""
        return self.restated_at or self.fetched_at

    def describes(self, version: FileVersion) -> bool:
        """Return whether it is known of this version of the file whether it can be read."""
        # Before 1.0, the table had no content hashes.
        is_known = not self.has_file or self.content_hash is not None
        return is_known and version.identity is not None and self.file_version == version.identity

    def after_look(self, absent: AbsentPosts | None) -> "FileState":
        """Return the state of a file of `posts_published` that lacks these posts; None if it was not looked at.

        A file is stale if results that name an absent post were requested after it, and is then requested again. A post
        that is still absent from that response is withdrawn, and the file is not requested for it again.
        """
        stale, withdrawn, since = {*(self.stale_posts or ())}, {*(self.withdrawn_posts or ())}, self.stale_since
        if stale and self._was_requested_since(since):
            stale, withdrawn = set[int](), stale | withdrawn
        if absent is not None:
            new = {post: named for post, named in absent.items() if named and post not in stale | withdrawn}
            late = {post for post, named in new.items() if not self._was_requested_since(named)}
            stale, withdrawn = (stale & absent.keys()) | late, (withdrawn & absent.keys()) | (new.keys() - late)
            since = max([*(new[post] for post in late), *([since] if since else [])], default=None)
        return self._replace(
            stale_posts=sorted(stale), stale_since=since if stale else None, withdrawn_posts=sorted(withdrawn)
        )

    def _was_requested_since(self, instant: datetime | None) -> bool:
        return instant is None or (self.requested_at is not None and self.requested_at >= instant)


States = Mapping[tuple[str, Partition], FileState]
_MISSING = FileState(has_file=False)


def stored_and_expected_files(
    lake: Lake, days: Sequence[date], *, configured: Sequence[str], tables: Collection[str]
) -> tuple[Files, dict[str, list[Partition]]]:
    """Return the files of the tables that are fetched, and the partitions that should have one, by table.

    Days of campaign performance are expected if any exists, because the API may refuse its route.
    """
    files: Files = {table.name: lake.file_versions(table.name) for table in FETCHED_BY_DAY}
    instances = known_instances(lake, configured=configured)
    pairs = [Partition(day, name) for day in days for name in instances]
    expected = {raw_table.name: pairs for raw_table in RAW_TABLES if raw_table.name in tables}
    if CAMPAIGN_PERFORMANCE_TABLE in tables and files[CAMPAIGN_PERFORMANCE_TABLE]:
        expected[CAMPAIGN_PERFORMANCE_TABLE] = [Partition(day) for day in days]
    return files, expected


def stored_states(lake: Lake) -> States:
    """Return the table as last written, by table and partition."""
    stored = lake.read_intact_table(COVERAGE_TABLE, schema=COVERAGE_SCHEMA)
    names = [name for name in COVERAGE_SCHEMA.names if name != "is_stale"]
    columns = [] if stored is None else [_values(stored[name]) for name in names]
    return {
        (name, Partition(day, instance_id)): FileState(*values)
        for name, day, instance_id, *values in zip(*columns, strict=True)
    }


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Return the values, as `to_pylist` does. A run has written many files at one instant, which is converted once."""
    if not pa.types.is_temporal(column.type):
        return [*column.to_pylist()]
    encoded = column.combine_chunks().dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), None]  # of index -1
    return [values[index] for index in encoded.indices.fill_null(-1).to_pylist()]


def newest_requests(lake: Lake) -> pa.Table:
    """Return when each file of the raw tables that `coverage` lists was last requested; null if that is unknown.

    Of a file that was fetched before fetches were recorded, the time is when its content was requested.
    """
    key = ["table_name", "date", "instance_id"]
    schema = pa.schema([COVERAGE_SCHEMA.field(name).with_nullable(True) for name in (*key, "requested_at")])
    stored = lake.read_intact_table(COVERAGE_TABLE, schema=COVERAGE_SCHEMA)
    if stored is None:
        return schema.empty_table()
    stored = stored.filter(pc.field("has_file") & pc.field("table_name").isin(RAW_NAMES))
    times = pc.coalesce(stored["requested_at"], stored["restated_at"], stored["fetched_at"])
    known = stored.select(key).append_column("requested_at", times).cast(schema)
    records = [
        (name, record.day, record.instance_id, record.requested_at)
        for name in RAW_NAMES
        for record in lake.fetch_records.read([file.path for file in lake.fetch_records.files(name)])
        if record.error is None
    ]
    recorded = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in records], schema)
    newer = recorded.join(known.select(key), key, join_type="left semi")
    files = pa.concat_tables([known, newer]).group_by(key).aggregate([("requested_at", "max")])
    return files.rename_columns(schema.names)


def versions_to_replace(lake: Lake, table_name: str, *, days: Collection[date]) -> dict[Partition, str]:
    """Return the versions of files of these days that are stale or count as missing.

    The footers of files that `coverage` does not know are read, if it exists.
    """
    stored = lake.read_intact_table(COVERAGE_TABLE, schema=COVERAGE_SCHEMA)
    if stored is None:
        return {}
    rows = stored.filter(pc.field("table_name") == table_name)
    names = ("date", "instance_id", "file_version", "has_file", "is_stale")
    known: dict[Partition, str] = {}
    replaced: dict[Partition, str] = {}
    for day, instance_id, version, has_file, is_stale in zip(*(_values(rows[name]) for name in names), strict=True):
        known[Partition(day, instance_id)] = version
        if version and (is_stale or not has_file):
            replaced[Partition(day, instance_id)] = version
    listed = {
        partition: version.identity
        for partition, version in lake.file_versions(table_name, days=days).items()
        if version.bytes and version.identity
    }
    unknown = [partition for partition, version in listed.items() if known.get(partition) != version]
    footers = lake.read_all_metadata(table_name, unknown)
    return replaced | {partition: listed[partition] for partition, each in footers.items() if not each.content_hash}


def intact_files(lake: Lake, table_names: Iterable[str], *, states: States | None = None) -> Files:
    """Return the files of tables, without those that count as missing: empty ones, and those that cannot be read.

    The footers of files that `coverage` does not know are read, if it exists. With `states`, none is read, and a file
    that these do not describe counts as intact.
    """
    known = stored_states(lake) if states is None else states
    intact: dict[str, dict[Partition, FileVersion]] = {}
    for name in table_names:
        versions = {partition: version for partition, version in lake.file_versions(name).items() if version.bytes}
        described = {each for each, version in versions.items() if _state(known, name, each).describes(version)}
        damaged = {each for each in described if not known[name, each].has_file}
        if known and states is None:
            unknown = [each for each, version in versions.items() if each not in described and version.identity]
            footers = lake.read_all_metadata(name, unknown)
            damaged |= {each for each, footer in footers.items() if not footer.content_hash}
        intact[name] = {each: version for each, version in versions.items() if each not in damaged}
    return intact


@dataclass(frozen=True, slots=True)
class Update:
    """The table as of now, before a look for late posts.

    Attributes:
        changed: by table, the files whose footers were read: new and changed ones, and damaged ones, because the disk
            may have failed for a moment.
    """

    before: States
    states: dict[tuple[str, Partition], FileState]
    changed: Mapping[str, Sequence[Partition]]


def update_states(
    lake: Lake, files: Files, expected: Mapping[str, Iterable[Partition]], records: Mapping[str, Iterable[FetchRecord]]
) -> Update:
    """Return what is known now of these files, and of those that are expected and missing."""
    known = stored_states(lake)
    newest = {
        name: newest_by_partition(each for each in of_table if not each.error) for name, of_table in records.items()
    }
    changed = {
        name: [
            partition
            for partition, version in versions.items()
            if not ((state := _state(known, name, partition)).has_file and state.describes(version))
        ]
        for name, versions in files.items()
    }
    read = {name: lake.read_all_metadata(name, partitions) for name, partitions in changed.items()}
    states: dict[tuple[str, Partition], FileState] = {}
    for name in sorted({*files, *expected}):
        versions, footers = files.get(name, {}), read.get(name, {})
        for partition in sorted({*versions, *expected.get(name, ())}, key=partition_sort_key):
            before, record = _state(known, name, partition), newest.get(name, {}).get(partition)
            if (version := versions.get(partition)) is None:
                state = _MISSING
            elif partition in footers:
                state = _footer_state(footers[partition], before, version)
            else:
                state = before
            requested = [before.requested_at, record and record.requested_at, state.content_requested_at]
            state = state._replace(requested_at=max((each for each in requested if each), default=None))
            if state.has_file and (_contradicts(record, state) if record else _was_contradicted(before, state)):
                state = _MISSING._replace(requested_at=state.requested_at, file_version=state.file_version)
            states[name, partition] = state
    return Update(known, states, changed)


def with_late_posts(lake: Lake, update: Update, *, memory_gb: float) -> States:
    """Return the states after a look at the files that have changed, for posts that `posts_published` lacks."""
    states = dict(update.states)
    metrics, published = POST_METRICS_DAILY.name, POSTS_PUBLISHED.name
    compared = {each: state for (name, each), state in states.items() if name == published and state.has_file}
    known = {each: {*(state.stale_posts or ()), *(state.withdrawn_posts or ())} for each, state in compared.items()}
    before = [state for (name, _), state in update.before.items() if name == published and state.has_file]
    # Before 1.0, the table did not know which posts are absent.
    looks_at_all = any(state.stale_posts is None for state in before)
    changed = [each for name, each in states if name == metrics] if looks_at_all else update.changed.get(metrics, ())
    replaced = {*update.changed.get(published, ())}
    look = look_for_late_posts(
        lake,
        changed={each: state.content_requested_at for each in changed if (state := states[metrics, each]).has_file},
        published=compared,
        known={each: posts for each, posts in known.items() if posts and each in replaced},
        memory_gb=memory_gb,
    )
    for partition, state in compared.items():
        absent = look.absent.get(partition)
        if absent is not None and partition not in replaced:
            absent = {**dict.fromkeys(known[partition]), **absent}
        states[published, partition] = state.after_look(absent)
    for partition in look.unread:
        # As of no version, so that it is looked at again.
        states[metrics, partition] = states[metrics, partition]._replace(file_version=None)
    return states


def coverage_table(states: States, *, compared: Container[date] = ()) -> pa.Table:
    """Return the table. `compared`: days whose files are stale if they have stale posts; the others are not judged."""
    rows: list[tuple[object, ...]] = []
    for (name, partition), state in states.items():
        is_judged = name == POSTS_PUBLISHED.name and state.has_file and partition.day in compared
        is_stale = bool(state.stale_posts) if is_judged else None
        *of_file, stale_posts, stale_since, withdrawn_posts = state
        late = (is_stale, stale_posts, stale_since, withdrawn_posts)
        rows.append((name, partition.day, partition.instance_id, *of_file, *late))
    columns = [*zip(*rows, strict=True)] or [()] * len(COVERAGE_SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, COVERAGE_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=COVERAGE_SCHEMA)


@dataclass(frozen=True, slots=True)
class LatePosts:
    """What the files of `posts_published` lack, as far as `coverage` knows.

    Attributes:
        stale: posts of the files that are fetched again.
        withdrawn: posts that the API did not return for their day, although it was requested later.
    """

    stale: dict[Partition, list[int]] = field(default_factory=dict)
    withdrawn: dict[Partition, list[int]] = field(default_factory=dict)


def stored_late_posts(lake: Lake, *, days: Collection[date]) -> LatePosts:
    """Return what files of these days lack; not those of retired instances."""
    late = LatePosts()
    stored = lake.read_intact_table(COVERAGE_TABLE, schema=COVERAGE_SCHEMA)
    if stored is None:
        return late
    is_late = pc.field("is_stale") | (pc.list_value_length(pc.field("withdrawn_posts")) > 0)
    retired = lake.retired.ids()
    for row in stored.filter(is_late).to_pylist():
        partition = Partition(row["date"], row["instance_id"])
        if partition.day not in days or partition.instance_id in retired:
            continue
        if row["is_stale"]:
            late.stale[partition] = row["stale_posts"]
        if row["withdrawn_posts"]:
            late.withdrawn[partition] = row["withdrawn_posts"]
    return late


def recorded_fetches(lake: Lake, *, today: date) -> tuple[dict[str, list[FetchRecord]], list[str]]:
    """Return the records of the fetched tables, and the paths of those to remove once `coverage` has them."""
    files = {table.name: lake.fetch_records.files(table.name) for table in FETCHED_BY_DAY}
    records = {name: lake.fetch_records.read([file.path for file in of_table]) for name, of_table in files.items()}
    old = [file for of_table in files.values() for file in of_table if file.day < today - timedelta(days=RECORD_DAYS)]
    return records, [file.path for file in old]


def recorded_failures(lake: Lake) -> dict[Partition, datetime]:
    """Return when each pair of day and instance failed whose last fetch, of a raw table, has failed."""
    failures: dict[Partition, datetime] = {}
    for name in RAW_NAMES:
        paths = [file.path for file in lake.fetch_records.files(name)]
        for partition, record in newest_by_partition(lake.fetch_records.read(paths)).items():
            if record.error:
                failures[partition] = max(record.requested_at, failures.get(partition, record.requested_at))
    return failures


@dataclass(frozen=True, slots=True)
class CoveredDay:
    """A day of a table, as `coverage` describes its files."""

    table_name: str
    day: date
    version: str
    rows: int
    files: int


def covered_days(intact: Files, states: States) -> tuple[list[CoveredDay], set[date]]:
    """Return the days whose files are all described by `coverage`, in order, and the other days."""
    covered: list[CoveredDay] = []
    others: set[date] = set()
    for name, versions in intact.items():
        for day, of_day in groupby(versions.items(), key=lambda item: item[0].day):
            files = {partition.instance_id: (_state(states, name, partition), version) for partition, version in of_day}
            if all(state.describes(version) for state, version in files.values()):
                version = day_version({instance_id: _content(state) for instance_id, (state, _) in files.items()})
                rows = sum(state.rows or 0 for state, _ in files.values())
                covered.append(CoveredDay(name, day, version, rows, len(files)))
            elif all(version.identity for _, version in files.values()):
                others.add(day)
    return covered, others


def day_version(files: Mapping[str | None, tuple[str, str | None]]) -> str:
    """Return the data version of a day: a SHA-256 of the content hash of all its files, and of when that was fetched.

    The latter, because a file that was lost or damaged may be fetched again with its old rows, and what was computed
    without them has to follow.
    """
    lines = [f"{name!a} {content_hash} {fetched_at}\n" for name, (content_hash, fetched_at) in files.items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def content_of(file: WriteResult | FileMetadata) -> tuple[str, str | None]:
    """Return what `day_version` needs of a file."""
    return file.content_hash, file.key_values.get(FETCHED_AT)


def _content(state: FileState) -> tuple[str, str | None]:
    fetched_at = state.content_requested_at
    return state.content_hash or "", None if fetched_at is None else fetched_at.isoformat(timespec="milliseconds")


def _contradicts(record: FetchRecord, state: FileState) -> bool:
    """Return whether a later response than that of the file had another content, so that an older one replaced it."""
    content_requested_at = state.content_requested_at
    is_later = content_requested_at is not None and record.requested_at > content_requested_at
    return is_later and record.content_hash != state.content_hash


def _was_contradicted(before: FileState, state: FileState) -> bool:
    """Return whether the file is the same that such a response contradicted, whose record is removed by now."""
    if before.has_file or before.file_version != state.file_version or before.requested_at is None:
        return False
    return state.content_requested_at is not None and before.requested_at > state.content_requested_at


def _state(states: States, table_name: str, partition: Partition) -> FileState:
    return states.get((table_name, partition), _MISSING)


def _footer_state(footer: FileMetadata, before: FileState, version: FileVersion) -> FileState:
    """Return the state of a file that was read. Which posts it lacks is known of the one before."""
    if not footer.content_hash:
        return _MISSING._replace(file_version=version.identity)
    fetched_at, first = (footer.key_values.get(name) for name in (FETCHED_AT, FIRST_FETCHED_AT))
    return before._replace(
        has_file=True,
        rows=footer.rows,
        fetched_at=_instant(first or fetched_at),
        restated_at=_instant(fetched_at if first else None),
        requested_at=None,
        content_hash=footer.content_hash,
        file_version=version.identity,
    )


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
