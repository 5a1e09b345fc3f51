import os
import tempfile
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from later_reporting_dagster.lake import (
    POST_COLUMNS,
    POSTS_SCHEMA,
    FileDamaged,
    Lake,
    LakeUnavailable,
    Partition,
    Table,
    compaction,
    open_dataset,
    partition_path,
)
from later_reporting_dagster.lake.compaction import MIN_AGE_SECONDS, MIN_DAYS, CompactionSummary, MonthCopies
from later_reporting_dagster.lake.database import open_database
from later_reporting_dagster.lake.parquet_file import parse_metadata, read_stored_rows, to_parquet
from later_reporting_dagster.lake.paths import compacted_path
from tests.lake.conftest import BucketFileSystem, remote_lake, rows

POSTS = Table("posts", POST_COLUMNS)
JANUARY, FEBRUARY = date(2024, 1, 1), date(2024, 2, 1)
INSTANCES = ("instance_000", "a/b")
# One day more than the minimum in each month, so that one may be missing.
PARTITIONS = [
    Partition(month + timedelta(days=number), instance_id)
    for month in (JANUARY, FEBRUARY)
    for number in range(MIN_DAYS + 1)
    for instance_id in INSTANCES
]
ONE_MONTH = [partition for partition in PARTITIONS if partition.day < FEBRUARY and partition.instance_id == "a/b"]
CLOSED_BEFORE = date(2024, 6, 1)
DAY_AND_KEY = ["date", "creator_id", "post_id"]


def posts(number: int, count: int = 3) -> pa.Table:
    return rows(count, creator_id=number)


def filled(lake: Lake, partitions: Iterable[Partition] = PARTITIONS) -> Lake:
    """Write different posts to each partition."""
    for number, partition in enumerate(partitions):
        lake.write("posts", partition, posts(number))
    return lake


def later(seconds: float = MIN_AGE_SECONDS + 60) -> datetime:
    """Return a time at which all files written so far are old enough to be copied."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


def compact(
    lake: Lake, *, closed_before: date = CLOSED_BEFORE, now: datetime | None = None, only_missing: bool = False
) -> CompactionSummary:
    now = now or later()
    restate_days = (now.date() - closed_before).days
    return lake.compact("posts", restate_days=restate_days, now=now, only_missing=only_missing)


def read_daily_files(
    lake: Lake, partitions: Iterable[Partition] = PARTITIONS, schema: pa.Schema = POSTS_SCHEMA
) -> pa.Table:
    """Read the daily files: a single partition is too few to look for a copy."""
    return pa.concat_tables(lake.read("posts", [partition], schema=schema) for partition in partitions)


def copy_path(lake: Lake, partition: Partition) -> Path:
    return Path(lake.storage.location(compacted_path("posts", partition)))


def held(lake: Lake, partitions: Iterable[Partition] = PARTITIONS) -> set[Partition]:
    """Return the partitions that are read from compacted months."""
    return {partition for copy in MonthCopies(lake.storage).current("posts", partitions) for partition in copy.days}


def test_compacted_months_read_the_same_as_daily_files(lake: Lake) -> None:
    filled(lake)
    found = compact(lake)
    assert (found.written, found.daily_files, found.skipped) == (2 * len(INSTANCES), len(PARTITIONS), 0)
    for partitions in (PARTITIONS, PARTITIONS[::-1], PARTITIONS[::3], ONE_MONTH, [*ONE_MONTH, *ONE_MONTH[:2]]):
        expected = read_daily_files(lake, partitions)
        assert lake.read("posts", partitions, schema=POSTS_SCHEMA).equals(expected)
    assert lake.partitions("posts") == sorted(PARTITIONS, key=lambda each: (each.day, each.instance_id or ""))


def test_current_copies_save_requests_of_reads_and_of_the_next_compaction() -> None:
    lake = filled(remote_lake("bucket"))
    compact(lake)
    BucketFileSystem.requests.clear()
    assert (found := compact(lake)).unchanged == found.files == 2 * len(INSTANCES)
    assert not [request for request in BucketFileSystem.requests if request.startswith("get") and "date=" in request]
    BucketFileSystem.requests.clear()
    lake.read("posts", PARTITIONS, schema=POSTS_SCHEMA)
    requested = [request.partition("/lake/")[2] for request in BucketFileSystem.requests]
    months = {compacted_path("posts", partition) for partition in PARTITIONS}
    assert sorted(requested) == sorted([*months, "posts/date=2024-01-0", "posts/date=2024-02-0"])


def test_listed_files_are_not_listed_again() -> None:
    lake = filled(remote_lake("bucket"))
    compact(lake)
    lake.write("posts", ONE_MONTH[0], rows(7, instance_id="a/b"))  # its copy is outdated
    versions = lake.file_versions("posts")
    BucketFileSystem.requests.clear()
    files = lake.files("posts", versions)
    assert {request.partition(" ")[0] for request in BucketFileSystem.requests} == {"get"}
    assert files == lake.files("posts", [*versions])
    assert len(files) == 2 * len(INSTANCES) - 1 + len(ONE_MONTH)
    replaced = PARTITIONS[0]
    lake.write("posts", replaced, rows(7, instance_id=replaced.instance_id))
    assert lake.files("posts", versions) == files  # as it was
    compact(lake)
    assert [replaced] in lake.files("posts", versions).values()


def test_copy_that_is_written_again_after_it_was_chosen_repeats_no_row(local: Lake) -> None:
    filled(local, ONE_MONTH[1:])
    compact(local)
    filled(local, ONE_MONTH[:1])  # late
    with open_database(local) as database:
        database.add_view(POSTS)
        assert compact(local).daily_files == len(ONE_MONTH)
        (found,) = database.connection.sql("SELECT count(*) FROM posts").fetchall()
    assert found == (3 * len(ONE_MONTH),)


def test_compaction_of_missing_copies_only_leaves_the_others_as_they_are() -> None:
    lake = filled(remote_lake("bucket"))
    compact(lake)
    lake.write("posts", ONE_MONTH[0], rows(7, instance_id="a/b"))  # its copy is outdated
    missing = PARTITIONS[0].month
    lake.storage.remove(compacted_path("posts", missing))
    BucketFileSystem.requests.clear()
    found = compact(lake, only_missing=True)
    assert (found.written, found.unchanged) == (1, 0)
    read = [each for each in BucketFileSystem.requests if each.startswith("get") and "date=" in each]
    assert len(read) == len([each for each in PARTITIONS if each.month == missing])
    assert ONE_MONTH[0] not in held(lake)


def test_table_without_instances_in_its_paths_is_compacted(lake: Lake) -> None:
    days = [Partition(partition.day) for partition in ONE_MONTH]
    filled(lake, days)
    assert compact(lake).daily_files == len(days)
    assert lake.read("posts", days, schema=POSTS_SCHEMA).equals(read_daily_files(lake, days))


def test_dataset_reads_a_month_from_its_copy_unless_a_day_changed_or_is_not_requested(lake: Lake) -> None:
    filled(lake, ONE_MONTH)
    compact(lake)

    def files_read(partitions: list[Partition]) -> int:
        dataset = open_dataset(lake, POSTS, partitions)
        expected = lake.read("posts", partitions, schema=POSTS_SCHEMA, with_date=True).select(DAY_AND_KEY)
        assert sorted(dataset.to_table(columns=DAY_AND_KEY).to_pylist(), key=repr) == expected.to_pylist()
        first = pa.scalar(partitions[0].day)
        assert dataset.count_rows(filter=pc.field("date") == first) == len(read_daily_files(lake, partitions[:1]))
        return len(dataset.files)

    assert files_read(ONE_MONTH) == 1
    assert files_read(ONE_MONTH[1:]) == len(ONE_MONTH) - 1
    lake.write("posts", ONE_MONTH[0], rows(7, instance_id="a/b"))
    assert files_read(ONE_MONTH) == len(ONE_MONTH)


def test_month_is_closed_when_its_last_day_is_before_the_given_day(local: Lake) -> None:
    filled(local)
    for closed_before, months in ((date(2024, 1, 31), 0), (FEBRUARY, 1), (date(2024, 2, 29), 1), (date(2024, 3, 1), 2)):
        assert compact(local, closed_before=closed_before).files == months * len(INSTANCES)


def test_copy_is_removed_when_too_few_days_remain(local: Lake) -> None:
    filled(local, ONE_MONTH)
    compact(local)
    path = copy_path(local, ONE_MONTH[0])
    assert path.exists()
    for partition in ONE_MONTH[: -MIN_DAYS + 1]:
        Path(local.url("posts", partition)).unlink()
    found = compact(local)
    assert (found.removed, found.files, found.skipped) == (1, 0, MIN_DAYS - 1)
    assert not path.exists()
    assert compact(local).removed == 0


def test_young_file_is_not_copied_because_its_modification_time_may_repeat(local: Lake) -> None:
    filled(local, ONE_MONTH)
    restated = Path(local.url("posts", ONE_MONTH[2]))
    stamp = 1_700_000_000
    for partition in ONE_MONTH:
        os.utime(local.url("posts", partition), (stamp, stamp))
    a_moment_later = datetime.fromtimestamp(stamp + MIN_AGE_SECONDS / 2, UTC)
    skipped = compact(local, now=a_moment_later).skipped
    assert skipped == len(ONE_MONTH)

    size = restated.stat().st_size
    local.write("posts", ONE_MONTH[2], posts(7))
    os.utime(restated, (stamp, stamp))
    assert restated.stat().st_size == size
    assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(read_daily_files(local, ONE_MONTH))

    found = compact(local, now=a_moment_later + timedelta(seconds=MIN_AGE_SECONDS))
    assert (found.daily_files, found.skipped) == (len(ONE_MONTH), 0)
    assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(read_daily_files(local, ONE_MONTH))


def test_month_of_large_files_is_not_copied(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(local, ONE_MONTH)
    size = sum(Path(local.url("posts", partition)).stat().st_size for partition in ONE_MONTH)
    for largest, copies in ((size - 1, 0), (size, 1)):
        monkeypatch.setattr(compaction, "MAX_MONTH_BYTES", largest)
        assert compact(local).files == copies


def test_month_with_a_damaged_day_or_without_a_key_is_not_copied(local: Lake) -> None:
    filled(local)
    Path(local.url("posts", ONE_MONTH[3])).write_bytes(b"no Parquet")
    other = next(partition for partition in PARTITIONS if partition.instance_id != "a/b")
    local.write("posts", other, posts(5).drop_columns(["post_id"]))
    assert compact(local).skipped == 2 * len(ONE_MONTH)
    assert {partition.day.month for partition in held(local)} == {2}
    with pytest.raises(FileDamaged, match=str(ONE_MONTH[3].day)):
        local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA)
    local.write("posts", ONE_MONTH[3], posts(3))
    local.write("posts", other, posts(5))
    assert (compact(local).written, held(local)) == (2, set(PARTITIONS))


def test_month_whose_days_differ_in_nullable_columns_is_copied(local: Lake) -> None:
    filled(local, ONE_MONTH)
    local.write("posts", ONE_MONTH[0], posts(5).drop_columns(["cpm"]))
    local.write("posts", ONE_MONTH[2], posts(5).drop_columns(["impressions", "extra"]))
    expected = read_daily_files(local, ONE_MONTH)
    assert compact(local).written == 1
    assert held(local) == set(ONE_MONTH)
    assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(expected)


def test_month_with_a_day_of_other_types_is_not_copied(local: Lake) -> None:
    filled(local, ONE_MONTH)
    stored = posts(5)
    other = stored["impressions"].cast(pa.float64())
    number = stored.column_names.index("impressions")
    local.write("posts", ONE_MONTH[2], stored.set_column(number, "impressions", other))
    assert compact(local).skipped == len(ONE_MONTH)


def test_month_of_files_that_something_else_wrote_is_not_copied(local: Lake) -> None:
    filled(local, ONE_MONTH)
    for partition in ONE_MONTH:
        pq.write_table(posts(1), local.url("posts", partition))
    assert compact(local).skipped == len(ONE_MONTH)


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_month_that_changes_during_compaction_is_not_copied(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = filled(remote_lake("bucket"), ONE_MONTH)
    get = BucketFileSystem.cat_file

    def get_and_change(self: BucketFileSystem, path: str, *args: Any, **options: Any) -> Any:
        data = get(self, path, *args, **options)
        if path.endswith(partition_path("posts", ONE_MONTH[1])):
            if change == "replaced":
                self.pipe_file(path, data + b"another")
            else:
                self.rm_file(path)
        return data

    with monkeypatch.context() as patch:
        patch.setattr(BucketFileSystem, "cat_file", get_and_change)
        found = compact(lake)
    assert (found.files, found.skipped) == (0, len(ONE_MONTH))


def test_compact_fails_on_a_filesystem_without_versions() -> None:
    lake = filled(remote_lake("memory"))
    with pytest.raises(LakeUnavailable, match=r"memory://.* cannot be compacted: it reports no ETags"):
        compact(lake)
    assert lake.read("posts", PARTITIONS, schema=POSTS_SCHEMA).num_rows == 3 * len(PARTITIONS)


def test_damaged_copy_is_not_read_and_is_repaired(local: Lake) -> None:
    filled(local, ONE_MONTH)
    compact(local)
    path, expected = copy_path(local, ONE_MONTH[0]), read_daily_files(local, ONE_MONTH)
    intact = path.read_bytes()
    pages = range(4, len(intact) - int.from_bytes(intact[-8:-4], "little") - 8, 301)
    days = intact.index(b"later_reporting.days") + len("later_reporting.days")
    for at in (*pages, *range(days + 4, days + 500, 3)):  # a flipped bit may change nothing, as in the header of a page
        path.write_bytes(intact[:at] + bytes([intact[at] ^ 0x01]) + intact[at + 1 :])
        assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(expected)
    metadata = parse_metadata(intact)
    fewer_rows = to_parquet(
        read_stored_rows(intact)[:-1], content_hash=metadata.content_hash, key_values=metadata.key_values
    )
    for data in (b"", intact[: len(intact) // 2], Path(local.url("posts", ONE_MONTH[0])).read_bytes(), fewer_rows):
        path.write_bytes(data)
        assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(expected)
        assert compact(local).written == 1
        assert path.read_bytes() == intact


# Any order of events


SMALL = pa.schema([pa.field("post_id", pa.int64(), nullable=False), ("impressions", pa.int64())])


class LakeModel:
    """A lake with a clock that advances at each write, and the rows that it has to hold."""

    def __init__(self, root: str) -> None:
        self.lake, self.files = Lake(root), Lake(root).storage
        self.clock = 1_700_000_000
        self.expected: dict[Partition, pa.Table] = {}
        self.saved_copies: dict[str, bytes] = {}
        for partition in PARTITIONS:
            self.write(partition, 1)

    def write(self, partition: Partition, count: int) -> None:
        table = pa.table({"post_id": [self.clock] * count, "impressions": [None] * count}, schema=SMALL)
        self.lake.write("posts", partition, table)
        self.expected[partition] = table
        if not self.files.is_remote:
            os.utime(self.lake.url("posts", partition), (self.clock, self.clock))
        self.clock += 10

    def delete(self, partition: Partition) -> None:
        self.files.remove(partition_path("posts", partition))
        self.expected.pop(partition, None)

    def compact(self) -> None:
        compact(self.lake, now=datetime.fromtimestamp(self.clock, UTC))

    def lose_copy(self, partition: Partition) -> None:
        self.files.remove(compacted_path("posts", partition))

    def damage_copy(self, partition: Partition, share: float) -> None:
        path = compacted_path("posts", partition)
        if data := self.files.read(path):
            self.files.write(path, data[: int(share * len(data))])

    def save_copy(self, partition: Partition) -> None:
        path = compacted_path("posts", partition)
        self.saved_copies[path] = self.files.read(path) or b""

    def restore_copy(self, partition: Partition) -> None:
        path = compacted_path("posts", partition)
        if data := self.saved_copies.get(path):
            self.files.write(path, data)

    def check(self) -> None:
        expected = [self.expected[partition] for partition in PARTITIONS if partition in self.expected]
        found = self.lake.read("posts", PARTITIONS, schema=SMALL)
        assert found.equals(pa.concat_tables([SMALL.empty_table(), *expected]))
        existing = self.lake.partitions("posts")
        assert set(existing) == self.expected.keys()
        found = self.lake.read("posts", existing, schema=SMALL)
        assert found.equals(pa.concat_tables([SMALL.empty_table(), *(self.expected[each] for each in existing)]))
        assert self.lake.files("posts", self.lake.file_versions("posts")) == self.lake.files("posts", existing)


ANY_PARTITION = st.sampled_from(PARTITIONS)
EVENTS = st.one_of(
    *[st.tuples(st.just(LakeModel.write), ANY_PARTITION, st.integers(0, 3))] * 3,
    *[st.tuples(st.just(LakeModel.compact))] * 3,
    st.tuples(st.just(LakeModel.delete), ANY_PARTITION),
    st.tuples(st.just(LakeModel.lose_copy), ANY_PARTITION),
    st.tuples(st.just(LakeModel.damage_copy), ANY_PARTITION, st.floats(0, 0.999)),
    st.tuples(st.just(LakeModel.save_copy), ANY_PARTITION),
    st.tuples(st.just(LakeModel.restore_copy), ANY_PARTITION),
)


@pytest.mark.parametrize("scheme", ["file", "bucket"])
@settings(max_examples=15)
@given(events=st.lists(EVENTS, max_size=12))
def test_each_row_is_read_once_as_last_written_after_any_events(scheme: str, events: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        model = LakeModel(f"{scheme}://{directory}")
        for event, *arguments in [(LakeModel.compact,), *events, (LakeModel.compact,)]:
            event(model, *arguments)
            model.check()
