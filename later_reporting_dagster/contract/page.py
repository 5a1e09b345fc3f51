"""Parsers of list responses: pages of posts and of instance ids, in both API versions.

Pages of both versions yield the same posts. In the paged version, a page states the totals of the list; in the
cursor version, it states only the cursor of the next page (docs/api.md, "Posts performance", "Instances" and "Cursor
version").
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from functools import lru_cache
from typing import Annotated, Any, TypeVar

import msgspec

from later_reporting_dagster.contract.api_version import CURSOR, PAGED, ApiVersion, version_of_envelope
from later_reporting_dagster.contract.limits import MAX_PAGE_SIZE
from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.post import BadRow, Post, flattener, nested_post_type, post_from_json, post_type

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


class InstancesData(msgspec.Struct, frozen=True, rename="camel"):
    """The instance ids of a page."""

    instance_ids: Annotated[list[str], _LIMITED_LENGTH]


class InstancesPage(msgspec.Struct, frozen=True):
    """A page of `GET /v2/instances` in the paged version."""

    data: InstancesData
    pagination: Pagination

    @property
    def rows(self) -> int:
        """Number of ids in the response."""
        return len(self.data.instance_ids)


Cursor = Annotated[str, msgspec.Meta(min_length=1)]


class InstancesCursorPage(msgspec.Struct, frozen=True, rename="camel"):
    """A page of `GET /v2/instances` in the cursor version; `next_cursor` is None on the last page."""

    data: InstancesData
    next_cursor: Cursor | None


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

_Envelope = TypeVar("_Envelope")


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
    return Page(posts=posts, pagination=_pagination_member(envelope, PAGED, kind=Pagination), bad_rows=bad_rows)


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
        posts=posts, next_cursor=_pagination_member(envelope, CURSOR, kind=Cursor | None), bad_rows=bad_rows
    )


def instances_page_from_body(body: bytes) -> InstancesPage:
    """Parse a page of instance ids in the paged version.

    Raises:
        OtherApiVersion: the body is a page of the cursor version.
        UnreadableBody: the body is not a page.
    """
    return _instances_page(body, PAGED, page_type=InstancesPage)


def instances_cursor_page_from_body(body: bytes) -> InstancesCursorPage:
    """Parse a page of instance ids in the cursor version.

    Raises:
        OtherApiVersion: the body is a page of the paged version.
        UnreadableBody: the body is not a page.
    """
    return _instances_page(body, CURSOR, page_type=InstancesCursorPage)


def _instances_page(body: bytes, api_version: ApiVersion, *, page_type: type[_Envelope]) -> _Envelope:
    try:
        return msgspec.json.decode(body, type=page_type)
    except _DECODE_ERRORS as error:
        _raise_if_other_version(body, api_version, rows="instances")
        raise UnreadableBody(f"not a page of instances: {error}") from None


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
    _raise_if_other_version(body, api_version, rows="posts")
    try:
        parsed = json.loads(body, parse_int=_parse_integer)
        envelope: dict[str, Any] = msgspec.convert(parsed, dict)
        data = msgspec.convert(envelope["data"], Annotated[list[Any], _LIMITED_LENGTH])
        rows = [post_from_json(row, metrics=metrics, nested=api_version.nests_metrics) for row in data]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnreadableBody(f"not a page of posts: {error}") from None
    posts = [row for row in rows if not isinstance(row, BadRow)]
    return posts, [row for row in rows if isinstance(row, BadRow)], envelope


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else float(digits)


def _pagination_member(envelope: Mapping[str, Any], api_version: ApiVersion, *, kind: Any) -> Any:
    try:
        return msgspec.convert(envelope[api_version.pagination_member], kind)
    except (ValueError, KeyError) as error:
        raise UnreadableBody(f"not a page of posts: {error}") from None


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
