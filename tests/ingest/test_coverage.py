"""The table `coverage`: files and missing files, and which footers an update reads."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from later_reporting_dagster.ingest.coverage import Files, expected_files, refreshed_coverage
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, Lake, Partition, partition_path
from later_reporting_dagster.lake.tables import COVERAGE_TABLE

DAYS = [date(2024, 3, 1), date(2024, 3, 2)]
TABLES = ("posts_published", CAMPAIGN_PERFORMANCE_TABLE)
FIRST_FETCH, NEXT_FETCH = datetime(2024, 3, 3, 6, tzinfo=UTC), datetime(2024, 3, 4, 6, tzinfo=UTC)
A, B = Partition(DAYS[0], "a"), Partition(DAYS[0], "b")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def fetch(lake: Lake, partition: Partition, *post_ids: int, at: datetime = FIRST_FETCH, table: str = TABLES[0]) -> None:
    """Write a file as a fetch does."""
    rows = pa.table({"post_id": pa.array(post_ids, pa.int64())})
    lake.write(table, partition, rows, metadata={"fetched_at": at.isoformat()})


def refresh(lake: Lake, instances: tuple[str, ...] = ("a", "b")) -> tuple[dict[tuple[Any, ...], Any], int]:
    """Update the table; return its rows by table, day and instance, and the number of footers read."""
    files: Files = {name: lake.file_versions(name) for name in TABLES}
    table, footers_read = refreshed_coverage(lake, files, expected_files(files, DAYS, instances, tables=TABLES))
    lake.write_table(COVERAGE_TABLE, table)
    rows = table.drop_columns(["file_version"]).to_pylist()
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
    assert expected_files({}, DAYS, ["a"], tables=("posts_published",)) == {
        "posts_published": [Partition(day, "a") for day in DAYS]
    }


def test_coverage_reads_the_footers_of_new_and_changed_files_only(lake: Lake, tmp_path: Path) -> None:
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


def test_coverage_has_no_rows_of_damaged_files_and_replaces_its_own_damaged_file(lake: Lake, tmp_path: Path) -> None:
    fetch(lake, A, 1)
    fetch(lake, B, 1)
    (tmp_path / partition_path("posts_published", A)).write_bytes(b"no Parquet")
    rows, footers_read = refresh(lake)
    assert footers_read == 2
    assert rows["posts_published", DAYS[0], "a"] == (True, None, None, None)
    # It is read again, because the disk may have failed for a moment.
    assert refresh(lake) == (rows, 1)
    (tmp_path / COVERAGE_TABLE / "part-0.parquet").write_bytes(b"no Parquet")
    assert refresh(lake) == (rows, 2)
