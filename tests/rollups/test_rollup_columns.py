"""Rules for the columns of every rollup table. docs/tables.md lists the columns themselves."""

import pytest

from later_reporting_dagster.contract import CAMPAIGN_METRICS, METRICS, DateBasis, Metric, parse_metrics
from later_reporting_dagster.lake import CAMPAIGN_COLUMNS, POST_KEY, campaign_performance_columns, post_columns
from later_reporting_dagster.rollups.periods import Period
from later_reporting_dagster.rollups.rollup_columns import GRAIN, is_post_count, sum_name
from later_reporting_dagster.rollups.rollup_tables import (
    BY_CAMPAIGN,
    BY_CREATOR,
    BY_PUBLISH_DAY,
    DAILY,
    TABLES,
    WINDOW_TABLES,
    RollupTable,
)

every_table = pytest.mark.parametrize(
    "table", [table.with_metrics(METRICS) for table in TABLES], ids=lambda table: table.name
)
RAW_COLUMNS = {column.name for column in post_columns(METRICS)}
CAMPAIGN_TABLES = {
    "campaigns": {column.name for column in CAMPAIGN_COLUMNS},
    "campaign_performance_daily": {column.name for column in campaign_performance_columns(CAMPAIGN_METRICS)},
}
KEYS = {*GRAIN, "creator_id"}
PERIOD_COLUMNS = {
    "window",
    "date_basis",
    "first_day",
    "last_day",
    "days",
    "days_expected",
    "previous_days",
    "campaign_days",
}
COST_WORDS = ("spend", "cpe", "cpm")


def expected_sum_name(metric: Metric) -> str:
    name = metric.column.removesuffix("_generated")
    return name if metric.channel == "paid" else f"organic_{name}"


@every_table
def test_columns_have_a_description_a_computation_and_sources(table: RollupTable) -> None:
    assert table.description.endswith(".")
    assert len({column.name for column in table.columns}) == len(table.columns)
    sources = {
        column.name: CAMPAIGN_TABLES[source]
        for source, columns in table.columns_from_campaigns.items()
        for column in columns
    }
    for column in table.columns:
        assert column.description
        assert column.computation or column.name in POST_KEY, column.name
        assert bool(column.source_columns) is (column.name not in PERIOD_COLUMNS), column.name
        assert {*column.source_columns} <= sources.get(column.name, RAW_COLUMNS)


@every_table
def test_columns_have_a_unit_if_they_are_numbers_and_not_ids(table: RollupTable) -> None:
    for column in table.columns:
        is_number = column.type in ("int64", "float64") and column.name not in KEYS
        assert bool(column.unit) is is_number, column.name


@every_table
def test_columns_have_a_sum_and_a_post_count_of_each_additive_metric(table: RollupTable) -> None:
    units = {column.name: column.unit for column in table.columns}
    for metric in METRICS:
        if metric.kind.is_additive:
            assert (units[expected_sum_name(metric)], units[f"{expected_sum_name(metric)}_posts"]) == (
                metric.unit,
                "posts",
            )
        else:
            assert f"{sum_name(metric)}_posts" not in units


@every_table
def test_with_metrics_adds_sums_to_those_of_the_api_reference(table: RollupTable) -> None:
    (narrow,) = (each for each in TABLES if each.name == table.name)
    assert narrow.with_metrics(()) == narrow
    names = [column.name for column in narrow.columns]
    assert [column.name for column in table.columns if column.name in names] == names
    assert all(column.nullable or column in narrow.columns for column in table.columns)
    views = {column.name for column in narrow.with_metrics(parse_metrics("paid_views, reach")).columns} - {*names}
    measures = {"paid_views", "paid_engagement_rate_by_views"}
    if table.period is Period.WINDOWS:
        measures |= {f"{name}_change" for name in measures}
        measures |= {f"previous_{name}" for name in measures if not name.endswith("_change")} | {
            "previous_paid_views_posts"
        }
    assert views == measures | {"paid_views_posts"}


@pytest.mark.parametrize(
    "table", [table.with_metrics(METRICS) for table in WINDOW_TABLES], ids=lambda table: table.name
)
def test_compared_measures_have_a_previous_value_and_a_change(table: RollupTable) -> None:
    names = {column.name for column in table.columns}
    compared = {column.name for column in table.compared_with_previous}
    assert {"posts", "paid_lift", "paid_lift_by_views", "paid_share_of_impressions", "organic_likes_posts"} <= compared
    assert not compared & {"paid_lift_low", "same_post_lift", "organic_spend_minimum", "post_campaigns"}
    assert {name for name in names if name.startswith("previous_")} == {
        "previous_days",
        *(f"previous_{name}" for name in compared),
    }
    assert {name for name in names if name.endswith("_change")} == {
        f"{name}_change" for name in compared if name == "posts" or not name.endswith("_posts")
    }


def test_changes_are_in_percent_and_those_of_rates_in_points() -> None:
    units = {column.name: column.unit for column in BY_CREATOR.columns}
    assert units["organic_engagements_change"] == "percent"
    assert units["organic_engagement_rate_change"] == "percentage points"
    assert units["paid_lift_change"] == "ratio"


def test_day_tables_begin_with_the_grain_and_only_publish_days_have_spend() -> None:
    assert tuple(column.name for column in DAILY.columns[: len(GRAIN)]) == GRAIN
    both = len(DAILY.columns)
    assert BY_PUBLISH_DAY.columns[:both] == DAILY.columns
    assert all(any(each in column.name for each in COST_WORDS) for column in BY_PUBLISH_DAY.columns[both:])
    assert not any(each in column.name for column in DAILY.columns for each in COST_WORDS)


def test_columns_from_leaves_spend_out_by_performance_date() -> None:
    names = [column.name for column in BY_CREATOR.columns_from(DateBasis.PERFORMANCE_DATE)]
    assert BY_CREATOR.columns_from(DateBasis.POST_DATE) == [*BY_CREATOR.columns]
    cost_columns = {column.name for column in BY_CREATOR.columns if "null by performance_date" in column.computation}
    assert names == [column.name for column in BY_CREATOR.columns if column.name not in cost_columns]
    assert cost_columns == {
        column.name for column in BY_CREATOR.columns if any(each in column.name for each in COST_WORDS)
    }


@pytest.mark.parametrize("table", WINDOW_TABLES, ids=lambda table: table.name)
def test_post_counts_of_windows_document_when_they_are_null(table: RollupTable) -> None:
    for column in table.columns:
        if is_post_count(column.name) and not column.name.startswith("previous_"):
            assert column.nullable
            assert "null if no day of the window has a file" in column.computation


def test_only_the_table_by_campaign_has_columns_from_the_tables_of_campaigns() -> None:
    assert [table.name for table in TABLES if table.columns_from_campaigns] == [BY_CAMPAIGN.name]
    made = [column for columns in BY_CAMPAIGN.columns_from_campaigns.values() for column in columns]
    assert [column.name for column in made[:3]] == ["campaign_name", "campaign_status", "campaign_days"]
    assert all(column.nullable for column in made)
    from_posts = BY_CAMPAIGN.columns_from(DateBasis.POST_DATE)
    assert {*from_posts} | {*made} == {*BY_CAMPAIGN.columns}
    assert not {*from_posts} & {*made}
