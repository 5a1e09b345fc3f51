"""The rules that the columns of every rolled-up table keep. docs/tables.md lists the columns themselves."""

import pytest

from later_reporting_dagster.contract import METRICS, DateBasis, Metric, metrics_named
from later_reporting_dagster.lake import POST_KEY, post_columns
from later_reporting_dagster.rollups.periods import Span
from later_reporting_dagster.rollups.rollup_columns import GRAIN, is_number_of_posts, sum_name
from later_reporting_dagster.rollups.rollup_tables import BY_CREATOR, BY_PUBLISH_DAY, BY_WINDOW, DAILY, TABLES, RolledUp

every_table = pytest.mark.parametrize("table", [table.of(METRICS) for table in TABLES], ids=lambda table: table.name)
RAW_COLUMNS = {column.name for column in post_columns(METRICS)}
KEYS = {*GRAIN, "creator_id"}
OF_PERIODS = {"window", "date_basis", "first_day", "last_day", "days", "days_expected", "previous_days"}
OF_COSTS = ("spend", "cpe", "cpm")


def name_of(metric: Metric) -> str:
    name = metric.column.removesuffix("_generated")
    return name if metric.channel == "paid" else f"organic_{name}"


@every_table
def test_each_column_is_described_and_says_how_it_is_computed_from_which_columns(table: RolledUp) -> None:
    assert table.description.endswith(".")
    assert len({column.name for column in table.columns}) == len(table.columns)
    for column in table.columns:
        assert column.description
        assert column.computed or column.name in POST_KEY, column.name
        assert bool(column.made_from) is (column.name not in OF_PERIODS), column.name
        assert {*column.made_from} <= RAW_COLUMNS


@every_table
def test_each_number_that_is_no_id_has_a_unit(table: RolledUp) -> None:
    for column in table.columns:
        is_number = column.type in ("int64", "float64") and column.name not in KEYS
        assert bool(column.unit) is is_number, column.name


@every_table
def test_each_metric_that_adds_up_has_a_sum_in_its_unit_and_a_number_of_posts(table: RolledUp) -> None:
    units = {column.name: column.unit for column in table.columns}
    for metric in METRICS:
        if metric.kind.adds_up:
            assert (units[name_of(metric)], units[f"{name_of(metric)}_posts"]) == (metric.unit, "posts")
        else:
            assert f"{sum_name(metric)}_posts" not in units


@every_table
def test_a_table_has_the_sums_of_the_selection_and_always_those_of_the_api_reference(table: RolledUp) -> None:
    (narrow,) = (each for each in TABLES if each.name == table.name)
    assert narrow.of(()) == narrow
    names = [column.name for column in narrow.columns]
    assert [column.name for column in table.columns if column.name in names] == names
    assert all(column.nullable or column in narrow.columns for column in table.columns)
    views = {column.name for column in narrow.of(metrics_named("paid_views, reach")).columns} - {*names}
    measures = {"paid_views", "paid_engagement_rate_by_views"}
    if table.span is Span.WINDOWS:
        measures |= {f"{name}_change" for name in measures}
        measures |= {f"previous_{name}" for name in measures if not name.endswith("_change")} | {
            "previous_paid_views_posts"
        }
    assert views == measures | {"paid_views_posts"}


@pytest.mark.parametrize("table", [table.of(METRICS) for table in BY_WINDOW], ids=lambda table: table.name)
def test_totals_rates_shares_and_lifts_have_a_previous_period_and_a_change(table: RolledUp) -> None:
    names = {column.name for column in table.columns}
    compared = {column.name for column in table.compared}
    assert {"posts", "paid_lift", "paid_lift_by_views", "paid_share_of_impressions", "organic_likes_posts"} <= compared
    assert not compared & {"paid_lift_low", "same_post_lift", "organic_spend_minimum", "post_campaigns"}
    assert {name for name in names if name.startswith("previous_")} == {
        "previous_days",
        *(f"previous_{name}" for name in compared),
    }
    assert {name for name in names if name.endswith("_change")} == {
        f"{name}_change" for name in compared if name == "posts" or not name.endswith("_posts")
    }


def test_a_change_is_in_percent_or_for_rates_in_points() -> None:
    units = {column.name: column.unit for column in BY_CREATOR.columns}
    assert units["organic_engagements_change"] == "percent"
    assert units["organic_engagement_rate_change"] == "percentage points"
    assert units["paid_lift_change"] == "ratio"


def test_daily_tables_begin_with_the_grain_and_only_publish_days_have_spend() -> None:
    assert tuple(column.name for column in DAILY.columns[: len(GRAIN)]) == GRAIN
    both = len(DAILY.columns)
    assert BY_PUBLISH_DAY.columns[:both] == DAILY.columns
    assert all(any(each in column.name for each in OF_COSTS) for column in BY_PUBLISH_DAY.columns[both:])
    assert not any(each in column.name for column in DAILY.columns for each in OF_COSTS)


def test_spend_is_computed_from_publish_days_only() -> None:
    names = [column.name for column in BY_CREATOR.columns_from(DateBasis.PERFORMANCE_DATE)]
    assert BY_CREATOR.columns_from(DateBasis.POST_DATE) == [*BY_CREATOR.columns]
    of_costs = {column.name for column in BY_CREATOR.columns if "null by performance_date" in column.computed}
    assert names == [column.name for column in BY_CREATOR.columns if column.name not in of_costs]
    assert of_costs == {column.name for column in BY_CREATOR.columns if any(each in column.name for each in OF_COSTS)}


@pytest.mark.parametrize("table", BY_WINDOW, ids=lambda table: table.name)
def test_a_number_of_posts_in_a_window_says_when_it_is_null(table: RolledUp) -> None:
    for column in table.columns:
        if is_number_of_posts(column.name) and not column.name.startswith("previous_"):
            assert column.nullable
            assert "null where no day of the window is there" in column.computed
