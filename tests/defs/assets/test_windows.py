"""The rollups over windows, materialized from fetched posts."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.defs.checks.rollups import windows_checks
from later_reporting_dagster.lake import Partition, posts_table, schema_of
from later_reporting_dagster.rollups.rollup_tables import (
    BY_CAMPAIGN,
    BY_CREATOR,
    CAMPAIGN_RESULTS,
    COSTS_BY_CAMPAIGN,
    COSTS_OVERALL,
    POST_BENCHMARKS,
    POST_TABLES,
    WINDOW_TABLES,
    RollupTable,
)
from tests.conftest import INSTANCE_IDS, Row, Truth
from tests.defs.assets.test_rollups import reference_world
from tests.defs.conftest import DAYS, WINDOWS, Project, asset_key, failure, fill_once, plain_metadata
from tests.rollups.conftest import posts_of, row
from tests.rollups.worlds import differences

BASES = {"performance_date": "post_metrics_daily", "post_date": "posts_published"}


# One of each kind.
SOME = tuple(table.name for table in (BY_CREATOR, COSTS_BY_CAMPAIGN, CAMPAIGN_RESULTS, POST_BENCHMARKS))


def fetch_posts(project: Project) -> bool:
    return all(project.fetch(asset).success for asset in BASES.values())


@pytest.fixture
def filled(project: Project, module_lake: Path) -> Project:
    """The project with both raw tables in the lake only."""
    return fill_once(project, module_lake, fetch_posts)


def stored(project: Project, table: RollupTable) -> list[Row]:
    rows: list[Row] = pq.ParquetFile(project.root / table.name / "part-0.parquet").read().to_pylist()
    return rows


def materialized(project: Project, result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    events = project.events(result, dg.DagsterEventType.ASSET_MATERIALIZATION)
    found = [event.step_materialization_data.materialization for event in events]
    assert len({event.asset_key for event in found}) == len(found)
    return {event.asset_key.path[-1]: event for event in found}


def warnings(project: Project, result: dg.ExecuteInProcessResult) -> list[str]:
    return [entry.user_message for entry in project.instance.all_logs(result.run_id) if entry.level == 30]


def test_windows_match_the_reference(filled: Project, truth: Truth) -> None:
    result = filled.roll_up_windows()
    assert result.success
    materializations = materialized(filled, result)
    assert materializations.keys() == set(WINDOWS)
    world = reference_world(truth)
    for table in (*WINDOW_TABLES, *POST_TABLES):
        found = filled.lake.read_table(table.name, schema=schema_of(table.columns))
        assert found is not None
        assert differences({table.name: found}, world) == []
        metadata = plain_metadata(materializations[table.name])
        assert metadata["dagster/row_count"] == found.num_rows
        assert metadata["dagster/uri"] == str(filled.root / table.name / "part-0.parquet")
        assert len(metadata["preview"].records) == min(found.num_rows, 5)
    steps = {event.step_key for event in filled.events(result, dg.DagsterEventType.STEP_START)}
    assert steps == {"later__organic_paid_by_window", "later__organic_paid_by_window_checks"}
    passed = {key: each.passed for key, each in filled.evaluations(result).items()}
    assert passed == {
        (table.name, check.name): check.name != "newest_due_day_is_present"
        for table in (*WINDOW_TABLES, *POST_TABLES)
        for check in windows_checks(table)
    }


def test_windows_of_one_raw_table_are_rolled_up(project: Project) -> None:
    project.fetch("posts_published", instances=list(INSTANCE_IDS[:3]))
    project.fetch("posts_published", instances=list(INSTANCE_IDS[3:]), days=DAYS[1:2])
    result = project.roll_up_windows(BY_CAMPAIGN.name, COSTS_BY_CAMPAIGN.name)
    assert result.success
    assert stored(project, BY_CAMPAIGN) == []
    lagging = [each for each in stored(project, COSTS_BY_CAMPAIGN) if each["instance_id"] == INSTANCE_IDS[3]]
    assert {each["days"] for each in lagging} == {1}


def test_damaged_file_is_skipped_and_reported(filled: Project) -> None:
    damaged = next((filled.root / "posts_published" / f"date={DAYS[1]}").rglob("*.parquet"))
    damaged.write_bytes(b"no Parquet")
    result = filled.roll_up_windows(COSTS_BY_CAMPAIGN.name)
    assert result.success
    (warning,) = warnings(filled, result)
    assert warning.startswith(f"Skipped {DAYS[1]} ")
    assert "materialize this partition again" in warning
    (check,) = filled.check((COSTS_BY_CAMPAIGN.name, "reconciles_with_raw_rows")).values()
    assert not check.passed
    assert "is damaged" in check.metadata["differences"].value[0]


def test_windows_fail_without_posts(project: Project) -> None:
    description, _ = failure(project.roll_up_windows(*SOME))
    assert description == "There are no posts: materialize a raw table first."
    (result,) = project.check((BY_CAMPAIGN.name, "reconciles_with_raw_rows")).values()
    assert (result.passed, result.description) == (True, "Nothing to check")


def test_table_that_cannot_be_written_fails_alone(filled: Project) -> None:
    (filled.root / BY_CREATOR.name).write_bytes(b"not a directory")
    result = filled.roll_up_windows(*SOME)
    description, _ = failure(result)
    assert description.startswith(
        f"1 table failed and was not changed; {len(SOME) - 1} written.\norganic_paid_by_creator: cannot "
    )
    assert materialized(filled, result).keys() == set(SOME) - {BY_CREATOR.name}


def test_reconciliation_fails_for_restated_posts_and_a_tampered_table(filled: Project) -> None:
    filled.roll_up_windows(BY_CAMPAIGN.name, COSTS_OVERALL.name)
    key = (BY_CAMPAIGN.name, "reconciles_with_raw_rows")
    (result,) = filled.check(key).values()
    assert (result.passed, result.description) == (True, "All windows equal their raw rows")
    table = filled.lake.read_table(BY_CAMPAIGN.name, schema=schema_of(BY_CAMPAIGN.columns))
    assert table is not None
    filled.lake.write_table(BY_CAMPAIGN.name, table.slice(1))
    (result,) = filled.check(key).values()
    assert not result.passed
    assert "7d: organic_" in (result.description or "")
    filled.lake.write_table(BY_CAMPAIGN.name, table)
    filled.lake.write("posts_published", Partition(DAYS[0], INSTANCE_IDS[0]), posts_table([]))
    (result,) = filled.check((COSTS_OVERALL.name, "reconciles_with_raw_rows")).values()
    assert not result.passed
    assert "7d of all instances: posts is" in (result.description or "")
    (filled.root / BY_CAMPAIGN.name / "part-0.parquet").write_bytes(b"no Parquet")
    (result,) = filled.check(key).values()
    assert re.fullmatch(r"\S+ is damaged: .*Next step: materialize this table again", result.description or "")


def test_freshness_is_that_of_the_raw_table(project: Project) -> None:
    days = [datetime.now(UTC).date() - timedelta(days=age) for age in (1, 2, 3)]
    for day in days:
        posts = posts_of(row(instance_id=INSTANCE_IDS[0]))
        project.lake.write("posts_published", Partition(day, INSTANCE_IDS[0]), posts)
    project.roll_up_windows(BY_CAMPAIGN.name, COSTS_BY_CAMPAIGN.name)
    for table in (BY_CAMPAIGN, COSTS_BY_CAMPAIGN):
        (result,) = project.check((table.name, "newest_due_day_is_present")).values()
        assert result.passed is (table is COSTS_BY_CAMPAIGN)
        assert result.metadata["newest_day"].value == (str(days[0]) if result.passed else "None")


def test_file_that_cannot_be_read_at_the_moment_fails_the_windows(filled: Project) -> None:
    assert filled.roll_up_windows(COSTS_BY_CAMPAIGN.name).success
    before = stored(filled, COSTS_BY_CAMPAIGN)
    file = next((filled.root / "posts_published" / f"date={DAYS[1]}").rglob("*.parquet"))
    file.unlink()
    file.symlink_to("/proc/self/mem")  # an input/output error, also for root
    assert "Input/output error" in failure(filled.roll_up_windows(COSTS_BY_CAMPAIGN.name))[0]
    assert stored(filled, COSTS_BY_CAMPAIGN) == before


def test_damaged_tables_of_campaigns_are_skipped_and_reported(filled: Project) -> None:
    assert filled.run("campaigns").success
    assert filled.fetch("campaign_performance_daily", days=DAYS[1:]).success
    for path in ("campaigns", f"campaign_performance_daily/date={DAYS[1]}"):
        (filled.root / path / "part-0.parquet").write_bytes(b"no Parquet")
    result = filled.roll_up_windows(CAMPAIGN_RESULTS.name)
    assert result.success
    day, campaigns = warnings(filled, result)
    assert day.startswith(f"Skipped {DAYS[1]} of campaign_performance_daily: ")
    assert campaigns.startswith("Skipped campaigns: ")
    assert {row["days"] for row in stored(filled, CAMPAIGN_RESULTS)} == {1}


def test_table_depends_on_those_of_its_sources_that_are_defined() -> None:
    defs = LaterReportingComponent(tables=[*BASES.values(), BY_CAMPAIGN.name]).build_definitions()
    assert defs.resolve_asset_graph().get(asset_key(BY_CAMPAIGN.name)).parent_keys == {asset_key("post_metrics_daily")}
