"""Posts to report on, drawn from a seed, and the report's data made from them by way of a lake."""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any

import pyarrow as pa

from later_reporting_dagster.contract import METRICS, Metric
from later_reporting_dagster.lake import Lake, Partition, posts_schema
from later_reporting_dagster.report.report_data import METRICS_TABLE, PUBLISHED_TABLE, ReportData, SetAside, read_report

TABLES = (METRICS_TABLE, PUBLISHED_TABLE)
AS_OF = date(2024, 3, 5)
INSTANCES = ("007", "acme & <sons>", "zoë")
# Each instance has campaigns of these ids, which are others than another's.
CAMPAIGNS = (49_761, 49_802, 49_843)
CONTENT_TYPES = ("instagram_reel", "instagram_story", "tiktok", "twitter", "mastodon_toot", None)

Row = dict[str, Any]
Cell = tuple[str, date, str]


def day_before(days: int) -> date:
    """The day that is so many days older than the newest."""
    return AS_OF - timedelta(days=days)


def row(**fields: Any) -> Row:
    """One post, without metrics unless they are given."""
    blank: Row = dict.fromkeys(posts_schema(METRICS).names)
    named = {"instance_id": "a", "campaign_id": 1, "post_id": 1, "post_date": datetime(2024, 1, 3, tzinfo=UTC)}
    return blank | named | {"platform": "tiktok", "content_type": "tiktok"} | fields


def drawn_rows(seed: int, *, days: int = 70, most_posts: int = 3) -> dict[Cell, list[Row]]:
    """Rows by table, day and instance, some cells without any: posts that are in one campaign or two, and recorded on
    days from that of their publication on, with metrics that are null, 0 or more."""
    random = Random(seed)
    cells: dict[Cell, list[Row]] = {
        (table, day_before(age), instance_id): []
        for table in TABLES
        for age in range(days)
        for instance_id in INSTANCES
    }
    for instance_id in INSTANCES:
        for age in range(days):
            for _ in range(random.randint(0, most_posts)):
                post = _drawn_post(random, day_before(age), instance_id)
                for campaign_id in random.sample(CAMPAIGNS, random.choice([1, 1, 1, 2])):
                    of_campaign = post | {"campaign_id": campaign_id}
                    cells[PUBLISHED_TABLE, day_before(age), instance_id].append(of_campaign | _drawn_metrics(random))
                    for later in {age, random.randint(0, age), random.randint(0, age)}:
                        cells[METRICS_TABLE, day_before(later), instance_id].append(
                            of_campaign | _drawn_metrics(random)
                        )
    return cells


def _drawn_post(random: Random, day: date, instance_id: str) -> Row:
    content_type = random.choice(CONTENT_TYPES)
    creator = random.choice([None, *range(1, 25)])
    platform = (content_type or "").partition("_")[0]
    return row(
        instance_id=instance_id,
        post_id=random.randint(1, 10**9),
        post_date=datetime.combine(day, time(), UTC),
        content_type=content_type,
        platform=platform if platform in {"instagram", "tiktok", "twitter"} else None,
        creator_id=creator,
        creator_content_type=content_type,
        creator_full_name=f"Creator № {creator} of {instance_id}" if creator else None,
        creator_handle_name=f"handle{creator}",
        creator_profile_link=f"https://{platform}.example/{creator}",
    )


def _drawn_metrics(random: Random) -> Row:
    """Metrics whose unit costs are of one cost, mostly, and are rounded to two decimals as the API does."""
    metrics: Row = {"estimated_value_generated": random.choice([None, 0.0, random.randint(0, 10_000) / 100])}
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
    return metrics


def report_data(
    cells: dict[Cell, list[Row]],
    *,
    registered: Iterable[str] = (),
    set_aside: Sequence[SetAside] = (),
    metrics: Sequence[Metric] = METRICS,
) -> ReportData:
    """The data of a report as of the newest of the cells' days."""
    schema = posts_schema(METRICS)
    by_table: dict[str, dict[Partition, pa.Table]] = defaultdict(dict)
    for (table, day, instance_id), rows in cells.items():
        by_table[table][Partition(day, instance_id)] = pa.Table.from_pylist(rows, schema=schema)
    with tempfile.TemporaryDirectory() as directory:
        lake = Lake(directory)
        for table, partitions in by_table.items():
            lake.write_all(table, partitions)
        return read_report(
            lake,
            {table: list(partitions) for table, partitions in by_table.items()},
            memory_gb=1,
            metrics=metrics,
            registered=registered,
            set_aside=set_aside,
        )


def without(cells: dict[Cell, list[Row]], *, day: date, instance_id: str, tables: Sequence[str] = TABLES) -> None:
    """Takes a day of an instance away, as if it had never landed."""
    for table in tables:
        del cells[table, day, instance_id]


def one_post(**fields: Any) -> dict[Cell, list[Row]]:
    """Seven complete days of one instance, of which the newest has one post, the same in both tables."""
    cells: dict[Cell, list[Row]] = {(table, day_before(age), "a"): [] for table in TABLES for age in range(7)}
    for table in TABLES:
        cells[table, AS_OF, "a"] = [row(campaign_id=7, creator_id=1, **fields)]
    return cells
