"""Pages of any list: which one is requested, the body of its response, and cursors to the next one."""

import base64
import hashlib
from typing import Any

import msgspec

from later_reporting_dagster.contract.parameters import CURSOR, PAGED, ApiVersion
from later_reporting_dagster.endpoint.problem_responses import ProblemError, bad_request

JsonObject = dict[str, Any]

# A cursor is the offset of the next page, the snapshot if there is one, and a digest that ties both to the query.
_OFFSET_BYTES, _DIGEST_BYTES = 6, 12


class PageRequest(msgspec.Struct, frozen=True):
    """The requested page of a list.

    Attributes:
        offset: Number of rows before the page.
        size: Maximum number of rows.
        api_version: API version of the request and its response.
        cursor_query: The query for which the page's cursors are valid, as a digest.
        snapshot: Identifies the rows that the page is a part of; empty if the list has no snapshots, or if the request
            has no cursor.
    """

    offset: int
    size: int
    api_version: ApiVersion = PAGED
    cursor_query: bytes = b""
    snapshot: bytes = b""

    @property
    def number(self) -> int:
        """Page number, from 1."""
        return self.offset // self.size + 1

    @property
    def rows(self) -> slice:
        """Slice of the page within all rows of the list."""
        return slice(self.offset, self.offset + self.size)

    def cursor_to(self, offset: int) -> str:
        """Return an opaque cursor to the page of the same rows at an offset. Other queries reject it."""
        position = offset.to_bytes(_OFFSET_BYTES, "big") + self.snapshot
        return base64.urlsafe_b64encode(position + _digest(position, self.cursor_query)).decode()


def page_at_cursor(cursor: str | None, *, size: int, query: str) -> PageRequest:
    """Return the page that a cursor of this query points to; the first page if there is no cursor."""
    cursor_query = hashlib.blake2b(query.encode(), digest_size=16).digest()
    if cursor is None:
        return PageRequest(0, size, CURSOR, cursor_query)
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii"))
    except ValueError:
        data = b""
    position, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if len(position) < _OFFSET_BYTES or digest != _digest(position, cursor_query):
        raise expired_cursor()
    offset = int.from_bytes(position[:_OFFSET_BYTES], "big")
    return PageRequest(offset, size, CURSOR, cursor_query, position[_OFFSET_BYTES:])


def expired_cursor() -> ProblemError:
    """Return the error for a cursor that the server did not issue for this query, or whose rows it no longer has."""
    return bad_request("nextCursor is invalid, has expired, or belongs to a query with other parameters")


def _digest(position: bytes, cursor_query: bytes) -> bytes:
    return hashlib.blake2b(position + cursor_query, digest_size=_DIGEST_BYTES).digest()


def page_body(data: object, *, page: PageRequest, total: int, next_offset: int | None = None) -> JsonObject:
    """Return the response body of a page. A page number past the end has no data and the true totals.

    Args:
        data: Rows of the page.
        page: The requested page.
        total: Number of rows on all pages.
        next_offset: Offset of the next page, for its cursor; None: the offset after a full page.
    """
    if not page.api_version.has_totals:
        offset = page.offset + page.size if next_offset is None else next_offset
        return {"data": data, "nextCursor": page.cursor_to(offset) if offset < total else None}
    return {
        "data": data,
        "pagination": {
            "page": page.number,
            "pageSize": page.size,
            "totalItems": total,
            "totalPages": -(-total // page.size),
        },
    }
