"""`later-reporting dbt-sources`: every table and column, and SQL that DuckDB runs on a lake without files."""

from typing import Any

import duckdb
import pytest
import yaml
from jinja2 import Template

from later_reporting_dagster.contract import METRICS
from later_reporting_dagster.lake import CAMPAIGN_COLUMNS
from later_reporting_dagster.lake.coverage import COVERAGE_COLUMNS
from later_reporting_dagster.lake.database import SQL_TYPES
from later_reporting_dagster.lake.tables import PERIODS_TABLES, RAW_TABLES
from later_reporting_dagster.quality.instances import INSTANCE_COLUMNS
from later_reporting_dagster.rollups.rollup_tables import TABLES
from tests.cli.conftest import User

EXPECTED = {
    "instances": INSTANCE_COLUMNS,
    "coverage": COVERAGE_COLUMNS,
    "campaigns": CAMPAIGN_COLUMNS,
    **{table.name: table.columns(table.by_day.known_metrics) for table in PERIODS_TABLES.values()},
    **{table.name: table.columns(table.known_metrics) for table in RAW_TABLES.values()},
    **{table.name: table.with_metrics(METRICS).columns for table in TABLES},
}


def printed(user: User) -> dict[str, Any]:
    """Return the only source."""
    result = user.run("dbt-sources")
    assert result.exit_code == 0, result.output
    (source,) = yaml.safe_load(result.stdout)["sources"]
    return source


def location(table: dict[str, Any], *, root: str) -> str:
    """Return the SQL of a table as dbt renders it."""
    sql: str = Template(table["config"]["meta"]["external_location"]).render(env_var=lambda _name: root)
    return sql


def test_sources_have_every_column_of_every_table(user: User) -> None:
    source = printed(user)
    assert source["name"] == "later"
    assert {table["name"] for table in source["tables"]} == set(EXPECTED)
    for table in source["tables"]:
        columns = {column["name"]: column for column in table["columns"]}
        day = ["date"] * ("date=*" in table["config"]["meta"]["external_location"])
        assert [*columns] == [*day, *(column.name for column in EXPECTED[table["name"]])]
        for column in EXPECTED[table["name"]]:
            assert columns[column.name]["description"].startswith(column.description)
            assert columns[column.name]["data_type"] == SQL_TYPES[column.type]
        assert table["config"]["meta"]["dagster"] == {"asset_key": ["later", table["name"]]}
        assert table["description"]


def test_sources_without_files_are_empty_with_typed_columns(user: User) -> None:
    for table in printed(user)["tables"]:
        relation = duckdb.sql(f"SELECT * FROM {location(table, root=str(user.lake))}")
        types = {column["name"]: column["data_type"] for column in table["columns"]}
        assert dict(zip(relation.columns, map(str, relation.types), strict=True)) == types
        assert relation.fetchall() == []


def test_root_may_end_with_a_slash(user: User) -> None:
    for table in printed(user)["tables"]:
        assert location(table, root="s3://bucket/lake/") == location(table, root="s3://bucket/lake")
        assert "'s3://bucket/lake/" in location(table, root="s3://bucket/lake/")


def test_sources_are_those_of_the_selected_tables_and_the_key_prefix(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"NAME": "acme", "KEY_PREFIX": "raw,later", "TABLES": "posts_published,instances"}.items():
        monkeypatch.setenv(f"LATER_{name}", value)
    source = printed(user)
    posts, instances = sorted(source["tables"], key=lambda table: -len(table["name"]))
    assert (source["name"], posts["name"], instances["name"]) == ("acme", "posts_published", "instances")
    assert posts["config"]["meta"]["dagster"]["asset_key"] == ["raw", "later", "posts_published"]
    assert 'env_var("ACME_LAKE_ROOT")' in posts["config"]["meta"]["external_location"]
    assert "freshness" not in posts["config"]  # there is no table coverage
