"""A query to one of the two performance routes, validated before a request is made."""

from dataclasses import dataclass
from datetime import date

from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.parameters import (
    MAX_CAMPAIGN_IDS,
    MAX_RANGE_YEARS,
    ContentType,
    DateBasis,
    Platform,
    years_later,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceQuery:
    """Which posts or campaigns, and which of their metrics, to return (docs/api.md, "Posts performance", "Campaigns").

    Days are UTC days, both inclusive. An empty filter selects all; `platforms` and `content_types` exclude each other.
    `metrics` are requested in the cursor version only: the paged version returns all metrics that it has.
    """

    start_date: date
    end_date: date
    instance_ids: tuple[str, ...] = ()
    campaign_ids: tuple[int, ...] = ()
    platforms: tuple[Platform, ...] = ()
    content_types: tuple[ContentType, ...] = ()
    date_basis: DateBasis = DateBasis.POST_DATE
    metrics: tuple[Metric, ...] = DEFAULT_METRICS

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

    def filter_parameters(self) -> list[tuple[str, str]]:
        """Return the pairs of the query string that select rows.

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
