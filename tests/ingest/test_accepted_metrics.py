"""Metrics that a service refuses for some filters are asked for where they are valid, and cost no post and no day."""

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

from later_reporting_dagster.client import LaterClient, MetricsRefused, Walk, WalkInconsistent
from later_reporting_dagster.contract import (
    DOCUMENT_METRICS,
    METRICS,
    BadRow,
    ContentType,
    DateBasis,
    Metric,
    Platform,
    Post,
    PostPerformanceQuery,
    metrics_asked_for,
    metrics_named,
    names_to_ask_for,
    platform_of,
    post_type,
)
from later_reporting_dagster.ingest.accepted_metrics import AllowedMetrics, with_values
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.partition_writer import Failed, Landed, Outcome
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.lake import Lake, Partition, posts_schema

DAY = date(2024, 1, 3)
NOON = datetime(2024, 1, 3, 12, tzinfo=UTC)
# One that no query can name although its platform can be, and one of a platform that nobody knows.
CONTENT_TYPES = [*map(str, ContentType), "twitter", "threads_post"]
NAMES = [metric.api_name for metric in METRICS]

# How a service may word a refusal: from what was asked for, those that are bad, and those that are valid.
Wording = Callable[[Sequence[str], Sequence[str]], str]
WORDINGS: Mapping[str, Wording] = {
    "names the bad": lambda bad, valid: f"not supported for these filters: {', '.join(bad)}",
    "names the first bad": lambda bad, valid: f"metric {bad[0]} is not supported",
    "names the valid": lambda bad, valid: f"each value in metrics must be one of: {', '.join(valid)}",
    "names both": lambda bad, valid: f"not supported: {', '.join(bad)}; supported are {', '.join(valid)}",
    "names none": lambda bad, valid: "a metric is not valid for the filters",
}


@dataclass
class Service:
    """Posts of each content type, of which it has all metrics, but takes only questions for those that are valid."""

    valid: Mapping[str, set[str]]
    wording: Wording
    posts: list[tuple[int, str]] = field(default_factory=lambda: list(enumerate(CONTENT_TYPES)))
    asked: list[PostPerformanceQuery] = field(default_factory=list)
    refused: int = 0

    def is_within(self, content_type: str, query: PostPerformanceQuery) -> bool:
        if query.content_types:
            return content_type in query.content_types
        return not query.platforms or platform_of(content_type) in query.platforms

    def answer(self, query: PostPerformanceQuery) -> Walk:
        self.asked.append(query)
        within = [content_type for content_type in CONTENT_TYPES if self.is_within(content_type, query)]
        asked_for = metrics_asked_for(query.metrics)
        valid = [name for name in NAMES if all(name in self.valid[content_type] for content_type in within)]
        if bad := [metric.api_name for metric in asked_for if metric.api_name not in valid]:
            self.refused += 1
            raise MetricsRefused("a refusal", detail=self.wording(bad, valid))
        posts = [
            post_type(asked_for)(
                instance_id="a",
                campaign_id=1,
                post_id=number,
                post_date=NOON,
                content_type=content_type,
                **{metric.column: value(number, metric) for metric in asked_for},
            )
            for number, content_type in self.posts
            if content_type in within
        ]
        return Walk(query=query, posts=posts, bad_rows=[], total_items=len(posts), pages=1)

    async def walk(self, query: PostPerformanceQuery, **_options: Any) -> Walk:
        """As the client's."""
        return self.answer(query)


def value(number: int, metric: Metric) -> int:
    return number * 100 + METRICS.index(metric)


def question(metrics: tuple[Metric, ...]) -> PostPerformanceQuery:
    return PostPerformanceQuery(start_date=DAY, end_date=DAY, instance_ids=("a",), metrics=names_to_ask_for(metrics))


def answered(service: Service, allowed: AllowedMetrics, metrics: tuple[Metric, ...]) -> dict[int, Post]:
    """What comes of a query when it is asked as `allowed` says, by the number of the post."""
    query = question(metrics)
    while True:
        first = allowed.first(query)
        try:
            whole = [service.answer(first)]
        except MetricsRefused as error:
            allowed.learn(first, error.detail)
            assert allowed.has_any(query)
        else:
            break
    allowed.accept(first)
    done, further = [first], []
    while (part := allowed.further(first, done)) is not None:
        try:
            further.append(service.answer(part))
        except MetricsRefused as error:
            allowed.learn(part, error.detail)
        else:
            allowed.accept(part)
            done.append(part)
    walks = with_values(whole, further, metrics=metrics)
    posts = [post for walk in walks for post in walk.posts]
    assert len(posts) == len({post.key for post in posts})
    return {post.post_id: post for post in posts}


def is_available(service: Service, name: str, content_type: str) -> bool:
    """Whether any query that can be asked gives a metric of a content type."""
    alike = [each for each in CONTENT_TYPES if platform_of(each) == platform_of(content_type)]
    if platform_of(content_type) is None:
        alike = CONTENT_TYPES
    if content_type in set(ContentType):
        alike = [content_type]
    return all(name in service.valid[each] for each in alike)


validity = st.fixed_dictionaries(
    {content_type: st.frozensets(st.sampled_from(NAMES), max_size=4).map(set) for content_type in CONTENT_TYPES}
)
selections = st.lists(st.sampled_from(METRICS), min_size=1, max_size=9, unique=True).map(
    lambda chosen: tuple(metric for metric in METRICS if metric in chosen)
)


@settings(max_examples=150)
@given(validity, selections, st.sampled_from([*WORDINGS]), st.sampled_from(["engagements", "cpm"]))
def test_each_value_that_can_be_asked_for_comes_whatever_is_valid_and_however_it_is_said(
    invalid: dict[str, set[str]], metrics: tuple[Metric, ...], wording: str, valid_everywhere: str
) -> None:
    valid = {name: {*NAMES} - bad | {valid_everywhere} for name, bad in invalid.items()}
    service, allowed = Service(valid, WORDINGS[wording]), AllowedMetrics(metrics)
    posts = answered(service, allowed, metrics)
    assert [posts[number].content_type for number in posts] == CONTENT_TYPES
    for number, content_type in service.posts:
        for metric in metrics:
            expected = value(number, metric) if is_available(service, metric.api_name, content_type) else None
            assert getattr(posts[number], metric.column, None) == expected
    # What is known by then costs no refusal again, and no question that was not needed before.
    refused, asked = service.refused, len(service.asked) - service.refused
    service.asked.clear()
    assert answered(service, allowed, metrics) == posts
    assert service.refused == refused
    assert len(service.asked) <= asked


def only_stories_navigate() -> dict[str, set[str]]:
    everywhere = {name for name in NAMES if not name.startswith("navigation")}
    return {name: {*NAMES} if name == "instagram_story" else everywhere for name in CONTENT_TYPES}


@pytest.mark.parametrize(("wording", "refusals"), [("names the bad", 15), ("names the valid", 15), ("names none", 120)])
def test_a_refusal_that_names_what_is_wrong_costs_one_request_for_each_filter(wording: str, refusals: int) -> None:
    service = Service(only_stories_navigate(), WORDINGS[wording])
    posts = answered(service, AllowedMetrics(METRICS), METRICS)
    assert [number for number, post in posts.items() if post.navigation_tap_exit is not None] == [2]
    # Twice without filters, then by each of five platforms, then by the content types of those that have several.
    assert service.refused <= refusals
    answers = [query for query in service.asked if query.content_types == (ContentType.INSTAGRAM_STORY,)]
    assert [len(query.metrics) for query in answers] == [4]


def test_what_is_valid_for_all_is_asked_for_once_and_unfiltered() -> None:
    service = Service(dict.fromkeys(CONTENT_TYPES, {*NAMES}), WORDINGS["names none"])
    for metrics in (DOCUMENT_METRICS, METRICS, metrics_named("likes")):
        service.asked.clear()
        query = question(metrics)
        answered(service, AllowedMetrics(metrics), metrics)
        assert service.asked == [query]
        assert query.metrics == (() if metrics == DOCUMENT_METRICS else tuple(each.api_name for each in metrics))


def test_where_none_that_is_wanted_is_valid_another_one_brings_the_posts() -> None:
    stories = metrics_named("navigation_tap_exit")
    service = Service(only_stories_navigate(), WORDINGS["names none"])
    posts = answered(service, AllowedMetrics(stories), stories)
    assert len(posts) == len(CONTENT_TYPES)
    assert service.asked[1].metrics == ("engagements",)
    assert not hasattr(posts[0], "engagements")


def test_where_too_many_are_refused_together_they_are_asked_for_apart_for_good() -> None:
    @dataclass
    class TakesFive(Service):
        def answer(self, query: PostPerformanceQuery) -> Walk:
            if len(query.metrics) > 5:
                self.asked.append(query)
                self.refused += 1
                raise MetricsRefused("a refusal", detail="at most 5 metrics")
            return super().answer(query)

    eight = metrics_named("likes, comments, shares, saves, views, replies, reposts, reach")
    service = TakesFive(dict.fromkeys(CONTENT_TYPES, {*NAMES}), WORDINGS["names none"])
    allowed = AllowedMetrics(eight)
    for _ in range(5):
        posts = answered(service, allowed, eight)
        assert all(getattr(posts[3], metric.column) == value(3, metric) for metric in eight)
    assert service.refused == 2


# What further answers bring


def walk_of(*posts: Post, metrics: str, bad_rows: Sequence[BadRow] = (), **filters: Any) -> Walk:
    query = replace(question(metrics_named(metrics)), **filters)
    return Walk(
        query=query, posts=list(posts), bad_rows=list(bad_rows), total_items=len(posts) + len(bad_rows), pages=1
    )


def post_of(post_id: int, metrics: str, *, extra: str | None = None, **values: int) -> Post:
    made: Post = post_type(metrics_named(metrics))(
        instance_id="a", campaign_id=1, post_id=post_id, post_date=NOON, content_type="tiktok", extra=extra, **values
    )
    return made


BOTH = metrics_named("likes, views")


def test_posts_that_are_in_one_answer_alone_make_neither_one_to_rely_on() -> None:
    one, two = post_of(1, "likes", likes=1), post_of(2, "likes", likes=2)
    further = [post_of(1, "views", views=5), post_of(2, "views", views=6)]
    whole = [walk_of(one, two, metrics="likes")]
    with pytest.raises(WalkInconsistent, match="1 posts did not come for all metrics"):
        with_values(whole, [walk_of(further[0], metrics="views")], metrics=BOTH)
    with pytest.raises(WalkInconsistent, match="1 posts came for some metrics and not for others"):
        with_values([walk_of(one, metrics="likes")], [walk_of(*further, metrics="views")], metrics=BOTH)


@pytest.mark.parametrize(
    ("content_type", "filters", "is_due"),
    [
        ("tiktok", {}, True),
        ("tiktok", {"platforms": (Platform.TIKTOK,)}, True),
        ("tiktok", {"platforms": (Platform.INSTAGRAM,)}, False),
        ("instagram_reel", {"content_types": (ContentType.INSTAGRAM_REEL,)}, True),
        ("instagram_reel", {"content_types": (ContentType.INSTAGRAM_STORY,)}, False),
        ("twitter", {}, False),  # which the document does not list: the service may count it to any platform
        ("tiktok", {"instance_ids": ("b",)}, False),
    ],
)
def test_a_filtered_answer_has_to_have_what_is_surely_within_its_filters(
    content_type: str, filters: Mapping[str, Any], is_due: bool
) -> None:
    whole = [walk_of(replace_type(post_of(1, "likes", likes=1), content_type), metrics="likes")]
    with pytest.raises(WalkInconsistent, match="1 posts did not come") if is_due else nullcontext():
        first, _ = with_values(whole, [walk_of(metrics="views", **filters)], metrics=BOTH)
        assert [(post.likes, post.views) for post in first.posts] == [(1, None)]


def replace_type(post: Post, content_type: str) -> Post:
    return msgspec.structs.replace(post, content_type=content_type)


def test_a_row_that_cannot_be_true_costs_only_the_values_that_it_would_have_brought() -> None:
    one, two = post_of(1, "likes", likes=1), post_of(2, "likes", likes=2)
    raw = json.dumps({"instanceId": "a", "campaignId": 1, "postId": 2, "views": -1})
    bad = BadRow(reason="views counts something", raw=raw, instance_id="a", post_date=NOON)
    first, further = with_values(
        [walk_of(one, two, metrics="likes")],
        [walk_of(post_of(1, "views", views=5), metrics="views", bad_rows=[bad])],
        metrics=BOTH,
    )
    assert [(post.likes, post.views) for post in first.posts] == [(1, 5), (2, None)]
    assert (further.posts, further.bad_rows) == ([], [bad])
    # A row that is bad in both answers is set aside once.
    first, further = with_values(
        [walk_of(one, metrics="likes", bad_rows=[replace_raw(bad, likes=-1)])],
        [walk_of(post_of(1, "views", views=5), metrics="views", bad_rows=[bad])],
        metrics=BOTH,
    )
    assert [len(walk.bad_rows) for walk in (first, further)] == [1, 0]


def replace_raw(row: BadRow, **fields: int) -> BadRow:
    return BadRow(reason="likes", raw=json.dumps(json.loads(row.raw) | fields), instance_id="a", post_date=NOON)


def test_what_is_unknown_in_any_answer_is_kept() -> None:
    whole = walk_of(post_of(1, "likes", likes=1, extra='{"a":1,"b":2}'), metrics="likes")
    further = walk_of(post_of(1, "views", views=5, extra='{"b":3,"c":4}'), metrics="views")
    (first, _) = with_values([whole], [further], metrics=BOTH)
    assert first.posts[0].extra == '{"a":1,"b":2,"c":4}'


def test_a_metric_that_has_its_column_is_not_unknown_where_it_comes_unasked() -> None:
    whole = walk_of(post_of(1, "likes", likes=1), metrics="likes")
    for extra, left in (('{"likes":1}', None), ('{"b":3,"likes":1}', '{"b":3}')):
        further = walk_of(post_of(1, "views", views=5, extra=extra), metrics="views")
        (first, _) = with_values([whole], [further], metrics=BOTH)
        assert (first.posts[0].likes, first.posts[0].extra) == (1, left)


# In a run


def landed(service: Service, root: Path, metrics: tuple[Metric, ...]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    asyncio.run(
        ingest(
            [Partition(DAY, "a")],
            source=Source("posts_published", DateBasis.POST_DATE),
            client=cast(LaterClient, service),
            lake=Lake(str(root)),
            deliver=outcomes.append,
            metrics=metrics,
        )
    )
    return outcomes


@pytest.mark.parametrize("wording", WORDINGS)
def test_a_refusal_costs_no_day(wording: str, tmp_path: Path) -> None:
    service = Service(only_stories_navigate(), WORDINGS[wording])
    (outcome,) = landed(service, tmp_path, METRICS)
    assert isinstance(outcome, Landed)
    table = Lake(str(tmp_path)).read("posts_published", [Partition(DAY, "a")], schema=posts_schema(METRICS))
    assert table.equals(outcome.table)
    for row, (number, content_type) in zip(table.to_pylist(), service.posts, strict=True):
        for metric in METRICS:
            is_there = content_type == "instagram_story" or not metric.api_name.startswith("navigation")
            assert row[metric.column] == (value(number, metric) if is_there else None)
    facts = Lake(str(tmp_path)).facts("posts_published", Partition(DAY, "a"))
    assert facts is not None
    assert json.loads(facts.facts["metrics"]) == NAMES


def test_where_no_metric_may_be_asked_for_the_partition_fails_and_says_why(tmp_path: Path) -> None:
    service = Service(dict.fromkeys(CONTENT_TYPES, set[str]()), WORDINGS["names the bad"])
    (outcome,) = landed(service, tmp_path, metrics_named("likes, reach"))
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, MetricsRefused)
    assert not [*tmp_path.rglob("*.parquet")]
