"""Page references of a query, and the checks that its pages form one complete and consistent list."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time

from later_reporting_dagster.contract import (
    MAX_PAGE_NUMBER,
    MAX_PAGE_SIZE,
    BadRow,
    CursorPage,
    DateBasis,
    Page,
    Pagination,
    Post,
    PostPerformanceQuery,
    SortDirection,
    SortProperty,
    platform_of,
    redact,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """The complete and verified rows of a query.

    Attributes:
        query: the query; its `end_date` is earlier than requested if an `EndDateCallback` ended the pagination.
        posts: the valid rows.
        bad_rows: the malformed rows.
        total_items: number of rows; in the paged version, the total that the API states.
        pages: number of pages that were fetched, without refetches.
    """

    query: PostPerformanceQuery
    posts: list[Post] = field(repr=False)
    bad_rows: list[BadRow] = field(repr=False)
    total_items: int
    pages: int


@dataclass(frozen=True, slots=True)
class PageRef:
    """A page by its number, counted from 1 from the start of a list or, in reverse order, from its end."""

    number: int
    from_end: bool = False

    def __str__(self) -> str:
        return f"page {self.number}{' from the end' * self.from_end}"


FIRST_PAGE = PageRef(1)


def page_query(
    query: PostPerformanceQuery, page: PageRef = FIRST_PAGE, *, cursor: str | None = None
) -> PostPerformanceQuery:
    """Return the query for one page, with the largest page size, sorted by `postDate`.

    The order is ascending, so that new posts are appended at the end; it is descending for a page from the end.
    """
    return replace(
        query,
        page_size=MAX_PAGE_SIZE,
        page_number=page.number,
        cursor=cursor,
        sort_property=SortProperty.POST_DATE,
        sort_direction=SortDirection.DESC if page.from_end else SortDirection.ASC,
    )


def remaining_pages(first: Pagination, *, both_ends: bool) -> list[PageRef] | None:
    """Return the pages to fetch after page 1, or None if the list has more pages than can be fetched.

    The API serves page numbers up to 500. Later pages are fetched from the other end, with one page of overlap, because
    posts with the same time may be in a different order there. If the last page is full, the first page from the other
    end is fetched too, because only that page shows whether more rows follow.

    Args:
        first: pagination of page 1.
        both_ends: whether the list can be fetched in reverse order.
    """
    from_start = min(count_pages(first), MAX_PAGE_NUMBER)
    beyond = count_pages(first) - from_start
    if beyond > (MAX_PAGE_NUMBER if both_ends else 0):
        return None
    last_is_full = both_ends and first.total_items == count_pages(first) * first.page_size
    from_end = min(beyond + 1, MAX_PAGE_NUMBER) if beyond or last_is_full else 0
    return [PageRef(number) for number in range(2, from_start + 1)] + [
        PageRef(number, from_end=True) for number in range(1, from_end + 1)
    ]


def count_pages(pagination: Pagination) -> int:
    """Return the number of pages that the stated totals imply, at least 1."""
    return max(1, -(-pagination.total_items // pagination.page_size)) if pagination.page_size > 0 else 1


def find_page_inconsistency(page: PageRef, pagination: Pagination, *, rows: int, first: Pagination) -> str | None:
    """Return why a page does not belong to the list that started with page 1; None if it does.

    Args:
        page: the requested page.
        pagination: pagination of the response.
        rows: number of rows in the response.
        first: pagination of page 1.
    """
    total_items, size = first.total_items, first.page_size
    if pagination.page != page.number:
        return f"{page} was requested, but page {pagination.page} was returned"
    if (pagination.total_items, pagination.page_size) != (total_items, size):
        return (
            f"page 1 states {total_items} items in pages of {size}, "
            f"{page} states {pagination.total_items} in pages of {pagination.page_size}"
        )
    # The API reference leaves open whether an empty list has one page or none, and whether `totalPages` counts pages
    # beyond the last number that can be requested.
    pages = count_pages(pagination)
    if (pagination.total_pages or 1) not in (pages, min(pages, MAX_PAGE_NUMBER)):
        return f"{page} states {pagination.total_pages} pages for {total_items} items in pages of {size}"
    expected = min(size, total_items - (page.number - 1) * size)
    if rows != expected:
        return f"{page} has {rows} rows instead of {expected}, for {total_items} items in pages of {size}"
    return None


def find_inconsistency(query: PostPerformanceQuery, pages: Sequence[Page], from_end: Sequence[Page] = ()) -> str | None:
    """Return why these pages are not the complete list of the query; None if they are.

    Args:
        query: the query.
        pages: pages 1, 2, … from the start.
        from_end: pages 1, 2, … from the end.
    """
    first = pages[0].pagination
    for ordered, is_end in ((pages, False), (from_end, True)):
        for number, page in enumerate(ordered, start=1):
            ref = PageRef(number, is_end)
            if problem := find_page_inconsistency(ref, page.pagination, rows=page.rows, first=first):
                return problem
    ends = [row_keys(pages), row_keys(from_end)]
    distinct = {key for keys in ends for key in keys}
    for keys in ends:
        if problem := find_duplicates(keys):
            return problem
    if len(distinct) != first.total_items:
        return f"received {len(distinct)} rows of {first.total_items}"
    both = [*pages, *from_end]
    return find_unrequested_rows(
        query,
        posts=[post for page in both for post in page.posts],
        bad_rows=[row for page in both for row in page.bad_rows],
    )


def merge_ends(pages: Sequence[Page], from_end: Sequence[Page]) -> tuple[list[Post], list[BadRow]]:
    """Return the rows of a list that was fetched from both ends, without the duplicates of the overlap."""
    posts = [post for page in pages for post in page.posts]
    bad_rows = [row for page in pages for row in page.bad_rows]
    if from_end:
        seen = set(row_keys(pages))
        posts += [post for page in from_end for post in page.posts if post.key not in seen]
        bad_rows += [row for page in from_end for row in page.bad_rows if row.raw not in seen]
    return posts, bad_rows


def row_keys(pages: Sequence[Page | CursorPage]) -> list[Hashable]:
    """Return the identity of each row: the key of a post, the raw JSON of a bad row."""
    keys: list[Hashable] = [(post.instance_id, post.campaign_id, post.post_id) for page in pages for post in page.posts]
    keys += [row.raw for page in pages for row in page.bad_rows]
    return keys


def find_duplicates(keys: Sequence[Hashable]) -> str | None:
    """Describe how many keys are duplicates; return None if none are."""
    duplicates = len(keys) - len(set(keys))
    return f"{duplicates} of {len(keys)} rows are duplicates" if duplicates else None


def find_unrequested_rows(
    query: PostPerformanceQuery, *, posts: Sequence[Post], bad_rows: Sequence[BadRow]
) -> str | None:
    """Describe rows that the query's filters exclude; return None if there are none."""
    rows: list[Post | BadRow] = [*posts, *bad_rows]
    instances = {row.instance_id for row in rows}
    campaigns = {post.campaign_id for post in posts}
    content_types = {post.content_type for post in posts}
    dates = [row.post_date for row in rows if row.post_date is not None]
    if query.instance_ids and (other := instances - {None, *query.instance_ids}):
        return f"rows of instances that were not requested: {_examples(other)}"
    if query.campaign_ids and (other_campaigns := campaigns - {*query.campaign_ids}):
        return f"rows of campaigns that were not requested: {_examples(other_campaigns)}"
    # A content type whose first word is not a platform may belong to any platform, so it is not checked.
    if query.platforms and (
        other := {name for name in content_types if platform_of(name) not in (None, *query.platforms)}
    ):
        return f"rows of platforms that were not requested: {_examples(other)}"
    if query.content_types and (other := content_types - {None, *query.content_types}):
        return f"rows of content types that were not requested: {_examples(other)}"
    if dates:
        earliest, latest = min(dates), max(dates)
        # By performance date, posts may be older than the range, but not newer.
        if query.date_basis is DateBasis.POST_DATE and earliest < datetime.combine(query.start_date, time.min, UTC):
            return f"a row of {earliest.isoformat()}, before {query.start_date}"
        if latest > datetime.combine(query.end_date, time.max, UTC):
            return f"a row of {latest.isoformat()}, after {query.end_date}"
    return None


def _examples(values: Iterable[object]) -> str:
    return redact(", ".join(sorted(map(repr, values))[:5]))
