"""The table `coverage`, which footers an update of it reads, and how messages name missing files."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from later_reporting_dagster.defs.events import content_of
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, Lake, Partition, partition_path
from later_reporting_dagster.lake.coverage import (
    COVERAGE_SCHEMA,
    FileRecord,
    RunRecords,
    Update,
    day_version,
    described_days,
    from_table,
    intact_files,
    intact_of,
    record_files,
    stored_coverage,
    stored_days,
    update_records,
    write_coverage,
)
from later_reporting_dagster.lake.file_metadata import FileMetadata
from later_reporting_dagster.lake.parquet_file import content_hash_of, to_parquet
from later_reporting_dagster.lake.tables import COVERAGE_TABLE, RAW_NAMES
from later_reporting_dagster.quality.missing_files import describe_missing, missing_files

DAYS = [date(2024, 3, 1), date(2024, 3, 2)]
TABLES = ("posts_published", CAMPAIGN_PERFORMANCE_TABLE)
FIRST_FETCH, NEXT_FETCH = datetime(2024, 3, 3, 6, tzinfo=UTC), datetime(2024, 3, 4, 6, tzinfo=UTC)
A, B = Partition(DAYS[0], "a"), Partition(DAYS[0], "b")
TODAY = date(2024, 3, 10)


def fetch(lake: Lake, partition: Partition, *post_ids: int, at: datetime = FIRST_FETCH, table: str = TABLES[0]) -> None:
    rows = pa.table({"post_id": pa.array(post_ids, pa.int64())})
    lake.write(table, partition, rows, metadata={"fetched_at": at.isoformat(timespec="milliseconds")})


def footers_of(lake: Lake, *partitions: Partition) -> dict[Partition, FileMetadata]:
    footers = lake.read_all_metadata(TABLES[0], partitions)
    return {each: footer for each, footer in footers.items() if isinstance(footer, FileMetadata)}


def update_of(lake: Lake) -> Update:
    files = {name: lake.file_versions(name) for name in RAW_NAMES}
    missing = {name: missing_files(name, days=DAYS, instances=["a", "b"], present=files[name]) for name in TABLES}
    return update_records(lake, files, missing)


def refresh(lake: Lake) -> tuple[dict[tuple[Any, ...], Any], int]:
    """Update the table; return its rows by table, day and instance, and the number of footers read."""
    update = update_of(lake)
    write_coverage(lake, update, update.table, today=TODAY)
    footers_read = sum(map(len, update.changed.values()))
    rows = update.table.select(COVERAGE_SCHEMA.names[:7]).to_pylist()
    keys = [(row.pop("table_name"), row.pop("date"), row.pop("instance_id")) for row in rows]
    assert len(set(keys)) == len(keys)
    return {key: tuple(row.values()) for key, row in zip(keys, rows, strict=True)}, footers_read


def test_coverage_lists_files_and_missing_files(lake: Lake) -> None:
    fetch(lake, A, 1, 2)
    fetch(lake, Partition(date(2020, 1, 1), "not expected"))
    fetch(lake, Partition(DAYS[1]), 1, table=CAMPAIGN_PERFORMANCE_TABLE)
    missing = (False, None, None, None)
    assert refresh(lake)[0] == {
        (CAMPAIGN_PERFORMANCE_TABLE, DAYS[0], None): missing,
        (CAMPAIGN_PERFORMANCE_TABLE, DAYS[1], None): (True, 1, FIRST_FETCH, None),
        ("posts_published", date(2020, 1, 1), "not expected"): (True, 0, FIRST_FETCH, None),
        ("posts_published", DAYS[0], "a"): (True, 2, FIRST_FETCH, None),
        ("posts_published", DAYS[0], "b"): missing,
        ("posts_published", DAYS[1], "a"): missing,
        ("posts_published", DAYS[1], "b"): missing,
    }


def test_coverage_expects_campaigns_only_if_there_are_any(lake: Lake) -> None:
    assert {table for table, _, _ in refresh(lake)[0]} == {"posts_published"}


@pytest.mark.parametrize("footers_together", [1, 10_000])
def test_coverage_reads_the_footers_of_new_and_changed_files_only(
    footers_together: int, lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("later_reporting_dagster.lake.coverage._FOOTERS_TOGETHER", footers_together)
    for partition in (A, B):
        fetch(lake, partition, 1)
    assert refresh(lake)[1] == 2
    before, footers_read = refresh(lake)
    assert footers_read == 0
    # The same content writes nothing.
    fetch(lake, A, 1, at=NEXT_FETCH)
    assert refresh(lake) == (before, 0)
    fetch(lake, A, 1, 2, at=NEXT_FETCH)
    fetch(lake, Partition(DAYS[1], "b"), at=NEXT_FETCH)
    rows, footers_read = refresh(lake)
    assert footers_read == 2
    assert rows["posts_published", DAYS[0], "a"] == (True, 2, FIRST_FETCH, NEXT_FETCH)
    assert rows["posts_published", DAYS[1], "b"] == (True, 0, NEXT_FETCH, None)
    (tmp_path / partition_path("posts_published", A)).unlink()
    rows, footers_read = refresh(lake)
    assert footers_read == 0
    assert rows["posts_published", DAYS[0], "a"] == (False, None, None, None)


def test_coverage_keeps_the_first_of_several_fetches(lake: Lake) -> None:
    for number in range(3):
        fetch(lake, A, number, at=FIRST_FETCH + timedelta(days=number))
    rows, _ = refresh(lake)
    assert rows["posts_published", DAYS[0], "a"] == (True, 1, FIRST_FETCH, FIRST_FETCH + timedelta(days=2))


@pytest.mark.parametrize("content", [b"no Parquet", b""])
def test_damaged_files_count_as_missing(content: bytes, lake: Lake, tmp_path: Path) -> None:
    fetch(lake, A, 1)
    fetch(lake, B, 1)
    assert refresh(lake)[1] == 2
    (tmp_path / partition_path("posts_published", A)).write_bytes(content)
    # Before an update, the footer of the changed file is read, unless that is not wanted.
    assert [*intact_files(lake, TABLES[:1])[TABLES[0]]] == [B]
    assert intact_of(lake, TABLES[0], lake.file_versions(TABLES[0])) == {B}
    known = stored_coverage(lake)
    assert [*intact_files(lake, TABLES[:1], stored=known, reads_footers=False)[TABLES[0]]] == (
        [A, B] if content else [B]
    )
    rows, footers_read = refresh(lake)
    assert footers_read == 1
    assert rows["posts_published", DAYS[0], "a"] == (False, None, None, None)
    assert [*intact_files(lake, TABLES[:1], stored=stored_coverage(lake), reads_footers=False)[TABLES[0]]] == [B]
    assert intact_of(lake, TABLES[0], lake.file_versions(TABLES[0])) == {B}
    # It is read again, because the disk may have failed for a moment.
    assert refresh(lake) == (rows, 1)
    fetch(lake, A, 1)
    assert [*intact_files(lake, TABLES[:1], stored=stored_coverage(lake), reads_footers=False)[TABLES[0]]] == [A, B]


@pytest.mark.parametrize("text", ["garbled", "2024-03-03T06:00:00", "[" * 100_000, ""])
def test_file_with_a_damaged_time_is_missing_and_named_and_written_anew(text: str, lake: Lake) -> None:
    fetch(lake, A, 1)
    fetch(lake, B, 1)
    rows = lake.read_table(TABLES[0], A, schema=pa.schema({"post_id": pa.int64()}))
    data = to_parquet(rows, content_hash=content_hash_of(rows), key_values={"fetched_at": text} if text else {})
    lake.storage.write(partition_path(TABLES[0], A), data)
    assert not refresh(lake)[0]["posts_published", DAYS[0], "a"][0]
    files = {name: lake.file_versions(name) for name in RAW_NAMES}
    (damaged,) = update_records(lake, files, {}).damaged
    assert f"{lake.url(TABLES[0], A)} is damaged: " in str(damaged)
    assert intact_of(lake, TABLES[0], lake.file_versions(TABLES[0])) == {B}
    fetch(lake, A, 1)  # equal rows
    assert refresh(lake)[0]["posts_published", DAYS[0], "a"] == (True, 1, FIRST_FETCH, None)


def test_coverage_replaces_its_own_damaged_file(lake: Lake, tmp_path: Path) -> None:
    fetch(lake, A, 1)
    rows, _ = refresh(lake)
    (tmp_path / COVERAGE_TABLE / "part-0.parquet").write_bytes(b"no Parquet")
    assert refresh(lake) == (rows, 1)


def record(lake: Lake, *, at: datetime, content_hash: str | None = None, run_id: str = "", error: str = "") -> None:
    """Record one response for the partition A."""
    run = RunRecords(lake, TABLES[0], now=at, run_id=run_id)
    row = FileRecord(TABLES[0], A.day, A.instance_id, requested_at=at, content_hash=content_hash)
    run.add([row._replace(requested_at=None, failed_at=at, error=error) if error else row])


def stored_record(lake: Lake) -> FileRecord:
    """Return what `coverage` says of the file of the first table."""
    records = from_table(stored_coverage(lake))
    (found,) = (each for each in records if (each.table_name, each.partition) == (TABLES[0], A))
    return found


def test_coverage_keeps_when_an_unchanged_file_was_requested_and_removes_old_records(lake: Lake) -> None:
    fetch(lake, A, 1)
    refresh(lake)
    content_hash = stored_record(lake).content_hash
    for offset in range(4):
        record(lake, at=NEXT_FETCH + timedelta(days=offset), content_hash=content_hash)
    newest = datetime.combine(TODAY, FIRST_FETCH.timetz())
    record(lake, at=newest, content_hash=content_hash, run_id="newest")
    record(lake, at=newest + timedelta(hours=1), error="HTTP 500", run_id="failed")
    for _ in range(2):
        rows, _ = refresh(lake)
        assert rows["posts_published", DAYS[0], "a"] == (True, 1, FIRST_FETCH, None)
        assert stored_record(lake).requested_at == newest
        assert {file.run_id for file in record_files(lake, TABLES[0])} == {"newest", "failed"}


def test_file_that_contradicts_a_later_response_counts_as_missing(lake: Lake) -> None:
    """On an object store, the window between the comparison and the write is small, but there is one."""
    fetch(lake, A, 1)
    content_hash = footers_of(lake, A)[A].content_hash
    record(lake, at=NEXT_FETCH, content_hash=content_hash)
    assert refresh(lake)[0]["posts_published", DAYS[0], "a"][0]
    record(lake, at=NEXT_FETCH + timedelta(hours=1), content_hash="of a restatement")
    for _ in range(3):  # the first one removes the records, which are old
        assert not refresh(lake)[0]["posts_published", DAYS[0], "a"][0]
        assert intact_of(lake, TABLES[0], lake.file_versions(TABLES[0])) == set()
    assert not record_files(lake, TABLES[0])
    fetch(lake, A, 1, 2, at=NEXT_FETCH + timedelta(days=1))
    assert refresh(lake)[0]["posts_published", DAYS[0], "a"][0]


def test_a_clock_that_was_wrong_once_makes_no_file_missing(lake: Lake) -> None:
    future = datetime.now(UTC) + timedelta(days=400)
    fetch(lake, A, 1)
    record(lake, at=future, content_hash="of a restatement")
    record(lake, at=future, error="HTTP 500", run_id="failed")
    assert refresh(lake)[0]["posts_published", DAYS[0], "a"] == (True, 1, FIRST_FETCH, None)
    assert stored_record(lake).error is None
    assert not record_files(lake, TABLES[0])  # of a day that is not yet


def test_file_of_a_time_in_the_future_counts_as_missing_until_it_is_fetched_again(lake: Lake) -> None:
    fetch(lake, A, 1, at=datetime.now(UTC) + timedelta(days=400))
    assert not refresh(lake)[0]["posts_published", DAYS[0], "a"][0]
    assert intact_of(lake, TABLES[0], lake.file_versions(TABLES[0])) == set()
    fetch(lake, A, 1)
    assert refresh(lake)[0]["posts_published", DAYS[0], "a"] == (True, 1, FIRST_FETCH, None)


ALL, NAMED = Partition(DAYS[1]), Partition(DAYS[1], "b/é %2F")


def test_rows_of_which_nothing_is_new_are_passed_through(lake: Lake, tmp_path: Path) -> None:
    for each in (A, B, NAMED):
        fetch(lake, each, 1)
    fetch(lake, ALL, 1, table=CAMPAIGN_PERFORMANCE_TABLE)
    refresh(lake)
    before = stored_coverage(lake)
    assert new_records(lake) == (set(), before)
    # Each is a reason to apply what runs have recorded, or to read a footer.
    (tmp_path / partition_path(TABLES[0], B)).unlink()
    record(lake, at=NEXT_FETCH, error="HTTP 500")
    fetch(lake, ALL, 1, 2, table=CAMPAIGN_PERFORMANCE_TABLE, at=NEXT_FETCH)
    changed, table = new_records(lake)
    assert changed == {(TABLES[0], A), (TABLES[0], B), (CAMPAIGN_PERFORMANCE_TABLE, ALL)}
    assert table.num_rows == before.num_rows
    rows = {(row["table_name"], row["date"], row["instance_id"]): row for row in table.to_pylist()}
    assert rows[TABLES[0], *key_of(NAMED)] in before.to_pylist()
    assert rows[TABLES[0], *key_of(A)]["error"] == "HTTP 500"
    assert not rows[TABLES[0], *key_of(B)]["has_file"]
    assert rows[CAMPAIGN_PERFORMANCE_TABLE, *key_of(ALL)]["rows"] == 2


def test_rows_of_an_earlier_release_are_completed(lake: Lake) -> None:
    fetch(lake, A, 1)
    refresh(lake)
    stored = stored_coverage(lake)
    for name in ("metrics", "requested_at"):
        index = stored.schema.get_field_index(name)
        column = pa.nulls(stored.num_rows, stored.schema.field(name).type)
        lake.write_table(COVERAGE_TABLE, stored.set_column(index, stored.schema.field(name), column))
        changed, table = new_records(lake)
        assert (changed, table) == ({(TABLES[0], A)}, stored)


def test_records_that_are_removed_meanwhile_are_no_news(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(lake, A, 1)
    refresh(lake)
    record(lake, at=NEXT_FETCH, error="HTTP 500")
    (file,) = record_files(lake, TABLES[0])
    read = lake.storage.read

    def read_after_another_update(path: str) -> bytes | None:
        lake.storage.remove(file.path)
        return read(path)

    monkeypatch.setattr(lake.storage, "read", read_after_another_update)
    assert new_records(lake) == (set(), stored_coverage(lake))


def key_of(partition: Partition) -> tuple[date, str | None]:
    return partition.day, partition.instance_id


def new_records(lake: Lake) -> tuple[set[tuple[str, Partition]], pa.Table]:
    """Return of which files an update has something new, and the rows of all."""
    new: set[tuple[str, Partition]] = set()
    after_fetches = FileRecord.after_fetches

    def noted(record: FileRecord, response: FileRecord | None, failure: FileRecord | None) -> FileRecord:
        new.add((record.table_name, record.partition))
        return after_fetches(record, response, failure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileRecord, "after_fetches", noted)
        return new, update_of(lake).table


def test_version_of_a_day_from_coverage_is_that_of_its_files(lake: Lake) -> None:
    fetch(lake, A, 1)
    fetch(lake, A, 2, at=NEXT_FETCH)
    fetch(lake, B, 1)
    fetch(lake, Partition(DAYS[1], "a"), 1)
    refresh(lake)
    fetch(lake, Partition(DAYS[1], "a"), 2, at=NEXT_FETCH)
    stored = stored_coverage(lake)
    days = stored_days(stored, TABLES[0])
    assert days.keys() == {*DAYS[:2]}
    assert described_days(lake, stored, TABLES[0], days) == {DAYS[0]}
    footers = footers_of(lake, A, B)
    version = day_version({each.instance_id: content_of(footer) for each, footer in footers.items()})
    assert days[DAYS[0]] == (version, 2, sum(footer.rows for footer in footers.values()))


def test_day_has_no_version_if_a_file_of_it_has_no_identity(lake: Lake) -> None:
    """As on a file system that tells neither time nor ETag: its content may have changed since."""
    fetch(lake, A, 1)
    refresh(lake)
    stored = stored_coverage(lake)
    index = stored.schema.get_field_index("file_version")
    without = stored.set_column(index, stored.schema.field(index), pa.nulls(stored.num_rows, pa.string()))
    assert stored_days(stored, TABLES[0])
    assert not stored_days(without, TABLES[0])


def test_day_is_not_described_once_a_file_is_new_or_gone(lake: Lake) -> None:
    fetch(lake, A, 1)
    refresh(lake)
    stored = stored_coverage(lake)
    days = stored_days(stored, TABLES[0])
    fetch(lake, B, 1)
    assert described_days(lake, stored, TABLES[0], days) == set()
    for partition in (A, B):
        lake.storage.remove(partition_path(TABLES[0], partition))
    assert described_days(lake, stored, TABLES[0], days) == set()


def test_day_version_distinguishes_instances_from_content() -> None:
    days: list[dict[str | None, tuple[str, str | None]]] = [
        {"a": ("b", "1"), "c": ("d", "1")},
        {"a": ("b", "1"), "c": ("d", "2")},
        {"a": ("b c d", "1")},
        *({name: ("x", "1")} for name in ("a", "b", "a\nb", None, "None")),
    ]
    assert len({*map(day_version, days)}) == len(days)
    assert day_version(dict(reversed(days[0].items()))) == day_version(days[0])


# Missing files


FIRST = date(2024, 3, 1)
MARCH = [FIRST + timedelta(days=offset) for offset in range(4)]


def test_missing_files_are_those_that_a_table_expects_and_lacks() -> None:
    lacks = {"days": MARCH[:2], "instances": ["a", "b"]}
    assert missing_files("posts_published", present={A}, **lacks) == [
        Partition(MARCH[1], "a"),
        B,
        Partition(MARCH[1], "b"),
    ]
    assert missing_files("organic_paid_daily", present={Partition(MARCH[1])}, **lacks) == [Partition(MARCH[0])]
    # The API may refuse the route of an optional table.
    assert missing_files(CAMPAIGN_PERFORMANCE_TABLE, present={Partition(MARCH[1])}, **lacks) == [Partition(MARCH[0])]
    assert missing_files(CAMPAIGN_PERFORMANCE_TABLE, present={}, **lacks) == []


def files_of(missing: dict[str, list[date]]) -> list[Partition]:
    return [Partition(day, name) for name, days in missing.items() for day in days]


def test_gaps_are_named_by_their_first_and_last_day_and_length() -> None:
    missing = files_of({"a": [MARCH[0], MARCH[2], MARCH[3]], "b": [MARCH[2], MARCH[3]]})
    gaps = "2024-03-01 (1 day): a; 2024-03-03 to 2024-03-04 (2 days): a, b"
    assert describe_missing(missing, instances=3) == f"5 files are missing: {gaps}"
    assert describe_missing([Partition(MARCH[0])], instances=1) == "1 file is missing: 2024-03-01 (1 day)"
    assert describe_missing([], instances=3) == ""
    many = files_of(dict.fromkeys(map(str, range(6)), MARCH[:2]))
    assert describe_missing(many, instances=6).endswith("2024-03-01 to 2024-03-02 (2 days): all 6 instances")
    assert describe_missing(many, instances=200).endswith("(2 days): 6 of 200 instances")
    every_other = files_of({"a": [FIRST + timedelta(days=2 * number) for number in range(50)]})
    assert describe_missing(every_other, instances=1).endswith("2024-04-08 (1 day): a; 30 more gaps")
