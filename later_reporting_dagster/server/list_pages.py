"""The body of a page of any list."""

from typing import Any

from later_reporting_dagster.server.query_parameters import PageRequest

JsonObject = dict[str, Any]


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
