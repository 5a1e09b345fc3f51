"""Parse and validate the query strings of the list routes.

Unknown parameters are rejected, also those of the other API version. The constants are those of the contract package,
the parsers are separate: a mistake in shared parsers would pass every test.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from datetime import date
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from later_reporting_dagster.contract.metrics import (
    CAMPAIGN_METRICS,
    DEFAULT_CAMPAIGN_METRICS,
    DEFAULT_METRICS,
    METRICS,
    Metric,
)
from later_reporting_dagster.contract.parameters import (
    CURSOR,
    DEFAULT_PAGE_SIZE,
    MAX_CAMPAIGN_IDS,
    MAX_PAGE_NUMBER,
    MAX_PAGE_SIZE,
    MAX_RANGE_YEARS,
    METRICS_MEMBER,
    PAGED,
    ApiVersion,
    ContentType,
    DateBasis,
    Platform,
    ProblemType,
    SortDirection,
    SortProperty,
)
from later_reporting_dagster.endpoint.pages import PageRequest, page_at_cursor
from later_reporting_dagster.endpoint.problem_responses import ProblemError, bad_request

CAMPAIGN_SORT_PROPERTIES = tuple(
    dict.fromkeys(metric.api_name for metric in (*DEFAULT_CAMPAIGN_METRICS, *DEFAULT_METRICS))
)
"""The metrics of campaigns in the paged version. Which ones these are is not public (docs/api.md, "Campaigns")."""

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INTEGER = re.compile(r"-?[0-9]+")

_Value = TypeVar("_Value")


class PostsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Parsed parameters of a posts query, without those of the page.

    None stands for an omitted filter.

    Attributes:
        start: First UTC day.
        end: Last UTC day, inclusive.
        instance_ids: Instances to include.
        campaign_ids: Campaigns to include.
        platforms: Platforms to include; excludes `content_types`.
        content_types: Content types to include; excludes `platforms`.
        basis: Meaning of the days: publication or performance.
        sort_property: Sort key.
        sort_direction: Sort direction.
        metrics: Requested metrics; None in the API version without this parameter.
    """

    start: date
    end: date
    instance_ids: tuple[str, ...] | None
    campaign_ids: tuple[int, ...] | None
    platforms: tuple[Platform, ...] | None
    content_types: tuple[ContentType, ...] | None
    basis: DateBasis
    sort_property: SortProperty
    sort_direction: SortDirection
    metrics: tuple[str, ...] | None = None


class CampaignsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Parsed parameters of a query for the performance of campaigns, without those of the page.

    Attributes:
        posts: Query for the posts whose metrics are summed.
        sort_property: API name of a metric; None: sort by campaign id, in ascending order.
        metrics: Requested metrics; None in the API version without this parameter.
    """

    posts: PostsQuery
    sort_property: str | None
    metrics: tuple[str, ...] | None = None


def parse_posts_query(query_string: str, api_version: ApiVersion = PAGED) -> tuple[PostsQuery, PageRequest]:
    """Parse the query string of `GET /v2/posts/performance`.

    Raises:
        ProblemError: 400 `ANL_00400`, or 400 `ANL_00422` for an unsupported `sortProperty`.
    """
    parameters = _QueryParameters(query_string)
    sort_property = parameters.sort_property(SortProperty)
    query = _parse_posts_query(
        parameters,
        # The API reference has no default; the sandbox sorts by `postDate`.
        sort_property=SortProperty.POST_DATE if sort_property is None else SortProperty(sort_property),
        metrics=parameters.metrics(METRICS) if api_version.nests_metrics else None,
    )
    page = _parse_page(parameters, api_version, query=query)
    parameters.reject_remaining()
    _validate(query)
    return query, page


def parse_campaign_performance_query(
    query_string: str, api_version: ApiVersion = PAGED
) -> tuple[CampaignsQuery, PageRequest]:
    """Parse the query string of `GET /v2/campaigns/performance`.

    Raises:
        ProblemError: as `parse_posts_query`.
    """
    parameters = _QueryParameters(query_string)
    query = CampaignsQuery(
        sort_property=parameters.sort_property(CAMPAIGN_SORT_PROPERTIES),
        metrics=parameters.metrics(CAMPAIGN_METRICS) if api_version.nests_metrics else None,
        posts=_parse_posts_query(parameters, sort_property=SortProperty.POST_DATE),
    )
    page = _parse_page(parameters, api_version, query=query)
    parameters.reject_remaining()
    _validate(query.posts)
    return query, page


def parse_campaigns_query(
    query_string: str, api_version: ApiVersion = PAGED
) -> tuple[tuple[str, ...] | None, PageRequest]:
    """Parse the query string of `GET /v2/campaigns`; the cursor version has no filter.

    Returns:
        The instances to include, None for all, and the page.

    Raises:
        ProblemError: 400 `ANL_00400`.
    """
    parameters = _QueryParameters(query_string)
    instance_ids = None if api_version is CURSOR else parameters.array("instanceIds", str)
    page = _parse_page(parameters, api_version, query="campaigns")
    parameters.reject_remaining()
    return instance_ids, page


def _parse_posts_query(
    parameters: "_QueryParameters", *, sort_property: SortProperty, metrics: tuple[str, ...] | None = None
) -> PostsQuery:
    return PostsQuery(
        start=parameters.required("startDate", _parse_day),
        end=parameters.required("endDate", _parse_day),
        instance_ids=parameters.array("instanceIds", str),
        campaign_ids=parameters.array("campaignIds", _parse_integer),
        platforms=parameters.array("platform", Platform),
        content_types=parameters.array("contentType", ContentType),
        basis=parameters.optional("dateBasis", DateBasis) or DateBasis.POST_DATE,
        sort_property=sort_property,
        sort_direction=parameters.optional("sortDirection", SortDirection) or SortDirection.DESC,
        metrics=metrics,
    )


def parse_page_query(query_string: str, api_version: ApiVersion = PAGED) -> PageRequest:
    """Parse the query string of `GET /v2/instances`, which has only the parameters of a page.

    Raises:
        ProblemError: 400 `ANL_00400`.
    """
    parameters = _QueryParameters(query_string)
    page = _parse_page(parameters, api_version, query="instances")
    parameters.reject_remaining()
    return page


class _QueryParameters:
    """The parameters of a query string. Each method removes the parameter that it returns."""

    def __init__(self, query_string: str) -> None:
        self._values: dict[str, list[str]] = defaultdict(list)
        for name, value in parse_qsl(query_string, keep_blank_values=True):
            self._values[name].append(value)

    def optional(self, name: str, parse: Callable[[str], _Value]) -> _Value | None:
        """Return a single value, or None if it is omitted."""
        values = self._values.pop(name, [])
        if len(values) > 1:
            raise bad_request(f"{name} must be given once")
        return _parse_value(name, values[0], parse=parse) if values else None

    def required(self, name: str, parse: Callable[[str], _Value]) -> _Value:
        """Return a single value that must be present."""
        value = self.optional(name, parse)
        if value is None:
            raise bad_request(f"{name} is required")
        return value

    def array(self, name: str, parse: Callable[[str], _Value]) -> tuple[_Value, ...] | None:
        """Return the distinct values of an array in any of its forms, or None if it is omitted.

        The forms are `p=a,b`, `p=a&p=b` and `p[]=a&p[]=b` (docs/api.md, "Posts performance"). Commas separate values
        only in the first form.
        """
        plain, bracketed = self._values.pop(name, []), self._values.pop(f"{name}[]", [])
        if len(plain) == 1:
            plain = plain[0].split(",")
        values = (*plain, *bracketed)
        if "" in values:
            raise bad_request(f"{name} must not hold an empty value")
        return tuple(dict.fromkeys(_parse_value(name, value, parse=parse) for value in values)) or None

    def metrics(self, known: Iterable[Metric]) -> tuple[str, ...]:
        """Return the requested metrics, which may be unknown."""
        names = self.array(METRICS_MEMBER, str)
        if names is None:
            raise bad_request(f"{METRICS_MEMBER} is required, of {', '.join(metric.api_name for metric in known)}")
        return names

    def sort_property(self, supported: Iterable[str]) -> str | None:
        """Return the sort key, or None if it is omitted."""
        value = self.optional("sortProperty", str)
        if value is not None and value not in set(supported):
            detail = f"sortProperty must be one of {', '.join(supported)}"
            raise ProblemError(HTTPStatus.BAD_REQUEST, ProblemType.INVALID_SORT, detail)
        return value

    def reject_remaining(self) -> None:
        """Reject parameters that were not read: ignoring them would hide bugs of the client."""
        if self._values:
            raise bad_request(f"unknown parameter: {', '.join(sorted(self._values))}")


def _parse_value(name: str, text: str, *, parse: Callable[[str], _Value]) -> _Value:
    try:
        return parse(text)
    except ValueError as error:
        raise bad_request(f"{name}: {error}") from None


def _parse_day(text: str) -> date:
    if not _DAY.fullmatch(text):  # `fromisoformat` accepts more forms
        raise ValueError("must be a day as YYYY-MM-DD")
    return date.fromisoformat(text)


def _parse_integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):  # `int` accepts spaces, a plus sign, underscores and the digits of any script
        raise ValueError("must be a whole number")
    return int(text)


def _integer_up_to(maximum: int) -> Callable[[str], int]:
    """Return a parser of whole numbers from 1 to `maximum`."""

    def parse(text: str) -> int:
        number = _parse_integer(text)
        if not 1 <= number <= maximum:
            raise ValueError(f"must be a whole number from 1 to {maximum}")
        return number

    return parse


def _validate(query: PostsQuery) -> None:
    """Check the rules that involve several parameters."""
    start, end = query.start, query.end
    if end < start:
        raise bad_request("endDate must not be before startDate")
    if (end.year - MAX_RANGE_YEARS, end.month, end.day) > (start.year, start.month, start.day):
        raise bad_request(f"startDate and endDate must be at most {MAX_RANGE_YEARS} years apart")
    if len(query.campaign_ids or ()) > MAX_CAMPAIGN_IDS:
        raise bad_request(f"campaignIds must hold at most {MAX_CAMPAIGN_IDS} ids")
    if query.platforms is not None and query.content_types is not None:
        raise bad_request("platform and contentType cannot be combined: provide only one of the two")


def _parse_page(parameters: _QueryParameters, api_version: ApiVersion, *, query: Hashable) -> PageRequest:
    """Parse the parameters of a page; `query` identifies the list that its cursors belong to."""
    size = parameters.optional(api_version.page_size_parameter, _integer_up_to(MAX_PAGE_SIZE)) or DEFAULT_PAGE_SIZE
    if api_version is CURSOR:
        cursor = parameters.optional(api_version.page_parameter, str)
        return page_at_cursor(cursor, size=size, query=json.dumps([msgspec.to_builtins(query), size]))
    number = parameters.optional(api_version.page_parameter, _integer_up_to(MAX_PAGE_NUMBER)) or 1
    return PageRequest((number - 1) * size, size, api_version)
