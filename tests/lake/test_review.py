"""A review sees each replacement before it is written, and may refuse it."""

from datetime import date
from pathlib import Path

import pyarrow as pa

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, NotReplaced, Partition
from tests.lake.conftest import DAY, files_of, rows


def stored(lake: Lake, partition: Partition = DAY) -> pa.Table:
    return lake.read("posts", [partition], schema=POSTS_SCHEMA)


def test_a_replacement_is_reviewed_with_what_is_there_and_what_is_to_be(lake: Lake) -> None:
    same, changed, new = (Partition(date(2024, 1, day), "a") for day in (1, 2, 3))
    lake.write_all("posts", {same: rows(1), changed: rows(2)})
    reviewed: list[tuple[Partition, int, int]] = []

    def review(partition: Partition, old: pa.Table, new: pa.Table) -> None:
        assert old.schema.equals(POSTS_SCHEMA)
        reviewed.append((partition, old.num_rows, new.num_rows))

    lake.write_all("posts", {same: rows(1), changed: rows(5), new: rows(4)}, review=review)
    assert reviewed == [(changed, 2, 5)]


def test_what_the_review_refuses_stays_to_the_byte(tmp_path: Path) -> None:
    lake, other = Lake(str(tmp_path)), Partition(DAY.day, "other")
    lake.write("posts", DAY, rows(2))
    before = files_of(tmp_path)

    def review(partition: Partition, old: pa.Table, new: pa.Table) -> None:
        raise NotReplaced("it shall stay")

    outcomes = lake.write_all("posts", {DAY: rows(1), other: rows(1)}, review=review)
    assert str(outcomes[DAY]) == "it shall stay"
    assert stored(lake, other).num_rows == 1
    assert files_of(tmp_path).items() >= before.items()


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
