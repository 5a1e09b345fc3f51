"""Raw tables, their checks and everything downstream in one run: all of it is executed, and no event is doubled."""

import dagster as dg

from later_reporting_dagster.defs.partitions import PARTITION_TAG, range_tags
from tests.conftest import INSTANCE_IDS, Service
from tests.defs.conftest import (
    DAYS,
    RAW_ASSETS,
    ROLLUPS,
    WINDOWS,
    Project,
    assert_success,
    asset_key,
    plain_metadata,
    restate_one_post,
)

DAILY = (*RAW_ASSETS, "campaign_performance_daily", *ROLLUPS)
UNPARTITIONED = ("campaigns", "instances", *WINDOWS, "organic_paid_report")
BOTH = ("post_metrics_daily", "organic_paid_daily")
THREE_DAYS = range_tags(DAYS[0], DAYS[-1])
ALL = {*DAILY, *UNPARTITIONED}


def test_run_of_raw_tables_and_all_downstream_is_complete(project: Project) -> None:
    result = project.run(*DAILY, *UNPARTITIONED, tags=THREE_DAYS)
    assert_success(result)
    assert project.logged(result).keys() == {
        *((asset, str(day)) for asset in DAILY for day in DAYS),
        *((asset, None) for asset in UNPARTITIONED),
    }
    assert not project.events(result, dg.DagsterEventType.ASSET_OBSERVATION)
    assert not project.events(result, dg.DagsterEventType.STEP_SKIPPED)
    # Each check of these assets is evaluated once.
    checks = {key for key in project.defs.resolve_asset_graph().asset_check_keys if key.asset_key.path[-1] in ALL}
    assert {dg.AssetCheckKey(asset_key(asset), name) for asset, name in project.evaluations(result)} == checks


def test_restated_post_changes_only_the_versions_of_its_day(project: Project, service: Service) -> None:
    """Dagster itself would give all partitions of a run the same version."""

    def versions(logged: dict[tuple[str, str | None], dg.AssetMaterialization]) -> set[tuple[object, ...]]:
        return {(*key, each.tags["dagster/data_version"]) for key, each in logged.items()}

    before = project.logged(project.run(*BOTH, tags=THREE_DAYS))
    assert len({version for *_, version in versions(before)}) == len(before) == 2 * len(DAYS)
    service.transform = restate_one_post(DAYS[2], INSTANCE_IDS[0])
    after = project.logged(project.run(*BOTH, tags=THREE_DAYS))
    changed = {(asset, day) for asset, day, _ in versions(after) - versions(before)}
    assert changed == {(asset, str(DAYS[2])) for asset in BOTH}
    for day in DAYS:
        found = plain_metadata(after[BOTH[0], str(day)])
        changes = {name: value for name, value in found.items() if name.startswith("change/")}
        # One post on each of the two pages that have posts published on this day.
        restated = {"change/rows_added": 0, "change/rows_removed": 0, "change/rows_restated": 2}
        assert changes == (restated if day == DAYS[2] else {})


def test_checks_look_at_the_partitions_of_their_run_only(project: Project) -> None:
    project.run(*BOTH, tags=THREE_DAYS)
    of_files = BOTH[0], "rows_unique_by_key"
    for tags, days in ((range_tags(DAYS[1], DAYS[2]), 2), ({PARTITION_TAG: str(DAYS[1])}, 1)):
        result = project.run(*BOTH, tags=tags)
        assert len(project.logged(result)) == len(BOTH) * days
        assert project.evaluations(result)[of_files].metadata["files"].value == days * len(INSTANCE_IDS)
    assert project.check(of_files)[of_files].metadata["files"].value == 3 * len(INSTANCE_IDS)
    # The file of a day that the run does not select.
    (project.root / BOTH[1] / f"date={DAYS[0]}" / "part-0.parquet").unlink()
    current = BOTH[1], "is_current"
    assert project.evaluations(project.run(*BOTH, tags=tags))[current].passed
    assert not project.check(current)[current].passed
