"""Rules for the columns and the periods of every rollup table. docs/tables.md lists the columns themselves."""

from datetime import date

import pytest

from later_reporting_dagster.contract import METRICS, parse_metrics
from later_reporting_dagster.lake import CAMPAIGN_COLUMNS, post_columns
from later_reporting_dagster.lake.tables import CAMPAIGN_PERIODS, POST_KEY
from later_reporting_dagster.rollups.rollup_tables import POST_TABLES, TABLES, Cadence, Measures, RollupTable, days_of

SUMS = [table.with_metrics(METRICS) for table in TABLES if table not in POST_TABLES]
every_table = pytest.mark.parametrize("table", SUMS, ids=lambda table: table.name)
POSTS = {column.name for column in post_columns(METRICS)}
SOURCES = {
    "post_metrics_daily": POSTS,
    "posts_published": POSTS,
    "campaigns": {column.name for column in CAMPAIGN_COLUMNS},
    "campaign_performance_periods": {column.name for column in CAMPAIGN_PERIODS.columns},
}
PERIOD_COLUMNS = {"time_window", "first_day", "last_day", "days", "days_expected", "previous_days"}


def test_tables_with_default_metrics_have_at_most_45_columns() -> None:
    assert max(len(table.columns) for table in TABLES) <= 45


@every_table
def test_columns_name_the_columns_that_they_are_computed_from(table: RollupTable) -> None:
    sources = {name for source in table.sources for name in SOURCES[source]}
    assert {name for column in table.columns for name in column.source_columns} <= sources
    for column in table.columns:
        assert column.computation or column.name in POST_KEY, column.name
        is_computed = column.name not in PERIOD_COLUMNS or table.measures is Measures.CAMPAIGNS
        assert bool(column.source_columns) is is_computed, column.name


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


@pytest.mark.parametrize(("period", "first_day"), [(Cadence.WEEK, date(2024, 3, 5)), (Cadence.MONTH, date(2024, 3, 2))])
def test_days_of_rejects_a_day_on_which_no_period_begins(period: Cadence, first_day: date) -> None:
    with pytest.raises(ValueError, match=f"no {period} begins on {first_day}"):
        days_of(period, first_day)
