"""Write a synthetic lake of any size: each post has a row by publication day, and one on each day on which it earns."""

from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from later_reporting_dagster.contract import ContentType
from later_reporting_dagster.contract.parameters import platform_of
from later_reporting_dagster.lake import POSTS_SCHEMA, Lake, Partition

FIRST_DAY, DAYS, INSTANCES = date(2024, 1, 1), 365, 10
_CREATORS, _CAMPAIGNS = 400, 28
_CONTENT_TYPES = [str(content_type) for content_type in ContentType][:6]
_PLATFORMS = [str(platform_of(ContentType(content_type))) for content_type in _CONTENT_TYPES]

IntArray = NDArray[np.int64]


def write_lake(lake: Lake, *, rows: int, days_per_post: float, days: int = DAYS, seed: int = 1) -> int:
    """Write both raw tables of 10 instances, with about `rows` rows in `post_metrics_daily`; return the exact number.

    Each post earns on the first `days_per_post` days; a fraction of a day is the share of posts that earn one more.
    """
    random = np.random.default_rng(seed)
    posts_per_day = max(round(rows / days_per_post / days / INSTANCES), 1)
    posts_by_day = [_posts_by_performance_day(posts_per_day, days_per_post, days, random) for _ in range(INSTANCES)]
    written = 0
    for number in range(days):
        for table_name, is_to_date in (("post_metrics_daily", False), ("posts_published", True)):
            tables = {
                Partition(FIRST_DAY + timedelta(days=number), f"{instance:03}"): _rows(
                    number * posts_per_day + np.arange(posts_per_day) if is_to_date else posts_by_day[instance][number],
                    instance=instance, posts_per_day=posts_per_day, factor=5 if is_to_date else 1, random=random,
                )
                for instance in range(INSTANCES)
            }  # fmt: skip
            rows_of_day = _write_day(lake, table_name, tables)
            written += 0 if is_to_date else rows_of_day
    return written


def write_published_posts(lake: Lake, *, instances: int, posts_per_day: int, days: int = DAYS, seed: int = 1) -> int:
    """Write `posts_published` only, with `posts_per_day` posts of each instance a day; return the number of posts."""
    random = np.random.default_rng(seed)
    written = 0
    for number in range(days):
        posts = number * posts_per_day + np.arange(posts_per_day)
        tables = {
            Partition(FIRST_DAY + timedelta(days=number), f"{instance:03}"): _rows(
                posts, instance=instance, posts_per_day=posts_per_day, factor=5, random=random
            )
            for instance in range(instances)
        }
        written += _write_day(lake, "posts_published", tables)
    return written


def _write_day(lake: Lake, table_name: str, tables: Mapping[Partition, pa.Table]) -> int:
    written = 0
    for result in lake.write_all(table_name, tables).values():
        if isinstance(result, Exception):
            raise result
        written += result.rows
    return written


def _posts_by_performance_day(
    posts_per_day: int, days_per_post: float, days: int, random: np.random.Generator
) -> list[IntArray]:
    """Draw the posts of an instance that have a row on each day, by performance date."""
    posts = np.arange(days * posts_per_day)
    earning_days = int(days_per_post) + (random.random(len(posts)) < days_per_post % 1)
    earning = np.repeat(posts, earning_days)
    ages = np.arange(len(earning)) - np.repeat(np.cumsum(earning_days) - earning_days, earning_days)
    on_day = earning // posts_per_day + ages
    order = np.argsort(on_day, kind="stable")
    return np.split(earning[order], np.searchsorted(on_day[order], np.arange(1, days + 1)))[:days]


def _rows(posts: IntArray, *, instance: int, posts_per_day: int, factor: int, random: np.random.Generator) -> pa.Table:
    """Return the rows of posts on a day. Attributes depend on the post id only, metrics are random."""
    post_ids = posts + instance * 10_000_000
    hashes = post_ids * 2_654_435_761 % 2**32
    creator = 5000 + hashes % _CREATORS
    # Most creators are in two campaigns, and on one platform.
    campaign = 1000 + (creator * 7 + (hashes >> 9) % 2) % _CAMPAIGNS
    order = np.lexsort((post_ids, campaign))
    posts, post_ids, hashes, creator, campaign = (each[order] for each in (posts, post_ids, hashes, creator, campaign))
    content_type = pa.array(creator % 3 * 2 + (hashes >> 10) % 2)
    number = pc.cast(pa.array(creator), pa.string())
    noon = np.datetime64(FIRST_DAY, "us") + np.timedelta64(12, "h") + posts // posts_per_day * np.timedelta64(1, "D")
    columns: dict[str, pa.Array] = {
        "instance_id": pa.repeat(f"{instance:03}", len(posts)),
        "campaign_id": pa.array(campaign),
        "post_id": pa.array(post_ids),
        "creator_id": pa.array(creator),
        "content_type": pa.array(_CONTENT_TYPES).take(content_type),
        "platform": pa.array(_PLATFORMS).take(content_type),
        "content_url": _concatenate("https://www.instagram.com/p/", pc.cast(pa.array(hashes), pa.string())),
        "creator_handle_name": _concatenate("creator_", number),
        "creator_full_name": _concatenate("Creator ", number),
        "creator_profile_link": _concatenate("https://www.instagram.com/creator_", number),
        "post_date": pa.array(noon).cast(POSTS_SCHEMA.field("post_date").type),
        **_metrics("", 0.01, is_missing=(hashes >> 14) % 10 == 0, factor=factor, random=random),
        **_metrics("paid_", 0.02, is_missing=(hashes >> 12) % 3 != 0, factor=factor, random=random),
    }
    absent = {field.name: pa.nulls(len(posts), field.type) for field in POSTS_SCHEMA}
    return pa.table({name: columns.get(name, nulls) for name, nulls in absent.items()}, schema=POSTS_SCHEMA)


def _metrics(
    prefix: str, cost: float, *, is_missing: NDArray[np.bool_], factor: int, random: np.random.Generator
) -> Mapping[str, pa.Array]:
    impressions = np.floor(factor * random.lognormal(6, 1.2, len(is_missing))).astype(np.int64)
    engagements = random.binomial(impressions, 0.03)
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


def _concatenate(text: str, values: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(text, values, "")
