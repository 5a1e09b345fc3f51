"""A page as requested, so that faults can replace it."""

from collections.abc import Callable
from dataclasses import dataclass

from later_reporting_dagster.endpoint.pages import JsonObject, PageRequest
from later_reporting_dagster.endpoint.query_parameters import PostsQuery


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
