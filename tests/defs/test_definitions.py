"""The code location: loads with nothing set and nobody to talk to, shows its tables, and is a guest anywhere."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from later_reporting_dagster.definitions import defs
from later_reporting_dagster.ingest.instance_dimension import INSTANCES_SCHEMA
from later_reporting_dagster.lake import POSTS_SCHEMA, schema_of
from later_reporting_dagster.rollups.rollup_tables import TABLES
from tests.defs.conftest import RAW_ASSETS, ROLLUPS, SPANS, WINDOWS, asset_key

REPOSITORY = Path(__file__).parents[2]
SCHEMAS = {
    "instances": INSTANCES_SCHEMA,
    "post_metrics_daily": POSTS_SCHEMA,
    "posts_published": POSTS_SCHEMA,
    **{table.name: schema_of(table.columns) for table in TABLES},
}
PARTITIONED = (*RAW_ASSETS, *ROLLUPS, *SPANS)
MADE = (*ROLLUPS, *SPANS, *WINDOWS)
REPORT = "organic_paid_report"
LAYERS = {"instances": "dimension", **dict.fromkeys(RAW_ASSETS, "raw"), **dict.fromkeys(MADE, "rollup")}

SOURCES = {
    "organic_paid_daily": {"post_metrics_daily"},
    "organic_paid_by_publish_day": {"posts_published"},
    **dict.fromkeys(SPANS, {"post_metrics_daily"}),
    **dict.fromkeys(WINDOWS, {"post_metrics_daily", "posts_published"}),
}

LOAD_IN_SILENCE = """
import socket
import warnings

import dagster as dg
import numpy  # which adds filters of its own

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


def loaded(environment: dict[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Loads the definitions in a process of its own, whose environment is this and nothing else."""
    return subprocess.run(
        [sys.executable, "-c", LOAD_IN_SILENCE],
        cwd=directory,
        env={"PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def spec_of(asset: str) -> dg.AssetSpec:
    return defs.resolve_assets_def(asset_key(asset)).specs_by_key[asset_key(asset)]


def plain(value: Any) -> Any:
    return value.value if isinstance(value, dg.MetadataValue) else value


def test_they_load_with_nothing_set_and_nobody_to_talk_to(tmp_path: Path) -> None:
    result = loaded({}, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == sorted(f"later/{asset}" for asset in (*SCHEMAS, REPORT))
    assert result.stderr == ""
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_wrong_setting_is_named_at_the_end_of_what_is_said(tmp_path: Path) -> None:
    result = loaded({"LATER_START_DATE": "last spring"}, tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "ValueError: LATER_START_DATE is a day as YYYY-MM-DD, not 'last spring'"


@pytest.mark.parametrize("asset", SCHEMAS)
def test_a_table_is_described_as_it_lies_in_the_lake(asset: str) -> None:
    spec, schema = spec_of(asset), SCHEMAS[asset]
    assert spec.group_name == ("organic_paid" if asset in MADE else "posts")
    assert (spec.kinds, spec.owners) == ({"parquet"}, [])
    assert spec.description
    assert spec.tags["later/layer"] == LAYERS[asset]
    metadata = {name: plain(value) for name, value in spec.metadata.items()}
    assert (metadata["dagster/table_name"], metadata["dagster/storage_kind"]) == (f"later.{asset}", "parquet")
    columns = metadata["dagster/column_schema"].columns
    assert [(column.name, column.type, column.constraints.nullable) for column in columns] == [
        (field.name, str(field.type).replace("double", "float64"), field.nullable) for field in schema
    ]
    assert all(column.description for column in columns)
    document, _, heading = metadata["documentation"].partition("#")
    assert f"`{heading}`" in (REPOSITORY / document).read_text()


@pytest.mark.parametrize("asset", MADE)
def test_each_column_tells_the_raw_columns_that_it_is_made_from(asset: str) -> None:
    """They are columns of the raw tables that the asset is made from, and every number has some."""
    lineage = plain(spec_of(asset).metadata["dagster/column_lineage"])
    assert lineage.deps_by_column.keys() <= set(SCHEMAS[asset].names)
    without = {"window", "date_basis", "first_day", "last_day", "days", "days_expected", "previous_days"}
    assert set(SCHEMAS[asset].names) - lineage.deps_by_column.keys() == without & set(SCHEMAS[asset].names)
    assert {dep.asset_key.path[-1] for deps in lineage.deps_by_column.values() for dep in deps} == SOURCES[asset]
    for name, deps in lineage.deps_by_column.items():
        assert {dep.column_name for dep in deps} <= set(POSTS_SCHEMA.names)
        if "spend" in name or "_cp" in name:
            assert {dep.asset_key.path[-1] for dep in deps} == {"posts_published"}
            costs = {"cpe", "engagements", "cpm", "impressions"}
            made_from = {dep.column_name.removeprefix("paid_") for dep in deps}
            assert made_from == costs | ({"estimated_value_generated"} if "value" in name else set())
    impressions = {dep.column_name for dep in lineage.deps_by_column["organic_impressions"]}
    assert impressions == {"impressions"}
    assert {dep.column_name for dep in lineage.deps_by_column["paid_lift"]} == {
        *("impressions", "engagements", "paid_impressions", "paid_engagements")
    }


def test_each_asset_depends_on_what_it_is_made_from() -> None:
    graph = defs.resolve_asset_graph()
    assert {
        key.path[-1]: {parent.path[-1] for parent in graph.get(key).parent_keys} for key in graph.get_all_asset_keys()
    } == {
        **dict.fromkeys(RAW_ASSETS, set()),
        "organic_paid_daily": {"post_metrics_daily"},
        "organic_paid_by_publish_day": {"posts_published"},
        **dict.fromkeys(SPANS, {"organic_paid_daily"}),
        **dict.fromkeys((*WINDOWS, "instances"), set(RAW_ASSETS)),
        REPORT: {*RAW_ASSETS, *ROLLUPS},
    }


def test_the_report_is_described_and_of_its_kind() -> None:
    assert (spec_of(REPORT).group_name, spec_of(REPORT).kinds) == ("organic_paid", {"html"})
    assert spec_of(REPORT).description


@pytest.mark.parametrize("asset", PARTITIONED)
def test_a_range_is_one_run_of_partitions_by_time(asset: str) -> None:
    definition = defs.resolve_assets_def(asset_key(asset))
    assert definition.backfill_policy == dg.BackfillPolicy.single_run()
    expected = {
        "organic_paid_weekly": dg.WeeklyPartitionsDefinition,
        "organic_paid_monthly": dg.MonthlyPartitionsDefinition,
    }
    assert type(definition.partitions_def) is expected.get(asset, dg.DailyPartitionsDefinition)


@pytest.mark.parametrize("asset", [*PARTITIONED, *WINDOWS, REPORT])
def test_its_health_is_due_at_the_due_hour(asset: str) -> None:
    policy = spec_of(asset).freshness_policy
    assert policy == dg.FreshnessPolicy.cron("0 12 * * *", lower_bound_delta=timedelta(hours=23))


def test_the_raw_assets_share_the_pool_of_the_api() -> None:
    assert {defs.resolve_assets_def(asset_key(asset)).op.pool for asset in RAW_ASSETS} == {"later_reporting_api"}


def test_the_jobs_are_three_and_start_no_process_for_a_step() -> None:
    jobs = {job.name: job for job in defs.get_repository_def().get_all_jobs() if not job.name.startswith("__")}
    assert jobs.keys() == {"later_posts", "later_checks", "later_compaction"}
    assert {job.executor_def.name for job in jobs.values()} == {"in_process"}
    assert jobs["later_posts"].asset_layer.executable_asset_keys == {asset_key(asset) for asset in RAW_ASSETS}
    assert not jobs["later_checks"].asset_layer.executable_asset_keys


def test_the_last_partition_is_yesterday() -> None:
    partitions_def = defs.resolve_assets_def(asset_key("posts_published")).partitions_def
    assert isinstance(partitions_def, dg.DailyPartitionsDefinition)
    now = datetime(2024, 3, 2, 0, 0, 1, tzinfo=UTC)
    assert partitions_def.get_partition_keys(current_time=now)[-1] == "2024-03-01"


def test_merged_into_another_project_nothing_of_its_host_is_touched() -> None:
    @dg.asset(automation_condition=dg.AutomationCondition.eager(), deps=[asset_key("posts_published")])
    def theirs() -> None: ...

    @dg.asset_check(asset=theirs, automation_condition=dg.AutomationCondition.eager())
    def theirs_is_well() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    sensor = dg.AutomationConditionSensorDefinition("theirs", target=dg.AssetSelection.assets(theirs))
    host = dg.Definitions(
        assets=[theirs],
        asset_checks=[theirs_is_well],
        executor=dg.multiprocess_executor,
        sensors=[sensor],
        resources={"io_manager": dg.mem_io_manager},
    )
    merged = dg.Definitions.merge(host, defs)
    dg.Definitions.validate_loadable(merged)
    assert merged.executor is dg.multiprocess_executor
    graph = merged.resolve_asset_graph()
    sensors = {each.name: each for each in merged.get_repository_def().sensor_defs}
    assert sensors.keys() >= {"theirs", "later_automation", "later_instances"}
    ours = sensors["later_automation"].asset_selection
    assert ours.resolve(graph) == defs.resolve_asset_graph().get_all_asset_keys()
    assert ours.resolve_checks(graph) == defs.resolve_asset_graph().asset_check_keys
    assert theirs.key not in sensors["later_automation"].asset_selection.resolve(graph)
    # All prefixed, so that they meet no name of a host.
    names = {each.name for each in [*(defs.jobs or []), *(defs.schedules or []), *(defs.sensors or [])]}
    assert all(name.startswith("later_") for name in names)
    assert {key.path[0] for key in defs.resolve_asset_graph().get_all_asset_keys()} == {"later"}
    assert all(name.startswith("later") for name in defs.resources or {})
