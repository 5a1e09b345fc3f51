"""Random posts, and the data of a report that is computed from them through a lake."""

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from random import Random
from typing import Any

import pyarrow as pa

from later_reporting_dagster.contract import CAMPAIGN_METRICS, METRICS, Metric
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGNS_TABLE,
    Lake,
    Partition,
    campaign_performance_columns,
    posts_schema,
    schema_of,
)
from later_reporting_dagster.report.report_data import (
    METRICS_TABLE,
    PUBLISHED_TABLE,
    QuarantinedRows,
    ReportData,
    read_report,
)

TABLES = (METRICS_TABLE, PUBLISHED_TABLE)
AS_OF = date(2024, 3, 5)
INSTANCES = ("007", "acme & <sons>", "zoë")
# Every instance has campaigns with these ids; equal ids of two instances are different campaigns.
CAMPAIGNS = (49_761, 49_802, 49_843)
CONTENT_TYPES = ("instagram_reel", "instagram_story", "tiktok", "twitter", "mastodon_toot", None)

Row = dict[str, Any]
FileKey = tuple[str, date, str]  # (table, day, instance)


def day_before(days: int) -> date:
    """Return the day a number of days before the newest."""
    return AS_OF - timedelta(days=days)


def row(**fields: Any) -> Row:
    """Return the row of a post. By default it has no metrics."""
    blank: Row = dict.fromkeys(posts_schema(METRICS).names)
    named = {"instance_id": "a", "campaign_id": 1, "post_id": 1, "post_date": datetime(2024, 1, 3, tzinfo=UTC)}
    return blank | named | {"platform": "tiktok", "content_type": "tiktok"} | fields


def campaign_row(instance_id: str, campaign_id: int, name: str | None, **fields: Any) -> Row:
    """Return a row of the table `campaigns`. By default it has only what a row must have."""
    seen = {"first_seen": AS_OF, "last_seen": AS_OF, "listed_now": True}
    return {"instance_id": instance_id, "campaign_id": campaign_id, "campaign_name": name} | seen | fields


def random_files(seed: int, *, days: int = 70, most_posts: int = 3) -> dict[FileKey, list[Row]]:
    """Return random rows by table, day and instance; some files have none.

    Posts are in one campaign or two. They are recorded on their publication day and up to two later days, with metrics
    that are null, 0 or more.
    """
    random = Random(seed)
    files: dict[FileKey, list[Row]] = {
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
                    files[PUBLISHED_TABLE, day_before(age), instance_id].append(of_campaign | _drawn_metrics(random))
                    for later in {age, random.randint(0, age), random.randint(0, age)}:
                        files[METRICS_TABLE, day_before(later), instance_id].append(
                            of_campaign | _drawn_metrics(random)
                        )
    return files


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


def with_own_campaigns(files: dict[FileKey, list[Row]]) -> dict[FileKey, list[Row]]:
    """Return the files with campaign ids that belong to one instance each, except the last of CAMPAIGNS."""
    return {
        key: [each | {"campaign_id": own_campaign(each["instance_id"], each["campaign_id"])} for each in rows]
        for key, rows in files.items()
    }


def own_campaign(instance_id: str, campaign_id: int) -> int:
    """Return the id that `with_own_campaigns` gives to a campaign."""
    return campaign_id + (0 if campaign_id == CAMPAIGNS[-1] else 1000 * INSTANCES.index(instance_id))


def random_performance(seed: int, campaign_ids: Sequence[int], *, days: int = 70) -> dict[date, list[Row]]:
    """Return random rows of campaign_performance_daily by day. Some days, rows and values are missing."""
    random = Random(seed)
    found: dict[date, list[Row]] = {}
    for age in range(-1, days):
        if random.random() < 0.8:
            found[day_before(age)] = [
                {"campaign_id": each} | _drawn_totals(random) for each in campaign_ids if random.random() < 0.7
            ]
    return found


def _drawn_totals(random: Random) -> Row:
    def drawn(most: int, *, per: int = 1) -> float | int | None:
        value = random.choice([None, 0, random.randint(0, most), random.randint(0, most)])
        return value if value is None or per == 1 else value / per

    money = ("paid_ad_spend", "estimated_content_cost", "estimated_value_generated", "tracking_links_conversion_value")
    counts = ("paid_clicks", "tracking_links_conversions", "affiliate_links_conversions")
    ratios = ("paid_return_on_ad_spend", "affiliate_links_sales")
    return (
        {name: drawn(900_000, per=100) for name in money}
        | {name: drawn(500) for name in counts}
        | {name: drawn(999, per=100) for name in ratios}
    )


def _drawn_metrics(random: Random) -> Row:
    """Return metrics. Most unit costs are derived from one cost and rounded to two decimals, as the API does."""
    metrics: Row = {"estimated_value_generated": random.choice([None, 0.0, random.randint(0, 10_000) / 100])}
    for channel in ("", "paid_"):
        available = random.random() < 0.8
        for count, most in (("impressions", 20_000), ("engagements", 900)):
            value = random.choice([None, 0, random.randint(0, most), random.randint(0, most)])
            metrics[channel + count] = value if available else None
        cost = random.randint(0, 90_000) / 100
        for unit_cost, count, per in (("cpe", "engagements", 1), ("cpm", "impressions", 1000)):
            value = metrics[channel + count]
            rounded = round(cost / value * per, 2) if value else None
            metrics[channel + unit_cost] = random.choice([rounded, rounded, rounded, None, 3.21])
    return metrics


def report_data(
    files: dict[FileKey, list[Row]],
    *,
    registered: Iterable[str] = (),
    quarantined: Sequence[QuarantinedRows] = (),
    metrics: Sequence[Metric] = METRICS,
    campaigns: Sequence[Row] | None = None,
    performance: Mapping[date, Sequence[Row]] | None = None,
) -> ReportData:
    """Write the files to a lake, and return the data of a report up to their newest day.

    Args:
        files: rows of the raw tables.
        registered: instances that are expected.
        quarantined: rows in quarantine.
        metrics: metrics whose coverage is shown.
        campaigns: rows of the table `campaigns`; None if it is absent.
        performance: rows of campaign_performance_daily by day.
    """
    schema = posts_schema(METRICS)
    by_table: dict[str, dict[Partition, pa.Table]] = defaultdict(dict)
    for (table, day, instance_id), rows in files.items():
        by_table[table][Partition(day, instance_id)] = pa.Table.from_pylist(rows, schema=schema)
    with tempfile.TemporaryDirectory() as directory:
        lake = Lake(directory)
        for table, partitions in by_table.items():
            lake.write_all(table, partitions)
        if campaigns is not None:
            lake.write_table(CAMPAIGNS_TABLE, pa.Table.from_pylist(campaigns, schema=schema_of(CAMPAIGN_COLUMNS)))
        schema = schema_of(campaign_performance_columns(CAMPAIGN_METRICS))
        for day, rows in (performance or {}).items():
            lake.write(CAMPAIGN_PERFORMANCE_TABLE, Partition(day), pa.Table.from_pylist(rows, schema=schema))
        return read_report(
            lake,
            {table: list(partitions) for table, partitions in by_table.items()},
            memory_gb=1,
            metrics=metrics,
            registered=registered,
            quarantined=quarantined,
        )


def remove_day(files: dict[FileKey, list[Row]], *, day: date, instance_id: str, tables: Sequence[str] = TABLES) -> None:
    """Remove the files of a day of an instance."""
    for table in tables:
        del files[table, day, instance_id]


def one_post(**fields: Any) -> dict[FileKey, list[Row]]:
    """Return seven complete days of one instance. The newest day has one post, the same in both tables."""
    files: dict[FileKey, list[Row]] = {(table, day_before(age), "a"): [] for table in TABLES for age in range(7)}
    for table in TABLES:
        files[table, AS_OF, "a"] = [row(campaign_id=7, creator_id=1, **fields)]
    return files
