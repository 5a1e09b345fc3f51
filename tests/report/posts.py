"""Raw rows to report on, drawn from a seed, and the report's data made from them, with no lake."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from later_reporting_dagster.report.data import REPORTED_SCHEMA, Gathering, ReportData, SetAside
from tests.rollups.conftest import row

METRICS_TABLE, PUBLISHED_TABLE = "post_metrics_daily", "posts_published"
TABLES = (METRICS_TABLE, PUBLISHED_TABLE)
AS_OF = date(2024, 3, 5)
INSTANCES = ("007", "acme & <sons>", "zoë")
CAMPAIGNS = (49_761, 49_802, 49_843)
CONTENT_TYPES = ("instagram_reel", "instagram_story", "tiktok", "twitter", "mastodon_toot", None)

Row = dict[str, Any]
Cell = tuple[str, date, str]


def day_before(days: int) -> date:
    """The day that is so many days older than the newest."""
    return AS_OF - timedelta(days=days)


def drawn_rows(seed: int, *, days: int = 70, most_posts: int = 3) -> dict[Cell, list[Row]]:
    """Rows by table, day and instance: some cells without rows, metrics that are null, 0 or more."""
    random = Random(seed)
    return {
        (table, day_before(age), instance_id): [
            drawn_row(random, day_before(age), instance_id) for _ in range(random.randint(0, most_posts))
        ]
        for table in TABLES
        for age in range(days)
        for instance_id in INSTANCES
    }


def drawn_row(random: Random, day: date, instance_id: str) -> Row:
    """A post whose unit costs are of one cost, mostly, and are rounded to two decimals as the API does."""
    content_type = random.choice(CONTENT_TYPES)
    creator = random.choice([None, *range(1, 40)])
    metrics: Row = {}
    for channel in ("", "paid_"):
        available = random.random() < 0.8
        for count, most in (("impressions", 20_000), ("engagements", 900)):
            value = random.choice([None, 0, random.randint(0, most), random.randint(0, most)])
            metrics[channel + count] = value if available else None
        cost = random.randint(0, 90_000) / 100
        for unit_cost, count, per in (("cpe", "engagements", 1), ("cpm", "impressions", 1000)):
            value = metrics[channel + count]
            told = round(cost / value * per, 2) if value else None
            metrics[channel + unit_cost] = random.choice([told, told, told, None, 3.21])
    platform = (content_type or "").partition("_")[0]
    return row(
        instance_id=instance_id,
        campaign_id=random.choice(CAMPAIGNS),
        post_id=random.randint(1, 10**9),
        post_date=datetime.combine(day, time(), UTC),
        content_type=content_type,
        platform=platform if platform in {"instagram", "tiktok", "twitter"} else None,
        creator_id=creator,
        creator_content_type=content_type,
        creator_full_name=f"Creator № {creator}" if creator else None,
        creator_handle_name=f"handle{creator}",
        creator_profile_link=f"https://{platform}.example/{creator}",
        estimated_value_generated=random.choice([None, 0.0, random.randint(0, 10_000) / 100]),
        **metrics,
    )


def report_data(
    cells: dict[Cell, list[Row]], *, registered: Iterable[str] = (), set_aside: Sequence[SetAside] = ()
) -> ReportData:
    """The data of a report as of the newest of the cells' days."""
    by_day: dict[tuple[str, date], dict[str, pa.Table]] = defaultdict(dict)
    for (table, day, instance_id), rows in cells.items():
        by_day[table, day][instance_id] = pa.Table.from_pylist(rows, schema=REPORTED_SCHEMA)
    gathering = Gathering(max(day for _, day, _ in cells))
    for (table, day), posts in by_day.items():
        gathering.add(table, day, posts)
    return gathering.data(registered=registered, set_aside=set_aside)


def without(cells: dict[Cell, list[Row]], *, day: date, instance_id: str, tables: Sequence[str] = TABLES) -> None:
    """Takes a day of an instance away, as if it had never landed."""
    for table in tables:
        del cells[table, day, instance_id]


def picked(
    cells: dict[Cell, list[Row]],
    table: str,
    ages: range,
    *,
    instance_id: str | None = None,
    campaign_id: int | None = None,
) -> list[Row]:
    """The rows of a table of some ages, narrowed, one after the other."""
    return [
        row
        for (of, day, instance), rows in cells.items()
        if of == table and (AS_OF - day).days in ages and instance_id in {None, instance}
        for row in rows
        if campaign_id in {None, row["campaign_id"]}
    ]


def one_post(**fields: Any) -> dict[Cell, list[Row]]:
    """Seven complete days of one instance, of which the newest has one post, the same in both tables."""
    cells: dict[Cell, list[Row]] = {(table, day_before(age), "a"): [] for table in TABLES for age in range(7)}
    for table in TABLES:
        cells[table, AS_OF, "a"] = [row(campaign_id=7, creator_id=1, **fields)]
    return cells


def near(value: Fraction | int | None) -> Any:
    return None if value is None else pytest.approx(float(value), rel=1e-9, abs=1e-4)
