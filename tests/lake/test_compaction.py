"""Compacted months: read as the daily files would be, whatever happens to either, and faster."""

import json
import os
import random
import secrets
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from later_reporting_dagster.lake import (
    POSTS_SCHEMA,
    Lake,
    LakeUnavailable,
    Partition,
    PartitionDamaged,
    partition_path,
)
from later_reporting_dagster.lake.compaction import (
    FEWEST_DAYS,
    LARGEST_DAY_BYTES,
    SETTLED_AFTER_SECONDS,
    CompactedMonth,
)
from later_reporting_dagster.lake.parquet_file import facts_of, stored_rows, to_parquet
from later_reporting_dagster.lake.partition_paths import compacted_path
from tests.lake.conftest import BucketFileSystem, files_of, rows, unreadable

JANUARY, FEBRUARY = date(2024, 1, 1), date(2024, 2, 1)
INSTANCES = ("instance_000", "a/b")
# As many days of a month as make a compacted one, and one more, so that one of them may be missing.
PARTITIONS = [
    Partition(month + timedelta(days=number), instance_id)
    for month in (JANUARY, FEBRUARY)
    for number in range(FEWEST_DAYS + 1)
    for instance_id in INSTANCES
]
ONE_MONTH = [partition for partition in PARTITIONS if partition.day < FEBRUARY and partition.instance_id == "a/b"]
AFTERWARDS = date(2024, 6, 1)
BY_DAY_AND_KEY = [("date", "ascending"), ("creator_id", "ascending"), ("post_id", "ascending")]


def lake_at(scheme: str, tmp_path: Path) -> Lake:
    return Lake(f"file://{tmp_path}/lake" if scheme == "file" else f"{scheme}://{secrets.token_hex(8)}/lake")


@pytest.fixture(params=["file", "memory", "moving", "bucket"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return lake_at(request.param, tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def posts(number: int, count: int = 3) -> pa.Table:
    """Some posts, of which no two numbers have the same."""
    return rows(count, creator_id=number)


def filled(lake: Lake, partitions: Iterable[Partition] = PARTITIONS) -> Lake:
    for number, partition in enumerate(partitions):
        lake.write("posts", partition, posts(number))
    return lake


def later(seconds: float = SETTLED_AFTER_SECONDS + 60) -> datetime:
    """A time at which nothing that was written until now was written moments ago."""
    return datetime.now(UTC) + timedelta(seconds=seconds)


def compact(lake: Lake, *, closed_before: date = AFTERWARDS, now: datetime | None = None) -> list[CompactedMonth]:
    return list(lake.compact("posts", closed_before=closed_before, now=now or later()))


def one_by_one(lake: Lake, partitions: Iterable[Partition] = PARTITIONS, schema: pa.Schema = POSTS_SCHEMA) -> pa.Table:
    """What a reader that knows of no compaction reads: no partition is enough to look for a month's file."""
    return pa.concat_tables(lake.read("posts", [partition], schema=schema) for partition in partitions)


def month_file(lake: Lake, partition: Partition) -> Path:
    """Where a month's file lies on a local disk."""
    month = compacted_path("posts", partition.day.replace(day=1), partition.instance_id)
    return Path(lake.url("posts", partition).removesuffix(partition_path("posts", partition))) / month


def held(lake: Lake, partitions: Iterable[Partition] = PARTITIONS) -> set[Partition]:
    """The partitions that a reader takes from compacted months: those that it can do without the daily files of."""
    with unreadable(Path(lake.url("posts", partition)) for partition in partitions):
        days = list(lake.read_days("posts", sorted({each.day for each in partitions}), schema=POSTS_SCHEMA))
    return {partition for day in days for partition in day.tables}


# What a month holds


def test_months_are_read_as_their_daily_files_are(lake: Lake) -> None:
    filled(lake)
    found = compact(lake)
    assert [(month.month, month.instance_id, month.days, month.rows) for month in found] == [
        (month, instance_id, FEWEST_DAYS + 1, 3 * (FEWEST_DAYS + 1))
        for month in (JANUARY, FEBRUARY)
        for instance_id in sorted(INSTANCES)
    ]
    assert all(month.changed and not month.left_out and month.bytes < month.daily_bytes for month in found)
    for partitions in (PARTITIONS, PARTITIONS[::-1], PARTITIONS[::3], ONE_MONTH, [*ONE_MONTH, *ONE_MONTH[:2]]):
        expected = one_by_one(lake, partitions)
        assert lake.read("posts", partitions, schema=POSTS_SCHEMA).equals(expected)
    assert lake.partitions("posts") == sorted(PARTITIONS, key=lambda each: (each.day, each.instance_id or ""))


def test_an_object_store_is_asked_once_for_a_month_and_once_for_what_is_new(tmp_path: Path) -> None:
    lake = filled(lake_at("bucket", tmp_path))
    compact(lake)
    BucketFileSystem.requests.clear()
    lake.read("posts", PARTITIONS, schema=POSTS_SCHEMA)
    asked = [request.partition("/lake/")[2] for request in BucketFileSystem.requests]
    months = [compacted_path("posts", month, name) for month in (JANUARY, FEBRUARY) for name in INSTANCES]
    assert sorted(asked) == sorted([*months, "posts/date=2024-01-0", "posts/date=2024-02-0"])


def test_what_is_up_to_date_is_not_read_again(tmp_path: Path) -> None:
    lake = filled(lake_at("bucket", tmp_path))
    compact(lake)
    BucketFileSystem.requests.clear()
    assert not any(month.changed for month in compact(lake))
    assert not [request for request in BucketFileSystem.requests if request.startswith("get") and "date=" in request]


def test_a_month_is_a_file_of_the_daily_rows_in_order_with_their_date_before_them(local: Lake, tmp_path: Path) -> None:
    filled(local, ONE_MONTH)
    (month,) = compact(local)
    path = tmp_path / "_compacted/posts/month=2024-01/instance_id=a%2Fb/part-0.parquet"
    assert Path(month.url) == path
    assert path.stat().st_size == month.bytes
    table = pq.ParquetFile(path).read()
    assert table.schema.equals(pa.schema([pa.field("date", pa.date32(), nullable=False), *POSTS_SCHEMA]))
    assert table["date"].to_pylist() == [partition.day for partition in ONE_MONTH for _ in range(3)]
    assert table.drop_columns(["date"]).equals(one_by_one(local, ONE_MONTH))


def test_its_footer_tells_of_each_day_the_rows_their_hash_and_the_version_of_the_daily_file(local: Lake) -> None:
    filled(local, ONE_MONTH)
    compact(local)
    facts = pq.ParquetFile(month_file(local, ONE_MONTH[0])).metadata.metadata
    told = json.loads(facts[b"later_reporting.days"])
    for partition in ONE_MONTH:
        status = Path(local.url("posts", partition)).stat()
        daily = local.facts("posts", partition)
        assert daily is not None
        identity = f"{status.st_size}-{status.st_mtime_ns}"
        assert told[str(partition.day)] == [daily.rows, daily.content_hash, identity]
    assert list(told) == sorted(str(partition.day) for partition in ONE_MONTH)


def test_days_without_posts_are_held_too(local: Lake) -> None:
    for partition in ONE_MONTH:
        local.write("posts", partition, rows(0))
    (month,) = compact(local)
    assert (month.days, month.rows) == (len(ONE_MONTH), 0)
    assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(POSTS_SCHEMA.empty_table())
    assert held(local, ONE_MONTH) == set(ONE_MONTH)


def test_a_table_without_instances_in_its_paths_is_compacted_too(lake: Lake) -> None:
    days = [Partition(partition.day) for partition in ONE_MONTH]
    filled(lake, days)
    (month,) = compact(lake)
    assert (month.instance_id, month.days) == (None, len(days))
    assert lake.read("posts", days, schema=POSTS_SCHEMA).equals(one_by_one(lake, days))


def test_months_come_in_the_order_of_time_and_instances_in_that_of_their_ids(tmp_path: Path) -> None:
    lake, names = lake_at("memory", tmp_path), [None, "B", "a", "b", "c", "d"]
    days = [month + timedelta(days=number) for month in (FEBRUARY, JANUARY) for number in range(FEWEST_DAYS)]
    lake.write_all("posts", {Partition(day, name): posts(1) for name in reversed(names) for day in days})
    assert [(month.month, month.instance_id) for month in compact(lake)] == [
        (month, name) for month in (JANUARY, FEBRUARY) for name in names
    ]


def test_who_reads_the_folders_sees_nothing_twice(local: Lake, tmp_path: Path) -> None:
    filled(local)
    before = files_of(tmp_path)
    compact(local)
    assert {path: data for path, data in files_of(tmp_path).items() if not path.startswith("_compacted/")} == before
    for directory in (tmp_path, tmp_path / "posts"):
        found = pyarrow.dataset.dataset(directory, schema=POSTS_SCHEMA, format="parquet")
        assert found.count_rows() == 3 * len(PARTITIONS)
    assert local.dataset("posts", POSTS_SCHEMA).count_rows() == 3 * len(PARTITIONS)


def test_the_dataset_reads_whole_months_from_their_copy_and_sees_the_same(lake: Lake) -> None:
    filled(lake)
    before = lake.dataset("posts", POSTS_SCHEMA).to_table().sort_by(BY_DAY_AND_KEY)
    compact(lake)
    dataset = lake.dataset("posts", POSTS_SCHEMA)
    assert [path for path in dataset.files if "_compacted" not in path] == []
    assert len(dataset.files) == 2 * len(INSTANCES)
    assert dataset.to_table().sort_by(BY_DAY_AND_KEY).equals(before)
    one_day = dataset.to_table(filter=pc.field("date") == pa.scalar(JANUARY))
    assert one_day.num_rows == 3 * len(INSTANCES)


def test_the_dataset_reads_a_month_by_days_when_a_day_is_newer_or_is_not_asked_for(lake: Lake) -> None:
    filled(lake, ONE_MONTH)
    compact(lake)

    def files_read(partitions: list[Partition]) -> int:
        dataset = lake.dataset("posts", POSTS_SCHEMA, partitions)
        assert dataset.count_rows() == sum(len(one_by_one(lake, [partition])) for partition in partitions)
        return len(dataset.files)

    assert files_read(ONE_MONTH) == 1
    assert files_read(ONE_MONTH[1:]) == len(ONE_MONTH) - 1
    lake.write("posts", ONE_MONTH[0], rows(7, instance_id="a/b"))
    assert files_read(ONE_MONTH) == len(ONE_MONTH)


def test_the_dataset_does_without_a_copy_that_is_damaged(local: Lake, tmp_path: Path) -> None:
    filled(local, ONE_MONTH)
    (month,) = compact(local)
    Path(month.url).write_bytes(b"no Parquet")
    assert local.dataset("posts", POSTS_SCHEMA).count_rows() == 3 * len(ONE_MONTH)


# What is compacted, and when


def test_a_month_is_closed_when_its_last_day_is_before_the_given_one(local: Lake) -> None:
    filled(local)
    assert compact(local, closed_before=date(2024, 1, 31)) == []
    assert {month.month for month in compact(local, closed_before=FEBRUARY)} == {JANUARY}
    assert {month.month for month in compact(local, closed_before=date(2024, 2, 29))} == {JANUARY}
    assert {month.month for month in compact(local, closed_before=date(2024, 3, 1))} == {JANUARY, FEBRUARY}


def test_the_ends_of_time_are_months_too(local: Lake) -> None:
    first, last = ([Partition(date(year, month, day)) for day in range(1, 8)] for year, month in ((1, 1), (9999, 12)))
    filled(local, [*first, *last])
    assert [month.month for month in compact(local, closed_before=date.max)] == [date(1, 1, 1)]
    assert local.read("posts", first, schema=POSTS_SCHEMA).equals(one_by_one(local, first))
    assert not compact(local, closed_before=date.max)[0].changed


def test_a_month_that_is_up_to_date_is_left_alone(local: Lake, tmp_path: Path) -> None:
    filled(local)
    first = compact(local)
    stats = {path: path.stat() for path in tmp_path.rglob("*.parquet")}
    again = compact(local)
    assert [month.changed for month in again] == [False] * 4
    assert [(month.days, month.rows, month.bytes, month.daily_bytes) for month in again] == [
        (month.days, month.rows, month.bytes, month.daily_bytes) for month in first
    ]
    assert {path: path.stat() for path in tmp_path.rglob("*.parquet")}.keys() == stats.keys()
    assert all(path.stat().st_mtime_ns == before.st_mtime_ns for path, before in stats.items())


def test_what_is_restated_reopens_its_day_and_is_compacted_anew(local: Lake) -> None:
    filled(local)
    compact(local)
    assert held(local) == set(PARTITIONS)
    restated, removed, *_ = ONE_MONTH
    local.write("posts", restated, posts(99, count=5))
    Path(local.url("posts", removed)).unlink()
    assert held(local) == set(PARTITIONS) - {restated, removed}
    expected = one_by_one(local)
    assert local.read("posts", PARTITIONS, schema=POSTS_SCHEMA).equals(expected)

    changed = [month for month in compact(local) if month.changed]
    assert [(month.month, month.instance_id, month.days) for month in changed] == [(JANUARY, "a/b", FEWEST_DAYS)]
    assert held(local) == set(PARTITIONS) - {removed}
    assert local.read("posts", PARTITIONS, schema=POSTS_SCHEMA).equals(expected)


def test_a_month_of_too_few_days_has_no_file_and_none_outlives_its_days(local: Lake) -> None:
    filled(local, ONE_MONTH)
    compact(local)
    path = month_file(local, ONE_MONTH[0])
    assert path.exists()
    for partition in ONE_MONTH[: -FEWEST_DAYS + 1]:
        Path(local.url("posts", partition)).unlink()
    (month,) = compact(local)
    assert (month.days, month.bytes, month.changed) == (0, 0, True)
    assert set(month.left_out.values()) == {"too few days for a file of a month"}
    assert not path.exists()
    assert [month.changed for month in compact(local)] == [False]

    filled(local, ONE_MONTH)
    compact(local)
    for partition in ONE_MONTH:
        Path(local.url("posts", partition)).unlink()
    (month,) = compact(local)
    assert (month.days, month.changed, month.left_out) == (0, True, {})
    assert not path.exists()
    assert compact(local) == []


def test_a_file_of_which_a_second_version_could_have_the_same_stamp_waits(local: Lake) -> None:
    filled(local, ONE_MONTH)
    restated = Path(local.url("posts", ONE_MONTH[2]))
    stamp = 1_700_000_000
    for partition in ONE_MONTH:
        os.utime(local.url("posts", partition), (stamp, stamp))
    a_moment_later = datetime.fromtimestamp(stamp + SETTLED_AFTER_SECONDS / 2, UTC)
    (month,) = compact(local, now=a_moment_later)
    assert (month.days, len(month.left_out)) == (0, len(ONE_MONTH))
    assert set(month.left_out.values()) == {"written moments ago: copied next time"}

    size = restated.stat().st_size
    local.write("posts", ONE_MONTH[2], posts(7))
    os.utime(restated, (stamp, stamp))
    assert restated.stat().st_size == size
    assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(one_by_one(local, ONE_MONTH))

    (month,) = compact(local, now=a_moment_later + timedelta(seconds=SETTLED_AFTER_SECONDS))
    assert (month.days, month.left_out) == (len(ONE_MONTH), {})
    assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(one_by_one(local, ONE_MONTH))


def test_an_etag_is_trusted_at_once(tmp_path: Path) -> None:
    lake = filled(lake_at("bucket", tmp_path))
    assert [month.days for month in compact(lake, now=datetime.now(UTC))] == [FEWEST_DAYS + 1] * 4


def test_a_large_day_stays_by_itself(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(local, ONE_MONTH)
    chance = random.Random(0)
    large = ONE_MONTH[1]
    local.write(
        "posts", large, posts(1, count=4000).set_column(2, "post_id", [[chance.getrandbits(62) for _ in range(4000)]])
    )
    while Path(local.url("posts", large)).stat().st_size <= LARGEST_DAY_BYTES:
        table = local.read("posts", [large], schema=POSTS_SCHEMA)
        local.write("posts", large, pa.concat_tables([table, table]))
    (month,) = compact(local)
    assert month.left_out == {large.day: "large enough to be read by itself"}
    assert held(local, ONE_MONTH) == set(ONE_MONTH) - {large}
    assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(one_by_one(local, ONE_MONTH))
    assert [month.changed for month in compact(local)] == [False]


def test_a_day_that_cannot_be_copied_keeps_no_other_from_it(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    partitions = [Partition(JANUARY + timedelta(days=number), "a/b") for number in range(10)]
    filled(local, partitions)
    Path(local.url("posts", partitions[3])).write_bytes(b"no Parquet")
    local.write("posts", partitions[5], posts(5).select(["post_id", "instance_id"]))
    pq.write_table(pa.table({"post_id": pa.array([1], pa.int32())}), local.url("posts", partitions[7]))
    (month,) = compact(local)
    assert month.left_out == {
        partitions[3].day: "its file cannot be read",
        partitions[5].day: "it has other columns than most of the month's days",
        partitions[7].day: "it has other columns than most of the month's days",
    }
    stamp = month_file(local, partitions[0]).stat().st_mtime_ns
    whole = [partition for number, partition in enumerate(partitions) if number not in (3, 7)]
    assert held(local, partitions) == {each for each in whole if each != partitions[5]}
    readable = [partition for partition in whole if partition != partitions[5]]
    assert local.read("posts", readable, schema=POSTS_SCHEMA).equals(one_by_one(local, readable))
    assert [month.changed for month in compact(local)] == [False]
    assert month_file(local, partitions[0]).stat().st_mtime_ns == stamp
    with pytest.raises(PartitionDamaged, match=str(partitions[3].day)):
        local.read("posts", partitions, schema=POSTS_SCHEMA)


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_day_that_changes_while_it_is_copied_is_left_out(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = filled(lake_at("bucket", tmp_path), ONE_MONTH)
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
        (month,) = compact(lake)
    assert month.left_out == {ONE_MONTH[1].day: "replaced or removed meanwhile"}
    assert month.days == len(ONE_MONTH) - 1


def test_without_versions_nothing_is_compacted_and_all_is_read(tmp_path: Path) -> None:
    lake = filled(lake_at("mute", tmp_path))
    with pytest.raises(ValueError, match=r"mute://.* cannot be compacted: its filesystem tells neither an ETag"):
        compact(lake)
    assert lake.read("posts", PARTITIONS, schema=POSTS_SCHEMA).num_rows == 3 * len(PARTITIONS)


def test_staged_bytes_that_a_disk_lost_are_no_month(
    local: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(local, ONE_MONTH)
    before = files_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: os.ftruncate(descriptor, os.fstat(descriptor).st_size - 1))
        with pytest.raises(LakeUnavailable, match="does not read back as it was written.*Next step"):
            compact(local)
    assert files_of(tmp_path) == before


# What may be wrong with a month


def test_a_month_that_rots_is_not_read_and_is_repaired(local: Lake) -> None:
    filled(local, ONE_MONTH)
    compact(local)
    path = month_file(local, ONE_MONTH[0])
    whole = path.read_bytes()
    expected = one_by_one(local, ONE_MONTH)
    footer = len(whole) - int.from_bytes(whole[-8:-4], "little") - 8
    days = whole.index(b"later_reporting.days") + len("later_reporting.days")
    rotten = [whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :] for place in range(4, footer, 301)]
    rotten += [
        whole[:place] + bytes([whole[place] ^ 0x01]) + whole[place + 1 :] for place in range(days + 4, days + 500, 3)
    ]
    rotten += [
        b"",
        b"no Parquet",
        whole[:-1],
        whole[: len(whole) // 2],
        Path(local.url("posts", ONE_MONTH[0])).read_bytes(),
    ]
    for data in rotten:
        path.write_bytes(data)
        assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(expected)
    assert [month.changed for month in compact(local)] == [True]
    assert path.read_bytes() == whole


def test_rows_that_rot_are_found_by_the_next_compaction_though_the_footer_is_whole(local: Lake) -> None:
    filled(local, ONE_MONTH)
    compact(local)
    path = month_file(local, ONE_MONTH[0])
    whole = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(0).column(3)
    place = column.data_page_offset + column.total_compressed_size - 1  # within the values of a page
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
    assert [month.changed for month in compact(local)] == [True]
    assert path.read_bytes() == whole


def test_a_month_that_is_not_what_its_footer_tells_is_written_anew(local: Lake) -> None:
    filled(local, ONE_MONTH)
    compact(local)
    path = month_file(local, ONE_MONTH[0])
    whole = path.read_bytes()
    table, facts = stored_rows(whole), facts_of(whole)

    def forge(other: pa.Table) -> None:
        path.write_bytes(to_parquet(other, content_hash=facts.content_hash, facts=facts.facts))

    forge(table)
    assert path.read_bytes() == whole
    forge(table.slice(1))
    assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(one_by_one(local, ONE_MONTH))
    for column, value in (("impressions", 5), ("date", date(2024, 1, 9))):
        field = table.schema.field(column)
        values = pa.array([value] * table.num_rows, field.type)
        forge(table.set_column(table.schema.get_field_index(column), field, values))
        assert [month.changed for month in compact(local)] == [True]
        assert path.read_bytes() == whole


def test_a_month_that_cannot_be_opened_is_done_without(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(local, ONE_MONTH)
    compact(local)
    expected = one_by_one(local, ONE_MONTH)
    path = month_file(local, ONE_MONTH[0])
    path.unlink()
    path.mkdir()
    assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(expected)
    path.rmdir()
    compact(local)

    def refuse(*_: Any) -> Any:
        raise PermissionError

    monkeypatch.setattr(os, "stat", refuse)
    assert local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA).equals(expected)


def test_a_month_is_read_as_a_newer_schema_as_its_days_are(local: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, partition in enumerate(ONE_MONTH):
        local.write("posts", partition, posts(number).drop_columns(["extra", "paid_cpm"]))
    compact(local)
    assert held(local, ONE_MONTH) == set(ONE_MONTH)
    table = local.read("posts", ONE_MONTH, schema=POSTS_SCHEMA)
    assert table.equals(one_by_one(local, ONE_MONTH))
    assert table["extra"].null_count == table.num_rows
    for field in (pa.field("new", pa.int64(), nullable=False), pa.field("impressions", pa.string())):
        with pytest.raises(PartitionDamaged):
            local.read("posts", ONE_MONTH, schema=pa.schema([field]))


# Whatever happens


SMALL = pa.schema([pa.field("post_id", pa.int64(), nullable=False), ("impressions", pa.int64())])


class Story:
    """A lake to which things happen, each at a time of its own, and what it has to hold."""

    def __init__(self, root: str) -> None:
        self.lake = Lake(root)
        self.root = root
        self.files, _ = fsspec.core.url_to_fs(root)
        self.clock = 1_700_000_000
        self.truth: dict[Partition, pa.Table] = {}
        self.kept: dict[str, bytes] = {}
        for partition in PARTITIONS:
            self.write(partition, 1)

    def write(self, partition: Partition, count: int) -> None:
        table = pa.table({"post_id": [self.clock] * count, "impressions": [None] * count}, schema=SMALL)
        self.lake.write("posts", partition, table)
        self.truth[partition] = table
        path = self.place(partition_path("posts", partition))
        if isinstance(self.files, MemoryFileSystem):
            self.files.store[self.files._strip_protocol(path)].modified = datetime.fromtimestamp(self.clock, UTC)
        else:
            os.utime(path.removeprefix("file://"), (self.clock, self.clock))
        self.clock += 10

    def delete(self, partition: Partition) -> None:
        self.remove(partition_path("posts", partition))
        self.truth.pop(partition, None)

    def compact(self) -> None:
        compact(self.lake, now=datetime.fromtimestamp(self.clock, UTC))

    def lose_month(self, partition: Partition) -> None:
        self.remove(self.month(partition))

    def damage_month(self, partition: Partition, share: float) -> None:
        if data := self.bytes_of(self.month(partition)):
            self.files.pipe_file(self.place(self.month(partition)), data[: int(share * len(data))])

    def keep_month(self, partition: Partition) -> None:
        self.kept[self.month(partition)] = self.bytes_of(self.month(partition))

    def restore_month(self, partition: Partition) -> None:
        if data := self.kept.get(self.month(partition)):
            self.files.makedirs(self.place(self.month(partition)).rpartition("/")[0], exist_ok=True)
            self.files.pipe_file(self.place(self.month(partition)), data)

    def is_told_truly(self) -> None:
        expected = [self.truth[partition] for partition in PARTITIONS if partition in self.truth]
        found = self.lake.read("posts", PARTITIONS, schema=SMALL)
        assert found.equals(pa.concat_tables([SMALL.empty_table(), *expected]))
        days = list(self.lake.read_days("posts", schema=SMALL))
        tables = {partition: table for day in days for partition, table in day.tables.items()}
        assert tables.keys() == self.truth.keys()
        assert all(table.equals(self.truth[partition]) for partition, table in tables.items())
        assert not any(day.unread for day in days)

    def month(self, partition: Partition) -> str:
        return compacted_path("posts", partition.day.replace(day=1), partition.instance_id)

    def place(self, path: str) -> str:
        return f"{self.root}/{path}"

    def bytes_of(self, path: str) -> bytes:
        with suppress(FileNotFoundError):
            return bytes(self.files.cat_file(self.place(path)))
        return b""

    def remove(self, path: str) -> None:
        with suppress(FileNotFoundError):
            self.files.rm_file(self.place(path))


A_PARTITION = st.sampled_from(PARTITIONS)
HAPPENINGS = st.one_of(
    *[st.tuples(st.just(Story.write), A_PARTITION, st.integers(0, 3))] * 3,
    *[st.tuples(st.just(Story.compact))] * 3,
    st.tuples(st.just(Story.delete), A_PARTITION),
    st.tuples(st.just(Story.lose_month), A_PARTITION),
    st.tuples(st.just(Story.damage_month), A_PARTITION, st.floats(0, 0.999)),
    st.tuples(st.just(Story.keep_month), A_PARTITION),
    st.tuples(st.just(Story.restore_month), A_PARTITION),
)


@pytest.mark.parametrize("scheme", ["file", "memory", "bucket"])
@settings(max_examples=15)
@given(happenings=st.lists(HAPPENINGS, max_size=12))
def test_whatever_happens_each_row_is_read_once_and_as_it_was_written_last(
    scheme: str, happenings: list[tuple[Any, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)  # the story has no loss of power
        story = Story(f"{scheme}://{directory}")
        for happening, *arguments in [(Story.compact,), *happenings, (Story.compact,)]:
            happening(story, *arguments)
            story.is_told_truly()
        if scheme != "file":
            story.files.rm(directory, recursive=True)


def test_readers_see_each_row_once_and_no_version_that_was_replaced_while_months_are_restated_and_compacted(
    lake: Lake,
) -> None:
    chance = random.Random(0)
    schema = pa.schema([(name, pa.int64()) for name in ("partition", "version", "noise")])
    written: dict[int, int] = {}

    def write(number: int) -> None:
        # Each version is larger than the one before, and no two can be mistaken for each other.
        version = written.get(number, 0) + 1
        noise = [chance.getrandbits(62) for _ in range(10 * version)]
        columns = {"partition": [number] * len(noise), "version": [version] * len(noise), "noise": noise}
        lake.write("posts", ONE_MONTH[number], pa.table(columns, schema=schema))
        written[number] = version

    for number in range(len(ONE_MONTH)):
        write(number)
    done, looked = threading.Event(), threading.Semaphore(0)
    problems: list[BaseException] = []
    seen: set[tuple[int, ...]] = set()

    def look(read: Callable[[], pa.Table]) -> None:
        before = dict(written)
        table = read().select(["partition", "version"])
        counts = Counter((row["partition"], row["version"]) for row in table.to_pylist())
        versions = dict(counts.keys())
        assert sorted(number for number, _ in counts) == sorted(before)
        assert all(count == 10 * version for (_, version), count in counts.items())
        assert all(versions[number] >= version for number, version in before.items())
        seen.add(tuple(versions.values()))
        looked.release()

    def by_day() -> pa.Table:
        days = lake.read_days("posts", schema=schema)
        return pa.concat_tables(table for day in days for table in day.tables.values())

    def keep_looking() -> None:
        try:
            while not done.is_set():
                look(lambda: lake.read("posts", ONE_MONTH, schema=schema))
                look(by_day)
        except BaseException as problem:
            problems.append(problem)
            looked.release(30)

    reader = threading.Thread(target=keep_looking)
    reader.start()
    changed = 0
    for turn in range(30):
        write(chance.randrange(len(ONE_MONTH)))
        if turn % 2:
            changed += sum(month.changed for month in compact(lake))
        assert looked.acquire(timeout=60)
    done.set()
    reader.join()

    assert problems == []
    assert changed == 15
    assert len(seen) > 1
