"""The campaigns of the sandbox, as a pure function of a seed, and their performance: sums over the posts of a query."""

from collections.abc import Collection, Mapping
from datetime import date
from functools import cache
from operator import itemgetter

import numpy as np
from msgspec.structs import replace

from later_reporting_dagster.contract.parameters import METRICS_MEMBER, Platform, years_later
from later_reporting_dagster.server.query_parameters import CAMPAIGN_SORT_PROPERTIES, PostsQuery
from later_reporting_dagster.server.responses import JsonObject, PageQuery, page_body
from later_reporting_dagster.server.sandbox.cursor_metrics import cursor_only_metrics
from later_reporting_dagster.server.sandbox.served_posts import (
    json_values,
    matching_rows,
    metric_days,
    sorted_positions,
)
from later_reporting_dagster.server.sandbox.synthetic_world import (
    CAMPAIGNS,
    CONTENT_TYPES,
    NOT_AVAILABLE,
    RATES,
    IntArray,
    Keys,
    World,
    campaign_ids,
    campaign_positions,
    child,
    json_times,
    quotient,
    uniform,
)

DRAFTS_PER_INSTANCE = 2
_DRAFT_ID_OFFSET = 17  # between the ids of two campaigns with posts

# A campaign is named for a product and an occasion. An instance has each product once.
_PRODUCTS = (
    "Crème Légère", "Trail Runner 3", "Café Olé", "Citrus Fizz", "さくら Matcha", "Mom & Baby Care",
    "Nachtpflege für Männer", "Nature's Best", "Glow Serum", "Açaí Bowl", "Smart Kettle", "Żubr Outdoor",
    "Linen Basics", "Pet Snacks",
)  # fmt: skip
_OCCASIONS = (
    "Launch", "Summer Edit", "Holiday Gifting", "Back to School", "Always-On", "Creator Giveaway", "Fête des Mères",
    "Unboxing", "Brand Ambassadors", "Día del Niño",
)  # fmt: skip
_DESCRIPTIONS = (
    "Awareness: short videos by micro creators.",
    "Seeding to 150 creators – no fixed deliverables.",
    "Paid amplification of the best organic posts; the budget is reviewed monthly.",
    "Goal: “save” rate. Stories with a link, reels without.",
    None,
    None,
)

# Additive metrics: the total that each is a part of, and its mean share in thousandths. Money is in hundredths, so that
# the share of an amount per conversion is large. `paidRevenue` is not a metric: returns on ad spend come from it.
_PARTS: Mapping[str, tuple[str, int]] = {
    "clicks": ("impressions", 12),
    "paidClicks": ("paidImpressions", 15),
    "paidInitialPlays": ("paidImpressions", 350),
    "paidRevenue": ("paidCost", 1_800),
    "trackingLinksClicks": ("impressions", 8),
    "trackingLinksConversions": ("trackingLinksClicks", 60),
    "trackingLinksConversionValue": ("trackingLinksConversions", 4_500_000),
    "affiliateLinksClicks": ("impressions", 6),
    "affiliateLinksConversions": ("affiliateLinksClicks", 50),
    "affiliateLinksSales": ("affiliateLinksConversions", 6_000_000),
    "affiliateLinksCommissionEarned": ("affiliateLinksSales", 100),
}
_SHARES_OF_CAMPAIGNS_WITH_LINKS = {"trackingLinks": 0.6, "affiliateLinks": 0.5}


def _campaign(world: World, instance: int, number: int) -> JsonObject:
    """Return a campaign as `GET /v2/campaigns` does, without the dates of its posts: a draft if it has none.

    It depends only on the seed, the days and the instance of the world. Two instances may have the same names.
    """
    instance_key = world.instance_keys[[instance]]
    key = _campaign_keys(instance_key, np.array([number]))
    is_draft = number >= CAMPAIGNS
    campaign_id = int(campaign_ids(np.array([instance]), np.array([number % CAMPAIGNS]))[0])
    first_product = _index(instance_key, "first product", choices=len(_PRODUCTS))
    product = _PRODUCTS[(first_product + number) % len(_PRODUCTS)]
    # The last date with a random month and day that is not after the first day of the world, or of a draft the last.
    latest = world.last_day if is_draft else world.first_day
    start = date.fromordinal(_index(key, "start", choices=365) + 1).replace(year=latest.year)
    start = start if start <= latest else years_later(start, -1)
    return {
        "campaignId": campaign_id + _DRAFT_ID_OFFSET if is_draft else campaign_id,
        "campaignName": f"{product} – {_OCCASIONS[_index(key, 'occasion', choices=len(_OCCASIONS))]}",
        "description": _DESCRIPTIONS[_index(key, "description", choices=len(_DESCRIPTIONS))],
        "firstPostDate": None,
        "instanceId": world.instance_ids[instance],
        "lastPostDate": None,
        "startDate": f"{years_later(start, 1) if is_draft else start}T00:00:00.000Z",
        "status": "draft" if is_draft else "live",
    }


def campaign_only_metrics(world: World, rows: IntArray, *, since: int, until: int) -> dict[str, IntArray]:
    """Return the additive metrics of posts, those that the API has for campaigns only, and the revenue of paid posts.

    They accrue like the other metrics of a post. Some campaigns have no tracking links, some no affiliate links: these
    metrics of their posts are not available. Arguments and units are those of `World.metrics`.
    """
    posts = world.posts
    values = world.accrued(rows, since=since, until=until, parts=_PARTS)
    numbers = campaign_positions(posts.campaign_id[rows]) % CAMPAIGNS
    campaign_keys = _campaign_keys(world.instance_keys[posts.instance[rows]], numbers)
    for prefix, share_of_campaigns in _SHARES_OF_CAMPAIGNS_WITH_LINKS.items():
        has_links = uniform(campaign_keys, prefix) < share_of_campaigns
        for name in _PARTS:
            if name.startswith(prefix):
                values[name] = np.where(has_links, values[name], NOT_AVAILABLE)
    return values


def _campaign_keys(instance_keys: Keys, numbers: IntArray) -> Keys:
    """Return the keys of campaigns for random draws, which differ from those of the days of an instance."""
    return child(instance_keys, -1 - numbers)


def _index(key: Keys, name: str, *, choices: int) -> int:
    return int(uniform(key, name)[0] * choices)


# In hundredths: the metrics that each is a quotient of, and its scale. Costs per result are blended: those of both
# channels over the results of both. The units of the rates that posts do not have are invented: returns per amount
# spent, and conversions per 100 clicks.
_RATES: Mapping[str, tuple[str, str, int]] = {
    **RATES,
    "cpe": ("cost+paidCost", "engagements+paidEngagements", 1),
    "cpm": ("cost+paidCost", "impressions+paidImpressions", 1_000),
    "impressionsPerPost": ("impressions", "postsCount", 100),
    "estimatedRoi": ("estimatedValueGenerated", "cost", 100),
    "paidReturnOnAdSpend": ("paidRevenue", "paidCost", 100),
    "affiliateLinksConversionRate": ("affiliateLinksConversions", "affiliateLinksClicks", 10_000),
    "affiliateLinksRoi": ("affiliateLinksCommissionEarned", "cost", 100),
}
# Counts of posts or of their creators: all, or those with paid results.
_COUNTS = {"postsCount": False, "influencersCount": False, "paidPostsCount": True, "paidInfluencersCount": True}
_OTHER_NAMES = {"estimatedContentCost": "cost", "paidAdSpend": "paidCost"}


@cache
def _campaigns(world: World) -> dict[int, JsonObject]:
    """Return all campaigns by id, in its order, which is that of the instances."""
    instances, numbers = range(len(world.instance_ids)), range(CAMPAIGNS + DRAFTS_PER_INSTANCE)
    campaigns = [_campaign(world, instance, number) for instance in instances for number in numbers]
    return {each["campaignId"]: each for each in sorted(campaigns, key=itemgetter("campaignId"))}


def campaigns_page(world: World, instance_ids: Collection[str], page: PageQuery) -> JsonObject:
    """Return the body of a page of campaigns, ordered by instance and id."""
    listed = [campaign for campaign in _campaigns(world).values() if campaign["instanceId"] in instance_ids]
    post_dates = _post_dates(world)
    rows = [campaign | post_dates.get(campaign["campaignId"], {}) for campaign in listed[page.rows]]
    return page_body(rows, page=page, total=len(listed))


def performance_page(world: World, query: PostsQuery, page: PageQuery) -> JsonObject:
    """Return the body of a page of the performance of the campaigns that have a post that matches."""
    sums = _CampaignSums(world, query)
    order = np.arange(len(sums.campaign_ids))
    if query.sort_property is not None:
        order = sorted_positions(sums.metric(query.sort_property), query.sort_direction)
    shown = order[page.rows]
    names = CAMPAIGN_SORT_PROPERTIES if query.metrics is None else query.metrics
    columns = {name: json_values(name, sums.metric(name)[shown]) for name in names}
    data = []
    for index, position in enumerate(shown.tolist()):
        campaign = _campaigns(world)[int(sums.campaign_ids[position])]
        metrics = {name: column[index] for name, column in columns.items()}
        # All names but `campaignId` are invented.
        details = {
            "campaignId": campaign["campaignId"],
            "dateRange": {"startDate": campaign["startDate"][:10], "endDate": None},
            "description": campaign["description"],
            "platforms": sums.platforms(position),
            "title": campaign["campaignName"],
        }
        data.append(details | (metrics if query.metrics is None else {METRICS_MEMBER: metrics}))
    return page_body(data, page=page, total=len(order))


@cache
def _post_dates(world: World) -> dict[int, JsonObject]:
    """Return the first and the last date of the posts of each campaign that has any, by its id."""
    rows, ids, starts = _by_campaign(world, np.flatnonzero(~world.not_returned_yet))
    times = world.posts.published_ms[rows]
    first_dates, last_dates = (json_times(extreme.reduceat(times, starts)) for extreme in (np.minimum, np.maximum))
    return {
        campaign_id: {"firstPostDate": first, "lastPostDate": last}
        for campaign_id, first, last in zip(ids.tolist(), first_dates, last_dates, strict=True)
    }


def _by_campaign(world: World, rows: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Return rows ordered by campaign, the ids of these campaigns, and the position of the first row of each."""
    ids = world.posts.campaign_id[rows]
    order = np.argsort(ids, kind="stable")
    return rows[order], *np.unique(ids[order], return_index=True)


class _CampaignSums:
    """Sums over the matching posts of each campaign, in the ascending order of their ids."""

    def __init__(self, world: World, query: PostsQuery) -> None:
        rows = matching_rows(world, replace(query, sort_property=None))
        rows, self.campaign_ids, self._starts = _by_campaign(world, rows)
        self._campaign_id, self._creator_id = world.posts.campaign_id[rows], world.posts.creator_id[rows]
        self._content_type = world.posts.content_type[rows]
        self._columns: dict[str, IntArray] = {}
        since, until = metric_days(world, query)
        for columns in (campaign_only_metrics, cursor_only_metrics):
            self._columns |= columns(world, rows, since=since, until=until)

    def metric(self, name: str) -> IntArray:
        """Return a metric by its API name, by campaign: `NOT_AVAILABLE` for null, money and rates in hundredths."""
        if name in _RATES:
            numerator, denominator, scale = _RATES[name]
            return quotient(self._total(numerator), self._total(denominator), scale=scale)
        if name in _COUNTS:
            is_counted = (self._columns["paidImpressions"] > 0) | (not _COUNTS[name])
            if "osts" in name:
                return np.add.reduceat(is_counted.astype(np.int64), self._starts)
            pairs = np.unique(np.stack([self._campaign_id, self._creator_id])[:, is_counted], axis=1)
            return np.bincount(np.searchsorted(self.campaign_ids, pairs[0]), minlength=len(self.campaign_ids))
        values = self._columns[_OTHER_NAMES.get(name, name)]
        is_available = values != NOT_AVAILABLE
        any_available = np.logical_or.reduceat(is_available, self._starts)
        sums = np.add.reduceat(np.where(is_available, values, 0), self._starts)
        return np.where(any_available, sums, NOT_AVAILABLE)

    def _total(self, names: str) -> IntArray:
        """Return the sum of one or two metrics, of those that are available."""
        values = np.stack([self.metric(name) for name in names.split("+")])
        total = np.where(values == NOT_AVAILABLE, 0, values).sum(axis=0)
        return np.where((values == NOT_AVAILABLE).all(axis=0), NOT_AVAILABLE, total)

    def platforms(self, position: int) -> list[Platform]:
        content_types = self._content_type[self._campaign_id == self.campaign_ids[position]]
        return sorted({CONTENT_TYPES[content_type][1] for content_type in content_types.tolist()})
