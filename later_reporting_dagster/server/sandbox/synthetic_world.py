"""Generate the posts of the sandbox, as a pure function of a seed.

Each value is a hash of its seed, instance, day and index in the day, not the next number of a random stream: a day has
the same posts for any range of the world, and columns are drawn for all posts at once.

All values are whole numbers, money and rates in hundredths: rounding is exact, and daily metrics add up to the totals.
Only the cost of a post does not accrue: it is the same in any range of days (docs/api.md, "Metrics, null and units").
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

NOT_AVAILABLE = int(np.iinfo(np.int64).min)
"""Null in a column of metrics, which may be negative on a day."""

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


# What is typical of the networks, in the order of `Platform`: medians, money in hundredths; and the probability that a
# post with typical results so far is boosted.
_TYPICAL: Mapping[str, tuple[float, ...]] = {
    "impressions": (3_000, 6_000, 1_500, 4_000, 1_000),
    "engagement_rate": (0.040, 0.055, 0.025, 0.030, 0.020),
    "value_of_engagement": (180, 90, 150, 260, 120),
    "paid_impressions": (8_000, 14_000, 7_000, 6_000, 5_000),
    "paid_engagement_rate": (0.020, 0.035, 0.015, 0.008, 0.010),
    "cost_of_paid_impression": (1.5, 0.8, 1.2, 2.4, 1.0),
    "share_boosted": (0.32, 0.36, 0.28, 0.20, 0.12),
}

# Campaigns of an instance that have posts. The ids of the first two of the first instance are in the example of the API
# reference.
FIRST_CAMPAIGN_ID, CAMPAIGN_ID_STEP, CAMPAIGNS = 49_761, 41, 12
CREATORS, CREATORS_PER_INSTANCE = 5_000, 150
MAX_POSTS_PER_DAY = 500_000  # keeps the post ids of different days apart: a day may have more than the mean
MAX_LIFETIME_DAYS, MAX_BOOST_AGE, MAX_BOOST_DAYS = 180, 30, 14

_POST_IDS_PER_DAY = 1_000_000
_SHARE_OF_DAYS_WITHOUT_POSTS = 0.03
_MILLISECONDS_PER_DAY = 86_400_000
_UNIX_EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Posts:
    """All posts of a world as columns of equal length, ordered by instance, then by post."""

    instance: IntArray  # position in `World.instance_ids`
    campaign_id: IntArray
    post_id: IntArray
    creator_id: IntArray
    content_type: IntArray  # position in `CONTENT_TYPES`
    day: IntArray  # of publication, as a proleptic ordinal
    published_ms: IntArray  # since the Unix epoch
    lifetime_days: IntArray  # days with metrics, from the day of publication
    decay: IntArray  # position in `_DECAYS`
    boost_age: IntArray  # in days, at which paid results begin, if there are any
    boost_days: IntArray
    withdrawal_age: IntArray  # in days, at which some views or reactions of the day before are withdrawn; 0: never
    withdrawn: IntArray  # in units of 1 / WHOLE of the total, of views and of reactions
    totals: IntArray  # at the end of the lifetime, a row for each of `metrics.ACCRUING`
    cost: IntArray  # what the creator was paid for the post, in hundredths
    cost_day: IntArray  # as a proleptic ordinal, from which the cost is known: the incentive is fulfilled

    def __len__(self) -> int:
        return len(self.post_id)


def two_years_before(last_day: date) -> date:
    """Return the first day of the longest range up to `last_day` that a query may have."""
    return years_later(last_day, -MAX_RANGE_YEARS)


@dataclass(frozen=True, kw_only=True)
class World:
    """The data of a sandbox: instances, creators, posts and their metrics."""

    first_day: date
    last_day: (
        date  # the last UTC day with posts and metrics: the API has data up to yesterday (docs/api.md, "Freshness")
    )
    seed: int = 0
    instances: int = 8  # named `instance_000` and so on
    posts_per_day: int = 20  # mean of an instance; about one day in thirty has none
    extra_instance_ids: tuple[str, ...] = ()  # they do not change the data of the others
    # Number of days with metrics of a post: the median is about a day more than the scale; by default, the mean is 20.
    lifetime_scale: float = 5.6
    longest_lifetime: int = MAX_LIFETIME_DAYS
    # Share of the posts that the API returns only some days after their publication, and these days.
    late_posts: tuple[float, int] = (0.0, 0)
    # Networks whose posts come with their first results, at an age in days: these hold what the days before earned
    # (docs/api.md, "Freshness").
    late_results: tuple[tuple[Platform, int], ...] = ()
    # Whether all posts of the last campaign of each instance have a cost that is known at once, and organic results.
    has_campaigns_of_known_cost: bool = False
    # Whether the performance of a campaign has its `instanceId` and `campaignName` (docs/api.md, "Campaigns").
    campaigns_name_instances: bool = False

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
    def not_returned_yet(self) -> NDArray[np.bool_]:
        """Return which posts the API does not return yet on the day after the last one."""
        share, days = self.late_posts
        is_late = uniform(self.post_keys(np.arange(len(self.posts))), "late") < share
        is_late &= self.posts.day + days > self.last_day.toordinal() + 1
        return is_late | (self.posts.day + self.days_to_results > self.last_day.toordinal())

    @cached_property
    def days_to_results(self) -> IntArray:
        """Return the age of each post at its first results."""
        return self._days_to_results_of_types()[self.posts.content_type]

    def _days_to_results_of_types(self) -> IntArray:
        days = dict(self.late_results)
        return np.array([days.get(platform, 0) for _, platform, _ in CONTENT_TYPES], dtype=np.int64)

    @cached_property
    def posts(self) -> Posts:
        """All posts, generated at the first access; one million take about half a second."""
        days = np.arange(self.first_day.toordinal(), self.last_day.toordinal() + 1, dtype=np.int64)
        instance_keys = self.instance_keys
        # One element for each instance and day.
        instance_of_day = np.repeat(np.arange(len(instance_keys)), len(days))
        ordinal = np.tile(days, len(instance_keys))
        day_key = child(instance_keys[instance_of_day], ordinal)
        mean = self.posts_per_day
        drawn = np.rint(mean + 1.5 * np.sqrt(mean) * normal(day_key, "posts"))
        is_quiet = uniform(day_key, "quiet") < _SHARE_OF_DAYS_WITHOUT_POSTS
        posts_on_day = floor(np.where(is_quiet, 0, np.maximum(drawn, 0)))

        # One element for each post.
        position = np.repeat(np.arange(len(day_key)), posts_on_day)
        index = np.arange(len(position)) - (np.cumsum(posts_on_day) - posts_on_day)[position]
        row_key = child(day_key[position], index)
        # A few rows repeat the previous post in another campaign: a post id alone is not a key.
        repeats = (uniform(row_key, "again") < 0.03) & (index > 0)
        post_key = child(day_key[position], index - repeats)
        instance, day = instance_of_day[position], ordinal[position]
        # Each instance has its own few creators, some much more often than others.
        member = child(instance_keys[instance], skewed(post_key, "creator", choices=CREATORS_PER_INSTANCE))
        creator_id = 10_000 + floor(uniform(member, "person") * CREATORS)
        shares = np.cumsum([share for _, _, share in CONTENT_TYPES])
        content_type = np.searchsorted(shares[:-1], uniform(post_key, "content type"), side="right").astype(np.int64)
        # The first and the last millisecond of a day are the most frequent.
        moment = floor((uniform(post_key, "time of day") * 1.02 - 0.01) * _MILLISECONDS_PER_DAY)
        # From a Lomax distribution with exponent 1.
        life = uniform(post_key, "life")
        lifetime = np.minimum(1 + floor(self.lifetime_scale * life / (1 - life)), self.longest_lifetime)
        lifetime = np.maximum(lifetime, 1 + self._days_to_results_of_types()[content_type])
        decay = floor(uniform(post_key, "pace") * len(_DECAYS))
        boost_age, boost_days = _boosts(post_key, lifetime)
        # The share of its total that a post had when it may be boosted, relative to a typical post; 0 on its first day.
        head_start = ACCRUED[decay, lifetime, boost_age] / np.maximum(ACCRUED[1, 28, boost_age], 1)
        # A withdrawal, if there is one, takes back a part of what was counted before.
        has_withdrawal = (uniform(post_key, "withdrawal") < _SHARE_WITH_WITHDRAWAL) & (lifetime > 1)
        withdrawn = floor(WHOLE * (0.05 + 0.15 * uniform(post_key, "withdrawn")))
        kinds = uniform(post_key, "withdrawn kinds")
        campaign = skewed(post_key, "campaign", choices=CAMPAIGNS)
        # The last campaign also has what repeats posts of the one before.
        has_known_cost = np.full(len(campaign), self.has_campaigns_of_known_cost) & (campaign >= CAMPAIGNS - 2)
        creator_key = child(instance_keys[instance], creator_id)
        # The incentive is often fulfilled at once, and after at most 60 days.
        days_to_cost = np.maximum(floor(150 * uniform(post_key, "fulfilled")) - 90, 0)
        return Posts(
            instance=instance,
            # A row that repeats the previous post is in the next campaign.
            campaign_id=campaign_ids(instance, (campaign + repeats) % CAMPAIGNS),
            post_id=day * _POST_IDS_PER_DAY + index - repeats,
            creator_id=creator_id,
            content_type=content_type,
            day=day,
            published_ms=(day - _UNIX_EPOCH) * _MILLISECONDS_PER_DAY + np.clip(moment, 0, _MILLISECONDS_PER_DAY - 1),
            lifetime_days=lifetime,
            decay=decay,
            boost_age=boost_age,
            boost_days=boost_days,
            withdrawal_age=np.where(has_withdrawal, 1 + floor((lifetime - 1) * uniform(post_key, "withdrawal age")), 0),
            withdrawn=np.stack([np.where(kinds < 0.4, withdrawn, 0), np.where(kinds >= 0.2, withdrawn, 0)]),
            totals=_totals(post_key, content_type, head_start=head_start, is_seen=has_known_cost),
            cost=_costs(creator_key, content_type, is_paid=has_known_cost),
            cost_day=day + np.where(has_known_cost, 0, days_to_cost),
        )


def json_times(milliseconds: IntArray) -> list[str]:
    times: list[str] = np.datetime_as_string(milliseconds.astype("datetime64[ms]"), unit="ms").tolist()
    return [f"{time}Z" for time in times]


def campaign_ids(instance: IntArray, number: IntArray) -> IntArray:
    """Return the ids of campaigns, which differ between instances; a number is below `CAMPAIGNS`."""
    return FIRST_CAMPAIGN_ID + CAMPAIGN_ID_STEP * (CAMPAIGNS * instance + number)


def campaign_numbers(ids: IntArray) -> IntArray:
    """Return the numbers of campaigns in their instances: the inverse of `campaign_ids`."""
    return (ids - FIRST_CAMPAIGN_ID) // CAMPAIGN_ID_STEP % CAMPAIGNS


def keys_of_campaigns(instance_keys: Keys, numbers: IntArray) -> Keys:
    """Return the keys of campaigns for random draws, which differ from those of the days of an instance."""
    return child(instance_keys, -1 - numbers)


# Share of a total that accrued before an age, in units of 1 / WHOLE, as `[decay, lifetime, age in days]`. Daily
# metrics decay by a power of the age. Whole numbers make them exact differences that add up to the totals.
WHOLE = 2**20
_DECAYS = (0.7, 1.0, 1.3, 1.7)


_SUMS = np.cumsum([[0.0, *np.arange(1, MAX_LIFETIME_DAYS + 1) ** -exponent] for exponent in _DECAYS], axis=1)
_SHARES = np.minimum(_SUMS[:, None, :] / np.maximum(_SUMS[:, :, None], 1.0), 1.0)
ACCRUED = np.rint(WHOLE * _SHARES).astype(np.int64)
_SHARE_WITH_WITHDRAWAL = 0.06


def _boosts(post_key: Keys, lifetime: IntArray) -> tuple[IntArray, IntArray]:
    """Draw the age at which a post is boosted, if it is boosted, and for how many days: while it earns anyway."""
    age = floor(np.minimum(lifetime, MAX_BOOST_AGE + 1) * uniform(post_key, "boost age") ** 1.2)
    age = np.where(_is_only_paid(post_key), 0, age)
    return age, np.minimum(1 + floor(MAX_BOOST_DAYS * uniform(post_key, "boost days")), lifetime - age)


def _is_only_paid(post_key: Keys) -> NDArray[np.bool_]:
    """Draw the posts that are ads from their first day on and have no organic results."""
    return uniform(post_key, "channel") >= 0.92


def _costs(creator_key: Keys, content_type: IntArray, *, is_paid: NDArray[np.bool_]) -> IntArray:
    """Draw the costs of posts: the fee of their creator for the content type. Some creators get none."""
    fee = log_normal(creator_key, "fee", median=30_000, sigma=1.0)
    is_paid = is_paid | (uniform(creator_key, "is paid") < 0.92)
    factor = 0.5 + uniform(child(creator_key, content_type), "fee of content type")
    return np.where(is_paid, floor(fee * factor), NOT_AVAILABLE)


def _totals(
    post_key: Keys, content_type: IntArray, *, head_start: NDArray[np.float64], is_seen: NDArray[np.bool_]
) -> IntArray:
    """Draw the accruing quantities at the end of the lifetime; a post has them in each of its campaigns.

    Posts that are `is_seen` have organic results in any case.
    """

    def typical(name: str) -> NDArray[np.float64]:
        values = dict(zip(Platform, _TYPICAL[name], strict=True))
        return np.array([values[platform] for _, platform, _ in CONTENT_TYPES], dtype=np.float64)[content_type]

    def drawn(name: str, *, sigma: float) -> NDArray[np.float64]:
        return typical(name) * log_normal(post_key, name, median=1.0, sigma=sigma)

    def known(draw: str, is_known: NDArray[np.bool_], values: NDArray[np.float64]) -> IntArray:
        return np.where(is_known & (uniform(post_key, draw) < 0.95), floor(values), NOT_AVAILABLE)

    is_organic = ~_is_only_paid(post_key) | is_seen
    impressions = np.where(uniform(post_key, "silent") < 0.04, 0.0, drawn("impressions", sigma=1.5))
    engagements = impressions * np.minimum(drawn("engagement_rate", sigma=0.7), 0.6)
    value = np.floor(engagements) * drawn("value_of_engagement", sigma=0.5)

    # Posts that did better so far than a typical post of their network are boosted up to twice as often, and others
    # more seldom. Nothing is known of a new post.
    so_far = head_start * engagements / (typical("impressions") * typical("engagement_rate"))
    attraction = np.where(head_start > 0, 2 * so_far / (1 + so_far), 1.0)
    is_boosted = uniform(post_key, "boost") < typical("share_boosted") * attraction
    is_paid = is_boosted | ~is_organic
    paid_impressions = np.where(uniform(post_key, "paid silent") < 0.03, 0.0, drawn("paid_impressions", sigma=1.3))
    paid_engagements = paid_impressions * np.minimum(drawn("paid_engagement_rate", sigma=0.8), 0.6)
    paid_cost = paid_impressions * drawn("cost_of_paid_impression", sigma=0.5)

    return np.stack(
        [
            np.where(is_seen, np.maximum(floor(impressions), 100), known("impressions known", is_organic, impressions)),
            np.where(is_organic, floor(engagements), NOT_AVAILABLE),
            known("value known", is_organic, value),
            np.where(is_paid, floor(paid_impressions), NOT_AVAILABLE),
            known("paid engagements known", is_paid, paid_engagements),
            known("paid cost known", is_paid, paid_cost),
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
