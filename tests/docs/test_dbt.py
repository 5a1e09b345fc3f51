"""examples/dbt/ builds on a lake, and its models equal the tables."""

import json
import shutil
from typing import Any

import duckdb
import pytest

from later_reporting_dagster.defs.component_base import ASSET_NAMES
from later_reporting_dagster.report.report_data import REPORT
from tests.docs.conftest import ROOT, Shell

pytestmark = pytest.mark.docs

Row = dict[str, Any]


def dbt(project: Shell, arguments: str, *, before: str = "") -> str:
    """Run dbt in a project; it must succeed without a warning."""
    return project.run_process("bash", "-c", f"{before} dbt --warn-error {arguments}")


def rows(project: Shell, model: str) -> list[Row]:
    with duckdb.connect(project.directory / "later.duckdb", read_only=True) as connection:
        return connection.sql(f"FROM {model}").to_arrow_table().to_pylist()


@pytest.fixture(scope="module")
def project(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A copy of the example with the sources of a lake, built."""
    folder = shutil.copytree(ROOT / "examples" / "dbt", tmp_path_factory.mktemp("dbt") / "later-dbt")
    (folder / "models" / "sources.yml").write_text(shell.run("later-reporting dbt-sources"))
    project = Shell(folder, shell.environment)
    dbt(project, "build")
    return project


def lake_rows(shell: Shell, table: str) -> list[Row]:
    """Return the rows of a table as the command prints them, with dates and times as text."""
    rows: list[Row] = json.loads(shell.run(f"later-reporting query 'FROM {table}' --format json"))
    return rows


def test_dbt_knows_every_asset_key(project: Shell) -> None:
    sources = json.loads((project.directory / "target" / "manifest.json").read_text())["sources"].values()
    # dagster-dbt reads the key from there.
    assert {(*source["config"]["meta"]["dagster"]["asset_key"],) for source in sources} == {
        ("later", name) for name in ASSET_NAMES if name != REPORT
    }


def test_posts_model_has_each_post_once(project: Shell, shell: Shell) -> None:
    expected = {
        (f"later.{row['instance_id']}", str(row["post_id"]), row["organic_impressions"], row["paid_engagements"])
        for row in lake_rows(shell, "posts")
        if row["is_published"]
    }
    names = ("source_relation", "post_id", "impressions", "paid_engagements")
    found = [tuple(row[name] for name in names) for row in rows(project, "later__posts")]
    assert len(found) == len(expected) > 100
    assert {*found} == expected


def test_campaign_model_has_each_campaign_and_day(project: Shell, shell: Shell) -> None:
    expected = {
        (row["date"], str(row["campaign_id"]), row["paid_impressions"], row["paid_ad_spend"])
        for row in lake_rows(shell, "campaign_performance_daily")
    }
    model = rows(project, "later__campaign_report")
    found = [(str(row["date_day"]), row["campaign_id"], row["impressions"], row["spend"]) for row in model]
    assert len(found) == len(expected)
    assert {*found} == expected
    assert any(row["spend"] is None for row in model)
    assert any(row["spend"] for row in model)


def test_account_model_counts_posts_once(project: Shell, shell: Shell) -> None:
    days = lake_rows(shell, "organic_paid_daily")
    model, by_campaign = rows(project, "later__account_report"), rows(project, "later__campaign_report")
    totals = [sum(row[name] or 0 for row in model) for name in ("impressions", "spend", "conversions")]
    assert totals == pytest.approx(
        [
            sum(row["paid_impressions"] or 0 for row in days),
            sum(row["ad_spend"] or 0 for row in days),
            sum(row["conversions"] or 0 for row in by_campaign),
        ]
    )


def test_missing_lake_fails_with_the_next_step_and_keeps_the_models(project: Shell) -> None:
    printed = dbt(project, "build", before="! LATER_LAKE_ROOT=/nowhere")
    assert "/nowhere has no table coverage: set LATER_LAKE_ROOT to the full path" in " ".join(printed.split())
    assert rows(project, "later__posts")
