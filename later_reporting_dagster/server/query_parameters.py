"""The routes of the API, and how their query strings are parsed and validated.

Unknown parameters are rejected, also those of the other API version.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field
from starlette.datastructures import QueryParams

from later_reporting_dagster.contract.metrics import (
    ACCOUNT_METRICS,
    CAMPAIGN_METRICS,
    DEFAULT_CAMPAIGN_METRICS,
    DEFAULT_METRICS,
    METRICS,
    OVER_TIME_METRICS,
    Metric,
)
from later_reporting_dagster.contract.parameters import (
    CAMPAIGNS_PATH,
    CAMPAIGNS_PERFORMANCE_PATH,
    CURSOR,
    DEFAULT_PAGE_SIZE,
    INSTANCES_PATH,
    INSTANCES_PERFORMANCE_PATH,
    MAX_CAMPAIGN_IDS,
    MAX_PAGE_NUMBER,
    MAX_PAGE_SIZE,
    MAX_RANGE_YEARS,
    METRICS_MEMBER,
    PAGED,
    PERFORMANCE_OVER_TIME_PATH,
    POSTS_PERFORMANCE_PATH,
    ApiVersion,
    ContentType,
    DateBasis,
    Platform,
    SortDirection,
)
from later_reporting_dagster.server.responses import (
    PageQuery,
    ProblemError,
    bad_request,
    page_at_cursor,
    reject_metrics,
)

SORT_PROPERTIES = (*(metric.api_name for metric in DEFAULT_METRICS), "postDate")
CAMPAIGN_SORT_PROPERTIES = tuple(
    dict.fromkeys(metric.api_name for metric in (*DEFAULT_CAMPAIGN_METRICS, *DEFAULT_METRICS))
)
"""The metrics of campaigns in the paged version. Which ones these are is not public (docs/api.md, "Campaigns")."""

_INSTANCE_IDS = "instanceIds"
_ARRAYS = (_INSTANCE_IDS, "campaignIds", "platform", "contentType", METRICS_MEMBER)
_SORT_PROPERTY = "sortProperty"
_ONLY_WITH_CURSORS = {CURSOR.page_size_parameter, CURSOR.page_parameter, METRICS_MEMBER}
_PageSize = Annotated[int, Meta(ge=1, le=MAX_PAGE_SIZE)]
_PageNumber = Annotated[int, Meta(ge=1, le=MAX_PAGE_NUMBER)]


class MetricsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a query that selects posts, without the page. None stands for an omitted filter.

    `metrics` is None in the API version without this parameter.
    """

    start: date = field(name="startDate")
    end: date = field(name="endDate")
    instance_ids: tuple[str, ...] | None = field(default=None, name=_INSTANCE_IDS)
    campaign_ids: Annotated[tuple[int, ...], Meta(max_length=MAX_CAMPAIGN_IDS)] | None = field(
        default=None, name="campaignIds"
    )
    platforms: tuple[Platform, ...] | None = field(default=None, name="platform")
    content_types: tuple[ContentType, ...] | None = field(default=None, name="contentType")
    basis: DateBasis = field(default=DateBasis.POST_DATE, name="dateBasis")
    metrics: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        start, end = self.start, self.end
        if end < start:
            raise ValueError("endDate must not be before startDate")
        if (end.year - MAX_RANGE_YEARS, end.month, end.day) > (start.year, start.month, start.day):
            raise ValueError(f"startDate and endDate must be at most {MAX_RANGE_YEARS} years apart")
        if self.platforms is not None and self.content_types is not None:
            raise ValueError("platform and contentType cannot be combined: provide only one of the two")


class PostsQuery(MetricsQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a query for rows in an order: posts, or the campaigns that these are in.

    `sort_property`: None for the publication time of posts, and the ascending id of campaigns.
    """

    sort_property: str | None = field(default=None, name=_SORT_PROPERTY)  # the API reference has no default
    sort_direction: SortDirection = field(default=SortDirection.DESC, name="sortDirection")


class OverTimeQuery(MetricsQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a query for totals by day, week, month, quarter or year."""

    granularity: Literal["day", "week", "month", "quarter", "year"] = "month"


class ListQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of a query for a list without metrics: the instances to include, None for all."""

    instance_ids: tuple[str, ...] | None = field(default=None, name=_INSTANCE_IDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRoute:
    """A route of the API, and its parameters.

    Attributes:
        query: The type of its queries.
        metrics: The metrics that a query can request in the cursor version; empty for a list without metrics.
        filters_in: The API versions in which a query can select instances.
        page_sizes: The sizes of a page; empty if it returns one object.
    """

    path: str
    query: type[MetricsQuery | ListQuery]
    metrics: tuple[Metric, ...] = ()
    sort_properties: tuple[str, ...] = ()
    filters_in: tuple[ApiVersion, ...] = (PAGED, CURSOR)
    page_sizes: Collection[int] = range(1, MAX_PAGE_SIZE + 1)

    def parse(self, query_string: str, api_version: ApiVersion | None = PAGED) -> tuple[Any, PageQuery]:
        """Parse a query string.

        Args:
            api_version: None: that which the parameters belong to; without any, the paged version.

        Raises:
            ProblemError: 400 `ANL_00400`, or 400 `ANL_00422` for an unsupported `sortProperty`.
        """
        parameters = _read(query_string)
        version = api_version or (PAGED if _ONLY_WITH_CURSORS.isdisjoint(parameters) else CURSOR)
        page = self._page(parameters, version)
        if self.sort_properties and parameters.get(_SORT_PROPERTY) not in (None, *self.sort_properties):
            detail = f"sortProperty must be one of {', '.join(self.sort_properties)}"
            raise ProblemError(HTTPStatus.BAD_REQUEST, detail, "ANL_00422")
        foreign = set() if version in self.filters_in else {_INSTANCE_IDS}
        if version.uses_cursors and self.metrics:
            known = [metric.api_name for metric in self.metrics]
            if METRICS_MEMBER not in parameters:
                raise bad_request(f"{METRICS_MEMBER} is required, of {', '.join(known)}")
            reject_metrics([name for name in parameters[METRICS_MEMBER] if name not in known])
        else:
            foreign.add(METRICS_MEMBER)
        if unknown := ", ".join(sorted(foreign.intersection(parameters))):
            raise bad_request(f"unknown parameter: {unknown}")
        return _convert(parameters, self.query), page

    def _page(self, parameters: dict[str, Any], version: ApiVersion) -> PageQuery:
        """Return the requested page, whose parameters are removed."""
        if not self.page_sizes:
            return PageQuery(0, 1, version)
        name = version.page_size_parameter
        size = _convert(parameters.pop(name, DEFAULT_PAGE_SIZE), _PageSize, name=name)
        if size not in self.page_sizes and not version.uses_cursors:
            raise bad_request(f"{name} must be one of {', '.join(map(str, self.page_sizes))}")
        position = parameters.pop(version.page_parameter, None)
        if version.uses_cursors:
            return page_at_cursor(position, size=size, query=f"{self.path} {size} {sorted(parameters.items())}")
        number = 1 if position is None else _convert(position, _PageNumber, name=version.page_parameter)
        return PageQuery((number - 1) * size, size, version)


POSTS = ApiRoute(path=POSTS_PERFORMANCE_PATH, query=PostsQuery, metrics=METRICS, sort_properties=SORT_PROPERTIES)
INSTANCES = ApiRoute(path=INSTANCES_PATH, query=ListQuery, filters_in=())
CAMPAIGNS = ApiRoute(path=CAMPAIGNS_PATH, query=ListQuery, filters_in=(PAGED,))
CAMPAIGN_PERFORMANCE = ApiRoute(
    path=CAMPAIGNS_PERFORMANCE_PATH,
    query=PostsQuery,
    metrics=CAMPAIGN_METRICS,
    sort_properties=CAMPAIGN_SORT_PROPERTIES,
)
ACCOUNT = ApiRoute(path=INSTANCES_PERFORMANCE_PATH, query=MetricsQuery, metrics=ACCOUNT_METRICS, page_sizes=())
OVER_TIME = ApiRoute(
    path=PERFORMANCE_OVER_TIME_PATH, query=OverTimeQuery, metrics=OVER_TIME_METRICS, page_sizes=(50, 100)
)


def _read(query_string: str) -> dict[str, Any]:
    """Return the parameters of a query, arrays as tuples of distinct values.

    The forms of an array are `p=a,b`, `p=a&p=b` and `p[]=a&p[]=b` (docs/api.md, "Posts performance"). Commas separate
    values only in the first form.
    """
    sent, parameters = QueryParams(query_string), dict[str, Any]()
    for name in sent:
        values, array = sent.getlist(name), name.removesuffix("[]")
        if array in _ARRAYS:
            values = values[0].split(",") if name == array and len(values) == 1 else values
            if "" in values:
                raise bad_request(f"{array} must not hold an empty value")
            parameters[array] = tuple(dict.fromkeys((*parameters.get(array, ()), *values)))
        elif len(values) > 1:
            raise bad_request(f"{name} must be given once")
        else:
            parameters[name] = values[0]
    return parameters


def _convert(value: object, kind: Any, *, name: str = "") -> Any:
    """Return the text of a value, or of the members of a dictionary, as the type of a parameter or query."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise bad_request(f"{name}: {error}" if name else str(error)) from None
