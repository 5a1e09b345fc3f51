"""The list routes of the API: how their pages are requested and parsed, and what identifies a row."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from operator import attrgetter
from typing import Any

from later_reporting_dagster.contract import ApiVersion, BadRow, DateBasis, PerformanceQuery
from later_reporting_dagster.contract.page import Page, instances_page_from_body, list_page_from_body
from later_reporting_dagster.contract.parameters import (
    CAMPAIGNS_PATH,
    CAMPAIGNS_PERFORMANCE_PATH,
    INSTANCES_PATH,
    MAX_PAGE_SIZE,
    METRICS_MEMBER,
    POSTS_PERFORMANCE_PATH,
)
from later_reporting_dagster.contract.query import instance_parameters
from later_reporting_dagster.contract.rows import campaign_from_json, campaign_performance_parser, post_parser

SHOWN_INSTANCES = 5
# After every request.
NEVER = datetime.max.replace(tzinfo=UTC)


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


@dataclass(frozen=True, slots=True)
class ListResult:
    """The complete rows of a list, in the order of the API.

    Attributes:
        requested_at: when its first page was requested.
        oddities: harmless deviations of the responses from the documentation, with how often each occurred, such as
            `total count as text` or `equal row twice`.
        unreadable: by the key of a row, the columns whose value could not be read, with an excerpt of what was sent.
        outside: the posts and bad rows, among those above, that are up to a day outside of the query's range by
            `post_date`.
        is_surely_empty: whether there are no rows, and the response says so: by a total of 0, or by cursor with a list
            that has ended. Not by an empty response, or one that is null or states no total.
    """

    items: list[Any] = field(repr=False)
    bad_rows: list[BadRow] = field(repr=False)
    pages: int
    requested_at: datetime = NEVER
    oddities: Counter[str] = field(default_factory=Counter)
    unreadable: Mapping[Hashable, Mapping[str, str]] = field(default_factory=dict, repr=False)
    outside: list[Any] = field(default_factory=list, repr=False)
    is_surely_empty: bool = False

    @classmethod
    def of(cls, parts: Sequence["Page | ListResult"]) -> "ListResult":
        """Return the rows of pages, or of lists, as one list."""
        lists = [part for part in parts if isinstance(part, ListResult)]
        return cls(
            [item for part in parts for item in part.items],
            [row for part in parts for row in part.bad_rows],
            pages=len(parts) - len(lists) + sum(part.pages for part in lists),
            requested_at=min((part.requested_at for part in lists), default=NEVER),
            oddities=sum((part.oddities for part in parts), Counter()),
            unreadable={key: columns for part in parts for key, columns in part.unreadable.items()},
            outside=[row for part in lists for row in part.outside],
            is_surely_empty=all(part.is_surely_empty for part in parts),
        )

    @property
    def total_items(self) -> int:
        """Number of rows, good and bad."""
        return len(self.items) + len(self.bad_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A list of the API.

    Attributes:
        key: returns the identity of a valid row.
        filters: the pairs of the query string that select rows.
        metrics: the API names of the metrics to request, in the version that nests metrics.
        posts_query: the query of a list of posts, which all of its rows have to match; None for other lists. Posts are
            requested in the order of their dates, oldest first, so that new posts are appended at the end.
        max_attempts: of each request; None for those of the retry policy.
    """

    path: str
    description: str
    parse_page: Callable[[bytes, ApiVersion], Page]
    key: Callable[[Any], Hashable] = attrgetter("key")
    filters: tuple[tuple[str, str], ...] = ()
    metrics: tuple[str, ...] = ()
    posts_query: PerformanceQuery | None = None
    too_long_advice: str = "List the instances to fetch (LATER_INSTANCE_IDS)."
    too_volatile_advice: str = "Try later."
    max_attempts: int | None = None
    page_size: int = MAX_PAGE_SIZE

    @property
    def is_sorted(self) -> bool:
        """Whether the order of the rows is requested, so that the list can be fetched from its end."""
        return self.posts_query is not None

    def parameters(self, api_version: ApiVersion, page: PageRequest) -> list[tuple[str, str]]:
        pairs = [*self.filters]
        if api_version.uses_cursors and self.metrics:
            # One key with commas, to keep the URL short: there may be dozens of names, and none has a comma.
            pairs.append((METRICS_MEMBER, ",".join(self.metrics)))
        pairs.append((api_version.page_size_parameter, str(self.page_size)))
        position = page.cursor if api_version.uses_cursors else str(page.number)
        if position is not None:
            pairs.append((api_version.page_parameter, position))
        if self.is_sorted:
            pairs += [("sortProperty", "postDate"), ("sortDirection", "DESC" if page.from_end else "ASC")]
        return pairs

    def row_keys(self, rows: Page | ListResult) -> list[Hashable]:
        """Return the key of each valid row, and that of each bad row: its JSON."""
        return [*map(self.key, rows.items), *(row.key for row in rows.bad_rows)]


INSTANCES = Route(
    path=INSTANCES_PATH, description="instances", parse_page=instances_page_from_body, key=lambda name: name
)


def posts_route(query: PerformanceQuery, *, personal_data: bool = True, max_attempts: int | None = None) -> Route:
    return replace(
        _performance_route(POSTS_PERFORMANCE_PATH, "posts", query, rows="posts", personal_data=personal_data),
        posts_query=query,
        too_long_advice="Query fewer days or instances.",
        too_volatile_advice="Posts may be changing: try later, or query fewer days or instances at once.",
        max_attempts=max_attempts,
    )


def campaign_performance_route(query: PerformanceQuery, *, personal_data: bool = True) -> Route:
    what, path = "campaign performance", CAMPAIGNS_PERFORMANCE_PATH
    return _performance_route(path, what, query, rows="campaigns", personal_data=personal_data)


def _performance_route(path: str, what: str, query: PerformanceQuery, *, rows: str, personal_data: bool) -> Route:
    of_days = query.date_basis is DateBasis.PERFORMANCE_DATE
    days = f"{query.start_date} to {query.end_date} by {query.date_basis.value}"

    def parse_page(body: bytes, api_version: ApiVersion) -> Page:
        is_post, nested = rows == "posts", api_version.uses_cursors
        parser = post_parser if is_post else campaign_performance_parser
        return list_page_from_body(
            body,
            api_version,
            parse_row=parser(query.metrics, nested=nested, of_days=of_days),
            rows=rows,
            personal_data=personal_data,
            instance_id=_only(query.instance_ids) if is_post else None,
        )

    return Route(
        path=path,
        description=f"{what} of {days}, instances {describe_instances(query.instance_ids)}",
        parse_page=parse_page,
        filters=tuple(query.filter_parameters()),
        metrics=tuple(metric.api_name for metric in query.metrics),
    )


def campaigns_route(instance_ids: tuple[str, ...], *, personal_data: bool = True) -> Route:
    return Route(
        path=CAMPAIGNS_PATH,
        description=f"campaigns of instances {describe_instances(instance_ids)}",
        parse_page=partial(
            list_page_from_body,
            parse_row=campaign_from_json,
            rows="campaigns",
            personal_data=personal_data,
            instance_id=_only(instance_ids),
            needs_total=False,
        ),
        filters=tuple(instance_parameters(instance_ids)),
    )


def _only(instance_ids: tuple[str, ...]) -> str | None:
    return instance_ids[0] if len(instance_ids) == 1 else None


def describe_instances(instance_ids: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, instance_ids[:SHOWN_INSTANCES])) or "all"
    more = len(instance_ids) - SHOWN_INSTANCES
    return f"{shown} and {more} more" if more > 0 else shown
