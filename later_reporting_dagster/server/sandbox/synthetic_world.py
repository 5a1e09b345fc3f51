"""Generate the posts of the sandbox, as a pure function of a seed.

Each value is a hash of its seed, instance, day and index in the day, not the next number of a random stream: a day has
the same posts for any range of the world, and columns are drawn for all posts at once.

All values are whole numbers, money and rates in hundredths: rounding is exact, and daily metrics add up to the totals.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from later_reporting_dagster.contract.parameters import MAX_RANGE_YEARS, ContentType, Platform, years_later

IntArray = NDArray[np.int64]
Keys = NDArray[np.uint64]

BANNER = "SYNTHETIC DATA: all instances, creators, posts and numbers of this sandbox are invented."

NOT_AVAILABLE = -1
"""Null in a column of metrics, which are never negative."""

EXAMPLE_INSTANCE_IDS = ("instance_abc", "instance_def")
"""Instances of the curl example in the API reference."""

# Content type, its platform, and its share of all posts. The API reference lists no content type of `twitter` and its
# list is truncated: responses have content types that queries cannot filter by.
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

# Campaigns of an instance that have posts. The ids of the first two of the first instance are in the example of the API
# reference.
FIRST_CAMPAIGN_ID, CAMPAIGN_ID_STEP, CAMPAIGNS = 49_761, 41, 12
CREATORS, CREATORS_PER_INSTANCE = 5_000, 150
MAX_POSTS_PER_DAY = 500_000  # keeps the post ids of different days apart: a day may have more than the mean
MAX_LIFETIME_DAYS = 28

_POST_IDS_PER_DAY = 1_000_000
_SHARE_OF_DAYS_WITHOUT_POSTS = 0.03
_MILLISECONDS_PER_DAY = 86_400_000
_UNIX_EPOCH = date(1970, 1, 1).toordinal()

# Quantities that accrue over a post's lifetime, in the order of `Posts.totals`: counts, and money in hundredths.
_ACCRUING = (
    "impressions",
    "engagements",
    "estimatedValueGenerated",
    "cost",
    "paidImpressions",
    "paidEngagements",
    "paidCost",
)
# Rates in hundredths: the quantities that each is a quotient of, and its scale. The units are those of docs/api.md,
# "Metrics, null and units".
RATES: Mapping[str, tuple[str, str, int]] = {
    "engagementRate": ("engagements", "impressions", 10_000),
    "cpe": ("cost", "engagements", 1),
    "cpm": ("cost", "impressions", 1_000),
    "paidEngagementRate": ("paidEngagements", "paidImpressions", 10_000),
    "paidCpe": ("paidCost", "paidEngagements", 1),
    "paidCpm": ("paidCost", "paidImpressions", 1_000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Posts:
    """All posts of a world as columns of equal length, ordered by instance, then by post.

    Attributes:
        instance: Position in `World.instance_ids`.
        content_type: Position in `CONTENT_TYPES`.
        day: Day of publication, as a proleptic ordinal.
        published_ms: Time of publication, in milliseconds since the Unix epoch.
        lifetime_days: Number of days with metrics, from the day of publication.
        decay: Position in `_DECAY_RATES`.
        totals: One row per accruing quantity: its value at the end of the lifetime.
    """

    instance: IntArray
    campaign_id: IntArray
    post_id: IntArray
    creator_id: IntArray
    content_type: IntArray
    day: IntArray
    published_ms: IntArray
    lifetime_days: IntArray
    decay: IntArray
    totals: IntArray

    def __len__(self) -> int:
        return len(self.post_id)


def two_years_before(last_day: date) -> date:
    """Return the first day of the longest range up to `last_day` that a query may have."""
    return years_later(last_day, -MAX_RANGE_YEARS)


@dataclass(frozen=True, kw_only=True)
class World:
    """The data of a sandbox: instances, creators, posts and their metrics.

    Attributes:
        first_day: First UTC day with posts.
        last_day: Last UTC day with posts and metrics; the API has data up to yesterday (docs/api.md, "Freshness").
        instances: Number of instances named `instance_000` and so on.
        posts_per_day: Mean number of posts of an instance on a day; about one day in thirty has none.
        extra_instance_ids: More instances. They do not change the data of the others.
    """

    first_day: date
    last_day: date
    seed: int = 0
    instances: int = 8
    posts_per_day: int = 20
    extra_instance_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.last_day < self.first_day:
            raise ValueError(f"last_day {self.last_day} of a world must not be before first_day {self.first_day}")
        if not 0 <= self.posts_per_day <= MAX_POSTS_PER_DAY:
            raise ValueError(f"posts_per_day must be from 0 to {MAX_POSTS_PER_DAY}, not {self.posts_per_day}")

    @property
    def instance_ids(self) -> tuple[str, ...]:
        return (*(f"instance_{number:03d}" for number in range(self.instances)), *self.extra_instance_ids)

    @cached_property
    def instance_keys(self) -> Keys:
        """Keys of all instances for random draws; a key does not depend on the other instances."""
        return np.array([hash_of(f"{self.seed}/{name}") for name in self.instance_ids], dtype=np.uint64)

    def post_keys(self, rows: IntArray) -> Keys:
        """Return keys of posts for random draws; a post has the same key in each of its campaigns."""
        return child(self.instance_keys[self.posts.instance[rows]], self.posts.post_id[rows])

    @cached_property
    def posts(self) -> Posts:
        """All posts, generated at the first access; one million take about half a second."""
        days = np.arange(self.first_day.toordinal(), self.last_day.toordinal() + 1, dtype=np.int64)
        instance_keys = self.instance_keys
        # One element for each instance and day.
        instance_of_day = np.repeat(np.arange(len(instance_keys)), len(days))
        ordinal = np.tile(days, len(instance_keys))
        day_key = child(instance_keys[instance_of_day], ordinal)
        posts_on_day = _post_counts(day_key, self.posts_per_day)

        # One element for each post.
        position = np.repeat(np.arange(len(day_key)), posts_on_day)
        index = np.arange(len(position)) - (np.cumsum(posts_on_day) - posts_on_day)[position]
        row_key = child(day_key[position], index)
        # A few rows repeat the previous post in another campaign: a post id alone is not a key.
        repeats = (uniform(row_key, "again") < 0.03) & (index > 0)
        post_key = child(day_key[position], index - repeats)
        return Posts(
            instance=instance_of_day[position],
            campaign_id=campaign_ids(instance_of_day[position], _campaign_numbers(post_key, repeats)),
            post_id=ordinal[position] * _POST_IDS_PER_DAY + index - repeats,
            creator_id=_creator_ids(instance_keys[instance_of_day[position]], post_key),
            content_type=_content_types(post_key),
            day=ordinal[position],
            published_ms=(ordinal[position] - _UNIX_EPOCH) * _MILLISECONDS_PER_DAY + _time_of_day_ms(post_key),
            lifetime_days=_lifetimes(post_key),
            decay=floor(uniform(post_key, "pace") * len(_DECAY_RATES)),
            totals=_totals(post_key),
        )

    def metrics(self, rows: IntArray, *, since: int, until: int) -> dict[str, IntArray]:
        """Return the metrics of both API versions for some posts.

        Args:
            rows: Positions in `posts`.
            since: First day of the metrics, as a proleptic ordinal.
            until: Last day of the metrics, inclusive.

        Returns:
            Columns by API name, and both costs: whole counts, money and rates in hundredths, `NOT_AVAILABLE` for null.
        """
        values = self.accrued(rows, since=since, until=until)
        return values | {
            name: quotient(values[numerator], values[denominator], scale=scale)
            for name, (numerator, denominator, scale) in RATES.items()
        }

    def totals(self, rows: IntArray) -> dict[str, IntArray]:
        """Return the accruing quantities of some posts at the end of their lifetimes, with both costs, by name."""
        return dict(zip(_ACCRUING, self.posts.totals[:, rows], strict=True))

    def accrued(self, rows: IntArray, *, since: int, until: int) -> dict[str, IntArray]:
        """Return the parts of the totals that accrued on some days, by name; arguments and units as in `metrics`."""
        recorded = self.recorded(self.posts.totals[:, rows], rows, since=since, until=until)
        return dict(zip(_ACCRUING, recorded, strict=True))

    def parts(
        self, shares: Mapping[str, tuple[str, int]], rows: IntArray, *, since: int, until: int
    ) -> dict[str, IntArray]:
        """Return metrics that are parts of others and accrue like these, by name; units as in `metrics`.

        Args:
            shares: The metric that each is a part of, an accruing quantity or an earlier part, and its mean share in
                thousandths.
        """
        keys, totals = self.post_keys(rows), self.totals(rows)
        for name, (whole, per_mille) in shares.items():
            share = floor(per_mille * (0.5 + uniform(keys, name)))
            totals[name] = np.where(totals[whole] < 0, NOT_AVAILABLE, totals[whole] * share // 1000)
        return {name: self.recorded(totals[name], rows, since=since, until=until) for name in shares}

    def recorded(self, totals: IntArray, rows: IntArray, *, since: int, until: int) -> IntArray:
        """Return the parts of totals that accrued on the days `since` to `until`; all days add up to the total."""
        posts = self.posts
        lifetime, decay = posts.lifetime_days[rows], posts.decay[rows]
        before = _ACCRUED[decay, lifetime, np.clip(since - posts.day[rows], 0, lifetime)]
        after = _ACCRUED[decay, lifetime, np.clip(until + 1 - posts.day[rows], 0, lifetime)]
        return np.where(totals < 0, NOT_AVAILABLE, totals * after // _WHOLE - totals * before // _WHOLE)


def json_times(milliseconds: IntArray) -> list[str]:
    times: list[str] = np.datetime_as_string(milliseconds.astype("datetime64[ms]"), unit="ms").tolist()
    return [f"{time}Z" for time in times]


def campaign_ids(instance: IntArray, number: IntArray) -> IntArray:
    """Return the ids of campaigns, which differ between instances; a number is below `CAMPAIGNS`."""
    return FIRST_CAMPAIGN_ID + CAMPAIGN_ID_STEP * (CAMPAIGNS * instance + number)


def campaign_positions(ids: IntArray) -> IntArray:
    """Return the positions of campaigns among those of all instances, by their ids: the inverse of `campaign_ids`."""
    return (ids - FIRST_CAMPAIGN_ID) // CAMPAIGN_ID_STEP


def quotient(numerator: IntArray, denominator: IntArray, *, scale: int) -> IntArray:
    """Return `scale * numerator / denominator`, rounded half up.

    The result is not available if a part is not available or the denominator is 0.
    """
    available = (numerator >= 0) & (denominator > 0)
    divisor = np.where(available, denominator, 1)
    return np.where(available, (2 * scale * numerator + divisor) // (2 * divisor), NOT_AVAILABLE)


# Share of a total that accrued before an age, in units of 1 / _WHOLE, as `[decay, lifetime, age in days]`. Daily
# metrics decay geometrically. Whole numbers make them exact differences that add up to the totals.
_WHOLE = 2**20
_DECAY_RATES = (0.35, 0.5, 0.65, 0.8)


def _accrual_table() -> IntArray:
    table = np.zeros((len(_DECAY_RATES), MAX_LIFETIME_DAYS + 1, MAX_LIFETIME_DAYS + 1), dtype=np.int64)
    for decay, rate in enumerate(_DECAY_RATES):
        for lifetime in range(1, MAX_LIFETIME_DAYS + 1):
            for age in range(lifetime + 1):
                table[decay, lifetime, age] = round(_WHOLE * (1 - rate**age) / (1 - rate**lifetime))
    return table


_ACCRUED = _accrual_table()


def _post_counts(day_key: Keys, mean: int) -> IntArray:
    spread = 1.5 * np.sqrt(mean)
    posts = np.maximum(np.rint(mean + spread * normal(day_key, "posts")), 0)
    return np.where(uniform(day_key, "quiet") < _SHARE_OF_DAYS_WITHOUT_POSTS, 0, posts).astype(np.int64)


def _campaign_numbers(post_key: Keys, repeats: NDArray[np.bool_]) -> IntArray:
    """Draw campaigns of the instance; a row that repeats the previous post is in the next campaign."""
    return (skewed(post_key, "campaign", choices=CAMPAIGNS) + repeats) % CAMPAIGNS


def _creator_ids(instance_key: Keys, post_key: Keys) -> IntArray:
    """Draw creators: each instance has its own few of them, some much more often than others."""
    member = child(instance_key, skewed(post_key, "creator", choices=CREATORS_PER_INSTANCE))
    return 10_000 + floor(uniform(member, "person") * CREATORS)


def _content_types(post_key: Keys) -> IntArray:
    shares = np.cumsum([share for _, _, share in CONTENT_TYPES])
    return np.searchsorted(shares[:-1], uniform(post_key, "content type"), side="right").astype(np.int64)


def _time_of_day_ms(post_key: Keys) -> IntArray:
    """Draw milliseconds since midnight; the first and the last one of a day are the most frequent."""
    moment = uniform(post_key, "time of day") * 1.02 - 0.01
    return np.clip(floor(moment * _MILLISECONDS_PER_DAY), 0, _MILLISECONDS_PER_DAY - 1)


def _lifetimes(post_key: Keys) -> IntArray:
    """Draw the number of days with metrics: the median is two, the mean five."""
    return np.clip(floor(1.35 / (1 - uniform(post_key, "life"))), 1, MAX_LIFETIME_DAYS)


def _totals(post_key: Keys) -> IntArray:
    """Draw the accruing quantities at the end of the lifetime; a post has them in each of its campaigns."""
    channel = uniform(post_key, "channel")
    organic, paid = channel < 0.90, channel >= 0.62

    impressions = np.where(
        uniform(post_key, "silent") < 0.04, 0.0, log_normal(post_key, "impressions", median=3_000, sigma=1.5)
    )
    engagements = impressions * np.minimum(log_normal(post_key, "engagement rate", median=0.04, sigma=0.7), 0.6)
    value = np.floor(engagements) * log_normal(post_key, "value of an engagement", median=180, sigma=0.5)
    cost = log_normal(post_key, "cost", median=30_000, sigma=1.0)

    paid_impressions = np.where(
        uniform(post_key, "paid silent") < 0.03, 0.0, log_normal(post_key, "paid impressions", median=8_000, sigma=1.3)
    )
    paid_engagements = paid_impressions * np.minimum(
        log_normal(post_key, "paid engagement rate", median=0.02, sigma=0.8), 0.6
    )
    paid_cost = paid_impressions * log_normal(post_key, "paid cost of an impression", median=1.5, sigma=0.5)

    return np.stack(
        [
            np.where(organic & (uniform(post_key, "impressions known") < 0.95), floor(impressions), NOT_AVAILABLE),
            np.where(organic, floor(engagements), NOT_AVAILABLE),
            np.where(organic & (uniform(post_key, "value known") < 0.95), floor(value), NOT_AVAILABLE),
            np.where(organic & (uniform(post_key, "cost known") < 0.85), floor(cost), NOT_AVAILABLE),
            np.where(paid, floor(paid_impressions), NOT_AVAILABLE),
            np.where(
                paid & (uniform(post_key, "paid engagements known") < 0.95), floor(paid_engagements), NOT_AVAILABLE
            ),
            np.where(paid & (uniform(post_key, "paid cost known") < 0.95), floor(paid_cost), NOT_AVAILABLE),
        ]
    )


# Random draws: pure functions of the key of a post, day or instance, and of a name. The names are part of the seed:
# another name is another world.


def hash_of(text: str) -> int:
    """Return the hash of a text, which is the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mixed(keys: Keys) -> Keys:
    """Apply the finalizer of SplitMix64: neighbouring keys give unrelated numbers."""
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def child(keys: Keys, number: IntArray) -> Keys:
    """Return the key of an element of each key: of a day of an instance, or of a post of a day."""
    return _mixed(keys + (number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))


def uniform(keys: Keys, name: str) -> NDArray[np.float64]:
    """Draw from 0 inclusive to 1 exclusive."""
    return (_mixed(keys ^ np.uint64(hash_of(name))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def normal(keys: Keys, name: str) -> NDArray[np.float64]:
    """Draw from the standard normal distribution, by the Box-Muller transform."""
    radius = np.sqrt(-2 * np.log1p(-uniform(keys, f"{name}, radius")))
    return np.asarray(radius * np.cos(2 * np.pi * uniform(keys, f"{name}, angle")))


def log_normal(keys: Keys, name: str, *, median: float, sigma: float) -> NDArray[np.float64]:
    """Draw from a log-normal distribution; `sigma` is the standard deviation of the logarithm."""
    return np.asarray(median * np.exp(sigma * normal(keys, name)))


def skewed(keys: Keys, name: str, *, choices: int) -> IntArray:
    """Draw an index below `choices`; lower ones are more likely."""
    return floor(uniform(keys, name) ** 2 * choices)


def floor(values: NDArray[np.float64]) -> IntArray:
    return np.floor(values).astype(np.int64)
