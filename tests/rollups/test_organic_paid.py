import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import page_from_body
from later_reporting_dagster.lake.schema import POSTS_SCHEMA, posts_table, schema_of
from later_reporting_dagster.rollups.columns import GRAIN
from later_reporting_dagster.rollups.periods import organic_paid
from later_reporting_dagster.rollups.reconciliation import totals_that_differ
from later_reporting_dagster.rollups.tables import BY_PUBLISH_DAY, DAILY, RolledUp
from tests.rollups.conftest import ROWS, Row, posts_of, row
from tests.rollups.reference import close_to, rolled_up

both_tables = pytest.mark.parametrize("table", [DAILY, BY_PUBLISH_DAY], ids=lambda table: table.name)


def one(*rows: Row) -> Row:
    (group,) = organic_paid(posts_of(*rows), BY_PUBLISH_DAY).to_pylist()
    return group


@given(ROWS)
def test_both_tables_are_what_the_plain_reference_says(rows: list[Row]) -> None:
    expected = rolled_up(rows)
    for table in (DAILY, BY_PUBLISH_DAY):
        schema, found = schema_of(table.columns), organic_paid(posts_of(*rows), table)
        assert found.schema.equals(schema, check_metadata=True)
        found.validate(full=True)
        assert found.to_pylist() == [{name: close_to(group[name]) for name in schema.names} for group in expected]
        assert totals_that_differ(posts_of(*rows), found) == []


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_posts_and_their_chunks_change_no_bit(rows: list[Row], chance: random.Random) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)
    cut = chance.randint(0, len(rows))
    chunked = pa.concat_tables([posts_of(*shuffled[:cut]), posts_of(*shuffled[cut:])])
    for table in (DAILY, BY_PUBLISH_DAY):
        assert organic_paid(chunked, table).equals(organic_paid(posts_of(*rows), table))


@both_tables
def test_no_posts_are_a_table_of_the_schema_with_no_rows(table: RolledUp) -> None:
    empty = schema_of(table.columns).empty_table()
    assert organic_paid(POSTS_SCHEMA.empty_table(), table).equals(empty)
    assert totals_that_differ(POSTS_SCHEMA.empty_table(), empty) == []


@both_tables
def test_only_the_instance_and_the_campaign_and_numbers_of_posts_are_never_null(table: RolledUp) -> None:
    schema = schema_of(table.columns)
    (group,) = organic_paid(posts_of(row(platform=None, content_type=None)), table).to_pylist()
    never_null = {name for name in schema.names if name.endswith("posts")} | {"instance_id", "campaign_id"}
    assert {name for name, value in group.items() if value is not None} == never_null
    assert {field.name for field in schema if not field.nullable} == never_null


def test_the_documents_own_post() -> None:
    sample = Path(__file__).parent.parent / "samples" / "post_performance" / "200.json"
    posts = posts_table(page_from_body(sample.read_bytes()).posts)
    (group,) = organic_paid(posts, BY_PUBLISH_DAY).to_pylist()
    assert (group["platform"], group["content_type"], group["posts"]) == ("instagram", "instagram_post", 1)
    assert round(group["organic_engagement_rate"], 2) == 14.59
    assert round(group["paid_engagement_rate"], 2) == 7.31
    assert group["organic_estimated_value"] == 3200
    assert (group["organic_spend_minimum"], group["organic_spend_maximum"]) == (299.9225, 300.0075)
    assert (group["paid_spend_minimum"], group["paid_spend_maximum"]) == (299.962, 300.014)
    assert group["organic_cpe_minimum"] <= 0.2419 <= group["organic_cpe_maximum"]
    assert group["paid_cpm_minimum"] <= 57.69 <= group["paid_cpm_maximum"]


def test_a_rate_is_of_sums_and_never_a_mean_of_rates() -> None:
    group = one(row(engagements=1, impressions=1, engagement_rate=100.0), row(engagements=0, impressions=99))
    assert group["organic_engagement_rate"] == 1.0


def test_a_coarser_grain_recomputes_from_the_posts_and_leaves_out_what_is_not_grouped_by() -> None:
    posts = posts_of(row(engagements=1, impressions=1), row(campaign_id=2, engagements=0, impressions=99))
    table = organic_paid(posts, DAILY, grain=["platform"])
    assert {column.name for column in DAILY.columns} - set(table.column_names) == set(GRAIN) - {"platform"}
    (group,) = table.to_pylist()
    assert (group["platform"], group["posts"], group["organic_engagement_rate"]) == ("tiktok", 2, 1.0)


def test_columns_that_are_not_used_may_be_missing() -> None:
    posts = posts_of(row(impressions=5, cpm=1.0))
    lean = posts.drop_columns([name for name in posts.column_names if name.startswith("creator") or "url" in name])
    assert organic_paid(lean, BY_PUBLISH_DAY).equals(organic_paid(posts, BY_PUBLISH_DAY))


def altered(table: pa.Table, name: str, value: object) -> pa.Table:
    field = table.schema.field(name)
    return table.set_column(table.schema.get_field_index(name), field, pa.array([value], field.type))


@pytest.mark.parametrize(
    ("name", "in_the_posts", "value", "in_the_rollup"),
    [
        ("posts", "2", 3, "3"),
        ("organic_impressions", "11", 12, "12"),
        ("organic_impressions", "11", None, "not available"),
        ("paid_impressions", "not available", 0, "0"),
        ("organic_impressions_posts", "2", 1, "1"),
        ("organic_estimated_value", "3.75", 3.76, "3.76"),
        ("organic_estimated_value", "3.75", None, "not available"),
    ],
)
def test_each_total_that_differs_is_told_in_a_sentence(
    name: str, in_the_posts: str, value: object, in_the_rollup: str
) -> None:
    posts = posts_of(
        row(impressions=5, estimated_value_generated=1.5), row(impressions=6, estimated_value_generated=2.25)
    )
    rollup = organic_paid(posts, DAILY)
    sentence = f"{name} is {in_the_posts} in the posts and {in_the_rollup} in the rollup"
    assert totals_that_differ(posts, altered(rollup, name, value)) == [sentence]


@pytest.mark.parametrize(
    ("value", "difference", "is_told"),
    [
        (1.0, 2.5e-6, False),  # of two posts, each rounded to the millionth
        (1.0, 3.5e-6, True),
        (1e9, 1.5e-3, False),  # the last digits of a float that large
        (1e9, 3e-3, True),
    ],
)
def test_money_may_differ_by_what_rounding_comes_to(value: float, difference: float, is_told: bool) -> None:
    posts = posts_of(row(estimated_value_generated=value), row(estimated_value_generated=value))
    rollup = altered(organic_paid(posts, DAILY), "organic_estimated_value", 2 * value + difference)
    assert bool(totals_that_differ(posts, rollup)) is is_told


def test_a_group_that_is_missing_is_told() -> None:
    posts = posts_of(row(impressions=5), row(impressions=6, campaign_id=2))
    assert totals_that_differ(posts, organic_paid(posts, DAILY).slice(1)) == [
        "posts is 2 in the posts and 1 in the rollup",
        "organic_impressions is 11 in the posts and 6 in the rollup",
        "organic_impressions_posts is 2 in the posts and 1 in the rollup",
    ]


def test_totals_are_compared_exactly_even_where_64_bits_end() -> None:
    posts = posts_of(row(impressions=2**63 - 1), row(impressions=2**63 - 1, campaign_id=2))
    rollup = organic_paid(posts, DAILY)
    assert totals_that_differ(posts, rollup) == []
    assert totals_that_differ(posts_of(row(impressions=2**63 - 2), row(impressions=2**63 - 1)), rollup) == [
        f"organic_impressions is {2**64 - 3} in the posts and {2**64 - 2} in the rollup"
    ]
