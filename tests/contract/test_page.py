"""Tests of page parsing: the envelope of each API version, and that any other body is rejected."""

import json
from contextlib import suppress
from functools import partial

import pytest

from later_reporting_dagster.contract import CURSOR, PAGED
from later_reporting_dagster.contract.page import UnreadableBody
from later_reporting_dagster.contract.query import ListQuery
from later_reporting_dagster.contract.route import INSTANCES
from tests.client.scripted_api import posts_page_from_body

instances_page_from_body = partial(INSTANCES.parse_page, query=ListQuery())
PAGINATION = {"page": 1, "pageSize": 100, "totalItems": 1, "totalPages": 1}
ROW = {"instanceId": "a", "campaignId": 1, "postId": 2, "postDate": "2024-07-01T00:00:00.000Z"}


def paged_body(rows: list) -> bytes:
    return json.dumps({"data": rows, "pagination": PAGINATION}).encode()


def cursor_body(rows: list, cursor: object = None) -> bytes:
    return json.dumps({"data": rows, "nextCursor": cursor}).encode()


cursor_page_from_body = partial(posts_page_from_body, api_version=CURSOR)


@pytest.mark.parametrize("cursor", [None, "on", "é+/=", "two\nlines\n", "😀" * 8192])
def test_next_cursor_is_returned_unchanged(cursor):
    assert cursor_page_from_body(cursor_body([], cursor)).next_cursor == cursor
    instances = json.dumps({"data": {"instanceIds": ["a"]}, "nextCursor": cursor}).encode()
    assert instances_page_from_body(instances, api_version=CURSOR).next_cursor == cursor


@pytest.mark.parametrize("cursor", [5, ["on"], "\ud800", "a\udfff\n", "x" * 8193])
def test_cursor_page_without_valid_next_cursor_is_unreadable(cursor):
    with pytest.raises(UnreadableBody, match="not a page of posts: no valid nextCursor"):
        cursor_page_from_body(cursor_body([], cursor))
    with pytest.raises(UnreadableBody, match="not a page of instances: no valid nextCursor"):
        instances_page_from_body(
            json.dumps({"data": {"instanceIds": []}, "nextCursor": cursor}).encode(), api_version=CURSOR
        )


@pytest.mark.parametrize(
    ("envelope", "oddity"),
    [({}, "no nextCursor"), ({"next": None}, "no nextCursor"), ({"nextCursor": ""}, "nextCursor is empty")],
)
def test_cursor_page_without_a_cursor_is_the_last_one(envelope, oddity):
    page = cursor_page_from_body(json.dumps({"data": []} | envelope).encode())
    assert (page.next_cursor, page.is_surely_empty, page.oddities) == (None, True, {oddity: 1})


@pytest.mark.parametrize(
    ("pagination", "total_items", "oddities"),
    [
        ({"totalItems": 1}, 1, {}),
        ({"totalItems": "1", "page": "2"}, 1, {"totalItems spelled otherwise": 1, "page spelled otherwise": 1}),
        ({"totalItems": 1.0, "page": None}, 1, {"totalItems spelled otherwise": 1}),
    ],
)
def test_total_count_is_a_number_in_any_spelling(pagination, total_items, oddities):
    page = posts_page_from_body(json.dumps({"data": [ROW], "pagination": pagination}).encode())
    assert (page.stated_total, page.total_items, page.oddities) == (total_items, 1, oddities)


@pytest.mark.parametrize("pagination", [None, {}, {"totalItems": None}, {"totalItems": "many"}, {"totalItems": -1}, 5])
@pytest.mark.parametrize("rows", [[], None])
def test_page_without_rows_and_total_is_not_surely_empty(pagination, rows):
    page = posts_page_from_body(json.dumps({"data": rows, "pagination": pagination}).encode())
    assert (page.total_items, page.is_unsure, page.is_surely_empty) == (0, True, False)
    with pytest.raises(UnreadableBody, match="no valid totalItems in an object with data, pagination"):
        posts_page_from_body(json.dumps({"data": [ROW], "pagination": pagination}).encode())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\xfa",
        b"<html>502</html>",
        paged_body([ROW])[:-20],
        b"[]",
        b'{"pagination": {"page": 1, "pageSize": 1, "totalItems": 0, "totalPages": 0}}',
        b'{"data": 5, "pagination": {"page": 1, "pageSize": 1, "totalItems": 0, "totalPages": 0}}',
        b'{"data": 5, "nextCursor": null}',
        b"[" * 10**5,
    ],
)
@pytest.mark.parametrize("version", [PAGED, CURSOR], ids=str)
def test_page_of_another_body_is_unreadable(version, body):
    with pytest.raises(UnreadableBody, match="not a page of posts"):
        posts_page_from_body(body, api_version=version)
    with pytest.raises(UnreadableBody, match="not a page of instances"):
        instances_page_from_body(body, api_version=version)


@pytest.mark.parametrize(
    ("body", "sent", "expected"), [(paged_body([]), PAGED, CURSOR), (cursor_body([]), CURSOR, PAGED)]
)
def test_page_of_the_other_api_version_is_recognized(body, sent, expected):
    of_instances = body.replace(b"[]", b'{"instanceIds": []}')
    for parse, text in ((posts_page_from_body, body), (instances_page_from_body, of_instances)):
        with pytest.raises(UnreadableBody) as raised:
            parse(text, api_version=expected)
        assert raised.value.api_version is sent


@pytest.mark.parametrize("depth", [900, 990, 100_000])
def test_deeply_nested_row_raises_at_most_unreadable_page(depth):
    row = f'{{"deep": {"[" * depth}{"]" * depth}}}'
    body = f'{{"data": [{row}], "pagination": {json.dumps(PAGINATION)}}}'.encode()
    with suppress(UnreadableBody):
        assert len(posts_page_from_body(body).bad_rows) == 1
