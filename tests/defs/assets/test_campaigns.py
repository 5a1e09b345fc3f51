"""The assets of campaigns against the sandbox: what a run writes and logs, and what it does if the API refuses."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from later_reporting_dagster.contract import parse_metrics
from later_reporting_dagster.defs.partitions import range_tags
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGN_PERIODS_TABLE,
    CAMPAIGNS_TABLE,
    Partition,
    posts_schema,
    schema_of,
)
from later_reporting_dagster.lake.tables import ACCOUNT_PERIODS, CAMPAIGN_PERIODS, INSTANCE_PERFORMANCE_DAILY
from later_reporting_dagster.server.sandbox import World, create_app
from tests.conftest import (
    INSTANCE_IDS,
    NO_RATE_LIMIT,
    Service,
    both_api_versions,
    files,
    parameters,
    partition_file,
    problem,
)
from tests.defs.conftest import DAYS, RAW_ASSETS, Project, assert_success, asset_key, failure

LIST_PATH, PERFORMANCE_PATH = "/v2/campaigns", "/v2/campaigns/performance"


def stored_campaigns(project: Project) -> list[dict[str, Any]]:
    rows = project.lake.read_table(CAMPAIGNS_TABLE, schema=schema_of(CAMPAIGN_COLUMNS))
    assert rows is not None
    listed: list[dict[str, Any]] = rows.to_pylist()
    return listed


@both_api_versions
def test_daily_run_fetches_posts_and_campaigns(project: Project, service: Service) -> None:
    assert_success(project.run_job("later_posts", tags=range_tags(DAYS[0], DAYS[-1])))
    assert [partition.day for partition in project.lake.partitions(CAMPAIGN_PERFORMANCE_TABLE)] == DAYS
    assert {row["instance_id"] for row in stored_campaigns(project)} == {*INSTANCE_IDS}
    # The nine windows, and both kinds of the month since the start date.
    assert (service.request_count(LIST_PATH), service.request_count(PERFORMANCE_PATH)) == (1, len(DAYS) + 9 + 2)
    again = project.fetch(CAMPAIGN_PERFORMANCE_TABLE)
    assert sorted(project.metadata(again)) == [str(day) for day in DAYS]
    for metadata in project.metadata(again).values():
        assert metadata["dagster/partition_row_count"] > 0
        assert metadata["files_changed"] == 0


def test_refused_routes_cost_a_warning_each_and_keep_what_is_stored(project: Project, service: Service) -> None:
    assert_success(project.run(CAMPAIGNS_TABLE))
    assert_success(project.fetch(CAMPAIGN_PERFORMANCE_TABLE))
    assert_success(project.run(CAMPAIGN_PERIODS_TABLE))
    before = files(project.root)
    service.refuse_campaigns(403)
    result = project.run_job("later_posts", tags=range_tags(DAYS[0], DAYS[-1]))
    assert_success(result)
    for name in (CAMPAIGNS_TABLE, CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGN_PERIODS_TABLE):
        (warning,) = [each for each in project.warnings(result) if f"later/{name} was" in each]
        assert "HTTP 403" in warning
        assert warning.endswith(f"To request it no more, set LATER_TABLES (tables) to -{name}.")
    others = {*RAW_ASSETS, INSTANCE_PERFORMANCE_DAILY.name, ACCOUNT_PERIODS.name}
    assert {asset for asset, _ in project.logged(result)} == others
    assert before.items() <= files(project.root).items()


def test_dimension_leaves_out_an_instance_out_of_scope(
    project: Project, service: Service, small_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATER_INSTANCE_IDS", "007, instance_000")
    service.app = create_app(small_world, options=replace(NO_RATE_LIMIT, instance_scope=INSTANCE_IDS[1:]))
    assert_success(project.reloaded().run(CAMPAIGNS_TABLE))
    assert {row["instance_id"] for row in stored_campaigns(project)} == {"007"}


def test_settings_of_metrics_select_the_columns(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATER_METRICS", "reach, likes, impressions")
    assert_success(project.reloaded().fetch(RAW_ASSETS[0], days=DAYS[:1], instances=["007"]))
    names = pq.ParquetFile(partition_file(project.root, RAW_ASSETS[0], DAYS[0], "007")).schema_arrow.names
    assert names == posts_schema(parse_metrics("impressions, likes, reach")).names
    monkeypatch.setenv("LATER_CAMPAIGN_METRICS", "paidAdSpend, clicks, reach")
    reloaded = project.reloaded()
    assert_success(reloaded.run(CAMPAIGN_PERIODS_TABLE))
    names = pq.ParquetFile(project.root / CAMPAIGN_PERIODS_TABLE / "part-0.parquet").schema_arrow.names
    assert names[5:] == ["paid_ad_spend", "reach", "clicks", "extra", "fetched_at"]
    assert_success(reloaded.fetch(CAMPAIGN_PERFORMANCE_TABLE))
    file = project.root / CAMPAIGN_PERFORMANCE_TABLE / f"date={DAYS[0]}" / "part-0.parquet"
    metadata = project.lake.read_metadata(CAMPAIGN_PERFORMANCE_TABLE, Partition(DAYS[0]))
    assert metadata is not None
    assert metadata.key_values["metrics"] == '["paidAdSpend","clicks"]'
    assert pq.ParquetFile(file).schema_arrow.names == ["campaign_id", "paid_ad_spend", "clicks", "extra"]


def test_failed_period_fails_the_run_at_its_end_and_affects_no_other(project: Project, service: Service) -> None:
    assert_success(project.run(CAMPAIGN_PERIODS_TABLE))
    first = DAYS[-1] - timedelta(days=27)
    service.override = lambda request: problem(400) if parameters(request).get("startDate") == [str(first)] else None
    result = project.run(CAMPAIGN_PERIODS_TABLE)
    description, metadata = failure(result)
    assert description.startswith(
        f"1 period failed and was not changed; 10 written.\n28d {first} to {DAYS[-1]}: HTTP 400 "
    )
    assert [*metadata["failed_partitions"]] == [f"28d {first} to {DAYS[-1]}"]
    assert [*project.logged(result)] == [(CAMPAIGN_PERIODS_TABLE, None)]
    assert project.planned_checks(result) == project.evaluations(result).keys()


def test_all_months_are_fetched_again_on_request(project: Project, service: Service) -> None:
    old = project.configured(start_date=date(2023, 9, 30))
    assert_success(old.run(CAMPAIGN_PERIODS_TABLE))
    service.requests.clear()
    assert_success(old.run(CAMPAIGN_PERIODS_TABLE))
    assert service.request_count(PERFORMANCE_PATH) == 9 + 3 + 3
    assert_success(old.run(CAMPAIGN_PERIODS_TABLE, config={"all_months": True}))
    assert service.request_count(PERFORMANCE_PATH) == (9 + 3 + 3) + (9 + 7 + 7)


def test_campaign_results_follow_the_periods(project: Project) -> None:
    assert_success(project.run(CAMPAIGN_PERIODS_TABLE))
    (request,) = project.sensor("later_rollups").run_requests or []
    assert asset_key("campaign_results") in (request.asset_selection or ())
    assert not project.check(("campaign_results", "is_current"))["campaign_results", "is_current"].passed
    assert_success(project.run("campaign_results"))
    assert project.check(("campaign_results", "is_current"))["campaign_results", "is_current"].passed


def test_windows_that_differ_from_their_days_are_warned_of(project: Project) -> None:
    check = (CAMPAIGN_PERIODS_TABLE, "ad_spend_agrees_with_days")
    week = [DAYS[-1] - timedelta(days=number) for number in range(7)]
    project = project.configured(start_date=week[-1])
    assert_success(project.fetch(CAMPAIGN_PERFORMANCE_TABLE, days=sorted(week)))
    assert_success(project.run(CAMPAIGN_PERIODS_TABLE))
    result = project.check(check)[check]
    assert (result.passed, result.metadata["compared"].value > 0) == (True, True)
    rows = project.lake.read_table(CAMPAIGN_PERIODS_TABLE, schema=CAMPAIGN_PERIODS.schema)
    assert rows is not None
    spends = pa.array([1e6 if row["period"] == "7d" else row["paid_ad_spend"] for row in rows.to_pylist()])
    index = rows.schema.get_field_index("paid_ad_spend")
    project.lake.write_table(CAMPAIGN_PERIODS_TABLE, rows.set_column(index, rows.schema.field(index), spends))
    result = project.check(check)[check]
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert f"campaign {rows['campaign_id'][0]}" in str(result.metadata["campaigns"].value)
