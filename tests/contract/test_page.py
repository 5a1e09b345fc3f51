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


@pytest.mark.parametrize("cursor", [None, "on", "é+/="])
def test_next_cursor_is_returned_unchanged(cursor):
    assert cursor_page_from_body(cursor_body([], cursor)).next_cursor == cursor
    instances = json.dumps({"data": {"instanceIds": ["a"]}, "nextCursor": cursor}).encode()
    assert instances_page_from_body(instances, CURSOR).next_cursor == cursor


@pytest.mark.parametrize("envelope", [{}, {"nextCursor": ""}, {"nextCursor": 5}, {"next": None}])
def test_cursor_page_without_valid_next_cursor_is_unreadable(envelope):
    with pytest.raises(UnreadableBody, match="not a page of posts"):
        cursor_page_from_body(json.dumps({"data": []} | envelope).encode())
    with pytest.raises(UnreadableBody, match="not a page of instances"):
        instances_page_from_body(json.dumps({"data": {"instanceIds": []}} | envelope).encode(), CURSOR)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b'{"data": [', b'{"data": {}, "nextCursor": null}', b"[" * 10**5]
)
def test_cursor_page_of_another_body_is_unreadable(body):
    with pytest.raises(UnreadableBody) as raised:
        cursor_page_from_body(body)
    assert raised.value.api_version is None


@pytest.mark.parametrize(
    "body",
    [
        b"<html>502</html>",
        paged_body([ROW])[:-20],
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
def test_paged_page_of_another_body_is_unreadable(body):
    with pytest.raises(UnreadableBody, match="not a page of posts"):
        posts_page_from_body(body)
    with pytest.raises(UnreadableBody, match="not a page of instances"):
        instances_page_from_body(body, PAGED)


def test_page_of_the_other_api_version_is_recognized():
    ids = {"data": {"instanceIds": []}}
    for parse, body, api_version in (
        (posts_page_from_body, cursor_body([]), CURSOR),
        (cursor_page_from_body, paged_body([]), PAGED),
        (partial(instances_page_from_body, api_version=PAGED), json.dumps(ids | {"nextCursor": None}).encode(), CURSOR),
        (
            partial(instances_page_from_body, api_version=CURSOR),
            json.dumps(ids | {"pagination": PAGINATION}).encode(),
            PAGED,
        ),
    ):
        with pytest.raises(UnreadableBody) as raised:
            parse(body)
        assert raised.value.api_version is api_version
    both = json.dumps({"data": {}, "nextCursor": None, "pagination": PAGINATION}).encode()
    with pytest.raises(UnreadableBody) as raised:
        posts_page_from_body(both)
    assert raised.value.api_version is None


@pytest.mark.parametrize("depth", [900, 990, 100_000])
def test_deeply_nested_row_raises_at_most_unreadable_page(depth):
    row = f'{{"deep": {"[" * depth}{"]" * depth}}}'
    body = f'{{"data": [{row}], "pagination": {json.dumps(PAGINATION)}}}'.encode()
    with suppress(UnreadableBody):
        assert len(posts_page_from_body(body).bad_rows) == 1
