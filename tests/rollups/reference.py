"""What the rollups promise, said slowly and plainly over Python's exact fractions."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

import pytest

from later_reporting_dagster.contract import DOCUMENT_METRICS
from later_reporting_dagster.contract.metrics import Kind

GRAIN = ("instance_id", "campaign_id", "platform", "content_type")
HALF_A_CENT = Fraction(5, 1000)

Row = dict[str, Any]


def of_channel(channel: str, measure: str) -> str:
    return measure if channel == "organic" else f"paid_{measure}"


def exact(value: float) -> Fraction:
    """A decimal as it was written: 0.1 is a tenth."""
    return Fraction(repr(value))


def close_to(value: Any) -> Any:
    """What equals a value of a rollup: money sums to the millionth, and floats may differ in their last bits."""
    return pytest.approx(float(value), rel=1e-9, abs=1e-6) if isinstance(value, Fraction) else value


def total(values: Iterable[Any]) -> Any:
    available = [value for value in values if value is not None]
    return sum(available) if available else None


def quotient(dividend: Any, divisor: Any) -> Any:
    return None if dividend is None or divisor is None or divisor <= 0 else Fraction(dividend) / Fraction(divisor)


def times(value: Any, factor: int) -> Any:
    return None if value is None else value * factor


def spend(row: Row, channel: str) -> tuple[Fraction, Fraction] | str | None:
    """Bounds of one post's spend, `contradictory`, or None where nothing is known."""
    intervals = []
    for unit_cost, measure, per in (("cpe", "engagements", 1), ("cpm", "impressions", 1000)):
        cost, count = row[of_channel(channel, unit_cost)], row[of_channel(channel, measure)]
        if cost is not None and count is not None and count > 0:
            low, high = exact(cost) - HALF_A_CENT, exact(cost) + HALF_A_CENT
            intervals.append((max(low, Fraction(0)) * count / per, high * count / per))
    if not intervals:
        return None
    low, high = max(low for low, _ in intervals), min(high for _, high in intervals)
    return (low, high) if low <= high else "contradictory"


def rolled_up(posts: Sequence[Row]) -> list[Row]:
    """The rows of `organic_paid_by_publish_day`, with fractions where it has decimals."""
    return [group_of(rows) for rows in groups_of(posts, GRAIN).values()]


def group_of(rows: list[Row]) -> Row:
    """One group, each of whose rows is a post."""
    group = {name: rows[0][name] for name in GRAIN} | measured_of([[row] for row in rows])
    return group | spend_of(rows, "organic") | spend_of(rows, "paid")


def spend_of(rows: list[Row], channel: str) -> Row:
    spends = [(row, spend(row, channel)) for row in rows]
    bounded = [(row, bounds) for row, bounds in spends if isinstance(bounds, tuple)]
    group: Row = {
        f"{channel}_spend_minimum": total(low for _, (low, _) in bounded),
        f"{channel}_spend_maximum": total(high for _, (_, high) in bounded),
        f"{channel}_spend_posts": len(bounded),
        f"{channel}_spend_contradictory_posts": sum(bounds == "contradictory" for _, bounds in spends),
    }
    for unit_cost, measure, per in (("cpe", "engagements", 1), ("cpm", "impressions", 1000)):
        of_posts = [
            (row[of_channel(channel, measure)], bounds)
            for row, bounds in bounded
            if row[of_channel(channel, measure)] is not None
        ]
        units = total(count for count, _ in of_posts)
        for side, index in (("minimum", 0), ("maximum", 1)):
            cost = total(bounds[index] for _, bounds in of_posts)
            group[f"{channel}_{unit_cost}_{side}"] = times(quotient(cost, units), per)
    return group


# Over more than a day, where a post has a row a day

POST_KEY = ("instance_id", "campaign_id", "post_id")
WINDOWS = {"7d": 7, "28d": 28, "90d": 90, "365d": 365, "all": None}
LABELS = ("creator_handle_name", "creator_full_name", "creator_profile_link")


def key_of(row: Row, grain: Sequence[str]) -> tuple[Any, ...]:
    """A group's values, such that they sort: nulls last."""
    return tuple((row[name] is None, "" if row[name] is None else row[name]) for name in grain)


def groups_of(rows: Iterable[Row], grain: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(key_of(row, grain), []).append(row)
    return dict(sorted(groups.items()))


def over_days(rows: Sequence[Row], grain: Sequence[str] = GRAIN) -> list[Row]:
    """The rows of a week or a month."""
    return [
        {name: group[0][name] for name in grain} | measured(group, grain) for group in groups_of(rows, grain).values()
    ]


def measured(rows: list[Row], grain: Sequence[str]) -> Row:
    """All that is measured of one group, whose rows are posts on days."""
    return measured_of([*groups_of(rows, [*POST_KEY, *grain]).values()])


def measured_of(posts: list[list[Row]]) -> Row:
    """The same of posts, each with its rows."""
    rows = [row for post in posts for row in post]
    group: Row = {"posts": len(posts)}
    for metric in DOCUMENT_METRICS:
        if not metric.kind.adds_up:
            continue
        name = f"{metric.channel}_{metric.column.removeprefix('paid_').removesuffix('_generated')}"
        is_money = metric.kind is Kind.MONEY
        values = [row[metric.column] for row in rows]
        group[name] = total(exact(value) if is_money and value is not None else value for value in values)
        group[f"{name}_posts"] = sum(any(row[metric.column] is not None for row in post) for post in posts)
    both = {channel: [results(post, channel) for post in posts] for channel in ("organic", "paid")}
    rates = {}
    for channel, of_posts in both.items():
        of_all = [found for found in of_posts if found is not None]
        rates[channel] = quotient(total(e for e, _ in of_all), total(i for _, i in of_all))
        group[f"{channel}_engagement_rate"] = times(rates[channel], 100)
    for measure in ("engagements", "impressions"):
        organic, paid = group[f"organic_{measure}"], group[f"paid_{measure}"]
        known = organic is not None and paid is not None
        group[f"paid_share_of_{measure}"] = times(quotient(paid, organic + paid), 100) if known else None
    group["paid_lift"] = quotient(rates["paid"], rates["organic"])
    group |= interval(both, rates)
    reports = [{channel: is_of(post, channel) for channel in ("organic", "paid")} for post in posts]
    group["organic_only_posts"] = sum(each["organic"] and not each["paid"] for each in reports)
    group["paid_only_posts"] = sum(each["paid"] and not each["organic"] for each in reports)
    group["both_channels_posts"] = sum(each["paid"] and each["organic"] for each in reports)
    return group


def results(post: list[Row], channel: str) -> tuple[int, int] | None:
    """What a post got in a channel on the days that report both."""
    pairs = [(row[of_channel(channel, "engagements")], row[of_channel(channel, "impressions")]) for row in post]
    pairs = [(e, i) for e, i in pairs if e is not None and i is not None]
    return (sum(e for e, _ in pairs), sum(i for _, i in pairs)) if pairs else None


def is_of(post: list[Row], channel: str) -> bool:
    return any(row[of_channel(channel, each)] is not None for row in post for each in ("engagements", "impressions"))


def interval(both: Mapping[str, list[tuple[int, int] | None]], rates: Mapping[str, Fraction | None]) -> Row:
    """The lift's interval, with the residual of each post written out."""
    nothing: Row = dict.fromkeys(("paid_lift_low", "paid_lift_high", "paid_lift_verdict"))
    sums = {}
    for channel, of_posts in both.items():
        found = [each for each in of_posts if each is not None]
        rate = rates[channel]
        if len(found) <= 30 or rate is None or rate <= 0:
            return nothing
        sums[channel] = (sum(e for e, _ in found), sum(i for _, i in found))
    squares, count = Fraction(0), 0
    for organic, paid in zip(both["organic"], both["paid"], strict=True):
        if organic is None and paid is None:
            continue
        count += 1
        residual = Fraction(0)
        for sign, found, channel in ((1, paid, "paid"), (-1, organic, "organic")):
            if found is not None:
                engagements, impressions = sums[channel]
                rate = Fraction(engagements, impressions)
                residual += sign * (found[0] - rate * found[1]) / engagements
        squares += residual**2
    deviation = math.sqrt(squares * Fraction(count, count - 1))
    assert rates["paid"] is not None
    assert rates["organic"] is not None
    lift = float(rates["paid"] / rates["organic"])
    low, high = lift * math.exp(-1.96 * deviation), lift * math.exp(1.96 * deviation)
    verdict = "paid_better" if low > 1 else "organic_better" if high < 1 else "undecided"
    return {"paid_lift_low": Fraction(low), "paid_lift_high": Fraction(high), "paid_lift_verdict": verdict}


def windows(
    landed: Mapping[str, tuple[Sequence[Row], Mapping[str, Set[date]]]], grain: Sequence[str], changing: Set[str]
) -> list[Row]:
    """The rows of a table of windows: by date basis the posts, each with its `date`, and the days that are there."""
    found = []
    for window, length in WINDOWS.items():
        for basis, (rows, there) in landed.items():
            all_days = [day for days in there.values() for day in days]
            if all_days:
                last = max(all_days)
                first = min(all_days) if length is None else last - timedelta(days=length - 1)
                before = None if length is None else (first - timedelta(days=length), first - timedelta(days=1))
                found += window_of(rows, there, grain, changing, basis, (first, last), before, window)
    return found


def window_of(
    rows: Sequence[Row],
    there: Mapping[str, Set[date]],
    grain: Sequence[str],
    changing: Set[str],
    basis: str,
    days: tuple[date, date],
    before: tuple[date, date] | None,
    window: str,
) -> list[Row]:
    def of_period(period: tuple[date, date] | None) -> dict[tuple[Any, ...], list[Row]]:
        return groups_of([row for row in rows if period and period[0] <= row["date"] <= period[1]], grain)

    def count(period: tuple[date, date] | None, instance_id: str) -> int | None:
        return None if period is None else sum(period[0] <= day <= period[1] for day in there[instance_id])

    now, then = of_period(days), of_period(before)
    found = []
    for key in sorted(now.keys() | then.keys()):
        values = {name: (now.get(key) or then[key])[0][name] for name in grain}
        present = {"days": count(days, values["instance_id"]), "previous_days": count(before, values["instance_id"])}
        measures = period_of(now.get(key, []), grain, present["days"], basis)
        previous = period_of(then.get(key, []), grain, present["previous_days"], basis)
        group = {"window": window, "date_basis": basis, "first_day": days[0], "last_day": days[1], **values, **present}
        group |= measures | {f"previous_{name}": value for name, value in previous.items()}
        for name in changing:
            group[f"{name}_change"] = change(name, measures[name], previous[name], present)
        found.append(group)
    return found


def period_of(rows: list[Row], grain: Sequence[str], days: int | None, basis: str) -> Row:
    """What is measured of a period, in which a group may have no posts, or of which nothing may be there."""
    blank = [{**dict.fromkeys(METRICS_COLUMNS), **dict.fromkeys([*POST_KEY, *grain])}]
    measures = measured(rows or blank, grain)
    spend = {name: value for each in ("organic", "paid") for name, value in spend_of(rows, each).items()}
    measures |= spend if basis == "post_date" else dict.fromkeys(spend)
    if not rows:
        nothing = 0 if days else None
        measures = {
            name: nothing if name.endswith("posts") and (basis == "post_date" or "spend" not in name) else None
            for name in measures
        }
    return measures


METRICS_COLUMNS = [metric.column for metric in DOCUMENT_METRICS]


def change(name: str, now: Any, then: Any, present: Row) -> Any:
    if now is None or then is None or present["days"] != present["previous_days"]:
        return None
    if name.endswith("rate") or "share" in name or name == "paid_lift":
        return Fraction(now) - Fraction(then)
    return times(quotient(Fraction(now) - Fraction(then), then), 100)


def labels(rows: Iterable[Row], label: str) -> Any:
    """What the newest of some rows says that says anything."""
    said = [row for row in rows if row[label] is not None]
    return (
        max(said, key=lambda row: (row["post_date"], row["campaign_id"], row["post_id"], row["date"]))[label]
        if said
        else None
    )
