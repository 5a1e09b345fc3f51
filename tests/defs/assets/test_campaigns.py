"""The assets of campaigns against the sandbox: what a run writes and logs, and what it does if the API refuses."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from starlette.requests import Request
from starlette.responses import Response

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGNS_TABLE,
    Partition,
    schema_of,
)
from later_reporting_dagster.sandbox import World, create_app
from tests.conftest import INSTANCE_IDS, NO_RATE_LIMIT, Service, both_api_versions, parameters, problem
from tests.defs.conftest import DAYS, QUIET_LOGGING, RAW_ASSETS, Project, assert_success, failure

LIST_PATH, PERFORMANCE_PATH = "/v2/campaigns", "/v2/campaigns/performance"


def warnings(project: Project, run_id: str) -> list[str]:
    """Return the warnings in the log of a run."""
    return [entry.user_message for entry in project.instance.all_logs(run_id) if entry.level == 30]


def refuse_campaigns(service: Service, world: World, status: int) -> None:
    options = replace(NO_RATE_LIMIT, api_version=service.api_version, campaigns_status=status)
    service.app = create_app(world, options=options)


def stored_campaigns(project: Project) -> list[dict[str, Any]]:
    rows = project.lake.read_table(CAMPAIGNS_TABLE, schema=schema_of(CAMPAIGN_COLUMNS))
    assert rows is not None
    listed: list[dict[str, Any]] = rows.to_pylist()
    return listed


def fail_day(day: object) -> Any:
    """Return a response override that rejects requests for the performance of a day."""

    def override(request: Request) -> Response | None:
        is_day = request.url.path == PERFORMANCE_PATH and parameters(request)["startDate"] == [str(day)]
        return problem(400) if is_day else None

    return override


@both_api_versions
def test_daily_run_fetches_posts_and_campaigns(
    project: Project, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_VERIFY_PERCENT", "0")
    project = project.reloaded()
    job = project.defs.resolve_job_def("later_posts")
    tags = range_tags(DAYS[0], DAYS[-1])
    assert_success(job.execute_in_process(instance=project.instance, tags=tags, run_config=QUIET_LOGGING))
    assert [partition.day for partition in project.lake.partitions(CAMPAIGN_PERFORMANCE_TABLE)] == DAYS
    assert {row["instance_id"] for row in stored_campaigns(project)} == {*INSTANCE_IDS}
    assert (service.request_count(LIST_PATH), service.request_count(PERFORMANCE_PATH)) == (1, len(DAYS))


def test_materialization_shows_rows_version_and_restatement(project: Project) -> None:
    first = project.fetch(CAMPAIGN_PERFORMANCE_TABLE)
    assert sorted(project.metadata(first)) == [str(day) for day in DAYS]
    metadata = project.metadata(first)[str(DAYS[0])]
    assert metadata["dagster/partition_row_count"] > 0
    assert metadata["files_changed"] == 1
    assert "campaign_id" in metadata["preview"].records[0].data
    again = project.fetch(CAMPAIGN_PERFORMANCE_TABLE)
    assert project.data_versions(again) == project.data_versions(first)
    assert all(each["files_changed"] == 0 for each in project.metadata(again).values())


@pytest.mark.parametrize("status", [403, 404])
@both_api_versions
def test_refused_routes_cost_a_warning_each_and_nothing_else(
    project: Project, service: Service, small_world: World, status: int
) -> None:
    refuse_campaigns(service, small_world, status)
    job = project.defs.resolve_job_def("later_posts")
    tags = range_tags(DAYS[0], DAYS[-1])
    result = job.execute_in_process(instance=project.instance, tags=tags, run_config=QUIET_LOGGING)
    assert_success(result)
    for name in (CAMPAIGNS_TABLE, CAMPAIGN_PERFORMANCE_TABLE):
        (warning,) = [each for each in warnings(project, result.run_id) if f"later/{name} was" in each]
        assert f"HTTP {status}" in warning
        assert warning.endswith(f"To request it no more, set LATER_TABLES (tables) to -{name}.")
        assert not project.instance.get_latest_materialization_event(dg.AssetKey(["later", name]))
    assert not project.lake.partitions(CAMPAIGN_PERFORMANCE_TABLE)
    assert all(project.lake.partitions(asset) for asset in RAW_ASSETS)
    assert all(evaluation.passed for (asset, _), evaluation in project.check().items() if asset.startswith("campaign"))


def test_dimension_leaves_out_an_instance_out_of_scope(
    project: Project, service: Service, small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007, instance_000")
    service.app = create_app(small_world, options=replace(NO_RATE_LIMIT, instance_scope=INSTANCE_IDS[1:]))
    assert_success(project.reloaded().run(CAMPAIGNS_TABLE))
    assert {row["instance_id"] for row in stored_campaigns(project)} == {"007"}


def test_refused_route_keeps_what_is_stored(project: Project, service: Service, small_world: World) -> None:
    project.fetch(CAMPAIGN_PERFORMANCE_TABLE)
    project.run(CAMPAIGNS_TABLE)
    before = stored_campaigns(project)
    refuse_campaigns(service, small_world, 403)
    assert_success(project.fetch(CAMPAIGN_PERFORMANCE_TABLE))
    assert_success(project.run(CAMPAIGNS_TABLE))
    assert stored_campaigns(project) == before
    assert [partition.day for partition in project.lake.partitions(CAMPAIGN_PERFORMANCE_TABLE)] == DAYS


def test_failed_day_fails_the_run_and_affects_no_other(project: Project, service: Service) -> None:
    service.override = fail_day(DAYS[1])
    result = project.fetch(CAMPAIGN_PERFORMANCE_TABLE)
    description, metadata = failure(result)
    assert description.startswith("1 file failed and was not changed; 2 written.\n2024-03-02: campaign performance of")
    assert [*metadata["failed_partitions"]] == [str(DAYS[1])]
    assert sorted(project.materializations(result)) == [str(DAYS[0]), str(DAYS[2])]
    service.override = lambda request: None
    service.requests.clear()
    assert_success(project.fetch(CAMPAIGN_PERFORMANCE_TABLE, only_missing=True))
    assert service.request_count(PERFORMANCE_PATH) == 1


def test_newest_due_day_is_missing_once_other_days_exist(project: Project) -> None:
    check = (CAMPAIGN_PERFORMANCE_TABLE, "newest_due_day_is_present")
    (before,) = project.check(check).values()
    project.fetch(CAMPAIGN_PERFORMANCE_TABLE)
    (after,) = project.check(check).values()
    assert (before.passed, before.description) == (True, "Not fetched yet")
    assert (after.passed, after.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_campaign_metrics_setting_selects_the_columns(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_CAMPAIGN_METRICS", "paidAdSpend, clicks")
    reloaded = project.reloaded()
    assert_success(reloaded.fetch(CAMPAIGN_PERFORMANCE_TABLE))
    file = project.root / CAMPAIGN_PERFORMANCE_TABLE / f"date={DAYS[0]}" / "part-0.parquet"
    metadata = project.lake.read_metadata(CAMPAIGN_PERFORMANCE_TABLE, Partition(DAYS[0]))
    assert metadata is not None
    assert metadata.key_values["metrics"] == '["paidAdSpend","clicks"]'
    assert pq.ParquetFile(file).schema_arrow.names == ["campaign_id", "paid_ad_spend", "clicks", "extra"]


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ("-campaign_performance_daily", {"campaigns"}),
        (["-campaigns", "-campaign_performance_daily"], set()),
        ("posts_published,campaigns", {"campaigns"}),
    ],
)
def test_tables_setting_switches_campaigns_off(tables: str | list[str], expected: set[str]) -> None:
    component = LaterReportingComponent(tables=tables, start_date=DAYS[0] - timedelta(days=1))
    names = {key.path[-1] for key in component.build_definitions().resolve_asset_graph().get_all_asset_keys()}
    assert names & {CAMPAIGNS_TABLE, CAMPAIGN_PERFORMANCE_TABLE} == expected
    assert "posts_published" in names
    dg.Definitions.validate_loadable(component.build_definitions())
