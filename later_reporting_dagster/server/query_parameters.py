"""Parse and validate the query strings of the list routes.

Unknown parameters are rejected, also those of the other API version.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta, field

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
from later_reporting_dagster.server.responses import PageQuery, ProblemError, bad_request, page_at_cursor

CAMPAIGN_SORT_PROPERTIES = tuple(
    dict.fromkeys(metric.api_name for metric in (*DEFAULT_CAMPAIGN_METRICS, *DEFAULT_METRICS))
)
"""The metrics of campaigns in the paged version. Which ones these are is not public (docs/api.md, "Campaigns")."""

_ARRAYS = ("instanceIds", "campaignIds", "platform", "contentType", METRICS_MEMBER)
_SORT_PROPERTY = "sortProperty"
_PageSize = Annotated[int, Meta(ge=1, le=MAX_PAGE_SIZE)]
_PageNumber = Annotated[int, Meta(ge=1, le=MAX_PAGE_NUMBER)]


class PostsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a query for posts, or for the performance of the campaigns that these are in, without the page.

    None stands for an omitted filter.

    Attributes:
        sort_property: None: the publication time of posts, and the ascending id of campaigns.
        metrics: Requested metrics, which may be unknown; None in the API version without this parameter.
    """

    start: date = field(name="startDate")
    end: date = field(name="endDate")
    instance_ids: tuple[str, ...] | None = field(default=None, name="instanceIds")
    campaign_ids: Annotated[tuple[int, ...], Meta(max_length=MAX_CAMPAIGN_IDS)] | None = field(
        default=None, name="campaignIds"
    )
    platforms: tuple[Platform, ...] | None = field(default=None, name="platform")
    content_types: tuple[ContentType, ...] | None = field(default=None, name="contentType")
    basis: DateBasis = field(default=DateBasis.POST_DATE, name="dateBasis")
    sort_property: str | None = field(default=None, name=_SORT_PROPERTY)  # the API reference has no default
    sort_direction: SortDirection = field(default=SortDirection.DESC, name="sortDirection")
    metrics: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        start, end = self.start, self.end
        if end < start:
            raise ValueError("endDate must not be before startDate")
        if (end.year - MAX_RANGE_YEARS, end.month, end.day) > (start.year, start.month, start.day):
            raise ValueError(f"startDate and endDate must be at most {MAX_RANGE_YEARS} years apart")
        if self.platforms is not None and self.content_types is not None:
            raise ValueError("platform and contentType cannot be combined: provide only one of the two")


class ListQuery(msgspec.Struct, frozen=True):
    """Parameters of a query for a list without metrics: the instances to include, None for all."""

    instance_ids: tuple[str, ...] | None = None


def parse_posts_query(query_string: str, api_version: ApiVersion = PAGED) -> tuple[PostsQuery, PageQuery]:
    """Parse the query string of `GET /v2/posts/performance`.

    Raises:
        ProblemError: 400 `ANL_00400`, or 400 `ANL_00422` for an unsupported `sortProperty`.
    """
    return _parse_performance(query_string, api_version, of="posts", sort_properties=SortProperty, metrics=METRICS)


def parse_campaign_performance_query(query_string: str, api_version: ApiVersion) -> tuple[PostsQuery, PageQuery]:
    """Parse the query string of `GET /v2/campaigns/performance`; raise what `parse_posts_query` raises."""
    of, names = "campaign performance", CAMPAIGN_SORT_PROPERTIES
    return _parse_performance(query_string, api_version, of=of, sort_properties=names, metrics=CAMPAIGN_METRICS)


def parse_list_query(query_string: str, api_version: ApiVersion, *, of: str) -> tuple[ListQuery, PageQuery]:
    """Parse the query string of a list without metrics; in the paged version, that of campaigns has a filter."""
    parameters, page = _read(query_string, api_version, of=of)
    has_filter = of == "campaigns" and api_version is not CURSOR
    instance_ids = parameters.pop("instanceIds", None) if has_filter else None
    _reject(parameters)
    return ListQuery(instance_ids), page


def _read(query_string: str, api_version: ApiVersion, *, of: str) -> tuple[dict[str, Any], PageQuery]:
    """Return the parameters of a query for some rows, arrays as tuples of distinct values; and the requested page.

    The forms of an array are `p=a,b`, `p=a&p=b` and `p[]=a&p[]=b` (docs/api.md, "Posts performance"). Commas separate
    values only in the first form.
    """
    sent: defaultdict[str, list[str]] = defaultdict(list)
    for name, value in parse_qsl(query_string, keep_blank_values=True):
        sent[name].append(value)
    parameters: dict[str, Any] = {}
    for name in _ARRAYS:
        plain, bracketed = sent.pop(name, []), sent.pop(f"{name}[]", [])
        values = dict.fromkeys((*(plain[0].split(",") if len(plain) == 1 else plain), *bracketed))
        if "" in values:
            raise bad_request(f"{name} must not hold an empty value")
        if values:
            parameters[name] = tuple(values)
    for name, given in sent.items():
        if len(given) > 1:
            raise bad_request(f"{name} must be given once")
        parameters[name] = given[0]
    name = api_version.page_size_parameter
    size = _convert(parameters.pop(name, DEFAULT_PAGE_SIZE), _PageSize, name=name)
    position = parameters.pop(api_version.page_parameter, None)
    if api_version is CURSOR:
        return parameters, page_at_cursor(position, size=size, query=f"{of} {size} {sorted(parameters.items())}")
    number = 1 if position is None else _convert(position, _PageNumber, name=api_version.page_parameter)
    return parameters, PageQuery((number - 1) * size, size, api_version)


def _convert(value: object, kind: Any, *, name: str = "") -> Any:
    """Return the text of a value, or of the members of a dictionary, as the type of a parameter or query."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise bad_request(f"{name}: {error}" if name else str(error)) from None


def _parse_performance(
    query_string: str, api_version: ApiVersion, *, of: str, sort_properties: Iterable[str], metrics: Iterable[Metric]
) -> tuple[PostsQuery, PageQuery]:
    parameters, page = _read(query_string, api_version, of=of)
    if parameters.get(_SORT_PROPERTY) not in (None, *sort_properties):
        detail = f"sortProperty must be one of {', '.join(sort_properties)}"
        raise ProblemError(HTTPStatus.BAD_REQUEST, detail, ProblemType.INVALID_SORT)
    if api_version.uses_cursors and METRICS_MEMBER not in parameters:
        raise bad_request(f"{METRICS_MEMBER} is required, of {', '.join(metric.api_name for metric in metrics)}")
    if not api_version.uses_cursors and METRICS_MEMBER in parameters:
        _reject([METRICS_MEMBER])
    return _convert(parameters, PostsQuery), page


def _reject(names: Iterable[str]) -> None:
    """Reject parameters that a route does not have: to ignore them would hide bugs of the client."""
    if unknown := ", ".join(sorted(names)):
        raise bad_request(f"unknown parameter: {unknown}")
