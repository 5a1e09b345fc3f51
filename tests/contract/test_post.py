"""Tests of post parsing: no value is changed or lost, and a row with an invalid value is a bad row."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import CURSOR, DEFAULT_METRICS, METRICS, BadRow, DateBasis, Post, parse_metrics
from later_reporting_dagster.contract.page import ListResult
from later_reporting_dagster.contract.rows import CreatorProfile, with_metrics
from tests.client.scripted_api import nest_metrics, post_parser, posts_page_from_body

SAMPLE = Path(__file__).parents[1] / "samples" / "post_performance" / "200.json"
ROW = {"instanceId": "instance_abc", "campaignId": 1, "postId": 2, "postDate": "2024-07-15T14:30:00.000Z"}


def body_of(*rows: str) -> bytes:
    count = len(rows)
    return (
        f'{{"data": [{", ".join(rows)}], '
        f'"pagination": {{"page": 1, "pageSize": 50, "totalItems": {count}, "totalPages": 1}}}}'
    ).encode()


def parse(**changes: object) -> Post | BadRow:
    return parse_text(json.dumps(ROW | changes))


def parse_text(row: str) -> Post | BadRow:
    page = posts_page_from_body(body_of(row))
    (only,) = [*page.items, *page.bad_rows]
    return only


def page_of_literal(name: str, literal: str) -> ListResult:
    """Parse a row in which a field is this JSON text, which the standard library might not write."""
    return posts_page_from_body(body_of(json.dumps(ROW | {name: "?"}).replace('"?"', literal)))


def parse_literal(name: str, literal: str) -> Post | BadRow:
    page = page_of_literal(name, literal)
    (only,) = [*page.items, *page.bad_rows]
    return only


def test_sample_response_of_the_api_reference_parses_value_by_value():
    (row,) = json.loads(SAMPLE.read_bytes())["data"]
    page = posts_page_from_body(SAMPLE.read_bytes())
    (post,) = page.items
    assert (page.number, page.stated_total) == (1, 142)
    assert (post.key, post.extra, page.bad_rows) == (("instance_abc", 49761, 1234), None, [])
    assert post.post_date == datetime(2024, 7, 15, 14, 30, tzinfo=UTC)
    assert row.pop("postDate") == "2024-07-15T14:30:00.000Z"
    for parsed, written in ((post.creator_profile, row.pop("creatorProfile")), (post, row)):
        assert {name: getattr(parsed, re.sub("[A-Z]", r"_\g<0>", name).lower()) for name in written} == written
    assert isinstance(post.estimated_value_generated, float)  # type: ignore[attr-defined]


def test_count_of_a_day_can_be_negative_and_a_number_of_people_cannot():
    metrics = parse_metrics("impressions,reach")
    parse = post_parser(metrics, of_days=True)
    assert parse(ROW | {"impressions": -3, "reach": 2}).impressions == -3  # type: ignore[union-attr]
    assert parse(ROW | {"reach": -3}).reason == "reach must not be negative: -3"  # type: ignore[union-attr]
    assert parse(ROW | {"impressions": -(10**12)}).reason.startswith("impressions is below -100,000,000,000: ")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("literal", "count"), [("8500.0", 8500), ("8.5e3", 8500), ("0", 0), ("-0.0", 0), ("100000000000", 10**11)]
)
def test_count_is_exact(literal, count):
    impressions = parse_literal("impressions", literal).impressions
    assert impressions == count
    assert type(impressions) is int


@pytest.mark.parametrize(
    ("name", "literal", "reason"),
    [
        ("impressions", "100000000001", "impressions is not at most 100,000,000,000: 100000000001"),
        ("impressions", '"100000000001"', "impressions is not at most 100,000,000,000: 100000000001"),
        ("impressions", "-1", "impressions must not be negative: -1"),
        ("impressions", '"-1"', "impressions must not be negative: -1"),
        ("impressions", "9" * 10**6, "impressions is not at most 100,000,000,000: Infinity"),
        ("impressions", "NaN", "impressions is not at most 100,000,000,000: NaN"),
        ("cpm", "1000000000.01", "cpm is not at most 1,000,000,000: 1000000000.01"),
        ("cpm", "-2e12", "cpm is below -1,000,000,000: -2000000000000.0"),
        ("cpm", "NaN", "cpm is not at most 1,000,000,000: NaN"),
        ("cpm", "1" + "0" * 400, f"cpm is not at most 1,000,000,000: 1{'0' * 79}…"),
        *(
            ("postDate", f'"{date}"', f'postDate must be an ISO 8601 time with its zone, not "{date}"')
            for date in ("yesterday", "2023-02-29T00:00:00Z", "9999-12-31T23:59:59-10:00", "1721053800")
        ),
        ("postDate", "1721053800", "postDate must be a string, not 1721053800"),
        *(
            (name, literal, f"{name} is missing")
            for name in ("instanceId", "campaignId", "postId", "postDate")
            for literal in ("null", '""')
        ),
        ("instanceId", '"a\\ud800b"', 'instanceId is not valid Unicode: "a\\ud800b"'),
        ("postId", '"007"', 'postId must be a whole number, not "007"'),
        ("postId", '"1e3"', 'postId must be a whole number, not "1e3"'),
        ("postId", "9223372036854775808", "postId does not fit 64 bits: 9223372036854775808"),
        ("boosts", "NaN", "a field without a column holds a number that is not finite"),
        ("impressions", "[NaN]", "a field without a column holds a number that is not finite"),
    ],
    ids=lambda value: value[:20],
)
def test_row_without_a_key_or_that_cannot_be_true_is_a_bad_row_of_its_instance_and_time(name, literal, reason):
    row = parse_literal(name, literal)
    assert isinstance(row, BadRow)
    assert row.reason == reason
    assert row.instance_id == (None if name == "instanceId" else "instance_abc")
    assert row.post_date == (None if name == "postDate" else datetime(2024, 7, 15, 14, 30, tzinfo=UTC))
    row.raw.encode()


@pytest.mark.parametrize(
    ("name", "literal"),
    [
        ("impressions", "8500.5"),
        ("impressions", "true"),
        ("impressions", '"12 k"'),
        ("impressions", '"1,240"'),
        ("impressions", '"007"'),
        ("impressions", '{"value":12}'),
        ("cpm", "false"),
        ("cpm", '"14.59%"'),
        ("engagementRate", '"%"'),
        ("creatorId", '"usr_12"'),
        ("creatorId", "9223372036854775808"),
        ("contentType", "7"),
        ("contentUrl", '"a\\ud800b"'),
        ("creatorProfile", '["Jane"]'),
        ("creatorProfile", '"Jane"'),
    ],
)
def test_value_that_cannot_be_read_is_null_and_kept_as_it_was_sent(name, literal):
    page = page_of_literal(name, literal)
    (row,) = page.items
    column = re.sub("[A-Z]", r"_\g<0>", name).lower()
    assert getattr(row, column) is None
    assert row.extra == f'{{"{name}":{literal}}}'
    assert page.unreadable == {row.key: {column: literal}}
    assert page.oddities == {f"{name} cannot be read": 1}


def test_part_of_a_profile_that_cannot_be_read_is_null():
    (row,) = page_of_literal("creatorProfile", '{"fullName": 5, "handleName": "jane"}').items
    assert row.creator_profile == CreatorProfile(handle_name="jane")
    assert row.extra == '{"creatorProfile":{"fullName":5}}'


@pytest.mark.parametrize(
    ("name", "literal", "value"),
    [
        ("impressions", '"12"', 12),
        ("impressions", '"12.0"', 12),
        ("impressions", '""', None),
        ("cpm", '"0.24"', 0.24),
        ("cpm", '"-3"', -3.0),
        ("engagementRate", '"14.59%"', 14.59),
        ("engagementRate", '"14.59 %"', 14.59),
        ("engagementRate", '"14.59"', 14.59),
        ("campaignId", '"49761"', 49761),
        ("postId", '"9223372036854775807"', 2**63 - 1),
        ("creatorId", '"12"', 12),
        ("instanceId", "12", "12"),
        ("creatorProfile", "null", None),
        ("contentUrl", '""', ""),
    ],
)
def test_value_in_another_spelling_is_read(name, literal, value):
    page = page_of_literal(name, literal)
    (row,) = page.items
    read = getattr(row, re.sub("[A-Z]", r"_\g<0>", name).lower())
    assert (read, type(read)) == (value, type(value))
    assert (row.extra, page.unreadable) == (None, {})
    is_documented = literal == "null" or name == "contentUrl"
    assert page.oddities == ({} if is_documented else {f"{name} spelled otherwise": 1})


@pytest.mark.parametrize("date", ["yesterday", None])
def test_post_of_a_day_needs_no_date(date):
    page = posts_page_from_body(body_of(json.dumps(ROW | {"postDate": date})), date_basis=DateBasis.PERFORMANCE_DATE)
    (row,) = page.items
    assert row.post_date is None
    assert row.extra == (date and '{"postDate":"yesterday"}')


def test_row_without_an_instance_is_of_the_only_one_that_was_asked_for():
    row = {name: value for name, value in ROW.items() if name != "instanceId"}
    page = posts_page_from_body(body_of(json.dumps(row), json.dumps(ROW)), instance_ids=("b",))
    assert [each.instance_id for each in page.items] == ["b", "instance_abc"]
    assert page.oddities == {"instanceId missing": 1}


@pytest.mark.parametrize("nested", [True, False])
def test_metrics_at_the_other_place_are_read(nested):
    parse = post_parser(parse_metrics("likes,impressions"), nested=nested)
    row = {"impressions": 3, "likes": None}
    sent = ROW | row if nested else ROW | {"metrics": row}
    assert parse(sent) == parse(ROW | ({"metrics": row} if nested else row))
    # A value at the documented place counts, also if it is null.
    other = ROW | (
        {"metrics": {"impressions": None}, "impressions": 3}
        if nested
        else {"impressions": None, "metrics": {"impressions": 3}}
    )
    assert parse(other).impressions is None


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("2024-07-15T14:30:00Z", datetime(2024, 7, 15, 14, 30, tzinfo=UTC)),
        ("2024-02-29T23:59:59.999999Z", datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)),
        ("2024-07-15T23:30:00-05:00", datetime(2024, 7, 16, 4, 30, tzinfo=UTC)),
        ("2024-07-15T00:30:00+02:00", datetime(2024, 7, 14, 22, 30, tzinfo=UTC)),
        ("2024-07-15T00:30:00.000+0200", datetime(2024, 7, 14, 22, 30, tzinfo=UTC)),
        ("2024-07-15 14:30:00Z", datetime(2024, 7, 15, 14, 30, tzinfo=UTC)),
        ("2024-07-15t14:30:00z", datetime(2024, 7, 15, 14, 30, tzinfo=UTC)),
        ("2024-07-15T23:59:59.9999999Z", datetime(2024, 7, 15, 23, 59, 59, 999999, tzinfo=UTC)),  # cut, not rounded
        ("2024-07-15T14:30:00.5", datetime(2024, 7, 15, 14, 30, 0, 500000, tzinfo=UTC)),
        ("2024-07-15", datetime(2024, 7, 15, tzinfo=UTC)),
    ],
)
def test_post_date_is_converted_to_utc(written, instant):
    post_date = parse(postDate=written).post_date
    assert post_date == instant
    assert post_date.tzinfo is UTC
    assert post_date.date() == instant.date()


def test_bad_row_lists_every_problem_and_keeps_the_raw_row():
    row = parse(impressions=-1, cpm=True, campaignId=None, likes=3)
    assert isinstance(row, BadRow)
    assert set(row.reason.split("; ")) == {"campaignId is missing", "impressions must not be negative: -1"}
    assert json.loads(row.raw) == ROW | {"impressions": -1, "cpm": True, "campaignId": None, "likes": 3}


@pytest.mark.parametrize("literal", ["null", "[]"])
def test_row_that_is_not_an_object_is_a_bad_row(literal):
    row = parse_text(literal)
    assert isinstance(row, BadRow)
    assert row.raw == literal


def test_extra_holds_fields_without_a_column():
    post = parse(trackingLinksClicks=None, impressions=3, likes=4, boosts={"b": [1, None], "a": 0.5})
    assert post.impressions == 3
    assert post.extra == '{"boosts":{"a":0.5,"b":[1,null]},"likes":4,"trackingLinksClicks":null}'


def test_extra_nests_unknown_fields_of_the_creator_profile():
    post = parse(creatorProfile={"fullName": "Jane", "followers": 5}, boosts=1)
    assert post.creator_profile == CreatorProfile(full_name="Jane")
    assert json.loads(post.extra) == {"creatorProfile": {"followers": 5}, "boosts": 1}


INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timedelta(minutes=minutes))


@st.composite
def rows(draw, metrics=DEFAULT_METRICS):
    """Draw rows as in the API reference: any value of the right type, null, or absent."""
    instant = draw(st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001 - the zone is added below
    row = {
        "instanceId": draw(TEXT.filter(bool)),
        "campaignId": draw(INT64),
        "postId": draw(INT64),
        "postDate": instant.replace(tzinfo=timezone(draw(st.just(timedelta()) | OFFSETS))).isoformat(),
    }
    optional = {
        "contentType": TEXT | st.sampled_from(["tiktok", "instagram_reel", "unknown_type"]),
        **dict.fromkeys(("contentUrl", "contentImageUrl"), TEXT),
        "creatorId": INT64,
    }
    for metric in metrics:
        most = metric.kind.maximum
        optional[metric.api_name] = (
            st.integers(0, most) if metric.kind.is_integer else st.floats(-most, most) | st.integers(-most, most)
        )
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


@given(rows(), st.sampled_from([*ROW, "impressions", "cpm", "creatorProfile", "contentUrl", "boosts"]), VALUES)
def test_any_value_of_any_field_is_a_post_or_a_bad_row_with_all_of_it_in_both_api_versions(row, name, value):
    changed = row | {name: value}
    text, nested = json.dumps(changed), json.dumps(nest_metrics(changed))
    page = posts_page_from_body(body_of(text))
    assert page.total_items == 1
    for bad in page.bad_rows:
        assert repr(json.loads(bad.raw)) == repr(json.loads(text))
    by_cursor = posts_page_from_body(f'{{"data": [{nested}], "nextCursor": null}}'.encode(), api_version=CURSOR)
    assert by_cursor.items == page.items
    assert [bad.reason for bad in by_cursor.bad_rows] == [bad.reason for bad in page.bad_rows]


SELECTIONS = st.lists(st.sampled_from(METRICS), max_size=6, unique=True).map(
    lambda chosen: tuple(metric for metric in METRICS if metric in chosen)
)


@given(rows(METRICS), SELECTIONS)
def test_both_api_versions_yield_the_same_post_for_any_metrics(row, metrics):
    post = post_parser(metrics)(row)
    assert type(post) is with_metrics(Post, metrics)
    assert post == post_parser(metrics, nested=True)(nest_metrics(row))
    for metric in metrics:
        assert getattr(post, metric.column) == row.get(metric.api_name)
    others = {metric.api_name for metric in METRICS if metric not in metrics}
    assert json.loads(post.extra or "{}") == {name: value for name, value in row.items() if name in others}


@pytest.mark.parametrize("name", ["boosts", "postId", "contentUrl"])
def test_extra_nests_unknown_metrics_only_if_the_name_of_one_is_ambiguous(name):
    row = ROW | {"boosts": 1, "metrics": {name: 2, "likes": 3, "clicks": 4}}
    post = post_parser(parse_metrics("likes"), nested=True)(row)
    assert post.likes == 3
    assert post.content_url is None
    assert json.loads(post.extra) == {"boosts": 1, "metrics": {name: 2, "clicks": 4}}


@pytest.mark.parametrize("metrics", [[], "likes"])
def test_metrics_that_are_no_object_cannot_be_read(metrics):
    text = json.dumps(ROW | {"metrics": metrics})
    page = posts_page_from_body(f'{{"data": [{text}], "nextCursor": null}}'.encode(), CURSOR)
    (row,) = page.items
    assert json.loads(row.extra) == {"metrics": metrics}
    assert page.unreadable[row.key] == {metric.column: json.dumps(metrics) for metric in DEFAULT_METRICS}
