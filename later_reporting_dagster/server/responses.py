"""Bodies of responses: problems, and pages of any list with cursors to the next one.

Problems are `application/problem+json` with `type`, `title` and `detail` (docs/api.md, "Errors").
"""

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from later_reporting_dagster.contract.parameters import CURSOR, METRICS_MEMBER, PAGED, ApiVersion

JsonObject = dict[str, Any]

# A cursor is the offset of the next page, the snapshot if there is one, and a digest that ties both to the query.
_OFFSET_BYTES, _DIGEST_BYTES = 6, 12


class ProblemError(HTTPException):
    """A request that gets an error response instead of data; see `problem_response`."""

    def __init__(self, status: HTTPStatus, detail: str, problem_type: str = "") -> None:
        super().__init__(status, detail)
        self.type = problem_type


def bad_request(detail: str) -> ProblemError:
    """Return the 400 for an invalid parameter or body."""
    return ProblemError(HTTPStatus.BAD_REQUEST, detail)


def reject_metrics(names: Collection[str]) -> None:
    """Raise the 400 for requested metrics that are unknown, or not available for the filters."""
    if names:
        raise bad_request(f"{METRICS_MEMBER} not supported for these filters: {', '.join(names)}")


def problem_response(
    status: int, detail: str, problem_type: str = "", *, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error response. Its type is `ANL_00` and the status by default, as all but two types of the API are."""
    title = HTTPStatus(status).phrase
    body = {"type": str(problem_type) or f"ANL_00{status:d}", "title": title, "detail": detail}
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")


def json_response(value: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), headers=headers, media_type="application/json")


class PageQuery(msgspec.Struct, frozen=True):
    """The requested page of a list.

    Attributes:
        offset: Number of rows before the page.
        size: Maximum number of rows.
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
        return self.offset // self.size + 1

    @property
    def rows(self) -> slice:
        return slice(self.offset, self.offset + self.size)

    def cursor_to(self, offset: int) -> str:
        """Return an opaque cursor to the page of the same rows at an offset. Other queries reject it."""
        position = offset.to_bytes(_OFFSET_BYTES, "big") + self.snapshot
        return base64.urlsafe_b64encode(position + _digest(position, self.cursor_query)).decode()


def page_at_cursor(cursor: str | None, *, size: int, query: str) -> PageQuery:
    """Return the page that a cursor of this query points to; the first page if there is none, or the text `null`."""
    cursor_query = hashlib.blake2b(query.encode(), digest_size=16).digest()
    if cursor in (None, "null"):
        return PageQuery(0, size, CURSOR, cursor_query)
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii"))
    except ValueError:
        data = b""
    position, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if len(position) < _OFFSET_BYTES or digest != _digest(position, cursor_query):
        raise expired_cursor()
    offset = int.from_bytes(position[:_OFFSET_BYTES], "big")
    return PageQuery(offset, size, CURSOR, cursor_query, position[_OFFSET_BYTES:])


def expired_cursor() -> ProblemError:
    """Return the error for a cursor that the server did not issue for this query, or whose rows it no longer has."""
    return bad_request("nextCursor is invalid, has expired, or belongs to a query with other parameters")


def _digest(position: bytes, cursor_query: bytes) -> bytes:
    return hashlib.blake2b(position + cursor_query, digest_size=_DIGEST_BYTES).digest()


def instances_page(instance_ids: Sequence[str], page: PageQuery) -> JsonObject:
    return page_body({"instanceIds": instance_ids[page.rows]}, page=page, total=len(instance_ids))


def page_body(data: object, *, page: PageQuery, total: int) -> JsonObject:
    """Return the body of a page of `total` rows. A page number past the end has no data and the true totals."""
    if page.api_version.uses_cursors:
        return {"data": data, "nextCursor": page.cursor_to(page.rows.stop) if page.rows.stop < total else None}
    return {
        "data": data,
        "pagination": {
            "page": page.number,
            "pageSize": page.size,
            "totalItems": total,
            "totalPages": -(-total // page.size),
        },
    }
