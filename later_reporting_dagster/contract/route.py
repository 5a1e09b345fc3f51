"""The routes of the API, one declaration per path: what a list's rows are, how they come, and what identifies one."""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import date
from operator import attrgetter
from typing import Any

import msgspec

from later_reporting_dagster.contract.metrics import (
    ACCOUNT_METRICS,
    CAMPAIGN_METRICS,
    METRICS,
    OVER_TIME_METRICS,
    Metric,
)
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
    version_of_envelope,
)
from later_reporting_dagster.contract.personal_data import KnownFields, known_fields, without_personal_data
from later_reporting_dagster.contract.query import ListQuery, PerformanceQuery, Query
from later_reporting_dagster.contract.rows import (
    AccountBucket,
    AccountTotals,
    BadRow,
    Campaign,
    CampaignPerformance,
    ListedInstance,
    Notes,
    Post,
    instance_id_respelled,
    parse_text,
    row_parser,
)
from later_reporting_dagster.contract.safe_line import safe_line


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


def _as_sent(item: Any, _: Notes) -> Any:
    return item


def _no_problem(*_: object) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The declaration of a path of the API, for all queries and both versions.

    Attributes:
        rows: what they are, in the plural, for messages.
        struct: the fields of a row, apart from its metrics.
        also: structs with other fields of a row, which are known, and have no column.
        metrics: those that a row may have, in the order of their columns.
        required_to_date: fields that a row needs by post date, beside those that it always needs.
        key: returns the identity of a valid row among all rows of a query.
        parameters_of_all: the pairs of the query string that each query has.
        is_sorted: whether the order of the rows is requested, so that the list can be fetched from its end. Posts are
            requested in the order of their dates, oldest first, so that new posts are appended at the end.
        is_object: whether `data` is one row, and there are no pages.
        member: the member of `data` that has the list of rows, if `data` may be an object.
        row_of: returns an item of the list as the JSON of a row.
        needs_total: whether a page with rows that states no total, in the paged version, is none.
        find_problem: says of a query and a page that was read, or of repeated rows, why the response is not that of
            the query.
        advice: what to do if the list is too long, or changes while it is fetched.
    """

    path: str
    rows: str
    struct: type[msgspec.Struct]
    also: tuple[type[msgspec.Struct], ...] = ()
    metrics: tuple[Metric, ...] = ()
    required_to_date: tuple[str, ...] = ()
    key: Callable[[Any], Hashable] = attrgetter("key")
    parameters_of_all: tuple[tuple[str, str], ...] = ()
    is_sorted: bool = False
    is_object: bool = False
    member: str = ""
    row_of: Callable[[Any, Notes], Any] = _as_sent
    needs_total: bool = True
    find_problem: Callable[[Any, ListResult], str | None] = _no_problem
    advice: str = "List the instances to fetch (LATER_INSTANCE_IDS), or try later."

    def describe(self, query: Query) -> str:
        return f"{self.rows} {query}".rstrip()

    def parameters(
        self, query: Query, api_version: ApiVersion, page: PageRequest = FIRST_PAGE, *, page_size: int = MAX_PAGE_SIZE
    ) -> list[tuple[str, str]]:
        pairs = [*query.filter_parameters(), *self.parameters_of_all]
        if api_version.uses_cursors and query.metrics:
            # One key with commas, to keep the URL short: there may be dozens of names, and none has a comma.
            pairs.append((METRICS_MEMBER, ",".join(metric.api_name for metric in query.metrics)))
        if self.is_object:
            return pairs
        pairs.append((api_version.page_size_parameter, str(page_size)))
        position = page.cursor if api_version.uses_cursors else str(page.number)
        if position is not None:
            pairs.append((api_version.page_parameter, position))
        if self.is_sorted:
            pairs += [("sortProperty", "postDate"), ("sortDirection", "DESC" if page.from_end else "ASC")]
        return pairs

    def row_parser(self, query: Query, api_version: ApiVersion) -> Callable[[Any, Notes], Any]:
        """Return the parser of a row, as decoded JSON, of the response to a query."""
        return row_parser(
            self.struct,
            query.metrics if self.metrics else None,
            nested=api_version.uses_cursors,
            of_days=query.is_of_days,
            required=() if query.is_of_days else self.required_to_date,
            instance_id=_only(query.instance_ids),
        )

    @property
    def known_fields(self) -> KnownFields:
        return known_fields((self.struct, *self.also), self.metrics)

    def parse_page(
        self, body: bytes, query: Query, api_version: ApiVersion, *, personal_data: bool = True
    ) -> ListResult:
        """Parse a page of a query's list; without `personal_data`, rows lose it before they are parsed.

        Rows are in `data`, or in a member of it; the rest may be absent.
        """
        envelope = read_envelope(body, api_version, rows=self.rows)
        data, notes, by_cursor = envelope["data"], Notes(), api_version.uses_cursors
        if isinstance(data, dict):
            data = [data] if self.is_object else data.get(self.member, data)
        if data is None:
            notes.oddities["data is null"] += 1
        elif not isinstance(data, list) or (self.is_object and len(data) != 1):
            raise other_envelope(f"not a page of {self.rows}: data is", data)
        elif len(data) > MAX_ROWS:
            raise UnreadableBody(f"not a page of {self.rows}: {len(data)} rows")
        parse, known = self.row_parser(query, api_version), self.known_fields
        try:
            rows = (self.row_of(item, notes) for item in data or ())
            kept = rows if personal_data else (without_personal_data(row, known) for row in rows)
            parsed = [parse(row, notes) for row in kept]
        except ValueError as error:
            raise UnreadableBody(f"not a page of {self.rows}: {error}") from None
        pagination = envelope.get(PAGED.pagination_member)
        total_items = read_number(pagination, "totalItems", notes)
        if not (by_cursor or self.is_object) and total_items is None:
            if parsed and self.needs_total:
                raise other_envelope(f"not a page of {self.rows}: no valid totalItems in", envelope)
            notes.oddities["no total"] += 1
        return ListResult(
            [row for row in parsed if not isinstance(row, BadRow)],
            [row for row in parsed if isinstance(row, BadRow)],
            stated_total=total_items,
            number=read_number(pagination, "page", notes),
            next_cursor=read_next_cursor(envelope, notes, rows=self.rows) if by_cursor and not self.is_object else None,
            oddities=notes.oddities,
            unreadable=notes.unreadable,
            is_unsure=not parsed and (data is None or not (by_cursor or total_items is not None)),
        )

    def row_keys(self, rows: ListResult) -> list[Hashable]:
        """Return the key of each valid row, and that of each bad row: its JSON."""
        return [*map(self.key, rows.items), *(row.key for row in rows.bad_rows)]


def _only(instance_ids: tuple[str, ...]) -> str | None:
    return instance_ids[0] if len(instance_ids) == 1 else None


def _listed_instance(listed: Any, notes: Notes) -> dict[str, str]:
    """Return an item of `GET /v2/instances`: a text, a number, or an object with an id."""
    if not isinstance(listed, str):
        notes.oddities["instance id spelled otherwise"] += 1
    is_object = isinstance(listed, dict)
    found = instance_id_respelled(listed.get("instanceId", listed.get("id")) if is_object else listed)
    return {"instanceId": parse_text(found)}


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


POSTS_PERFORMANCE = Route(
    path=POSTS_PERFORMANCE_PATH,
    rows="posts",
    struct=Post,
    metrics=METRICS,
    required_to_date=("postDate",),
    is_sorted=True,
    find_problem=find_unrequested_rows,
    advice="Query fewer days or instances, or try later.",
)
CAMPAIGNS_PERFORMANCE = Route(
    path=CAMPAIGNS_PERFORMANCE_PATH,
    rows="campaigns",
    struct=CampaignPerformance,
    also=(Campaign,),
    metrics=CAMPAIGN_METRICS,
)
# The totals of all instances of a query together: one row.
INSTANCES_PERFORMANCE = Route(
    path=INSTANCES_PERFORMANCE_PATH,
    rows="totals",
    struct=AccountTotals,
    metrics=ACCOUNT_METRICS,
    # The totals of instances that do not fit one URL cannot be merged: those of a second part are a repeated row.
    key=lambda _: None,
    is_object=True,
    find_problem=find_other_totals,
)
# The totals of each day of a query, of all of its instances together. Days without results have no row. Up to 100 days
# need one request.
PERFORMANCE_OVER_TIME = Route(
    path=PERFORMANCE_OVER_TIME_PATH,
    rows="totals",
    struct=AccountBucket,
    metrics=OVER_TIME_METRICS,
    key=attrgetter("day"),
    parameters_of_all=(("granularity", "day"),),
    find_problem=find_other_buckets,
)
CAMPAIGNS = Route(path=CAMPAIGNS_PATH, rows="campaigns", struct=Campaign, needs_total=False)
INSTANCES = Route(
    path=INSTANCES_PATH,
    rows="instances",
    struct=ListedInstance,
    member="instanceIds",
    row_of=_listed_instance,
    needs_total=False,
)


def version_of_instances(body: bytes) -> ApiVersion | None:
    """Return the API version that a page of instance ids shows; None if it may be of either."""
    version = version_of_envelope(read_envelope(body, None, rows=INSTANCES.rows))
    page = INSTANCES.parse_page(body, ListQuery(), version or PAGED)
    return None if version is PAGED and page.stated_total is None else version
