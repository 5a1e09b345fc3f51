"""All pages of one query, and the proof that they are one answer: nothing lost, nothing doubled, nothing foreign."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time

from later_reporting_dagster.contract import (
    MAXIMUM_PAGE_NUMBER,
    MAXIMUM_PAGE_SIZE,
    BadRow,
    CursorPage,
    DateBasis,
    Page,
    Pagination,
    Post,
    PostPerformanceQuery,
    SortDirection,
    SortProperty,
    excerpt,
    platform_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """The whole and verified answer to `query`; where a walk by cursor was cut short, `query` ends on its last day."""

    query: PostPerformanceQuery
    posts: list[Post] = field(repr=False)
    bad_rows: list[BadRow] = field(repr=False)
    total_items: int
    pages: int


@dataclass(frozen=True, slots=True)
class Place:
    """A page's number, counted from 1, from the beginning of an answer or, in the opposite order, from its end."""

    number: int
    from_the_end: bool = False

    def __str__(self) -> str:
        return f"page {self.number}{' from the end' * self.from_the_end}"


FIRST = Place(1)


def as_walked(query: PostPerformanceQuery, place: Place = FIRST, *, cursor: str | None = None) -> PostPerformanceQuery:
    """The query with the largest pages, in an order to which new posts add at the end."""
    return replace(
        query,
        page_size=MAXIMUM_PAGE_SIZE,
        page_number=place.number,
        cursor=cursor,
        sort_property=SortProperty.POST_DATE,
        sort_direction=SortDirection.DESC if place.from_the_end else SortDirection.ASC,
    )


def places_after_first(first: Pagination, *, both_ends: bool) -> list[Place] | None:
    """The pages that remain to be asked for once page 1 is there; None when there are more than can be reached.

    The service counts to 500. What lies beyond is reached from the other end, by one page more than would meet: posts
    of the same instant may stand in another order there, so that the two ends have to overlap. Where the last page is
    full, only the other end tells that there is none after it.

    Args:
        first: what page 1 says of itself.
        both_ends: whether the answer has an opposite order.
    """
    from_the_beginning = min(pages_in(first), MAXIMUM_PAGE_NUMBER)
    beyond = pages_in(first) - from_the_beginning
    if beyond > (MAXIMUM_PAGE_NUMBER if both_ends else 0):
        return None
    last_is_full = both_ends and first.total_items == pages_in(first) * first.page_size
    from_the_end = min(beyond + 1, MAXIMUM_PAGE_NUMBER) if beyond or last_is_full else 0
    return [Place(number) for number in range(2, from_the_beginning + 1)] + [
        Place(number, from_the_end=True) for number in range(1, from_the_end + 1)
    ]


def pages_in(pagination: Pagination) -> int:
    """How many pages an answer has by its own totals, and at least the one that said so."""
    return max(1, -(-pagination.total_items // pagination.page_size)) if pagination.page_size > 0 else 1


def problem_of_page(place: Place, pagination: Pagination, *, rows: int, first: Pagination) -> str | None:
    """Return why a page cannot belong to an answer that began with `first`; None when it can.

    Args:
        place: the page that was asked for.
        pagination: what it says of itself.
        rows: how many rows it holds.
        first: what page 1 said of itself.
    """
    total_items, size = first.total_items, first.page_size
    if pagination.page != place.number:
        return f"{place} was asked for, and page {pagination.page} answered"
    if (pagination.total_items, pagination.page_size) != (total_items, size):
        return (
            f"page 1 says {total_items} items by {size}, "
            f"{place} says {pagination.total_items} by {pagination.page_size}"
        )
    # The document does not say whether an answer without rows has one page or none, nor whether pages beyond the
    # last that can be asked for are counted.
    pages = pages_in(pagination)
    if (pagination.total_pages or 1) not in (pages, min(pages, MAXIMUM_PAGE_NUMBER)):
        return f"{place} says that {total_items} items by {size} are {pagination.total_pages} pages"
    due = min(size, total_items - (place.number - 1) * size)
    if rows != due:
        return f"{place} has {rows} rows where {total_items} items by {size} leave {due} for it"
    return None


def problem_of(query: PostPerformanceQuery, pages: Sequence[Page], from_the_end: Sequence[Page] = ()) -> str | None:
    """Why pages 1, 2, … and those from the end are not the one whole answer to `query`; None when they are."""
    first = pages[0].pagination
    for ordered, is_end in ((pages, False), (from_the_end, True)):
        for number, page in enumerate(ordered, start=1):
            if problem := problem_of_page(Place(number, is_end), page.pagination, rows=page.rows, first=first):
                return problem
    ends = [keys_of(pages), keys_of(from_the_end)]
    distinct = {key for keys in ends for key in keys}
    for keys in ends:
        if problem := repeated(keys):
            return problem
    if len(distinct) != first.total_items:
        return f"{len(distinct)} rows came of {first.total_items}"
    both = [*pages, *from_the_end]
    return foreign_row(
        query, [post for page in both for post in page.posts], [row for page in both for row in page.bad_rows]
    )


def without_overlap(pages: Sequence[Page], from_the_end: Sequence[Page]) -> tuple[list[Post], list[BadRow]]:
    """Return the rows of an answer that was fetched from both ends, each once."""
    posts = [post for page in pages for post in page.posts]
    bad_rows = [row for page in pages for row in page.bad_rows]
    if from_the_end:
        seen = set(keys_of(pages))
        posts += [post for page in from_the_end for post in page.posts if post.key not in seen]
        bad_rows += [row for page in from_the_end for row in page.bad_rows if row.raw not in seen]
    return posts, bad_rows


def keys_of(pages: Sequence[Page | CursorPage]) -> list[Hashable]:
    """Return the identity of each row: its key, or for a bad row its raw JSON."""
    keys: list[Hashable] = [(post.instance_id, post.campaign_id, post.post_id) for page in pages for post in page.posts]
    keys += [row.raw for page in pages for row in page.bad_rows]
    return keys


def repeated(keys: Sequence[Hashable]) -> str | None:
    """How many rows came twice, in words; None when none did."""
    twice = len(keys) - len(set(keys))
    return f"{twice} of {len(keys)} rows came twice" if twice else None


def foreign_row(query: PostPerformanceQuery, posts: Sequence[Post], bad_rows: Sequence[BadRow]) -> str | None:
    """Which rows cannot be an answer to the query, in words; None when all can."""
    rows: list[Post | BadRow] = [*posts, *bad_rows]
    instances = {row.instance_id for row in rows}
    campaigns = {post.campaign_id for post in posts}
    content_types = {post.content_type for post in posts}
    dates = [row.post_date for row in rows if row.post_date is not None]
    if query.instance_ids and (foreign := instances - {None, *query.instance_ids}):
        return f"rows of instances that were not asked for: {_some(foreign)}"
    if query.campaign_ids and (foreign_campaigns := campaigns - {*query.campaign_ids}):
        return f"rows of campaigns that were not asked for: {_some(foreign_campaigns)}"
    # A content type that the document does not list may belong to any platform: it is no proof against the answer.
    if query.platforms and (
        foreign := {name for name in content_types if platform_of(name) not in (None, *query.platforms)}
    ):
        return f"rows of platforms that were not asked for: {_some(foreign)}"
    if query.content_types and (foreign := content_types - {None, *query.content_types}):
        return f"rows of content types that were not asked for: {_some(foreign)}"
    if dates:
        earliest, latest = min(dates), max(dates)
        # Performance is of a post of any age, but of none that is not published yet.
        if query.date_basis is DateBasis.POST_DATE and earliest < datetime.combine(query.start_date, time.min, UTC):
            return f"a row of {earliest.isoformat()}, before {query.start_date}"
        if latest > datetime.combine(query.end_date, time.max, UTC):
            return f"a row of {latest.isoformat()}, after {query.end_date}"
    return None


def _some(values: Iterable[object]) -> str:
    return excerpt(", ".join(sorted(map(repr, values))[:5]))
