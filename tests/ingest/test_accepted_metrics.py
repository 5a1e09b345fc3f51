"""Metrics that the API rejects for some filters are fetched with narrower filters, without losing posts."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from later_reporting_dagster.client import InconsistentPages, LaterClient, MetricsRejected, QueryResult
from later_reporting_dagster.contract import (
    CURSOR,
    DEFAULT_METRICS,
    METRICS,
    ApiVersion,
    BadRow,
    ContentType,
    DateBasis,
    Metric,
    Platform,
    Post,
    PostPerformanceQuery,
    metrics_from_query_field,
    metrics_to_query_field,
    parse_metrics,
    platform_of,
    post_type,
)
from later_reporting_dagster.ingest.accepted_metrics import AcceptedMetrics, merge_supplements
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.partition_writer import FailedPartition, PartitionResult, WrittenPartition
from later_reporting_dagster.ingest.raw_tables import RawTable
from later_reporting_dagster.lake import Lake, Partition, posts_schema

DAY = date(2024, 1, 3)
NOON = datetime(2024, 1, 3, 12, tzinfo=UTC)
# `twitter` is a platform without a content type that a query can name; `threads_post` belongs to no known platform.
CONTENT_TYPES = [*map(str, ContentType), "twitter", "threads_post"]
NAMES = [metric.api_name for metric in METRICS]

# How the error detail of a rejection may be worded, given the rejected metrics and the valid ones.
Detail = Callable[[Sequence[str], Sequence[str]], str]
DETAILS: Mapping[str, Detail] = {
    "names the bad": lambda bad, valid: f"not supported for these filters: {', '.join(bad)}",
    "names the first bad": lambda bad, valid: f"metric {bad[0]} is not supported",
    "names the valid": lambda bad, valid: f"each value in metrics must be one of: {', '.join(valid)}",
    "names both": lambda bad, valid: f"not supported: {', '.join(bad)}; supported are {', '.join(valid)}",
    "names none": lambda bad, valid: "a metric is not valid for the filters",
}


@dataclass
class FakeClient:
    """Has one post per content type, with a value for every metric, and rejects metrics that are not valid.

    Attributes:
        valid: API names of the valid metrics, by content type.
        detail: words the error detail of a rejection.
        posts: id and content type of each post.
        queries: all queries, including rejected ones.
        rejections: number of rejected queries.
    """

    valid: Mapping[str, set[str]]
    detail: Detail
    posts: list[tuple[int, str]] = field(default_factory=lambda: list(enumerate(CONTENT_TYPES)))
    queries: list[PostPerformanceQuery] = field(default_factory=list)
    rejections: int = 0
    concurrency = 8

    def matches(self, content_type: str, query: PostPerformanceQuery) -> bool:
        if query.content_types:
            return content_type in query.content_types
        return not query.platforms or platform_of(content_type) in query.platforms

    def respond(self, query: PostPerformanceQuery) -> QueryResult:
        self.queries.append(query)
        matching = [content_type for content_type in CONTENT_TYPES if self.matches(content_type, query)]
        requested = metrics_from_query_field(query.metrics)
        valid = [name for name in NAMES if all(name in self.valid[content_type] for content_type in matching)]
        if rejected := [metric.api_name for metric in requested if metric.api_name not in valid]:
            self.rejections += 1
            raise MetricsRejected("a rejection", detail=self.detail(rejected, valid))
        posts = [
            post_type(requested)(
                instance_id="a",
                campaign_id=1,
                post_id=number,
                post_date=NOON,
                content_type=content_type,
                **{metric.column: value(number, metric) for metric in requested},
            )
            for number, content_type in self.posts
            if content_type in matching
        ]
        return QueryResult(query=query, posts=posts, bad_rows=[], pages=1)

    async def api_version(self) -> ApiVersion:
        """Stand in for the method of `LaterClient`."""
        return CURSOR

    async def fetch_posts(self, query: PostPerformanceQuery, **_options: Any) -> QueryResult:
        """Stand in for the method of `LaterClient`."""
        return self.respond(query)


def value(number: int, metric: Metric) -> int:
    """Return the value of a metric of the post `number`."""
    return number * 100 + METRICS.index(metric)


def query_for(metrics: tuple[Metric, ...]) -> PostPerformanceQuery:
    return PostPerformanceQuery(
        start_date=DAY, end_date=DAY, instance_ids=("a",), metrics=metrics_to_query_field(metrics)
    )


def fetch_merged(client: FakeClient, accepted: AcceptedMetrics, metrics: tuple[Metric, ...]) -> dict[int, Post]:
    """Fetch the base query and its supplements, and return the merged posts by number."""
    query = query_for(metrics)
    while True:
        base = accepted.base_query(query)
        try:
            results = [client.respond(base)]
        except MetricsRejected as error:
            accepted.record_rejected(base, error.detail)
            assert accepted.has_candidates(query)
        else:
            break
    accepted.record_accepted(base)
    fetched, supplements = [base], []
    while (part := accepted.supplementary_query(base, fetched)) is not None:
        try:
            supplements.append(client.respond(part))
        except MetricsRejected as error:
            accepted.record_rejected(part, error.detail)
        else:
            accepted.record_accepted(part)
            fetched.append(part)
    merged = merge_supplements(results, supplements, metrics=metrics)
    posts = [post for result in merged for post in result.posts]
    assert len(posts) == len({post.key for post in posts})
    return {post.post_id: post for post in posts}


def is_available(client: FakeClient, name: str, content_type: str) -> bool:
    """Return whether any valid query returns a metric of posts of a content type."""
    matching = [each for each in CONTENT_TYPES if platform_of(each) == platform_of(content_type)]
    if platform_of(content_type) is None:
        matching = CONTENT_TYPES
    if content_type in set(ContentType):
        matching = [content_type]
    return all(name in client.valid[each] for each in matching)


validity = st.fixed_dictionaries(
    {content_type: st.frozensets(st.sampled_from(NAMES), max_size=4).map(set) for content_type in CONTENT_TYPES}
)
selections = st.lists(st.sampled_from(METRICS), min_size=1, max_size=9, unique=True).map(
    lambda chosen: tuple(metric for metric in METRICS if metric in chosen)
)


@settings(max_examples=150)
@given(validity, selections, st.sampled_from([*DETAILS]), st.sampled_from(["engagements", "cpm"]))
def test_every_available_value_is_fetched_for_any_validity_and_wording(
    invalid: dict[str, set[str]], metrics: tuple[Metric, ...], detail: str, valid_everywhere: str
) -> None:
    valid = {name: {*NAMES} - bad | {valid_everywhere} for name, bad in invalid.items()}
    client, accepted = FakeClient(valid, DETAILS[detail]), AcceptedMetrics(metrics)
    posts = fetch_merged(client, accepted, metrics)
    assert [posts[number].content_type for number in posts] == CONTENT_TYPES
    for number, content_type in client.posts:
        for metric in metrics:
            expected = value(number, metric) if is_available(client, metric.api_name, content_type) else None
            assert getattr(posts[number], metric.column, None) == expected
    # A second fetch uses what was learned: no rejection, and no more queries than succeeded before.
    rejections, succeeded = client.rejections, len(client.queries) - client.rejections
    client.queries.clear()
    assert fetch_merged(client, accepted, metrics) == posts
    assert client.rejections == rejections
    assert len(client.queries) <= succeeded


def only_stories_navigate() -> dict[str, set[str]]:
    """Return the valid metrics of an API that has navigation metrics for Instagram stories only."""
    everywhere = {name for name in NAMES if not name.startswith("navigation")}
    return {name: {*NAMES} if name == "instagram_story" else everywhere for name in CONTENT_TYPES}


@pytest.mark.parametrize(
    ("detail", "max_rejections"), [("names the bad", 15), ("names the valid", 15), ("names none", 120)]
)
def test_a_rejection_that_names_metrics_costs_one_request_per_filter(detail: str, max_rejections: int) -> None:
    client = FakeClient(only_stories_navigate(), DETAILS[detail])
    posts = fetch_merged(client, AcceptedMetrics(METRICS), METRICS)
    assert [number for number, post in posts.items() if post.navigation_tap_exit is not None] == [2]  # type: ignore[attr-defined]
    # Two without filters, one for each of five platforms, then one for each content type of platforms with several.
    assert client.rejections <= max_rejections
    queries = [query for query in client.queries if query.content_types == (ContentType.INSTAGRAM_STORY,)]
    assert [len(query.metrics) for query in queries] == [4]


def test_metrics_that_are_valid_for_all_posts_cost_one_unfiltered_query() -> None:
    client = FakeClient(dict.fromkeys(CONTENT_TYPES, {*NAMES}), DETAILS["names none"])
    for metrics in (DEFAULT_METRICS, METRICS, parse_metrics("likes")):
        client.queries.clear()
        query = query_for(metrics)
        fetch_merged(client, AcceptedMetrics(metrics), metrics)
        assert client.queries == [query]
        assert query.metrics == (() if metrics == DEFAULT_METRICS else tuple(each.api_name for each in metrics))


def test_base_query_requests_another_metric_if_all_wanted_ones_are_rejected() -> None:
    stories = parse_metrics("navigation_tap_exit")
    client = FakeClient(only_stories_navigate(), DETAILS["names none"])
    posts = fetch_merged(client, AcceptedMetrics(stories), stories)
    assert len(posts) == len(CONTENT_TYPES)
    assert client.queries[1].metrics == ("engagements",)
    assert not hasattr(posts[0], "engagements")


def test_metrics_that_are_rejected_together_stay_separate() -> None:
    @dataclass
    class AcceptsFive(FakeClient):
        def respond(self, query: PostPerformanceQuery) -> QueryResult:
            if len(query.metrics) > 5:
                self.queries.append(query)
                self.rejections += 1
                raise MetricsRejected("a rejection", detail="at most 5 metrics")
            return super().respond(query)

    eight = parse_metrics("likes, comments, shares, saves, views, replies, reposts, reach")
    client = AcceptsFive(dict.fromkeys(CONTENT_TYPES, {*NAMES}), DETAILS["names none"])
    accepted = AcceptedMetrics(eight)
    for _ in range(5):
        posts = fetch_merged(client, accepted, eight)
        assert all(getattr(posts[3], metric.column) == value(3, metric) for metric in eight)
    assert client.rejections == 2


# Merging supplements


def result_of(*posts: Post, metrics: str, bad_rows: Sequence[BadRow] = (), **filters: Any) -> QueryResult:
    query = replace(query_for(parse_metrics(metrics)), **filters)
    return QueryResult(query=query, posts=list(posts), bad_rows=list(bad_rows), pages=1)


def post_of(post_id: int, metrics: str, *, extra: str | None = None, **values: int) -> Post:
    post: Post = post_type(parse_metrics(metrics))(
        instance_id="a", campaign_id=1, post_id=post_id, post_date=NOON, content_type="tiktok", extra=extra, **values
    )
    return post


BOTH = parse_metrics("likes, views")


def test_merge_raises_if_a_post_is_missing_in_one_result() -> None:
    one, two = post_of(1, "likes", likes=1), post_of(2, "likes", likes=2)
    others = [post_of(1, "views", views=5), post_of(2, "views", views=6)]
    base = [result_of(one, two, metrics="likes")]
    with pytest.raises(
        InconsistentPages,
        match="^startDate=.*: 1 posts are in the base response, but not in the response for some metrics",
    ):
        merge_supplements(base, [result_of(others[0], metrics="views")], metrics=BOTH)
    with pytest.raises(
        InconsistentPages,
        match="^startDate=.*: 1 posts are in the response for some metrics, but not in the base response",
    ):
        merge_supplements([result_of(one, metrics="likes")], [result_of(*others, metrics="views")], metrics=BOTH)


@pytest.mark.parametrize(
    ("content_type", "filters", "is_expected"),
    [
        ("tiktok", {}, True),
        ("tiktok", {"platforms": (Platform.TIKTOK,)}, True),
        ("tiktok", {"platforms": (Platform.INSTAGRAM,)}, False),
        ("instagram_reel", {"content_types": (ContentType.INSTAGRAM_REEL,)}, True),
        ("instagram_reel", {"content_types": (ContentType.INSTAGRAM_STORY,)}, False),
        ("twitter", {}, False),  # not listed in the API reference: may belong to any platform
        ("tiktok", {"instance_ids": ("b",)}, False),
    ],
)
def test_merge_expects_posts_that_certainly_match_the_filters(
    content_type: str, filters: Mapping[str, Any], is_expected: bool
) -> None:
    base = [result_of(with_content_type(post_of(1, "likes", likes=1), content_type), metrics="likes")]
    with pytest.raises(InconsistentPages, match="1 posts are in the base response") if is_expected else nullcontext():
        first, _ = merge_supplements(base, [result_of(metrics="views", **filters)], metrics=BOTH)
        assert [(post.likes, post.views) for post in first.posts] == [(1, None)]  # type: ignore[attr-defined]


def with_content_type(post: Post, content_type: str) -> Post:
    return msgspec.structs.replace(post, content_type=content_type)


def test_merge_leaves_the_values_of_a_bad_supplement_row_null() -> None:
    one, two = post_of(1, "likes", likes=1), post_of(2, "likes", likes=2)
    raw = json.dumps({"instanceId": "a", "campaignId": 1, "postId": 2, "views": -1})
    bad = BadRow(reason="views counts something", raw=raw, instance_id="a", post_date=NOON)
    first, supplement = merge_supplements(
        [result_of(one, two, metrics="likes")],
        [result_of(post_of(1, "views", views=5), metrics="views", bad_rows=[bad])],
        metrics=BOTH,
    )
    assert [(post.likes, post.views) for post in first.posts] == [(1, 5), (2, None)]  # type: ignore[attr-defined]
    assert (supplement.posts, supplement.bad_rows) == ([], [bad])
    # A row that is bad in both results is kept once.
    first, supplement = merge_supplements(
        [result_of(one, metrics="likes", bad_rows=[with_raw_fields(bad, likes=-1)])],
        [result_of(post_of(1, "views", views=5), metrics="views", bad_rows=[bad])],
        metrics=BOTH,
    )
    assert [len(result.bad_rows) for result in (first, supplement)] == [1, 0]


def with_raw_fields(row: BadRow, **fields: int) -> BadRow:
    return BadRow(reason="likes", raw=json.dumps(json.loads(row.raw) | fields), instance_id="a", post_date=NOON)


def test_merge_keeps_the_unknown_fields_of_all_results() -> None:
    base = result_of(post_of(1, "likes", likes=1, extra='{"a":1,"b":2}'), metrics="likes")
    supplement = result_of(post_of(1, "views", views=5, extra='{"b":3,"c":4}'), metrics="views")
    (first, _) = merge_supplements([base], [supplement], metrics=BOTH)
    assert first.posts[0].extra == '{"a":1,"b":2,"c":4}'


def test_merge_drops_unknown_fields_that_have_a_column() -> None:
    base = result_of(post_of(1, "likes", likes=1), metrics="likes")
    for extra, expected in (('{"likes":1}', None), ('{"b":3,"likes":1}', '{"b":3}')):
        supplement = result_of(post_of(1, "views", views=5, extra=extra), metrics="views")
        (first, _) = merge_supplements([base], [supplement], metrics=BOTH)
        assert (first.posts[0].likes, first.posts[0].extra) == (1, expected)  # type: ignore[attr-defined]


# In a run of `ingest`


def ingest_with(client: FakeClient, root: Path, metrics: tuple[Metric, ...]) -> list[PartitionResult]:
    results: list[PartitionResult] = []
    asyncio.run(
        ingest(
            [Partition(DAY, "a")],
            table=RawTable("posts_published", DateBasis.POST_DATE),
            client=cast(LaterClient, client),
            lake=Lake(str(root)),
            on_result=results.append,
            metrics=metrics,
        )
    )
    return results


@pytest.mark.parametrize("detail", DETAILS)
def test_ingest_writes_all_available_values_despite_rejections(detail: str, tmp_path: Path) -> None:
    client = FakeClient(only_stories_navigate(), DETAILS[detail])
    (result,) = ingest_with(client, tmp_path, METRICS)
    assert isinstance(result, WrittenPartition)
    table = Lake(str(tmp_path)).read("posts_published", [Partition(DAY, "a")], schema=posts_schema(METRICS))
    assert table.equals(result.posts)
    for row, (number, content_type) in zip(table.to_pylist(), client.posts, strict=True):
        for metric in METRICS:
            is_valid = content_type == "instagram_story" or not metric.api_name.startswith("navigation")
            assert row[metric.column] == (value(number, metric) if is_valid else None)
    metadata = Lake(str(tmp_path)).read_metadata("posts_published", Partition(DAY, "a"))
    assert metadata is not None
    assert json.loads(metadata.key_values["metrics"]) == NAMES


def test_ingest_fails_the_partition_if_all_metrics_are_rejected(tmp_path: Path) -> None:
    client = FakeClient(dict.fromkeys(CONTENT_TYPES, set[str]()), DETAILS["names the bad"])
    (result,) = ingest_with(client, tmp_path, parse_metrics("likes, reach"))
    assert isinstance(result, FailedPartition)
    assert isinstance(result.error, MetricsRejected)
    assert not [*tmp_path.rglob("*.parquet")]
