"""Parsers of list responses: pages of posts, instance ids and campaigns, in both API versions.

Pages of both versions yield the same posts. In the paged version, a page states the totals of the list; in the
cursor version, it states only the cursor of the next page (docs/api.md, "Posts performance", "Instances" and "Cursor
version").
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from functools import lru_cache, partial
from typing import Annotated, Any

import msgspec

from later_reporting_dagster.contract.api_version import CURSOR, PAGED, ApiVersion, version_of_envelope
from later_reporting_dagster.contract.limits import MAX_PAGE_SIZE
from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.post import Post, flattener, nested_post_type, post_from_json, post_type
from later_reporting_dagster.contract.row_fields import BadRow, parse_text

MAX_ROWS = 10 * MAX_PAGE_SIZE  # a longer list is not a page, and parsing it row by row would take minutes
MAX_INTEGER_DIGITS = 4000  # Python cannot parse 4,301 digits, so a longer number is parsed as an infinite float

_LIMITED_LENGTH = msgspec.Meta(max_length=MAX_ROWS)
_Number = Annotated[int, msgspec.Meta(ge=-(10**18), le=10**18)]


class Pagination(msgspec.Struct, frozen=True, rename="camel"):
    """The `pagination` member of a paged envelope. Pages count from 1."""

    page: _Number
    page_size: _Number
    total_items: _Number
    total_pages: _Number


class Page(msgspec.Struct, frozen=True):
    """A page of posts in the paged version."""

    posts: list[Post]
    pagination: Pagination
    bad_rows: list[BadRow] = []

    @property
    def rows(self) -> int:
        """Number of rows in the response, good and bad."""
        return len(self.posts) + len(self.bad_rows)


class CursorPage(msgspec.Struct, frozen=True):
    """A page of posts in the cursor version; `next_cursor` is None on the last page."""

    posts: list[Post]
    next_cursor: str | None
    bad_rows: list[BadRow] = []

    @property
    def rows(self) -> int:
        """Number of rows in the response, good and bad."""
        return len(self.posts) + len(self.bad_rows)


class ListPage(msgspec.Struct, frozen=True):
    """A page of any other list, in either API version.

    Attributes:
        items: the valid rows.
        bad_rows: the malformed rows.
        pagination: in the paged version, the position and the totals.
        next_cursor: in the cursor version, the cursor of the next page; None on the last page.
    """

    items: list[Any]
    bad_rows: list[BadRow] = []
    pagination: Pagination | None = None
    next_cursor: str | None = None

    @property
    def rows(self) -> int:
        """Number of rows in the response, good and bad."""
        return len(self.items) + len(self.bad_rows)


Cursor = Annotated[str, msgspec.Meta(min_length=1)]


class UnreadableBody(ValueError):  # noqa: N818 - named for the response, not for the error
    """The body is not the expected page or token: truncated, HTML, or another envelope."""


class OtherApiVersion(UnreadableBody):
    """The body is a page of the other API version, `api_version`."""

    def __init__(self, message: str, *, api_version: ApiVersion) -> None:
        super().__init__(message)
        self.api_version = api_version


Metrics = tuple[Metric, ...]


@lru_cache
def _strict_page_decoder(metrics: Metrics, /) -> "msgspec.json.Decoder[Any]":
    fields = [("data", list[post_type(metrics)]), ("pagination", Pagination)]  # type: ignore[misc]
    return msgspec.json.Decoder(msgspec.defstruct("StrictPage", fields))


@lru_cache
def _strict_cursor_page_decoder(metrics: Metrics, /) -> "tuple[msgspec.json.Decoder[Any], Callable[[Any], Post]]":
    fields = [("data", list[nested_post_type(metrics)]), ("next_cursor", Cursor | None)]  # type: ignore[misc]
    return msgspec.json.Decoder(msgspec.defstruct("StrictCursorPage", fields, rename="camel")), flattener(metrics)


_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def page_from_body(body: bytes, *, metrics: Metrics = DEFAULT_METRICS) -> Page:
    """Parse a page of posts in the paged version. A malformed row becomes a `BadRow`; the other rows are unaffected.

    Args:
        body: the response body.
        metrics: the requested metrics; any other metric of a post is kept as an unknown field.

    Raises:
        OtherApiVersion: the body is a page of the cursor version.
        UnreadableBody: the body is not a page.
    """
    try:
        strict = _strict_page_decoder(metrics).decode(body)
    except _DECODE_ERRORS:
        strict = None
    if strict is not None and _need_no_conversion(strict.data):
        return Page(posts=strict.data, pagination=strict.pagination)
    posts, bad_rows, envelope = _parse_row_by_row(body, PAGED, metrics=metrics)
    return Page(
        posts=posts, pagination=_pagination_member(envelope, PAGED, kind=Pagination, rows="posts"), bad_rows=bad_rows
    )


def cursor_page_from_body(body: bytes, *, metrics: Metrics = DEFAULT_METRICS) -> CursorPage:
    """Parse a page of posts in the cursor version, as `page_from_body` does. A metric that is absent becomes null.

    Raises:
        OtherApiVersion: the body is a page of the paged version.
        UnreadableBody: the body is not a page, or lacks `nextCursor`.
    """
    decoder, flatten = _strict_cursor_page_decoder(metrics)
    try:
        strict = decoder.decode(body)
    except _DECODE_ERRORS:
        strict = None
    if strict is not None and _need_no_conversion(strict.data):
        return CursorPage(posts=[flatten(post) for post in strict.data], next_cursor=strict.next_cursor)
    posts, bad_rows, envelope = _parse_row_by_row(body, CURSOR, metrics=metrics)
    return CursorPage(
        posts=posts,
        next_cursor=_pagination_member(envelope, CURSOR, kind=Cursor | None, rows="posts"),
        bad_rows=bad_rows,
    )


def instances_page_from_body(body: bytes, api_version: ApiVersion) -> ListPage:
    """Parse a page of instance ids.

    Raises:
        OtherApiVersion: the body is a page of the other version.
        UnreadableBody: the body is not a page.
    """
    envelope = _envelope(body, api_version, rows="instances")
    try:
        names = msgspec.convert(envelope["data"]["instanceIds"], Annotated[list[Any], _LIMITED_LENGTH])
        ids = [parse_text(name) for name in names]
    except (ValueError, TypeError, KeyError) as error:
        raise UnreadableBody(f"not a page of instances: {error}") from None
    return _list_page(envelope, api_version, items=ids, rows="instances")


def list_page_from_body(
    body: bytes, api_version: ApiVersion, *, parse_row: Callable[[Any], Any], rows: str
) -> ListPage:
    """Parse a page of a list. A malformed row becomes a `BadRow`; the other rows are unaffected.

    Args:
        body: the response body.
        api_version: its API version.
        parse_row: parses an element of `data`.
        rows: what the rows are, in the plural, for messages.

    Raises:
        OtherApiVersion: the body is a page of the other version.
        UnreadableBody: the body is not a page.
    """
    envelope = _envelope(body, api_version, rows=rows)
    items, bad_rows = _parse_rows(envelope, parse_row, rows=rows)
    return _list_page(envelope, api_version, items=items, bad_rows=bad_rows, rows=rows)


def _list_page(
    envelope: Mapping[str, Any],
    api_version: ApiVersion,
    *,
    items: list[Any],
    rows: str,
    bad_rows: Sequence[BadRow] = (),
) -> ListPage:
    kind: Any = Cursor | None if api_version.uses_cursors else Pagination
    position = _pagination_member(envelope, api_version, kind=kind, rows=rows)
    if api_version.uses_cursors:
        return ListPage(items, [*bad_rows], next_cursor=position)
    return ListPage(items, [*bad_rows], pagination=position)


def _need_no_conversion(posts: Sequence[Post]) -> bool:
    """Return whether strictly decoded posts can be used as they are.

    They can if there are at most `MAX_ROWS`, all times are in UTC, and no row has a member with the private name of
    `extra`: only this package may set it.
    """
    return len(posts) <= MAX_ROWS and all(post.post_date.tzinfo is UTC and post.extra is None for post in posts)


def _parse_row_by_row(
    body: bytes, api_version: ApiVersion, *, metrics: Metrics
) -> tuple[list[Post], list[BadRow], dict[str, Any]]:
    """Return the posts, the bad rows and the envelope of a page that the strict decoder does not accept."""
    envelope = _envelope(body, api_version, rows="posts")
    parse_row = partial(post_from_json, metrics=metrics, nested=api_version.nests_metrics)
    return *_parse_rows(envelope, parse_row, rows="posts"), envelope


def _envelope(body: bytes, api_version: ApiVersion, *, rows: str) -> dict[str, Any]:
    _raise_if_other_version(body, api_version, rows=rows)
    try:
        return msgspec.convert(json.loads(body, parse_int=_parse_integer), dict)
    except (ValueError, RecursionError) as error:
        raise UnreadableBody(f"not a page of {rows}: {error}") from None


def _parse_rows(
    envelope: Mapping[str, Any], parse_row: Callable[[Any], Any], *, rows: str
) -> tuple[list[Any], list[BadRow]]:
    try:
        data = msgspec.convert(envelope["data"], Annotated[list[Any], _LIMITED_LENGTH])
        parsed = [parse_row(row) for row in data]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnreadableBody(f"not a page of {rows}: {error}") from None
    bad_rows = [row for row in parsed if isinstance(row, BadRow)]
    return [row for row in parsed if not isinstance(row, BadRow)], bad_rows


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else float(digits)


def _pagination_member(envelope: Mapping[str, Any], api_version: ApiVersion, *, kind: Any, rows: str) -> Any:
    try:
        return msgspec.convert(envelope[api_version.pagination_member], kind)
    except (ValueError, KeyError) as error:
        raise UnreadableBody(f"not a page of {rows}: {error}") from None


def _raise_if_other_version(body: bytes, api_version: ApiVersion, *, rows: str) -> None:
    """Raise `OtherApiVersion` if the body is a page of the other API version."""
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except _DECODE_ERRORS:
        return
    found = version_of_envelope(members)
    if "data" in members and found is not None and found is not api_version:
        raise OtherApiVersion(
            f"not a page of {rows} in API version {api_version}, but in version {found}", api_version=found
        )
