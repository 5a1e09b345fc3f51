"""The metrics of posts and of campaigns, from which row types, lake schemas and rollups take theirs.

`METRICS` and `CAMPAIGN_METRICS` have all known metrics in a fixed order: new metrics are appended. Each starts with its
default metrics. For posts, these are the ones that both API versions return; the cursor version returns the others if a
query requests them.

The API reference lists bare names, so a unit is given only where the name, or the sample response, implies it.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum


class Channel(StrEnum):
    """Channel of a metric, by its API name: `paid…`, `trackingLinks…`, `affiliateLinks…`, or else organic."""

    ORGANIC = "organic"
    PAID = "paid"
    TRACKING_LINKS = "tracking_links"
    AFFILIATE_LINKS = "affiliate_links"


class Kind(StrEnum):
    """What a metric measures, which determines its type and how it rolls up.

    `COUNT`: an integer; adds up over days, and over posts or campaigns.
    `MONEY`, `TIME`: decimals; they add up like counts.
    `COST`: a decimal; adds up over posts or campaigns, but not over days: a post costs the same on each of its days.
    `RATE`: a decimal; does not add up, but is recomputed from sums where its numerator and denominator are metrics too.
    `GAUGE`: an integer; does not add up: a number of people or posts (two posts or days may count the same one) or a
        value at one moment.
    """

    COUNT = "count"
    MONEY = "money"
    COST = "cost"
    TIME = "time"
    RATE = "rate"
    GAUGE = "gauge"

    @property
    def is_integer(self) -> bool:
        return self in (Kind.COUNT, Kind.GAUGE)

    @property
    def adds_up_over_days(self) -> bool:
        """Whether a sum over days is right. What adds up over days adds up over posts and campaigns, too."""
        return self in (Kind.COUNT, Kind.MONEY, Kind.TIME)

    @property
    def maximum(self) -> int:
        """The largest magnitude of a value of a row. Sums of tens of millions of such values are exact in SQL."""
        if self.is_integer:
            return 100_000_000_000
        return 1_000_000_000_000_000 if self is Kind.TIME else 1_000_000_000


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a post or a campaign; null means *not available* (docs/api.md, "Metrics, null and units")."""

    api_name: str
    kind: Kind
    unit: str
    description: str

    @property
    def column(self) -> str:
        """The API name in snake case."""
        return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", self.api_name)

    @property
    def channel(self) -> Channel:
        return next((channel for channel in Channel if self.column.startswith(channel)), Channel.ORGANIC)


COUNT, MONEY, COST, TIME, RATE, GAUGE = Kind
_PEOPLE = "never summed, because one person may be counted by several posts and on several days"

DEFAULT_METRICS: tuple[Metric, ...] = (
    Metric("engagements", COUNT, "engagements", "Organic engagements"),
    Metric("impressions", COUNT, "impressions", "Organic impressions"),
    Metric("engagementRate", RATE, "percent", "Organic engagements per 100 impressions"),
    Metric("estimatedValueGenerated", MONEY, "USD", "Estimated value"),
    Metric("cpe", RATE, "USD per engagement", "Cost per organic engagement"),
    Metric("cpm", RATE, "USD per 1000 impressions", "Cost per 1000 organic impressions"),
    Metric("paidEngagements", COUNT, "engagements", "Paid engagements"),
    Metric("paidImpressions", COUNT, "impressions", "Paid impressions"),
    Metric("paidEngagementRate", RATE, "percent", "Paid engagements per 100 impressions"),
    Metric("paidCpe", RATE, "USD per engagement", "Cost per paid engagement"),
    Metric("paidCpm", RATE, "USD per 1000 impressions", "Cost per 1000 paid impressions"),
)  # fmt: skip
"""The metrics that are fetched unless a setting names others (docs/api.md, "Metrics, null and units")."""

METRICS: tuple[Metric, ...] = (
    *DEFAULT_METRICS,
    # Metrics of the cursor version only (docs/api.md, "Cursor version").
    Metric("likes", COUNT, "likes", "Organic likes"),
    Metric("comments", COUNT, "comments", "Organic comments"),
    Metric("shares", COUNT, "shares", "Organic shares"),
    Metric("saves", COUNT, "saves", "Organic saves"),
    Metric("views", COUNT, "views", "Organic views"),
    Metric("totalInteractions", COUNT, "interactions", "Interactions of all kinds"),
    Metric("replies", COUNT, "replies", "Replies"),
    Metric("reposts", COUNT, "reposts", "Reposts"),
    Metric("reach", GAUGE, "people", f"People reached; {_PEOPLE}"),
    Metric("organicReach", GAUGE, "people", f"People reached organically; {_PEOPLE}"),
    Metric("potentialReach", GAUGE, "people", f"People within reach; {_PEOPLE}"),
    Metric("followersAtPostDate", GAUGE, "followers",
           "Followers of the creator when the post was published; never summed, because it is a count at one moment"),
    Metric("videoViewTotalTime", TIME, "not stated",
           "Total time that the video was watched, over all views; the API does not document the unit"),
    Metric("avgWatchTime", RATE, "milliseconds", "Average time that an Instagram reel was watched; never summed"),
    Metric("navigationTapExit", COUNT, "taps", "Taps that left the story"),
    Metric("navigationTapBack", COUNT, "taps", "Taps back"),
    Metric("navigationTapForward", COUNT, "taps", "Taps forward"),
    Metric("navigationSwipeForward", COUNT, "swipes", "Swipes forward"),
    Metric("crosspostedViews", COUNT, "views", "Views of reels that were crossposted to Facebook"),
    Metric("crosspostedFacebookOnlyViews", COUNT, "views", "Views of crossposted reels, on Facebook alone"),
    Metric("paidLikes", COUNT, "likes", "Paid likes"),
    Metric("paidComments", COUNT, "comments", "Paid comments"),
    Metric("paidShares", COUNT, "shares", "Paid shares"),
    Metric("paidSaves", COUNT, "saves", "Paid saves"),
    Metric("paidViews", COUNT, "views", "Paid views"),
    Metric("paidReach", GAUGE, "people", f"People reached through paid distribution; {_PEOPLE}"),
)  # fmt: skip
"""All known metrics; the default metrics come first."""

ALL = "all"


def parse_metrics(
    text: str, *, known: tuple[Metric, ...] = METRICS, default: tuple[Metric, ...] = DEFAULT_METRICS
) -> tuple[Metric, ...]:
    """Parse a comma-separated list of metric names, in the spelling of the API or of the lake's columns.

    Blank text means the default metrics, `all` all known metrics. The result is in the order of `known`.
    """
    if not text.strip():
        return default
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError(f"no metric in {text!r}: leave it empty for the default metrics, or write {ALL}")
    all_names = [ALL, *(name for metric in known for name in (metric.column, metric.api_name))]
    for name in names:
        if name not in all_names:
            near = get_close_matches(name, all_names, n=1, cutoff=0)
            raise ValueError(f"unknown metric {name!r}; the nearest is {near[0]}")
    return tuple(metric for metric in known if not {ALL, metric.column, metric.api_name}.isdisjoint(names))


_POST_METRICS = {metric.api_name: metric for metric in METRICS}
_NOT_SUMMED = "never summed over days, because the same ones are counted on several days"

DEFAULT_CAMPAIGN_METRICS: tuple[Metric, ...] = (
    _POST_METRICS["engagements"],
    _POST_METRICS["impressions"],
    _POST_METRICS["paidEngagements"],
    _POST_METRICS["paidImpressions"],
    Metric("postsCount", GAUGE, "posts", f"Posts; {_NOT_SUMMED}"),
    _POST_METRICS["estimatedValueGenerated"],
    Metric("estimatedContentCost", COST, "USD",
           "Cost of the creators of the posts that have results in the range; never summed over days, because each day"
           " has the whole cost of its posts"),
    Metric("paidAdSpend", MONEY, "USD", "Ad spend"),
    Metric("paidCost", COST, "USD",
           "Probably what was paid to creators, not for ads; never summed over days, because that is not stated"),
    Metric("paidClicks", COUNT, "clicks", "Paid clicks"),
    Metric("paidReturnOnAdSpend", RATE, "USD per USD",
           "Revenue per ad spend; no currency is stated of either, so it may mix two"),
    Metric("trackingLinksClicks", COUNT, "clicks", "Clicks on tracking links"),
    Metric("trackingLinksConversions", COUNT, "conversions", "Conversions through tracking links"),
    Metric("trackingLinksConversionValue", MONEY, "USD", "Value of the conversions through tracking links"),
    Metric("affiliateLinksClicks", COUNT, "clicks", "Clicks on affiliate links"),
    Metric("affiliateLinksConversions", COUNT, "conversions", "Conversions through affiliate links"),
    Metric("affiliateLinksConversionRate", RATE, "conversions per click",
           "Conversions per click on affiliate links, as a fraction"),
    Metric("affiliateLinksSales", MONEY, "USD", "Revenue of sales through affiliate links"),
    Metric("affiliateLinksCommissionEarned", MONEY, "USD", "Commission earned through affiliate links"),
    Metric("affiliateLinksRoi", RATE, "USD per USD", "Commission through affiliate links per content cost"),
    Metric("influencersCount", GAUGE, "people", f"Influencers; {_NOT_SUMMED}"),
    _POST_METRICS["reach"],
    _POST_METRICS["cpe"],
    _POST_METRICS["cpm"],
    Metric("estimatedRoi", RATE, "not stated",
           "Estimated return on investment, a ratio; per content cost or all fulfilled cost, which is not stated"),
)  # fmt: skip
"""What `campaign_results` has, and the totals that a check compares with those of the posts.

Those that do not add up over days are requested for whole periods only.
"""

_SAME_AS_POSTS = (
    "engagementRate", "paidEngagementRate", "paidCpe", "paidCpm", "likes", "comments", "shares", "saves", "views",
    "totalInteractions", "replies", "reposts", "organicReach", "potentialReach", "videoViewTotalTime",
    "crosspostedViews", "crosspostedFacebookOnlyViews", "paidLikes", "paidComments", "paidShares", "paidSaves",
    "paidViews", "paidReach",
)  # fmt: skip

CAMPAIGN_METRICS: tuple[Metric, ...] = (
    *DEFAULT_CAMPAIGN_METRICS,
    Metric("impressionsPerPost", RATE, "impressions per post", "Impressions per post"),
    Metric("clicks", COUNT, "clicks", "Organic clicks"),
    Metric("paidPostsCount", GAUGE, "posts", f"Paid posts; {_NOT_SUMMED}"),
    Metric("paidInfluencersCount", GAUGE, "people", f"Influencers with paid posts; {_NOT_SUMMED}"),
    Metric("paidInitialPlays", COUNT, "plays", "Paid initial plays"),
    *(_POST_METRICS[name] for name in _SAME_AS_POSTS),
)  # fmt: skip
"""All known metrics of campaigns, in the order of their columns."""


_CAMPAIGN_OR_POST_METRICS = {metric.api_name: metric for metric in (*METRICS, *CAMPAIGN_METRICS)}

_OVER_TIME = (
    "engagements", "impressions", "paidEngagements", "paidImpressions", "engagementRate", "postsCount", "reach",
    "views", "estimatedValueGenerated", "cpe", "cpm", "paidEngagementRate", "paidViews", "likes", "comments", "shares",
    "clicks", "paidLikes", "paidComments", "paidShares", "paidReach",
)  # fmt: skip
OVER_TIME_METRICS = tuple(_CAMPAIGN_OR_POST_METRICS[name] for name in _OVER_TIME)
"""All known metrics of the buckets of account totals, in the order of their columns (docs/api.md, "Account totals")."""

_ACCOUNT = (
    *_OVER_TIME[:13], "estimatedContentCost", "paidCpe", "paidCpm", "paidPostsCount", "paidAdSpend",
    "paidReturnOnAdSpend", "trackingLinksClicks", "trackingLinksConversions", "trackingLinksConversionValue",
    "affiliateLinksClicks", "affiliateLinksConversions", "affiliateLinksSales",
)  # fmt: skip
CAMPAIGNS_COST = Metric(
    "campaignsCost", COST, "USD",
    "What was paid to the influencers of the campaigns, also for what is no content; never summed. Whether it is that"
    " of the range or of all time is not stated",
)  # fmt: skip
"""Nothing shows it until it is seen whether it depends on the range: the windows of one run say so.

They are all equal while ad spend grows, if it does not.
"""
ACCOUNT_METRICS = (
    *(_CAMPAIGN_OR_POST_METRICS[name] for name in _ACCOUNT),
    Metric("returnOnInvestment", RATE, "not stated",
           "Return on investment, a ratio; per content cost or all fulfilled cost, which is not stated"),
    CAMPAIGNS_COST,
)  # fmt: skip
"""All known metrics of the totals of a period, in the order of their columns."""


def parse_campaign_metrics(text: str) -> tuple[Metric, ...]:
    metrics = parse_metrics(text, known=CAMPAIGN_METRICS, default=DEFAULT_CAMPAIGN_METRICS)
    if not any(metric.kind.adds_up_over_days for metric in metrics):
        raise ValueError("name at least one metric that adds up over days, such as paidAdSpend")
    return metrics
