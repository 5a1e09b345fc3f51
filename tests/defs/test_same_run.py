"""Raw tables, their checks and everything downstream in one run: all of it is executed, and no event is doubled."""

from collections import Counter
from datetime import date

import dagster as dg
import pytest

from later_reporting_dagster.defs.partitions import range_tags
from tests.conftest import INSTANCE_IDS, Service
from tests.defs.conftest import DAYS, RAW_ASSETS, ROLLUPS, WINDOWS, Project, assert_success, asset_key, restate_one_post

DAILY = (*RAW_ASSETS, "campaign_performance_daily", *ROLLUPS)
UNPARTITIONED = ("campaigns", "instances", *WINDOWS, "organic_paid_report")
ALL = {*DAILY, *UNPARTITIONED}
KINDS = dg.DagsterEventType


def test_run_of_raw_tables_and_all_downstream_is_complete(project: Project) -> None:
    result = project.run(*DAILY, *UNPARTITIONED, tags=range_tags(DAYS[0], DAYS[-1]))
    assert_success(result)
    materialized = Counter(
        (event.asset_key.path[-1], event.partition)
        for event in project.events(result, KINDS.ASSET_MATERIALIZATION)
        if event.asset_key
    )
    assert materialized == Counter(
        [*((asset, str(day)) for asset in DAILY for day in DAYS), *((asset, None) for asset in UNPARTITIONED)]
    )
    assert not project.events(result, KINDS.ASSET_OBSERVATION)
    assert not project.events(result, KINDS.STEP_SKIPPED)
    # Each check of these assets is evaluated once.
    checks = {key for key in project.defs.resolve_asset_graph().asset_check_keys if key.asset_key.path[-1] in ALL}
    assert {dg.AssetCheckKey(asset_key(asset), name) for asset, name in project.evaluations(result)} == checks


def test_each_day_keeps_its_data_version(project: Project, service: Service) -> None:
    """Dagster itself would give all partitions of a run the same version."""
    before = _versions(project)
    assert all(len(set(versions.values())) == len(DAYS) for versions in before.values())
    service.transform = restate_one_post(DAYS[1], INSTANCE_IDS[0])
    after = _versions(project)
    changed = {asset: {day for day in DAYS if after[asset][day] != before[asset][day]} for asset in before}
    assert changed == {"posts_published": {DAYS[1]}, "organic_paid_by_publish_day": {DAYS[1]}}


def _versions(project: Project) -> dict[str, dict[date, str]]:
    assets = ("posts_published", "organic_paid_by_publish_day")
    result = project.run(*assets, tags=range_tags(DAYS[0], DAYS[-1]))
    assert_success(result)
    versions: dict[str, dict[date, str]] = {asset: {} for asset in assets}
    for event in project.events(result, KINDS.ASSET_MATERIALIZATION):
        materialization = event.step_materialization_data.materialization
        day = date.fromisoformat(str(materialization.partition))
        versions[materialization.asset_key.path[-1]][day] = materialization.tags["dagster/data_version"]
    return versions


@pytest.mark.parametrize(
    ("asset", "check"),
    [("posts_published", "rows_unique_by_key"), ("organic_paid_by_publish_day", "reconciles_with_raw_rows")],
)
def test_checks_look_at_the_partitions_of_their_run_only(asset: str, check: str, project: Project) -> None:
    both = ("posts_published", "organic_paid_by_publish_day")
    project.run(*both, tags=range_tags(DAYS[0], DAYS[-1]))
    looked_at = "files" if asset == "posts_published" else "days"
    per_day = len(INSTANCE_IDS) if asset == "posts_published" else 1
    of_run = project.evaluations(project.run(*both, tags=range_tags(DAYS[1], DAYS[2])))[asset, check]
    assert of_run.metadata[looked_at].value == 2 * per_day
    of_job = project.check((asset, check))[asset, check]
    assert of_job.metadata[looked_at].value == 3 * per_day
