"""The routes of the API: how their pages are requested and parsed, and what identifies a row."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from operator import attrgetter
from typing import Any

import msgspec

from later_reporting_dagster.contract.page import (
    MAX_ROWS,
    ListResult,
    UnreadableBody,
    other_envelope,
    read_envelope,
    read_next_cursor,
    read_number,
)
from later_reporting_dagster.contract.parameters import (
    CAMPAIGNS_PATH,
    CAMPAIGNS_PERFORMANCE_PATH,
    INSTANCES_PATH,
    INSTANCES_PERFORMANCE_PATH,
    MAX_PAGE_SIZE,
    METRICS_MEMBER,
    PAGED,
    PERFORMANCE_OVER_TIME_PATH,
    POSTS_PERFORMANCE_PATH,
    ApiVersion,
    DateBasis,
    version_of_envelope,
)
from later_reporting_dagster.contract.personal_data import without_personal_data
from later_reporting_dagster.contract.query import PerformanceQuery, instance_parameters
from later_reporting_dagster.contract.rows import (
    AccountBucket,
    AccountTotals,
    BadRow,
    Campaign,
    CampaignPerformance,
    Notes,
    Post,
    parse_listed_instance,
    row_parser,
)
from later_reporting_dagster.contract.safe_line import safe_line

SHOWN_INSTANCES = 5


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page to request: by number from 1, or by cursor, with the number for messages only.

    `from_end`: the rows are requested in reverse order, so that the page is counted from the end.
    """

    number: int
    from_end: bool = False
    cursor: str | None = None

    def __str__(self) -> str:
        return f"page {self.number}{' from the end' * self.from_end}"


FIRST_PAGE = PageRequest(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A list of the API.

    Attributes:
        rows: what they are, in the plural: posts, campaigns, totals or instances.
        row_parser: returns the parser of a row, given whether metrics are nested.
        personal_data: whether rows keep it; if not, they lose it before they are parsed (see `personal_data.py`).
        key: returns the identity of a valid row.
        filters: the pairs of the query string that select rows.
        metrics: the API names of the metrics to request, in the version that nests metrics.
        find_problem: says of a page that was read, or of repeated rows, why the response is not that of the query.
        is_sorted: whether the order of the rows is requested, so that the list can be fetched from its end. Posts are
            requested in the order of their dates, oldest first, so that new posts are appended at the end.
        advice: what to do if the list is too long, or changes while it is fetched.
        max_attempts: of each request; None for those of the retry policy.
        page_size: 0 for a response without pages, whose `data` is one row.
        needs_total: whether a page with rows that states no total, in the paged version, is none.
    """

    path: str
    description: str
    rows: str
    row_parser: Callable[..., Callable[[Any, Notes], Any]]
    personal_data: bool = True
    key: Callable[[Any], Hashable] = attrgetter("key")
    filters: tuple[tuple[str, str], ...] = ()
    metrics: tuple[str, ...] = ()
    find_problem: Callable[[ListResult], str | None] = lambda _: None
    is_sorted: bool = False
    advice: str = "List the instances to fetch (LATER_INSTANCE_IDS), or try later."
    max_attempts: int | None = None
    page_size: int = MAX_PAGE_SIZE
    needs_total: bool = True

    def parameters(self, api_version: ApiVersion, page: PageRequest) -> list[tuple[str, str]]:
        pairs = [*self.filters]
        if api_version.uses_cursors and self.metrics:
            # One key with commas, to keep the URL short: there may be dozens of names, and none has a comma.
            pairs.append((METRICS_MEMBER, ",".join(self.metrics)))
        if not self.page_size:
            return pairs
        pairs.append((api_version.page_size_parameter, str(self.page_size)))
        position = page.cursor if api_version.uses_cursors else str(page.number)
        if position is not None:
            pairs.append((api_version.page_parameter, position))
        if self.is_sorted:
            pairs += [("sortProperty", "postDate"), ("sortDirection", "DESC" if page.from_end else "ASC")]
        return pairs

    def parse_page(self, body: bytes, api_version: ApiVersion) -> ListResult:
        """Parse a page. Its rows are in `data`, or in a member `instanceIds` of it; the rest may be absent."""
        envelope = read_envelope(body, api_version, rows=self.rows)
        data, notes = envelope["data"], Notes()
        if self.rows == "instances" and isinstance(data, dict):
            data = data.get("instanceIds", data)
        is_object, by_cursor = not self.page_size, api_version.uses_cursors
        if is_object and isinstance(data, dict):
            data = [data]
        if data is None:
            notes.oddities["data is null"] += 1
        elif not isinstance(data, list) or (is_object and len(data) != 1):
            raise other_envelope(f"not a page of {self.rows}: data is", data)
        elif len(data) > MAX_ROWS:
            raise UnreadableBody(f"not a page of {self.rows}: {len(data)} rows")
        parse = self.row_parser(nested=by_cursor)
        try:
            kept = (row if self.personal_data else without_personal_data(row, rows=self.rows) for row in data or ())
            parsed = [parse(row, notes) for row in kept]
        except (ValueError, RecursionError) as error:
            raise UnreadableBody(f"not a page of {self.rows}: {error}") from None
        pagination = envelope.get(PAGED.pagination_member)
        total_items = read_number(pagination, "totalItems", notes)
        if not (by_cursor or is_object) and total_items is None:
            if parsed and self.needs_total:
                raise other_envelope(f"not a page of {self.rows}: no valid totalItems in", envelope)
            notes.oddities["no total"] += 1
        return ListResult(
            [row for row in parsed if not isinstance(row, BadRow)],
            [row for row in parsed if isinstance(row, BadRow)],
            stated_total=total_items,
            number=read_number(pagination, "page", notes),
            next_cursor=read_next_cursor(envelope, notes, rows=self.rows) if by_cursor and not is_object else None,
            oddities=notes.oddities,
            unreadable=notes.unreadable,
            is_unsure=not parsed and (data is None or not (by_cursor or total_items is not None)),
        )

    def row_keys(self, rows: ListResult) -> list[Hashable]:
        """Return the key of each valid row, and that of each bad row: its JSON."""
        return [*map(self.key, rows.items), *(row.key for row in rows.bad_rows)]


INSTANCES = Route(
    path=INSTANCES_PATH,
    description="instances",
    rows="instances",
    row_parser=lambda **_: parse_listed_instance,
    key=lambda name: name,
    needs_total=False,
)


def version_of_instances(body: bytes) -> ApiVersion | None:
    """Return the API version that a page of instance ids shows; None if it may be of either."""
    version = version_of_envelope(read_envelope(body, None, rows="instances"))
    page = INSTANCES.parse_page(body, version or PAGED)
    return None if version is PAGED and page.stated_total is None else version


RouteOf = Callable[[PerformanceQuery], Route]


def posts_route(query: PerformanceQuery) -> Route:
    return replace(
        _performance_route(POSTS_PERFORMANCE_PATH, "posts", query, Post),
        find_problem=partial(find_unrequested_rows, query),
        is_sorted=True,
        advice="Query fewer days or instances, or try later.",
    )


def campaign_performance_route(query: PerformanceQuery) -> Route:
    return _performance_route(CAMPAIGNS_PERFORMANCE_PATH, "campaigns", query, CampaignPerformance)


def account_totals_route(query: PerformanceQuery) -> Route:
    """Return the route of one row: the totals of all instances of a query together."""
    route = _performance_route(INSTANCES_PERFORMANCE_PATH, "totals", query, AccountTotals)
    # The totals of instances that do not fit one URL cannot be merged: those of a second part are a repeated row.
    return replace(route, key=lambda _: None, find_problem=partial(find_other_totals, query), page_size=0)


def account_days_route(query: PerformanceQuery) -> Route:
    """Return the route of the totals of each day of a query, of all of its instances together.

    Days without results have no row. Up to 100 days need one request.
    """
    route = _performance_route(PERFORMANCE_OVER_TIME_PATH, "totals", query, AccountBucket)
    filters = (*route.filters, ("granularity", "day"))
    return replace(route, key=attrgetter("day"), find_problem=partial(find_other_buckets, query), filters=filters)


def _performance_route(path: str, rows: str, query: PerformanceQuery, struct: type[msgspec.Struct]) -> Route:
    of_days, instance_id = query.date_basis is DateBasis.PERFORMANCE_DATE, _only(query.instance_ids)
    days = f"{query.start_date} to {query.end_date} by {query.date_basis.value}"
    return Route(
        path=path,
        description=f"{rows} of {days}, instances {describe_instances(query.instance_ids)}",
        rows=rows,
        row_parser=partial(row_parser, struct, query.metrics, of_days=of_days, instance_id=instance_id),
        filters=tuple(query.filter_parameters()),
        metrics=tuple(metric.api_name for metric in query.metrics),
    )


def campaigns_route(instance_ids: tuple[str, ...]) -> Route:
    return Route(
        path=CAMPAIGNS_PATH,
        description=f"campaigns of instances {describe_instances(instance_ids)}",
        rows="campaigns",
        row_parser=lambda **_: row_parser(Campaign, instance_id=_only(instance_ids)),
        filters=tuple(instance_parameters(instance_ids)),
        needs_total=False,
    )


def _only(instance_ids: tuple[str, ...]) -> str | None:
    return instance_ids[0] if len(instance_ids) == 1 else None


def describe_instances(instance_ids: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, instance_ids[:SHOWN_INSTANCES])) or "all"
    more = len(instance_ids) - SHOWN_INSTANCES
    return f"{shown} and {more} more" if more > 0 else shown


def find_unrequested_rows(query: PerformanceQuery, page: ListResult) -> str | None:
    """Describe posts and bad rows that the query's filters exclude; return None if there are none.

    By performance date, the date of a post is not checked. By post date, rows of the day before and of the day after
    the range may be those of another time zone.
    """
    rows = [*page.items, *page.bad_rows]
    instances = {row.instance_id for row in rows}
    content_types = {name for name in {post.content_type for post in page.items} if query.selects(name) is False}
    if query.instance_ids and (other := instances - {None, *query.instance_ids}):
        return f"rows of instances that were not requested: {_examples(other)}"
    if content_types:
        return f"rows of content types that were not requested: {_examples(content_types)}"
    for row in query.rows_outside(rows, days=1):
        return f"a row of {row.post_date.isoformat()}, more than a day outside of the range"
    return None


def _examples(values: Iterable[object]) -> str:
    return safe_line(", ".join(sorted(map(repr, values))[:5]))


def find_other_totals(query: PerformanceQuery, page: ListResult) -> str | None:
    """Describe a row that states another instance than the only one of a query; return None if there is none."""
    expected = {None, "", _only(query.instance_ids)}
    if other := {row.instance_id for row in (*page.items, *page.bad_rows)} - expected:
        return f"a row of an instance that was not requested alone: {_examples(other)}"
    return None


def find_other_buckets(query: PerformanceQuery, page: ListResult) -> str | None:
    """Describe a bucket that is not one day of a query, or comes twice; return None if there is none.

    A day without a bucket has no results, so a bucket whose days are unknown may hide one.
    """
    seen: set[date] = set()
    for row in (*page.items, *page.bad_rows):
        days = f"{row.first_day} to {row.last_day}"
        if row.first_day is None or row.last_day is None:
            return f"a bucket whose days cannot be read: {row.reason}"
        if not query.start_date <= row.first_day == row.last_day <= query.end_date:
            return f"the bucket {days} is no single day from {query.start_date} to {query.end_date}"
        if row.first_day in seen:
            return f"the bucket {days} came twice"
        seen.add(row.first_day)
    return find_other_totals(query, page)
