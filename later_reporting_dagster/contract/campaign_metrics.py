"""The metrics of campaigns, in a table like the one of posts: the default metrics first.

The API reference lists bare names (docs/api.md, "Campaigns"), so a unit is given only where the name, or the metric of
a post with the same name, implies it.
"""

from later_reporting_dagster.contract.metrics import (
    COUNT,
    GAUGE,
    METRICS,
    MONEY,
    ORGANIC,
    PAID,
    RATE,
    Channel,
    Metric,
    parse_metrics,
)

_POST_METRICS = {metric.api_name: metric for metric in METRICS}
_TRACKING, _AFFILIATE = Channel.TRACKING_LINKS, Channel.AFFILIATE_LINKS
_NOT_SUMMED = "never summed over days, because the same ones are counted on several days"

DEFAULT_CAMPAIGN_METRICS: tuple[Metric, ...] = (
    _POST_METRICS["engagements"],
    _POST_METRICS["impressions"],
    _POST_METRICS["paidEngagements"],
    _POST_METRICS["paidImpressions"],
    Metric("postsCount", "posts_count", ORGANIC, GAUGE, "posts", f"Posts; {_NOT_SUMMED}"),
    _POST_METRICS["estimatedValueGenerated"],
    Metric("estimatedContentCost", "estimated_content_cost", ORGANIC, MONEY, "USD", "Estimated cost of the content"),
    Metric("paidAdSpend", "paid_ad_spend", PAID, MONEY, "USD", "Ad spend"),
    Metric("paidCost", "paid_cost", PAID, MONEY, "USD",
           "Paid cost; the API does not document how it differs from ad spend"),
    Metric("paidClicks", "paid_clicks", PAID, COUNT, "clicks", "Paid clicks"),
    Metric("paidReturnOnAdSpend", "paid_return_on_ad_spend", PAID, RATE, "USD per USD", "Revenue per ad spend"),
    Metric("trackingLinksClicks", "tracking_links_clicks", _TRACKING, COUNT, "clicks", "Clicks on tracking links"),
    Metric("trackingLinksConversions", "tracking_links_conversions", _TRACKING, COUNT, "conversions",
           "Conversions through tracking links"),
    Metric("trackingLinksConversionValue", "tracking_links_conversion_value", _TRACKING, MONEY, "USD",
           "Value of the conversions through tracking links"),
    Metric("affiliateLinksClicks", "affiliate_links_clicks", _AFFILIATE, COUNT, "clicks", "Clicks on affiliate links"),
    Metric("affiliateLinksConversions", "affiliate_links_conversions", _AFFILIATE, COUNT, "conversions",
           "Conversions through affiliate links"),
    Metric("affiliateLinksConversionRate", "affiliate_links_conversion_rate", _AFFILIATE, RATE, "not stated",
           "Conversions per click on affiliate links"),
    Metric("affiliateLinksSales", "affiliate_links_sales", _AFFILIATE, MONEY, "not stated",
           "Sales through affiliate links; the API does not document whether it is a number or an amount"),
    Metric("affiliateLinksCommissionEarned", "affiliate_links_commission_earned", _AFFILIATE, MONEY, "USD",
           "Commission earned through affiliate links"),
    Metric("affiliateLinksRoi", "affiliate_links_roi", _AFFILIATE, RATE, "not stated",
           "Return on investment of affiliate links"),
)  # fmt: skip
"""Spend, return and links, and the totals that a check compares with those of the posts."""

_SAME_AS_POSTS = (
    "engagementRate", "cpe", "cpm", "paidEngagementRate", "paidCpe", "paidCpm", "likes", "comments", "shares", "saves",
    "views", "totalInteractions", "replies", "reposts", "reach", "organicReach", "potentialReach", "videoViewTotalTime",
    "crosspostedViews", "crosspostedFacebookOnlyViews", "paidLikes", "paidComments", "paidShares", "paidSaves",
    "paidViews", "paidReach",
)  # fmt: skip

CAMPAIGN_METRICS: tuple[Metric, ...] = (
    *DEFAULT_CAMPAIGN_METRICS,
    Metric("estimatedRoi", "estimated_roi", ORGANIC, RATE, "not stated", "Estimated return on investment"),
    Metric("influencersCount", "influencers_count", ORGANIC, GAUGE, "people", f"Influencers; {_NOT_SUMMED}"),
    Metric("impressionsPerPost", "impressions_per_post", ORGANIC, RATE, "impressions per post", "Impressions per post"),
    Metric("clicks", "clicks", ORGANIC, COUNT, "clicks", "Organic clicks"),
    Metric("paidPostsCount", "paid_posts_count", PAID, GAUGE, "posts", f"Paid posts; {_NOT_SUMMED}"),
    Metric("paidInfluencersCount", "paid_influencers_count", PAID, GAUGE, "people",
           f"Influencers with paid posts; {_NOT_SUMMED}"),
    Metric("paidInitialPlays", "paid_initial_plays", PAID, COUNT, "plays", "Paid initial plays"),
    *(_POST_METRICS[name] for name in _SAME_AS_POSTS),
)  # fmt: skip
"""All known metrics of campaigns, in the order of their columns."""


def parse_campaign_metrics(text: str) -> tuple[Metric, ...]:
    """Parse a comma-separated list of names of campaign metrics, as `parse_metrics` does those of posts.

    Raises:
        ValueError: a name is unknown, or there are commas without a name.
    """
    return parse_metrics(text, known=CAMPAIGN_METRICS, default=DEFAULT_CAMPAIGN_METRICS)
