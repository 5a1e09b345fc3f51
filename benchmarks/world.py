"""Writes a lake of any size, fast: each post has a row when it was published, and about five of days thereafter."""

from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from later_reporting_dagster.contract import ContentType, platform_of
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition

FIRST_DAY, DAYS, INSTANCES = date(2024, 1, 1), 365, 10
# What a world of so many posts a day and instance has in raw rows.
ROWS_A_POST = 5.6

_LATER_ROWS, _OLDEST = 4, 60
_CREATORS, _CAMPAIGNS = 400, 28
_CONTENT_TYPES = [str(content_type) for content_type in ContentType][:6]
_PLATFORMS = [str(platform_of(ContentType(content_type))) for content_type in _CONTENT_TYPES]

Whole = NDArray[np.int64]


def write_world(lake: Lake, *, rows: int, seed: int = 1) -> int:
    """Write a year of 10 instances, of about so many raw rows, and return how many there are."""
    chance = np.random.default_rng(seed)
    a_day = round(rows / ROWS_A_POST / DAYS / INSTANCES)
    days_of = [_recorded(a_day, chance) for _ in range(INSTANCES)]
    written = 0
    for number in range(DAYS):
        for asset, is_to_date in (("post_metrics_daily", False), ("posts_published", True)):
            tables = {
                Partition(FIRST_DAY + timedelta(days=number), f"{instance:03}"): _rows(
                    number * a_day + np.arange(a_day) if is_to_date else days_of[instance][number],
                    instance=instance, a_day=a_day, factor=5 if is_to_date else 1, chance=chance,
                )
                for instance in range(INSTANCES)
            }  # fmt: skip
            for outcome in lake.write_all(asset, tables).values():
                if isinstance(outcome, Exception):
                    raise outcome
                written += outcome.rows
    return written


def _recorded(a_day: int, chance: np.random.Generator) -> list[Whole]:
    """The posts of an instance that have a row by performance date, of each day."""
    posts = np.arange(DAYS * a_day)
    ages = np.minimum(chance.geometric(0.12, (_LATER_ROWS, len(posts))), _OLDEST)
    days = np.concatenate([posts // a_day, *(posts // a_day + ages)])
    pairs = np.unique(days * len(posts) + np.tile(posts, _LATER_ROWS + 1))
    ends = np.searchsorted(pairs, np.arange(1, DAYS) * len(posts))
    return np.split(pairs[: np.searchsorted(pairs, DAYS * len(posts))] % len(posts), ends)


def _rows(posts: Whole, *, instance: int, a_day: int, factor: int, chance: np.random.Generator) -> pa.Table:
    """The rows of some posts of an instance, on a day: their traits always the same, their metrics by chance."""
    posts_of_all = posts + instance * 10_000_000
    mixed = posts_of_all * 2_654_435_761 % 2**32
    creator = 5000 + mixed % _CREATORS
    # Most creators are in two campaigns, and on one platform.
    campaign = 1000 + (creator * 7 + (mixed >> 9) % 2) % _CAMPAIGNS
    order = np.lexsort((posts_of_all, campaign))
    posts, posts_of_all, mixed, creator, campaign = (
        each[order] for each in (posts, posts_of_all, mixed, creator, campaign)
    )
    content_type = pa.array(creator % 3 * 2 + (mixed >> 10) % 2)
    number = pc.cast(pa.array(creator), pa.string())
    noon = np.datetime64(FIRST_DAY, "us") + np.timedelta64(12, "h") + posts // a_day * np.timedelta64(1, "D")
    columns: dict[str, pa.Array] = {
        "instance_id": pa.repeat(f"{instance:03}", len(posts)),
        "campaign_id": pa.array(campaign),
        "post_id": pa.array(posts_of_all),
        "creator_id": pa.array(creator),
        "content_type": pa.array(_CONTENT_TYPES).take(content_type),
        "platform": pa.array(_PLATFORMS).take(content_type),
        "content_url": _joined("https://www.instagram.com/p/", pc.cast(pa.array(mixed), pa.string())),
        "creator_handle_name": _joined("creator_", number),
        "creator_full_name": _joined("Creator ", number),
        "creator_profile_link": _joined("https://www.instagram.com/creator_", number),
        "post_date": pa.array(noon).cast(POSTS_SCHEMA.field("post_date").type),
        **_metrics("", 0.01, is_missing=(mixed >> 14) % 10 == 0, factor=factor, chance=chance),
        **_metrics("paid_", 0.02, is_missing=(mixed >> 12) % 3 != 0, factor=factor, chance=chance),
    }
    absent = {field.name: pa.nulls(len(posts), field.type) for field in POSTS_SCHEMA}
    return pa.table({name: columns.get(name, nulls) for name, nulls in absent.items()}, schema=POSTS_SCHEMA)


def _metrics(
    prefix: str, cost: float, *, is_missing: NDArray[np.bool_], factor: int, chance: np.random.Generator
) -> Mapping[str, pa.Array]:
    impressions = np.floor(factor * chance.lognormal(6, 1.2, len(is_missing))).astype(np.int64)
    engagements = chance.binomial(impressions, 0.03)
    has_impressions, has_engagements = np.maximum(impressions, 1), np.maximum(engagements, 1)
    columns = {
        "engagements": (engagements, is_missing),
        "impressions": (impressions, is_missing),
        "engagement_rate": (np.round(100 * engagements / has_impressions, 2), is_missing),
        "cpe": (np.round(cost * impressions / has_engagements, 2), is_missing | (engagements == 0)),
        "cpm": (np.round(1000 * cost * impressions / has_impressions, 2), is_missing | (impressions == 0)),
    }
    if not prefix:
        columns["estimated_value_generated"] = (np.round(0.013 * impressions, 2), is_missing)
    return {f"{prefix}{name}": pa.array(values, mask=mask) for name, (values, mask) in columns.items()}


def _joined(text: str, values: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(text, values, "")
