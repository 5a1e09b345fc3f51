"""Rules for the columns of every rollup table. docs/tables.md lists the columns themselves."""

import pytest

from later_reporting_dagster.contract import CAMPAIGN_METRICS, METRICS, parse_metrics
from later_reporting_dagster.lake import CAMPAIGN_COLUMNS, POST_KEY, campaign_performance_columns, post_columns
from later_reporting_dagster.rollups.rollup_columns import GRAIN, PREVIOUS, is_post_count
from later_reporting_dagster.rollups.rollup_tables import POST_TABLES, TABLES, Measures, RollupTable

SUMS = [table.with_metrics(METRICS) for table in TABLES if table not in POST_TABLES]
every_table = pytest.mark.parametrize("table", SUMS, ids=lambda table: table.name)
comparisons = pytest.mark.parametrize(
    "table", [table for table in SUMS if table.measures is Measures.COMPARISON], ids=lambda table: table.name
)
POSTS = {column.name for column in post_columns(METRICS)}
SOURCES = {
    "post_metrics_daily": POSTS,
    "posts_published": POSTS,
    "campaigns": {column.name for column in CAMPAIGN_COLUMNS},
    "campaign_performance_daily": {column.name for column in campaign_performance_columns(CAMPAIGN_METRICS)},
}
KEYS = {*GRAIN, "creator_id"}
PERIOD_COLUMNS = {"time_window", "first_day", "last_day", "days", "days_expected", "previous_days"}
MAX_COLUMNS = 45


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_tables_with_default_metrics_have_at_most_45_columns(table: RollupTable) -> None:
    assert len(table.columns) <= MAX_COLUMNS


@every_table
def test_columns_have_a_description_a_computation_and_sources(table: RollupTable) -> None:
    assert table.description.endswith(".")
    assert len({column.name for column in table.columns}) == len(table.columns)
    assert {column for columns in table.sources.values() for column in columns} == {*table.columns}
    for source, columns in table.sources.items():
        for column in columns:
            assert {*column.source_columns} <= SOURCES[source]
    for column in table.columns:
        assert column.description
        assert column.computation or column.name in POST_KEY, column.name
        assert bool(column.source_columns) is (column.name not in PERIOD_COLUMNS), column.name


@every_table
def test_with_metrics_adds_sums_to_those_of_the_api_reference(table: RollupTable) -> None:
    (narrow,) = (each for each in TABLES if each.name == table.name)
    assert narrow.with_metrics(()) == narrow
    names = [column.name for column in narrow.columns]
    assert [column.name for column in table.columns if column.name in names] == names
    assert all(column.nullable or column in narrow.columns for column in table.columns)
    added = {column.name for column in narrow.with_metrics(parse_metrics("paid_views, reach")).columns} - {*names}
    views = {"paid_views", "paid_views_posts", "paid_engagement_rate_by_views"}
    assert added == (views if table.measures is Measures.COMPARISON else set())


@comparisons
def test_only_windows_have_a_previous_period_and_only_some_have_intervals(table: RollupTable) -> None:
    names = {column.name for column in table.columns}
    previous = {"previous_days", *(f"previous_{name}" for name in PREVIOUS)} if "time_window" in names else set()
    assert {name for name in names if name.startswith("previous_")} == previous
    assert table.has_intervals is ("paid_lift_low" in names) is ("same_post_lift_verdict" in names)
    for column in table.columns:
        if previous and is_post_count(column.name) and not column.name.startswith("previous_"):
            assert column.nullable
            assert "null if no day of the window has a file" in column.computation
