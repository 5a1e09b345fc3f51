"""A slow, independent reference of the rollup tables, in exact fractions, from their documentation, not their SQL."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction
from functools import lru_cache
from itertools import groupby
from typing import Any

from later_reporting_dagster.contract import CAMPAIGN_METRICS, DEFAULT_METRICS, METRICS, Metric

Row = dict[str, Any]
Files = Mapping[tuple[date, str], Sequence[Row]]  # (day, instance) -> its rows

CHANNELS = ("organic", "paid")
GRAIN = ("instance_id", "campaign_id", "platform", "content_type")
GRAINS = {
    "by_campaign": ("instance_id", "campaign_id"),
    "by_creator": ("instance_id", "creator_id"),
    "by_platform": ("instance_id", "platform", "content_type"),
}
WINDOWS = {"7d": 7, "28d": 28, "90d": 90, "365d": 365, "all": None}
LABELS = ("creator_handle_name", "creator_full_name", "creator_profile_link")
LIMITS = {
    metric.column: 10**11 if metric.kind == "count" else 10**15 if metric.kind == "time" else 10**9
    for metric in (*METRICS, *CAMPAIGN_METRICS)
    if metric.kind.is_additive or metric.column == "paid_return_on_ad_spend"
}
MAX_SPEND = 10**9
HALF_A_CENT = Fraction(5, 1000)
UNIT_COSTS = (("cpe", "engagements", 1), ("cpm", "impressions", 1000))
ONE_DAY = timedelta(days=1)


@dataclass(frozen=True)
class World:
    """The contents of a lake.

    Attributes:
        recorded: the files of post_metrics_daily.
        published: the files of posts_published.
        metrics: the requested metrics of posts.
        campaigns: the rows of campaigns.
        performance: the files of campaign_performance_daily, by day.
        maximum_peers: the size of a group from which only a sample of the posts are peers.
    """

    recorded: Files
    published: Files
    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    campaigns: Sequence[Row] = ()
    performance: Mapping[date, Sequence[Row]] = field(default_factory=dict)
    maximum_peers: int = 1000


@dataclass(frozen=True)
class End:
    """An end of a lift's interval. Its distance from the lift is compared with a relative tolerance."""

    value: float
    lift: float


@dataclass
class Post:
    """A post of a group: its attributes, and its rows."""

    attributes: Row
    rows: list[Row] = field(default_factory=list)

    def sum(self, column: str) -> Any:
        return total(row[column] for row in self.rows)

    def pair(self, channel: str, measure: str) -> tuple[int, int] | None:
        """Return engagements and impressions (or views), over the rows that report both, of the latter above 0."""
        engagements, units = raw(channel, "engagements"), raw(channel, measure)
        both = [row for row in self.rows if row[engagements] is not None and row[units]]
        return (sum(row[engagements] for row in both), sum(row[units] for row in both)) if both else None

    def reports(self, channel: str) -> bool:
        return any(self.sum(raw(channel, measure)) is not None for measure in ("impressions", "engagements"))


def raw(channel: str, measure: str) -> str:
    return measure if channel == "organic" else f"paid_{measure}"


def sum_name(metric: Metric) -> str:
    return f"{metric.channel}_{metric.column.removeprefix('paid_').removesuffix('_generated')}"


def exact(value: Any) -> Any:
    """Return the exact value of a decimal literal: 0.1 is a tenth."""
    return Fraction(repr(value)) if isinstance(value, float) else value


def total(values: Iterable[Any]) -> Any:
    available = [exact(value) for value in values if value is not None]
    return sum(available) if available else None


def quotient(dividend: Any, divisor: Any) -> Fraction | None:
    return Fraction(dividend) / Fraction(divisor) if dividend is not None and divisor else None


def times(value: Any, factor: int) -> Any:
    return None if value is None else value * factor


def plus(left: Any, right: Any) -> Any:
    return None if left is None or right is None else left + right


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


# Tables of days, weeks and months: all rows of a post that are in the group.


def daily(world: World) -> list[Row]:
    return _of_days(world, world.recorded, lambda day: (day, day), costs=False, intervals=False)


def by_publish_day(world: World) -> list[Row]:
    return _of_days(world, world.published, lambda day: (day, day), costs=True, intervals=False)


def weekly(world: World) -> list[Row]:
    def week(day: date) -> tuple[date, date]:
        first = day - timedelta(days=day.weekday())
        return first, first + timedelta(days=6)

    return _of_days(world, world.recorded, week, costs=False, intervals=True)


def monthly(world: World) -> list[Row]:
    def month(day: date) -> tuple[date, date]:
        first = day.replace(day=1)
        return first, (first + timedelta(days=31)).replace(day=1) - ONE_DAY

    return _of_days(world, world.recorded, month, costs=False, intervals=True)


def _of_days(
    world: World, files: Files, period_of: Callable[[date], tuple[date, date]], *, costs: bool, intervals: bool
) -> list[Row]:
    rows = [{**row, "first_day": period_of(row["date"])[0]} for row in dated(files)]
    found = []
    for _, group in grouped(rows, lambda row: key_of(row, ("first_day", *GRAIN))):
        first, last = period_of(group[0]["date"])
        row = {"first_day": first, **{name: group[0][name] for name in GRAIN}}
        if intervals:
            row["days"] = days_of(files, row["instance_id"], (first, last))
            row["days_expected"] = (last - first).days + 1
        posts = posts_of(group, ("post_id",))
        row |= totals_and_rates(posts, world.metrics)
        row |= intervals_of(posts, GRAIN) if intervals else {}
        found.append(row | (costs_of(posts) if costs else {}))
    return found


def posts_of(rows: Iterable[Row], key: Sequence[str]) -> list[Post]:
    """Return rows by post. A post has the attributes of its newest row."""
    return [
        Post(max(of_post, key=lambda row: row["date"]), of_post)
        for _, of_post in grouped(rows, lambda row: key_of(row, key))
    ]


def days_of(files: Files, instance_id: str, period: tuple[date, date]) -> int:
    return sum(period[0] <= day <= period[1] for day, instance in files if instance == instance_id)


# Tables of windows.


def by_window(world: World, table: str) -> list[Row]:
    found: list[Row] = []
    for basis, files in (("performance_date", world.recorded), ("post_date", world.published)):
        if files:
            newest, oldest = max(day for day, _ in files), min(day for day, _ in files)
            for window, length in WINDOWS.items():
                first = oldest if length is None else newest - timedelta(days=length - 1)
                of_window = {"window": window, "date_basis": basis, "first_day": first, "last_day": newest}
                found += _of_window(world, GRAINS[table], of_window)
    if table == "by_campaign":
        for row in found:
            row |= campaign_columns(world, row)
    if table == "by_creator":
        for row in found:
            row |= labels_of(world, row["instance_id"], row["creator_id"])
    return found


def _of_window(world: World, grain: Sequence[str], of_window: Row) -> Iterator[Row]:
    files = world.published if of_window["date_basis"] == "post_date" else world.recorded
    period = (of_window["first_day"], of_window["last_day"])
    length = (period[1] - period[0]).days + 1
    before = None if of_window["window"] == "all" else (period[0] - length * ONE_DAY, period[0] - ONE_DAY)
    key = ("instance_id", "campaign_id", "post_id") if "campaign_id" in grain else ("instance_id", "post_id")
    now = _groups(posts_of(_without_duplicates(_within(dated(files), period), key), key), grain)
    then = _groups(_previous_posts(world, of_window["date_basis"], before, key) if before else [], grain)
    for group in sorted(now.keys() | then.keys()):
        identity = {name: (now.get(group) or then[group])[0].attributes[name] for name in grain}
        days = days_of(files, identity["instance_id"], period)
        days_before = before and days_of(files, identity["instance_id"], before)
        row = {**of_window, **identity, "days": days, "days_expected": length, "previous_days": days_before}
        measures = _measures(world, now.get(group, []), grain, of_window)
        row |= measures if days else dict.fromkeys(measures)
        if "campaign_id" not in grain:
            row["post_campaigns"] = _campaigns(files, period, now.get(group, [])) if days else None
        compared = totals_and_rates(then.get(group, []), world.metrics)
        if not before or not _is_available(world, of_window["date_basis"], identity["instance_id"], before):
            compared = dict.fromkeys(compared)
        row |= {f"previous_{name}": value for name, value in compared.items()}
        for name, value in compared.items():
            if name == "posts" or not name.endswith("_posts"):
                row[f"{name}_change"] = change(name, row[name], value) if days == days_before else None
        yield row


def _within(rows: Iterable[Row], period: tuple[date, date]) -> list[Row]:
    return [row for row in rows if period[0] <= row["date"] <= period[1]]


def _without_duplicates(rows: Iterable[Row], key: Sequence[str]) -> list[Row]:
    """Return one row per day and key: the one with the lowest campaign id."""
    return [
        min(of_day, key=lambda row: row["campaign_id"])
        for _, of_day in grouped(rows, lambda row: key_of(row, ("date", *key)))
    ]


def _groups(posts: Iterable[Post], grain: Sequence[str]) -> dict[tuple[Any, ...], list[Post]]:
    return dict(grouped(posts, lambda post: key_of(post.attributes, grain)))


def _last_compared(world: World, before: tuple[date, date]) -> date | None:
    """Return the last day whose results count for a previous period: one window length before the newest day."""
    if not world.recorded:
        return None
    return max(day for day, _ in world.recorded) - (before[1] - before[0]) - ONE_DAY


def _previous_posts(world: World, basis: str, before: tuple[date, date], key: Sequence[str]) -> list[Post]:
    if basis == "performance_date":
        return posts_of(_without_duplicates(_within(dated(world.recorded), before), key), key)
    posts = posts_of(_without_duplicates(_within(dated(world.published), before), key), key)
    until = _last_compared(world, before)
    recorded = [row for row in dated(world.recorded) if until and row["date"] <= until]
    rows = dict(grouped(_without_duplicates(recorded, key), lambda row: key_of(row, key)))
    return [Post(post.attributes, rows.get(key_of(post.attributes, key), [])) for post in posts]


def _is_available(world: World, basis: str, instance_id: str, before: tuple[date, date]) -> bool:
    if basis == "performance_date":
        return days_of(world.recorded, instance_id, before) > 0
    until = _last_compared(world, before)
    if until is None or until < before[1] or not days_of(world.published, instance_id, before):
        return False
    return days_of(world.recorded, instance_id, (before[0], until)) == (until - before[0]).days + 1


def _measures(world: World, posts: list[Post], grain: Sequence[str], of_window: Row) -> Row:
    measures = totals_and_rates(posts, world.metrics) | intervals_of(posts, grain)
    if "platform" not in grain:
        measures |= mix_of(posts)
    costs = costs_of(posts)
    return measures | (costs if of_window["date_basis"] == "post_date" else dict.fromkeys(costs))


def _campaigns(files: Files, period: tuple[date, date], posts: list[Post]) -> int:
    campaigns = {(row["instance_id"], row["post_id"], row["campaign_id"]) for row in _within(dated(files), period)}
    there = {(post.attributes["instance_id"], post.attributes["post_id"]) for post in posts}
    return sum((instance_id, post_id) in there for instance_id, post_id, _ in campaigns)


def change(name: str, now: Any, then: Any) -> Any:
    if now is None or then is None:
        return None
    if "rate" in name or "share_of" in name or "paid_lift" in name:
        return Fraction(now) - Fraction(then)
    return times(quotient(Fraction(now) - Fraction(then), then), 100)


def labels_of(world: World, instance_id: str, creator_id: int | None) -> Row:
    """Return the labels in the newest post of the creator: in posts_published, else in post_metrics_daily."""
    for files in (world.published, world.recorded):
        rows = [row for row in dated(files) if (row["instance_id"], row["creator_id"]) == (instance_id, creator_id)]
        if rows and creator_id is not None:
            newest = max(rows, key=lambda row: (row["post_date"], row["date"], row["campaign_id"], row["post_id"]))
            return {name: newest[name] for name in LABELS}
    return dict.fromkeys(LABELS)


# Tables about single posts.


@dataclass
class Published:
    """A post of the last year: its row, its days, and the number of ages at which it was seen."""

    row: Row
    is_peer: bool
    age: int
    seen: int
    days: list[Row]
    measures: dict[int, Row] = field(default_factory=dict)

    @property
    def group(self) -> tuple[Any, ...]:
        return key_of(self.row, ("platform", "content_type"))

    def by(self, age: int, metrics: Sequence[Metric]) -> Row:
        """Return the sums and rates from the publication to an age."""
        days = [row for row in self.days if (row["date"] - self.row["date"]).days <= age]
        if len(days) not in self.measures:
            group = totals_and_rates([Post(self.row, days)], metrics)
            self.measures[len(days)] = {
                name: value
                for name, value in group.items()
                if name != "posts"
                and not name.endswith("_posts")
                and not name.startswith(("paid_share_of", "paid_lift"))
            }
        return self.measures[len(days)]


def last_recorded(world: World) -> date:
    return max(day for day, _ in world.recorded)


def posts_of_year(world: World) -> list[Published]:
    if not world.recorded:
        return []
    last, key = last_recorded(world), ("instance_id", "post_id")
    rows = _within(dated(world.published), (last - timedelta(days=364), last))
    sizes = {group: len(of) for group, of in grouped(rows, lambda row: key_of(row, ("platform", "content_type")))}
    days = dict(grouped(_without_duplicates(dated(world.recorded), key), lambda row: key_of(row, key)))

    def is_peer(row: Row) -> bool:
        place = Fraction(row["post_id"] * 2_654_435_761 % 2**32, 2**32)
        return place * sizes[key_of(row, ("platform", "content_type"))] < world.maximum_peers

    found = []
    for post, of_post in grouped(rows, lambda row: key_of(row, key)):
        chosen = [row for row in of_post if is_peer(row) or (last - row["date"]).days < 90]
        if chosen:
            newest = min(chosen, key=lambda row: (-row["date"].toordinal(), row["campaign_id"]))
            seen = 0
            while (newest["date"] + seen * ONE_DAY, newest["instance_id"]) in world.recorded:
                seen += 1
            age = (last - newest["date"]).days
            found.append(Published(newest, is_peer(newest), age, seen, days.get(post, [])))
    return found


def by_age(world: World) -> list[Row]:
    peers = [post for post in posts_of_year(world) if post.is_peer]
    found = []
    for _, of_group in grouped(peers, lambda post: post.group):
        for age in range(90):
            seen = [post for post in of_group if age < post.seen]
            row = {name: of_group[0].row[name] for name in ("platform", "content_type")}
            row |= {"last_day": last_recorded(world), "age": age, "posts": len(seen)}
            earned = [post.by(age, world.metrics) for post in seen]
            for name in earned[0] if earned else ():
                if (
                    name.endswith(("_impressions", "_engagements", "_views", "_rate", "_by_views"))
                    and "cross" not in name
                ):
                    values = sorted(each[name] for each in earned if each[name] is not None)
                    row[f"{name}_posts"] = len(values)
                    for percent in (25, 50, 75):
                        place = -(-percent * len(values) // 100) - 1
                        row[f"{name}_p{percent}"] = values[place] if values else None
            found += [row] if seen else []
    return found


def post_benchmarks(world: World) -> list[Row]:
    posts, found = posts_of_year(world), []
    for post in posts:
        if post.age >= 90:
            continue
        last, copied = last_recorded(world), ("instance_id", "post_id", "platform", "content_type", "creator_id",
            "creator_handle_name", "creator_full_name", "content_url", "post_date")  # fmt: skip
        row = {"last_day": last, **{name: post.row[name] for name in copied}}
        row["age"], row["days_expected"] = post.age, post.age + 1
        row["days"] = days_of(world.recorded, post.row["instance_id"], (post.row["date"], last))
        mine = post.by(post.age, world.metrics)
        week = Post(post.row, [each for each in post.days if each["date"] > last - timedelta(days=7)])
        row |= mine | {f"{name}_engagements_last_7_days": week.sum(raw(name, "engagements")) for name in CHANNELS}
        peers = [
            each for each in posts
            if each.is_peer and each is not post and each.group == post.group and each.seen > post.age
        ]  # fmt: skip
        row["peers"] = len(peers)
        for name in ("organic_impressions", "organic_engagement_rate"):
            theirs = [value for each in peers if (value := each.by(post.age, world.metrics)[name]) is not None]
            less = sum(value < mine[name] for value in theirs) if mine[name] is not None else 0
            equal = sum(value == mine[name] for value in theirs)
            is_known = post.seen > post.age and len(theirs) >= 20 and mine[name] is not None
            row[f"{name}_percentile"] = Fraction(100 * less + 50 * equal, len(theirs)) if is_known else None
        found.append(row)
    return found


# Measures of a group of posts.


def totals_and_rates(posts: Sequence[Post], metrics: Sequence[Metric]) -> Row:
    group: Row = {"posts": len(posts)}
    for metric in metrics:
        if metric.kind.is_additive:
            values = [post.sum(metric.column) for post in posts]
            group[sum_name(metric)] = total(values)
            group[f"{sum_name(metric)}_posts"] = sum(value is not None for value in values)
    rates = {}
    for measure, suffix in (("impressions", ""), ("views", "_by_views")):
        for channel in CHANNELS:
            if raw(channel, measure) in {metric.column for metric in metrics}:
                pairs = [pair for post in posts if (pair := post.pair(channel, measure))]
                rates[channel, measure] = quotient(sum(e for e, _ in pairs), sum(units for _, units in pairs))
                group[f"{channel}_engagement_rate{suffix}"] = times(rates[channel, measure], 100)
        if {("organic", measure), ("paid", measure)} <= rates.keys():
            group[f"paid_lift{suffix}"] = quotient(rates["paid", measure], rates["organic", measure])
    for measure in ("impressions", "engagements"):
        group[f"paid_share_of_{measure}"] = share(group[f"paid_{measure}"], group[f"organic_{measure}"])
    return group


def share(paid: Any, organic: Any) -> Any:
    return times(quotient(paid, plus(paid, organic)), 100)


def intervals_of(posts: Sequence[Post], grain: Sequence[str]) -> Row:
    both = [[post.pair(channel, "impressions") for channel in CHANNELS] for post in posts]
    on_both = [bool(organic and paid and organic[1] > 0 and paid[1] > 0) for organic, paid in both]
    reports = [tuple(post.reports(channel) for channel in CHANNELS) for post in posts]
    group: Row = {
        "organic_only_posts": reports.count((True, False)),
        "paid_only_posts": reports.count((False, True)),
        "both_channels_posts": reports.count((True, True)),
        "same_post_lift_posts": sum(on_both),
    }
    clusters: dict[Any, list[int]] = {}
    creators = {post.attributes["creator_id"] for post in posts}
    for number, post in enumerate(posts):
        creator = post.attributes["creator_id"]
        by_creator = "creator_id" not in grain and len(creators) > 1 and creator is not None
        clusters.setdefault(("creator", creator) if by_creator else ("post", number), []).append(number)
    of_clusters = [
        [sum((pair[part] if pair else 0) for n in numbers for pair in [both[n][channel]]) for channel in (0, 1)
         for part in (0, 1)]
        for numbers in clusters.values()
    ]  # fmt: skip
    group |= paid_lift_interval(of_clusters)
    parts = [_same_post(*pairs) if counts else None for pairs, counts in zip(both, on_both, strict=True)]
    of_both = [
        tuple(sum(part[side] for part in found) for side in (0, 1))
        for numbers in clusters.values()
        if (found := [part for n in numbers if (part := parts[n])])
    ]
    return group | same_post_lift(of_both)


def _same_post(organic: Any, paid: Any) -> tuple[Fraction, Fraction]:
    """Return the terms of a post in the Mantel-Haenszel rate ratio: paid, organic."""
    impressions = organic[1] + paid[1]
    return Fraction(paid[0] * organic[1], impressions), Fraction(organic[0] * paid[1], impressions)


def effective(sizes: Iterable[Any]) -> Fraction | None:
    sizes = [*sizes]
    return quotient(sum(sizes) ** 2, sum(size**2 for size in sizes))


def paid_lift_interval(clusters: Sequence[Sequence[int]]) -> Row:
    """Return the interval of the paid lift.

    Args:
        clusters: organic engagements and impressions, paid engagements and impressions of each cluster.
    """
    names = [f"paid_lift_{name}" for name in ("posts_effective", "low", "high", "verdict")]
    sums = [sum(cluster[part] for cluster in clusters) for part in range(4)]
    impressions = [effective(cluster[part] for cluster in clusters) for part in (1, 3)]
    if None in impressions:
        return dict.fromkeys(names)
    n = min(each for each in impressions if each is not None)
    nothing = dict.fromkeys(names) | {names[0]: n}
    if n < 5 or not all(sums):
        return nothing
    engagements = min(each for part in (0, 2) if (each := effective(cluster[part] for cluster in clusters)))
    left_out = []
    for cluster in clusters:
        if cluster[1] or cluster[3]:
            left = [of_all - of_cluster for of_all, of_cluster in zip(sums, cluster, strict=True)]
            if not all(left):
                return nothing
            left_out.append(_lift(left) / _lift(sums))
    degrees = min(n - 1, max(Fraction(6), engagements - 1))
    return nothing | interval("paid_lift", _lift(sums), left_out, degrees)


def _lift(sums: Sequence[int]) -> Fraction:
    return Fraction(sums[2], sums[3]) / Fraction(sums[0], sums[1])


def same_post_lift(clusters: Sequence[tuple[Any, ...]]) -> Row:
    """Return the same-post lift and its interval.

    Args:
        clusters: the paid and the organic term of each cluster.
    """
    paid, organic = (sum(cluster[side] for cluster in clusters) for side in (0, 1))
    names = ("low", "high", "verdict")
    n = effective(paid_part + organic_part for paid_part, organic_part in clusters)
    found: Row = {"same_post_lift": quotient(paid, organic) if clusters else None, "same_post_lift_posts_effective": n}
    found |= {f"same_post_lift_{name}": None for name in names}
    if n is None or n < 5 or not paid or not organic:
        return found
    if any(not paid - paid_part or not organic - organic_part for paid_part, organic_part in clusters):
        return found
    left_out = [(paid - of_paid) / (organic - of_organic) * organic / paid for of_paid, of_organic in clusters]
    return found | interval("same_post_lift", paid / organic, left_out, n - 1)


def interval(name: str, lift: Fraction, left_out: Sequence[Fraction], degrees: Fraction) -> Row:
    """Return a jackknife interval. `left_out`: the lift without each of the clusters, divided by the lift of all."""
    squares = math.fsum(math.log1p(float(factor - 1)) ** 2 for factor in left_out)
    variance = squares * (len(left_out) - 1) / len(left_out)
    if variance <= 1e-18:
        return {}
    half, middle = t_quantile(float(degrees)) * math.sqrt(variance), float(lift)
    low, high = middle * math.exp(-half), middle * math.exp(min(half, 700))
    verdict = "paid_higher" if low > 1 else "organic_higher" if high < 1 else "undecided"
    return {f"{name}_low": End(low, middle), f"{name}_high": End(high, middle), f"{name}_verdict": verdict}


@lru_cache
def t_quantile(degrees: float) -> float:
    """Return the 97.5 % quantile of Student's t, by Newton's method on Simpson's integral of its density."""
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2

    def density(x: float) -> float:
        return math.exp(log_scale - (degrees + 1) / 2 * math.log1p(x * x / degrees))

    x, panels = 2.0, 100
    for _ in range(8):
        inner = math.fsum((4 if n % 2 else 2) * density(x * n / panels) for n in range(1, panels))
        x -= ((density(0) + inner + density(x)) * x / panels / 3 - 0.475) / density(x)
    return x


def mix_of(posts: Sequence[Post]) -> Row:
    paid, expected = 0, Fraction(0)
    shared: dict[str, list[int]] = {channel: [] for channel in CHANNELS}
    for _, of_platform in grouped(posts, lambda post: key_of(post.attributes, ("platform",))):
        sums = {
            channel: [sum(pair[part] for post in of_platform if (pair := post.pair(channel, "impressions")))
                      for part in (0, 1)]
            for channel in CHANNELS
        }  # fmt: skip
        if sums["organic"][1] and sums["paid"][1]:
            paid += sums["paid"][0]
            expected += Fraction(sums["organic"][0], sums["organic"][1]) * sums["paid"][1]
        impressions = {name: total(post.sum(raw(name, "impressions")) for post in of_platform) for name in CHANNELS}
        if None not in impressions.values():
            for channel in CHANNELS:
                shared[channel].append(impressions[channel])
    return {
        "paid_lift_mix_adjusted": quotient(paid, expected),
        "paid_share_of_impressions_on_shared_platforms": share(total(shared["paid"]), total(shared["organic"])),
    }


# Costs.


def bounds_of(post: Post, channel: str) -> tuple[Fraction, Fraction] | str | None:
    """Return the bounds of a post's cost, from unit costs known to half a cent; `contradictory` if there are none.

    A post with a higher upper bound than `MAX_SPEND` has none either.
    """
    bounds = []
    for row in post.rows:
        for cost, measure, per in UNIT_COSTS:
            unit_cost, units = row[raw(channel, cost)], row[raw(channel, measure)]
            if unit_cost is not None and units:
                each = exact(unit_cost)
                bounds.append((max(each - HALF_A_CENT, Fraction(0)) * units / per, (each + HALF_A_CENT) * units / per))
    if not bounds:
        return None
    least, most = max(low for low, _ in bounds), min(high for _, high in bounds)
    if least > most:
        return "contradictory"
    return (least, most) if most <= MAX_SPEND else None


def costs_of(posts: Sequence[Post]) -> Row:
    group: Row = {}
    spent: dict[str, list[tuple[Post, tuple[Fraction, Fraction]]]] = {}
    parts: dict[tuple[str, str], tuple[Any, Any, Any]] = {}
    for channel in CHANNELS:
        bounds = [(post, bounds_of(post, channel)) for post in posts]
        spent[channel] = [(post, each) for post, each in bounds if isinstance(each, tuple)]
        for number, side in enumerate(("minimum", "maximum")):
            group[f"{channel}_spend_{side}"] = total(each[number] for _, each in spent[channel])
        group[f"{channel}_spend_posts"] = len(spent[channel])
        group[f"{channel}_spend_contradictory_posts"] = sum(each == "contradictory" for _, each in bounds)
        for cost, measure, per in UNIT_COSTS:
            those = [(post, each) for post, each in spent[channel] if post.sum(raw(channel, measure)) is not None]
            sums = (
                *(times(total(each[number] for _, each in those), per) for number in (0, 1)),
                total(post.sum(raw(channel, measure)) for post, _ in those),
            )
            parts[channel, cost] = sums
            group[f"{channel}_{cost}_minimum"] = quotient(sums[0], sums[2])
            group[f"{channel}_{cost}_maximum"] = quotient(sums[1], sums[2])
    for cost, _, _ in UNIT_COSTS:
        least, most, units = (plus(*pair) for pair in zip(parts["organic", cost], parts["paid", cost], strict=True))
        group[f"blended_{cost}_minimum"], group[f"blended_{cost}_maximum"] = (
            quotient(least, units),
            quotient(most, units),
        )
    valued = [(post.sum("estimated_value_generated"), each) for post, each in spent["organic"]]
    valued = [(value, each) for value, each in valued if value is not None]
    value = total(each for each, _ in valued)
    group["organic_value_per_spend_minimum"] = quotient(value, total(most for _, (_, most) in valued))
    group["organic_value_per_spend_maximum"] = quotient(value, total(least for _, (least, _) in valued))
    return group


# Campaigns.

CAMPAIGN_SUMS = (
    "paid_ad_spend", "paid_cost", "estimated_content_cost", "estimated_value_generated", "paid_clicks",
    "tracking_links_clicks", "tracking_links_conversions", "tracking_links_conversion_value", "affiliate_links_clicks",
    "affiliate_links_conversions", "affiliate_links_sales", "affiliate_links_commission_earned",
)  # fmt: skip
CAMPAIGN_RATES = ("estimated_roi", "cost_per_click", "paid_return_on_ad_spend")


def campaign_results_of(rows: Sequence[Row]) -> Row:
    """Return the sums and rates of one campaign over some of its days."""

    def both(*names: str) -> list[list[Any]]:
        return [[exact(row[name]) for name in names] for row in rows if None not in [row[name] for name in names]]

    results: Row = {name: total(row[name] for row in rows) for name in CAMPAIGN_SUMS}
    valued, clicked = both("estimated_value_generated", "estimated_content_cost"), both("paid_ad_spend", "paid_clicks")
    returned = both("paid_return_on_ad_spend", "paid_ad_spend")
    results["estimated_roi"] = quotient(sum(value for value, _ in valued), sum(cost for _, cost in valued))
    results["cost_per_click"] = quotient(sum(spend for spend, _ in clicked), sum(clicks for _, clicks in clicked))
    results["paid_return_on_ad_spend"] = quotient(
        sum(each * spend for each, spend in returned), sum(spend for _, spend in returned)
    )
    return results


def campaign_results(world: World, first: date, last: date) -> dict[int, Row]:
    """Return the results of each campaign that has a row from `first` to `last`, with the number of stored days."""
    days = [day for day in sorted(world.performance) if first <= day <= last]
    rows = [row for day in days for row in world.performance[day] if within_limits(row)]
    return {
        campaign_id: {"days": len(days), **campaign_results_of(of_campaign)}
        for campaign_id, of_campaign in grouped(rows, lambda row: row["campaign_id"])
    }


def only_instance(world: World, campaign_id: int) -> str | None:
    """Return the instance of a campaign id; None if it belongs to several."""
    rows = [*world.campaigns, *dated(world.recorded), *dated(world.published)]
    instances = {row["instance_id"] for row in rows if row["campaign_id"] == campaign_id}
    return instances.pop() if len(instances) == 1 else None


def campaign_columns(world: World, of_window: Row) -> Row:
    """Return what is known about the campaign of a row by window."""
    instance_id, campaign_id = of_window["instance_id"], of_window["campaign_id"]
    (known,) = [each for each in world.campaigns if (each["instance_id"], each["campaign_id"]) == (
        instance_id, campaign_id)] or [{"campaign_name": None, "status": None}]  # fmt: skip
    labels = {"campaign_name": known["campaign_name"], "campaign_status": known["status"]}
    unknown = dict.fromkeys(("campaign_days", *CAMPAIGN_SUMS, *CAMPAIGN_RATES))
    if of_window["date_basis"] == "post_date" or only_instance(world, campaign_id) is None:
        return labels | unknown
    first, last = of_window["first_day"], of_window["last_day"]
    results = campaign_results(world, first, last).get(campaign_id, {})
    days = sum(first <= day <= last for day in world.performance)
    return labels | unknown | {"campaign_days": days} | {n: v for n, v in results.items() if n != "days"}
