"""The check of settled posts, whose daily metrics must add up to their metrics to date.

A post is settled once `settled_after_days` days have been recorded after the day on which it was published.
"""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import dagster as dg
import pyarrow as pa

from later_reporting_dagster.contract import DEFAULT_METRICS
from later_reporting_dagster.defs.checks.check import WARN, Check
from later_reporting_dagster.lake import POST_COLUMNS, POST_KEY, Lake, Partition, Table, ViewContents, open_database
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_PUBLISHED

DAYS_ADD_UP = Check(
    "days_add_up_to_metrics_to_date",
    "The days of post_metrics_daily add up to the metrics to date, for posts old enough to be settled.",
    severity=WARN,
    nothing=(
        f"No post is settled yet. A post is settled when {POST_METRICS_DAILY.name} has every day since its publication,"
        f" at least as many as are restated, and {POSTS_PUBLISHED.name} has the day of its publication"
    ),
    is_daily=True,
)
# Allowed difference in percent: networks restate late, and money is rounded again for each day.
TOLERANCE_PERCENT = 1.0

_METRICS = [metric.column for metric in DEFAULT_METRICS if metric.kind.is_additive]
_KEY = ", ".join(POST_KEY)
_DIFFERS = " OR ".join(
    f"abs(coalesce(days.{name}, 0) - coalesce(posts.{name}, 0))"
    f" > abs(coalesce(posts.{name}, 0)) * {TOLERANCE_PERCENT / 100}"
    for name in _METRICS
)
# The sums are DOUBLE because DuckDB sums BIGINT to HUGEINT, which Arrow returns as a Python Decimal.
_COMPARISON = f"""
WITH posts AS (
    SELECT {POSTS_PUBLISHED.name}.*
    FROM {POSTS_PUBLISHED.name} JOIN settled USING (instance_id)
    WHERE date BETWEEN first_day AND last_day
),
days AS (
    SELECT {_KEY}, {", ".join(f"sum(CAST({name} AS DOUBLE)) AS {name}" for name in _METRICS)}
    FROM {POST_METRICS_DAILY.name} SEMI JOIN posts USING ({_KEY})
    GROUP BY ALL
)
SELECT
    count(*) AS posts, count(*) FILTER ({_DIFFERS}) AS posts_that_differ,
    {", ".join(f"sum(days.{name}) AS {name}_of_days" for name in _METRICS)},
    {", ".join(f"sum(CAST(posts.{name} AS DOUBLE)) AS {name}_to_date" for name in _METRICS)}
FROM posts LEFT JOIN days USING ({_KEY})
"""


def compare_settled_posts(
    lake: Lake, *, settled_after_days: int, memory_gb: float, published: tuple[date, date] | None = None
) -> dg.AssetCheckResult:
    """Compare the summed days of settled posts with their metrics to date. Files that cannot be read are skipped.

    `settled_after_days` are the days to be recorded after the publish day. `published` are the first and the last
    publish day of the posts to compare; default: all.
    """
    first, last = published or (date.min, date.max)
    files_to_read = {
        POST_METRICS_DAILY: [each for each in lake.partitions(POST_METRICS_DAILY.name) if first <= each.day],
        POSTS_PUBLISHED: [each for each in lake.partitions(POSTS_PUBLISHED.name) if first <= each.day <= last],
    }
    with open_database(lake, memory_gb=memory_gb) as database:

        def compare(files: ViewContents) -> dict[str, float | None]:
            recorded, published = (files.partitions[table.name] for table in (POST_METRICS_DAILY, POSTS_PUBLISHED))
            ranges = settled_day_ranges(recorded, published, settled_after_days=settled_after_days)
            schema = pa.schema({"instance_id": pa.string(), "first_day": pa.date32(), "last_day": pa.date32()})
            rows = [dict(zip(schema.names, (instance_id, *days), strict=True)) for instance_id, days in ranges.items()]
            database.connection.register("settled", pa.Table.from_pylist(rows, schema))
            (sums,) = database.connection.sql(_COMPARISON).to_arrow_table().to_pylist()
            return dict(sums)

        tables = [(Table(table.name, POST_COLUMNS), partitions) for table, partitions in files_to_read.items()]
        sums = database.read(tables, compare)
    totals = {name: (sums[f"{name}_of_days"], sums[f"{name}_to_date"]) for name in _METRICS}
    return evaluate_totals(totals, posts=int(sums["posts"] or 0), differ=int(sums["posts_that_differ"] or 0))


def evaluate_totals(
    totals: Mapping[str, tuple[float | None, float | None]], *, posts: int, differ: int
) -> dg.AssetCheckResult:
    """Evaluate the sum of days and the sum to date of each metric over all settled posts.

    Null, the sum of no values, counts as 0, because a day without a row may mean null or 0. The metadata has each
    difference, in percent.
    """
    differing, percents = [], {}
    for name, (of_days, to_date) in totals.items():
        difference = (of_days or 0.0) - (to_date or 0.0)
        if abs(difference) > abs(to_date or 0.0) * TOLERANCE_PERCENT / 100:
            differing.append(name)
        if of_days is not None and to_date is not None and (to_date or not difference):
            percents[f"difference_percent/{name}"] = round(100 * difference / (to_date or 1.0), 6)
    return DAYS_ADD_UP.result(
        not differing,
        f"{', '.join(differing)} of {posts} settled posts differ by over {TOLERANCE_PERCENT:g} %",
        otherwise=f"The days of {posts} settled posts add up to their metrics to date",
        looked_at={"posts": posts},
        posts_that_differ=differ,
        **percents,
        sums=dg.MetadataValue.json(
            {name: {"sum_of_days": of_days, "to_date": to_date} for name, (of_days, to_date) in totals.items()}
        ),
    )


def settled_day_ranges(
    recorded: Sequence[Partition], published: Sequence[Partition], *, settled_after_days: int
) -> dict[str, tuple[date, date]]:
    """Return the first and the last publish day of settled posts that can be compared, by instance.

    Both days are in the newest run of recorded days without a gap, so that every day of these posts is recorded. The
    result leaves out instances without a publish day in that range.

    Args:
        settled_after_days: days to be recorded after the publish day.
    """
    ranges, publish_days = {}, _days_by_instance(published)
    for instance_id, recorded_days in _days_by_instance(recorded).items():
        last = first = max(recorded_days)
        while (before := first - timedelta(days=1)) in recorded_days:
            first = before
        last -= timedelta(days=settled_after_days)
        if any(first <= day <= last for day in publish_days.get(instance_id, ())):
            ranges[instance_id] = first, last
    return ranges


def _days_by_instance(partitions: Sequence[Partition]) -> dict[str, set[date]]:
    days: dict[str, set[date]] = {}
    for partition in partitions:
        days.setdefault(str(partition.instance_id), set()).add(partition.day)
    return days
