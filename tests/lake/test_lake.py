from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from later_reporting_dagster.lake import (
    POSTS_SCHEMA,
    Lake,
    LakeUnavailable,
    Partition,
    PartitionDamaged,
    Written,
    content_hash_of,
    partition_path,
)
from tests.lake.conftest import DAY, files_of, rows

ODD_IDS = ["a/b", "..", "x|y", "a b", "é", "007", "100%", "__HIVE_DEFAULT_PARTITION__", "A", "[z]*?"]


def test_what_is_written_is_read_back_exactly(lake: Lake) -> None:
    written = lake.write("posts", DAY, rows(), facts={"fetched_at": "2024-01-04T05:00:00Z"})

    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(rows())
    facts = lake.facts("posts", DAY)
    assert facts is not None
    assert (written.rows, written.bytes, written.content_hash) == (20, facts.bytes, facts.content_hash)
    assert facts.content_hash == content_hash_of(rows())
    assert facts.facts == {"fetched_at": "2024-01-04T05:00:00Z"}
    assert (written.changed, written.url) == (True, lake.url("posts", DAY))


def test_the_same_rows_again_change_nothing_not_even_the_facts(lake: Lake) -> None:
    first = lake.write("posts", DAY, rows(), facts={"fetched_at": "first"})
    again = lake.write("posts", DAY, rows(), facts={"fetched_at": "second"})
    facts = lake.facts("posts", DAY)
    assert facts is not None
    assert facts.facts == {"fetched_at": "first"}
    assert not again.changed
    assert (again.url, again.rows, again.bytes, again.content_hash) == (
        first.url,
        first.rows,
        first.bytes,
        first.content_hash,
    )


def test_partitions_written_together_come_to_what_they_come_to_alone(lake: Lake) -> None:
    tables = {Partition(date(2024, 1, day), "a"): rows(day - 1) for day in (3, 1, 2)}
    same, other, new = tables
    lake.write("posts", same, tables[same])
    lake.write("posts", other, rows(9))
    facts = {"fetched_at": "now"}

    written = lake.write_all("posts", tables, facts=facts)

    assert written == {
        partition: Written(
            lake.url("posts", partition), table.num_rows, stored.bytes, content_hash_of(table), partition != same
        )
        for partition, table in tables.items()
        if (stored := lake.facts("posts", partition))
    }
    assert [stored.facts for partition in (same, other, new) if (stored := lake.facts("posts", partition))] == [
        {},
        facts,
        facts,
    ]
    assert all(lake.read("posts", [each], schema=POSTS_SCHEMA).equals(table) for each, table in tables.items())
    assert lake.write_all("posts", {}) == {}


def test_a_partition_whose_id_cannot_be_one_keeps_all_that_come_with_it_from_being_written(lake: Lake) -> None:
    with pytest.raises(ValueError, match="cannot be empty"):
        lake.write_all("posts", {DAY: rows(), Partition(DAY.day, ""): rows()})
    assert lake.partitions("posts") == []


def test_a_file_that_is_no_table_is_replaced_whole_and_written_just_when_it_changed(lake: Lake) -> None:
    first, same, other = (lake.write_file("report", "page.html", data) for data in (b"one", b"one", b"another"))
    assert [written.changed for written in (first, same, other)] == [True, False, True]
    assert first.content_hash == same.content_hash != other.content_hash
    assert other.bytes == len(b"another")
    assert first.url == other.url
    assert first.url.endswith("report/page.html")
    assert lake.partitions("report") == []


def test_a_file_that_does_not_read_back_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(str(tmp_path))
    lake.write_file("report", "page.html", b"one")
    monkeypatch.setattr("later_reporting_dagster.lake.storage._Stage.read", lambda _: b"what the disk made of it")
    with pytest.raises(LakeUnavailable, match=r"page.html: what was staged does not read back"):
        lake.write_file("report", "page.html", b"another")
    assert (tmp_path / "report" / "page.html").read_bytes() == b"one"


def test_a_day_without_posts_is_a_file_with_no_rows_and_not_no_file(lake: Lake) -> None:
    assert lake.partitions("posts") == []
    assert lake.facts("posts", DAY) is None
    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(POSTS_SCHEMA.empty_table())

    assert lake.write("posts", DAY, rows(0)).rows == 0

    assert lake.partitions("posts") == [DAY]
    facts = lake.facts("posts", DAY)
    assert facts is not None
    assert facts.rows == 0
    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(POSTS_SCHEMA.empty_table())


def test_read_gives_the_partitions_that_exist_in_the_order_asked(lake: Lake) -> None:
    partitions = [Partition(date(2024, 1, day), "a") for day in range(1, 6)]
    for partition in partitions[::2]:
        lake.write("posts", partition, rows(2, instance_id=str(partition.day)))
    table = lake.read("posts", reversed(partitions), schema=POSTS_SCHEMA)
    assert table.column("instance_id").to_pylist() == [
        day for day in ("2024-01-05", "2024-01-03", "2024-01-01") for _ in range(2)
    ]


def test_days_are_read_one_after_the_other_with_their_partitions_apart(lake: Lake) -> None:
    days = [date(2024, 1, 31), date(2024, 2, 1), date(2024, 2, 2)]
    written = {
        Partition(day, instance_id): rows(number, instance_id=instance_id)
        for number, (day, instance_id) in enumerate([(days[0], "b"), (days[0], "a"), (days[2], "a")])
    }
    for partition, table in written.items():
        lake.write("posts", partition, table)
    asked = [*reversed(days), days[0]]
    read = list(lake.read_days("posts", asked, schema=POSTS_SCHEMA))
    assert [day.day for day in read] == asked
    assert [[partition.instance_id for partition in day.tables] for day in read] == [["a"], [], ["a", "b"], ["a", "b"]]
    for day in read:
        assert all(table.equals(written[partition]) for partition, table in day.tables.items())
        assert day.unread == {}
    assert [day.day for day in lake.read_days("posts", schema=POSTS_SCHEMA)] == [days[0], days[2]]
    assert list(lake.read_days("posts", [], schema=POSTS_SCHEMA)) == []
    assert list(lake.read_days("other", schema=POSTS_SCHEMA)) == []


def test_what_cannot_be_read_is_told_with_its_day_and_stops_no_other(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    days = [date(2024, 1, number) for number in range(1, 5)]
    for day in (days[0], days[1], days[3]):
        for instance_id in ("a", "b"):
            lake.write("posts", Partition(day, instance_id), rows(2))
    Path(lake.url("posts", Partition(days[1], "a"))).write_bytes(b"no Parquet")
    (tmp_path / "posts" / f"date={days[2]}").write_bytes(b"a file where a directory is due")
    first, damaged, unlisted, last = lake.read_days("posts", days, schema=POSTS_SCHEMA)
    assert [day.day for day in (first, damaged, unlisted, last)] == days
    assert [[partition.instance_id for partition in day.tables] for day in (first, damaged, unlisted, last)] == [
        ["a", "b"],
        ["b"],
        [],
        ["a", "b"],
    ]
    assert not first.unread
    assert not last.unread
    ((partition, error),) = damaged.unread.items()
    assert partition == Partition(days[1], "a")
    assert isinstance(error, PartitionDamaged)
    ((partition, unavailable),) = unlisted.unread.items()
    assert partition == Partition(days[2])
    assert isinstance(unavailable, LakeUnavailable)


def test_a_day_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    partitions = [Partition(date(2024, 1, number), "a") for number in range(1, 5)]
    for partition in partitions:
        lake.write("posts", partition, rows(2))
    days = lake.read_days("posts", schema=POSTS_SCHEMA)
    assert len(next(days).tables) == 1
    lake.write("posts", partitions[1], rows(7))
    assert next(days).tables[partitions[1]].num_rows == 7


def test_partitions_are_listed_sorted_and_by_day(lake: Lake) -> None:
    first, second, third = (Partition(date(2024, 1, day), name) for day, name in ((1, "b"), (2, "a"), (2, "b")))
    for partition in (third, first, second):
        lake.write("posts", partition, rows(1))
    lake.write("other", Partition(date(2024, 1, 1)), rows(1))
    assert lake.partitions("posts") == [first, second, third]
    assert lake.partitions("posts", days=[date(2024, 1, 2), date(2024, 1, 9)]) == [second, third]
    assert lake.partitions("posts", days=[]) == []
    assert lake.partitions("other") == [Partition(date(2024, 1, 1))]


def test_what_is_of_all_instances_comes_before_what_is_of_one(lake: Lake) -> None:
    of_all, *of_one = (Partition(DAY.day, instance_id) for instance_id in (None, "A", "a"))
    for partition in (*of_one, of_all):
        lake.write("posts", partition, rows(1))
    assert lake.partitions("posts") == [of_all, *of_one]
    (day,) = lake.read_days("posts", schema=POSTS_SCHEMA)
    assert list(day.tables) == [of_all, *of_one]


def test_odd_instance_ids_keep_apart_and_stay_text_for_readers_of_the_dataset(lake: Lake) -> None:
    for instance_id in ODD_IDS:
        lake.write("posts", Partition(DAY.day, instance_id), rows(1, instance_id=instance_id))
    assert {partition.instance_id for partition in lake.partitions("posts")} == set(ODD_IDS)

    dataset = lake.dataset("posts", POSTS_SCHEMA)
    assert dataset.schema.equals(POSTS_SCHEMA.insert(0, pa.field("date", pa.date32(), nullable=False)))
    table = dataset.to_table()
    assert sorted(table.column("instance_id").to_pylist()) == sorted(ODD_IDS)
    assert set(table.column("date").to_pylist()) == {DAY.day}
    assert dataset.to_table(filter=pc.field("instance_id") == "007").num_rows == 1
    assert dataset.to_table(filter=pc.field("date") > pa.scalar(DAY.day)).num_rows == 0


def test_rows_are_read_with_the_day_of_their_partition_when_asked(lake: Lake) -> None:
    days = [Partition(date(2024, 1, number)) for number in (1, 2, 3, 4)]
    for day, count in zip(days, (2, 0, 1), strict=False):  # of the fourth there is no file
        lake.write("rollup", day, rows(count))
    table = lake.read("rollup", [days[2], days[1], days[0], days[3]], schema=POSTS_SCHEMA, with_date=True)
    assert table.schema.equals(lake.dataset("rollup", POSTS_SCHEMA).schema)
    assert table.column("date").to_pylist() == [date(2024, 1, 3), date(2024, 1, 1), date(2024, 1, 1)]
    assert table.drop_columns(["date"]).equals(lake.read("rollup", [days[2], days[0]], schema=POSTS_SCHEMA))
    nothing = lake.read("rollup", [], schema=POSTS_SCHEMA, with_date=True)
    assert (nothing.num_rows, nothing.schema) == (0, table.schema)


def test_the_dataset_has_just_the_partitions_that_are_named_and_exist(lake: Lake) -> None:
    days = [Partition(date(2024, 1, 1) + timedelta(days=number)) for number in range(40)]
    for number, day in enumerate(days):
        lake.write("rollup", day, rows(1 + number % 2))
    for wanted in (days[3:5], days[1:], [*days, Partition(date(2025, 1, 1))], []):
        found = [day for day in wanted if day in days]
        assert lake.existing("rollup", reversed(wanted)) == found
        expected = lake.read("rollup", found, schema=POSTS_SCHEMA, with_date=True)
        assert lake.dataset("rollup", POSTS_SCHEMA, wanted).to_table().equals(expected)


def test_the_dataset_of_a_table_without_instances_in_its_path_takes_them_from_its_rows(
    lake: Lake, tmp_path: Path
) -> None:
    below_such_folders = Lake(str(tmp_path / "date=2020-02-02" / "instance_id=other" / "lake"))
    for each in (lake, below_such_folders):
        each.write("rollup", Partition(DAY.day), rows(2, instance_id="007"))
        table = each.dataset("rollup", POSTS_SCHEMA).to_table()
        assert table.column("instance_id").to_pylist() == ["007", "007"]
        assert table.column("date").to_pylist() == [DAY.day, DAY.day]


def test_a_day_is_one_hive_path_and_the_same_rows_are_the_same_bytes_everywhere(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Lake(str(tmp_path / name)).write("posts", Partition(DAY.day, "a/b"), rows(), facts={"queries": "q"})
    one = files_of(tmp_path / "one")
    assert list(one) == ["posts/date=2024-01-03/instance_id=a%2Fb/part-0.parquet"]
    assert one == files_of(tmp_path / "two")


def test_what_is_no_partition_is_ignored(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", DAY, rows())
    day = tmp_path / "posts" / "date=2024-01-03"
    for odd in ("instance_id=a b/part-0.parquet", "instance_id=b/part-1.parquet", ".hidden/part-0.parquet", "README"):
        (day / odd).parent.mkdir(exist_ok=True)
        (day / odd).write_bytes(b"")
    assert lake.partitions("posts") == [DAY]


def test_a_damaged_partition_is_named_and_the_next_write_repairs_it(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", DAY, rows())
    path = tmp_path / partition_path("posts", DAY)
    path.write_bytes(path.read_bytes()[:100])
    for look in (lambda: lake.read("posts", [DAY], schema=POSTS_SCHEMA), lambda: lake.facts("posts", DAY)):
        with pytest.raises(PartitionDamaged, match=f"{path} is damaged.*materialize this partition again"):
            look()
    assert lake.write("posts", DAY, rows()).changed
    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(rows())


def test_rows_that_rot_under_a_whole_footer_are_never_read_and_the_next_write_repairs_them(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", DAY, rows(50))
    path = tmp_path / partition_path("posts", DAY)
    whole = path.read_bytes()
    footer = len(whole) - int.from_bytes(whole[-8:-4], "little") - 8
    noticed = 0
    for place in range(4, footer, max(1, footer // 40)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            # A page's header has bytes on which nothing depends.
            assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(rows(50))
        except PartitionDamaged:
            noticed += 1
            assert lake.write("posts", DAY, rows(50)).changed
            assert path.read_bytes() == whole
    assert noticed > 20


def test_a_writable_lake_is_found_so_and_left_as_it_was(lake: Lake, tmp_path: Path) -> None:
    lake.check_writable()
    assert lake.partitions("posts") == []
    Lake(str(tmp_path / "local")).check_writable()
    assert files_of(tmp_path / "local") == {}


def test_a_hundred_partitions_are_read_together(lake: Lake) -> None:
    partitions = [Partition(date(2024, month, day), "a") for month in (1, 2, 3, 4) for day in range(1, 29)]
    for partition in partitions:
        lake.write("posts", partition, rows(10))
    assert lake.read("posts", lake.partitions("posts"), schema=POSTS_SCHEMA).num_rows == 10 * len(partitions)
