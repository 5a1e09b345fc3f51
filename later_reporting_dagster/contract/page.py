"""One page of an answer: its posts, the rows that cannot be true, and where it stands in the whole.

A page of either revision has the same posts. By number it tells the totals of the whole; by cursor it tells only
whether there is another page, and each post's metrics lie in an object of their own.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec

from later_reporting_dagster.contract.api_version import CURSOR, PAGED, Revision, revision_with
from later_reporting_dagster.contract.limits import MAXIMUM_PAGE_SIZE
from later_reporting_dagster.contract.metrics import DOCUMENT_METRICS, Metric
from later_reporting_dagster.contract.post import BadRow, Post, flattener, nested_post_type, post_from_json, post_type

MAXIMUM_ROWS = 10 * MAXIMUM_PAGE_SIZE  # more cannot be a page, and reading each would take minutes
LONGEST_INTEGER = 4000  # Python refuses to read one that is a little longer; such a number reads as infinite

_NO_LONGER = msgspec.Meta(max_length=MAXIMUM_ROWS)
_Number = Annotated[int, msgspec.Meta(ge=-(10**18), le=10**18)]


class Pagination(msgspec.Struct, frozen=True, rename="camel"):
    """Where a page stands [S]. Pages count from 1."""

    page: _Number
    page_size: _Number
    total_items: _Number
    total_pages: _Number


class Page(msgspec.Struct, frozen=True):
    """The posts of one numbered page as the contract reads them."""

    posts: list[Post]
    pagination: Pagination
    bad_rows: list[BadRow] = []

    @property
    def rows(self) -> int:
        """How many rows the service sent, good and bad."""
        return len(self.posts) + len(self.bad_rows)


class CursorPage(msgspec.Struct, frozen=True):
    """The posts of one page that a cursor leads to, and the cursor of the next one; None where there is none [C]."""

    posts: list[Post]
    next_cursor: str | None
    bad_rows: list[BadRow] = []

    @property
    def rows(self) -> int:
        """How many rows the service sent, good and bad."""
        return len(self.posts) + len(self.bad_rows)


class InstancesData(msgspec.Struct, frozen=True, rename="camel"):
    """The instance ids of one page."""

    instance_ids: Annotated[list[str], _NO_LONGER]


class InstancesPage(msgspec.Struct, frozen=True):
    """One numbered page of `GET /v2/instances` [D]."""

    data: InstancesData
    pagination: Pagination

    @property
    def rows(self) -> int:
        """How many ids the service sent."""
        return len(self.data.instance_ids)


Cursor = Annotated[str, msgspec.Meta(min_length=1)]


class InstancesCursorPage(msgspec.Struct, frozen=True, rename="camel"):
    """One page of `GET /v2/instances` that a cursor leads to [C]."""

    data: InstancesData
    next_cursor: Cursor | None


class UnreadablePage(ValueError):  # noqa: N818 - named for what it is
    """The body is not a page of the contract at all: cut off, HTML, or another envelope."""


class OtherRevision(UnreadablePage):
    """The body is a page of the other revision: `revision`."""

    def __init__(self, message: str, *, revision: Revision) -> None:
        super().__init__(message)
        self.revision = revision


Metrics = tuple[Metric, ...]


@lru_cache
def _exact_page(metrics: Metrics, /) -> "msgspec.json.Decoder[Any]":
    fields = [("data", list[post_type(metrics)]), ("pagination", Pagination)]  # type: ignore[misc]
    return msgspec.json.Decoder(msgspec.defstruct("ExactPage", fields))


@lru_cache
def _exact_cursor_page(metrics: Metrics, /) -> "tuple[msgspec.json.Decoder[Any], Callable[[Any], Post]]":
    fields = [("data", list[nested_post_type(metrics)]), ("next_cursor", Cursor | None)]  # type: ignore[misc]
    return msgspec.json.Decoder(msgspec.defstruct("ExactCursorPage", fields, rename="camel")), flattener(metrics)


_NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_Envelope = TypeVar("_Envelope")


def page_from_body(body: bytes, *, metrics: Metrics = DOCUMENT_METRICS) -> Page:
    """Reads a numbered page. Rows that the contract does not foresee are read one by one and cost only themselves.

    What comes beside `metrics`, which were asked for, is kept as an unknown field is.

    Raises:
        OtherRevision: it is a page of cursors.
        UnreadablePage: the body as a whole cannot be read.
    """
    try:
        exact = _exact_page(metrics).decode(body)
    except _NOT_DECODABLE:
        exact = None
    if exact is not None and _are_exact(exact.data):
        return Page(posts=exact.data, pagination=exact.pagination)
    posts, bad_rows, document = _row_by_row(body, PAGED, metrics)
    return Page(posts=posts, pagination=_member(document, PAGED, Pagination), bad_rows=bad_rows)


def cursor_page_from_body(body: bytes, *, metrics: Metrics = DOCUMENT_METRICS) -> CursorPage:
    """Reads a page of cursors, as `page_from_body` a numbered one. A metric that is not there is not available.

    Raises:
        OtherRevision: it is a numbered page.
        UnreadablePage: the body as a whole cannot be read, or does not say whether there is another page.
    """
    decoder, flattened = _exact_cursor_page(metrics)
    try:
        exact = decoder.decode(body)
    except _NOT_DECODABLE:
        exact = None
    if exact is not None and _are_exact(exact.data):
        return CursorPage(posts=[flattened(post) for post in exact.data], next_cursor=exact.next_cursor)
    posts, bad_rows, document = _row_by_row(body, CURSOR, metrics)
    return CursorPage(posts=posts, next_cursor=_member(document, CURSOR, Cursor | None), bad_rows=bad_rows)


def instances_page_from_body(body: bytes) -> InstancesPage:
    """Reads a numbered page of instance ids.

    Raises:
        OtherRevision: it is a page of cursors.
        UnreadablePage: the body is not one.
    """
    return _instances_page(body, PAGED, InstancesPage)


def instances_cursor_page_from_body(body: bytes) -> InstancesCursorPage:
    """Reads a page of instance ids that has a cursor.

    Raises:
        OtherRevision: it is a numbered page.
        UnreadablePage: the body is not one.
    """
    return _instances_page(body, CURSOR, InstancesCursorPage)


def _instances_page(body: bytes, revision: Revision, page: type[_Envelope]) -> _Envelope:
    try:
        return msgspec.json.decode(body, type=page)
    except _NOT_DECODABLE as error:
        _refuse_the_other(body, revision, what="instances")
        raise UnreadablePage(f"not a page of instances: {error}") from None


def _are_exact(posts: Sequence[Post]) -> bool:
    """Whether posts are just as decoded: an instant with an offset is made UTC elsewhere; `extra` is ours to write."""
    return len(posts) <= MAXIMUM_ROWS and all(post.post_date.tzinfo is UTC and post.extra is None for post in posts)


def _row_by_row(body: bytes, revision: Revision, metrics: Metrics) -> tuple[list[Post], list[BadRow], dict[str, Any]]:
    _refuse_the_other(body, revision, what="posts")
    try:
        read = json.loads(body, parse_int=lambda digits: (int if len(digits) <= LONGEST_INTEGER else float)(digits))
        document: dict[str, Any] = msgspec.convert(read, dict)
        rows = msgspec.convert(document["data"], Annotated[list[Any], _NO_LONGER])
        found = [post_from_json(row, metrics=metrics, nested=revision.nests_metrics) for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnreadablePage(f"not a page of posts: {error}") from None
    posts = [row for row in found if not isinstance(row, BadRow)]
    return posts, [row for row in found if isinstance(row, BadRow)], document


def _member(document: Mapping[str, Any], revision: Revision, kind: Any) -> Any:
    try:
        return msgspec.convert(document[revision.envelope], kind)
    except (ValueError, KeyError) as error:
        raise UnreadablePage(f"not a page of posts: {error}") from None


def _refuse_the_other(body: bytes, revision: Revision, *, what: str) -> None:
    """Tells a page of the other revision from one that cannot be read at all."""
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except _NOT_DECODABLE:
        return
    found = revision_with(members)
    if "data" in members and found is not None and found is not revision:
        raise OtherRevision(f"not a page of {what} of the revision {revision}, but one of {found}", revision=found)
