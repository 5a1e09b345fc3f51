"""A slow, independent reference of the rollup tables, in exact fractions, from their documentation, not their SQL.

It imports nothing of the package.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any

Row = dict[str, Any]
Files = Mapping[tuple[date, str], Sequence[Row]]  # (day, instance) -> its rows
Period = tuple[date, date]
Bounds = tuple[Fraction, Fraction]

CHANNELS = ("organic", "paid")
# By column of a metric that adds up over days: the name of its sum, and the largest value that a row may have.
COUNTS = {
    "engagements": "organic_engagements", "impressions": "organic_impressions",
    "paid_engagements": "paid_engagements", "paid_impressions": "paid_impressions",
    **{
        name: f"organic_{name}"
        for name in (
            "likes", "comments", "shares", "saves", "views", "total_interactions", "replies", "reposts",
            "navigation_tap_exit", "navigation_tap_back", "navigation_tap_forward", "navigation_swipe_forward",
            "crossposted_views", "crossposted_facebook_only_views",
        )
    },
    **{name: name for name in ("paid_likes", "paid_comments", "paid_shares", "paid_saves", "paid_views")},
}  # fmt: skip
SUMS = {**COUNTS, "estimated_value_generated": "organic_estimated_value"} | {
    "video_view_total_time": "organic_video_view_total_time"
}
LIMITS = dict.fromkeys(COUNTS, 10**11) | {"estimated_value_generated": 10**9, "video_view_total_time": 10**15}
DEFAULT_SUMS = ("engagements", "impressions", "estimated_value_generated", "paid_engagements", "paid_impressions")
KIND = ("platform", "content_type")
OVER_TIME: Mapping[str, tuple[tuple[str, ...], Callable[[date], date]]] = {
    "organic_paid_daily": (("instance_id", *KIND), lambda day: day),
    "organic_paid_daily_by_campaign": (("instance_id", "campaign_id", *KIND), lambda day: day),
    "organic_paid_weekly": (("instance_id", *KIND), lambda day: day - timedelta(days=day.weekday())),
    "organic_paid_monthly": (("instance_id", *KIND), lambda day: day.replace(day=1)),
}
OVER_WINDOWS: Mapping[str, tuple[str, ...]] = {
    "organic_paid_by_campaign": ("campaign_id",),
    "organic_paid_by_platform": ("platform",),
    "organic_paid_by_content_type": KIND,
    "organic_paid_by_creator": ("creator_id",),
    "organic_paid_overall": (),
}
PREVIOUS = (
    "posts", "organic_impressions", "organic_engagements", "paid_impressions", "paid_engagements",
    "organic_engagement_rate", "paid_engagement_rate", "ad_spend",
)  # fmt: skip
LENGTHS = {"7d": 7, "28d": 28, "90d": 90, "365d": 365, "730d": 730}
WINDOWS = (*LENGTHS, "this_month", "last_month")
LABELS = ("creator_handle_name", "creator_full_name", "creator_profile_link")
ATTRIBUTES = (
    "creator_id", "creator_handle_name", "creator_full_name", "platform", "content_type", "content_url", "post_date",
)  # fmt: skip
SELF_REPORTED = {"facebook", "twitter", "youtube", "linkedin", "twitch", "blog"}
MAX_COST = 10**9
HALF_A_CENT = Fraction(5, 1000)
UNIT_COSTS = (("cpe", "engagements", 1), ("cpm", "impressions", 1000))
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class World:
    """The contents of a lake.

    Attributes:
        recorded: the files of post_metrics_daily.
        published: the files of posts_published.
        metrics: the columns of the requested metrics of posts.
        campaigns: the rows of campaigns.
        performance: the files of campaign_performance_daily, by day.
        periods: the rows of campaign_performance_periods.
        maximum_peers: the size of a group from which only a sample of the posts are peers.
    """

    recorded: Files
    published: Files
    metrics: Sequence[str] = DEFAULT_SUMS
    campaigns: Sequence[Row] = ()
    performance: Mapping[date, Sequence[Row]] = field(default_factory=dict)
    periods: Sequence[Row] = ()
    maximum_peers: int = 1000

    @property
    def sums(self) -> Sequence[str]:
        """The columns of the metrics that are summed."""
        return [name for name in SUMS if name in self.metrics]

    @cached_property
    def campaign_days(self) -> list[Row]:
        """A post of a campaign on a day."""
        return dated(self.recorded)

    @cached_property
    def days(self) -> list[Row]:
        """A post on a day, once: the row with the lowest campaign id, with the rows of all its campaigns."""
        of_day = grouped(self.campaign_days, lambda row: key_of(row, ("date", "instance_id", "post_id")))
        return [min(rows, key=lambda row: row["campaign_id"]) | {"copies": rows} for _, rows in of_day]

    @cached_property
    def last_day(self) -> date:
        return max(day for day, _ in self.recorded)

    @cached_property
    def posts(self) -> list["Known"]:
        return known_posts(self)


@dataclass
class Post:
    """A post of a group: the attributes of its newest row, and its rows."""

    attributes: Row
    rows: list[Row] = field(default_factory=list)

    def sum(self, column: str) -> Any:
        return total(row[column] for row in self.rows)

    def pair(self, channel: str, measure: str) -> tuple[int, int] | None:
        """Return engagements and impressions (or views), over the rows that report both, of the latter not 0."""
        engagements, units = raw(channel, "engagements"), raw(channel, measure)
        both = [row for row in self.rows if row[engagements] is not None and row[units]]
        return (sum(row[engagements] for row in both), sum(row[units] for row in both)) if both else None

    @property
    def ad_spend(self) -> Bounds | None:
        return plus_bounds(spend_of(row) for row in self.rows)

    @property
    def spend_and_engagements(self) -> tuple[Bounds, int] | None:
        """Return ad spend and paid engagements, over the rows that have both."""
        both = [
            (spend, row["paid_engagements"])
            for row in self.rows
            if (spend := spend_of(row)) and row["paid_engagements"] is not None
        ]
        spend = plus_bounds(spend for spend, _ in both)
        return None if spend is None else (spend, sum(engagements for _, engagements in both))

    @property
    def spend_and_impressions(self) -> tuple[Bounds, int] | None:
        """Return ad spend and paid impressions, over the rows that have both."""
        both = [row for row in self.rows if spend_of(row) and row["paid_impressions"] is not None]
        spend = plus_bounds(map(spend_of, both))
        return None if spend is None else (spend, sum(row["paid_impressions"] for row in both))

    @property
    def creator(self) -> Any:
        """The creator; an id is unique only within an instance."""
        creator_id = self.attributes["creator_id"]
        return None if creator_id is None else (self.attributes["instance_id"], creator_id)


def raw(channel: str, measure: str) -> str:
    return measure if channel == "organic" else f"paid_{measure}"


@lru_cache(100_000, typed=True)
def exact(value: Any) -> Any:
    """Return the exact value of a decimal literal: 0.1 is a tenth."""
    return Fraction(repr(value)) if isinstance(value, float) else value


def total(values: Iterable[Any]) -> Any:
    available = [exact(value) for value in values if value is not None]
    return sum(available) if available else None


def quotient(dividend: Any, divisor: Any) -> Fraction | None:
    """Return a quotient; None unless the divisor is above 0."""
    if dividend is None or divisor is None or divisor <= 0:
        return None
    return Fraction(dividend) / Fraction(divisor)


def percent(part: Any, whole: Any) -> Fraction | None:
    found = quotient(part, whole)
    return None if found is None else 100 * found


def key_of(row: Row, names: Sequence[str]) -> tuple[Any, ...]:
    """Return a sort key of a row, with nulls last."""
    return tuple((row[name] is None, "" if row[name] is None else row[name]) for name in names)


def grouped(things: Iterable[Any], key: Callable[[Any], Any]) -> list[tuple[Any, list[Any]]]:
    return [(found, list(of_key)) for found, of_key in groupby(sorted(things, key=key), key)]


def dated(files: Files) -> list[Row]:
    return [{"date": day, **row} for (day, _), rows in files.items() for row in rows if within_limits(row)]


def within_limits(row: Row) -> bool:
    """Return whether no value that is summed is absurdly large; rollups leave other rows out."""
    return all(abs(row.get(name) or 0) <= limit for name, limit in LIMITS.items())


def posts_of(rows: Iterable[Row], key: Sequence[str]) -> list[Post]:
    return [
        Post(max(of_post, key=lambda row: row["date"]), of_post)
        for _, of_post in grouped(rows, lambda row: key_of(row, key))
    ]


# Costs.


def bounds_of(rows: Iterable[Row], channel: str) -> Bounds | None:
    """Return the bounds of a cost that all rows state, from unit costs known to half a cent; None if they disagree."""
    bounds = stated_bounds(rows, channel)
    if not bounds:
        return None
    least, most = max(low for low, _ in bounds), min(high for _, high in bounds)
    return (least, most) if least <= most <= MAX_COST else None


def stated_bounds(rows: Iterable[Row], channel: str) -> list[Bounds]:
    """Return the bounds of a cost by each unit cost of each row."""
    bounds = []
    for row in rows:
        for cost, measure, per in UNIT_COSTS:
            unit_cost, units = row[raw(channel, cost)], row[raw(channel, measure)]
            if unit_cost is not None and units is not None and units > 0:
                low = exact(unit_cost) - HALF_A_CENT
                bounds.append((max(low, Fraction(0)) * units / per, (low + 2 * HALF_A_CENT) * units / per))
    return bounds


def spend_of(row: Row) -> Bounds | None:
    """Return the bounds of the ad spend of a day, which all rows of the post state; None if they disagree."""
    return bounds_of(row.get("copies", [row]), "paid")


def is_disputed(row: Row) -> bool:
    """Return whether the rows of a day state an ad spend, and disagree on it."""
    return bool(stated_bounds(row["copies"], "paid")) and spend_of(row) is None


def plus_bounds(bounds: Iterable[Bounds | None]) -> Bounds | None:
    known = [each for each in bounds if each is not None]
    return (sum((low for low, _ in known), Fraction()), sum((high for _, high in known), Fraction())) if known else None


def cost_columns(name: str, bounds: Bounds | None) -> Row:
    low, high = bounds or (None, None)
    return {name: None if bounds is None else sum(bounds) / 2, f"{name}_low": low, f"{name}_high": high}


# Organic beside paid.


def comparison_of(posts: Sequence[Post], world: World) -> Row:
    group: Row = {"posts": len(posts)}
    for column in world.sums:
        values = [post.sum(column) for post in posts]
        group[SUMS[column]] = total(values)
        group[f"{SUMS[column]}_posts"] = sum(value is not None for value in values)
    for measure, suffix in (("impressions", ""), ("views", "_by_views")):
        for channel in CHANNELS:
            if raw(channel, measure) in world.metrics:
                pairs = [pair for post in posts if (pair := post.pair(channel, measure))]
                engagements, units = total(e for e, _ in pairs), total(units for _, units in pairs)
                group[f"{channel}_rate{suffix}_engagements"] = engagements
                group[f"{channel}_rate{suffix}_{measure}"] = units
                group[f"{channel}_rate{suffix}_posts"] = len(pairs)
                group[f"{channel}_engagement_rate{suffix}"] = percent(engagements, units)
        rates = [group.get(f"{channel}_engagement_rate{suffix}", 0) for channel in ("paid", "organic")]
        if {raw(channel, measure) for channel in CHANNELS} <= {*world.metrics}:
            group[f"rate_ratio{suffix}"] = quotient(*rates)
    organic, paid = group["organic_impressions"], group["paid_impressions"]
    group["paid_share_of_impressions"] = None if None in (organic, paid) else percent(paid, organic + paid)
    same = [(post, *terms) for post in posts if (terms := same_post_terms(post))]
    known = {post.creator for post, *_ in same if post.creator is not None}
    creators = len(known) + sum(post.creator is None for post, *_ in same)
    ratio = quotient(sum(paid for _, paid, _ in same), sum(organic for *_, organic in same))
    group["same_posts"] = len(same)
    is_enough = len(same) >= 20 and creators >= 5
    group["same_posts_paid_higher"] = sum(paid > organic for _, paid, organic in same) if is_enough else None
    group["same_post_rate_ratio"] = ratio if is_enough else None
    spends = [post.ad_spend for post in posts]
    group |= cost_columns("ad_spend", plus_bounds(spends))
    group["ad_spend_posts"] = sum(spend is not None for spend in spends)
    both = [found for post in posts if (found := post.spend_and_engagements)]
    spend = plus_bounds(spend for spend, _ in both)
    group["ad_spend_with_paid_engagements"] = spend and sum(spend) / 2
    group["paid_engagements_with_ad_spend"] = total(engagements for _, engagements in both)
    parts = (group["ad_spend_with_paid_engagements"], group["paid_engagements_with_ad_spend"])
    group["ad_spend_per_engagement"] = quotient(*parts)
    seen = [found for post in posts if (found := post.spend_and_impressions)]
    spend = plus_bounds(spend for spend, _ in seen)
    group["ad_spend_with_paid_impressions"] = spend and sum(spend) / 2
    group["paid_impressions_with_ad_spend"] = total(impressions for _, impressions in seen)
    cost = quotient(group["ad_spend_with_paid_impressions"], group["paid_impressions_with_ad_spend"])
    group["paid_cpm"] = None if cost is None else 1000 * cost
    group["paid_posts"] = sum((post.sum("paid_impressions") or 0) > 0 for post in posts)
    return group


def same_post_terms(post: Post) -> tuple[Fraction, Fraction] | None:
    """Return the terms of a post in the Mantel-Haenszel rate ratio: paid, organic; None if a channel has no rate."""
    organic, paid = (post.pair(channel, "impressions") for channel in CHANNELS)
    if organic is None or paid is None or min(organic[1], paid[1]) <= 0:
        return None
    impressions = organic[1] + paid[1]
    return Fraction(paid[0] * organic[1], impressions), Fraction(organic[0] * paid[1], impressions)


def over_time(world: World, table: str) -> list[Row]:
    grain, first_of = OVER_TIME[table]
    key = ("instance_id", "campaign_id", "post_id") if "campaign_id" in grain else ("instance_id", "post_id")
    rows = world.campaign_days if "campaign_id" in grain else world.days
    found = []
    for first_day, of_period in grouped(rows, lambda row: first_of(row["date"])):
        days = [day for n in range(31) if first_of(day := first_day + n * ONE_DAY) == first_day]
        for _, posts in grouped(posts_of(of_period, key), lambda post: key_of(post.attributes, grain)):
            row = {"first_day": first_day, **{name: posts[0].attributes[name] for name in grain}}
            if len(days) > 1:
                row["days"] = days_of(world.recorded, row["instance_id"], (days[0], days[-1]))
                row["days_expected"] = len(days)
            row |= comparison_of(posts, world)
            if "campaign_id" in grain:
                del row["organic_estimated_value"], row["organic_estimated_value_posts"]
            found.append(row)
    return found


def days_of(files: Files, instance_id: str, period: Period) -> int:
    """Return the days of a period that have a file of an instance; of `''`, of all instances."""
    instances = {instance for _, instance in files} if instance_id == "" else {instance_id}
    days = [period[0] + n * ONE_DAY for n in range((period[1] - period[0]).days + 1)]
    return sum(all((day, instance) in files for instance in instances) for day in days)


def over_windows(world: World, table: str) -> Iterator[Row]:
    if not world.recorded:
        return
    grain, last = OVER_WINDOWS[table], world.last_day
    labels = labels_of_creators(world)
    for window, (period, before) in windows_of(last).items():
        groups_before = dict(groups_of(world, grain, before))
        for key, posts in groups_of(world, grain, period):
            scope, instance_id = key[:2]
            days, previous_days = (days_of(world.recorded, instance_id, each) for each in (period, before))
            row = {
                "time_window": window, "scope": scope, "instance_id": instance_id,
                "first_day": period[0], "last_day": period[1], "days": days, "days_expected": length_of(period),
                "previous_first_day": before[0], "previous_last_day": before[1], "previous_days": previous_days,
                **{name: posts[0].attributes[name] for name in grain},
            }  # fmt: skip
            row |= comparison_of(posts, world)
            compared = comparison_of(groups_before[key], world) if key in groups_before else {}
            is_complete = days == length_of(period) and previous_days == length_of(before)
            compared.setdefault("posts", 0)
            row |= {f"previous_{name}": compared.get(name) if is_complete else None for name in PREVIOUS}
            if "campaign_id" in grain:
                row["campaign_name"] = campaign_named(world, instance_id, row["campaign_id"])["campaign_name"]
            if "creator_id" in grain:
                del row["same_post_rate_ratio"], row["same_posts_paid_higher"]
                row |= labels.get((instance_id, row["creator_id"]), dict.fromkeys(LABELS))
            yield row


def windows_of(last: date) -> dict[str, tuple[Period, Period]]:
    """Return each window whose newest day is `last`, and the period before it: of a month, the month before.

    The period before this month has its first days: as many as this month has so far, or all.
    """
    found = {}
    for name, length in LENGTHS.items():
        first = last - (length - 1) * ONE_DAY
        found[name] = (first, last), (first - length * ONE_DAY, first - ONE_DAY)
    this = last.replace(day=1)
    before = (this - ONE_DAY).replace(day=1)
    before_that = (before - ONE_DAY).replace(day=1)
    same_days = (before, min(before + (last - this), this - ONE_DAY))
    found["this_month"] = (this, last), same_days
    found["last_month"] = (before, this - ONE_DAY), (before_that, before - ONE_DAY)
    return found


def length_of(period: Period) -> int:
    return (period[1] - period[0]).days + 1


def groups_of(world: World, grain: Sequence[str], period: Period) -> list[tuple[tuple[Any, ...], list[Post]]]:
    """Return the posts of each group in a period, in the order of scope, instance and grain."""
    by_campaign = "campaign_id" in grain
    rows = world.campaign_days if by_campaign else world.days
    within = [row for row in rows if period[0] <= row["date"] <= period[1]]
    posts = posts_of(within, ("instance_id", "campaign_id", "post_id") if by_campaign else ("instance_id", "post_id"))
    groups = grouped(posts, lambda post: ("instance", post.attributes["instance_id"], *key_of(post.attributes, grain)))
    if not {"campaign_id", "creator_id"} & {*grain}:
        groups += grouped(posts, lambda post: ("all", "", *key_of(post.attributes, grain)))
    return sorted(groups, key=lambda group: group[0])


def campaign_named(world: World, instance_id: str | None, campaign_id: int) -> Row:
    """Return the row of a campaign in `campaigns`, if it is known."""
    for each in world.campaigns:
        if (each["instance_id"], each["campaign_id"]) == (instance_id, campaign_id):
            return each
    return {"campaign_name": None, "status": None}


# Posts.


@dataclass
class Known:
    """A post of either raw table: its newest row, its copies in campaigns, and its days."""

    row: Row
    copies: list[Row]
    is_published: bool
    days: list[Row]
    seen: int = 0
    is_peer: bool = False
    is_in_age_sample: bool = False
    by_age: dict[int, Row] = field(default_factory=dict)

    @property
    def published_on(self) -> date:
        day: date = self.row["post_date"].date()
        return day

    def by(self, age: int) -> Row:
        """Return what it earned from the publication to an age."""
        if age not in self.by_age:
            post = Post(self.row, [row for row in self.days if (row["date"] - self.published_on).days <= age])
            pair = post.pair("organic", "impressions")
            self.by_age[age] = {
                "organic_impressions": post.sum("impressions"),
                "organic_engagements": post.sum("engagements"),
                "organic_engagement_rate": pair and percent(*pair),
            }
        return self.by_age[age]


def known_posts(world: World) -> list[Known]:
    key = ("instance_id", "post_id")
    days = dict(grouped(world.days, lambda row: key_of(row, key)))
    published = dict(grouped(dated(world.published), lambda row: key_of(row, key)))
    recorded = dict(grouped(world.campaign_days, lambda row: key_of(row, key)))
    found = []
    for post in sorted(published.keys() | recorded.keys()):
        rows = published.get(post) or recorded[post]
        newest_day = max(row["date"] for row in rows)
        copies = [row for row in rows if row["date"] == newest_day] if post in published else rows
        newest = min((row for row in rows if row["date"] == newest_day), key=lambda row: row["campaign_id"])
        found.append(Known(newest, copies, post in published, days.get(post, [])))
    if world.recorded:
        set_peers(world, found)
    return found


def set_peers(world: World, posts: Sequence[Known]) -> None:
    year = [post for post in posts if post.is_published and 0 <= age_of(world, post) < 365]
    for post in year:
        while (post.published_on + post.seen * ONE_DAY, post.row["instance_id"]) in world.recorded:
            post.seen += 1
    for _, of_kind in grouped(year, lambda post: key_of(post.row, KIND)):
        complete = [post for post in of_kind if post.seen > 28]
        for post in of_kind:
            place = Fraction(post.row["post_id"] * 2_654_435_761 % 2**32, 2**32)
            post.is_peer = place * len(of_kind) < world.maximum_peers
            post.is_in_age_sample = post.seen > 28 and place * len(complete) < world.maximum_peers


def age_of(world: World, post: Known) -> int:
    return (world.last_day - post.published_on).days


def labels_of_creators(world: World) -> Mapping[tuple[Any, ...], Row]:
    """Return the labels of each creator: those of the newest post, one of posts_published if there is any."""
    newest_last = sorted(world.posts, key=lambda post: (post.is_published, post.row["post_date"], post.row["post_id"]))
    return {
        (post.row["instance_id"], post.row["creator_id"]): {name: post.row[name] for name in LABELS}
        for post in newest_last
        if post.row["creator_id"] is not None
    }


def posts(world: World) -> Iterator[Row]:
    for post in world.posts:
        last = max(day for day, _ in world.recorded or world.published)
        row: Row = {"instance_id": post.row["instance_id"], "post_id": post.row["post_id"], "last_day": last}
        row |= {name: post.row[name] for name in ATTRIBUTES} | {"is_published": post.is_published}
        row["is_withdrawn"] = not post.is_published and (post.published_on, post.row["instance_id"]) in world.published
        row |= named_day(post, world)
        row["campaign_ids"] = sorted({copy["campaign_id"] for copy in post.copies})
        row["age"] = (last - post.published_on).days
        row["days_expected"] = row["age"] + 1
        row["days"] = sum(
            instance == row["instance_id"] and day >= post.published_on for day, instance in world.recorded
        )
        row |= {SUMS[name]: exact(post.row[name]) if post.is_published else None for name in world.sums}
        for measure, suffix in (("impressions", ""), ("views", "_by_views")):
            for channel in CHANNELS:
                if raw(channel, measure) in world.metrics:
                    parts = (row[f"{channel}_{name}"] for name in ("engagements", measure))
                    row[f"{channel}_engagement_rate{suffix}"] = percent(*parts)
        for name in ("share", "save"):
            if f"{name}s" in world.metrics:
                row[f"{name}_rate"] = percent(row[f"organic_{name}s"], row["organic_impressions"])
        row |= cost_columns("content_cost", bounds_of(post.copies, "organic") if post.is_published else None)
        is_complete = row["days"] == row["days_expected"]
        is_known = is_complete and not any(map(is_disputed, post.days))
        row |= cost_columns("ad_spend", Post(post.row, post.days).ad_spend if is_known else None)
        cost_to_compare = row["content_cost"] if row["age"] >= 14 else None
        row["content_cost_per_engagement"] = quotient(cost_to_compare, row["organic_engagements"])
        row["ad_spend_per_engagement"] = quotient(row["ad_spend"], row["paid_engagements"])
        if "views" in world.metrics:
            row["content_cost_per_view"] = quotient(cost_to_compare, row["organic_views"])
        paid = [day["date"] for day in post.days if max(day["paid_impressions"] or 0, day["paid_engagements"] or 0) > 0]
        row["first_paid_day"], row["last_paid_day"] = min(paid, default=None), max(paid, default=None)
        row["first_paid_age"] = (min(paid) - post.published_on).days if paid else None
        peak = max(((day["paid_impressions"] or 0, -day["date"].toordinal()) for day in post.days), default=(0, 0))
        row["peak_paid_impressions"], row["peak_paid_day"] = None, None
        if peak[0] > 0:
            row["peak_paid_impressions"], row["peak_paid_day"] = peak[0], date.fromordinal(-peak[1])
        yield row | percentiles_of(post, world)


def requested_at(day: date, instance_id: str) -> datetime:
    """Return when the file of a day was requested."""
    return datetime(day.year, day.month, day.day, 6, len(instance_id), tzinfo=UTC) + ONE_DAY


def named_day(post: Known, world: World) -> Row:
    """Return the day of publication by the newest results, and when the first ones that name it were requested.

    The latter only of a post that `posts_published` lacks, although it has a file of that day.
    """
    instance_id, post_id = post.row["instance_id"], post.row["post_id"]
    named = {row["date"]: row["post_date"].date() for row in post.days if row["post_date"] is not None}
    on = named[max(named)] if named else None
    found: Row = {"results_on": on, "results_requested_at": None}
    file = world.published.get((on, instance_id)) if on else None
    if file is not None and post_id not in {row["post_id"] for row in file}:
        found["results_requested_at"] = requested_at(min(day for day in named if named[day] == on), instance_id)
    return found


def percentiles_of(post: Known, world: World) -> Row:
    found: Row = {"peers": 0}
    age = age_of(world, post) if world.recorded else -1
    peers = [
        other
        for other in world.posts
        if other.is_peer and other is not post and other.seen > age
        and key_of(other.row, KIND) == key_of(post.row, KIND)
    ]  # fmt: skip
    for name in ("organic_impressions", "organic_engagement_rate"):
        mine = post.by(age)[name] if 0 <= age < min(post.seen, 90) else None
        theirs = [value for peer in peers if (value := peer.by(age)[name]) is not None] if mine is not None else []
        less, equal = sum(value < mine for value in theirs), sum(value == mine for value in theirs)
        found[f"{name}_percentile"] = Fraction(100 * less + 50 * equal, len(theirs)) if len(theirs) >= 20 else None
        if name == "organic_impressions":
            found["peers"] = len(theirs)
    return found


def by_age(world: World) -> Iterator[Row]:
    seen = [
        post
        for post in world.posts
        if post.is_in_age_sample and post.row["platform"] is not None
        and post.row["platform"] not in SELF_REPORTED
        and any(post.by(2)[name] is not None for name in ("organic_impressions", "organic_engagements"))
    ]  # fmt: skip
    for _, of_group in grouped(seen, lambda post: key_of(post.row, KIND)):
        for age in range(29):
            row = {**{name: of_group[0].row[name] for name in KIND}, "age": age, "posts": len(of_group)}
            for name in ("organic_impressions", "organic_engagements"):
                pairs = [(post.by(age)[name], post.by(28)[name]) for post in of_group]
                pairs = [(part, whole) for part, whole in pairs if part is not None and whole]
                shares = sorted(Fraction(100 * part, whole) for part, whole in pairs)
                row[f"{name}_share_pooled"] = percent(total(part for part, _ in pairs), total(w for _, w in pairs))
                for quarter in (1, 2, 3):
                    row[f"{name}_share_p{25 * quarter}"] = quantile(shares, Fraction(quarter, 4))
            yield row


def quantile(values: Sequence[Fraction], share: Fraction) -> Fraction | None:
    """Return a quantile, linear between two values."""
    if not values:
        return None
    place = share * (len(values) - 1)
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


# Campaigns.

# Columns of campaign_results, and of campaign_performance_periods.
RESULTS = {
    "posts": "posts_count", "creators": "influencers_count", "reach": "reach", "ad_spend": "paid_ad_spend",
    "return_on_ad_spend": "paid_return_on_ad_spend", "paid_clicks": "paid_clicks",
    "estimated_value": "estimated_value_generated", "api_content_cost": "estimated_content_cost", "api_cpe": "cpe",
    "api_cpm": "cpm", "api_roi": "estimated_roi", "api_affiliate_links_roi": "affiliate_links_roi",
    **{
        name: name
        for name in (
            "tracking_links_clicks", "tracking_links_conversions", "tracking_links_conversion_value",
            "affiliate_links_clicks", "affiliate_links_conversions", "affiliate_links_sales",
            "affiliate_links_commission_earned",
        )
    },
}  # fmt: skip


# The same, of those of campaigns_monthly that are recorded in the month.
RECORDED = (
    "reach", "ad_spend", "return_on_ad_spend", "paid_clicks", "tracking_links_clicks", "tracking_links_conversions",
    "tracking_links_conversion_value", "affiliate_links_clicks", "affiliate_links_conversions", "affiliate_links_sales",
    "affiliate_links_commission_earned",
)  # fmt: skip


def described(world: World, campaign_id: int) -> Row:
    """Return instance, name and status of a campaign id, and when it began.

    The instance is the only one that has the id: by what the API says with a period, else in campaigns, else of the
    posts that were ever recorded in the campaign.
    """
    of_id = [row for row in world.campaigns if row["campaign_id"] == campaign_id]
    own = [json.loads(row["extra"] or "{}") for row in world.periods if row["campaign_id"] == campaign_id]
    sources = (
        {extra["instanceId"] for extra in own if extra.get("instanceId")},
        {row["instance_id"] for row in of_id},
        {
            row["instance_id"]
            for files in (world.recorded, world.published)
            for rows in files.values()
            for row in rows
            if row["campaign_id"] == campaign_id
        },
    )
    instance = next((name for names in sources if len(names) == 1 for name in names), None)
    listed = next((row for row in of_id if row["instance_id"] == instance), {})
    began = [moment.date() for name in ("start_date", "first_post_date") if (moment := listed.get(name))]
    return {
        "instance_id": instance, "campaign_name": listed.get("campaign_name"),
        "campaign_status": listed.get("status"), "started_on": min(began, default=None),
    }  # fmt: skip


def campaigns_of(post: Known) -> set[int]:
    return {copy["campaign_id"] for copy in post.copies}


def campaign_results(world: World) -> Iterator[Row]:
    newest = max((row["last_day"] for row in world.periods if row["date_basis"] == "performance_date"), default=None)
    if newest is None:
        return
    months = {windows_of(newest)[window][0][0]: window for window in ("this_month", "last_month")}
    for window in WINDOWS:
        rows = [
            row
            for row in world.periods
            if row["period"] == window
            or (row["period"] == "recorded_month" and months.get(row["first_day"]) == window)
        ]  # fmt: skip
        for period in sorted(rows, key=lambda row: row["campaign_id"]):
            row = {name: period[column] for name, column in RESULTS.items()}
            row |= {name: period[name] for name in ("campaign_id", "first_day", "last_day")}
            row |= {"time_window": window, "ad_spend_per_click": quotient(exact(row["ad_spend"]), row["paid_clicks"])}
            row |= described(world, period["campaign_id"])
            began = row["started_on"]
            # Since last month, it may have had further results.
            row["is_whole"] = False if window == "last_month" else None if began is None else began >= row["first_day"]
            yield row


def campaigns_monthly(world: World) -> Iterator[Row]:
    recorded, published = (
        {(row["first_day"], row["campaign_id"]): row for row in world.periods if row["period"] == name}
        for name in ("recorded_month", "published_month")
    )
    stored = [day.replace(day=1) for day, _ in (*world.recorded, *world.published)]
    first = min([*stored, *(month for month, _ in (*recorded, *published))], default=None)
    for month, campaign_id in sorted(recorded.keys() | published.keys()):
        of_days, of_posts = (rows.get((month, campaign_id), {}) for rows in (recorded, published))
        row = described(world, campaign_id)
        began = row.pop("started_on")
        costless = [
            post
            for post in world.posts
            if post.is_published and post.published_on.replace(day=1) == month and campaign_id in campaigns_of(post)
            and bounds_of(post.copies, "organic") is None
        ]  # fmt: skip
        yield row | {name: of_days.get(RESULTS[name]) for name in RECORDED} | {
            "month": month, "campaign_id": campaign_id, "recorded_until": of_days.get("last_day"),
            "published_until": of_posts.get("last_day"), "published_posts": of_posts.get("posts_count"),
            "published_content_cost": of_posts.get("estimated_content_cost"),
            "published_posts_of_unknown_own_cost": len(costless),
            "began_before_lake": None if began is None else began < first,
        }  # fmt: skip
