import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS, BadRow, Metric, parse_metrics
from later_reporting_dagster.contract.rows import Post, with_metrics
from later_reporting_dagster.lake import (
    POST_COLUMNS,
    POSTS_SCHEMA,
    FileDamaged,
    Lake,
    Partition,
    Table,
    WriteResult,
    open_dataset,
    partition_path,
    post_columns,
    posts_schema,
    posts_table,
)
from later_reporting_dagster.lake.coverage import FileRecord, RunRecords, record_files
from later_reporting_dagster.lake.database import open_database
from later_reporting_dagster.lake.file_metadata import FileMetadata
from later_reporting_dagster.lake.parquet_file import content_hash_of, has_rows, read_stored_rows, to_parquet
from later_reporting_dagster.lake.personal_data import RemovalSummary, remove_personal_data
from later_reporting_dagster.lake.quarantine import QuarantinedRow
from later_reporting_dagster.lake.sql_query import run_query
from later_reporting_dagster.lake.storage import ReplacedMeanwhile
from tests.conftest import files
from tests.lake.conftest import DAY, post, rows

POSTS, ROLLUP = Table("posts", POST_COLUMNS), Table("rollup", POST_COLUMNS)
UNUSUAL_IDS = ["a/b", "..", "x|y", "a b", "é", "007", "100%", "__HIVE_DEFAULT_PARTITION__", "NULL", "A", "[z]*?"]

FIRST, SECOND = "2024-01-04T05:00:00.000+00:00", "2024-01-05T05:00:00.000+00:00"


def key_values_of(file: FileMetadata | Exception) -> Mapping[str, str]:
    assert isinstance(file, FileMetadata)
    return file.key_values


def test_write_and_read_round_trip_and_equal_rows_change_nothing(lake: Lake) -> None:
    first = lake.write("posts", DAY, rows(), metadata={"fetched_at": FIRST})
    again = lake.write("posts", DAY, rows(), metadata={"fetched_at": SECOND})

    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(rows())
    metadata = lake.read_metadata("posts", DAY)
    assert metadata is not None
    assert metadata.key_values == {"fetched_at": FIRST}
    assert metadata.content_hash == content_hash_of(rows())
    size = lake.file_versions("posts")[DAY].bytes
    assert first == WriteResult(
        lake.url("posts", DAY), 20, size, metadata.content_hash, changed=True, key_values={"fetched_at": FIRST}
    )
    assert again == replace(first, changed=False)


def test_write_all_writes_what_has_changed(lake: Lake) -> None:
    tables = {Partition(date(2024, 1, day), "a"): rows(day - 1) for day in (3, 1, 2)}
    same, other, new = tables
    lake.write("posts", same, tables[same])
    lake.write("posts", other, rows(9))
    written = lake.write_all("posts", tables, metadata={"fetched_at": SECOND})
    assert [each.changed for each in written.values() if isinstance(each, WriteResult)] == [False, True, True]
    stored = lake.read_all_metadata("posts", tables)
    metadata = {"fetched_at": SECOND}
    assert [key_values_of(stored[each]) for each in (same, other, new)] == [{}, metadata, metadata]
    assert all(lake.read("posts", [each], schema=POSTS_SCHEMA).equals(table) for each, table in tables.items())
    assert lake.write_all("posts", {}) == {}


def test_write_all_with_an_invalid_instance_id_writes_nothing(lake: Lake) -> None:
    with pytest.raises(ValueError, match="cannot be empty"):
        lake.write_all("posts", {DAY: rows(), Partition(DAY.day, ""): rows()})
    assert lake.partitions("posts") == []


def test_empty_partition_is_a_file_without_rows(lake: Lake) -> None:
    assert lake.partitions("posts") == []
    assert lake.read_metadata("posts", DAY) is None
    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(POSTS_SCHEMA.empty_table())
    assert lake.write("posts", DAY, rows(0)).rows == 0
    assert lake.partitions("posts") == [DAY]
    assert (metadata := lake.read_metadata("posts", DAY)) is not None
    assert metadata.rows == 0
    assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(POSTS_SCHEMA.empty_table())


def test_flipped_bits_are_never_read_and_are_repaired_by_the_next_write(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", DAY, rows(50))
    path = tmp_path / partition_path("posts", DAY)
    intact = path.read_bytes()
    footer = len(intact) - int.from_bytes(intact[-8:-4], "little") - 8
    detected = 0
    for offset in range(4, footer, max(1, footer // 40)):
        path.write_bytes(intact[:offset] + bytes([intact[offset] ^ 0x5A]) + intact[offset + 1 :])
        try:
            # The header of a page has bytes that change nothing.
            assert lake.read("posts", [DAY], schema=POSTS_SCHEMA).equals(rows(50))
        except FileDamaged:
            detected += 1
            assert lake.write("posts", DAY, rows(50)).changed
            assert path.read_bytes() == intact
    assert detected > 20


def test_altered_rows_are_repaired_by_the_next_write_although_the_metadata_stay(local: Lake) -> None:
    local.write("posts", DAY, rows(3))
    path = Path(local.url("posts", DAY))
    intact = path.read_bytes()
    pq.write_table(pq.ParquetFile(path).read()[1:], path)
    metadata = local.read_metadata("posts", DAY)
    assert metadata is not None
    assert metadata.content_hash == content_hash_of(rows(3))
    assert local.write("posts", DAY, rows(3)).changed
    assert path.read_bytes() == intact


@pytest.mark.parametrize("count", [0, 1, 65_537, 1_100_000])  # within a block of the hash, a row group, and over both
def test_stored_rows_have_the_hash_that_was_written(count: int) -> None:
    ids = pa.array(range(count), pa.int64())
    lists = pa.ListArray.from_arrays(pa.array(range(count + 1), pa.int32()), ids)
    table = pa.table({"post_id": ids, "campaign_ids": lists, "name": ids.cast(pa.string())})
    content_hash = content_hash_of(table)
    data = to_parquet(table, content_hash=content_hash, key_values={})
    assert content_hash_of(read_stored_rows(data)) == content_hash
    assert has_rows(data, content_hash)
    assert not has_rows(data, content_hash_of(table.append_column("rank", ids)))


def test_unreadable_file_is_replaced(local: Lake) -> None:
    local.write("posts", DAY, rows(2))
    path = Path(local.url("posts", DAY))
    path.write_bytes(path.read_bytes()[:-20])
    assert local.write("posts", DAY, rows(1)).changed
    assert local.read("posts", [DAY], schema=POSTS_SCHEMA).num_rows == 1


def test_replace_keeps_what_another_writer_has_replaced(local: Lake) -> None:
    days = [Partition(DAY.day, name) for name in ("a", "b", "c")]
    changed, unchanged, created = days
    for day in (changed, unchanged):
        local.write("posts", day, rows(1))
    read = local.read_files("posts", days)
    assert {day: file.metadata.rows for day, file in read.items()} == {changed: 1, unchanged: 1, created: 0}
    for day in (changed, created):
        local.write("posts", day, rows(2))
    data = to_parquet(rows(3), content_hash=content_hash_of(rows(3)), key_values={})
    failed = local.replace_files("posts", dict.fromkeys(days, data), stored=read)
    assert {day: type(error) for day, error in failed.items()} == dict.fromkeys((changed, created), ReplacedMeanwhile)
    assert [local.read("posts", [day], schema=POSTS_SCHEMA).num_rows for day in days] == [2, 3, 2]


def test_read_with_date_adds_the_day_of_each_row(lake: Lake) -> None:
    days = [Partition(date(2024, 1, number)) for number in (1, 2, 3, 4)]
    for day, count in zip(days, (2, 0, 1), strict=False):  # the fourth has no file
        lake.write("rollup", day, rows(count))
    table = lake.read("rollup", [days[2], days[1], days[0], days[3]], schema=POSTS_SCHEMA, with_date=True)
    assert table.schema.equals(open_dataset(lake, ROLLUP).schema)
    assert table.column("date").to_pylist() == [date(2024, 1, 3), date(2024, 1, 1), date(2024, 1, 1)]
    assert table.drop_columns(["date"]).equals(lake.read("rollup", [days[2], days[0]], schema=POSTS_SCHEMA))
    nothing = lake.read("rollup", [], schema=POSTS_SCHEMA, with_date=True)
    assert (nothing.num_rows, nothing.schema) == (0, table.schema)


def test_partitions_are_sorted_and_filtered_by_day(lake: Lake) -> None:
    first, second, third = (Partition(date(2024, 1, day), name) for day, name in ((1, "b"), (2, "a"), (2, "b")))
    for partition in (third, first, second):
        lake.write("posts", partition, rows(1))
    lake.write("other", Partition(date(2024, 1, 1)), rows(1))
    assert lake.partitions("posts") == [first, second, third]
    assert lake.partitions("posts", days=[date(2024, 1, 2), date(2024, 1, 9)]) == [second, third]
    many = [date(2024, 1, 2) + timedelta(days=number) for number in range(99)]  # takes one listing of the table
    assert lake.partitions("posts", days=many) == [second, third]
    assert lake.partitions("posts", days=[]) == []
    assert lake.partitions("other") == [Partition(date(2024, 1, 1))]


def test_partitions_ignores_other_files_and_directories(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.write("posts", DAY, rows())
    day = tmp_path / "posts" / "date=2024-01-03"
    for path in ("instance_id=a b/part-0.parquet", "instance_id=b/part-1.parquet", ".hidden/part-0.parquet", "README"):
        (day / path).parent.mkdir(exist_ok=True)
        (day / path).write_bytes(b"")
    assert lake.partitions("posts") == [DAY]


def test_partitions_ignores_files_with_the_layout_of_another_table(lake: Lake) -> None:
    all_instances = Partition(DAY.day)
    for table_name in ("post_metrics_daily", "campaign_performance_daily"):
        lake.write(table_name, DAY, rows(1))
        lake.write(table_name, all_instances, rows(1))
    assert lake.partitions("post_metrics_daily") == [DAY]
    assert lake.partitions("campaign_performance_daily", days=[DAY.day]) == [all_instances]


def test_unusual_instance_ids_stay_distinct_strings_in_datasets_and_sql(lake: Lake) -> None:
    for instance_id in UNUSUAL_IDS:
        lake.write("posts", Partition(DAY.day, instance_id), rows(1, instance_id=instance_id))
    assert {partition.instance_id for partition in lake.partitions("posts")} == set(UNUSUAL_IDS)

    dataset = open_dataset(lake, POSTS)
    assert dataset.schema.equals(POSTS_SCHEMA.insert(0, pa.field("date", pa.date32(), nullable=False)))
    table = dataset.to_table()
    assert sorted(table.column("instance_id").to_pylist()) == sorted(UNUSUAL_IDS)
    assert set(table.column("date").to_pylist()) == {DAY.day}
    with open_database(lake) as database:
        database.add_view(POSTS)
        rows_of_view = database.connection.sql("SELECT instance_id FROM posts").fetchall()
    assert sorted(instance_id for (instance_id,) in rows_of_view) == sorted(UNUSUAL_IDS)
    assert dataset.to_table(filter=pc.field("instance_id") == "007").num_rows == 1
    assert dataset.to_table(filter=pc.field("date") > pa.scalar(DAY.day)).num_rows == 0


def test_dataset_without_instances_in_its_paths_takes_them_from_the_rows(lake: Lake) -> None:
    lake.write("rollup", Partition(DAY.day), rows(2, instance_id="007"))
    table = open_dataset(lake, ROLLUP).to_table()
    assert table.column("instance_id").to_pylist() == ["007", "007"]
    assert table.column("date").to_pylist() == [DAY.day, DAY.day]


def test_write_table_replaces_all_rows_or_a_damaged_file_and_writes_only_changes(lake: Lake) -> None:
    assert lake.read_table("posts", schema=POSTS_SCHEMA) is None
    written = lake.write_table("posts", rows(), metadata={"as_of": "2024-01-03"})
    assert (written.rows, written.content_hash, written.changed) == (20, content_hash_of(rows()), True)
    assert lake.write_table("posts", rows(3)).changed
    assert not lake.write_table("posts", rows(3)).changed
    assert lake.read_table("posts", schema=POSTS_SCHEMA) == rows(3)
    assert lake.partitions("posts") == []
    assert lake.table_version("posts")
    assert not lake.table_version("other")
    lake.storage.write("posts/part-0.parquet", b"no Parquet")
    with pytest.raises(FileDamaged, match="part-0.parquet is damaged"):
        lake.read_table("posts", schema=POSTS_SCHEMA)
    assert lake.write_table("posts", rows(3)).changed
    assert lake.read_table("posts", schema=POSTS_SCHEMA) == rows(3)


def test_removal_of_personal_data_names_foreign_files_that_have_some(local: Lake) -> None:
    tables = {
        "personal/a": pa.table({"content_url": ["https://x"], "extra": [1], "picture": [b"x"]}),
        "personal/b": pa.table({"content_url": ["https://x"], "extra": [1]}),
        "other": pa.table({"picture": [b"x"]}),
    }
    for name, table in tables.items():
        Path(local.root, name).mkdir(parents=True)
        pq.write_table(table, Path(local.root, name, "part-0.parquet"))
    removal = remove_personal_data(local, "personal")
    assert (removal.files, removal.rewritten) == (2, 1)
    (problem,) = removal.damaged
    assert problem.startswith(f"{local.root}/personal/a/part-0.parquet is damaged: the lake stores int64, ")
    assert remove_personal_data(local, "other") == RemovalSummary(1, 0, [])


def test_removal_of_personal_data_reaches_errors_and_fields_that_are_too_deep(local: Lake) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    extra = [f'{{"a":{deep}}}', '{"caption":"Jane"}', None]
    table = pa.table({"extra": extra, "error": ["cannot be read, such as Jane", None, "x"]})
    local.write_table("posts", table)
    assert remove_personal_data(local, "posts") == RemovalSummary(1, 1, [])
    stored = local.read_table("posts", schema=table.schema)
    assert stored is not None
    assert stored.to_pydict() == {"extra": [None, None, None], "error": ["…", None, "…"]}


def test_write_file_writes_only_changed_bytes(lake: Lake) -> None:
    first, same, other = (lake.write_file("report", "page.html", data) for data in (b"one", b"one", b"another"))
    assert [written.changed for written in (first, same, other)] == [True, False, True]
    assert first.content_hash == same.content_hash != other.content_hash
    assert other.bytes == len(b"another")
    assert first.url == other.url
    assert first.url.endswith("report/page.html")
    assert lake.partitions("report") == []


def test_check_writable_leaves_no_file(lake: Lake, tmp_path: Path) -> None:
    lake.check_writable()
    assert lake.partitions("posts") == []
    Lake(str(tmp_path / "local")).check_writable()
    assert files(tmp_path / "local") == {}


# A table whose partitions were requested with different metrics


THREE = parse_metrics("likes, impressions, paid_reach")
METRICS_BY_DAY = [DEFAULT_METRICS, METRICS, THREE]
ALL_COLUMNS = posts_schema(METRICS)
COLUMNS = ["post_id", *(metric.column for metric in METRICS)]


def partition(number: int) -> Partition:
    return Partition(date(2024, 1, 1) + timedelta(days=number), "instance_000")


def value_of(metric: Metric, number: int) -> int:
    return METRICS.index(metric) * 1000 + number


def post_of_day(number: int, metrics: tuple[Metric, ...]) -> pa.Table:
    """Return the only post of a day, which has a value of each metric."""
    identity = {"instance_id": "instance_000", "campaign_id": 7, "post_date": datetime(2024, 1, 1, tzinfo=UTC)}
    values = {metric.column: value_of(metric, number) for metric in metrics}
    return posts_table([with_metrics(Post, metrics)(post_id=number, **identity, **values)], metrics=metrics)


def test_partitions_are_read_as_one_table(local: Lake) -> None:
    for number, metrics in enumerate(METRICS_BY_DAY):
        local.write("posts", partition(number), post_of_day(number, metrics))
    expected = [
        {"post_id": number} | {each.column: value_of(each, number) if each in requested else None for each in METRICS}
        for number, requested in enumerate(METRICS_BY_DAY)
    ]
    table = local.read("posts", local.partitions("posts"), schema=ALL_COLUMNS)
    assert table.schema.equals(ALL_COLUMNS)
    assert table.select(COLUMNS).to_pylist() == expected
    narrow = local.read("posts", local.partitions("posts"), schema=posts_schema(THREE))
    assert narrow.equals(table.select(narrow.column_names))
    found = open_dataset(local, Table("posts", post_columns(METRICS))).to_table(columns=COLUMNS)
    assert found.sort_by("post_id").to_pylist() == expected
    with duckdb.connect() as connection:  # without this package
        files = f"{local.root}/posts/*/*/*.parquet"
        found = connection.read_parquet(files, union_by_name=True, hive_partitioning=False).to_arrow_table()
    assert sorted(found.column_names) == sorted(ALL_COLUMNS.names)
    assert found.select(COLUMNS).sort_by("post_id").to_pylist() == expected


# Quarantine


def test_quarantine_stores_reason_and_raw_json_by_partition_until_its_file_is_removed(lake: Lake) -> None:
    two = [BadRow(reason="first\nline", raw='{"impressions":8500.5}'), BadRow(reason="second \u2028", raw="2")]
    path = lake.quarantine.path_of("posts", DAY)
    location = lake.quarantine.write(path, two, query="startDate=2024-01-03")
    assert location.endswith("/_quarantine/posts/date=2024-01-03/instance_id=instance_000/part-0.jsonl")
    assert lake.quarantine.rows("posts") == [
        QuarantinedRow(DAY, row.reason, row.raw, "startDate=2024-01-03") for row in two
    ]
    assert lake.partitions("posts") == []
    assert lake.quarantine.rows("other") == []
    lake.quarantine.write(path, two[1:], query="q")
    assert [row.raw for row in lake.quarantine.rows("posts")] == ["2"]
    (file,) = lake.quarantine.files("posts")
    for _ in range(2):
        lake.storage.remove(file.path)
        assert lake.quarantine.rows("posts") == []


@pytest.mark.parametrize("of_query", [False, True])
def test_quarantine_file_in_another_format_raises(of_query: bool, local: Lake) -> None:
    quarantine = local.quarantine
    days = date(2024, 1, 1), date(2024, 1, 2)
    path = quarantine.path_of_query("posts", "q", days) if of_query else quarantine.path_of("posts", DAY)
    location = quarantine.write(path, [BadRow(reason="r", raw="{}")], query="q")
    backfill = f"later-reporting backfill --asset posts --start {DAY.day} --end {DAY.day}"
    step = (
        "the days of the query again, or remove this file"
        if of_query
        else f"this partition again, as `{backfill}` does"
    )
    for text in ("{", "[]\n", "5\n", '{"reason": "r"}\n'):
        Path(location).write_text(text, encoding="utf-8")
        with pytest.raises(FileDamaged, match="is damaged: .") as raised:
            quarantine.rows_in(*quarantine.files("posts"))
        assert str(raised.value).startswith(f"{location} is damaged: ")
        assert "damaged: None" not in str(raised.value)
        assert str(raised.value).endswith(f"Next step: materialize {step}")


def test_damaged_quarantine_file_stands_for_its_rows_beside_those_of_other_files(local: Lake) -> None:
    other = Partition(DAY.day, "other")
    for partition in (DAY, other):
        local.quarantine.write(local.quarantine.path_of("posts", partition), [BadRow(reason="r", raw="{}")], query="q")
    Path(local.root, local.quarantine.path_of("posts", other)).write_text('{"reason": "r", "raw": "{}"\n')
    rows = {row.partition: row for row in local.quarantine.rows("posts")}
    assert rows[DAY].reason == "r"
    assert rows[other].reason.startswith(f"{local.root}/_quarantine/posts/")
    assert "is damaged" in rows[other].reason
    with pytest.raises(FileDamaged):  # `redact` may not drop what it cannot read
        local.quarantine.rewrite(local.quarantine.files("posts")[1], lambda row: row)


@pytest.mark.parametrize("spoil", [Path.touch, lambda path: path.symlink_to(path.name)], ids=["file", "loop of links"])
def test_instance_whose_folder_is_none_is_missing_and_no_other(spoil: Callable[[Path], None], local: Lake) -> None:
    local.write("posts", DAY, rows(1))
    spoil(Path(local.url("posts", DAY)).parent.with_name("instance_id=other"))
    assert local.partitions("posts") == [DAY]


def test_pipe_in_place_of_a_file_is_a_missing_file_that_is_replaced(local: Lake) -> None:
    path = Path(local.root, "coverage", "part-0.parquet")
    path.parent.mkdir(parents=True)
    os.mkfifo(path)
    assert local.read_table("coverage", schema=POSTS_SCHEMA) is None
    local.write_table("coverage", rows(2))
    assert path.is_file()


def test_file_of_fetch_records_with_an_impossible_date_is_passed_over(local: Lake) -> None:
    run = RunRecords(local, "posts", run_id="r", now=datetime(2024, 1, 3, tzinfo=UTC))
    run.add([FileRecord("posts", DAY.day, DAY.instance_id, requested_at=datetime(2024, 1, 3, tzinfo=UTC))])
    path = Path(local.root, run.path)
    path.with_name("2024-13-30_w.parquet").write_bytes(path.read_bytes())
    assert [file.path for file in record_files(local, "posts")] == [run.path]


@pytest.mark.parametrize("instance_id", ["a/../b", r"a\..\b", "..", "..."])
def test_query_reads_instances_whose_id_has_two_dots(instance_id: str, lake: Lake) -> None:
    posts = [post(1, instance_id=instance_id)]
    lake.write("posts", Partition(DAY.day, instance_id), posts_table(posts))
    lake.write("posts", DAY, rows(1))
    found = run_query("SELECT DISTINCT instance_id FROM posts ORDER BY 1", lake, [Table("posts", POST_COLUMNS)])
    assert found["instance_id"].to_pylist() == sorted([instance_id, str(DAY.instance_id)])
