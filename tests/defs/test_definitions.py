"""The code location: loads offline without settings, describes its tables, and can be merged into other projects."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster import LaterReportingComponent
from later_reporting_dagster.definitions import defs
from later_reporting_dagster.defs.component_base import ASSET_NAMES
from later_reporting_dagster.lake.tables import PERIODS_TABLES, RAW_TABLES
from later_reporting_dagster.report.report_data import SHOWN_TABLES
from later_reporting_dagster.rollups.rollup_tables import SINGLE_TABLES
from tests.defs.conftest import PERIOD_ROLLUPS, RAW_ASSETS, ROLLUPS, WINDOWS, asset_key
from tests.services import WAIT_SECONDS

REPOSITORY = Path(__file__).parents[2]
FETCHED = (*RAW_TABLES, *PERIODS_TABLES, "campaigns")
PARTITIONED = (*RAW_TABLES, *ROLLUPS, *PERIOD_ROLLUPS)
LOAD_OFFLINE = """
import socket
import warnings

import dagster as dg
import numpy  # adds warning filters on import

class Forbidden(socket.socket):
    def connect(self, *_): raise AssertionError("a connection at load")
    def bind(self, *_): raise AssertionError("a server at load")

def forbidden(*_args, **_options): raise AssertionError("a look-up at load")

socket.socket, socket.getaddrinfo, socket.create_connection = Forbidden, forbidden, forbidden

filters = list(warnings.filters)
from later_reporting_dagster.definitions import defs

assert warnings.filters == filters, "a warning filter is left behind"
dg.Definitions.validate_loadable(defs)
print(*sorted(key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()))
"""


def spec_of(asset: str) -> dg.AssetSpec:
    return defs.resolve_assets_def(asset_key(asset)).specs_by_key[asset_key(asset)]


@pytest.mark.e2e
def test_definitions_load_offline_without_settings(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", LOAD_OFFLINE],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == sorted(f"later/{asset}" for asset in ASSET_NAMES)
    assert result.stderr == ""
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_asset_dependencies() -> None:
    graph = defs.resolve_asset_graph()
    assert {
        key.path[-1]: {parent.path[-1] for parent in graph.get(key).parent_keys} for key in graph.get_all_asset_keys()
    } == {
        **dict.fromkeys(FETCHED, set()),
        **dict.fromkeys([*ROLLUPS, *PERIOD_ROLLUPS], {"post_metrics_daily"}),
        **{table.name: {*table.sources} for table in SINGLE_TABLES},
        "instances": set(RAW_ASSETS),
        "coverage": {*RAW_TABLES, "instances"},
        "organic_paid_report": {"coverage", *SHOWN_TABLES},
    }


@pytest.mark.parametrize("asset", PARTITIONED)
def test_backfill_of_a_range_is_one_run(asset: str) -> None:
    definition = defs.resolve_assets_def(asset_key(asset))
    assert definition.backfill_policy == dg.BackfillPolicy.single_run()
    weekly, monthly = dg.WeeklyPartitionsDefinition, dg.MonthlyPartitionsDefinition
    others = {"organic_paid_weekly": weekly, "organic_paid_monthly": monthly}
    assert type(definition.partitions_def) is others.get(asset, dg.DailyPartitionsDefinition)


def test_assets_are_due_at_the_due_hour_and_share_a_pool_if_they_fetch() -> None:
    due = dg.FreshnessPolicy.cron("0 12 * * *", lower_bound_delta=timedelta(hours=23))
    assert all(spec_of(asset).freshness_policy == due for asset in (*PARTITIONED, *WINDOWS, "organic_paid_report"))
    assert {defs.resolve_assets_def(asset_key(asset)).op.pool for asset in FETCHED} == {"later_api"}


def test_runs_execute_in_one_process() -> None:
    assert defs.executor is dg.in_process_executor
    jobs = {job.name: job for job in defs.get_repository_def().get_all_jobs() if not job.name.startswith("__")}
    assert jobs.keys() == {"later_posts", "later_checks", "later_coverage"}
    assert {job.executor_def.name for job in jobs.values()} == {"in_process"}
    assert jobs["later_posts"].asset_layer.executable_asset_keys == {asset_key(asset) for asset in FETCHED}
    assert not jobs["later_checks"].asset_layer.executable_asset_keys


def test_definitions_merge_without_affecting_the_host() -> None:
    @dg.asset(automation_condition=dg.AutomationCondition.eager(), deps=[asset_key("posts_published")])
    def theirs() -> None: ...

    @dg.asset_check(asset=theirs, automation_condition=dg.AutomationCondition.eager())
    def check_of_theirs() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    sensor = dg.AutomationConditionSensorDefinition("theirs", target=dg.AssetSelection.assets(theirs))
    host = dg.Definitions(
        assets=[theirs],
        asset_checks=[check_of_theirs],
        executor=dg.multiprocess_executor,
        sensors=[sensor],
        resources={"io_manager": dg.mem_io_manager},
    )
    merged = dg.Definitions.merge(host, LaterReportingComponent.from_environment().build_definitions())
    dg.Definitions.validate_loadable(merged)
    assert merged.executor is dg.multiprocess_executor
    graph = merged.resolve_asset_graph()
    sensors = {each.name: each for each in merged.get_repository_def().sensor_defs}
    assert sensors.keys() == {"theirs", "later_rollups", "later_missing_files"}
    # The page of each asset that is made from others names the sensor.
    ours = sensors["later_rollups"].asset_selection
    assert ours.resolve(graph) == defs.resolve_asset_graph().get_all_asset_keys() - {*map(asset_key, FETCHED)}
    # All names have a prefix, so that they do not collide with names of the host.
    names = {each.name for each in [*(defs.jobs or []), *(defs.schedules or []), *(defs.sensors or [])]}
    assert all(name.startswith("later_") for name in names)
    assert {key.path[0] for key in defs.resolve_asset_graph().get_all_asset_keys()} == {"later"}
    assert all(name.startswith("later") for name in defs.resources or {})
