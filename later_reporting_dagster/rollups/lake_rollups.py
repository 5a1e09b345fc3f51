"""Roll up the raw tables of a lake, and compare stored rollups with them."""

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

import pyarrow as pa

from later_reporting_dagster.contract import METRICS, DateBasis
from later_reporting_dagster.lake import (
    FileDamaged,
    Lake,
    LakeDatabase,
    LakeUnavailable,
    Partition,
    Table,
    ViewContents,
    open_database,
    post_columns,
)
from later_reporting_dagster.rollups import reconciliation, sql_engine
from later_reporting_dagster.rollups.campaign_inputs import (
    CAMPAIGN_PERFORMANCE,
    Campaigns,
    read_campaigns,
    register_campaigns,
)
from later_reporting_dagster.rollups.periods import Period, days_of, first_day_of
from later_reporting_dagster.rollups.reconciliation import ROLLUP_RELATION
from later_reporting_dagster.rollups.rollup_tables import RAW_TABLE_NAMES, RollupTable
from later_reporting_dagster.rollups.sql_engine import FIRST_DAY, StoredDays

_Item = TypeVar("_Item", bound=Hashable)

# Date basis -> its raw table, with the columns of all known metrics.
_RAW_TABLES = {date_basis: Table(name, post_columns(METRICS)) for date_basis, name in RAW_TABLE_NAMES.items()}

# The tables that windows are made from, beside the one of campaigns.
_WINDOW_SOURCES = (*_RAW_TABLES.values(), CAMPAIGN_PERFORMANCE)

# Bytes of raw files that one query may read per GB of memory. Windows take more memory than days, weeks and months:
# their sums by post are kept in tables that all window tables read.
_FILE_BYTES_PER_MEMORY_GB_FOR_WINDOWS = 65_000_000
_FILE_BYTES_PER_MEMORY_GB_FOR_PERIODS = 250_000_000


def stored_days(contents: ViewContents) -> StoredDays:
    """Return the days of the raw tables that have a file, by date basis and instance."""
    days: dict[DateBasis, dict[str, set[date]]] = {}
    for date_basis, raw_table in RAW_TABLE_NAMES.items():
        for partition in contents.partitions.get(raw_table, ()):
            days.setdefault(date_basis, {}).setdefault(str(partition.instance_id), set()).add(partition.day)
    return days


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRollups:
    """The window tables, rolled up.

    Attributes:
        tables: rows, by table name.
        raw_rows: number of rows, by table that was read.
        contents: the partitions of these tables that were read, and the ones that could not be read.
        campaigns: the table of campaigns.
    """

    tables: Mapping[str, pa.Table]
    raw_rows: Mapping[str, int]
    contents: ViewContents
    campaigns: Campaigns


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodRollup:
    """One day, week or month, rolled up.

    Attributes:
        first_day: identifies the partition.
        rows: None if the partition has no raw files, or one of them cannot be read.
        raw_rows: number of raw rows.
        partitions: its raw partitions.
        unreadable: errors of the raw files that could not be read.
    """

    first_day: date
    rows: pa.Table | None
    raw_rows: int
    partitions: Collection[Partition]
    unreadable: Sequence[LakeUnavailable | FileDamaged]


def roll_up_lake_windows(lake: Lake, tables: Sequence[RollupTable], *, memory_gb: float) -> WindowRollups:
    """Roll up window tables and tables about posts. Files that cannot be read are left out.

    The windows of each date basis end with the newest day of its raw table.

    Raises:
        LakeUnavailable: the lake cannot be listed or read.
        RollupFailed: the query does not fit in memory.
    """
    campaigns = read_campaigns(lake)
    with open_database(lake, memory_gb=memory_gb) as database:

        def roll_up(contents: ViewContents) -> WindowRollups:
            campaign_days = [partition.day for partition in contents.partitions[CAMPAIGN_PERFORMANCE.name]]
            register_campaigns(database.connection, campaigns.rows, campaign_days)
            of_posts = [table for table in tables if table.period is Period.POSTS]
            windows = [table for table in tables if table.period is Period.WINDOWS]
            stored = stored_days(contents)
            rows = sql_engine.roll_up_posts(database.connection, of_posts, stored)
            if windows:
                batches = _instance_batches(database, contents, memory_gb=memory_gb)
                rows |= sql_engine.roll_up_windows(database.connection, windows, stored, instance_batches=batches)
            counts = {}
            for table in _WINDOW_SOURCES:
                (count,) = sql_engine.query_rows(database.connection, f"SELECT count(*) AS rows FROM {table.name}")
                counts[table.name] = count["rows"]
            return WindowRollups(tables=rows, raw_rows=counts, contents=contents, campaigns=campaigns)

        return database.read([(table, None) for table in _WINDOW_SOURCES], roll_up)


def check_lake_windows(
    lake: Lake, tables: Sequence[RollupTable], rows: Mapping[str, pa.Table], *, memory_gb: float
) -> tuple[dict[str, list[str]], int]:
    """Compare the rows of window tables, given by table name, with the raw tables of the lake.

    Returns:
        By table name, one sentence for each raw file that cannot be read and each total that differs; and the number of
        (post, day) pairs, over both date bases, for which campaigns report different numbers.

    Raises:
        LakeUnavailable: the lake cannot be listed or read.
        RollupFailed: the query does not fit in memory.
    """
    with open_database(lake, memory_gb=memory_gb) as database:

        def check(contents: ViewContents) -> tuple[dict[str, list[str]], int]:
            # All instances at once, not in batches as for the rollup: the queries keep only the ids of all posts and
            # the rows of posts in several campaigns, and DuckDB can spill.
            stored = stored_days(contents)
            with sql_engine.translated_errors():
                sql_engine.prepare_windows(database.connection, tables[0], stored)
                sql_engine.find_multi_campaign_posts(database.connection, tables[0])
                conflicts = sql_engine.count_campaign_conflicts(database.connection)
                differences = reconciliation.check_windows(database.connection, tables, rows, stored)
            unreadable = [str(error) for errors in contents.unreadable.values() for error in errors.values()]
            return {name: [*unreadable, *sentences] for name, sentences in differences.items()}, conflicts

        return database.read([(source, None) for source in _WINDOW_SOURCES], check)


def roll_up_lake_periods(
    lake: Lake, table: RollupTable, first_days: Sequence[date], *, memory_gb: float
) -> Iterator[PeriodRollup]:
    """Roll up days, weeks or months. One query rolls up as many of them as fit in memory.

    Args:
        lake: has the raw table.
        table: a table of days, weeks or months.
        first_days: the first day of each partition, ascending.
        memory_gb: memory limit of the query.

    Raises:
        LakeUnavailable: the lake cannot be listed or read.
        RollupFailed: the query does not fit in memory.
    """
    days = [day for first_day in first_days for day in days_of(table.period, first_day)]
    partitions = lake.partitions(table.raw_table, days=days)
    sizes = lake.sizes(table.raw_table, partitions)
    by_first_day: dict[date, list[Partition]] = {first_day: [] for first_day in first_days}
    for partition in partitions:
        by_first_day[first_day_of(table.period, partition.day)].append(partition)
    weights = {first_day: sum(sizes.get(each, 0) for each in files) for first_day, files in by_first_day.items()}
    for batch in batched_by_weight(weights, limit=memory_gb * _FILE_BYTES_PER_MEMORY_GB_FOR_PERIODS):
        with open_database(lake, memory_gb=memory_gb) as database:
            yield from _roll_up_batch(database, table, {first_day: by_first_day[first_day] for first_day in batch})


def check_lake_periods(
    lake: Lake, table: RollupTable, first_days: Sequence[date], *, memory_gb: float
) -> dict[date, list[str]]:
    """Compare stored partitions of days, weeks or months with the raw rows.

    Args:
        lake: has the raw table and the partitions.
        table: a table of days, weeks or months.
        first_days: the first day of each partition; all have to be stored.
        memory_gb: memory limit of the query.

    Returns:
        By the first day of a partition, one sentence for each file that cannot be read and each total that differs.
        Partitions without any are left out.

    Raises:
        LakeUnavailable: the lake cannot be listed or read.
        RollupFailed: the query does not fit in memory.
    """
    raw_table = _RAW_TABLES[table.date_basis]
    rollup_table = Table(table.name, table.columns)
    days = [day for first_day in first_days for day in days_of(table.period, first_day)]
    with open_database(lake, memory_gb=memory_gb) as database:

        def check(contents: ViewContents) -> dict[date, list[str]]:
            # All partitions at once, not in batches as for the rollup: the queries keep only one row per partition.
            with sql_engine.translated_errors():
                sql_engine.create_macros_and_row_views(database.connection, table, stored_days(contents), ())
                database.connection.execute(
                    f"CREATE OR REPLACE VIEW {ROLLUP_RELATION} AS"
                    f" SELECT date AS {FIRST_DAY}, * EXCLUDE (date) FROM {table.name}"
                )
                differences = reconciliation.check_periods(database.connection, table)
            sentences: dict[date, list[str]] = {}
            for errors in contents.unreadable.values():
                for partition, error in errors.items():
                    sentences.setdefault(first_day_of(table.period, partition.day), []).append(str(error))
            for first_day, of_partition in differences.items():
                sentences.setdefault(first_day, []).extend(of_partition)
            return sentences

        raw_partitions = lake.partitions(raw_table.name, days=days)
        return database.read([(raw_table, raw_partitions), (rollup_table, [*map(Partition, first_days)])], check)


def batched_by_weight(weights: Mapping[_Item, float], *, limit: float) -> Iterator[list[_Item]]:
    """Yield the items in order, in batches of at most `limit` weight. A heavier item is a batch of its own."""
    batch: list[_Item] = []
    total = 0.0
    for item, weight in weights.items():
        if batch and total + weight > limit:
            yield batch
            batch, total = [], 0.0
        batch.append(item)
        total += weight
    if batch:
        yield batch


def _instance_batches(database: LakeDatabase, contents: ViewContents, *, memory_gb: float) -> Iterator[None]:
    """Restrict the raw tables to one batch of instances after another; at the end, remove the restriction."""
    weights: Counter[str] = Counter()
    for raw_table in RAW_TABLE_NAMES.values():
        for partition, size in database.lake.sizes(raw_table, contents.partitions[raw_table]).items():
            weights[str(partition.instance_id)] += size
    limit = memory_gb * _FILE_BYTES_PER_MEMORY_GB_FOR_WINDOWS
    # Without files, there is one batch without instances.
    for instances in [*batched_by_weight(dict(sorted(weights.items())), limit=limit)] or [[]]:
        for raw_table in RAW_TABLE_NAMES.values():
            database.set_view_instances(raw_table, instances)
        yield
    for raw_table in RAW_TABLE_NAMES.values():
        database.set_view_instances(raw_table, None)


def _roll_up_batch(
    database: LakeDatabase, table: RollupTable, by_first_day: Mapping[date, Sequence[Partition]]
) -> Iterator[PeriodRollup]:
    raw_table = _RAW_TABLES[table.date_basis]
    raw_partitions = [partition for partitions in by_first_day.values() for partition in partitions]

    def roll_up(contents: ViewContents) -> tuple[ViewContents, pa.Table, Mapping[date, int]]:
        rows = sql_engine.roll_up_periods(database.connection, table, stored_days(contents))
        counts = sql_engine.query_rows(
            database.connection, f"SELECT date, count(*) AS raw_rows FROM {raw_table.name} GROUP BY ALL"
        )
        return contents, rows, {each["date"]: each["raw_rows"] for each in counts}

    contents, rows, raw_rows = database.read([(raw_table, raw_partitions)], roll_up)
    partition_rows = sql_engine.partition_rows_getter(rows, table.columns)
    unreadable = contents.unreadable.get(raw_table.name, {})
    for first_day, partitions in by_first_day.items():
        errors = [unreadable[partition] for partition in partitions if partition in unreadable]
        yield PeriodRollup(
            first_day=first_day,
            # If a file cannot be read, the rows of the other files would look complete although some are missing.
            rows=None if errors or not partitions else partition_rows(first_day),
            raw_rows=sum(raw_rows.get(day, 0) for day in {partition.day for partition in partitions}),
            partitions=partitions,
            unreadable=errors,
        )
