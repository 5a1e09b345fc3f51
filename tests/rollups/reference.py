"""What the rollups promise, said slowly and plainly over Python's exact fractions."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import groupby
from typing import Any

GRAIN = ("instance_id", "campaign_id", "platform", "content_type")
HALF_A_CENT = Fraction(5, 1000)

Row = dict[str, Any]


def of_channel(channel: str, measure: str) -> str:
    return measure if channel == "organic" else f"paid_{measure}"


def exact(value: float) -> Fraction:
    """A decimal as it was written: 0.1 is a tenth."""
    return Fraction(repr(value))


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

    def key(row: Row) -> tuple[Any, ...]:
        return tuple((row[name] is None, row[name] if row[name] is not None else "") for name in GRAIN)

    return [group_of(list(rows)) for _, rows in groupby(sorted(posts, key=key), key=key)]


def group_of(rows: list[Row]) -> Row:
    group: Row = {name: rows[0][name] for name in GRAIN} | {"posts": len(rows)}
    for channel in ("organic", "paid"):
        for measure in ("engagements", "impressions"):
            values = [row[of_channel(channel, measure)] for row in rows]
            group[f"{channel}_{measure}"] = total(values)
            group[f"{channel}_{measure}_posts"] = sum(value is not None for value in values)
        both = [
            (row[of_channel(channel, "engagements")], row[of_channel(channel, "impressions")])
            for row in rows
            if row[of_channel(channel, "engagements")] is not None
            and row[of_channel(channel, "impressions")] is not None
        ]
        rate = quotient(total(e for e, _ in both), total(i for _, i in both))
        group[f"{channel}_engagement_rate"] = times(rate, 100)
        group |= spend_of(rows, channel)
    for measure in ("engagements", "impressions"):
        organic, paid = group[f"organic_{measure}"], group[f"paid_{measure}"]
        known = organic is not None and paid is not None
        group[f"paid_share_of_{measure}"] = times(quotient(paid, organic + paid), 100) if known else None
    group["paid_lift"] = quotient(group["paid_engagement_rate"], group["organic_engagement_rate"])
    values = [row["estimated_value_generated"] for row in rows]
    group["organic_estimated_value"] = total(None if value is None else exact(value) for value in values)
    group["organic_estimated_value_posts"] = sum(value is not None for value in values)
    return group


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
