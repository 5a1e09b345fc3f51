"""A slow, independent reference of the rollup tables, in exact fractions, from their documentation, not their SQL."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any

from later_reporting_dagster.contract import CAMPAIGN_METRICS, DEFAULT_METRICS, METRICS, Metric

Row = dict[str, Any]
Files = Mapping[tuple[date, str], Sequence[Row]]  # (day, instance) -> its rows

CHANNELS = ("organic", "paid")
GRAIN = ("instance_id", "campaign_id", "platform", "content_type")
GRAINS = {
    "organic_paid_by_campaign": ("instance_id", "campaign_id"),
    "organic_paid_by_platform": ("instance_id", "platform"),
    "organic_paid_by_content_type": ("instance_id", "platform", "content_type"),
    "organic_paid_by_creator": ("instance_id", "creator_id"),
    "organic_paid_overall": ("instance_id",),
    "costs_by_campaign": ("instance_id", "campaign_id"),
    "costs_overall": ("instance_id",),
}
PREVIOUS = (
    "posts", "organic_impressions", "paid_impressions", "organic_engagements", "paid_engagements",
    "organic_estimated_value", "organic_engagement_rate", "paid_engagement_rate",
)  # fmt: skip
WINDOWS = {"7d": 7, "28d": 28, "90d": 90, "365d": 365, "all": None}
LABELS = ("creator_handle_name", "creator_full_name", "creator_profile_link")
LIMITS = {
    metric.column: 10**11 if metric.kind == "count" else 10**15 if metric.kind == "time" else 10**9
    for metric in (*METRICS, *CAMPAIGN_METRICS)
    if metric.kind.adds_up_over_posts or metric.column == "paid_return_on_ad_spend"
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
        periods: the rows of campaign_performance_periods.
        maximum_peers: the size of a group from which only a sample of the posts are peers.
    """

    recorded: Files
    published: Files
    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    campaigns: Sequence[Row] = ()
    performance: Mapping[date, Sequence[Row]] = field(default_factory=dict)
    periods: Sequence[Row] = ()
    maximum_peers: int = 1000

    @cached_property
    def recorded_rows(self) -> list[Row]:
        return dated(self.recorded)

    @cached_property
    def published_rows(self) -> list[Row]:
        return dated(self.published)

    @cached_property
    def labels(self) -> Mapping[tuple[Any, ...], Row]:
        """The labels of each creator, in the newest post: in posts_published, else in post_metrics_daily."""
        found = {}
        for rows in (self.recorded_rows, self.published_rows):
            newest_last = sorted(
                rows, key=lambda row: (row["post_date"], row["date"], row["campaign_id"], row["post_id"])
            )
            found |= {
                (row["instance_id"], row["creator_id"]): {name: row[name] for name in LABELS} for row in newest_last
            }
        return found

    @cached_property
    def instances_of_campaigns(self) -> Mapping[int, set[str]]:
        found: dict[int, set[str]] = {}
        for row in self.campaigns:
            found.setdefault(row["campaign_id"], set()).add(row["instance_id"])
        return found


@dataclass
class Post:
    """A post of a group: its attributes, and its rows."""

    attributes: Row
    rows: list[Row] = field(default_factory=list)
    pairs: dict[tuple[str, str], tuple[int, int] | None] = field(default_factory=dict)

    def sum(self, column: str) -> Any:
        return total(row[column] for row in self.rows)

    def pair(self, channel: str, measure: str) -> tuple[int, int] | None:
        """Return engagements and impressions (or views), over the rows that report both, of the latter not 0."""
        if (channel, measure) not in self.pairs:
            engagements, units = raw(channel, "engagements"), raw(channel, measure)
            both = [row for row in self.rows if row[engagements] is not None and row[units]]
            sums = (sum(row[engagements] for row in both), sum(row[units] for row in both))
            self.pairs[channel, measure] = sums if both else None
        return self.pairs[channel, measure]

    def reports(self, channel: str) -> bool:
        return any(self.sum(raw(channel, measure)) is not None for measure in ("impressions", "engagements"))

    @property
    def creator(self) -> Any:
        """The creator; an id is unique only within an instance."""
        creator_id = self.attributes["creator_id"]
        return None if creator_id is None else (self.attributes["instance_id"], creator_id)


def raw(channel: str, measure: str) -> str:
    return measure if channel == "organic" else f"paid_{measure}"


def sum_name(metric: Metric) -> str:
    return f"{metric.channel}_{metric.column.removeprefix('paid_').removesuffix('_generated')}"


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

# By table, the first day of the period of a day.
PERIODS: Mapping[str, Callable[[date], date]] = {
    "organic_paid_daily": lambda day: day,
    "organic_paid_by_publish_day": lambda day: day,
    "organic_paid_weekly": lambda day: day - timedelta(days=day.weekday()),
    "organic_paid_monthly": lambda day: day.replace(day=1),
}


def by_period(world: World, table: str) -> list[Row]:
    first_of, is_of_costs = PERIODS[table], table.endswith("publish_day")
    of_table = world.published_rows if is_of_costs else world.recorded_rows
    rows = [{**row, "first_day": first_of(row["date"])} for row in of_table]
    found = []
    for _, group in grouped(rows, lambda row: key_of(row, ("first_day", *GRAIN))):
        row = {name: group[0][name] for name in ("first_day", *GRAIN)}
        days = [day for n in range(31) if first_of(day := row["first_day"] + n * ONE_DAY) == row["first_day"]]
        if len(days) > 1:
            row["days"] = days_of(world.recorded, row["instance_id"], (days[0], days[-1]))
            row["days_expected"] = len(days)
        posts = posts_of(group, ("post_id",))
        found.append(row | (costs_of(posts) if is_of_costs else comparison_of(posts, world.metrics)))
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


def windows_of(files: Files) -> Iterator[Row]:
    if files:
        newest, oldest = max(day for day, _ in files), min(day for day, _ in files)
        for window, length in WINDOWS.items():
            first = oldest if length is None else newest - timedelta(days=length - 1)
            yield {"time_window": window, "first_day": first, "last_day": newest}


def by_window(world: World, table: str) -> list[Row]:
    found: list[Row] = []
    compute = _costs if table.startswith("costs") else _comparison
    for of_window in windows_of(world.published if table.startswith("costs") else world.recorded):
        for row in compute(world, table, of_window):
            if table.endswith("by_campaign"):
                row |= {"campaign_name": campaign_named(world, row["instance_id"], row["campaign_id"])["campaign_name"]}
            if table.endswith("by_creator"):
                is_known = row["creator_id"] is not None
                row |= world.labels[row["instance_id"], row["creator_id"]] if is_known else dict.fromkeys(LABELS)
            found.append(of_window | row)
    return found


def _costs(world: World, table: str, of_window: Row) -> Iterator[Row]:
    period = (of_window["first_day"], of_window["last_day"])
    for identity, posts in _groups(world.published_rows, table, period).values():
        yield identity | day_counts(world.published, identity["instance_id"], period) | costs_of(posts)


def _comparison(world: World, table: str, of_window: Row) -> Iterator[Row]:
    files, period = world.recorded, (of_window["first_day"], of_window["last_day"])
    length = (period[1] - period[0]).days + 1
    before = None if of_window["time_window"] == "all" else (period[0] - length * ONE_DAY, period[0] - ONE_DAY)
    now = _groups(world.recorded_rows, table, period)
    then = _groups(world.recorded_rows, table, before) if before else {}
    for group in sorted(now.keys() | then.keys()):
        identity, _ = now.get(group) or then[group]
        days = day_counts(files, identity["instance_id"], period)
        days_before = before and day_counts(files, identity["instance_id"], before)["days"]
        row = {**identity, **days, "previous_days": days_before}
        posts = now[group][1] if group in now else []
        measures = comparison_of(posts, world.metrics)
        if table == "organic_paid_by_creator":
            del measures["same_post_rate_ratio"]
        row |= measures if days["days"] else dict.fromkeys(measures)
        compared = comparison_of(then[group][1] if group in then else [], world.metrics)
        yield row | {f"previous_{name}": compared[name] if days_before else None for name in PREVIOUS}


def _groups(
    rows: Iterable[Row], table: str, period: tuple[date, date]
) -> dict[tuple[Any, ...], tuple[Row, list[Post]]]:
    """Return the posts of each group in a period, with the values of its grain. `…_overall` has a group of all."""
    grain = GRAINS[table]
    key = ("instance_id", "campaign_id", "post_id") if "campaign_id" in grain else ("instance_id", "post_id")
    posts = posts_of(_without_duplicates(_within(rows, period), key), key)
    found = dict(grouped(posts, lambda post: key_of(post.attributes, grain)))
    groups = {key: ({name: each[0].attributes[name] for name in grain}, each) for key, each in found.items()}
    if table.endswith("overall") and posts:
        groups[key_of({"instance_id": None}, grain)] = ({"instance_id": None}, posts)
    return dict(sorted(groups.items()))


def day_counts(files: Files, instance_id: str | None, period: tuple[date, date]) -> Row:
    """Return the days of a period and how many have a file; of all instances together, the sums."""
    instances = {name for _, name in files} if instance_id is None else {instance_id}
    days = sum(days_of(files, each, period) for each in instances)
    return {"days": days, "days_expected": ((period[1] - period[0]).days + 1) * len(instances)}


def _within(rows: Iterable[Row], period: tuple[date, date]) -> list[Row]:
    return [row for row in rows if period[0] <= row["date"] <= period[1]]


def _without_duplicates(rows: Iterable[Row], key: Sequence[str]) -> list[Row]:
    """Return one row per day and key: the one with the lowest campaign id."""
    return [
        min(of_day, key=lambda row: row["campaign_id"])
        for _, of_day in grouped(rows, lambda row: key_of(row, ("date", *key)))
    ]


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
            group = comparison_of([Post(self.row, days)], metrics)
            self.measures[len(days)] = {
                name: value
                for name, value in group.items()
                if name != "posts"
                and not name.endswith("_posts")
                and not name.startswith(("paid_share_of", "rate_ratio", "same_post"))
            }
        return self.measures[len(days)]


def last_recorded(world: World) -> date:
    return max(day for day, _ in world.recorded)


def posts_of_year(world: World) -> list[Published]:
    if not world.recorded:
        return []
    last, key = last_recorded(world), ("instance_id", "post_id")
    rows = _within(world.published_rows, (last - timedelta(days=364), last))
    sizes = {group: len(of) for group, of in grouped(rows, lambda row: key_of(row, ("platform", "content_type")))}
    days = dict(grouped(_without_duplicates(world.recorded_rows, key), lambda row: key_of(row, key)))

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


def comparison_of(posts: Sequence[Post], metrics: Sequence[Metric]) -> Row:
    group: Row = {"posts": len(posts)}
    for metric in metrics:
        if metric.kind.adds_up_over_days:
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
                if not suffix:
                    group[f"{channel}_engagement_rate_posts"] = len(pairs)
        if {("organic", measure), ("paid", measure)} <= rates.keys():
            group[f"rate_ratio{suffix}"] = quotient(rates["paid", measure], rates["organic", measure])
    group["paid_share_of_impressions"] = share(group["paid_impressions"], group["organic_impressions"])
    same = [(post, *terms) for post in posts if (terms := same_post_terms(post))]
    known = {post.creator for post, *_ in same if post.creator is not None}
    creators = len(known) + sum(post.creator is None for post, *_ in same)
    ratio = quotient(sum(paid for _, paid, _ in same), sum(organic for *_, organic in same))
    group["same_posts"] = len(same)
    group["same_posts_paid_higher"] = sum(paid > organic for _, paid, organic in same)
    group["same_post_rate_ratio"] = ratio if len(same) >= 20 and creators >= 5 else None
    return group


def share(paid: Any, organic: Any) -> Any:
    return times(quotient(paid, plus(paid, organic)), 100)


def same_post_terms(post: Post) -> tuple[Fraction, Fraction] | None:
    """Return the terms of a post in the Mantel-Haenszel rate ratio: paid, organic; None if a channel has no rate."""
    organic, paid = (post.pair(channel, "impressions") for channel in CHANNELS)
    if organic is None or paid is None or min(organic[1], paid[1]) <= 0:
        return None
    impressions = organic[1] + paid[1]
    return Fraction(paid[0] * organic[1], impressions), Fraction(organic[0] * paid[1], impressions)


# Costs.


def bounds_of(post: Post, channel: str) -> tuple[Fraction, Fraction] | str | None:
    """Return the bounds of a post's cost, from unit costs known to half a cent; `contradictory` if there are none.

    A post with a higher upper bound than `MAX_SPEND` has none either.
    """
    bounds = []
    for row in post.rows:
        for cost, measure, per in UNIT_COSTS:
            unit_cost, units = row[raw(channel, cost)], row[raw(channel, measure)]
            if unit_cost is not None and units is not None and units > 0:
                each = exact(unit_cost)
                bounds.append((max(each - HALF_A_CENT, Fraction(0)) * units / per, (each + HALF_A_CENT) * units / per))
    if not bounds:
        return None
    least, most = max(low for low, _ in bounds), min(high for _, high in bounds)
    if least > most:
        return "contradictory"
    return (least, most) if most <= MAX_SPEND else None


def costs_of(posts: Sequence[Post]) -> Row:
    group: Row = {"posts": len(posts)}
    spread: dict[str, Any] = {}
    for channel in CHANNELS:
        bounds = [(post, bounds_of(post, channel)) for post in posts]
        spent = [(post, (each[0] + each[1]) / 2) for post, each in bounds if isinstance(each, tuple)]
        spread[channel] = total((each[1] - each[0]) / 2 for _, each in bounds if isinstance(each, tuple))
        group[f"{channel}_posts"] = sum(post.reports(channel) for post in posts)
        group[f"{channel}_spend"] = total(spend for _, spend in spent)
        group[f"{channel}_spend_posts"] = len(spent)
        group[f"{channel}_contradictory_posts"] = sum(each == "contradictory" for _, each in bounds)
        for cost, measure, _ in UNIT_COSTS:
            those = [(spend, units) for post, spend in spent if (units := post.sum(raw(channel, measure))) is not None]
            group[f"{channel}_{cost}_spend"] = total(spend for spend, _ in those)
            group[f"{channel}_{cost}_{measure}"] = total(units for _, units in those)
        if channel == "organic":
            valued = [(post.sum("estimated_value_generated"), spend) for post, spend in spent]
            valued = [(value, spend) for value, spend in valued if value is not None]
            group["organic_value"] = total(value for value, _ in valued)
            group["organic_value_spend"] = total(spend for _, spend in valued)
    group["organic_value_per_spend"] = quotient(group["organic_value"], group["organic_value_spend"])
    spread["total"] = plus(spread["organic"], spread["paid"])
    for name in ("spend", *(f"{cost}_{part}" for cost, measure, _ in UNIT_COSTS for part in ("spend", measure))):
        group[f"total_{name}"] = plus(group[f"organic_{name}"], group[f"paid_{name}"])
    for prefix in (*CHANNELS, "total"):
        group[f"{prefix}_spend_uncertainty_percent"] = times(quotient(spread[prefix], group[f"{prefix}_spend"]), 100)
        for cost, measure, number in UNIT_COSTS:
            spend, units = (group[f"{prefix}_{cost}_{part}"] for part in ("spend", measure))
            group[f"{prefix}_{cost}"] = quotient(times(spend, number), units)
    return group


# Campaigns.

RESULTS = (
    "paid_ad_spend", "paid_return_on_ad_spend", "paid_clicks", "estimated_value_generated", "reach", "posts_count",
    "influencers_count", "tracking_links_clicks", "tracking_links_conversions", "tracking_links_conversion_value",
    "affiliate_links_clicks", "affiliate_links_conversions", "affiliate_links_sales",
    "affiliate_links_commission_earned",
)  # fmt: skip
API_FIGURES = {
    "api_content_cost": "estimated_content_cost", "api_cpe": "cpe", "api_cpm": "cpm", "api_roi": "estimated_roi",
    "api_affiliate_links_roi": "affiliate_links_roi",
}  # fmt: skip


def only_instance(world: World, campaign_id: int) -> str | None:
    """Return the instance of a campaign id; None if it belongs to several, or to none that is known."""
    instances = world.instances_of_campaigns.get(campaign_id, set())
    return min(instances) if len(instances) == 1 else None


def campaign_named(world: World, instance_id: str | None, campaign_id: int) -> Row:
    """Return the row of a campaign in `campaigns`, if it is known."""
    for each in world.campaigns:
        if (each["instance_id"], each["campaign_id"]) == (instance_id, campaign_id):
            return each
    return {"campaign_name": None, "status": None}


def campaigns_by_window(world: World) -> list[Row]:
    found: list[Row] = []
    for window in ("7d", "28d", "90d", "365d", "730d"):
        of_window = []
        for period in (each for each in world.periods if each["period"] == window):
            instance_id = only_instance(world, period["campaign_id"])
            known = campaign_named(world, instance_id, period["campaign_id"])
            row = {"time_window": window, "instance_id": instance_id, "campaign_name": known["campaign_name"]}
            row |= {name: period[name] for name in ("campaign_id", "first_day", "last_day", *RESULTS)}
            row |= {name: period[raw_name] for name, raw_name in API_FIGURES.items()}
            spend, clicks = period["paid_ad_spend"], period["paid_clicks"]
            cost = None if spend is None or not clicks else quotient(exact(spend), clicks)
            of_window.append(row | {"campaign_status": known["status"], "cost_per_click": cost})
        found += sorted(of_window, key=lambda row: key_of(row, ("instance_id", "campaign_id")))
    return found
