"""Tests of page parsing: the envelope of each API version, and that any other body is rejected."""

import json
from contextlib import suppress
from functools import partial

import pytest

from later_reporting_dagster.contract import CURSOR, PAGED
from later_reporting_dagster.contract.page import UnreadableBody, instances_page_from_body, posts_page_from_body

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
    assert instances_page_from_body(instances, CURSOR).next_cursor == cursor


@pytest.mark.parametrize(
    "envelope", [{}, {"next": None}, *({"nextCursor": cursor} for cursor in ("", 5, "\ud800", "a\udfff\n", "x" * 8193))]
)
def test_cursor_page_without_valid_next_cursor_is_unreadable(envelope):
    with pytest.raises(UnreadableBody, match="not a page of posts: no valid nextCursor"):
        cursor_page_from_body(json.dumps({"data": []} | envelope).encode())
    with pytest.raises(UnreadableBody, match="not a page of instances: no valid nextCursor"):
        instances_page_from_body(json.dumps({"data": {"instanceIds": []}} | envelope).encode(), CURSOR)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe\xfa",
        b"<html>502</html>",
        paged_body([ROW])[:-20],
        b"[]",
        b'{"data": []}',
        b'{"pagination": {"page": 1, "pageSize": 1, "totalItems": 0, "totalPages": 0}}',
        b'{"data": 5, "pagination": {"page": 1, "pageSize": 1, "totalItems": 0, "totalPages": 0}}',
        b'{"data": [], "pagination": {"page": 1, "pageSize": 1, "totalItems": "0", "totalPages": 0}}',
        b'{"data": 5, "nextCursor": null}',
        b"[" * 10**5,
    ],
)
@pytest.mark.parametrize("version", [PAGED, CURSOR], ids=str)
def test_page_of_another_body_is_unreadable(version, body):
    with pytest.raises(UnreadableBody, match="not a page of posts"):
        posts_page_from_body(body, api_version=version)
    with pytest.raises(UnreadableBody, match="not a page of instances"):
        instances_page_from_body(body, version)


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
