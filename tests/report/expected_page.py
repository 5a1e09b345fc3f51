"""What each table of the page should show for a selection, from the rollup tables: rows by name, cells by heading.

It shares nothing with the page's query and script. A cell is a number, a text or None;
headings without values may be left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product
from typing import Any

from tests.rollups.reference import Row

Rows = dict[str, Row]  # by name
RESULTS = {
    "Posts": "posts",
    "Organic impressions": "organic_impressions",
    "Paid impressions": "paid_impressions",
    "Organic rate": "organic_engagement_rate",
    "Paid rate": "paid_engagement_rate",
    "Rate ratio": "rate_ratio",
}
TOTALS = {
    "Reach": "reach",
    "Ad spend": "ad_spend",
    "Return on ad spend": "return_on_ad_spend",
    "Conversions by links": "tracking_links_conversions",
    "Paid clicks": "paid_clicks",
}
CHANNELS = ("organic", "paid")
ONCE = "Posts once"
NETWORK = "Network, content type"


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


@dataclass(frozen=True)
class ExpectedPage:
    """The rows of each rollup table; the page has `instances`."""

    tables: Mapping[str, Sequence[Row]]
    instances: Sequence[str]

    def rows(self, table: str, at: Selection, **values: Any) -> list[Row]:
        rows = [row for row in self.tables[table] if row.get("time_window", at.window) == at.window]
        return [row for row in rows if all(row[name] == value for name, value in values.items())]

    def days(self, at: Selection) -> tuple[date, date]:
        (row,) = self.rows("organic_paid_overall", at, scope="all")
        return row["first_day"], row["last_day"]

    def overall(self, at: Selection) -> Row:
        return next(iter(self.rows("organic_paid_overall", at, instance_id=at.of_instance or "")), {})

    def suffix(self, at: Selection, instance: str) -> str:
        return f" · {instance}" if at.of_instance is None and len(self.instances) > 1 else ""

    def totals(self, at: Selection, instance: str, campaign: int) -> Row:
        """Return what Later totals for a campaign, if it covers the same days as the posts beside it."""
        found = self.rows("campaign_results", at, instance_id=instance, campaign_id=campaign)
        of_instance = self.rows("organic_paid_overall", at, instance_id=instance)
        is_same = found and of_instance and of_instance[0]["days"] == of_instance[0]["days_expected"]
        is_same = is_same and all(found[0][name] == of_instance[0][name] for name in ("first_day", "last_day"))
        return {head: found[0][name] if is_same else None for head, name in TOTALS.items()}

    def figures(self, at: Selection) -> Row:
        """Return the key figures by the name of their measure."""
        row = dict(self.overall(at))
        if at.campaign:
            instance, campaign = at.campaign
            found = self.rows("organic_paid_by_campaign", at, instance_id=instance, campaign_id=campaign)
            row = dict(found[0]) if found else {}
            totals = self.totals(at, instance, campaign)
            row |= {name: totals.get(head) for head, name in TOTALS.items()}
        sides = [row.get(f"{channel}_engagements") for channel in CHANNELS]
        both = None if None in sides or sum(sides) == 0 else 100 * sides[1] / sum(sides)
        return row | {"paid_share_of_engagements": both}

    def campaigns(self, at: Selection) -> Rows:
        found = {}
        for row in self.rows("organic_paid_by_campaign", at):
            key = row["instance_id"], row["campaign_id"]
            if at.has(row) and at.campaign in (None, key):
                cells = {head: row[name] for head, name in RESULTS.items()} | self.totals(at, *key)
                cells["Ad spend per engagement"] = row["ad_spend_per_engagement"]
                found[f"{row['campaign_id']}{self.suffix(at, row['instance_id'])}"] = cells
        for row in self.rows("campaign_results", at):
            key = row["instance_id"], row["campaign_id"]
            name = f"{row['campaign_id']}{self.suffix(at, row['instance_id'])}"
            if at.has(row) and at.campaign in (None, key) and name not in found:
                totals = self.totals(at, *key)
                if totals["Ad spend"] is not None:
                    found[name] = dict.fromkeys(RESULTS) | totals
        overall = self.overall(at)
        once = {head: overall.get(name) for head, name in RESULTS.items()}
        once |= {"Ad spend": overall.get("ad_spend"), "Ad spend per engagement": overall.get("ad_spend_per_engagement")}
        return found | ({} if at.campaign or not found else {ONCE: once})

    def parts(self, at: Selection) -> list[Row]:
        """Return the networks and content types, or of a campaign the networks, without an order."""
        if at.campaign:
            first, last = self.days(at)
            rows = [
                row
                for row in self.tables["organic_paid_daily_by_campaign"]
                if (row["instance_id"], row["campaign_id"]) == at.campaign and first <= row["first_day"] <= last
            ]
            return [
                {NETWORK: text(name)} | results(rates(add_up([row for row in rows if row["platform"] == name])))
                for name in {row["platform"] for row in rows}
            ]
        found = []
        for kind in ("platform", "content_type"):
            for row in self.rows(f"organic_paid_by_{kind}", at, instance_id=at.of_instance or ""):
                cells = {NETWORK: text(row[kind])} | {head: row[name] for head, name in RESULTS.items()}
                cells |= {"Same-post rate ratio": row["same_post_rate_ratio"]}
                found.append(cells | {"Posts with both rates": row["same_posts"]})
        return found

    def bars(self, at: Selection) -> dict[str, str]:
        """Return how each bar's tooltip ends: with the posts that its rate has, or of a campaign, impressions."""
        found, unit = {}, "impression" if at.campaign else "post"
        rows = (
            self.parts(at)
            if at.campaign
            else self.rows("organic_paid_by_platform", at, instance_id=at.of_instance or "")
        )
        for row, channel in product(rows, CHANNELS):
            name = row[NETWORK] if at.campaign else text(row["platform"])
            rate = row[f"{channel.capitalize()} rate"] if at.campaign else row[f"{channel}_engagement_rate"]
            number = row[f"{channel}_rate_{unit}s"]
            of = "not available" if rate is None else f" of {number:,} {unit}{'' if number == 1 else 's'}"
            found[f"{name}, {channel}"] = of
        return found

    def creators(self, at: Selection, *, least_posts: int) -> list[Row]:
        found = [row for row in self.rows("organic_paid_by_creator", at) if at.has(row) and row["posts"] >= least_posts]
        return [
            {
                "Creator": (row["creator_full_name"] or "Unknown creator") + self.suffix(at, row["instance_id"]),
                "Handle": row["creator_handle_name"],
                **{head: row[name] for head, name in RESULTS.items()},
            }
            for row in found
        ]

    def posts_published(self, at: Selection) -> list[Row]:
        """Return the posts that were published on days of the period that the lake has."""
        first, last = self.days(at)
        found = [row for row in self.tables["posts"] if row["is_published"] and at.has(row)]
        found = [row for row in found if at.campaign is None or at.campaign[1] in row["campaign_ids"]]
        return [row for row in found if first <= row["post_date"].date() <= last]

    def cost(self, at: Selection) -> Row:
        return cost_of(self.posts_published(at))

    def published(self, at: Selection) -> Rows:
        """Return what posts cost that were published in the period, by campaign, and once."""
        found = self.posts_published(at)
        campaigns = {(row["instance_id"], campaign) for row in found for campaign in row["campaign_ids"]}
        by_name = {
            f"{campaign}{self.suffix(at, instance)}": [
                row for row in found if row["instance_id"] == instance and campaign in row["campaign_ids"]
            ]
            for instance, campaign in campaigns
            if at.campaign in (None, (instance, campaign)) and (instance, campaign) in self.known_campaigns
        }
        once = {} if at.campaign or not by_name else {ONCE: found}
        return {name: cost_of(rows) for name, rows in (by_name | once).items()}

    @property
    def known_campaigns(self) -> set[tuple[str, int]]:
        return {
            (row["instance_id"], row["campaign_id"])
            for table in ("organic_paid_by_campaign", "campaign_results")
            for row in self.tables[table]
            if row["instance_id"] is not None
        }

    def over_time(self, at: Selection) -> Rows:
        """Return the days of the period, of at most 90 days, from the oldest one with results."""
        table = "organic_paid_daily_by_campaign" if at.campaign else "organic_paid_daily"
        first, last = self.days(at)
        oldest = max(first, min(row["first_day"] for row in self.tables["organic_paid_daily"]))
        rows = [row for row in self.tables[table] if at.has(row)]
        if at.campaign:
            rows = [row for row in rows if (row["instance_id"], row["campaign_id"]) == at.campaign]
        days = [oldest + timedelta(days=number) for number in range((last - oldest).days + 1)]
        return {str(day): rates(add_up([row for row in rows if row["first_day"] == day])) for day in days}

    def boost(self, at: Selection) -> list[Row]:
        ranks = ("organic_impressions_percentile", "organic_engagement_rate_percentile")
        found = [
            row
            for row in self.tables["posts"]
            if at.has(row) and (at.campaign is None or at.campaign[1] in row["campaign_ids"])
            and row["age"] <= 14 and not row["paid_impressions"] and not row["paid_engagements"]
            and row["first_paid_day"] is None and "story" not in (row["content_type"] or "")
            and row["content_type"] != "facebook_group"
            and all((row[rank] or 0) >= 75 for rank in ranks)
        ]  # fmt: skip
        return [
            {
                "Published": str(row["post_date"].date()),
                "Organic impressions": row["organic_impressions"],
                "Organic rate": row["organic_engagement_rate"],
                "Peers": row["peers"],
            }
            for row in found
        ]


def text(name: str | None) -> str:
    return (name or "other").replace("_", " ")


def add_up(rows: Iterable[Row]) -> Row:
    """Return the sums of the counts of rows; None over nothing."""
    rows, names = [*rows], ("impressions", "engagements", "rate_impressions", "rate_engagements")
    sums = {}
    for name in (f"{channel}_{name}" for channel, name in product(CHANNELS, names)):
        values = [row[name] for row in rows if row[name] is not None]
        sums[name] = sum(values) if values else None
    return sums


def rates(sums: Row) -> Row:
    """Return the cells of counts and rates, by heading, and the impressions that the rates have."""
    cells: Row = {f"{channel}_rate_impressions": sums[f"{channel}_rate_impressions"] for channel in CHANNELS}
    for channel in CHANNELS:
        label, units = channel.capitalize(), sums[f"{channel}_rate_impressions"]
        cells |= {f"{label} {name}": sums[f"{channel}_{name}"] for name in ("impressions", "engagements")}
        cells[f"{label} rate"] = 100 * sums[f"{channel}_rate_engagements"] / units if units and units > 0 else None
    return cells


def results(cells: Row) -> Row:
    """Return the cells of `rates` that a table of networks has: without engagements, with the ratio."""
    organic, paid = cells["Organic rate"], cells["Paid rate"]
    ratio = paid / organic if paid is not None and organic is not None and organic > 0 else None
    return {head: value for head, value in cells.items() if "engagements" not in head} | {"Rate ratio": ratio}


def cost_of(posts: Sequence[Row]) -> Row:
    """Return the cost of published posts: of the known costs, per engagement over the posts that have both."""
    known = [row for row in posts if row["content_cost"] is not None]
    both = [row for row in known if row["organic_engagements"] is not None]
    cost, engagements = (sum(row[name] for row in both) for name in ("content_cost", "organic_engagements"))
    return {
        "Posts published": len(posts) or None,
        "Content cost so far": sum(row["content_cost"] for row in known) if known else None,
        "Posts of unknown cost": len(posts) - len(known) if posts else None,
        "Content cost per organic engagement": cost / engagements if engagements > 0 else None,
    }
