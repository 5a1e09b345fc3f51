"""A question to `GET /v2/posts/performance`, checked before it costs a request."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Self, TypeVar
from urllib.parse import parse_qsl

from later_reporting_dagster.contract.enums import (
    ContentType,
    DateBasis,
    Platform,
    SortDirection,
    SortProperty,
)
from later_reporting_dagster.contract.limits import (
    DEFAULT_PAGE_SIZE,
    MAXIMUM_CAMPAIGN_IDS,
    MAXIMUM_PAGE_NUMBER,
    MAXIMUM_PAGE_SIZE,
    MAXIMUM_RANGE_YEARS,
    POSTS_PERFORMANCE_PATH,
    years_later,
)
from later_reporting_dagster.contract.metrics import DOCUMENT_METRICS
from later_reporting_dagster.contract.revision import METRICS_MEMBER, PAGED, Revision

_Name = TypeVar("_Name", bound=StrEnum)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostPerformanceQuery:
    """Every parameter of both revisions. Both dates are UTC days and inclusive; an empty tuple means *all*.

    `metrics` are the API's names in the order of the metric table; none means those of the document. They are asked
    for by cursor alone: by number, all that there are come unasked. `page_number` is the place by number, `cursor` the
    one by cursor, where None is the first page.

    Raises:
        ValueError: a bound of the document is broken; the message names the parameter and the bound.
    """

    start_date: date
    end_date: date
    instance_ids: tuple[str, ...] = ()
    campaign_ids: tuple[int, ...] = ()
    platforms: tuple[Platform, ...] = ()
    content_types: tuple[ContentType, ...] = ()
    date_basis: DateBasis = DateBasis.POST_DATE
    page_size: int = DEFAULT_PAGE_SIZE
    page_number: int = 1
    cursor: str | None = None
    metrics: tuple[str, ...] = ()
    sort_property: SortProperty | None = None
    sort_direction: SortDirection | None = None

    def __post_init__(self) -> None:
        if self.end_date < self.start_date:
            raise ValueError(f"endDate {self.end_date} is before startDate {self.start_date}")
        if self.end_date > years_later(self.start_date, MAXIMUM_RANGE_YEARS):
            raise ValueError(
                f"{self.start_date} to {self.end_date} is more than {MAXIMUM_RANGE_YEARS} years: ask for less at once"
            )
        if len(self.campaign_ids) > MAXIMUM_CAMPAIGN_IDS:
            raise ValueError(f"campaignIds takes at most {MAXIMUM_CAMPAIGN_IDS}, not {len(self.campaign_ids)}")
        if self.platforms and self.content_types:
            raise ValueError("platform and contentType cannot be combined: give one of the two")
        if not 1 <= self.page_size <= MAXIMUM_PAGE_SIZE:
            raise ValueError(f"pageSize is 1 to {MAXIMUM_PAGE_SIZE}, not {self.page_size}")
        if not 1 <= self.page_number <= MAXIMUM_PAGE_NUMBER:
            raise ValueError(f"pageNumber is 1 to {MAXIMUM_PAGE_NUMBER}, not {self.page_number}")

    def page(self, number: int) -> Self:
        """The same question, asked for another page."""
        return replace(self, page_number=number)

    def question(self) -> list[tuple[str, str]]:
        """What is asked, as the query string's pairs, whichever page, order, metrics and revision it is asked by.

        Arrays are repeated keys: the one form in which a value may hold a comma. A lone id with a comma is there
        twice, because `p=a,b` alone reads as two values.
        """
        pairs = [("startDate", self.start_date.isoformat()), ("endDate", self.end_date.isoformat())]
        lone_with_comma = len(self.instance_ids) == 1 and "," in self.instance_ids[0]
        pairs += [("instanceIds", instance_id) for instance_id in self.instance_ids * (2 if lone_with_comma else 1)]
        pairs += [("campaignIds", str(campaign_id)) for campaign_id in self.campaign_ids]
        pairs += [("platform", platform.value) for platform in self.platforms]
        pairs += [("contentType", content_type.value) for content_type in self.content_types]
        pairs.append(("dateBasis", self.date_basis.value))
        return pairs

    def parameters(self, revision: Revision = PAGED) -> list[tuple[str, str]]:
        """The query string's pairs, as a revision takes them."""
        pairs = self.question()
        if revision.nests_metrics:
            # No name holds a comma, and there may be dozens of them.
            names = self.metrics or tuple(metric.api_name for metric in DOCUMENT_METRICS)
            pairs.append((METRICS_MEMBER, ",".join(names)))
        pairs.append((revision.size_parameter, str(self.page_size)))
        place = self.page_number if revision.has_totals else self.cursor
        if place is not None:
            pairs.append((revision.place_parameter, str(place)))
        if self.sort_property is not None:
            pairs.append(("sortProperty", self.sort_property.value))
        if self.sort_direction is not None:
            pairs.append(("sortDirection", self.sort_direction.value))
        return pairs

    @classmethod
    def from_query_string(cls, query_string: str, revision: Revision = PAGED) -> Self:
        """Reads a query back, from any of the three array forms: `p=a,b`, `p=a&p=b`, `p[]=a&p[]=b`.

        Raises:
            ValueError: a parameter is unknown, missing, repeated where one is due, or out of bounds.
        """
        given: dict[str, list[str]] = defaultdict(list)
        for name, value in parse_qsl(query_string, keep_blank_values=True):
            given[name.removesuffix("[]")].append(value)

        def single(name: str) -> str | None:
            values = given.pop(name, [])
            if len(values) > 1:
                raise ValueError(f"{name} is given {len(values)} times")
            return values[0] if values else None

        def many(name: str) -> tuple[str, ...]:
            values = given.pop(name, [])
            return tuple(dict.fromkeys(values[0].split(",") if len(values) == 1 else values))

        def day(name: str) -> date:
            value = single(name)
            if value is None:
                raise ValueError(f"{name} is required, as YYYY-MM-DD")
            read = date.fromisoformat(value)
            if read.isoformat() != value:  # other ISO 8601 forms, as 20240131 or 2024-W05-3
                raise ValueError(f"{name} is YYYY-MM-DD, not {value}")
            return read

        place = single(revision.place_parameter)
        sort_property = single("sortProperty")
        sort_direction = single("sortDirection")
        query = cls(
            start_date=day("startDate"),
            end_date=day("endDate"),
            instance_ids=many("instanceIds"),
            campaign_ids=tuple(int(value) for value in many("campaignIds")),
            platforms=_named(Platform, many("platform")),
            content_types=_named(ContentType, many("contentType")),
            date_basis=DateBasis(single("dateBasis") or DateBasis.POST_DATE),
            page_size=int(single(revision.size_parameter) or DEFAULT_PAGE_SIZE),
            page_number=int(place or 1) if revision.has_totals else 1,
            cursor=None if revision.has_totals else place,
            metrics=many(METRICS_MEMBER) if revision.nests_metrics else (),
            sort_property=SortProperty(sort_property) if sort_property else None,
            sort_direction=SortDirection(sort_direction) if sort_direction else None,
        )
        if given:
            raise ValueError(f"not parameters of {POSTS_PERFORMANCE_PATH}: {', '.join(sorted(given))}")
        return query


def _named(names: type[_Name], values: Iterable[str]) -> tuple[_Name, ...]:
    return tuple(names(value) for value in values)
