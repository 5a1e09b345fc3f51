"""The tables of windows, run for real on what has landed."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.defs.organic_paid_windows import windows_checks_of
from later_reporting_dagster.lake import Partition, posts_table, schema_of
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN, BY_CREATOR, BY_WINDOW, RolledUp
from tests.conftest import INSTANCE_IDS, Row, Truth, files
from tests.defs.conftest import DAYS, WINDOWS, Project, asset_key, failure, values
from tests.defs.test_organic_paid_periods import world_of
from tests.rollups.conftest import posts_of, row
from tests.rollups.worlds import differences

BASES = {"performance_date": "post_metrics_daily", "post_date": "posts_published"}


@pytest.fixture
def filled(project: Project) -> Project:
    for asset in BASES.values():
        project.fetch(asset)
    return project


def stored(project: Project, table: RolledUp) -> list[Row]:
    rows: list[Row] = pq.ParquetFile(project.root / table.name / "part-0.parquet").read().to_pylist()
    return rows


def materialized(project: Project, result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    events = project.events(result, dg.DagsterEventType.ASSET_MATERIALIZATION)
    found = [event.step_materialization_data.materialization for event in events]
    assert len({event.asset_key for event in found}) == len(found)
    return {event.asset_key.path[-1]: event for event in found}


def test_they_are_what_the_plain_reference_says_of_the_service_s_own_rows(filled: Project, truth: Truth) -> None:
    result = filled.roll_up_windows()
    assert result.success
    told_of = materialized(filled, result)
    assert told_of.keys() == set(WINDOWS)
    world = world_of(truth)
    raw = {"post_metrics_daily": world.recorded, "posts_published": world.published}
    for table in BY_WINDOW:
        found = filled.lake.read_table(table.name, schema=schema_of(table.columns))
        assert found is not None
        assert differences({table.name: found}, world) == []
        told = values(told_of[table.name])
        assert told["dagster/row_count"] == found.num_rows
        assert told["dagster/uri"] == str(filled.root / table.name / "part-0.parquet")
        for asset, partitions in raw.items():
            assert told[f"rows/{asset}"] == sum(map(len, partitions.values()))
            assert (told[f"days/{asset}"], told[f"newest_day/{asset}"]) == (3, str(DAYS[-1]))
            assert told[f"missing/{asset}"] == 0
        assert told["preview"].startswith("| instance_id | ")
    passed = {key: each.passed for key, each in filled.evaluations(result).items()}
    assert passed == {
        (table.name, check): check != "newest_due_day_is_present"
        for table in BY_WINDOW
        for check in windows_checks_of(table)
    }


def test_one_of_them_can_be_made_alone(filled: Project) -> None:
    result = filled.roll_up_windows(BY_CREATOR.name)
    assert result.success
    assert materialized(filled, result).keys() == {BY_CREATOR.name}
    assert not (filled.root / BY_CAMPAIGN.name).exists()


def test_a_rerun_changes_no_byte_and_no_data_version(filled: Project) -> None:
    first = materialized(filled, filled.roll_up_windows())
    before = files(filled.root)
    second = materialized(filled, filled.roll_up_windows())
    assert files(filled.root) == before
    for asset in WINDOWS:
        assert second[asset].tags["dagster/data_version"] == first[asset].tags["dagster/data_version"]
        assert values(second[asset])["changed"] is False


def test_they_are_in_sync_after_posts_were_fetched_again_unchanged(filled: Project) -> None:
    filled.roll_up_windows()
    assert all(filled.is_in_sync(asset) for asset in WINDOWS)
    filled.fetch("posts_published")
    assert all(filled.is_in_sync(asset) for asset in WINDOWS)


def test_one_raw_table_is_enough_and_what_is_missing_is_told(project: Project) -> None:
    project.fetch("posts_published", instances=list(INSTANCE_IDS[:3]))
    project.fetch("posts_published", instances=list(INSTANCE_IDS[3:]), days=DAYS[1:2])
    result = project.roll_up_windows(BY_CAMPAIGN.name)
    assert result.success
    assert {row["date_basis"] for row in stored(project, BY_CAMPAIGN)} == {"post_date"}
    told = values(materialized(project, result)[BY_CAMPAIGN.name])
    assert (told["days/post_metrics_daily"], told["newest_day/post_metrics_daily"]) == (0, "none")
    assert told["missing/posts_published"] == 2
    assert told["missing_days/posts_published"] == {INSTANCE_IDS[3]: 2}
    lagging = [each for each in stored(project, BY_CAMPAIGN) if each["instance_id"] == INSTANCE_IDS[3]]
    assert {each["days"] for each in lagging} == {1}


def test_a_damaged_file_is_left_out_and_told_and_stops_no_other(filled: Project) -> None:
    damaged = next((filled.root / "posts_published" / f"date={DAYS[1]}").rglob("*.parquet"))
    damaged.write_bytes(b"no Parquet")
    result = filled.roll_up_windows(BY_CAMPAIGN.name)
    assert result.success
    told = values(materialized(filled, result)[BY_CAMPAIGN.name])
    ((key, reason),) = told["unread/posts_published"].items()
    assert key.startswith(f"{DAYS[1]} ")
    assert "materialize this partition again" in reason
    assert told["missing/posts_published"] == 1
    (check,) = filled.check((BY_CAMPAIGN.name, "reconciles_with_raw_rows")).values()
    assert not check.passed
    assert "is damaged" in check.metadata["differences"].value[0]


def test_without_posts_there_is_nothing_to_make(project: Project) -> None:
    description, _ = failure(project.roll_up_windows())
    assert description == "There are no posts: materialize a raw table first."
    (told,) = project.check((BY_CAMPAIGN.name, "reconciles_with_raw_rows")).values()
    assert (told.passed, told.description) == (True, "It is not there yet")


def test_a_table_that_cannot_be_written_leaves_the_others_to_themselves(filled: Project) -> None:
    (filled.root / BY_CREATOR.name).write_bytes(b"a file where a directory is due")
    result = filled.roll_up_windows()
    description, _ = failure(result)
    assert description.startswith("1 table failed and stayed as before; 2 written.\norganic_paid_by_creator: cannot ")
    assert materialized(filled, result).keys() == set(WINDOWS) - {BY_CREATOR.name}


def test_a_count_too_large_is_named(filled: Project) -> None:
    for day in DAYS[:2]:
        large = posts_of(row(instance_id=INSTANCE_IDS[0], paid_impressions=2**62))
        filled.lake.write("post_metrics_daily", Partition(day, INSTANCE_IDS[0]), large)
    description, _ = failure(filled.roll_up_windows())
    assert "paid_impressions does not fit int64" in description


def test_the_check_is_red_when_posts_were_restated_and_when_the_table_was_tampered_with(filled: Project) -> None:
    filled.roll_up_windows(BY_CAMPAIGN.name)
    key = (BY_CAMPAIGN.name, "reconciles_with_raw_rows")
    (told,) = filled.check(key).values()
    assert (told.passed, told.description) == (True, "All windows equal their raw rows")
    table = filled.lake.read_table(BY_CAMPAIGN.name, schema=schema_of(BY_CAMPAIGN.columns))
    assert table is not None
    filled.lake.write_table(BY_CAMPAIGN.name, table.slice(1))
    (told,) = filled.check(key).values()
    assert not told.passed
    assert "7d by performance_date: organic_" in (told.description or "")
    filled.lake.write_table(BY_CAMPAIGN.name, table)
    filled.lake.write("posts_published", Partition(DAYS[0], INSTANCE_IDS[0]), posts_table([]))
    (told,) = filled.check(key).values()
    assert not told.passed
    (filled.root / BY_CAMPAIGN.name / "part-0.parquet").write_bytes(b"no Parquet")
    (told,) = filled.check(key).values()
    assert "is damaged" in (told.description or "")


def test_they_are_due_by_both_bases(project: Project) -> None:
    days = [datetime.now(UTC).date() - timedelta(days=age) for age in (1, 2, 3)]
    key = (BY_CAMPAIGN.name, "newest_due_day_is_present")
    for asset, passes in (("post_metrics_daily", False), ("posts_published", True)):
        for day in days:
            project.lake.write(asset, Partition(day, INSTANCE_IDS[0]), posts_of(row(instance_id=INSTANCE_IDS[0])))
        project.roll_up_windows(BY_CAMPAIGN.name)
        (told,) = project.check(key).values()
        assert told.passed is passes
    assert f"newest_day/{[*BASES][1]}" in told.metadata
    assert asset_key(BY_CAMPAIGN.name) == told.asset_key
