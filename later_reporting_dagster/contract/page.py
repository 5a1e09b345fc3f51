"""One page of an answer: its posts, the rows that cannot be true, and where it stands in the whole."""

import json
from datetime import UTC
from functools import lru_cache
from typing import Any

import msgspec

from later_reporting_dagster.contract.metrics import DOCUMENT_METRICS, Metric
from later_reporting_dagster.contract.post import BadRow, Post, post_from_json, post_type


class Pagination(msgspec.Struct, frozen=True, rename="camel"):
    """Where a page stands [S]. Pages count from 1."""

    page: int
    page_size: int
    total_items: int
    total_pages: int


class Page(msgspec.Struct, frozen=True):
    """The posts of one page as the contract reads them; `rows` of the server = posts + bad rows."""

    posts: list[Post]
    pagination: Pagination
    bad_rows: list[BadRow] = []


class InstancesData(msgspec.Struct, frozen=True, rename="camel"):
    """The instance ids of one page."""

    instance_ids: list[str]


class InstancesPage(msgspec.Struct, frozen=True):
    """One page of `GET /v2/instances` [D]."""

    data: InstancesData
    pagination: Pagination


class UnreadablePage(ValueError):  # noqa: N818 - named for what it is
    """The body is not a page of the contract at all: cut off, HTML, or another envelope."""


@lru_cache
def _exact_page(metrics: tuple[Metric, ...], /) -> "msgspec.json.Decoder[Any]":
    fields = [("data", list[post_type(metrics)]), ("pagination", Pagination)]  # type: ignore[misc]
    return msgspec.json.Decoder(msgspec.defstruct("ExactPage", fields))


_NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def page_from_body(body: bytes, *, metrics: tuple[Metric, ...] = DOCUMENT_METRICS) -> Page:
    """Reads a page. Rows that the contract does not foresee are read one by one and cost only themselves.

    What comes beside `metrics`, which were asked for, is kept as an unknown field is.

    Raises:
        UnreadablePage: the body as a whole cannot be read.
    """
    try:
        exact = _exact_page(metrics).decode(body)
    except _NOT_DECODABLE:
        return _page_row_by_row(body, metrics)
    # An instant with an offset is made UTC there; `extra` is ours to write and never the server's.
    if not all(post.post_date.tzinfo is UTC and post.extra is None for post in exact.data):
        return _page_row_by_row(body, metrics)
    return Page(posts=exact.data, pagination=exact.pagination)


def instances_page_from_body(body: bytes) -> InstancesPage:
    """Reads a page of instance ids.

    Raises:
        UnreadablePage: the body is not one.
    """
    try:
        return msgspec.json.decode(body, type=InstancesPage)
    except _NOT_DECODABLE as error:
        raise UnreadablePage(f"not a page of instances: {error}") from None


def _page_row_by_row(body: bytes, metrics: tuple[Metric, ...]) -> Page:
    try:
        document: Any = json.loads(body)
        rows: list[Any] = msgspec.convert(document["data"], list)
        pagination = msgspec.convert(document["pagination"], Pagination)
        read = [post_from_json(row, metrics=metrics) for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnreadablePage(f"not a page of posts: {error}") from None
    return Page(
        posts=[row for row in read if not isinstance(row, BadRow)],
        pagination=pagination,
        bad_rows=[row for row in read if isinstance(row, BadRow)],
    )
