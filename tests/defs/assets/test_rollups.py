"""The rollups by day, week and month, materialized from fetched posts."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.lake import Partition
from tests.conftest import INSTANCE_IDS, Row, Service, Truth
from tests.defs.conftest import DAYS, Project, assert_success, enlarge_metrics, failure, freeze_clock
from tests.rollups.reference import World
from tests.rollups.worlds import differences

DAILY, BY_PUBLISH_DAY, WEEKLY, MONTHLY = (
    "organic_paid_daily",
    "organic_paid_by_publish_day",
    "organic_paid_weekly",
    "organic_paid_monthly",
)
RAW = {**dict.fromkeys((DAILY, WEEKLY, MONTHLY), "post_metrics_daily"), BY_PUBLISH_DAY: "posts_published"}
BASIS = {DAILY: "performance_date", BY_PUBLISH_DAY: "post_date"}
WEEK, NEXT_WEEK, MONTH = date(2024, 2, 26), date(2024, 3, 4), date(2024, 3, 1)
FIRST_OF_PERIOD = {WEEKLY: WEEK, MONTHLY: MONTH}
# The partition of each rollup that contains the second day.
WITH_SECOND_DAY = {DAILY: DAYS[1], BY_PUBLISH_DAY: DAYS[1], **FIRST_OF_PERIOD}

each_daily_rollup = pytest.mark.parametrize("asset", BASIS)
each_period_rollup = pytest.mark.parametrize("asset", FIRST_OF_PERIOD)
each_rollup = pytest.mark.parametrize("asset", RAW)


def stored(project: Project, asset: str, first: date) -> list[Row]:
    """Return the rows of a rollup partition, read from its documented path."""
    rows: list[Row] = pq.ParquetFile(project.root / asset / f"date={first}" / "part-0.parquet").read().to_pylist()
    return rows


def assert_matches_reference(folder: Path, asset: str, world: World, firsts: Sequence[date] = DAYS) -> None:
    """Assert that partitions in a folder equal what the slow reference computes from the sandbox's rows."""
    stored = []
    for first in firsts:
        table = pq.ParquetFile(folder / f"date={first}" / "part-0.parquet").read().replace_schema_metadata()
        stored.append(table.add_column(0, "first_day", pa.repeat(pa.scalar(first, pa.date32()), table.num_rows)))
    assert differences({asset: pa.concat_tables(stored)}, world) == []


def reference_world(truth: Truth, days: Sequence[date] = DAYS) -> World:
    recorded, published = (
        {
            (day, each): [{**row, "date": day} for row in truth.partition(basis, day, each)]
            for day in days
            for each in INSTANCE_IDS
        }
        for basis in ("performance_date", "post_date")
    )
    return World(recorded, published)


@each_daily_rollup
def test_days_match_the_reference(asset: str, project: Project, truth: Truth) -> None:
    project.fetch(RAW[asset])
    result = project.roll_up(asset)
    assert result.success
    metadata = project.metadata(result)
    assert metadata.keys() == set(map(str, DAYS))
    assert_matches_reference(project.root / asset, asset, reference_world(truth))
    for day in DAYS:
        found = metadata[str(day)]
        assert found["dagster/partition_row_count"] == len(stored(project, asset, day))
        assert "missing" not in found
        assert len(found["preview"].records) == min(found["dagster/partition_row_count"], 5)
        file = project.lake.read_metadata(asset, Partition(day))
        assert file is not None
        assert project.data_versions(result)[str(day)] == file.content_hash
    assert project.passed(result) == {"reconciles_with_raw_rows": True, "newest_due_day_is_present": False}


@each_period_rollup
def test_week_and_month_match_the_reference(asset: str, project: Project, truth: Truth) -> None:
    project.fetch(RAW[asset])
    result = project.roll_up(asset)
    assert result.success
    rows = [row for day in DAYS for each in INSTANCE_IDS for row in truth.partition("performance_date", day, each)]
    found = stored(project, asset, FIRST_OF_PERIOD[asset])
    assert_matches_reference(project.root / asset, asset, reference_world(truth), [FIRST_OF_PERIOD[asset]])
    posts = {(row["instance_id"], row["campaign_id"], row["post_id"]) for row in rows}
    assert sum(group["posts"] for group in found) == len(posts) < len(rows)
    metadata = project.metadata(result)[str(FIRST_OF_PERIOD[asset])]
    assert metadata["dagster/partition_row_count"] == len(found)
    assert project.passed(result)["reconciles_with_raw_rows"] is True


def test_week_is_in_sync_until_a_day_changes(project: Project, service: Service) -> None:
    assert_success(project.fetch(RAW[WEEKLY]))
    assert_success(project.roll_up(WEEKLY))
    assert project.is_in_sync(WEEKLY, str(WEEK))
    assert_success(project.fetch(RAW[WEEKLY]))  # unchanged
    assert project.is_in_sync(WEEKLY, str(WEEK))
    service.transform = enlarge_metrics
    assert_success(project.fetch(RAW[WEEKLY], days=DAYS[1:2]))
    assert not project.is_in_sync(WEEKLY, str(WEEK))


def test_week_metadata_has_missing_days_and_instances(project: Project) -> None:
    project.fetch(RAW[WEEKLY], days=DAYS[:1])
    project.fetch(RAW[WEEKLY], days=DAYS[1:2], instances=list(INSTANCE_IDS[:3]))
    result = project.roll_up(WEEKLY)
    assert result.success
    metadata = project.metadata(result)[str(WEEK)]
    # The first days of the week are before the start date.
    others = ", ".join(sorted(INSTANCE_IDS[:3]))
    assert metadata["missing"] == (
        f"5 files are missing: 2024-03-02 to 2024-03-03 (2 days): {INSTANCE_IDS[3]}; 2024-03-03 (1 day): {others}"
    )


@pytest.mark.parametrize(
    ("asset", "without_files", "written"),
    [(BY_PUBLISH_DAY, DAYS[1], {str(DAYS[0]), str(DAYS[2])}), (WEEKLY, NEXT_WEEK, {str(WEEK)})],
)
def test_partition_without_raw_files_fails_alone(
    asset: str, without_files: date, written: set[str], project: Project
) -> None:
    for day in (DAYS[0], DAYS[2]):
        project.fetch(RAW[asset], days=[day])
    result = project.roll_up(asset, days=[DAYS[0], max(DAYS[2], without_files)])
    description, metadata = failure(result)
    assert description.splitlines()[0] == f"1 partition failed and was not changed; {len(written)} written."
    assert metadata["failed_partitions"] == {
        str(without_files): f"{RAW[asset]} has no files for it: materialize that first"
    }
    assert project.materializations(result).keys() == written


@pytest.mark.parametrize(("asset", "today"), [(WEEKLY, NEXT_WEEK), (MONTHLY, date(2024, 4, 1))])
def test_current_period_is_empty_on_its_first_day(
    asset: str, today: date, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze_clock(
        monkeypatch,
        datetime(today.year, today.month, today.day, 10, tzinfo=UTC),
        "defs.partitions",
        "defs.assets.rollups",
        "defs.checks.rollups",
    )
    project.fetch(RAW[asset])
    result = project.roll_up(asset, days=[DAYS[0], today])
    assert_success(result)
    rows = {first: each["dagster/partition_row_count"] for first, each in project.metadata(result).items()}
    assert rows.pop(str(today)) == 0
    assert rows[str(FIRST_OF_PERIOD[asset])] > 0
    assert project.passed(result) == {"reconciles_with_raw_rows": True, "newest_due_day_is_present": True}

    too_new, _ = failure(project.roll_up(asset, days=[today, today + timedelta(days=31)]))
    assert too_new.startswith("There is no partition")


@each_rollup
def test_damaged_raw_file_fails_only_its_partition(asset: str, project: Project) -> None:
    project.fetch(RAW[asset])
    next((project.root / RAW[asset] / f"date={DAYS[1]}").rglob("*.parquet")).write_bytes(b"no Parquet")
    result = project.roll_up(asset)
    _, metadata = failure(result)
    (failed,) = metadata["failed_partitions"]
    assert failed == str(WITH_SECOND_DAY[asset])
    assert "materialize this partition again" in metadata["failed_partitions"][failed]
    assert len(project.materializations(result)) == (2 if asset in BASIS else 0)


def test_day_that_cannot_be_written_fails_alone(project: Project) -> None:
    project.fetch(RAW[BY_PUBLISH_DAY])
    (project.root / BY_PUBLISH_DAY).mkdir()
    (project.root / BY_PUBLISH_DAY / f"date={DAYS[1]}").write_bytes(b"not a directory")
    _, metadata = failure(project.roll_up(BY_PUBLISH_DAY))
    assert metadata["failed_partitions"].keys() == {str(DAYS[1])}
