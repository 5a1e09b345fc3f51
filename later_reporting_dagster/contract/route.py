"""The list routes of the API: how their pages are requested and parsed, and what identifies a row."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any

from later_reporting_dagster.contract.page import ListResult, instances_page_from_body, list_page_from_body
from later_reporting_dagster.contract.parameters import (
    CAMPAIGNS_PATH,
    CAMPAIGNS_PERFORMANCE_PATH,
    INSTANCES_PATH,
    MAX_PAGE_SIZE,
    METRICS_MEMBER,
    POSTS_PERFORMANCE_PATH,
    ApiVersion,
    DateBasis,
)
from later_reporting_dagster.contract.query import PerformanceQuery, instance_parameters
from later_reporting_dagster.contract.rows import campaign_from_json, campaign_performance_parser, post_parser

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
        key: returns the identity of a valid row.
        filters: the pairs of the query string that select rows.
        metrics: the API names of the metrics to request, in the version that nests metrics.
        posts_query: the query of a list of posts, which all of its rows have to match; None for other lists. Posts are
            requested in the order of their dates, oldest first, so that new posts are appended at the end.
        max_attempts: of each request; None for those of the retry policy.
    """

    path: str
    description: str
    parse_page: Callable[[bytes, ApiVersion], ListResult]
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

    def row_keys(self, rows: ListResult) -> list[Hashable]:
        """Return the key of each valid row, and that of each bad row: its JSON."""
        return [*map(self.key, rows.items), *(row.key for row in rows.bad_rows)]


INSTANCES = Route(
    path=INSTANCES_PATH, description="instances", parse_page=instances_page_from_body, key=lambda name: name
)


RouteOf = Callable[..., Route]
"""Returns the list of a query; with `personal_data=False`, without that of its rows."""


def posts_route(query: PerformanceQuery, *, personal_data: bool = True) -> Route:
    return replace(
        _performance_route(POSTS_PERFORMANCE_PATH, "posts", query, rows="posts", personal_data=personal_data),
        posts_query=query,
        too_long_advice="Query fewer days or instances.",
        too_volatile_advice="Posts may be changing: try later, or query fewer days or instances at once.",
    )


def campaign_performance_route(query: PerformanceQuery, *, personal_data: bool = True) -> Route:
    what, path = "campaign performance", CAMPAIGNS_PERFORMANCE_PATH
    return _performance_route(path, what, query, rows="campaigns", personal_data=personal_data)


def _performance_route(path: str, what: str, query: PerformanceQuery, *, rows: str, personal_data: bool) -> Route:
    of_days = query.date_basis is DateBasis.PERFORMANCE_DATE
    days = f"{query.start_date} to {query.end_date} by {query.date_basis.value}"

    def parse_page(body: bytes, api_version: ApiVersion) -> ListResult:
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
