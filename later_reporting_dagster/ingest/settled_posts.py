"""Two tables of one truth: the days of a post add up to its metrics to date, once it is old enough to be settled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa

from later_reporting_dagster.contract import DOCUMENT_METRICS
from later_reporting_dagster.ingest.raw_tables import POST_METRICS_DAILY, POSTS_PUBLISHED, SOURCES
from later_reporting_dagster.lake import (
    POST_COLUMNS,
    POST_KEY,
    Files,
    Lake,
    LakeDatabase,
    Partition,
    Table,
    open_database,
)

# By how much of 100 the two may differ: networks restate late, and money is rounded anew each day.
TOLERANCE_PERCENT = 1.0

_METRICS = [metric.column for metric in DOCUMENT_METRICS if metric.kind.adds_up]
_KEY = ", ".join(POST_KEY)
_DIFFERS = " OR ".join(
    f"abs(coalesce(days.{name}, 0) - coalesce(posts.{name}, 0))"
    f" > abs(coalesce(posts.{name}, 0)) * {TOLERANCE_PERCENT / 100}"
    for name in _METRICS
)
# Sums are floats: none of them wraps.
_SETTLEMENT = f"""
WITH posts AS (
    SELECT {POSTS_PUBLISHED.asset}.*
    FROM {POSTS_PUBLISHED.asset} JOIN settled USING (instance_id)
    WHERE date BETWEEN first_day AND last_day
),
days AS (
    SELECT {_KEY}, {", ".join(f"sum(CAST({name} AS DOUBLE)) AS {name}" for name in _METRICS)}
    FROM {POST_METRICS_DAILY.asset} SEMI JOIN posts USING ({_KEY})
    GROUP BY ALL
)
SELECT
    count(*) AS posts, count(*) FILTER ({_DIFFERS}) AS posts_that_differ,
    {", ".join(f"sum(days.{name}) AS {name}_of_days" for name in _METRICS)},
    {", ".join(f"sum(CAST(posts.{name} AS DOUBLE)) AS {name}_to_date" for name in _METRICS)}
FROM posts LEFT JOIN days USING ({_KEY})
"""


@dataclass(frozen=True, slots=True)
class Sums:
    """A metric of all settled posts, by both tables; None where no post reports it."""

    of_days: float | None
    to_date: float | None

    @property
    def difference_percent(self) -> float | None:
        """By how much of 100 the days differ from the metrics to date; None where one is null, or there is nothing."""
        if self.of_days is None or self.to_date is None:
            return None
        if self.of_days == self.to_date:
            return 0.0
        return 100 * (self.of_days - self.to_date) / self.to_date if self.to_date else None

    @property
    def agree(self) -> bool:
        """Whether they are the same, within tolerance. Null and 0 are: a day without a row says neither."""
        of_days, to_date = self.of_days or 0.0, self.to_date or 0.0
        return abs(of_days - to_date) <= abs(to_date) * TOLERANCE_PERCENT / 100


@dataclass(frozen=True, slots=True)
class Settlement:
    """How the two tables compare: the settled posts, those of them that differ in any metric, and the sums of each."""

    posts: int
    posts_that_differ: int
    sums: Mapping[str, Sums]


def settled_days(
    recorded: Sequence[Partition], published: Sequence[Partition], *, settled_after_days: int
) -> dict[str, tuple[date, date]]:
    """Return by instance the first and last publish day of settled posts that have all their days recorded.

    A post is settled once `settled_after_days` days have been recorded after the day on which it was published. All its
    days are there where none is missing from the first of these on.
    """
    settled, publish_days = {}, _days_by_instance(published)
    for instance_id, there in _days_by_instance(recorded).items():
        last = first = max(there)
        while (before := first - timedelta(days=1)) in there:
            first = before
        last -= timedelta(days=settled_after_days)
        if any(first <= day <= last for day in publish_days.get(instance_id, ())):
            settled[instance_id] = first, last
    return settled


def _days_by_instance(partitions: Sequence[Partition]) -> dict[str, set[date]]:
    days: dict[str, set[date]] = {}
    for partition in partitions:
        days.setdefault(str(partition.instance_id), set()).add(partition.day)
    return days


def settlement(lake: Lake, *, settled_after_days: int, memory_gb: float) -> Settlement:
    """Compare the settled posts: what their recorded days add up to, and their metrics to date.

    Args:
        lake: where both raw tables lie; what cannot be read is left out.
        settled_after_days: as for `settled_days`.
        memory_gb: how much memory the work may take.

    Raises:
        LakeUnavailable: the lake cannot be listed or read.
    """
    with open_database(lake, memory_gb=memory_gb) as database:

        def work(files: Files) -> Settlement:
            recorded, published = (files.partitions[table.asset] for table in (POST_METRICS_DAILY, POSTS_PUBLISHED))
            return _settlement(database, settled_days(recorded, published, settled_after_days=settled_after_days))

        return database.read([(Table(source.asset, POST_COLUMNS), None) for source in SOURCES], work)


def _settlement(database: LakeDatabase, settled: Mapping[str, tuple[date, date]]) -> Settlement:
    schema = pa.schema({"instance_id": pa.string(), "first_day": pa.date32(), "last_day": pa.date32()})
    rows = [dict(zip(schema.names, (name, *days), strict=True)) for name, days in settled.items()]
    database.connection.register("settled", pa.Table.from_pylist(rows, schema))
    (found,) = database.connection.sql(_SETTLEMENT).to_arrow_table().to_pylist()
    sums = {name: Sums(found[f"{name}_of_days"], found[f"{name}_to_date"]) for name in _METRICS}
    return Settlement(found["posts"], found["posts_that_differ"], sums)
