"""The two revisions of the API's lists, as values: all names in which they differ are here.

The document pages by number [S]; a later revision of the same routes pages by cursor [C]. Everything above the pages
sees the same posts, whichever of the two answers.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Revision:
    """How lists are asked for and answered.

    Attributes:
        name: what settings and logs call it.
        size_parameter: says how many rows a page may have.
        place_parameter: says which page is asked for; by cursor, the first one goes without.
        envelope: the member beside `data` that says where a page stands.
        has_totals: whether a page says how many rows the whole answer has.
        nests_metrics: whether metrics are asked for by name, by `metrics`, and lie in an object of that name.
    """

    name: str
    size_parameter: str
    place_parameter: str
    envelope: str
    has_totals: bool
    nests_metrics: bool

    def __str__(self) -> str:
        return self.name


METRICS_MEMBER = "metrics"
"""The parameter that names the metrics, and the member of a post that holds them, where they are nested."""

PAGED = Revision(
    name="paged",
    size_parameter="pageSize",
    place_parameter="pageNumber",
    envelope="pagination",
    has_totals=True,
    nests_metrics=False,
)
"""Numbered pages with totals [S]."""

CURSOR = Revision(
    name="cursor",
    size_parameter="limit",
    place_parameter="nextCursor",
    envelope="nextCursor",
    has_totals=False,
    nests_metrics=True,
)
"""Cursors without totals, and metrics that are asked for by name [C]."""

REVISIONS: Mapping[str, Revision] = {revision.name: revision for revision in (PAGED, CURSOR)}


def revision_with(members: Collection[str]) -> Revision | None:
    """The revision whose envelope has these members; None where it is that of neither, or of both."""
    found = [revision for revision in REVISIONS.values() if revision.envelope in members]
    return found[0] if len(found) == 1 else None
