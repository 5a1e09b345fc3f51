"""A slow, independent reference of the numbers in a report, from the documentation of the rollup tables."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from statistics import NormalDist
from typing import Any

from tests.report.posts import AS_OF, FileKey, Row

CHANNELS = ("organic", "paid")
COUNTS = ("impressions", "engagements")
HALF_A_CENT = Fraction(5, 1000)

Results = dict[str, Any]


def select_rows(
    files: dict[FileKey, list[Row]],
    table: str,
    ages: range,
    *,
    instance: str | None = None,
    campaign: int | None = None,
) -> list[Row]:
    """Return rows of a table, filtered. Without a campaign filter, a post has one row per day."""
    found = [
        {**row, "date": day}
        for (of, day, instance_id), rows in files.items()
        if of == table and (AS_OF - day).days in ages and instance in {None, instance_id}
        for row in rows
        if campaign in {None, row["campaign_id"]}
    ]
    if campaign is not None:
        return found
    lowest = by(sorted(found, key=lambda row: row["campaign_id"]), "date", "instance_id", "post_id")
    return [rows[0] for rows in lowest.values()]


def by(rows: Iterable[Row], *names: str) -> dict[Any, list[Row]]:
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        key = tuple(row[name] for name in names)
        groups.setdefault(key if len(names) > 1 else key[0], []).append(row)
    return groups


def column(channel: str, measure: str) -> str:
    return measure if channel == "organic" else f"paid_{measure}"


def total(values: Iterable[Any]) -> Any:
    available = [value for value in values if value is not None]
    return sum(available) if available else None


def quotient(dividend: Any, divisor: Any, times: int = 1) -> Any:
    return None if dividend is None or not divisor or divisor < 0 else Fraction(dividend) / Fraction(divisor) * times


def recorded(rows: list[Row]) -> Results:
    """Return the results of a group of recorded rows, and how its channels compare."""
    found: Results = {
        f"{channel}_{count}": total(row[column(channel, count)] for row in rows)
        for channel in CHANNELS
        for count in COUNTS
    }
    found["impressions"] = total(found[f"{channel}_impressions"] for channel in CHANNELS)
    found["organic_estimated_value"] = total(exact(row["estimated_value_generated"]) for row in rows)
    for count in COUNTS:
        organic, paid = (found[f"{channel}_{count}"] for channel in CHANNELS)
        known = organic is not None and paid is not None
        found[f"paid_share_of_{count}"] = quotient(paid, organic + paid, 100) if known else None
    whole = parts(rows)
    for channel in CHANNELS:
        engagements, impressions = whole[channel]
        found[f"{channel}_engagement_rate"] = quotient(engagements, impressions, 100)
    found["paid_lift"] = quotient(found["paid_engagement_rate"], found["organic_engagement_rate"])
    return found | lift_interval(rows) | same_post(rows) | {"paid_lift_mix_adjusted": mix_adjusted(rows)}


def exact(value: float | None) -> Fraction | None:
    return None if value is None else Fraction(repr(value))


def parts(rows: Sequence[Row]) -> dict[str, tuple[Any, Any]]:
    """Return, by channel, the engagements and impressions of the rows that report both."""
    found = {}
    for channel in CHANNELS:
        pairs = [(row[column(channel, "engagements")], row[column(channel, "impressions")]) for row in rows]
        pairs = [pair for pair in pairs if None not in pair and pair[1]]
        found[channel] = (total(e for e, _ in pairs), total(i for _, i in pairs))
    return found


def clusters(rows: list[Row]) -> list[list[list[Row]]]:
    """Return the clusters of a group, each a list of posts: creators if there are several, else single posts."""
    posts = list(by(rows, "instance_id", "post_id").values())
    creators = {(post[0]["instance_id"], post[0]["creator_id"]) for post in posts}
    several = len({None if creator[1] is None else creator for creator in creators}) > 1
    alone: list[list[list[Row]]] = []
    together: dict[Any, list[list[Row]]] = {}
    for post in posts:
        creator = post[0]["instance_id"], post[0]["creator_id"]
        if creator[1] is None or not several:
            alone.append([post])
        else:
            together.setdefault(creator, []).append(post)
    return [*alone, *together.values()]


def effective(sizes: Iterable[Any]) -> float:
    sizes = [float(size or 0) for size in sizes]
    return sum(sizes) ** 2 / sum(size**2 for size in sizes) if any(sizes) else 0.0


def bounds(name: str, lift: Any, changes: Sequence[float | None], number: float, degrees: float) -> Results:
    nothing = {f"{name}_low": None, f"{name}_high": None, f"{name}_verdict": None}
    if lift is None or number < 5 or not changes or None in changes:
        return nothing
    variance = sum(change**2 for change in changes if change is not None) * (len(changes) - 1) / len(changes)
    if variance <= 1e-18:
        return nothing
    half_width = t_quantile(degrees) * math.sqrt(variance)
    low, high = float(lift) * math.exp(-half_width), float(lift) * math.exp(half_width)
    verdict = "paid higher" if low > 1 else "organic higher" if high < 1 else "undecided"
    return {f"{name}_low": low, f"{name}_high": high, f"{name}_verdict": verdict}


def lift_interval(rows: list[Row]) -> Results:
    of_clusters = [parts([row for post in cluster for row in post]) for cluster in clusters(rows)]
    whole = parts(rows)
    rates = [quotient(*whole[channel]) for channel in CHANNELS]
    changes: list[float | None] = []
    for each in of_clusters:
        if not any((each[channel][1] or 0) > 0 for channel in CHANNELS):
            continue
        left = [(whole[channel][n] or 0) - (each[channel][n] or 0) for channel in ("paid", "organic") for n in (0, 1)]
        without = None if min(left) <= 0 else Fraction(left[0], left[1]) / Fraction(left[2], left[3])
        changes.append(None if without is None or not all(rates) else math.log(without / (rates[1] / rates[0])))
    numbers = [min(effective(each[channel][n] for each in of_clusters) for channel in CHANNELS) for n in (0, 1)]
    degrees = min(numbers[1] - 1, max(6, numbers[0] - 1))
    return bounds("paid_lift", quotient(rates[1], rates[0]), changes, numbers[1], degrees)


def same_post(rows: list[Row]) -> Results:
    of_clusters = []
    for cluster in clusters(rows):
        found = [weighted for post in cluster if (weighted := weighted_of(post)) is not None]
        if found:
            of_clusters.append(tuple(sum(each[n] for each in found) for n in (0, 1)))
    paid, organic = (total(each[n] for each in of_clusters) for n in (0, 1))
    lift = quotient(paid, organic)
    changes = [
        math.log((1 - one / paid) / (1 - other / organic))
        if paid and organic and one < paid and other < organic
        else None
        for one, other in of_clusters
    ]
    number = effective(one + other for one, other in of_clusters)
    return {"same_post_lift": lift} | bounds("same_post_lift", lift, changes, number, number - 1)


def weighted_of(post: list[Row]) -> tuple[Fraction, Fraction] | None:
    """Return the terms of a post in the Mantel-Haenszel rate ratio: paid, organic."""
    (organic, seen), (paid, paid_seen) = (parts(post)[channel] for channel in CHANNELS)
    if not seen or not paid_seen:
        return None
    return Fraction(paid * seen, seen + paid_seen), Fraction(organic * paid_seen, seen + paid_seen)


def mix_adjusted(rows: list[Row]) -> Any:
    found, expected = [], []
    for of_platform in by(rows, "platform").values():
        (organic, seen), (paid, paid_seen) = (parts(of_platform)[channel] for channel in CHANNELS)
        if seen and paid_seen:
            found.append(paid)
            expected.append(Fraction(paid_seen * organic, seen))
    return quotient(total(found), total(expected))


def t_quantile(degrees: float) -> float:
    """Return the 97.5 % quantile of Student's t, by bisection of its integral."""
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)

    def above_middle(end: float) -> float:
        steps = 400
        heights = [(1 + (end * n / steps) ** 2 / degrees) ** (-(degrees + 1) / 2) for n in range(steps + 1)]
        inner = 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
        return scale * end / steps / 3 * (heights[0] + inner + heights[-1])

    low, high = NormalDist().inv_cdf(0.975), 5.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if above_middle(middle) < 0.475 else (low, middle)
    return low


def published(rows: list[Row]) -> Results:
    """Return the costs of published posts, from their metrics to date."""
    found: Results = {"posts": len(rows)}
    units: dict[str, Any] = {}
    for channel in CHANNELS:
        known = [(row, cost) for row in rows if isinstance(cost := spend(row, channel), tuple)]
        found[f"{channel}_spend"] = [total(cost[side] for _, cost in known) for side in (0, 1)]
        found[f"{channel}_spend_posts"] = len(known)
        found[f"{channel}_contradictory"] = sum(spend(row, channel) == "contradictory" for row in rows)
        for cost_name, count, per in (("cpe", "engagements", 1), ("cpm", "impressions", 1000)):
            these = [(row, cost) for row, cost in known if row[column(channel, count)] is not None]
            number = total(row[column(channel, count)] for row, _ in these)
            sums = [total(cost[side] for _, cost in these) for side in (0, 1)]
            units[f"{channel}_{cost_name}"] = number, sums
            found[f"{channel}_{cost_name}_units"] = number
            found[f"{channel}_{cost_name}"] = [quotient(each, number, per) for each in sums]
    both = [found[f"{channel}_spend"] for channel in CHANNELS]
    found["both_spend"] = [None if None in sides else sum(sides) for sides in zip(*both, strict=True)]
    for cost_name, per in (("cpe", 1), ("cpm", 1000)):
        (one, of_one), (other, of_other) = (units[f"{channel}_{cost_name}"] for channel in CHANNELS)
        known_both = one is not None and other is not None
        found[f"both_{cost_name}_units"] = one + other if known_both else None
        found[f"both_{cost_name}"] = [
            quotient(of_one[side] + of_other[side], one + other, per) if known_both else None for side in (0, 1)
        ]
    valued = [
        (exact(row["estimated_value_generated"]), cost)
        for row in rows
        if isinstance(cost := spend(row, "organic"), tuple) and row["estimated_value_generated"] is not None
    ]
    found["organic_estimated_value"] = total(exact(row["estimated_value_generated"]) for row in rows)
    found["value_of_spend"] = total(value for value, _ in valued)
    found["valued_spend"] = [total(cost[side] for _, cost in valued) for side in (0, 1)]
    found["value_per_spend"] = [quotient(found["value_of_spend"], found["valued_spend"][side]) for side in (1, 0)]
    return found


def spend(row: Row, channel: str) -> tuple[Fraction, Fraction] | str | None:
    """Return the bounds of a post's spend; `contradictory` if there are none; None if it has no unit costs."""
    intervals = []
    for unit_cost, measure, per in (("cpe", "engagements", 1), ("cpm", "impressions", 1000)):
        cost, count = exact(row[column(channel, unit_cost)]), row[column(channel, measure)]
        if cost is not None and count is not None and count > 0:
            intervals.append((max(cost - HALF_A_CENT, Fraction(0)) * count / per, (cost + HALF_A_CENT) * count / per))
    if not intervals:
        return None
    low, high = max(low for low, _ in intervals), min(high for _, high in intervals)
    return (low, high) if low <= high else "contradictory"


def campaign_totals(rows: Iterable[Row]) -> Results:
    """Return the totals of a campaign from its rows of campaign_performance_daily, one per day."""
    rows = list(rows)
    names = ("paid_ad_spend", "estimated_content_cost", "estimated_value_generated", "tracking_links_conversions")
    names += ("tracking_links_conversion_value", "affiliate_links_conversions", "affiliate_links_sales")
    found: Results = {name: total(exact(row[name]) for row in rows) for name in names}
    found["estimated_roi"] = ratio_of(rows, "estimated_value_generated", "estimated_content_cost")
    found["cost_per_click"] = ratio_of(rows, "paid_ad_spend", "paid_clicks")
    returns = [
        {"return": Fraction(repr(row["paid_return_on_ad_spend"])) * Fraction(repr(row["paid_ad_spend"])), **row}
        for row in rows
        if None not in (row["paid_return_on_ad_spend"], row["paid_ad_spend"])
    ]
    found["paid_return_on_ad_spend"] = quotient(
        total(row["return"] for row in returns), total(exact(row["paid_ad_spend"]) for row in returns)
    )
    return found


def ratio_of(rows: Iterable[Row], dividend: str, divisor: str) -> Any:
    """Return the sum of one column divided by that of another, over the rows that have both."""
    both = [row for row in rows if None not in (row[dividend], row[divisor])]
    return quotient(total(exact(row[dividend]) for row in both), total(exact(row[divisor]) for row in both))
