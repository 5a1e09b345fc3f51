"""The metric table: the one list from which post, schema and rollups take their metrics."""

from dataclasses import dataclass
from enum import StrEnum


class Channel(StrEnum):
    """How the result was reached. The API's names carry it: plain is organic, `paid…` is paid [S]."""

    ORGANIC = "organic"
    PAID = "paid"


class Kind(StrEnum):
    """What a metric measures, and with that its type and how it rolls up.

    `COUNT` is a whole number and adds up; `MONEY` is a decimal and adds up; `RATE` never adds up: it is
    recomputed from sums.
    """

    COUNT = "count"
    MONEY = "money"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a post. `api_name` is the API's, `column` the lake's; null is *not available* [S]."""

    api_name: str
    column: str
    channel: Channel
    kind: Kind
    unit: str
    description: str


ORGANIC, PAID = Channel.ORGANIC, Channel.PAID
COUNT, MONEY, RATE = Kind.COUNT, Kind.MONEY, Kind.RATE

METRICS: tuple[Metric, ...] = (
    Metric("engagements", "engagements", ORGANIC, COUNT, "engagements", "Organic engagements"),
    Metric("impressions", "impressions", ORGANIC, COUNT, "impressions", "Organic impressions"),
    Metric("engagementRate", "engagement_rate", ORGANIC, RATE, "percent", "Organic engagements per 100 impressions"),
    Metric("estimatedValueGenerated", "estimated_value_generated", ORGANIC, MONEY, "currency", "Estimated value"),
    Metric("cpe", "cpe", ORGANIC, RATE, "currency per engagement", "Cost per organic engagement"),
    Metric("cpm", "cpm", ORGANIC, RATE, "currency per 1000 impressions", "Cost per 1000 organic impressions"),
    Metric("paidEngagements", "paid_engagements", PAID, COUNT, "engagements", "Paid engagements"),
    Metric("paidImpressions", "paid_impressions", PAID, COUNT, "impressions", "Paid impressions"),
    Metric("paidEngagementRate", "paid_engagement_rate", PAID, RATE, "percent", "Paid engagements per 100 impressions"),
    Metric("paidCpe", "paid_cpe", PAID, RATE, "currency per engagement", "Cost per paid engagement"),
    Metric("paidCpm", "paid_cpm", PAID, RATE, "currency per 1000 impressions", "Cost per 1000 paid impressions"),
)  # fmt: skip
