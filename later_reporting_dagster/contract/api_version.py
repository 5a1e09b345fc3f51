"""The two API versions of the list routes, and the names of the parameters and members that differ between them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """How a version of the API paginates lists and returns metrics.

    Attributes:
        name: its name in settings and logs.
        page_size_parameter: query parameter for the maximum number of rows in a page.
        page_parameter: query parameter for the page; with cursors, the first request omits it.
        pagination_member: envelope member beside `data` that holds the page's position or the next cursor.
        uses_cursors: whether a page is requested by a cursor, which the previous page returns, and not by a number.
        has_totals: whether a page states how many rows the whole list has.
        nests_metrics: whether a query lists its metrics, and each post returns them nested under `metrics`.
    """

    name: str
    page_size_parameter: str
    page_parameter: str
    pagination_member: str
    uses_cursors: bool
    has_totals: bool
    nests_metrics: bool

    def __str__(self) -> str:
        return self.name


METRICS_MEMBER = "metrics"
"""In a version that nests metrics: the query parameter that lists them, and the member of a post that holds them."""

PAGED = ApiVersion(
    name="paged",
    page_size_parameter="pageSize",
    page_parameter="pageNumber",
    pagination_member="pagination",
    uses_cursors=False,
    has_totals=True,
    nests_metrics=False,
)
"""Numbered pages with totals (docs/api.md, "Posts performance")."""

CURSOR = ApiVersion(
    name="cursor",
    page_size_parameter="limit",
    page_parameter="nextCursor",
    pagination_member="nextCursor",
    uses_cursors=True,
    has_totals=False,
    nests_metrics=True,
)
"""Cursors without totals, and metrics requested by name (docs/api.md, "Cursor version")."""

API_VERSIONS: Mapping[str, ApiVersion] = {version.name: version for version in (PAGED, CURSOR)}


def version_of_envelope(members: Collection[str]) -> ApiVersion | None:
    """Return the API version whose pagination member is among `members`; None if neither or both are."""
    found = [version for version in API_VERSIONS.values() if version.pagination_member in members]
    return found[0] if len(found) == 1 else None
