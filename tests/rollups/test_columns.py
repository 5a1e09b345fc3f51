"""The rules that the columns of every rolled-up table keep. docs/tables.md lists the columns themselves."""

import pytest

from later_reporting_dagster.contract import METRICS, DateBasis
from later_reporting_dagster.rollups.columns import GRAIN, sum_name
from later_reporting_dagster.rollups.tables import BY_CREATOR, BY_PLATFORM, BY_PUBLISH_DAY, DAILY, TABLES, RolledUp

every_table = pytest.mark.parametrize("table", [table.of(METRICS) for table in TABLES], ids=lambda table: table.name)
KEYS = {*GRAIN, "creator_id"}
OF_PERIODS = {"window", "date_basis", "first_day", "last_day"}


@every_table
def test_each_column_is_described_and_says_how_it_is_computed_from_which_columns(table: RolledUp) -> None:
    assert table.description.endswith(".")
    assert len({column.name for column in table.columns}) == len(table.columns)
    for column in table.columns:
        assert column.description
        assert column.computed or column.name in KEYS | {"first_day"}
        assert column.made_from or column.name in OF_PERIODS | {"days", "previous_days"}


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
            assert (units[sum_name(metric)], units[f"{sum_name(metric)}_posts"]) == (metric.unit, "posts")


def test_a_change_is_in_percent_or_for_rates_in_points() -> None:
    units = {column.name: column.unit for column in BY_CREATOR.columns}
    assert units["organic_engagements_change"] == "percent"
    assert units["organic_engagement_rate_change"] == "percentage points"
    assert units["paid_lift_change"] == "ratio"


def test_daily_tables_begin_with_the_grain_and_only_publish_days_have_spend() -> None:
    assert tuple(column.name for column in DAILY.columns[: len(GRAIN)]) == GRAIN
    both = len(DAILY.columns)
    assert BY_PUBLISH_DAY.columns[:both] == DAILY.columns
    spend = ("spend", "cpe", "cpm")
    assert all(any(each in column.name for each in spend) for column in BY_PUBLISH_DAY.columns[both:])
    assert not any(each in column.name for column in DAILY.columns for each in spend)


def test_spend_is_computed_from_publish_days_only() -> None:
    names = [column.name for column in BY_CREATOR.columns_from(DateBasis.PERFORMANCE_DATE)]
    assert BY_CREATOR.columns_from(DateBasis.POST_DATE) == [*BY_CREATOR.columns]
    spend = ("spend", "cpe", "cpm")
    assert names == [column.name for column in BY_CREATOR.columns if not any(each in column.name for each in spend)]


def test_a_number_of_posts_in_a_window_says_when_it_is_null() -> None:
    columns = {column.name: column for column in BY_PLATFORM.of(METRICS).columns}
    for column in (columns[f"{sum_name(metric)}_posts"] for metric in METRICS if metric.kind.adds_up):
        assert column.nullable
        assert "null where no day of the period is there" in column.computed
