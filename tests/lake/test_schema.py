from datetime import UTC, datetime, timedelta, timezone

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS, Metric, Post
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.contract.rows import CreatorProfile, post_type
from later_reporting_dagster.lake import POSTS_SCHEMA, posts_schema, posts_table
from later_reporting_dagster.lake.tables import POSTS_PUBLISHED, rows_by_group

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
    content_type=st.none() | st.sampled_from(["tiktok", "instagram_reel", "unknown_type", ""]),
    creator_profile=st.none() | st.builds(CreatorProfile, full_name=st.none() | TEXT, profile_link=st.none() | TEXT),
    extra=st.none() | TEXT,
    **{
        metric.column: st.none() | (INT64 if metric.kind is Kind.COUNT else st.floats(allow_nan=False))
        for metric in DEFAULT_METRICS
    },
)


@given(st.lists(posts, max_size=6))
def test_posts_table_holds_all_values_sorted_by_key(sample: list[Post]) -> None:
    table = posts_table(sample)

    assert table.schema.equals(POSTS_SCHEMA, check_metadata=True)
    table.validate(full=True)
    expected = sorted(sample, key=lambda each: each.key)
    for row, each in zip(table.to_pylist(), expected, strict=True):
        profile = each.creator_profile or CreatorProfile()
        for name in set(POSTS_SCHEMA.names) - {"platform"}:
            is_of_creator = name.startswith("creator_") and name != "creator_id"
            assert row[name] == (getattr(profile, name[len("creator_") :]) if is_of_creator else getattr(each, name))
        assert row["platform"] == {"tiktok": "tiktok", "instagram_reel": "instagram"}.get(each.content_type or "")


@given(st.lists(st.lists(posts, max_size=3), max_size=4))
def test_rows_by_group_equals_posts_table_of_each_group(groups: list[list[Post]]) -> None:
    together = rows_by_group(POSTS_PUBLISHED, dict(enumerate(groups)), metrics=DEFAULT_METRICS)
    assert list(together) == list(range(len(groups)))
    for table, members in zip(together.values(), groups, strict=True):
        table.validate(full=True)
        assert table.equals(posts_table(members), check_metadata=True)


metric_subsets = st.lists(st.sampled_from(METRICS), max_size=8, unique=True).map(
    lambda chosen: tuple(metric for metric in METRICS if metric in chosen)
)


@given(metric_subsets, st.lists(st.tuples(metric_subsets, st.integers(1, 9)), max_size=6))
def test_metric_that_was_not_requested_is_null(
    metrics: tuple[Metric, ...], sample: list[tuple[tuple[Metric, ...], int]]
) -> None:
    identity = {"instance_id": "a", "campaign_id": 1, "post_date": datetime(2024, 1, 3, tzinfo=UTC)}
    posts_of_groups = [
        post_type(requested)(post_id=place, **identity, **{metric.column: value for metric in requested})
        for place, (requested, value) in enumerate(sample)
    ]
    table = posts_table(posts_of_groups, metrics=metrics)
    table.validate(full=True)
    # Any two schemas have the same order and types of their common columns: files can be read as one table.
    whole = posts_schema(METRICS)
    assert table.schema.equals(pa.schema([field for field in whole if field.name in table.column_names]))
    assert {*table.column_names} == {*posts_schema(()).names, *(metric.column for metric in metrics)}
    for metric in metrics:
        expected = [value if metric in requested else None for requested, value in sample]
        assert table.column(metric.column).to_pylist() == expected
