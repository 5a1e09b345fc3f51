"""A post arrives without anything invented or lost, however it is written; what cannot be true is a bad row."""

import json
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import (
    DOCUMENT_METRICS,
    METRICS,
    BadRow,
    CreatorProfile,
    Pagination,
    Post,
    UnreadablePage,
    instances_page_from_body,
    metrics_named,
    page_from_body,
    post_type,
)
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.contract.post import flattener, nested_post_type, post_from_json

SAMPLE = Path(__file__).parents[1] / "samples" / "post_performance" / "200.json"
ROW = {"instanceId": "instance_abc", "campaignId": 1, "postId": 2, "postDate": "2024-07-15T14:30:00.000Z"}


def body_of(*rows: str) -> bytes:
    count = len(rows)
    return (
        f'{{"data": [{", ".join(rows)}], '
        f'"pagination": {{"page": 1, "pageSize": 50, "totalItems": {count}, "totalPages": 1}}}}'
    ).encode()


def read(**changes: object) -> Post | BadRow:
    return read_text(json.dumps(ROW | changes))


def read_text(row: str) -> Post | BadRow:
    page = page_from_body(body_of(row))
    (only,) = [*page.posts, *page.bad_rows]
    return only


def read_with(name: str, literal: str) -> Post | BadRow:
    """Reads a post whose field is exactly this JSON, which Python itself might not write."""
    return read_text(json.dumps(ROW | {name: "?"}).replace('"?"', literal))


def test_the_sample_answer_of_the_document_value_for_value():
    (row,) = json.loads(SAMPLE.read_bytes())["data"]
    page = page_from_body(SAMPLE.read_bytes())
    (post,) = page.posts
    assert page.pagination == Pagination(page=1, page_size=50, total_items=142, total_pages=3)
    assert (post.key, post.extra, page.bad_rows) == (("instance_abc", 49761, 1234), None, [])
    assert post.post_date == datetime(2024, 7, 15, 14, 30, tzinfo=UTC)
    assert row.pop("postDate") == "2024-07-15T14:30:00.000Z"
    for read, written in ((post.creator_profile, row.pop("creatorProfile")), (post, row)):
        assert {name: getattr(read, re.sub("[A-Z]", r"_\g<0>", name).lower()) for name in written} == written
    assert isinstance(post.estimated_value_generated, float)


@pytest.mark.parametrize("metric", DOCUMENT_METRICS, ids=lambda metric: metric.api_name)
def test_absent_and_null_are_not_available_and_zero_is_zero(metric):
    assert getattr(read(), metric.column) is None
    assert getattr(read(**{metric.api_name: None}), metric.column) is None
    zero = getattr(read(**{metric.api_name: 0}), metric.column)
    assert zero == 0
    assert type(zero) is (int if metric.kind is Kind.COUNT else float)


@pytest.mark.parametrize(
    ("literal", "count"),
    [
        ("8500.0", 8500),
        ("8.5e3", 8500),
        ("0", 0),
        ("-0.0", 0),
        ("9007199254740993", 2**53 + 1),
        ("9007199254740991.0", 2**53 - 1),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_a_count_is_read_exactly(literal, count):
    impressions = read_with("impressions", literal).impressions
    assert impressions == count
    assert type(impressions) is int


@pytest.mark.parametrize(
    ("literal", "reason"),
    [
        ("8500.5", "impressions is a whole number, not 8500.5"),
        ("18446744073709551616", "impressions does not fit 64 bits: 18446744073709551616"),
        ("9223372036854775808", "impressions does not fit 64 bits: 9223372036854775808"),
        # 2^53 + 1 as a float has already lost its last digit: which count it was cannot be told.
        ("9007199254740993.0", "impressions is a whole number, not 9007199254740992.0"),
        ("1e400", "impressions is a whole number, not Infinity"),
        ("NaN", "impressions is a whole number, not NaN"),
        ("true", "impressions is a whole number, not true"),
        ("-1", "impressions counts something and is not negative: -1"),
        ("-1.0", "impressions counts something and is not negative: -1.0"),
        ('"8500"', 'impressions is a whole number, not "8500"'),
        ("[1]", "impressions is a whole number, not [1]"),
        pytest.param("9" * 10**6, "impressions is a whole number, not Infinity", id="a million digits"),
    ],
)
def test_a_count_that_cannot_be_true_is_a_bad_row(literal, reason):
    row = read_with("impressions", literal)
    assert isinstance(row, BadRow)
    assert row.reason == reason
    assert (row.instance_id, row.post_date) == ("instance_abc", datetime(2024, 7, 15, 14, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("literal", "reason"),
    [
        ("NaN", "cpm is not finite: NaN"),
        ("-Infinity", "cpm is not finite: -Infinity"),
        ("1e400", "cpm is not finite: Infinity"),
        ("1" + "0" * 400, "cpm is not finite: 10000000…"),
        pytest.param("-" + "9" * 10**6, "cpm is not finite: -Infinity", id="a million digits"),
        ("false", "cpm is a number, not false"),
        ('"0.24"', 'cpm is a number, not "0.24"'),
    ],
)
def test_a_rate_that_cannot_be_true_is_a_bad_row(literal, reason):
    row = read_with("cpm", literal)
    assert isinstance(row, BadRow)
    assert row.reason == reason


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("2024-07-15T14:30:00Z", datetime(2024, 7, 15, 14, 30, tzinfo=UTC)),
        ("2024-02-29T23:59:59.999999Z", datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2024-07-15T23:30:00-05:00", datetime(2024, 7, 16, 4, 30, tzinfo=UTC)),
        ("2024-07-15T00:30:00+02:00", datetime(2024, 7, 14, 22, 30, tzinfo=UTC)),
    ],
)
def test_an_instant_is_utc_whatever_its_offset(written, instant):
    post_date = read(postDate=written).post_date
    assert post_date == instant
    assert post_date.tzinfo is UTC
    assert post_date.date() == instant.date()


@pytest.mark.parametrize(
    "written",
    ["2024-07-15T14:30:00", "2024-07-15", "2023-02-29T00:00:00Z", "yesterday", "", "9999-12-31T23:59:59-10:00"],
)
def test_an_instant_without_zone_or_sense_is_a_bad_row(written):
    row = read(postDate=written)
    assert isinstance(row, BadRow)
    assert row.reason == f'postDate is an ISO 8601 instant with its zone, not "{written}"'
    assert (row.instance_id, row.post_date) == ("instance_abc", None)


@pytest.mark.parametrize("name", ["instanceId", "campaignId", "postId", "postDate"])
def test_a_post_without_its_identity_is_a_bad_row(name):
    for row in (read(**{name: None}), read_text(json.dumps({k: v for k, v in ROW.items() if k != name}))):
        assert isinstance(row, BadRow)
        assert row.reason == f"{name} is missing"


def test_a_bad_row_names_every_problem_and_keeps_the_whole_row():
    row = read(impressions="many", cpm=True, campaignId=None, likes=3)
    assert isinstance(row, BadRow)
    assert set(row.reason.split("; ")) == {
        "campaignId is missing",
        'impressions is a whole number, not "many"',
        "cpm is a number, not true",
    }
    assert json.loads(row.raw) == ROW | {"impressions": "many", "cpm": True, "campaignId": None, "likes": 3}


@pytest.mark.parametrize("literal", ["null", "[]", '"post"', "5", "true"])
def test_a_row_that_is_no_object_is_a_bad_row(literal):
    row = read_text(literal)
    assert isinstance(row, BadRow)
    assert row.raw == literal


@pytest.mark.parametrize(
    ("name", "literal", "reason"),
    [
        *((name, '"a\\ud800b"', f'{name} is not valid Unicode: "a\\ud800b"') for name in ("instanceId", "contentUrl")),
        ("creatorProfile", '{"fullName": "\\udfff"}', 'creatorProfile is not valid Unicode: "\\udfff"'),
        ("creatorProfile", '["Jane"]', "creatorProfile is an object, not an array"),
        ("saves", "NaN", "an unknown field holds a number that is not finite"),
    ],
)
def test_text_or_an_object_that_cannot_be_stored_is_a_bad_row_whose_raw_can(name, literal, reason):
    row = read_with(name, literal)
    assert isinstance(row, BadRow)
    assert row.reason == reason
    row.raw.encode()


def test_text_arrives_as_it_was_sent():
    text = "\u202eevil\n\t\0 🎉 日本"
    assert read(contentUrl=text).content_url == text
    assert read_with("contentUrl", '"\\ud83d\\ude00"').content_url == "😀"


def test_unknown_fields_are_kept_and_nothing_else_is():
    post = read(trackingLinksClicks=None, impressions=3, likes={"b": [1, None], "a": 0.5})
    assert post.impressions == 3
    assert post.extra == '{"likes":{"a":0.5,"b":[1,null]},"trackingLinksClicks":null}'


def test_unknown_fields_of_the_profile_are_kept_under_its_name():
    post = read(creatorProfile={"fullName": "Jane", "followers": 5}, saves=1)
    assert post.creator_profile == CreatorProfile(full_name="Jane")
    assert json.loads(post.extra) == {"creatorProfile": {"followers": 5}, "saves": 1}


def test_the_server_cannot_write_extra_itself():
    post = read(**{"\ue000extra": "smuggled"})
    assert json.loads(post.extra) == {"\ue000extra": "smuggled"}


@pytest.mark.parametrize("profile", [None, {}])
def test_a_profile_may_be_null_or_empty(profile):
    assert read(creatorProfile=profile).creator_profile == (None if profile is None else CreatorProfile())
    assert read().creator_profile is None


def test_an_unknown_content_type_is_data():
    assert read(contentType="threads_post").content_type == "threads_post"


def test_good_rows_land_beside_bad_ones():
    page = page_from_body(body_of(json.dumps(ROW), json.dumps(ROW | {"postId": 2.5}), json.dumps(ROW | {"postId": 3})))
    assert [post.post_id for post in page.posts] == [2, 3]
    assert [row.reason for row in page.bad_rows] == ["postId is a whole number, not 2.5"]
    assert page.pagination.total_items == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        body_of(json.dumps(ROW))[:-20],
        b"null",
        b"[]",
        b'{"data": []}',
        b'{"pagination": {"page": 1, "pageSize": 1, "totalItems": 0, "totalPages": 0}}',
        b'{"data": {}, "pagination": {"page": 1, "pageSize": 1, "totalItems": 0, "totalPages": 0}}',
        b'{"data": [], "pagination": {"page": 1, "pageSize": 1, "totalItems": "0", "totalPages": 0}}',
        b'{"data": [], "nextCursor": null}',
        b"\xff\xfe\xfa",
        b'{"data": [], "pagination": {"page": 1, "pageSize": 1, "totalItems": 0, "totalPages": 0, "x": '
        + b"[" * 100_000
        + b"]" * 100_000
        + b"}}",
    ],
)
def test_a_body_that_is_no_page_is_unreadable(body):
    with pytest.raises(UnreadablePage, match="not a page of posts"):
        page_from_body(body)
    with pytest.raises(UnreadablePage, match="not a page of instances"):
        instances_page_from_body(body)


@pytest.mark.parametrize("depth", [10, *range(900, 1_000, 10), 100_000])
def test_nesting_costs_at_most_the_page(depth):
    with suppress(UnreadablePage):
        assert len(page_from_body(body_of(f'{{"deep": {"[" * depth}{"]" * depth}}}')).bad_rows) == 1


def test_a_page_of_instances():
    page = instances_page_from_body(
        b'{"data": {"instanceIds": ["a", "b,c"]}, '
        b'"pagination": {"page": 1, "pageSize": 50, "totalItems": 2, "totalPages": 1}}'
    )
    assert page.data.instance_ids == ["a", "b,c"]
    assert page.pagination == Pagination(page=1, page_size=50, total_items=2, total_pages=1)


INT64 = st.integers(-(2**63), 2**63 - 1)
COUNT = st.integers(0, 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timedelta(minutes=minutes))


@st.composite
def rows(draw, metrics=DOCUMENT_METRICS):
    """Posts as the document has them: any value of the right type, null, or nothing."""
    instant = draw(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001 - gets its zone below
    row = {
        "instanceId": draw(TEXT),
        "campaignId": draw(INT64),
        "postId": draw(INT64),
        "postDate": instant.replace(tzinfo=timezone(draw(st.just(timedelta()) | OFFSETS))).isoformat(),
    }
    optional = {name: TEXT for name in ("contentType", "contentUrl", "contentImageUrl")} | {"creatorId": INT64}
    for metric in metrics:
        is_count = metric.kind.is_whole
        optional[metric.api_name] = COUNT if is_count else st.floats(allow_nan=False, allow_infinity=False) | INT64
    for name, values in optional.items():
        if draw(st.booleans()):
            row[name] = draw(st.none() | values)
    if draw(st.booleans()):
        names = ("contentType", "fullName", "handleName", "profileImage", "profileLink")
        profile = st.dictionaries(st.sampled_from(names), st.none() | TEXT)
        row["creatorProfile"] = draw(st.none() | profile)
    return row


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(rows(), st.sampled_from([*ROW, "impressions", "cpm", "creatorProfile", "contentUrl", "saves"]), VALUES)
def test_any_value_in_any_field_gives_a_post_or_a_bad_row_and_the_same_one_on_both_paths(row, name, value):
    text = json.dumps(row | {name: value})
    page = page_from_body(body_of(text))
    slow = post_from_json(json.loads(text))
    assert repr([*page.posts, *page.bad_rows]) == repr([slow])
    if isinstance(slow, BadRow):
        assert repr(json.loads(slow.raw)) == repr(json.loads(text))


SELECTIONS = st.lists(st.sampled_from(METRICS), max_size=6, unique=True).map(
    lambda chosen: tuple(metric for metric in METRICS if metric in chosen)
)


def nested(row):
    """The row as the cursor revision has it: every metric that is known lies under `metrics`."""
    names = {metric.api_name for metric in METRICS}
    beside = {name: value for name, value in row.items() if name not in names}
    return beside | {"metrics": {name: value for name, value in row.items() if name in names}}


@given(rows(METRICS), SELECTIONS)
def test_both_revisions_and_both_paths_read_the_same_post_of_any_metrics(row, metrics):
    asked_for = {metric.api_name for metric in metrics}
    unasked = {metric.api_name for metric in METRICS} - asked_for
    row = {name: value for name, value in row.items() if name not in unasked}
    post = post_from_json(row, metrics=metrics)
    assert type(post) is post_type(metrics)
    assert post == post_from_json(nested(row), metrics=metrics, nested=True)
    text = json.dumps(row)
    assert post == with_utc(msgspec.json.decode(text, type=post_type(metrics)))
    exact = msgspec.json.decode(json.dumps(nested(row)), type=nested_post_type(metrics))
    assert post == with_utc(flattener(metrics)(exact))


def with_utc(post):
    return msgspec.structs.replace(post, post_date=post.post_date.astimezone(UTC))


@given(rows(METRICS), SELECTIONS, st.booleans())
def test_a_value_that_was_not_asked_for_is_kept_as_what_is_unknown_is(row, metrics, is_nested):
    asked_for = {metric.api_name for metric in metrics}
    post = post_from_json(nested(row) if is_nested else row, metrics=metrics, nested=is_nested)
    known = {metric.api_name for metric in METRICS}
    unasked = {name: value for name, value in row.items() if name in known - asked_for}
    assert json.loads(post.extra or "{}") == unasked
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(json.dumps(ROW | {"reach": 1}), type=post_type(DOCUMENT_METRICS))


def test_what_is_unknown_among_nested_metrics_is_kept_by_its_name_and_by_its_place_where_that_tells_more():
    row = ROW | {"reach": 1, "metrics": {"reach": 2, "likes": 3, "clicks": 4, "postId": 5, "contentUrl": 6}}
    post = post_from_json(row, metrics=metrics_named("likes"), nested=True)
    assert post.likes == 3
    assert post.content_url is None
    assert json.loads(post.extra) == {"reach": 1, "clicks": 4, "metrics": {"reach": 2, "postId": 5, "contentUrl": 6}}


@pytest.mark.parametrize("metrics", [[], 0, "", "likes", False])
def test_metrics_that_are_no_object_cannot_be_true(metrics):
    row = ROW | {"metrics": metrics}
    bad = post_from_json(row, nested=True)
    assert bad.reason.startswith("metrics is an object, not ")
    assert json.loads(bad.raw) == row
    assert bad.instance_id == "instance_abc"


@pytest.mark.parametrize("without", [{}, {"metrics": None}, {"metrics": {}}])
def test_a_nested_post_without_metrics_has_none_available(without):
    assert post_from_json(ROW | without, nested=True) == post_from_json(ROW)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.api_name)
def test_whole_numbers_are_those_of_counts_and_levels(metric):
    def read(value, **how):
        return post_from_json(ROW | value, metrics=(metric,), **how)

    post, within = read({metric.api_name: 3.0}), read({"metrics": {metric.api_name: 3}}, nested=True)
    value = getattr(post, metric.column)
    assert (value, type(value)) == (3, int if metric.kind.is_whole else float)
    assert within == post
    is_bad = isinstance(read({metric.api_name: 3.5}), BadRow)
    assert is_bad == metric.kind.is_whole
