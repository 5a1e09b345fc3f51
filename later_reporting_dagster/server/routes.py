"""The routes of the API: how their query strings are parsed and validated, and the bodies of responses.

Unknown parameters are rejected, also those of the other API version. Problems are `application/problem+json` with
`type`, `title` and `detail` (docs/api.md, "Errors").
"""

import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta, field
from starlette.exceptions import HTTPException
from starlette.responses import Response

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

JsonObject = dict[str, Any]

# A cursor is the offset of the next page, the snapshot if there is one, and a digest that ties both to the query.
_OFFSET_BYTES, _DIGEST_BYTES = 6, 12


class ProblemError(HTTPException):
    """A request that gets an error response instead of data; see `problem_response`."""

    def __init__(self, status: HTTPStatus, detail: str, problem_type: str = "") -> None:
        super().__init__(status, detail)
        self.type = problem_type


def bad_request(detail: str) -> ProblemError:
    """Return the 400 for an invalid parameter or body."""
    return ProblemError(HTTPStatus.BAD_REQUEST, detail)


def reject_metrics(names: Collection[str]) -> None:
    """Raise the 400 for requested metrics that are unknown, or not available for the filters."""
    if names:
        raise bad_request(f"{METRICS_MEMBER} not supported for these filters: {', '.join(names)}")


def problem_response(
    status: int, detail: str, problem_type: str = "", *, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an error response. Its type is `ANL_00` and the status by default, as all but two types of the API are."""
    title = HTTPStatus(status).phrase
    body = {"type": problem_type or f"ANL_00{status:d}", "title": title, "detail": detail}
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")


def json_response(value: object, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), headers=headers, media_type="application/json")


class PageQuery(msgspec.Struct, frozen=True):
    """The requested page of a list."""

    offset: int  # number of rows before the page
    size: int  # maximum number of rows
    api_version: ApiVersion = PAGED
    cursor_query: bytes = b""  # the query for which the page's cursors are valid, as a digest
    # The rows that the page is a part of; empty if the list has no snapshots, or if the request has no cursor.
    snapshot: bytes = b""

    @property
    def rows(self) -> slice:
        return slice(self.offset, self.offset + self.size)

    def cursor_to(self, offset: int) -> str:
        """Return an opaque cursor to the page of the same rows at an offset. Other queries reject it."""
        position = offset.to_bytes(_OFFSET_BYTES, "big") + self.snapshot
        return base64.urlsafe_b64encode(position + _digest(position, self.cursor_query)).decode()


def page_at_cursor(cursor: str | None, *, size: int, query: str) -> PageQuery:
    """Return the page that a cursor of this query points to; the first page if there is none, or the text `null`."""
    cursor_query = hashlib.blake2b(query.encode(), digest_size=16).digest()
    if cursor in (None, "null"):
        return PageQuery(0, size, CURSOR, cursor_query)
    try:
        data = base64.urlsafe_b64decode(cursor.encode("ascii"))
    except ValueError:
        data = b""
    position, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if len(position) < _OFFSET_BYTES or digest != _digest(position, cursor_query):
        raise expired_cursor()
    offset = int.from_bytes(position[:_OFFSET_BYTES], "big")
    return PageQuery(offset, size, CURSOR, cursor_query, position[_OFFSET_BYTES:])


def expired_cursor() -> ProblemError:
    """Return the error for a cursor that the server did not issue for this query, or whose rows it no longer has."""
    return bad_request("nextCursor is invalid, has expired, or belongs to a query with other parameters")


def _digest(position: bytes, cursor_query: bytes) -> bytes:
    return hashlib.blake2b(position + cursor_query, digest_size=_DIGEST_BYTES).digest()


def instances_page(instance_ids: Sequence[str], page: PageQuery) -> JsonObject:
    return page_body({"instanceIds": instance_ids[page.rows]}, page=page, total=len(instance_ids))


def page_body(data: object, *, page: PageQuery, total: int) -> JsonObject:
    """Return the body of a page of `total` rows. A page number past the end has no data and the true totals."""
    if page.api_version.uses_cursors:
        return {"data": data, "nextCursor": page.cursor_to(page.rows.stop) if page.rows.stop < total else None}
    number, pages = page.offset // page.size + 1, -(-total // page.size)
    totals = {"page": number, "pageSize": page.size, "totalItems": total, "totalPages": pages}
    return {"data": data, "pagination": totals}


# Queries


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
    """Parameters of a query that selects posts, without the page. None stands for an omitted filter."""

    start: date = field(name="startDate")
    end: date = field(name="endDate")
    instance_ids: tuple[str, ...] | None = field(default=None, name=_INSTANCE_IDS)
    campaign_ids: Annotated[tuple[int, ...], Meta(max_length=MAX_CAMPAIGN_IDS)] | None = field(
        default=None, name="campaignIds"
    )
    platforms: tuple[Platform, ...] | None = field(default=None, name="platform")
    content_types: tuple[ContentType, ...] | None = field(default=None, name="contentType")
    basis: DateBasis = field(default=DateBasis.POST_DATE, name="dateBasis")
    metrics: tuple[str, ...] | None = None  # None in the API version without this parameter

    def __post_init__(self) -> None:
        start, end = self.start, self.end
        if end < start:
            raise ValueError("endDate must not be before startDate")
        if (end.year - MAX_RANGE_YEARS, end.month, end.day) > (start.year, start.month, start.day):
            raise ValueError(f"startDate and endDate must be at most {MAX_RANGE_YEARS} years apart")
        if self.platforms is not None and self.content_types is not None:
            raise ValueError("platform and contentType cannot be combined: provide only one of the two")


class PostsQuery(MetricsQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a query for rows in an order: posts, or the campaigns that these are in."""

    # None, for which the API reference has no default: the publication time of posts, the ascending id of campaigns.
    sort_property: str | None = field(default=None, name=_SORT_PROPERTY)
    sort_direction: SortDirection = field(default=SortDirection.DESC, name="sortDirection")


class OverTimeQuery(MetricsQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a query for totals by day, week, month, quarter or year."""

    granularity: Literal["day", "week", "month", "quarter", "year"] = "month"


class ListQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters of a query for a list without metrics: the instances to include, None for all."""

    instance_ids: tuple[str, ...] | None = field(default=None, name=_INSTANCE_IDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRoute:
    """A route of the API, and its parameters."""

    path: str
    query: type[MetricsQuery | ListQuery]
    metrics: tuple[Metric, ...] = ()  # that a query can request in the cursor version; empty for a list without metrics
    sort_properties: tuple[str, ...] = ()
    filters_in: tuple[ApiVersion, ...] = (PAGED, CURSOR)  # in which a query can select instances
    page_sizes: Collection[int] = range(1, MAX_PAGE_SIZE + 1)  # empty if it returns one object

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
    parameters: dict[str, Any] = {}
    for name, values in parse_qs(query_string, keep_blank_values=True).items():
        array = name.removesuffix("[]")
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
