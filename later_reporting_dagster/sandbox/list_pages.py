"""The body of a page of any list, and a page as requested, so that faults can replace it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from later_reporting_dagster.sandbox.query_parameters import PageRequest, PostsQuery

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedPage:
    """A requested page of posts, of campaigns or of their performance.

    Attributes:
        page: The requested page.
        render: Return the body of any page of the same list.
        posts_query: The query, if the rows are posts.
    """

    page: PageRequest
    render: Callable[[PageRequest], JsonObject]
    posts_query: PostsQuery | None = None

    def body(self) -> JsonObject:
        """Return the body of the page without a fault."""
        return self.render(self.page)


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
