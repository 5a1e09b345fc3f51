from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import (
    DOCUMENT_METRICS,
    METRICS,
    CreatorProfile,
    Metric,
    Post,
    page_from_body,
    post_type,
)
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.lake import POST_COLUMNS, POST_KEY, POSTS_SCHEMA, posts_schema, posts_table, posts_tables
from tests.lake.conftest import post

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=8)

posts = st.builds(
    Post,
    instance_id=TEXT,
    campaign_id=INT64,
    post_id=INT64,
    post_date=st.datetimes(
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7))]),
        min_value=datetime(2, 1, 1),  # noqa: DTZ001
        max_value=datetime(9999, 1, 1),  # noqa: DTZ001
    ),
    creator_id=st.none() | INT64,
    content_type=st.none() | st.sampled_from(["tiktok", "instagram_reel", "unheard_of", ""]),
    creator_profile=st.none() | st.builds(CreatorProfile, full_name=st.none() | TEXT, profile_link=st.none() | TEXT),
    extra=st.none() | TEXT,
    **{
        metric.column: st.none() | (INT64 if metric.kind is Kind.COUNT else st.floats(allow_nan=False))
        for metric in DOCUMENT_METRICS
    },
)


def test_columns_are_the_identity_then_each_metric_of_the_metric_table_then_extra() -> None:
    assert POSTS_SCHEMA.names == [
        *("instance_id", "campaign_id", "post_id", "creator_id", "content_type", "platform"),
        *("content_url", "content_image_url"),
        *("creator_content_type", "creator_full_name", "creator_handle_name"),
        *("creator_profile_image", "creator_profile_link"),
        "post_date",
        *(metric.column for metric in DOCUMENT_METRICS),
        "extra",
    ]


def test_counts_are_whole_numbers_and_money_and_rates_are_decimals() -> None:
    for metric in DOCUMENT_METRICS:
        assert POSTS_SCHEMA.field(metric.column).type == (pa.int64() if metric.kind is Kind.COUNT else pa.float64())


def test_only_the_key_and_the_post_date_cannot_be_null() -> None:
    assert {field.name for field in POSTS_SCHEMA if not field.nullable} == {*POST_KEY, "post_date"}


def test_every_column_is_described_and_every_metric_has_its_unit() -> None:
    units = {metric.column: metric.unit for metric in DOCUMENT_METRICS}
    for column in POST_COLUMNS:
        assert column.description
        assert column.unit == units.get(column.name, "")


def test_no_posts_are_a_table_of_the_schema_with_no_rows() -> None:
    assert posts_table([]) == POSTS_SCHEMA.empty_table()


@given(st.lists(posts, max_size=6))
def test_rows_hold_exactly_what_the_posts_hold_sorted_by_key(given_posts: list[Post]) -> None:
    table = posts_table(given_posts)

    assert table.schema.equals(POSTS_SCHEMA, check_metadata=True)
    table.validate(full=True)
    expected = sorted(given_posts, key=lambda one: one.key)
    for row, one in zip(table.to_pylist(), expected, strict=True):
        profile = one.creator_profile or CreatorProfile()
        for name in set(POSTS_SCHEMA.names) - {"platform"}:
            of_creator = name.startswith("creator_") and name != "creator_id"
            assert row[name] == (getattr(profile, name[len("creator_") :]) if of_creator else getattr(one, name))
        assert row["platform"] == {"tiktok": "tiktok", "instagram_reel": "instagram"}.get(one.content_type or "")


def test_an_instant_of_another_zone_is_kept_as_the_same_instant_in_utc_to_the_microsecond() -> None:
    there = datetime(2024, 1, 3, 23, 30, 0, 999_999, tzinfo=timezone(timedelta(hours=-2)))
    (stored,) = posts_table([post(post_date=there)]).column("post_date").to_pylist()
    assert stored == there
    assert (stored.day, stored.utcoffset()) == (4, timedelta(0))


def test_null_and_zero_never_meet_and_64_bits_are_exact() -> None:
    body = b"""{"data": [
        {"instanceId": "a", "campaignId": 1, "postId": 1, "postDate": "2024-01-03T00:00:00.000Z", "impressions": 0},
        {"instanceId": "a", "campaignId": 1, "postId": 2, "postDate": "2024-01-03T00:00:00.000Z", "impressions": null},
        {"instanceId": "a", "campaignId": 1, "postId": 3, "postDate": "2024-01-03T00:00:00.000Z",
         "impressions": 9007199254740993}
    ], "pagination": {"page": 1, "pageSize": 50, "totalItems": 3, "totalPages": 1}}"""
    assert posts_table(page_from_body(body).posts).column("impressions").to_pylist() == [0, None, 9007199254740993]


def test_ids_sort_as_text_by_code_point_as_arrow_sorts_them() -> None:
    table = posts_table([post(instance_id=instance_id) for instance_id in ("b", "é", "B", "\U0001f600", "\uffff", "a")])
    assert table == table.sort_by([(name, "ascending") for name in POST_KEY])


def test_many_posts_are_one_chunk_and_those_of_one_key_keep_their_order() -> None:
    many = [post(number % 700, campaign_id=number % 3, impressions=number) for number in range(2_000, 0, -1)]
    table = posts_table(many)
    table.validate(full=True)
    assert {column.num_chunks for column in table.columns} == {1}
    in_order = sorted(many, key=lambda one: one.key)
    assert table.column("impressions").to_pylist() == [one.impressions for one in in_order]


@given(st.lists(st.lists(posts, max_size=3), max_size=4))
def test_tables_made_together_are_those_made_alone(groups: list[list[Post]]) -> None:
    together = posts_tables(dict(enumerate(groups)))
    assert list(together) == list(range(len(groups)))
    for table, members in zip(together.values(), groups, strict=True):
        table.validate(full=True)
        assert table.equals(posts_table(members), check_metadata=True)


selections = st.lists(st.sampled_from(METRICS), max_size=8, unique=True).map(
    lambda chosen: tuple(metric for metric in METRICS if metric in chosen)
)


@given(selections)
def test_more_metrics_are_more_columns_in_one_order_between_the_identity_and_extra(metrics: tuple[Metric, ...]) -> None:
    schema, whole = posts_schema(metrics), posts_schema(METRICS)
    of_metrics = {metric.column for metric in METRICS}
    assert [name for name in schema.names if name in of_metrics] == [metric.column for metric in metrics]
    assert schema.names == [name for name in whole.names if name in schema.names]
    assert [name for name in schema.names if name not in of_metrics] == [
        name for name in POSTS_SCHEMA.names if name not in of_metrics
    ]
    assert all(field.equals(whole.field(field.name)) for field in schema)


@given(selections, st.lists(st.tuples(selections, st.integers(1, 9)), max_size=6))
def test_a_metric_that_a_post_was_not_asked_for_is_null(
    metrics: tuple[Metric, ...], given_posts: list[tuple[tuple[Metric, ...], int]]
) -> None:
    identity = {"instance_id": "a", "campaign_id": 1, "post_date": datetime(2024, 1, 3, tzinfo=UTC)}
    some = [
        post_type(asked_for)(post_id=place, **identity, **{metric.column: value for metric in asked_for})
        for place, (asked_for, value) in enumerate(given_posts)
    ]
    table = posts_table(some, metrics=metrics)
    table.validate(full=True)
    assert table.schema.equals(posts_schema(metrics))
    for metric in metrics:
        expected = [value if metric in asked_for else None for asked_for, value in given_posts]
        assert table.column(metric.column).to_pylist() == expected
