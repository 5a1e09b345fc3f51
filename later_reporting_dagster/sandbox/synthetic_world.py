"""The posts behind the sandbox: a pure function of a seed, so that the demo is always fresh and yet always the same.

Everything is drawn by hashing what it belongs to (seed, instance, day, place in the day), never from a stream: a
day's posts are therefore the same whatever the range of the world, and columns are drawn for all posts at once.

From there on everything is a whole number, money and rates in hundredths: rounding is exact, and what accrues day by
day sums to the total.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from later_reporting_dagster.contract.enums import ContentType, Platform
from later_reporting_dagster.contract.limits import MAXIMUM_RANGE_YEARS, years_later
from later_reporting_dagster.sandbox import metric_support

IntArray = NDArray[np.int64]
Keys = NDArray[np.uint64]

NOT_AVAILABLE = -1  # in a column of metrics, none of which can be negative
EXAMPLE_INSTANCE_IDS = ("instance_abc", "instance_def")
"""The instances that the document's own curl example asks for."""

# The document's list of content types is cut off, and `twitter` has none listed: an answer may hold one that no query
# can name.
CONTENT_TYPES: tuple[tuple[str, Platform, float], ...] = (
    (ContentType.INSTAGRAM_POST, Platform.INSTAGRAM, 0.18),
    (ContentType.INSTAGRAM_REEL, Platform.INSTAGRAM, 0.22),
    (ContentType.INSTAGRAM_STORY, Platform.INSTAGRAM, 0.15),
    (ContentType.TIKTOK, Platform.TIKTOK, 0.20),
    (ContentType.YOUTUBE_VIDEO, Platform.YOUTUBE, 0.05),
    (ContentType.YOUTUBE_SHORTS, Platform.YOUTUBE, 0.06),
    (ContentType.FACEBOOK_POST, Platform.FACEBOOK, 0.04),
    (ContentType.FACEBOOK_REEL, Platform.FACEBOOK, 0.03),
    (ContentType.FACEBOOK_LIVE, Platform.FACEBOOK, 0.01),
    (ContentType.FACEBOOK_GROUP, Platform.FACEBOOK, 0.01),
    ("twitter", Platform.TWITTER, 0.05),
)

FIRST_CAMPAIGN_ID, CAMPAIGN_ID_STEP, CAMPAIGNS = 49_761, 41, 12  # the first two are those of the document's example
CREATORS, CREATORS_PER_INSTANCE = 5_000, 150
MAXIMUM_POSTS_PER_DAY = 500_000  # keeps post ids of different days apart, with room for the day's scatter
MAXIMUM_LIFE_DAYS = 28

_POST_IDS_PER_DAY = 1_000_000
_QUIET_DAYS = 0.03
_MILLISECONDS_PER_DAY = 86_400_000
_UNIX_EPOCH = date(1970, 1, 1).toordinal()

# What accrues over a post's active life, in this order: counts, and money in hundredths.
_ACCRUING = (
    "impressions",
    "engagements",
    "estimatedValueGenerated",
    "cost",
    "paidImpressions",
    "paidEngagements",
    "paidCost",
)
# What adds up of the further metrics: of what it is a part, and how many of a thousand on average.
_SHARES: Mapping[str, tuple[str, int]] = {
    "likes": ("engagements", 700),
    "comments": ("engagements", 80),
    "shares": ("engagements", 60),
    "saves": ("engagements", 50),
    "replies": ("engagements", 20),
    "reposts": ("engagements", 30),
    "totalInteractions": ("engagements", 950),
    "views": ("impressions", 600),
    "navigationTapForward": ("impressions", 300),
    "navigationTapBack": ("impressions", 40),
    "navigationTapExit": ("impressions", 60),
    "navigationSwipeForward": ("impressions", 80),
    "crosspostedViews": ("impressions", 200),
    "crosspostedFacebookOnlyViews": ("impressions", 90),
    "paidLikes": ("paidEngagements", 700),
    "paidComments": ("paidEngagements", 60),
    "paidShares": ("paidEngagements", 50),
    "paidSaves": ("paidEngagements", 40),
    "paidViews": ("paidImpressions", 600),
}
# How many people are reached at most, of a thousand impressions.
_REACHED: Mapping[str, tuple[str, int]] = {
    "organicReach": ("impressions", 500),
    "reach": ("impressions", 550),
    "paidReach": ("paidImpressions", 450),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Posts:
    """All posts of a world as columns of one length, ordered by instance, then by post.

    `instance` and `content_type` are positions in `World.instance_ids` and `CONTENT_TYPES`; `day` is a proleptic
    ordinal; `published_ms` counts from the Unix epoch; `life` is in days from the day of publication on; `totals` has a
    row for each quantity that accrues, as at the end of life.
    """

    instance: IntArray
    campaign_id: IntArray
    post_id: IntArray
    creator_id: IntArray
    content_type: IntArray
    day: IntArray
    published_ms: IntArray
    life: IntArray
    pace: IntArray
    totals: IntArray

    def __len__(self) -> int:
        return len(self.post_id)


def two_years_before(last_day: date) -> date:
    """The first day of the longest range up to `last_day` that one query may span."""
    return years_later(last_day, -MAXIMUM_RANGE_YEARS)


@dataclass(frozen=True, kw_only=True)
class World:
    """Every instance, creator, post and number that a sandbox serves.

    Attributes:
        seed: another seed is another world.
        instances: how many instances there are, named `instance_000` and on.
        posts_per_day: mean of an instance's posts on a day; about one day in thirty has none.
        first_day: first UTC day on which anything was published.
        last_day: last UTC day of publication and of metrics: the service is current up to the day before [D].
        further_instances: more instances, by name: they change nothing in the others.

    Raises:
        ValueError: there is no such world.
    """

    first_day: date
    last_day: date
    seed: int = 0
    instances: int = 8
    posts_per_day: int = 20
    further_instances: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.last_day < self.first_day:
            raise ValueError(f"a world's last day {self.last_day} is before its first, {self.first_day}")
        if self.instances < 0 or not self.instance_ids:
            raise ValueError("a world has at least one instance")
        if len(set(self.instance_ids)) < len(self.instance_ids):
            raise ValueError("a world's instances have different names")
        if not 0 <= self.posts_per_day <= MAXIMUM_POSTS_PER_DAY:
            raise ValueError(f"posts_per_day is 0 to {MAXIMUM_POSTS_PER_DAY}, not {self.posts_per_day}")

    @property
    def instance_ids(self) -> tuple[str, ...]:
        """Names of all instances."""
        return (*(f"instance_{number:03d}" for number in range(self.instances)), *self.further_instances)

    @cached_property
    def _instance_keys(self) -> Keys:
        return np.array([_hash(f"{self.seed}/{name}") for name in self.instance_ids], dtype=np.uint64)

    @cached_property
    def posts(self) -> Posts:
        """All posts, drawn at the first use, in about half a second for a million."""
        days = np.arange(self.first_day.toordinal(), self.last_day.toordinal() + 1, dtype=np.int64)
        instance_keys = self._instance_keys
        cell_instance = np.repeat(np.arange(len(instance_keys)), len(days))
        cell_day = np.tile(days, len(instance_keys))
        cell_key = _child(instance_keys[cell_instance], cell_day)
        cell_posts = _posts_of_the_day(cell_key, self.posts_per_day)

        cell = np.repeat(np.arange(len(cell_key)), cell_posts)
        place = np.arange(len(cell)) - (np.cumsum(cell_posts) - cell_posts)[cell]
        row = _child(cell_key[cell], place)
        # A few rows are the post before them once more, in another campaign: a post id alone is no key.
        again = (_uniform(row, "again") < 0.03) & (place > 0)
        content = _child(cell_key[cell], place - again)
        return Posts(
            instance=cell_instance[cell],
            campaign_id=FIRST_CAMPAIGN_ID
            + CAMPAIGN_ID_STEP * ((_skewed(content, "campaign", CAMPAIGNS) + again) % CAMPAIGNS),
            post_id=cell_day[cell] * _POST_IDS_PER_DAY + place - again,
            creator_id=_creator_ids(instance_keys[cell_instance[cell]], content),
            content_type=_content_types(content),
            day=cell_day[cell],
            published_ms=(cell_day[cell] - _UNIX_EPOCH) * _MILLISECONDS_PER_DAY + _time_of_day(content),
            life=_lives(content),
            pace=_whole(_uniform(content, "pace") * len(_PACES)),
            totals=_totals(content),
        )

    def metrics(self, rows: IntArray, *, since: int, until: int) -> dict[str, IntArray]:
        """The document's metrics of some posts, by API name, as recorded from `since` to `until`, both inclusive.

        Days are ordinals. Counts are as they are, money and rates in hundredths; `NOT_AVAILABLE` stands for null.
        """
        recorded = self._recorded(self.posts.totals[:, rows], rows, since=since, until=until)
        values = dict(zip(_ACCRUING, recorded, strict=True))
        cost, paid_cost = values.pop("cost"), values.pop("paidCost")
        values |= rates(engagements=values["engagements"], impressions=values["impressions"], cost=cost)
        paid = rates(engagements=values["paidEngagements"], impressions=values["paidImpressions"], cost=paid_cost)
        return values | {f"paid{name[0].upper()}{name[1:]}": value for name, value in paid.items()}

    def further_metrics(self, rows: IntArray, *, since: int, until: int) -> dict[str, IntArray]:
        """As `metrics`, those that the document does not have. What a content type does not have is not available.

        What adds up is shares of engagements and impressions, so that it accrues as they do. Reach does not add up: in
        a few days a post reaches most of all whom it will ever reach.
        """
        posts = self.posts
        key = _child(self._instance_keys[posts.instance[rows]], posts.post_id[rows])
        totals = dict(zip(_ACCRUING, posts.totals[:, rows], strict=True))
        values: dict[str, IntArray] = {}
        for name, (of, per_mille) in _SHARES.items():
            share = _whole(per_mille * (0.5 + _uniform(key, name)))
            total = np.where(totals[of] < 0, NOT_AVAILABLE, totals[of] * share // 1000)
            values[name] = self._recorded(total, rows, since=since, until=until)
        for name, (of, per_mille) in _REACHED.items():
            most = np.where(totals[of] < 0, NOT_AVAILABLE, totals[of] * per_mille // 1000)
            seen = self._recorded(totals[of], rows, since=since, until=until)
            values[name] = np.where(most < 0, NOT_AVAILABLE, np.minimum(most, seen))
        followers = _whole(_log_normal(_child(key, posts.creator_id[rows]), "followers", 20_000, 1.2))
        values["followersAtPostDate"], values["potentialReach"] = followers, followers * 3 // 2
        # In hundredths of a second; the sandbox had to choose a unit.
        watched = 100 * values["views"] * (3 + _whole(20 * _uniform(key, "watched")))
        values["videoViewTotalTime"] = np.where(values["views"] < 0, NOT_AVAILABLE, watched)
        values["avgWatchTime"] = _quotient(values["videoViewTotalTime"], values["views"], 1)
        for name in values:
            has = np.array([metric_support.has(content_type, name) for content_type, _, _ in CONTENT_TYPES])
            values[name] = np.where(has[posts.content_type[rows]], values[name], NOT_AVAILABLE)
        return values

    def _recorded(self, totals: IntArray, rows: IntArray, *, since: int, until: int) -> IntArray:
        """How much of posts' totals accrued in the days `since` to `until`: days add up to the whole."""
        posts = self.posts
        life, pace = posts.life[rows], posts.pace[rows]
        before = _ACCRUED[pace, life, np.clip(since - posts.day[rows], 0, life)]
        after = _ACCRUED[pace, life, np.clip(until + 1 - posts.day[rows], 0, life)]
        return np.where(totals < 0, NOT_AVAILABLE, totals * after // _WHOLE - totals * before // _WHOLE)


def rates(*, engagements: IntArray, impressions: IntArray, cost: IntArray) -> dict[str, IntArray]:
    """The rates of one channel in hundredths, rounded half up, from its counts and its cost in hundredths.

    The document's sample shows the units [S]: `engagementRate` is in percent, `cpe` and `cpm` are one cost over
    engagements and over thousands of impressions. A rate whose parts are missing or whose denominator is 0 is not
    available.
    """
    return {
        "engagementRate": _quotient(engagements, impressions, 10_000),
        "cpe": _quotient(cost, engagements, 1),
        "cpm": _quotient(cost, impressions, 1_000),
    }


def _quotient(numerator: IntArray, denominator: IntArray, scale: int) -> IntArray:
    available = (numerator >= 0) & (denominator > 0)
    divisor = np.where(available, denominator, 1)
    return np.where(available, (2 * scale * numerator + divisor) // (2 * divisor), NOT_AVAILABLE)


# How a post's totals accrue: geometrically, at one of a few paces, all of it by the end of its life. A table of whole
# numbers `[pace, life, age in days]`, so that a day's metrics are exact differences and add up to the totals.
_WHOLE = 2**20
_PACES = (0.35, 0.5, 0.65, 0.8)


def _accrual_table() -> IntArray:
    table = np.zeros((len(_PACES), MAXIMUM_LIFE_DAYS + 1, MAXIMUM_LIFE_DAYS + 1), dtype=np.int64)
    for number, pace in enumerate(_PACES):
        for life in range(1, MAXIMUM_LIFE_DAYS + 1):
            for age in range(life + 1):
                table[number, life, age] = round(_WHOLE * (1 - pace**age) / (1 - pace**life))
    return table


_ACCRUED = _accrual_table()


def _posts_of_the_day(cell: Keys, mean: int) -> IntArray:
    spread = 1.5 * np.sqrt(mean)
    posts = np.maximum(np.rint(mean + spread * _normal(cell, "posts")), 0)
    return np.where(_uniform(cell, "quiet") < _QUIET_DAYS, 0, posts).astype(np.int64)


def _creator_ids(instance: Keys, content: Keys) -> IntArray:
    """Each instance works with its own few of all creators, and with some of them much more than with others."""
    member = _child(instance, _skewed(content, "creator", CREATORS_PER_INSTANCE))
    return 10_000 + _whole(_uniform(member, "person") * CREATORS)


def _content_types(content: Keys) -> IntArray:
    shares = np.cumsum([share for _, _, share in CONTENT_TYPES])
    return np.searchsorted(shares[:-1], _uniform(content, "content type"), side="right").astype(np.int64)


def _time_of_day(content: Keys) -> IntArray:
    """Milliseconds since midnight; the first and the last of a day are commoner than chance would have them."""
    moment = _uniform(content, "time of day") * 1.02 - 0.01
    return np.clip(_whole(moment * _MILLISECONDS_PER_DAY), 0, _MILLISECONDS_PER_DAY - 1)


def _lives(content: Keys) -> IntArray:
    """Days on which metrics are recorded: half of all posts live for two days or less, the mean is five."""
    return np.clip(_whole(1.35 / (1 - _uniform(content, "life"))), 1, MAXIMUM_LIFE_DAYS)


def _totals(content: Keys) -> IntArray:
    """The accruing quantities at the end of life, which a post has in each of its campaigns."""
    channel = _uniform(content, "channel")
    organic, paid = channel < 0.90, channel >= 0.62

    seen = np.where(_uniform(content, "silent") < 0.04, 0.0, _log_normal(content, "impressions", 3_000, 1.5))
    engaged = seen * np.minimum(_log_normal(content, "engagement rate", 0.04, 0.7), 0.6)
    value = np.floor(engaged) * _log_normal(content, "value of an engagement", 180, 0.5)
    cost = _log_normal(content, "cost", 30_000, 1.0)

    paid_seen = np.where(
        _uniform(content, "paid silent") < 0.03, 0.0, _log_normal(content, "paid impressions", 8_000, 1.3)
    )
    paid_engaged = paid_seen * np.minimum(_log_normal(content, "paid engagement rate", 0.02, 0.8), 0.6)
    paid_cost = paid_seen * _log_normal(content, "paid cost of an impression", 1.5, 0.5)

    return np.stack(
        [
            np.where(organic & (_uniform(content, "impressions known") < 0.95), _whole(seen), NOT_AVAILABLE),
            np.where(organic, _whole(engaged), NOT_AVAILABLE),
            np.where(organic & (_uniform(content, "value known") < 0.95), _whole(value), NOT_AVAILABLE),
            np.where(organic & (_uniform(content, "cost known") < 0.85), _whole(cost), NOT_AVAILABLE),
            np.where(paid, _whole(paid_seen), NOT_AVAILABLE),
            np.where(paid & (_uniform(content, "paid engagements known") < 0.95), _whole(paid_engaged), NOT_AVAILABLE),
            np.where(paid & (_uniform(content, "paid cost known") < 0.95), _whole(paid_cost), NOT_AVAILABLE),
        ]
    )


# Draws. A key stands for what a draw belongs to, a name for what is drawn; nothing else decides the number.


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mixed(keys: Keys) -> Keys:
    """The finalizer of SplitMix64: neighbouring keys give unrelated numbers."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def _child(keys: Keys, number: IntArray) -> Keys:
    return _mixed(keys + (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))


def _uniform(keys: Keys, name: str) -> NDArray[np.float64]:
    """From 0 inclusive to 1 exclusive."""
    return (_mixed(keys ^ np.uint64(_hash(name))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _normal(keys: Keys, name: str) -> NDArray[np.float64]:
    """By Box and Muller."""
    radius = np.sqrt(-2 * np.log1p(-_uniform(keys, f"{name}, radius")))
    return np.asarray(radius * np.cos(2 * np.pi * _uniform(keys, f"{name}, angle")))


def _log_normal(keys: Keys, name: str, median: float, sigma: float) -> NDArray[np.float64]:
    return np.asarray(median * np.exp(sigma * _normal(keys, name)))


def _skewed(keys: Keys, name: str, choices: int) -> IntArray:
    """One of `choices`, the first of them the likeliest."""
    return _whole(_uniform(keys, name) ** 2 * choices)


def _whole(values: NDArray[np.float64]) -> IntArray:
    return np.floor(values).astype(np.int64)
