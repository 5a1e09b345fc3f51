"""The rollups of days, weeks and months, run for real on what was fetched."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.defs.partitions import partitions_of, range_tags
from later_reporting_dagster.lake import Partition, schema_of
from later_reporting_dagster.rollups.periods import Span
from later_reporting_dagster.rollups.rollup_tables import TABLES
from tests.conftest import FIRST_DAY, INSTANCE_IDS, Row, Service, Truth, files
from tests.defs.conftest import DAYS, Project, enlarged, failure
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
SPANS = {WEEKLY: WEEK, MONTHLY: MONTH}
# By rollup the partition that has the second day.
WITH_SECOND_DAY = {DAILY: DAYS[1], BY_PUBLISH_DAY: DAYS[1], **SPANS}

of_days = pytest.mark.parametrize("asset", BASIS)
of_spans = pytest.mark.parametrize("asset", SPANS)
each_rollup = pytest.mark.parametrize("asset", RAW)


def stored(project: Project, asset: str, first: date) -> list[Row]:
    """The rows of a rolled-up partition, from where it is promised to lie."""
    rows: list[Row] = pq.ParquetFile(project.root / asset / f"date={first}" / "part-0.parquet").read().to_pylist()
    return rows


def assert_same(folder: Path, asset: str, world: World, firsts: Sequence[date] = DAYS) -> None:
    """The partitions of an asset that lie in a folder are what the plain reference makes of the service's own rows."""
    stored = []
    for first in firsts:
        table = pq.ParquetFile(folder / f"date={first}" / "part-0.parquet").read().replace_schema_metadata()
        stored.append(table.add_column(0, "first_day", pa.repeat(pa.scalar(first, pa.date32()), table.num_rows)))
    assert differences({asset: pa.concat_tables(stored)}, world) == []


def world_of(truth: Truth, days: Sequence[date] = DAYS) -> World:
    """What the service has of these days."""
    recorded, published = (
        {
            (day, each): [{**row, "date": day} for row in truth.partition(basis, day, each)]
            for day in days
            for each in INSTANCE_IDS
        }
        for basis in ("performance_date", "post_date")
    )
    return World(recorded, published)


def damage(project: Project, asset: str) -> None:
    """Damages a raw file of the second day."""
    next((project.root / RAW[asset] / f"date={DAYS[1]}").rglob("*.parquet")).write_bytes(b"no Parquet")


@of_days
def test_days_are_rolled_up_in_one_run(asset: str, project: Project, truth: Truth) -> None:
    project.fetch(RAW[asset])
    result = project.roll_up(asset)
    assert result.success
    told = project.metadata(result)
    assert told.keys() == set(map(str, DAYS))
    assert_same(project.root / asset, asset, world_of(truth))
    for day in DAYS:
        rolled_up = stored(project, asset, day)
        posts = [row for each in INSTANCE_IDS for row in truth.partition(BASIS[asset], day, each)]
        found = told[str(day)]
        assert found["dagster/partition_row_count"] == len(rolled_up)
        assert (found["posts"], found["instances"]) == (len(posts), len(INSTANCE_IDS))
        assert "missing_instances" not in found
        assert found["dagster/uri"] == str(project.root / asset / f"date={day}" / "part-0.parquet")
        assert found["preview"].startswith("| instance_id | campaign_id |")
        facts = project.lake.facts(asset, Partition(day))
        assert facts is not None
        assert project.data_versions(result)[str(day)] == facts.content_hash
    assert project.passed(result) == {"reconciles_with_raw_rows": True, "newest_due_day_is_present": False}


@of_spans
def test_a_span_is_what_the_plain_reference_says_of_the_service_s_own_rows(
    asset: str, project: Project, truth: Truth
) -> None:
    project.fetch(RAW[asset])
    result = project.roll_up(asset)
    assert result.success
    rows = [row for day in DAYS for each in INSTANCE_IDS for row in truth.partition("performance_date", day, each)]
    found = stored(project, asset, SPANS[asset])
    assert_same(project.root / asset, asset, world_of(truth), [SPANS[asset]])
    posts = {(row["instance_id"], row["campaign_id"], row["post_id"]) for row in rows}
    assert sum(group["posts"] for group in found) == len(posts) < len(rows)
    told = project.metadata(result)[str(SPANS[asset])]
    assert told["dagster/partition_row_count"] == len(found)
    assert (told["rows"], told["days"], told["instances"]) == (len(rows), 3, 4)
    assert told["total/paid_impressions"] == sum(row["paid_impressions"] or 0 for row in rows)
    assert project.passed(result)["reconciles_with_raw_rows"] is True


def test_only_what_was_published_has_spend(project: Project) -> None:
    for asset in BASIS:
        project.fetch(RAW[asset], days=[FIRST_DAY])
        project.roll_up(asset, days=[FIRST_DAY])
    daily, published = (stored(project, asset, FIRST_DAY)[0] for asset in BASIS)
    assert not [name for name in daily if "spend" in name]
    assert [name for name in published if "spend" in name]


@each_rollup
def test_a_rerun_changes_no_byte_and_no_data_version(asset: str, project: Project) -> None:
    project.fetch(RAW[asset])
    first = project.roll_up(asset)
    before = files(project.root)
    second = project.roll_up(asset)
    assert files(project.root) == before
    assert project.data_versions(first) == project.data_versions(second)
    assert not any(found["changed"] for found in project.metadata(second).values())


@of_spans
def test_a_span_is_in_sync_with_its_days_until_one_of_them_changes(
    asset: str, project: Project, service: Service
) -> None:
    project.fetch(RAW[asset])
    project.roll_up(DAILY)
    project.roll_up(asset)
    assert project.is_in_sync(asset, str(SPANS[asset]))
    project.fetch(RAW[asset])
    project.roll_up(DAILY)  # and nothing has changed
    assert project.is_in_sync(asset, str(SPANS[asset]))
    service.edited = enlarged
    project.fetch(RAW[asset], days=DAYS[1:2])
    project.roll_up(DAILY, days=DAYS[1:2])
    assert not project.is_in_sync(asset, str(SPANS[asset]))


def test_a_week_tells_the_days_and_instances_that_are_missing(project: Project) -> None:
    project.fetch(RAW[WEEKLY], days=DAYS[:1])
    project.fetch(RAW[WEEKLY], days=DAYS[1:2], instances=list(INSTANCE_IDS[:3]))
    result = project.roll_up(WEEKLY)
    assert result.success
    told = project.metadata(result)[str(WEEK)]
    assert told["days"] == 2
    everyone = sorted(INSTANCE_IDS)
    assert told["missing_days"] == {
        **{f"2024-02-{day}": everyone for day in (26, 27, 28, 29)},
        "2024-03-02": [INSTANCE_IDS[3]],
        "2024-03-03": everyone,
    }


def test_a_day_without_posts_is_rolled_up_to_no_rows(project: Project) -> None:
    project.fetch(RAW[BY_PUBLISH_DAY], days=[date(2024, 3, 2)], instances=[INSTANCE_IDS[2]])
    assert project.roll_up(BY_PUBLISH_DAY, days=[date(2024, 3, 2)]).success
    assert stored(project, BY_PUBLISH_DAY, date(2024, 3, 2)) == []


@pytest.mark.parametrize(
    ("asset", "without_files", "written"),
    [(BY_PUBLISH_DAY, DAYS[1], {str(DAYS[0]), str(DAYS[2])}), (WEEKLY, NEXT_WEEK, {str(WEEK)})],
)
def test_a_partition_without_raw_files_fails_alone(
    asset: str, without_files: date, written: set[str], project: Project
) -> None:
    for day in (DAYS[0], DAYS[2]):
        project.fetch(RAW[asset], days=[day])
    result = project.roll_up(asset, days=[DAYS[0], max(DAYS[2], without_files)])
    description, metadata = failure(result)
    assert description.splitlines()[0] == f"1 partition failed and stayed as before; {len(written)} written."
    assert metadata["failed_partitions"] == {
        str(without_files): f"later/{RAW[asset]} has no files for it: materialize that first"
    }
    assert project.materializations(result).keys() == written
    assert project.passed(result)["reconciles_with_raw_rows"] is True


@each_rollup
def test_a_damaged_raw_file_fails_its_partition_alone(asset: str, project: Project) -> None:
    project.fetch(RAW[asset])
    damage(project, asset)
    result = project.roll_up(asset)
    _, metadata = failure(result)
    (failed,) = metadata["failed_partitions"]
    assert failed == str(WITH_SECOND_DAY[asset])
    assert "materialize this partition again" in metadata["failed_partitions"][failed]
    assert len(project.materializations(result)) == (2 if asset in BASIS else 0)


def test_a_day_that_cannot_be_written_fails_alone(project: Project) -> None:
    project.fetch(RAW[BY_PUBLISH_DAY])
    (project.root / BY_PUBLISH_DAY).mkdir()
    (project.root / BY_PUBLISH_DAY / f"date={DAYS[1]}").write_bytes(b"a file where a directory is due")
    _, metadata = failure(project.roll_up(BY_PUBLISH_DAY))
    assert metadata["failed_partitions"].keys() == {str(DAYS[1])}


@of_spans
def test_the_check_is_red_when_a_span_was_tampered_with_and_when_a_day_is_damaged(asset: str, project: Project) -> None:
    project.fetch(RAW[asset])
    project.roll_up(asset)
    key = (asset, "reconciles_with_raw_rows")
    (told,) = project.check(key).values()
    assert told.passed
    assert told.description in ("1 week equals its raw rows", "1 month equals its raw rows")
    partition = Partition(SPANS[asset])
    schema = schema_of(next(table for table in TABLES if table.name == asset).columns)
    project.lake.write(asset, partition, project.lake.read(asset, [partition], schema=schema).slice(1))
    (told,) = project.check(key).values()
    assert not told.passed
    assert (told.description or "").endswith(f"materialize {SPANS[asset]}")
    damage(project, asset)
    (told,) = project.check(key).values()
    assert "is damaged" in told.metadata["differences"].value[str(SPANS[asset])][0]


# Partitions


@pytest.mark.parametrize(
    ("span", "start", "first"),
    [
        (Span.WEEK, date(2024, 3, 1), "2024-02-26"),
        (Span.WEEK, date(2024, 3, 4), "2024-03-04"),
        (Span.MONTH, date(2024, 3, 9), "2024-03-01"),
        (Span.DAY, date(2024, 3, 9), "2024-03-09"),
    ],
)
def test_the_first_partition_holds_the_first_day(span: Span, start: date, first: str) -> None:
    assert partitions_of(span, start).get_first_partition_key() == first
    assert set(range_tags(start, start, span=span).values()) == {first}
