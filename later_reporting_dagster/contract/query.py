"""A query to `GET /v2/posts/performance`, checked before it costs a request."""

from dataclasses import dataclass
from datetime import date

from later_reporting_dagster.contract.api_version import METRICS_MEMBER, PAGED, Revision
from later_reporting_dagster.contract.enums import ContentType, DateBasis, Platform, SortDirection, SortProperty
from later_reporting_dagster.contract.limits import (
    DEFAULT_PAGE_SIZE,
    MAXIMUM_CAMPAIGN_IDS,
    MAXIMUM_PAGE_NUMBER,
    MAXIMUM_PAGE_SIZE,
    MAXIMUM_RANGE_YEARS,
    years_later,
)
from later_reporting_dagster.contract.metrics import DOCUMENT_METRICS


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
