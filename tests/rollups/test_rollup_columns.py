"""Rules for the columns of every rollup table. docs/tables.md lists the columns themselves."""

import pytest

from later_reporting_dagster.contract import METRICS, parse_metrics
from later_reporting_dagster.rollups.rollup_tables import TABLES, RollupTable

every_table = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)


@every_table
def test_with_metrics_adds_columns_to_those_of_the_api_reference(table: RollupTable) -> None:
    assert table.with_metrics(()) == table
    names = [column.name for column in table.columns]
    wide = table.with_metrics(METRICS).columns
    assert [column.name for column in wide if column.name in names] == names
    assert all(column.nullable or column in table.columns for column in wide)
    added = {column.name for column in table.with_metrics(parse_metrics("paid_views, reach")).columns} - {*names}
    views = {f"paid_{name}" for name in ("views", "views_posts", "rate_by_views_engagements", "rate_by_views_views",
        "rate_by_views_posts", "engagement_rate_by_views")}  # fmt: skip
    of_posts = {"paid_views", "paid_engagement_rate_by_views"}
    has_sums, is_of_posts = "paid_impressions_posts" in names, "post_id" in table.key
    assert added == (views if has_sums else of_posts if is_of_posts else set())
