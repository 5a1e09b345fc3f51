"""Compare the two raw tables over settled posts, whose daily metrics must add up to their metrics to date.

A post is settled once `settled_after_days` days have been recorded after the day on which it was published.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa

from later_reporting_dagster.contract import DEFAULT_METRICS
from later_reporting_dagster.lake import (
    POST_COLUMNS,
    POST_KEY,
    Lake,
    LakeDatabase,
    Partition,
    Table,
    ViewContents,
    open_database,
)
from later_reporting_dagster.lake.tables import POST_METRICS_DAILY, POSTS_PUBLISHED

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


@dataclass(frozen=True, slots=True)
class MetricSums:
    """The total of a metric over all settled posts, from each raw table; None if no row has a value.

    Attributes:
        sum_of_days: from `post_metrics_daily`.
        to_date: from `posts_published`.
    """

    sum_of_days: float | None
    to_date: float | None

    @property
    def difference_percent(self) -> float | None:
        """By how many percent the sum of days differs from the metric to date; None if undefined."""
        if self.sum_of_days is None or self.to_date is None:
            return None
        if self.sum_of_days == self.to_date:
            return 0.0
        return 100 * (self.sum_of_days - self.to_date) / self.to_date if self.to_date else None

    @property
    def agree(self) -> bool:
        """Whether both are equal within the tolerance.

        Null counts as 0, because a day without a row may mean null or 0.
        """
        sum_of_days, to_date = self.sum_of_days or 0.0, self.to_date or 0.0
        return abs(sum_of_days - to_date) <= abs(to_date) * TOLERANCE_PERCENT / 100


@dataclass(frozen=True, slots=True)
class SettledPostsComparison:
    """The comparison of the two raw tables.

    Attributes:
        posts: number of settled posts.
        posts_that_differ: number of settled posts that differ in any metric by more than the tolerance.
        sums: totals by metric column.
    """

    posts: int
    posts_that_differ: int
    sums: Mapping[str, MetricSums]


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


def compare_settled_posts(
    lake: Lake, *, settled_after_days: int, memory_gb: float, published: tuple[date, date] | None = None
) -> SettledPostsComparison:
    """Compare the summed days of settled posts with their metrics to date.

    Args:
        lake: where both raw tables are stored. Files that cannot be read are skipped.
        memory_gb: memory limit of DuckDB, in GB.
        published: the first and the last publish day of the posts to compare; default: all.
    """
    first, last = published or (date.min, date.max)
    files_to_read = {
        POST_METRICS_DAILY: [each for each in lake.partitions(POST_METRICS_DAILY.name) if first <= each.day],
        POSTS_PUBLISHED: [each for each in lake.partitions(POSTS_PUBLISHED.name) if first <= each.day <= last],
    }
    with open_database(lake, memory_gb=memory_gb) as database:

        def compare(files: ViewContents) -> SettledPostsComparison:
            recorded, published = (files.partitions[table.name] for table in (POST_METRICS_DAILY, POSTS_PUBLISHED))
            ranges = settled_day_ranges(recorded, published, settled_after_days=settled_after_days)
            return _compare(database, ranges)

        tables = [(Table(table.name, POST_COLUMNS), partitions) for table, partitions in files_to_read.items()]
        return database.read(tables, compare)


def _compare(database: LakeDatabase, ranges: Mapping[str, tuple[date, date]]) -> SettledPostsComparison:
    schema = pa.schema({"instance_id": pa.string(), "first_day": pa.date32(), "last_day": pa.date32()})
    rows = [dict(zip(schema.names, (instance_id, *days), strict=True)) for instance_id, days in ranges.items()]
    database.connection.register("settled", pa.Table.from_pylist(rows, schema))
    (row,) = database.connection.sql(_COMPARISON).to_arrow_table().to_pylist()
    sums = {name: MetricSums(row[f"{name}_of_days"], row[f"{name}_to_date"]) for name in _METRICS}
    return SettledPostsComparison(row["posts"], row["posts_that_differ"], sums)
