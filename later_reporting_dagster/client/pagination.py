"""The pages of one pagination, and the checks that they form one complete and consistent list."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from datetime import UTC, datetime, time
from urllib.parse import urlencode

from later_reporting_dagster.client.client_events import ClientEvent, PageFetched
from later_reporting_dagster.client.errors import ApiVersionChanged, TooManyPosts
from later_reporting_dagster.client.responses import RequestContext, Response
from later_reporting_dagster.client.route import PageRequest, Route
from later_reporting_dagster.client.transport import Transport
from later_reporting_dagster.contract import (
    MAX_PAGE_NUMBER,
    ApiVersion,
    DateBasis,
    OtherApiVersion,
    Page,
    Pagination,
    PerformanceQuery,
    platform_of,
    redact,
)

MAX_PAGES = 2 * MAX_PAGE_NUMBER  # all numbered pages, from the start and from the end
# Limit on the bodies of one pagination, to bound memory: about 70,000 posts of 700 bytes. In memory they may take four
# times as much, because a string that contains an emoji takes four bytes per character.
MAX_BYTES = 48 * 2**20


class Inconsistency(Exception):  # noqa: N818 - named for what happened
    """The pages are inconsistent, for the reason in the message."""


class PageReader:
    """Fetches pages of one pagination, each at most once.

    The number and the size of the pages are limited: a faulty service could state a next cursor on every page, and
    pages are kept in memory.

    Attributes:
        route: the list.

    Args:
        transport: sends the requests.
        route: the list.
        api_version: the API version of the service.
        on_event: called after each page of a list that has progress.
    """

    def __init__(
        self, transport: Transport, route: Route, api_version: ApiVersion, *, on_event: Callable[[ClientEvent], None]
    ) -> None:
        self.route = route
        self._transport = transport
        self._version = api_version
        self._on_event = on_event
        self._first: Pagination | None = None
        self._pages = self._bytes = 0

    async def fetch(self, page: PageRequest) -> Page:
        """Fetch a page.

        Raises:
            TooManyPosts: the pagination is longer or larger than allowed.
            Inconsistency: the page has a number and totals, and does not belong to the list that started with page 1.
            ApiVersionChanged: the service responded in the other version.
            LaterError: the request failed permanently, or temporarily in every attempt.
        """
        route = self.route
        try:
            response = await self._transport.request(
                "GET",
                f"{route.path}?{urlencode(route.parameters(self._version, page))}",
                context=RequestContext(f"{route.description}, {page}", route.instance_ids),
                parse=self._parse,
            )
        except OtherApiVersion as other:
            raise ApiVersionChanged(self._version.name, other.api_version.name) from None
        if route.has_progress:
            self._on_event(PageFetched(page.number, response.rows))
        if (pagination := response.pagination) is not None:
            self._first = self._first or pagination
            if problem := find_page_inconsistency(page, pagination, rows=response.rows, first=self._first):
                raise Inconsistency(problem)  # at once, because the pages that follow would be discarded
        return response

    def _parse(self, response: Response) -> Page:
        page = self.route.parse_page(response.body, self._version)
        self._pages, self._bytes = self._pages + 1, self._bytes + len(response.body)
        if self._pages > MAX_PAGES or self._bytes > MAX_BYTES:
            raise TooManyPosts(
                f"{self.route.description}: the list has more than {MAX_PAGES} pages or {MAX_BYTES} bytes."
                f" {self.route.too_long_advice}"
            )
        return page


def find_page_inconsistency(page: PageRequest, pagination: Pagination, *, rows: int, first: Pagination) -> str | None:
    """Return why a numbered page does not belong to the list that started with page 1; None if it does.

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


def count_pages(pagination: Pagination) -> int:
    """Return the number of pages that the stated totals imply, at least 1."""
    return max(1, -(-pagination.total_items // pagination.page_size)) if pagination.page_size > 0 else 1


def find_duplicates(keys: Sequence[Hashable]) -> str | None:
    """Describe how many keys are duplicates; return None if none are."""
    duplicates = len(keys) - len(set(keys))
    return f"{duplicates} of {len(keys)} rows are duplicates" if duplicates else None


def find_unrequested_rows(query: PerformanceQuery, pages: Iterable[Page]) -> str | None:
    """Describe posts and bad rows that the query's filters exclude; return None if there are none."""
    pages = [*pages]
    posts = [post for page in pages for post in page.items]
    rows = [*posts, *(row for page in pages for row in page.bad_rows)]
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
