"""A query to `GET /v2/posts/performance`, validated before a request is made."""

from dataclasses import dataclass
from datetime import date

from later_reporting_dagster.contract.api_version import METRICS_MEMBER, PAGED, ApiVersion
from later_reporting_dagster.contract.enums import ContentType, DateBasis, Platform, SortDirection, SortProperty
from later_reporting_dagster.contract.limits import (
    DEFAULT_PAGE_SIZE,
    MAX_CAMPAIGN_IDS,
    MAX_PAGE_NUMBER,
    MAX_PAGE_SIZE,
    MAX_RANGE_YEARS,
    years_later,
)
from later_reporting_dagster.contract.metrics import DEFAULT_METRICS


@dataclass(frozen=True, slots=True, kw_only=True)
class PostPerformanceQuery:
    """The parameters of both API versions (docs/api.md, "Posts performance" and "Cursor version").

    Attributes:
        start_date: first UTC day, inclusive.
        end_date: last UTC day, inclusive.
        instance_ids: empty for all instances that the credentials can read.
        campaign_ids: empty for all campaigns.
        platforms: empty for all; not together with `content_types`.
        content_types: empty for all; not together with `platforms`.
        date_basis: which date the range filters by.
        page_size: rows in a page.
        page_number: the page, counted from 1; paged version only.
        cursor: the cursor of the page, None for the first page; cursor version only.
        metrics: API names in the order of `METRICS`, empty for the default metrics; cursor version only, as the paged
            version returns all metrics that it has.
        sort_property: None for the API's default.
        sort_direction: None for the API's default.

    Raises:
        ValueError: a parameter is out of bounds; the message names the parameter and the bound.
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
        if self.end_date > years_later(self.start_date, MAX_RANGE_YEARS):
            raise ValueError(
                f"{self.start_date} to {self.end_date} is more than {MAX_RANGE_YEARS} years: query a shorter range"
            )
        if len(self.campaign_ids) > MAX_CAMPAIGN_IDS:
            raise ValueError(f"campaignIds takes at most {MAX_CAMPAIGN_IDS}, not {len(self.campaign_ids)}")
        if self.platforms and self.content_types:
            raise ValueError("platform and contentType cannot be combined: use one of them")
        if not 1 <= self.page_size <= MAX_PAGE_SIZE:
            raise ValueError(f"pageSize must be 1 to {MAX_PAGE_SIZE}, not {self.page_size}")
        if not 1 <= self.page_number <= MAX_PAGE_NUMBER:
            raise ValueError(f"pageNumber must be 1 to {MAX_PAGE_NUMBER}, not {self.page_number}")

    def filter_parameters(self) -> list[tuple[str, str]]:
        """Return the pairs of the query string that select posts: all except paging, sorting and metrics.

        Arrays are sent as repeated keys, the only form in which a value may contain a comma. A single id with a comma
        is sent twice, because the API reads a single `p=a,b` as two values.
        """
        pairs = [("startDate", self.start_date.isoformat()), ("endDate", self.end_date.isoformat())]
        single_with_comma = len(self.instance_ids) == 1 and "," in self.instance_ids[0]
        pairs += [("instanceIds", instance_id) for instance_id in self.instance_ids * (2 if single_with_comma else 1)]
        pairs += [("campaignIds", str(campaign_id)) for campaign_id in self.campaign_ids]
        pairs += [("platform", platform.value) for platform in self.platforms]
        pairs += [("contentType", content_type.value) for content_type in self.content_types]
        pairs.append(("dateBasis", self.date_basis.value))
        return pairs

    def parameters(self, api_version: ApiVersion = PAGED) -> list[tuple[str, str]]:
        """Return all pairs of the query string for an API version."""
        pairs = self.filter_parameters()
        if api_version.nests_metrics:
            # One key with commas, to keep the URL short: there may be dozens of names, and none has a comma.
            names = self.metrics or tuple(metric.api_name for metric in DEFAULT_METRICS)
            pairs.append((METRICS_MEMBER, ",".join(names)))
        pairs.append((api_version.page_size_parameter, str(self.page_size)))
        page = self.cursor if api_version.uses_cursors else self.page_number
        if page is not None:
            pairs.append((api_version.page_parameter, str(page)))
        if self.sort_property is not None:
            pairs.append(("sortProperty", self.sort_property.value))
        if self.sort_direction is not None:
            pairs.append(("sortDirection", self.sort_direction.value))
        return pairs
