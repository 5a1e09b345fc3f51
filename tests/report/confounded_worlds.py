"""Worlds in which paying changes nothing, but the paid posts are not like the others.

An impression has the same chance of an engagement in both channels. What differs is which posts are paid for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from tests.rollups.conftest import Row, row
from tests.rollups.reference import World
from tests.rollups.worlds import NEWEST, campaign, performance, period

DAYS, POSTS_PER_DAY, DAYS_OF_POST, CREATORS = 40, 4, 6, 7
NETWORKS = ("instagram", "tiktok", "youtube")
LUCKY_DAYS = 2
COST_PER_1000 = 10
SWAPPED = ("impressions", "engagements", "cpe", "cpm")


@dataclass(frozen=True, slots=True)
class _Post:
    """A post, with what decides about its rate: its quality, its creator, its network, and early luck."""

    number: int
    published: date

    @property
    def creator(self) -> int:
        return self.number % CREATORS

    @property
    def network(self) -> int:
        return self.number % len(NETWORKS)

    @property
    def quality(self) -> int:
        return self.number * 7 % 11

    @property
    def luck(self) -> int:
        return self.number * 5 % 9

    def rate(self, age: int) -> float:
        """Return the engagements per impression, in either channel."""
        lucky = 0.01 * self.luck if age < LUCKY_DAYS else 0
        return 0.02 + 0.004 * self.quality + 0.004 * self.creator + 0.01 * self.network + lucky


# By world, which posts are paid for.
PAID: Mapping[str, Callable[[_Post], bool]] = {
    "quality": lambda post: post.quality > 7,
    "luck": lambda post: post.luck > 5,
    "dark": lambda post: post.number % 4 == 0,
    "creators": lambda post: post.creator > 4,
    "mix": lambda post: post.network == 2 and post.number % 2 == 0,
}


def confounded_world(name: str, *, swapped: bool = False) -> World:
    """Return a world by its name; `swapped`: what is organic is paid, and the other way round."""
    days = [NEWEST - timedelta(days=number) for number in range(DAYS)]
    recorded: dict[tuple[date, str], list[Row]] = {(day, "a"): [] for day in days}
    published: dict[tuple[date, str], list[Row]] = {(day, "a"): [] for day in days}
    for place, day in enumerate(days):
        for number in range(POSTS_PER_DAY):
            post = _Post(place * POSTS_PER_DAY + number, day)
            is_paid = PAID[name](post)
            total = _results(0, 0, 0, 0)
            for age in range(DAYS_OF_POST):
                impressions = (DAYS_OF_POST - age) * (100 + post.number % 13 * 20)
                organic = 0 if is_paid and name == "dark" else impressions
                paid = impressions if is_paid and age >= LUCKY_DAYS else 0
                results = _results(organic, organic * post.rate(age), paid, paid * post.rate(age))
                if (when := day + timedelta(days=age)) <= NEWEST:
                    recorded[when, "a"].append(_row(post, results, swapped=swapped))
                    total = {column: total[column] + results[column] for column in total}
            published[day, "a"].append(_row(post, total, swapped=swapped))
    totals = [period(window, campaign_id=1, paid_ad_spend=500.0) for window in ("7d", "28d", "90d")]
    return replace(
        World(recorded, published),
        campaigns=[campaign(campaign_id=1)],
        performance={day: [performance(campaign_id=1, paid_ad_spend=20.0)] for day in days},
        periods=totals,
    )


def _results(*counts: float) -> dict[str, int]:
    names = ("impressions", "engagements", "paid_impressions", "paid_engagements")
    return {name: round(count) for name, count in zip(names, counts, strict=True)}


def _row(post: _Post, results: dict[str, int], *, swapped: bool) -> Row:
    values: Row = {**results}
    for side in ("", "paid_"):
        impressions, engagements = values[f"{side}impressions"], values[f"{side}engagements"]
        cost = COST_PER_1000 * impressions / 1000
        values[f"{side}cpm"] = float(COST_PER_1000) if impressions else None
        values[f"{side}cpe"] = round(cost / engagements, 2) if engagements else None
    if swapped:
        organic = {name: values[f"paid_{name}"] for name in SWAPPED}
        values |= {f"paid_{name}": values[name] for name in SWAPPED} | organic
    return row(
        post_id=post.number + 1,
        creator_id=post.creator + 1,
        creator_full_name=f"creator {post.creator}",
        platform=NETWORKS[post.network],
        content_type=f"{NETWORKS[post.network]}_reel",
        post_date=datetime(post.published.year, post.published.month, post.published.day, tzinfo=UTC),
        **values,
    )
