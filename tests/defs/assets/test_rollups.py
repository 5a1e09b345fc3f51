"""The rollups by day, week and month and over windows, materialized from fetched posts."""

import re
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.defs.runs import rollup_run
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGN_PERIODS_TABLE,
    CAMPAIGNS_TABLE,
    Partition,
    schema_of,
)
from later_reporting_dagster.lake.tables import CAMPAIGN_PERFORMANCE, CAMPAIGN_PERIODS
from later_reporting_dagster.quality.outdated import outdated
from later_reporting_dagster.rollups import rollup_tables
from later_reporting_dagster.rollups.rollup_tables import (
    BY_CAMPAIGN,
    BY_CREATOR,
    CAMPAIGN_RESULTS,
    POSTS,
    SINGLE_TABLES,
)
from tests.conftest import INSTANCE_IDS, Service, Truth, partition_file
from tests.defs.conftest import (
    DAYS,
    WINDOWS,
    Project,
    assert_success,
    asset_key,
    enlarge_metrics,
    failure,
    fill_once,
    freeze_clock,
    plain_metadata,
)
from tests.docs.conftest import ROOT
from tests.rollups.reference import World
from tests.rollups.worlds import differences

RECORDED, PUBLISHED = "post_metrics_daily", "posts_published"
DAILY, DAILY_BY_CAMPAIGN = "organic_paid_daily", "organic_paid_daily_by_campaign"
WEEKLY, MONTHLY = "organic_paid_weekly", "organic_paid_monthly"
WEEK, NEXT_WEEK, MONTH = date(2024, 2, 26), date(2024, 3, 4), date(2024, 3, 1)
PARTITIONS = {DAILY: DAYS, DAILY_BY_CAMPAIGN: DAYS, WEEKLY: [WEEK], MONTHLY: [MONTH]}
# Window tables, one of each kind.
SOME = tuple(table.name for table in (BY_CREATOR, CAMPAIGN_RESULTS, POSTS))


@pytest.fixture
def filled(project: Project, module_lake: Path) -> Project:
    """The project with posts and campaigns in the lake only."""

    def fill(project: Project) -> bool:
        fetched = (RECORDED, PUBLISHED, CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGNS_TABLE, CAMPAIGN_PERIODS_TABLE)
        return project.run(*fetched, tags=range_tags(DAYS[0], DAYS[-1])).success

    return fill_once(project, module_lake, fill)


def stored(project: Project, asset: str, first: date | None = None) -> pa.Table:
    """Return the rows of a table, or of a partition of it, read from the documented path."""
    folder = project.root / asset / (f"date={first}" if first else "")
    return pq.ParquetFile(folder / "part-0.parquet").read().replace_schema_metadata()


def reference_world(project: Project, truth: Truth) -> World:
    """Return the posts that the API returns, and the campaigns in the lake."""
    recorded, published = (
        {(day, name): truth.partition(basis, day, name) for day in DAYS for name in INSTANCE_IDS}
        for basis in ("performance_date", "post_date")
    )
    schema = CAMPAIGN_PERFORMANCE.table.schema
    totals = {day: project.lake.read(CAMPAIGN_PERFORMANCE_TABLE, [Partition(day)], schema=schema) for day in DAYS}
    periods = project.lake.read_table(CAMPAIGN_PERIODS_TABLE, schema=CAMPAIGN_PERIODS.schema)
    campaigns = project.lake.read_table(CAMPAIGNS_TABLE, schema=schema_of(CAMPAIGN_COLUMNS))
    assert periods is not None
    assert campaigns is not None
    return World(
        recorded,
        published,
        campaigns=campaigns.to_pylist(),
        performance={day: rows.to_pylist() for day, rows in totals.items()},
        periods=periods.to_pylist(),
    )


def test_code_reference_of_a_rollup_is_its_query_at_the_tag_of_the_release(project: Project) -> None:
    for spec in project.defs.resolve_all_asset_specs():
        if spec.tags.get("later/layer") == "rollup":
            (reference,) = spec.metadata["dagster/code_references"].code_references
            repository, _, path = reference.url.partition(f"/blob/v{version('later-reporting-dagster')}/")
            assert repository.startswith("https://github.com/")
            assert (ROOT / path).read_text().strip()
            assert reference.label == Path(path).name


# By day, week and month.


def test_partitions_match_the_reference(filled: Project, truth: Truth) -> None:
    found = {}
    for asset, first_days in PARTITIONS.items():
        result = filled.roll_up(asset)
        assert_success(result)
        metadata = filled.metadata(result)
        assert metadata.keys() == {*map(str, first_days)}
        tables = []
        for first in first_days:
            of_partition, table = metadata[str(first)], stored(filled, asset, first)
            assert of_partition["dagster/partition_row_count"] == table.num_rows
            assert "missing" not in of_partition
            assert len(of_partition["preview"].records) == min(table.num_rows, 5)
            file = filled.lake.read_metadata(asset, Partition(first))
            assert file is not None
            assert filled.data_versions(result)[str(first)] == file.content_hash
            tables.append(table.add_column(0, "first_day", pa.repeat(pa.scalar(first, pa.date32()), table.num_rows)))
        found[asset] = pa.concat_tables(tables)
        assert filled.passed(result) == {"is_current": True}
    assert differences(found, reference_world(filled, truth)) == []


def test_week_is_in_sync_until_a_day_changes(project: Project, service: Service) -> None:
    assert_success(project.fetch(RECORDED))
    assert_success(project.roll_up(WEEKLY))
    assert project.is_in_sync(WEEKLY, str(WEEK))
    assert_success(project.fetch(RECORDED))  # unchanged
    assert project.is_in_sync(WEEKLY, str(WEEK))
    service.transform = enlarge_metrics
    assert_success(project.fetch(RECORDED, days=DAYS[1:2]))
    assert not project.is_in_sync(WEEKLY, str(WEEK))


def test_week_metadata_has_missing_days_and_instances(project: Project) -> None:
    project.fetch(RECORDED, days=DAYS[:1])
    project.fetch(RECORDED, days=DAYS[1:2], instances=list(INSTANCE_IDS[:3]))
    metadata = project.metadata(project.roll_up(WEEKLY))[str(WEEK)]
    # The first days of the week are before the start date.
    others = ", ".join(sorted(INSTANCE_IDS[:3]))
    assert metadata["missing"] == (
        f"5 files are missing: 2024-03-02 to 2024-03-03 (2 days): {INSTANCE_IDS[3]}; 2024-03-03 (1 day): {others}"
    )


def damage(folder: Path) -> None:
    next(folder.rglob("*.parquet")).write_bytes(b"no Parquet")


def block(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_bytes(b"not a directory")


@pytest.mark.parametrize(
    ("spoil", "folder", "asset", "failed", "reason"),
    [
        (damage, RECORDED, DAILY, DAYS[1], "materialize this partition again"),
        (damage, RECORDED, WEEKLY, WEEK, "materialize this partition again"),
        (block, DAILY, DAILY, DAYS[1], "cannot read "),
    ],
)
def test_partition_that_cannot_be_rolled_up_fails_alone(
    spoil: Callable[[Path], None], folder: str, asset: str, failed: date, reason: str, filled: Project
) -> None:
    spoil(filled.root / folder / f"date={DAYS[1]}")
    result = filled.roll_up(asset)
    description, metadata = failure(result)
    written = {str(first) for first in PARTITIONS[asset]} - {str(failed)}
    assert description.splitlines()[0] == f"1 partition failed and was not changed; {len(written)} written."
    assert metadata["failed_partitions"].keys() == {str(failed)}
    assert reason in metadata["failed_partitions"][str(failed)]
    assert filled.materializations(result).keys() == written


@pytest.mark.parametrize("days", [DAYS, DAYS[1:2]], ids=len)
def test_days_without_raw_files_fail_by_name_after_the_others_are_made(filled: Project, days: list[date]) -> None:
    shutil.rmtree(filled.root / RECORDED / f"date={DAYS[1]}")
    result = filled.roll_up(DAILY, days=days)
    others = {*map(str, days)} - {str(DAYS[1])}
    assert filled.materializations(result).keys() == others
    description, metadata = failure(result)
    reason = "post_metrics_daily has no files for it: materialize that first"
    assert description.splitlines() == [
        f"1 partition failed and was not changed; {len(others)} written.",
        f"{DAYS[1]}: {reason}",
    ]
    assert metadata["failed_partitions"] == {str(DAYS[1]): reason}


def test_run_of_what_is_outdated_does_not_fail_for_a_selected_day_without_raw_files(filled: Project) -> None:
    assert_success(filled.roll_up(DAILY))
    filled.lake.retired.add(INSTANCE_IDS[0])
    for table in (RECORDED, DAILY):
        shutil.rmtree(filled.root / table / f"date={DAYS[2]}")
    later = filled.configured(start_date=DAYS[2])
    files = outdated(later.lake, [rollup_tables.DAILY], start_date=DAYS[2], newest_day=DAYS[-1])
    tags, config = rollup_run(ComponentBase(start_date=DAYS[2]), [DAILY], files, requested_by="")
    result = later.run(DAILY, tags=tags, config=config[DAILY])
    assert_success(result)
    assert not later.materializations(result)
    assert INSTANCE_IDS[0] not in stored(later, DAILY, DAYS[0])["instance_id"].to_pylist()


def test_files_from_before_a_later_start_date_follow_a_retirement(filled: Project) -> None:
    assert_success(filled.roll_up(DAILY))
    filled.lake.retired.add(INSTANCE_IDS[0])
    later = filled.configured(start_date=DAYS[2])
    files = outdated(later.lake, [rollup_tables.DAILY], start_date=DAYS[2], newest_day=DAYS[-1])
    assert {file.first_day for file in files} == {*DAYS}
    early = [file for file in files if file.first_day != DAYS[2]]
    tags, config = rollup_run(ComponentBase(start_date=DAYS[2]), [DAILY], early, requested_by="")
    result = later.run(DAILY, tags=tags, config=config[DAILY])
    assert_success(result)
    assert later.materializations(result).keys() == {str(DAYS[2])}
    for day in DAYS:
        assert INSTANCE_IDS[0] not in stored(later, DAILY, day)["instance_id"].to_pylist()


def test_damaged_file_from_before_a_later_start_date_is_named_and_fails_no_run(filled: Project) -> None:
    assert_success(filled.roll_up(DAILY))
    before = stored(filled, DAILY, DAYS[0])
    partition_file(filled.root, RECORDED, DAYS[0], INSTANCE_IDS[0]).write_bytes(b"no Parquet")
    later = filled.configured(start_date=DAYS[2])
    result = later.roll_up(DAILY, days=DAYS[2:])
    assert_success(result)
    (warning,) = later.warnings(result)
    assert warning.startswith(f"{DAYS[0]} of {DAILY}, before the start date: {filled.root}/{RECORDED}/")
    assert stored(later, DAILY, DAYS[0]).equals(before)


def test_current_week_is_empty_on_its_first_day(filled: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2024, 3, 4, 10, tzinfo=UTC)
    freeze_clock(monkeypatch, now)
    result = filled.roll_up(WEEKLY, days=[DAYS[0], NEXT_WEEK])
    assert_success(result)
    rows = {first: each["dagster/partition_row_count"] for first, each in filled.metadata(result).items()}
    assert rows[str(WEEK)] > 0 == rows[str(NEXT_WEEK)]
    assert filled.passed(result) == {"is_current": True}

    too_new, _ = failure(filled.roll_up(WEEKLY, days=[NEXT_WEEK, NEXT_WEEK + timedelta(days=7)]))
    assert too_new.startswith("There is no partition")


# Over windows.


def test_windows_match_the_reference(filled: Project, truth: Truth) -> None:
    result = filled.run(*WINDOWS)
    assert_success(result)
    materializations = filled.logged(result)
    assert materializations.keys() == {(name, None) for name in WINDOWS}
    world = reference_world(filled, truth)
    for table in SINGLE_TABLES:
        found = stored(filled, table.name)
        assert differences({table.name: found}, world) == []
        metadata = plain_metadata(materializations[table.name, None])
        assert metadata["dagster/row_count"] == found.num_rows
        assert metadata["dagster/uri"] == str(filled.root / table.name / "part-0.parquet")
        assert len(metadata["preview"].records) == min(found.num_rows, 5)
    results = stored(filled, CAMPAIGN_RESULTS.name)
    assert results["ad_spend"].null_count < results.num_rows
    steps = {event.step_key for event in filled.events(result, dg.DagsterEventType.STEP_START)}
    assert steps == {"later__organic_paid_by_window", "later__organic_paid_by_window_checks"}
    passed = {key: each.passed for key, each in filled.evaluations(result).items()}
    assert passed == {
        ("organic_paid_by_platform", "platforms_still_report_impressions"): True,
        (PUBLISHED, "no_file_is_stale"): True,
        **{(table.name, "is_current"): True for table in SINGLE_TABLES},
    }


def test_windows_of_one_raw_table_are_rolled_up(project: Project, truth: Truth) -> None:
    project.fetch(PUBLISHED)
    assert_success(project.run(BY_CAMPAIGN.name, POSTS.name))
    assert stored(project, BY_CAMPAIGN.name).num_rows == 0
    published = [row for day in DAYS for row in truth.day("post_date", day)]
    assert stored(project, POSTS.name).num_rows == len({(row["instanceId"], row["postId"]) for row in published})


def test_damaged_files_are_skipped_and_reported(filled: Project) -> None:
    for path in (f"{PUBLISHED}/date={DAYS[1]}", CAMPAIGN_PERIODS_TABLE, CAMPAIGNS_TABLE):
        damage(filled.root / path)
    result = filled.run(POSTS.name, CAMPAIGN_RESULTS.name)
    description, _ = failure(result)
    assert re.search(
        r"written\.\ncampaign_results: \S+ is damaged: .*materialize this table again, as `later-reporting", description
    )
    assert filled.logged(result).keys() == {(POSTS.name, None)}
    of_posts, of_campaigns = sorted(filled.warnings(result))
    assert of_campaigns.startswith("Skipped campaigns: ")
    assert of_posts.startswith(f"Skipped {DAYS[1]} ")
    assert "materialize this partition again" in of_posts

    result = filled.run(POSTS.name)
    description, _ = failure(result)
    assert description.startswith("The tables are written, without 1 damaged file, such as ")
    assert "materialize this partition again, as `later-reporting backfill --asset posts_published" in description
    assert filled.logged(result).keys() == {(POSTS.name, None)}


def test_windows_fail_without_posts(project: Project) -> None:
    description, _ = failure(project.run(*SOME))
    assert description == "There are no posts: materialize a raw table first."


def test_table_that_cannot_be_written_fails_alone(filled: Project) -> None:
    (filled.root / BY_CREATOR.name).write_bytes(b"not a directory")
    result = filled.run(*SOME)
    description, _ = failure(result)
    assert description.startswith(
        f"1 table failed and was not changed; {len(SOME) - 1} written.\norganic_paid_by_creator: cannot "
    )
    assert filled.logged(result).keys() == {(name, None) for name in SOME if name != BY_CREATOR.name}


def test_file_that_cannot_be_read_at_the_moment_fails_the_windows(filled: Project) -> None:
    assert filled.run(POSTS.name).success
    before = stored(filled, POSTS.name)
    file = next((filled.root / PUBLISHED / f"date={DAYS[1]}").rglob("*.parquet"))
    file.unlink()
    file.symlink_to("/proc/self/mem")  # an input/output error, also for root
    assert "Input/output error" in failure(filled.run(POSTS.name))[0]
    assert stored(filled, POSTS.name) == before


def test_table_depends_on_those_of_its_sources_that_are_defined() -> None:
    defs = LaterReportingComponent(tables=[RECORDED, PUBLISHED, BY_CAMPAIGN.name]).build_definitions()
    assert defs.resolve_asset_graph().get(asset_key(BY_CAMPAIGN.name)).parent_keys == {asset_key(RECORDED)}
