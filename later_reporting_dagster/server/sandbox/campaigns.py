"""The campaigns of the sandbox, as a pure function of a seed."""

from datetime import date
from functools import cache
from operator import itemgetter

import numpy as np

from later_reporting_dagster.contract.parameters import years_later
from later_reporting_dagster.server.routes import JsonObject, ListQuery, PageQuery, page_body
from later_reporting_dagster.server.sandbox.synthetic_world import (
    CAMPAIGNS,
    Keys,
    World,
    campaign_ids,
    json_times,
    keys_of_campaigns,
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


def _campaign(world: World, instance: int, number: int) -> JsonObject:
    """Return a campaign as `GET /v2/campaigns` does, without the dates of its posts: a draft if it has none.

    It depends only on the seed, the days and the instance of the world. Two instances may have the same names.
    """
    instance_key = world.instance_keys[[instance]]
    key = keys_of_campaigns(instance_key, np.array([number]))
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


def _index(key: Keys, name: str, *, choices: int) -> int:
    return int(uniform(key, name)[0] * choices)


@cache
def campaigns_by_id(world: World) -> dict[int, JsonObject]:
    """Return all campaigns by id, in its order, which is that of the instances."""
    instances, numbers = range(len(world.instance_ids)), range(CAMPAIGNS + DRAFTS_PER_INSTANCE)
    campaigns = [_campaign(world, instance, number) for instance in instances for number in numbers]
    return {each["campaignId"]: each for each in sorted(campaigns, key=itemgetter("campaignId"))}


def campaigns_page(world: World, query: ListQuery, page: PageQuery) -> JsonObject:
    """Return the body of a page of campaigns, ordered by instance and id."""
    instance_ids = query.instance_ids or ()
    listed = [campaign for campaign in campaigns_by_id(world).values() if campaign["instanceId"] in instance_ids]
    post_dates = _post_dates(world)
    rows = [campaign | post_dates.get(campaign["campaignId"], {}) for campaign in listed[page.rows]]
    return page_body(rows, page=page, total=len(listed))


@cache
def _post_dates(world: World) -> dict[int, JsonObject]:
    """Return the first and the last date of the posts of each campaign that has any, by its id."""
    rows = np.flatnonzero(~world.not_returned_yet)
    rows = rows[np.argsort(world.posts.campaign_id[rows], kind="stable")]
    ids, starts = np.unique(world.posts.campaign_id[rows], return_index=True)
    times = world.posts.published_ms[rows]
    first_dates, last_dates = (json_times(extreme.reduceat(times, starts)) for extreme in (np.minimum, np.maximum))
    return {
        campaign_id: {"firstPostDate": first, "lastPostDate": last}
        for campaign_id, first, last in zip(ids.tolist(), first_dates, last_dates, strict=True)
    }
