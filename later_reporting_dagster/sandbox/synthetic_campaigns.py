"""Generate the campaigns of the sandbox, as a pure function of a seed, and the metrics that only campaigns have."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import numpy as np

from later_reporting_dagster.contract.parameters import years_later
from later_reporting_dagster.sandbox.random_draws import IntArray, Keys, child, floor, uniform
from later_reporting_dagster.sandbox.synthetic_world import (
    CAMPAIGNS,
    NOT_AVAILABLE,
    World,
    campaign_ids,
    campaign_positions,
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
        share = floor(per_mille * (0.5 + uniform(post_keys, name)))
        totals[name] = np.where(totals[whole] < 0, NOT_AVAILABLE, totals[whole] * share // 1000)
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
