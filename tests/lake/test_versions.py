"""Versions that were replaced: kept to the byte while they are wanted, and put back whole."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

from later_reporting_dagster.lake import (
    POSTS_SCHEMA,
    KeptVersion,
    Lake,
    LakeUnavailable,
    NotReplaced,
    Partition,
    PartitionDamaged,
    content_hash_of,
)
from tests.lake.conftest import DAY, files_of, rows

MORNING = datetime(2024, 3, 11, 6, tzinfo=UTC)


def hourly() -> Callable[[], datetime]:
    """A clock that is an hour later each time it is looked at."""
    hours: Iterator[int] = count()
    return lambda: MORNING + timedelta(hours=next(hours))


def keeping(root: str | Path, versions: int) -> Lake:
    return Lake(str(root), keep_versions=versions, now=hourly())


def stored(lake: Lake, partition: Partition = DAY) -> pa.Table:
    return lake.read("posts", [partition], schema=POSTS_SCHEMA)


def test_what_is_replaced_is_kept_to_the_byte_by_time_and_hash(root: str) -> None:
    lake = keeping(root, 2)
    for number in (1, 2, 3):
        lake.write("posts", DAY, rows(number), facts={"number": str(number)})
    assert lake.versions("posts", DAY) == [
        KeptVersion(MORNING + timedelta(hours=1), content_hash_of(rows(2))[:12]),
        KeptVersion(MORNING, content_hash_of(rows(1))[:12]),
    ]
    facts = [lake.version_facts("posts", DAY, version) for version in lake.versions("posts", DAY)]
    assert [(each.rows, each.facts["number"]) for each in facts if each] == [(2, "2"), (1, "1")]


def test_they_lie_where_no_reader_of_the_table_looks(tmp_path: Path) -> None:
    lake = keeping(tmp_path, 5)
    lake.write("posts", DAY, rows(1))
    before = files_of(tmp_path)["posts/date=2024-01-03/instance_id=instance_000/part-0.parquet"]
    lake.write("posts", DAY, rows(2))
    name = f"20240311T060000.000000Z-{content_hash_of(rows(1))[:12]}.parquet"
    assert files_of(tmp_path)[f"_versions/posts/date=2024-01-03/instance_id=instance_000/{name}"] == before
    assert lake.partitions("posts") == [DAY]
    assert stored(lake).equals(rows(2))


def test_the_oldest_are_pruned(root: str) -> None:
    lake = keeping(root, 2)
    for number in range(1, 7):
        lake.write("posts", DAY, rows(number))
    assert [version.content_hash for version in lake.versions("posts", DAY)] == [
        content_hash_of(rows(number))[:12] for number in (5, 4)
    ]


def test_none_are_kept_unless_asked_for_and_those_that_are_there_stay(tmp_path: Path) -> None:
    keeping(tmp_path, 1).write("posts", DAY, rows(1))
    keeping(tmp_path, 1).write("posts", DAY, rows(2))
    lake = Lake(str(tmp_path))
    lake.write("posts", DAY, rows(3))
    assert [version.content_hash for version in lake.versions("posts", DAY)] == [content_hash_of(rows(1))[:12]]


def test_what_does_not_change_keeps_nothing(root: str) -> None:
    lake = keeping(root, 3)
    for _ in range(2):
        lake.write("posts", DAY, rows(1))
    assert lake.versions("posts", DAY) == []


def test_partitions_of_all_instances_have_versions_too(root: str) -> None:
    lake, day = keeping(root, 1), Partition(date(2024, 1, 3))
    lake.write("rollup", day, rows(1))
    lake.write("rollup", day, rows(2))
    (version,) = lake.versions("rollup", day)
    assert lake.restore("rollup", day, version).rows == 1


def test_a_version_is_put_back_to_the_byte_and_what_it_replaces_is_kept(root: str) -> None:
    lake = keeping(root, 5)
    lake.write("posts", DAY, rows(1), facts={"fetched_at": "first"})
    lake.write("posts", DAY, rows(2))
    (first,) = lake.versions("posts", DAY)
    written = lake.restore("posts", DAY, first)
    facts = lake.facts("posts", DAY)
    assert facts is not None
    assert (written.changed, written.rows, written.bytes) == (True, 1, facts.bytes)
    assert written.content_hash == facts.content_hash == content_hash_of(rows(1))
    assert facts.facts == {"fetched_at": "first"}
    assert stored(lake).equals(rows(1))
    second, _ = lake.versions("posts", DAY)
    assert second.content_hash == content_hash_of(rows(2))[:12]
    lake.restore("posts", DAY, second)
    assert stored(lake).equals(rows(2))


def test_what_lies_there_already_is_not_put_back_again(tmp_path: Path) -> None:
    lake = keeping(tmp_path, 5)
    for number in (1, 2, 1):
        lake.write("posts", DAY, rows(number))
    _, first = lake.versions("posts", DAY)
    before = files_of(tmp_path)
    assert not lake.restore("posts", DAY, first).changed
    assert files_of(tmp_path) == before


def test_a_version_is_put_back_where_nothing_lies_any_more_or_nothing_that_can_be_read(tmp_path: Path) -> None:
    lake = keeping(tmp_path, 5)
    lake.write("posts", DAY, rows(1))
    lake.write("posts", DAY, rows(2))
    (first,) = lake.versions("posts", DAY)
    path = Path(lake.url("posts", DAY))
    path.unlink()
    assert lake.restore("posts", DAY, first).changed
    path.write_bytes(b"no Parquet")
    assert lake.restore("posts", DAY, first).changed
    assert stored(lake).equals(rows(1))
    assert lake.versions("posts", DAY) == [first]


def test_a_version_of_which_a_disk_loses_a_part_is_not_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = keeping(tmp_path, 5)
    for number in (1, 2):
        lake.write("posts", DAY, rows(number))
    (first,) = lake.versions("posts", DAY)

    def lose_the_tail(descriptor: int) -> None:
        synced = Path(f"/proc/self/fd/{descriptor}").readlink()
        if synced.is_file() and "_versions" not in synced.parts:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size - 1)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lose_the_tail)
        with pytest.raises(LakeUnavailable) as refused:
            lake.restore("posts", DAY, first)
    assert str(refused.value) == (
        f"cannot write {lake.url('posts', DAY)}: what was staged does not read back as it was written, so nothing was"
        " replaced. Next step: check that disk or store, and run again"
    )
    assert stored(lake).equals(rows(2))


def test_a_version_that_is_gone_or_damaged_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    lake = keeping(tmp_path, 5)
    for number in (1, 2):
        lake.write("posts", DAY, rows(number))
    (version,) = lake.versions("posts", DAY)
    (file,) = (tmp_path / "_versions").rglob("*.parquet")
    for damage in (b"no Parquet", Path(lake.url("posts", DAY)).read_bytes()):
        file.write_bytes(damage)
        with pytest.raises(PartitionDamaged):
            lake.restore("posts", DAY, version)
    file.unlink()
    with pytest.raises(KeyError):
        lake.restore("posts", DAY, version)
    assert stored(lake).equals(rows(2))


def test_a_crash_before_the_new_one_is_shown_leaves_one_version_too_many_and_no_second_one(tmp_path: Path) -> None:
    lake = keeping(tmp_path, 1)
    lake.write("posts", DAY, rows(1))
    lake.write("posts", DAY, rows(2))

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        storage, write_all = lake._storage, lake._storage.write_all
        answers = iter([write_all, killed])
        patch.setattr(storage, "write_all", lambda *given, **options: next(answers)(*given, **options))
        with pytest.raises(Killed):
            lake.write("posts", DAY, rows(3))
    kept = [version.content_hash for version in lake.versions("posts", DAY)]
    assert kept == [content_hash_of(rows(number))[:12] for number in (2, 1)]
    assert stored(lake).equals(rows(2))
    lake.write("posts", DAY, rows(3))
    assert [version.content_hash for version in lake.versions("posts", DAY)] == kept[:1]


def test_what_cannot_be_kept_is_not_replaced(tmp_path: Path) -> None:
    lake, other = keeping(tmp_path, 1), Partition(DAY.day, "other")
    lake.write_all("posts", {DAY: rows(1), other: rows(1)})
    blocked = tmp_path / "_versions/posts/date=2024-01-03/instance_id=instance_000"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("", encoding="utf-8")
    outcomes = lake.write_all("posts", {DAY: rows(2), other: rows(2)})
    assert isinstance(outcomes[DAY], LakeUnavailable)
    assert (stored(lake).num_rows, stored(lake, other).num_rows) == (1, 2)


def test_a_version_that_a_disk_lost_a_part_of_is_not_kept_and_nothing_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = keeping(tmp_path, 1)
    lake.write("posts", DAY, rows(1))
    before = files_of(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: os.ftruncate(descriptor, os.fstat(descriptor).st_size - 1))
        outcome = lake.write_all("posts", {DAY: rows(2)})[DAY]
    assert isinstance(outcome, LakeUnavailable)
    name = f"20240311T060000.000000Z-{content_hash_of(rows(1))[:12]}.parquet"
    place = tmp_path / "_versions/posts/date=2024-01-03/instance_id=instance_000" / name
    assert str(outcome) == (
        f"cannot write {place}: what was staged does not read back as it was written, so nothing was replaced."
        " Next step: check that disk or store, and run again"
    )
    assert files_of(tmp_path) == before


def test_what_cannot_be_read_is_not_kept_and_replaced_all_the_same(tmp_path: Path) -> None:
    lake = keeping(tmp_path, 1)
    lake.write("posts", DAY, rows(1))
    Path(lake.url("posts", DAY)).write_bytes(b"no Parquet")
    assert lake.write("posts", DAY, rows(2)).changed
    assert lake.versions("posts", DAY) == []


def test_other_files_among_the_versions_are_no_versions(tmp_path: Path) -> None:
    lake = keeping(tmp_path, 1)
    for number in (1, 2):
        lake.write("posts", DAY, rows(number))
    (file,) = (tmp_path / "_versions").rglob("*.parquet")
    file.with_name("notes.parquet").write_text("", encoding="utf-8")
    lake.write("posts", DAY, rows(3))
    assert len(lake.versions("posts", DAY)) == 1
    assert file.with_name("notes.parquet").exists()


# Who may look at a replacement first


def test_a_replacement_is_reviewed_with_what_is_there_and_what_is_to_be(lake: Lake) -> None:
    same, changed, new = (Partition(date(2024, 1, day), "a") for day in (1, 2, 3))
    lake.write_all("posts", {same: rows(1), changed: rows(2)})
    reviewed: list[tuple[Partition, int, int]] = []

    def review(partition: Partition, old: pa.Table, new: pa.Table) -> None:
        assert old.schema.equals(POSTS_SCHEMA)
        reviewed.append((partition, old.num_rows, new.num_rows))

    lake.write_all("posts", {same: rows(1), changed: rows(5), new: rows(4)}, review=review)
    assert reviewed == [(changed, 2, 5)]


def test_what_the_review_refuses_stays_to_the_byte_and_keeps_no_version(tmp_path: Path) -> None:
    lake, other = keeping(tmp_path, 3), Partition(DAY.day, "other")
    lake.write("posts", DAY, rows(2))
    before = files_of(tmp_path)

    def review(partition: Partition, old: pa.Table, new: pa.Table) -> None:
        raise NotReplaced("it shall stay")

    outcomes = lake.write_all("posts", {DAY: rows(1), other: rows(1)}, review=review)
    assert str(outcomes[DAY]) == "it shall stay"
    assert stored(lake, other).num_rows == 1
    assert files_of(tmp_path).items() >= before.items()
    assert lake.versions("posts", DAY) == []


def test_what_cannot_be_read_is_replaced_without_a_review(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", DAY, rows(2))
    path = Path(lake.url("posts", DAY))
    path.write_bytes(path.read_bytes()[:-20])

    def review(partition: Partition, old: pa.Table, new: pa.Table) -> None:
        raise AssertionError("there is nothing to compare")

    assert not isinstance(lake.write_all("posts", {DAY: rows(1)}, review=review)[DAY], Exception)
    assert stored(lake).num_rows == 1


def test_a_file_that_lacks_a_younger_column_is_reviewed_without_it(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", DAY, rows(2).drop_columns(["extra"]))
    seen: list[list[str]] = []
    lake.write_all("posts", {DAY: rows(2)}, review=lambda _, old, __: seen.append(old.column_names))
    assert seen == [POSTS_SCHEMA.names[:-1]]
