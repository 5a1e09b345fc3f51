"""Rollups sum whatever counts, money and time there are, organic beside paid, and never what does not add up."""

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, DateBasis, Metric, metrics_named
from later_reporting_dagster.lake import posts_schema, schema_of
from later_reporting_dagster.rollups.periods import Landed, organic_paid, organic_paid_by, rows_schema
from later_reporting_dagster.rollups.reconciliation import totals_that_differ, window_totals_that_differ
from later_reporting_dagster.rollups.tables import BY_CAMPAIGN, BY_PUBLISH_DAY, DAILY, TABLES, WEEKLY, RolledUp

DAY = date(2024, 1, 3)
PAIRED = ("likes", "comments", "shares", "saves", "views")
FURTHER = [metric for metric in METRICS if metric not in DOCUMENT_METRICS]


def posts_of(*rows: dict[str, Any], metrics: tuple[Metric, ...] = METRICS) -> pa.Table:
    identity = {
        "instance_id": "a",
        "campaign_id": 1,
        "platform": "tiktok",
        "content_type": "tiktok",
        "post_date": datetime(2024, 1, 3, tzinfo=UTC),
    }
    given_rows = [{"post_id": number, **identity, **row} for number, row in enumerate(rows)]
    return pa.Table.from_pylist(given_rows, schema=posts_schema((*DOCUMENT_METRICS, *metrics[len(DOCUMENT_METRICS) :])))


def name_of(metric: Metric) -> str:
    return metric.column if metric.channel == "paid" else f"organic_{metric.column}"


def test_each_that_adds_up_is_summed_beside_the_other_channel_with_its_number_of_posts() -> None:
    rows = [
        {metric.column: (number + 1) * 10 for metric in FURTHER if number or metric.column != "paid_likes"}
        for number in range(3)
    ]
    (row,) = organic_paid(posts_of(*rows), DAILY).to_pylist()
    for metric in FURTHER:
        if metric.kind.adds_up:
            some = 50 if metric.column == "paid_likes" else 60
            assert (row[name_of(metric)], row[f"{name_of(metric)}_posts"]) == (some, 2 if some == 50 else 3)
        else:
            assert not [name for name in row if metric.column in name.removesuffix("_posts").split("organic_")]
    names = list(row)
    for measure in PAIRED:
        first = names.index(f"organic_{measure}")
        assert names[first : first + 4] == [
            f"organic_{measure}",
            f"paid_{measure}",
            f"organic_{measure}_posts",
            f"paid_{measure}_posts",
        ]
    assert not [name for name in names if "reach" in name or "followers" in name or "watch_time" in name]


def test_nothing_available_is_null_and_a_measured_zero_is_0() -> None:
    (row,) = organic_paid(posts_of({"likes": 0}, {}), DAILY).to_pylist()
    assert (row["organic_likes"], row["organic_likes_posts"]) == (0, 1)
    assert (row["paid_likes"], row["paid_likes_posts"]) == (None, 0)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_has_the_sums_of_the_selection_and_always_the_documents(table: RolledUp) -> None:
    assert table.of(DOCUMENT_METRICS) == table == table.of(())
    names = [column.name for column in table.columns]
    wide = [column.name for column in table.of(METRICS).columns]
    assert [name for name in wide if name in names] == names
    added = {name for name in wide if name not in names}
    sums = {name_of(metric) for metric in FURTHER if metric.kind.adds_up}
    assert {name for name in added if not name.startswith("previous_")} - {f"{name}_change" for name in sums} == {
        *sums,
        *(f"{name}_posts" for name in sums),
    }
    narrow = table.of(metrics_named("paid_views, reach"))
    assert {column.name for column in narrow.columns} - {*names} <= {
        *("paid_views", "paid_views_posts", "paid_views_change", "previous_paid_views", "previous_paid_views_posts")
    }


selections = st.lists(st.sampled_from(FURTHER), max_size=4, unique=True).map(
    lambda chosen: (*DOCUMENT_METRICS, *(metric for metric in FURTHER if metric in chosen))
)
values = st.none() | st.integers(0, 1000)


@given(selections, st.data())
def test_any_selection_gives_the_columns_of_its_dictionary_and_reconciles(
    metrics: tuple[Metric, ...], data: st.DataObject
) -> None:
    row = st.fixed_dictionaries({metric.column: values for metric in metrics})
    posts = posts_of(*data.draw(st.lists(row, max_size=4)), metrics=metrics)
    for table in (DAILY, BY_PUBLISH_DAY, WEEKLY):
        rollup = organic_paid(posts, table)
        assert rollup.schema.equals(schema_of(table.of(metrics).columns))
        assert totals_that_differ(posts, rollup) == []


def test_a_rollup_is_held_against_what_was_asked_for_when_it_was_made() -> None:
    posts = posts_of({"impressions": 5, "likes": 3}, {"likes": 4})
    narrow = posts.select(posts_schema(DOCUMENT_METRICS).names)
    assert totals_that_differ(posts, organic_paid(narrow, DAILY)) == []
    assert totals_that_differ(narrow, organic_paid(posts, DAILY)) == []
    wrong = organic_paid(posts_of({"impressions": 5, "likes": 3}, {"likes": 5}), DAILY)
    assert totals_that_differ(posts, wrong) == ["organic_likes is 7 in the posts and 8 in the rollup"]


def test_windows_have_the_sums_of_the_selection_of_the_period_before_and_how_they_changed() -> None:
    table = BY_CAMPAIGN.of(metrics_named("likes, paid_likes, reach"))
    schema = rows_schema(table, dated=True)
    assert "likes" in schema.names
    assert "reach" not in schema.names
    days = [date(2024, 1, day) for day in range(1, 15)]
    rows = posts_of(*({"likes": 1 if day < days[7] else 3, "post_id": 1} for day in days))
    dated = rows.append_column("date", pa.array(days, pa.date32())).select(schema.names)
    landed = {DateBasis.PERFORMANCE_DATE: Landed(dated, {"a": days})}
    (found,) = organic_paid_by(landed, tables=[table]).values()
    assert found.schema.equals(schema_of(table.columns))
    (week,) = [row for row in found.to_pylist() if row["window"] == "7d"]
    assert (week["organic_likes"], week["previous_organic_likes"], week["organic_likes_change"]) == (21, 7, 200.0)
    assert (week["organic_likes_posts"], week["paid_likes"], week["paid_likes_posts"]) == (1, None, 0)
    assert window_totals_that_differ(landed, {table.name: found}, tables=[table]) == {table.name: []}


def test_what_was_rolled_up_with_fewer_metrics_reads_as_one_table_with_what_has_more() -> None:
    for table in TABLES:
        for column in table.of(METRICS).columns:
            assert column.nullable or column in table.columns
