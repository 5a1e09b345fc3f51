"""Either revision gives the same posts of the same pages, and what is in neither is refused."""

import json
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import (
    CURSOR,
    DOCUMENT_METRICS,
    PAGED,
    OtherRevision,
    Post,
    PostPerformanceQuery,
    UnreadablePage,
    cursor_page_from_body,
    instances_cursor_page_from_body,
    instances_page_from_body,
    page_from_body,
)
from later_reporting_dagster.contract.api_version import revision_with

PAGINATION = {"page": 1, "pageSize": 100, "totalItems": 1, "totalPages": 1}
NAMES = {metric.api_name for metric in DOCUMENT_METRICS}
ROW = {
    "instanceId": "a",
    "campaignId": 1,
    "postId": 2,
    "creatorId": 3,
    "postDate": "2024-07-01T00:00:00.000Z",
    "contentType": "tiktok",
    "creatorProfile": {"fullName": "Ada"},
    "impressions": 8500,
    "engagements": 0,
    "cpe": 0.24,
    "cpm": None,
}


def paged(rows: list) -> bytes:
    return json.dumps({"data": rows, "pagination": PAGINATION}).encode()


def nested(row: dict) -> dict:
    metrics = {name: value for name, value in row.items() if name in NAMES}
    return {name: value for name, value in row.items() if name not in NAMES} | {"metrics": metrics}


def by_cursor(rows: list, cursor: object = None) -> bytes:
    return json.dumps({"data": rows, "nextCursor": cursor}).encode()


def rows_of(page) -> tuple[list[Post], list[tuple]]:
    """The posts, and the bad rows wherever their metrics lie."""
    raw = [json.loads(row.raw) for row in page.bad_rows]
    flat = [row | row.pop("metrics", {}) for row in raw]
    return page.posts, [
        (row.reason, fields, row.instance_id, row.post_date) for row, fields in zip(page.bad_rows, flat, strict=True)
    ]


ODD = st.none() | st.integers(-(2**65), 2**65) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)


@given(st.dictionaries(st.sampled_from([*ROW, "paidCpe", "surprise", "contentUrl"]), ODD), st.sampled_from([*ROW]))
def test_both_forms_of_a_row_are_read_alike(changes, missing):
    row = ROW | changes
    del row[missing]
    assert rows_of(cursor_page_from_body(by_cursor([nested(ROW), nested(row)]))) == rows_of(
        page_from_body(paged([ROW, row]))
    )


def test_the_usual_row_takes_the_short_way_and_a_strange_one_the_long_way():
    (short,) = cursor_page_from_body(by_cursor([nested(ROW)], "on")).posts
    (long,) = cursor_page_from_body(by_cursor([nested(ROW | {"surprise": 1})], "on")).posts
    assert short.extra is None
    assert long.extra == '{"surprise":1}'
    assert (short.key, short.impressions, short.engagements, short.cpm) == (("a", 1, 2), 8500, 0, None)


@pytest.mark.parametrize("cursor", [None, "on", "é+/="])
def test_the_cursor_of_the_next_page_is_as_it_came(cursor):
    for row in (nested(ROW), nested(ROW | {"surprise": 1})):
        assert cursor_page_from_body(by_cursor([row], cursor)).next_cursor == cursor
    instances = json.dumps({"data": {"instanceIds": ["a"]}, "nextCursor": cursor}).encode()
    assert instances_cursor_page_from_body(instances).next_cursor == cursor


@pytest.mark.parametrize("envelope", [{}, {"nextCursor": ""}, {"nextCursor": 5}, {"next": None}])
@pytest.mark.parametrize("row", [nested(ROW), nested(ROW) | {"surprise": 1}], ids=["usual", "strange"])
def test_a_page_that_does_not_say_whether_there_is_another_is_unreadable(envelope, row):
    with pytest.raises(UnreadablePage, match="not a page of posts"):
        cursor_page_from_body(json.dumps({"data": [row]} | envelope).encode())
    with pytest.raises(UnreadablePage, match="not a page of instances"):
        instances_cursor_page_from_body(json.dumps({"data": {"instanceIds": []}} | envelope).encode())


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b'{"data": [', b'{"data": {}, "nextCursor": null}', b"[" * 10**5]
)
def test_a_body_that_is_no_page_is_unreadable(body):
    with pytest.raises(UnreadablePage) as raised:
        cursor_page_from_body(body)
    assert not isinstance(raised.value, OtherRevision)


def test_a_page_of_the_other_form_is_told_from_nonsense():
    ids = {"data": {"instanceIds": []}}
    for read, body, revision in (
        (page_from_body, by_cursor([]), CURSOR),
        (cursor_page_from_body, paged([]), PAGED),
        (instances_page_from_body, json.dumps(ids | {"nextCursor": None}).encode(), CURSOR),
        (instances_cursor_page_from_body, json.dumps(ids | {"pagination": PAGINATION}).encode(), PAGED),
    ):
        with pytest.raises(OtherRevision) as raised:
            read(body)
        assert raised.value.revision is revision
    both = json.dumps({"data": {}, "nextCursor": None, "pagination": PAGINATION}).encode()
    with pytest.raises(UnreadablePage) as raised:
        page_from_body(both)
    assert not isinstance(raised.value, OtherRevision)


def test_an_envelope_of_both_or_neither_tells_no_revision():
    assert revision_with({"data", "pagination"}) is PAGED
    assert revision_with({"data", "nextCursor"}) is CURSOR
    assert revision_with({"data"}) is revision_with({"pagination", "nextCursor"}) is None


def test_only_what_a_revision_has_is_sent():
    query = PostPerformanceQuery(start_date=date(2024, 7, 1), end_date=date(2024, 7, 2), page_number=3, cursor="on")
    days = [("startDate", "2024-07-01"), ("endDate", "2024-07-02"), ("dateBasis", "post_date")]
    named = ",".join(metric.api_name for metric in DOCUMENT_METRICS)
    assert query.question() == days
    assert query.parameters(PAGED) == [*days, ("pageSize", "50"), ("pageNumber", "3")]
    assert query.parameters(CURSOR) == [*days, ("metrics", named), ("limit", "50"), ("nextCursor", "on")]
    assert replace(query, page_number=4).question() == replace(query, metrics=("likes",)).question() == days
