"""The code location: loads with nothing set and nobody to talk to, and shows what the lake and the rollups hold."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from later_reporting_dagster.definitions import defs
from later_reporting_dagster.lake import POSTS_SCHEMA, schema_of
from later_reporting_dagster.rollups import TABLES
from tests.defs.conftest import RAW_ASSETS, ROLLUPS, SPANS, WINDOWS, asset_key

REPOSITORY = Path(__file__).parents[2]
SCHEMAS = {
    "post_metrics_daily": POSTS_SCHEMA,
    "posts_published": POSTS_SCHEMA,
    **{table.name: schema_of(table.columns) for table in TABLES},
}
GROUPS = dict.fromkeys(SCHEMAS, "organic_paid") | dict.fromkeys(RAW_ASSETS, "posts")

SOURCES = {
    "organic_paid_daily": {"post_metrics_daily"},
    "organic_paid_by_publish_day": {"posts_published"},
    **dict.fromkeys(SPANS, {"post_metrics_daily"}),
    **dict.fromkeys(WINDOWS, {"post_metrics_daily", "posts_published"}),
}

LOAD_IN_SILENCE = """
import socket

class Forbidden(socket.socket):
    def connect(self, *_): raise AssertionError("a connection at load")
    def bind(self, *_): raise AssertionError("a server at load")

def forbidden(*_args, **_options): raise AssertionError("a look-up at load")

socket.socket, socket.getaddrinfo, socket.create_connection = Forbidden, forbidden, forbidden

import dagster as dg
from later_reporting_dagster.definitions import defs

dg.Definitions.validate_loadable(defs)
import sys

heavy = {"httpx", "pandas", "rich", "vl_convert"} & set(sys.modules)
assert not heavy, f"what a load has no need of: {heavy}"
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
        timeout=60,
        check=False,
    )


def test_they_load_with_nothing_set_and_nobody_to_talk_to(tmp_path: Path) -> None:
    result = loaded({}, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == sorted(f"later/{asset}" for asset in (*SCHEMAS, "organic_paid_report"))
    assert result.stderr == ""
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_wrong_setting_is_named_at_the_end_of_what_is_said(tmp_path: Path) -> None:
    result = loaded({"LATER_START_DATE": "last spring"}, tmp_path)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "ValueError: LATER_START_DATE is a day as YYYY-MM-DD, not 'last spring'"


@pytest.mark.parametrize("asset", SCHEMAS)
def test_the_ui_shows_the_columns_that_the_lake_has(asset: str) -> None:
    spec = defs.resolve_assets_def(asset_key(asset)).specs_by_key[asset_key(asset)]
    shown = spec.metadata["dagster/column_schema"]
    schema = shown.value if isinstance(shown, dg.TableSchemaMetadataValue) else shown
    assert [(column.name, column.type, column.constraints.nullable) for column in schema.columns] == [
        (field.name, str(field.type).replace("double", "float64"), field.nullable) for field in SCHEMAS[asset]
    ]
    assert all(column.description for column in schema.columns)


@pytest.mark.parametrize("asset", SCHEMAS)
def test_assets_are_grouped_described_and_of_a_kind(asset: str) -> None:
    spec = defs.resolve_assets_def(asset_key(asset)).specs_by_key[asset_key(asset)]
    assert spec.group_name == GROUPS[asset]
    assert spec.kinds == {"parquet"}
    assert spec.description
    assert spec.owners == []
    assert spec.tags["later/layer"] == ("raw" if asset in RAW_ASSETS else "rollup")


@pytest.mark.parametrize("asset", SCHEMAS)
def test_each_table_leads_to_its_dictionary(asset: str) -> None:
    metadata = defs.resolve_assets_def(asset_key(asset)).specs_by_key[asset_key(asset)].metadata
    document, _, heading = metadata["documentation"].value.partition("#")
    assert f"`{heading}`" in (REPOSITORY / document).read_text()
    told = metadata["dictionary"].value.splitlines()
    assert [line.split("`")[1] for line in told[2:]] == SCHEMAS[asset].names


@pytest.mark.parametrize("asset", [asset for asset in SCHEMAS if asset not in RAW_ASSETS])
def test_each_column_tells_the_raw_columns_that_it_is_made_from(asset: str) -> None:
    """They are columns of the raw tables that the asset is made from, and every number has some."""
    metadata = defs.resolve_assets_def(asset_key(asset)).specs_by_key[asset_key(asset)].metadata
    shown = metadata["dagster/column_lineage"]
    lineage = shown.value if isinstance(shown, dg.TableColumnLineageMetadataValue) else shown
    assert lineage.deps_by_column.keys() <= set(SCHEMAS[asset].names)
    without = {"window", "date_basis", "first_day", "last_day", "days", "previous_days"}
    assert set(SCHEMAS[asset].names) - lineage.deps_by_column.keys() == without & set(SCHEMAS[asset].names)
    assert {dep.asset_key.path[-1] for deps in lineage.deps_by_column.values() for dep in deps} == SOURCES[asset]
    for name, deps in lineage.deps_by_column.items():
        assert {dep.column_name for dep in deps} <= set(POSTS_SCHEMA.names)
        assert {dep.asset_key.path[-1] for dep in deps} <= SOURCES[asset]
        if "spend" in name or "_cp" in name:
            assert {dep.asset_key.path[-1] for dep in deps} == {"posts_published"}
            assert {dep.column_name.removeprefix("paid_") for dep in deps} == {
                *("cpe", "engagements", "cpm", "impressions")
            }
    impressions = {dep.column_name for dep in lineage.deps_by_column["organic_impressions"]}
    assert impressions == {"impressions"}
    assert {dep.column_name for dep in lineage.deps_by_column["paid_lift"]} == {
        *("impressions", "engagements", "paid_impressions", "paid_engagements")
    }


def test_each_rollup_comes_from_its_raw_table() -> None:
    graph = defs.resolve_asset_graph()
    assert {
        key.path[-1]: {parent.path[-1] for parent in graph.get(key).parent_keys} for key in graph.get_all_asset_keys()
    } == {
        "post_metrics_daily": set(),
        "posts_published": set(),
        "organic_paid_daily": {"post_metrics_daily"},
        "organic_paid_by_publish_day": {"posts_published"},
        "organic_paid_weekly": {"organic_paid_daily"},
        "organic_paid_monthly": {"organic_paid_daily"},
        **dict.fromkeys(WINDOWS, {"post_metrics_daily", "posts_published"}),
        "organic_paid_report": {*RAW_ASSETS, *ROLLUPS},
    }


def test_the_report_is_described_and_of_its_kind() -> None:
    spec = defs.resolve_assets_def(asset_key("organic_paid_report")).specs_by_key[asset_key("organic_paid_report")]
    assert (spec.group_name, spec.kinds) == ("organic_paid", {"html"})
    assert spec.description


@pytest.mark.parametrize("asset", [*RAW_ASSETS, *ROLLUPS, *SPANS])
def test_a_range_is_one_run(asset: str) -> None:
    definition = defs.resolve_assets_def(asset_key(asset))
    assert definition.backfill_policy == dg.BackfillPolicy.single_run()


def test_the_jobs_and_their_assets() -> None:
    names = ["later_posts", "later_organic_paid", "later_report", "later_checks", "later_organic_paid_by_window"]
    names += [f"later_{asset}" for asset in SPANS]
    jobs = {name: defs.resolve_job_def(name) for name in names}
    assert {name: {key.path[-1] for key in job.asset_layer.executable_asset_keys} for name, job in jobs.items()} == {
        "later_posts": {"post_metrics_daily", "posts_published"},
        "later_organic_paid": {"organic_paid_daily", "organic_paid_by_publish_day"},
        **{f"later_{asset}": {asset} for asset in SPANS},
        "later_organic_paid_by_window": set(WINDOWS),
        "later_report": {"organic_paid_report"},
        "later_checks": set(),
    }


def test_a_step_costs_no_process_of_its_own() -> None:
    assert defs.resolve_job_def("later_posts").executor_def.name == "in_process"
