"""What each table of the page should show for a selection, from the rollup tables: rows by name, cells by heading.

It shares nothing with the page's query and script. A cell is a number, a text or None;
headings without values may be left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product
from statistics import median
from typing import Any

from tests.rollups.reference import Row

Rows = dict[str, Row]  # by name
CHANNELS = ("organic", "paid")
RATES = {"Organic rate": "organic_engagement_rate", "Paid rate": "paid_engagement_rate"}
# The headings of cost and of its part for creators: of known costs, and of what Later totals for a month.
KNOWN_COSTS = ("Known cost", "Creators, posts of known cost")
TOTALLED_COSTS = ("Cost so far", "Creators, as Later totals")
NETWORKS = {"tiktok": "TikTok", "youtube": "YouTube", "x": "X", None: "Other"}
BOOKED_AGE, BOOKED_POSTS = 90, 5
MOST_MONTHS = 13


@dataclass(frozen=True)
class Selection:
    """A choice of the page's filters; None is all."""

    window: str
    instance: str | None = None
    campaign: tuple[str, int] | None = None

    @property
    def of_instance(self) -> str | None:
        return self.campaign[0] if self.campaign else self.instance

    def has(self, row: Row) -> bool:
        """Return whether a row is of the chosen instance."""
        return bool(row["instance_id"]) and self.of_instance in (None, row["instance_id"])

    def has_post(self, post: Row) -> bool:
        return self.has(post) and (self.campaign is None or self.campaign[1] in post["campaign_ids"])


@dataclass(frozen=True)
class ExpectedPage:
    """The rows of each rollup table; the page has `instances`."""

    tables: Mapping[str, Sequence[Row]]
    instances: Sequence[str]

    def rows(self, table: str, at: Selection, **values: Any) -> list[Row]:
        rows = [row for row in self.tables[table] if row.get("time_window", at.window) == at.window]
        return [row for row in rows if all(row[name] == value for name, value in values.items())]

    def overall(self, at: Selection) -> Row:
        """Return the row of the chosen instance, or of all: of a campaign, that of its instance."""
        return next(iter(self.rows("organic_paid_overall", at, instance_id=at.of_instance or "")), {})

    def days(self, at: Selection) -> tuple[date, date]:
        (row,) = self.rows("organic_paid_overall", at, scope="all")
        return row["first_day"], row["last_day"]

    def results(self, at: Selection) -> Row:
        """Return the row of the selection; empty if it has no results."""
        if not at.campaign:
            return self.overall(at)
        instance, campaign = at.campaign
        found = self.rows("organic_paid_by_campaign", at, instance_id=instance, campaign_id=campaign)
        return found[0] if found else {}

    def is_compared(self, at: Selection) -> bool:
        """Return whether all days of the period and of the one before are there."""
        row = self.overall(at)
        before = (row["previous_last_day"] - row["previous_first_day"]).days + 1
        return bool(row["days"] == row["days_expected"] and row["previous_days"] == before)

    def figures(self, at: Selection) -> Row:
        """Return the five figures, and what creators cost, by name."""
        row, published = self.results(at), self.posts_published(at)
        known = [post["content_cost"] for post in published if post["content_cost"] is not None]
        cost = self.total_cost(at)[0] if at.window == "last_month" else None
        cost = cost if cost is not None else add(known)
        return {
            "cost": add([cost, row.get("ad_spend")]),
            "creators_cost": cost,
            "ad_spend": row.get("ad_spend"),
            **{
                name: add(row.get(f"{channel}_{name}") for channel in CHANNELS)
                for name in ("impressions", "engagements")
            },
            **{name: row.get(name) for name in RATES.values()},
        }

    def total_cost(self, at: Selection, month: date | None = None) -> tuple[float | None, int | None]:
        """Return what Later totals for the campaigns of a month, by default of the period, and their posts."""
        month = month or self.days(at)[0]
        rows = [row for row in self.tables["campaigns_monthly"] if row["month"] == month and at.has(row)]
        rows = [row for row in rows if at.campaign in (None, (row["instance_id"], row["campaign_id"]))]
        rows = [row for row in rows if row["published_content_cost"] is not None]
        return add(row["published_content_cost"] for row in rows), add(row["published_posts"] for row in rows)

    def posts_published(self, at: Selection) -> list[Row]:
        """Return the posts that were published on days of the period that the lake has."""
        first, last = self.days(at)
        found = [row for row in self.tables["posts"] if row["is_published"] and at.has_post(row)]
        return [row for row in found if first <= row["post_date"].date() <= last]

    @property
    def known_campaigns(self) -> set[tuple[str, int]]:
        return {
            (row["instance_id"], row["campaign_id"])
            for table in ("organic_paid_by_campaign", "campaign_results")
            for row in self.tables[table]
            if row["instance_id"] is not None
        }

    def campaigns(self, at: Selection) -> Rows:
        if at.campaign:
            return {}
        rows = {}
        for instance, campaign in self.known_campaigns:
            one = Selection(at.window, None, (instance, campaign))
            if at.has({"instance_id": instance}):
                shown = self.results(one) or self.posts_published(one) or self.figures(one)["cost"] is not None
                rows |= {self.detail(at, instance, campaign): self.cells(one, at)} if shown else {}
        return rows | ({"": self.cells(at, at)} if rows else {})

    def detail(self, at: Selection, instance: str, campaign: int) -> str:
        """Return what stands beside a campaign's name: its id, with its instance if several are shown."""
        return str(campaign) if at.of_instance or len(self.instances) == 1 else f"{instance} · {campaign}"

    def cells(self, of: Selection, at: Selection) -> Row:
        """Return the cells of a campaign, or of all posts, in the table of a selection."""
        figures = self.figures(of)
        is_totalled = at.window == "last_month" and self.total_cost(at)[0] is not None
        cost, creators = TOTALLED_COSTS if is_totalled else KNOWN_COSTS
        return {
            cost: figures["cost"], creators: figures["creators_cost"],
            "Ads": figures["ad_spend"], "Impressions": figures["impressions"], "Engagements": figures["engagements"],
            **{head: figures[name] for head, name in RATES.items()},
        }  # fmt: skip

    def networks(self, at: Selection) -> Rows:
        if at.campaign:
            first, last = self.days(at)
            rows = [row for row in self.daily(at) if first <= row["first_day"] <= last]
            found = {
                name: sums([row for row in rows if row["platform"] == name]) for name in {r["platform"] for r in rows}
            }
        else:
            of_instance = self.rows("organic_paid_by_platform", at, instance_id=at.of_instance or "")
            found = {row["platform"]: row for row in of_instance}
        published = self.posts_published(at)
        cells = {}
        for name, row in found.items():
            costs = [post["content_cost"] for post in published if post["platform"] == name]
            cells[NETWORKS.get(name) or str(name).capitalize()] = {
                KNOWN_COSTS[1]: add(costs), "Ads": row["ad_spend"],
                "Impressions": add(row[f"{channel}_impressions"] for channel in CHANNELS),
                "Paid share of impressions": share(*(row[f"{channel}_impressions"] for channel in CHANNELS)),
                "Paid CPM": quotient(
                    row["ad_spend_with_paid_impressions"], row["paid_impressions_with_ad_spend"], 1000
                ),
                "Per paid engagement": quotient(
                    row["ad_spend_with_paid_engagements"], row["paid_engagements_with_ad_spend"]
                ),
                **{head: row[column] for head, column in RATES.items()},
            }  # fmt: skip
        return cells

    def daily(self, at: Selection) -> list[Row]:
        """Return the rows by day of the chosen campaign or instance, or of all."""
        if not at.campaign:
            return [row for row in self.tables["organic_paid_daily"] if at.has(row)]
        rows = self.tables["organic_paid_daily_by_campaign"]
        return [row for row in rows if (row["instance_id"], row["campaign_id"]) == at.campaign]

    def over_time(self, at: Selection) -> Rows:
        """Return the days of the period, of at most 90 days, from the oldest one with results."""
        first, last = self.days(at)
        oldest = max(first, min(row["first_day"] for row in self.tables["organic_paid_daily"]))
        days = [oldest + timedelta(days=number) for number in range((last - oldest).days + 1)]
        found = {}
        for day in days:
            row = sums([row for row in self.daily(at) if row["first_day"] == day])
            counts = product(("impressions", "engagements"), CHANNELS)
            cells = {f"{channel.capitalize()} {name}": row[f"{channel}_{name}"] for name, channel in counts}
            rates = {head: row[column] for head, column in RATES.items()}
            found[f"{day.day} {day:%b} {day.year}"] = cells | rates | {"Ad spend": row["ad_spend"]}
        return found

    def months(self, at: Selection) -> Rows:
        """Return the calendar months that have results, with Later's total of a month whose first day the lake has."""
        if at.campaign:
            return {}
        rows = self.daily(at)
        oldest = min(row["first_day"] for row in self.tables["organic_paid_daily"])
        found = {}
        for month in sorted({row["first_day"].replace(day=1) for row in rows}, reverse=True)[:MOST_MONTHS]:
            row = sums([row for row in rows if row["first_day"].replace(day=1) == month])
            cost = self.total_cost(at, month)[0] if oldest <= month else None
            found[f"{month:%B %Y}"] = {
                TOTALLED_COSTS[0]: None if cost is None else add([cost, row["ad_spend"]]),
                TOTALLED_COSTS[1]: cost, "Ads": row["ad_spend"],
                "Impressions": add(row[f"{channel}_impressions"] for channel in CHANNELS),
                "Engagements": add(row[f"{channel}_engagements"] for channel in CHANNELS),
                **{head: row[column] for head, column in RATES.items()},
            }  # fmt: skip
        return found

    def creators(self, at: Selection) -> list[Row]:
        if at.campaign:
            return []
        return [
            {
                "Creator": row["creator_full_name"] or "Unknown creator",
                "Posts": row["posts"],
                **{f"{channel.capitalize()} impressions": row[f"{channel}_impressions"] for channel in CHANNELS},
                **{head: row[name] for head, name in RATES.items()},
            }
            for row in self.rows("organic_paid_by_creator", at)
            if at.has(row)
        ]

    def booked(self, at: Selection) -> list[Row]:
        """Return the creators with enough ranked posts, best first."""
        posts = [post for post in self.tables["posts"] if post["is_published"] and at.has_post(post)]
        posts = [post for post in posts if post["age"] < BOOKED_AGE and post["creator_id"] is not None]
        found = []
        for instance, creator in {(post["instance_id"], post["creator_id"]) for post in posts}:
            of_creator = [post for post in posts if (post["instance_id"], post["creator_id"]) == (instance, creator)]
            ranks = [post["organic_engagement_rate_percentile"] for post in of_creator]
            ranks = [rank for rank in ranks if rank is not None]
            costs = [post["content_cost"] for post in of_creator]
            if len(ranks) >= BOOKED_POSTS:
                found.append({"Median rank": median(ranks), "Known cost, of their posts": add(costs)})
        return sorted(found, key=lambda row: -row["Median rank"])

    def boost(self, at: Selection) -> list[Row]:
        ranks = ("organic_impressions_percentile", "organic_engagement_rate_percentile")
        found = [
            row
            for row in self.tables["posts"]
            if at.has_post(row)
            and row["age"] <= 14 and not row["paid_impressions"] and not row["paid_engagements"]
            and row["first_paid_day"] is None and "story" not in (row["content_type"] or "")
            and row["content_type"] != "facebook_group"
            and all((row[rank] or 0) >= 75 for rank in ranks)
        ]  # fmt: skip
        return [
            {
                "Organic impressions": row["organic_impressions"],
                "Organic rate": row["organic_engagement_rate"],
                "Peers": row["peers"],
            }
            for row in found
        ]


def sums(rows: Sequence[Row]) -> Row:
    """Return the sums of the columns that add up over rows, None over nothing, and the rates that follow from them."""
    names = [f"{channel}_{name}" for channel, name in product(CHANNELS, ("impressions", "engagements"))]
    names += [f"{channel}_rate_{name}" for channel, name in product(CHANNELS, ("impressions", "engagements"))]
    names += ["ad_spend", "ad_spend_with_paid_impressions", "paid_impressions_with_ad_spend"]
    names += ["ad_spend_with_paid_engagements", "paid_engagements_with_ad_spend"]
    row = {name: add(row[name] for row in rows) for name in names}
    for channel in CHANNELS:
        parts = row[f"{channel}_rate_engagements"], row[f"{channel}_rate_impressions"]
        row[f"{channel}_engagement_rate"] = quotient(*parts, 100)
    return row


def quotient(dividend: Any, divisor: Any, factor: int = 1) -> float | None:
    return factor * float(dividend) / float(divisor) if dividend is not None and divisor and divisor > 0 else None


def share(organic: Any, paid: Any) -> float | None:
    """Return the percentage that is paid; None if a channel has none."""
    return None if organic is None or paid is None else quotient(paid, organic + paid, 100)


def add(values: Iterable[Any]) -> Any:
    """Return the sum of the values that are not None; None over nothing."""
    known = [float(value) for value in values if value is not None]
    return sum(known) if known else None
