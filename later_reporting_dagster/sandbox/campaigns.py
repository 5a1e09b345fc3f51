"""The campaigns of the sandbox, as a pure function of a seed, and their performance: sums over the posts of a query."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from later_reporting_dagster.contract.parameters import METRICS_MEMBER, Platform, SortDirection, years_later
from later_reporting_dagster.endpoint.query_parameters import CAMPAIGN_SORT_PROPERTIES, CampaignsQuery
from later_reporting_dagster.endpoint.responses import JsonObject, PageRequest, page_body
from later_reporting_dagster.sandbox.cursor_metrics import cursor_only_metrics
from later_reporting_dagster.sandbox.served_posts import ServedPosts, json_values, metric_days, nulls_last
from later_reporting_dagster.sandbox.synthetic_world import (
    CAMPAIGNS,
    CONTENT_TYPES,
    NOT_AVAILABLE,
    IntArray,
    Keys,
    World,
    campaign_ids,
    campaign_positions,
    child,
    json_times,
    part_of,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticCampaign:
    """A campaign without its posts.

    Attributes:
        instance: Position in `World.instance_ids`.
        name: Two instances may have campaigns of the same name.
        status: `live`, or `draft` for a campaign that has no posts.
        start: First UTC day: not after the first day of the world, or after its last day for a draft.
    """

    instance: int
    campaign_id: int
    name: str
    description: str | None
    status: str
    start: date


def campaigns_of(world: World) -> list[SyntheticCampaign]:
    """Return all campaigns of a world, ordered by instance. They depend only on its seed, days and the instance."""
    return [
        _campaign(world, instance, number)
        for instance in range(len(world.instance_ids))
        for number in range(CAMPAIGNS + DRAFTS_PER_INSTANCE)
    ]


def _campaign(world: World, instance: int, number: int) -> SyntheticCampaign:
    instance_key = world.instance_keys[[instance]]
    key = _campaign_keys(instance_key, np.array([number]))
    is_draft = number >= CAMPAIGNS
    campaign_id = int(campaign_ids(np.array([instance]), np.array([number % CAMPAIGNS]))[0])
    first_product = _index(instance_key, "first product", choices=len(_PRODUCTS))
    product = _PRODUCTS[(first_product + number) % len(_PRODUCTS)]
    day_of_year = date.fromordinal(_index(key, "start", choices=365) + 1)
    return SyntheticCampaign(
        instance=instance,
        campaign_id=campaign_id + _DRAFT_ID_OFFSET if is_draft else campaign_id,
        name=f"{product} – {_OCCASIONS[_index(key, 'occasion', choices=len(_OCCASIONS))]}",
        description=_DESCRIPTIONS[_index(key, "description", choices=len(_DESCRIPTIONS))],
        status="draft" if is_draft else "live",
        start=_next(day_of_year, world.last_day) if is_draft else _latest(day_of_year, world.first_day),
    )


def _latest(day_of_year: date, day: date) -> date:
    """Return the last date with the month and day of `day_of_year` that is not after `day`."""
    same_year = day_of_year.replace(year=day.year)
    return same_year if same_year <= day else years_later(same_year, -1)


def _next(day_of_year: date, day: date) -> date:
    """Return the first date with the month and day of `day_of_year` that is after `day`."""
    return years_later(_latest(day_of_year, day), 1)


def campaign_only_metrics(world: World, rows: IntArray, *, since: int, until: int) -> dict[str, IntArray]:
    """Return the additive metrics that the API has for campaigns only, by post, and the revenue of paid posts.

    They accrue like the other metrics of a post. Some campaigns have no tracking links, some no affiliate links: these
    metrics of their posts are not available. Arguments and units are those of `World.metrics`.
    """
    posts = world.posts
    instance_keys = world.instance_keys[posts.instance[rows]]
    post_keys = child(instance_keys, posts.post_id[rows])
    totals = world.totals(rows)
    for name, (whole, per_mille) in _PARTS.items():
        totals[name] = part_of(totals[whole], name, per_mille=per_mille, keys=post_keys)
    campaign_keys = _campaign_keys(instance_keys, campaign_positions(posts.campaign_id[rows]) % CAMPAIGNS)
    for prefix, share_of_campaigns in _SHARES_OF_CAMPAIGNS_WITH_LINKS.items():
        has_links = uniform(campaign_keys, prefix) < share_of_campaigns
        for name in _PARTS:
            if name.startswith(prefix):
                totals[name] = np.where(has_links, totals[name], NOT_AVAILABLE)
    return {name: world.recorded(totals[name], rows, since=since, until=until) for name in _PARTS}


def _campaign_keys(instance_keys: Keys, numbers: IntArray) -> Keys:
    """Return the keys of campaigns for random draws, which differ from those of the days of an instance."""
    return child(instance_keys, -1 - numbers)


def _index(key: Keys, name: str, *, choices: int) -> int:
    return int(uniform(key, name)[0] * choices)


_COUNTED_POSTS = "counted posts"
# Rates in hundredths: the sums that each is a quotient of, and its scale. The units are those of the rates of posts;
# those of the other rates are invented: returns per amount spent, and conversions per 100 clicks.
_RATES: Mapping[str, tuple[str, str, int]] = {
    "engagementRate": ("engagements", "impressions", 10_000),
    "cpe": ("cost", "engagements", 1),
    "cpm": ("cost", "impressions", 1_000),
    "paidEngagementRate": ("paidEngagements", "paidImpressions", 10_000),
    "paidCpe": ("paidCost", "paidEngagements", 1),
    "paidCpm": ("paidCost", "paidImpressions", 1_000),
    "impressionsPerPost": ("impressions", _COUNTED_POSTS, 100),
    "estimatedRoi": ("estimatedValueGenerated", "cost", 100),
    "paidReturnOnAdSpend": ("paidRevenue", "paidCost", 100),
    "affiliateLinksConversionRate": ("affiliateLinksConversions", "affiliateLinksClicks", 10_000),
    "affiliateLinksRoi": ("affiliateLinksSales", "affiliateLinksCommissionEarned", 100),
}
_OTHER_NAMES = {"estimatedContentCost": "cost", "paidAdSpend": "paidCost"}


class CampaignStore:
    """The campaigns of a world, with the performance of the posts that are served now."""

    def __init__(self, world: World, posts: ServedPosts, *, refused_metrics: Collection[str] = ()) -> None:
        self._world = world
        self._posts = posts
        self._paged_metrics = [name for name in CAMPAIGN_SORT_PROPERTIES if name not in refused_metrics]

    @cached_property
    def _campaigns(self) -> dict[int, SyntheticCampaign]:
        return {campaign.campaign_id: campaign for campaign in campaigns_of(self._world)}

    def page(self, instance_ids: Collection[str], page: PageRequest) -> JsonObject:
        """Return the body of a page of campaigns, ordered by instance and id."""
        instances = [number for number, name in enumerate(self._world.instance_ids) if name in instance_ids]
        listed = sorted(
            (campaign for campaign in self._campaigns.values() if campaign.instance in instances),
            key=lambda campaign: (campaign.instance, campaign.campaign_id),
        )
        post_dates = self._post_dates()
        rows = [self._render(campaign, post_dates.get(campaign.campaign_id)) for campaign in listed[page.rows]]
        return page_body(rows, page=page, total=len(listed))

    def performance_page(self, query: CampaignsQuery, page: PageRequest) -> JsonObject:
        """Return the body of a page of the performance of the campaigns that have a post that matches."""
        sums = _CampaignSums(self._world, query, rows=self._posts.rows(query.posts))
        order = np.arange(len(sums.campaign_ids))
        if query.sort_property is not None:
            values = sums.metric(query.sort_property)
            is_ascending = query.posts.sort_direction is SortDirection.ASC
            order = np.argsort(nulls_last(values) if is_ascending else -values, kind="stable")
        shown = order[page.rows]
        names = self._paged_metrics if query.metrics is None else query.metrics
        columns = {name: json_values(name, sums.metric(name)[shown]) for name in names}
        data = []
        for index, position in enumerate(shown.tolist()):
            campaign = self._campaigns[int(sums.campaign_ids[position])]
            metrics = {name: column[index] for name, column in columns.items()}
            details = _describe(campaign, sums.platforms(position))
            data.append(details | (metrics if query.metrics is None else {METRICS_MEMBER: metrics}))
        return page_body(data, page=page, total=len(order))

    def _post_dates(self) -> dict[int, tuple[str, str]]:
        posts, rows = self._world.posts, self._posts.all_rows()
        positions = campaign_positions(posts.campaign_id[rows])
        count = CAMPAIGNS * len(self._world.instance_ids)
        first, last = np.full(count, np.iinfo(np.int64).max), np.full(count, np.iinfo(np.int64).min)
        np.minimum.at(first, positions, posts.published_ms[rows])
        np.maximum.at(last, positions, posts.published_ms[rows])
        found = np.flatnonzero(first <= last)
        ids = campaign_ids(found // CAMPAIGNS, found % CAMPAIGNS).tolist()
        return dict(zip(ids, zip(json_times(first[found]), json_times(last[found]), strict=True), strict=True))

    def _render(self, campaign: SyntheticCampaign, post_dates: tuple[str, str] | None) -> JsonObject:
        first_post_date, last_post_date = post_dates or (None, None)
        return {
            "campaignId": campaign.campaign_id,
            "campaignName": campaign.name,
            "description": campaign.description,
            "firstPostDate": first_post_date,
            "instanceId": self._world.instance_ids[campaign.instance],
            "lastPostDate": last_post_date,
            "startDate": f"{campaign.start}T00:00:00.000Z",
            "status": campaign.status,
        }


class _CampaignSums:
    """Sums over the matching posts of each campaign, in the ascending order of their ids."""

    def __init__(self, world: World, query: CampaignsQuery, *, rows: IntArray) -> None:
        posts = world.posts
        self._rows = rows[np.argsort(posts.campaign_id[rows], kind="stable")]
        self.campaign_ids, self._starts = np.unique(posts.campaign_id[self._rows], return_index=True)
        self._world = world
        self._since, self._until = metric_days(world, query.posts)
        self._columns: dict[str, IntArray] = {}
        self._values: dict[str, IntArray] = {}

    def metric(self, name: str) -> IntArray:
        """Return a metric by its API name, by campaign: `NOT_AVAILABLE` for null, money and rates in hundredths."""
        if name not in self._values:
            self._values[name] = self._computed(name) if len(self._rows) else self._rows
        return self._values[name]

    def platforms(self, position: int) -> list[Platform]:
        content_types = self._world.posts.content_type[self._of_campaign(position, self._rows)]
        return sorted({CONTENT_TYPES[content_type][1] for content_type in content_types.tolist()})

    def _computed(self, name: str) -> IntArray:
        if name in _RATES:
            numerator, denominator, scale = _RATES[name]
            return self._rate(numerator, denominator, scale=scale)
        if name in ("postsCount", "influencersCount"):
            return self._count(self._rows >= 0, distinct_creators=name == "influencersCount")
        if name in ("paidPostsCount", "paidInfluencersCount"):
            is_paid = self._column("paidImpressions") != NOT_AVAILABLE
            return self._count(is_paid, distinct_creators=name == "paidInfluencersCount")
        values = self._column(_OTHER_NAMES.get(name, name))
        is_available = values != NOT_AVAILABLE
        any_available = np.logical_or.reduceat(is_available, self._starts)
        return np.where(any_available, self._sum(np.where(is_available, values, 0)), NOT_AVAILABLE)

    def _rate(self, numerator: str, denominator: str, *, scale: int) -> IntArray:
        parts = self._column(numerator), self._column(denominator)
        has_both = (parts[0] != NOT_AVAILABLE) & (parts[1] != NOT_AVAILABLE)
        return quotient(*(self._sum(np.where(has_both, part, 0)) for part in parts), scale=scale)

    def _count(self, included: NDArray[np.bool_], *, distinct_creators: bool) -> IntArray:
        if not distinct_creators:
            return self._sum(included.astype(np.int64))
        creators = np.where(included, self._world.posts.creator_id[self._rows], NOT_AVAILABLE)
        distinct = [np.unique(self._of_campaign(position, creators)) for position in range(len(self._starts))]
        return np.array([np.count_nonzero(ids != NOT_AVAILABLE) for ids in distinct], dtype=np.int64)

    def _column(self, name: str) -> IntArray:
        """Return a column of the posts. All columns of a group are computed together, when one is needed."""
        if name == _COUNTED_POSTS:
            return np.ones_like(self._rows)
        for columns in (World.accrued, campaign_only_metrics, cursor_only_metrics):
            if name not in self._columns:
                self._columns |= columns(self._world, self._rows, since=self._since, until=self._until)
        return self._columns[name]

    def _sum(self, values: IntArray) -> IntArray:
        return np.add.reduceat(values, self._starts)

    def _of_campaign(self, position: int, values: IntArray) -> IntArray:
        end = self._starts[position + 1] if position + 1 < len(self._starts) else len(self._rows)
        return values[self._starts[position] : end]


def _describe(campaign: SyntheticCampaign, platforms: list[Platform]) -> JsonObject:
    """Return the fields that describe a campaign beside its metrics. All names but `campaignId` are invented."""
    return {
        "campaignId": campaign.campaign_id,
        "dateRange": {"startDate": str(campaign.start), "endDate": None},
        "description": campaign.description,
        "platforms": platforms,
        "title": campaign.name,
    }
