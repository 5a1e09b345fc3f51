"""Parsers of list responses: pages of posts, instance ids and campaigns, in both API versions.

Pages of both versions yield the same posts. In the paged version, a page states the totals of the list; in the
cursor version, it states only the cursor of the next page (docs/api.md, "Posts performance", "Instances" and "Cursor
version").
"""

import json
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Annotated, Any

import msgspec

from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.parameters import MAX_PAGE_SIZE, PAGED, ApiVersion, version_of_envelope
from later_reporting_dagster.contract.personal_data import without_personal_data
from later_reporting_dagster.contract.rows import BadRow, json_type, parse_text, post_parser, to_json

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
    """A page of a list, with its `pagination` in the paged version, or the `next_cursor`, if any, in the other one.

    For the other attributes, see `ListResult`.
    """

    items: list[Any]
    bad_rows: list[BadRow] = []
    pagination: Pagination | None = None
    next_cursor: str | None = None
    oddities: Counter[str] = msgspec.field(default_factory=Counter)
    unreadable: dict[Hashable, dict[str, str]] = {}

    @property
    def rows(self) -> int:
        """Number of rows in the response, good and bad."""
        return len(self.items) + len(self.bad_rows)

    @property
    def is_surely_empty(self) -> bool:
        is_last = self.next_cursor is None if self.pagination is None else self.pagination.total_items == 0
        return is_last and not self.rows


# It has to fit into the request line of the next page, and a URL cannot encode a lone surrogate.
Cursor = Annotated[str, msgspec.Meta(min_length=1, max_length=8192, pattern=r"\A[^\ud800-\udfff]*\Z")]


class UnreadableBody(ValueError):  # noqa: N818 - named for the response, not for the error
    """The body is not the expected page or token: truncated, HTML, or another envelope.

    Attributes:
        api_version: the version of the body, if it is a page of the other API version.
    """

    def __init__(self, message: str, *, api_version: ApiVersion | None = None) -> None:
        super().__init__(message)
        self.api_version = api_version


def posts_page_from_body(
    body: bytes,
    api_version: ApiVersion = PAGED,
    *,
    metrics: tuple[Metric, ...] = DEFAULT_METRICS,
    of_days: bool = False,
    personal_data: bool = True,
) -> Page:
    parse_row = post_parser(metrics, nested=api_version.uses_cursors, of_days=of_days)
    return list_page_from_body(body, api_version, parse_row=parse_row, rows="posts", personal_data=personal_data)


def instances_page_from_body(body: bytes, api_version: ApiVersion) -> Page:
    return _page(body, api_version, rows="instances", member="instanceIds", parse=parse_text)


def list_page_from_body(
    body: bytes, api_version: ApiVersion, *, parse_row: Callable[[Any], Any], rows: str, personal_data: bool = True
) -> Page:
    """Parse a page of a list. A malformed row becomes a `BadRow`; the other rows are unaffected.

    Args:
        personal_data: whether rows keep it; if not, they lose it before they are parsed (see `personal_data.py`).
    """

    def parse(received: object) -> Any:
        row = received if personal_data else without_personal_data(received, rows=rows)
        parsed = (
            parse_row(row)
            if isinstance(row, dict)
            else BadRow(reason=f"a row must be an object, not {json_type(row)}", raw=to_json(row))
        )
        is_bad = isinstance(parsed, BadRow)
        return msgspec.structs.replace(parsed, received_hash=hash(to_json(received))) if is_bad else parsed

    return _page(body, api_version, rows=rows, member=None, parse=parse)


def _page(
    body: bytes, api_version: ApiVersion, *, rows: str, member: str | None, parse: Callable[[object], Any]
) -> Page:
    """Parse the rows in `data`, or in this member of it."""
    envelope = _envelope(body, api_version, rows=rows)
    try:
        data = envelope["data"] if member is None else envelope["data"][member]
        parsed = [parse(row) for row in msgspec.convert(data, Annotated[list[Any], _LIMITED_LENGTH])]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnreadableBody(f"not a page of {rows}: {error}") from None
    bad_rows = [row for row in parsed if isinstance(row, BadRow)]
    items = [row for row in parsed if not isinstance(row, BadRow)]
    position = api_version.pagination_member
    try:
        if api_version.uses_cursors:
            return Page(items, bad_rows, next_cursor=msgspec.convert(envelope[position], Cursor | None))
        return Page(items, bad_rows, pagination=msgspec.convert(envelope[position], Pagination))
    except (ValueError, KeyError) as error:
        raise UnreadableBody(f"not a page of {rows}: no valid {position}: {error}") from None


def _envelope(body: bytes, api_version: ApiVersion, *, rows: str) -> dict[str, Any]:
    try:
        members = msgspec.convert(json.loads(body, parse_int=_parse_integer), dict)
    except (ValueError, RecursionError) as error:
        raise UnreadableBody(f"not a page of {rows}: {error}") from None
    found = version_of_envelope(members)
    if "data" in members and found not in (None, api_version):
        raise UnreadableBody(f"not a page of {rows} in API version {api_version}, but in {found}", api_version=found)
    return members


def _parse_integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else float(digits)
