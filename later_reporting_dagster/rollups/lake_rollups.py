"""Roll up the raw tables of a lake, and compare stored rollups with them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGNS_TABLE,
    FileDamaged,
    Lake,
    LakeUnavailable,
    Partition,
    schema_of,
)
from later_reporting_dagster.lake import tables as lake_tables
from later_reporting_dagster.lake.database import LakeDatabase, ViewContents, open_database
from later_reporting_dagster.rollups import reconciliation, sql_engine
from later_reporting_dagster.rollups.periods import days_of, first_day_of
from later_reporting_dagster.rollups.reconciliation import ROLLUP_RELATION
from later_reporting_dagster.rollups.rollup_tables import RollupTable
from later_reporting_dagster.rollups.sql_engine import FIRST_DAY

# The fetched tables, with the columns of all known metrics; a metric that was not requested is null.
_RAW_TABLES = {raw_table.name: raw_table.table for raw_table in lake_tables.RAW_TABLES}
CAMPAIGN_PERFORMANCE = lake_tables.CAMPAIGN_PERFORMANCE.table
# The tables that windows are made from, beside the one of campaigns.
_WINDOW_SOURCES = (*_RAW_TABLES.values(), CAMPAIGN_PERFORMANCE)

# How many days, weeks or months one query rolls up: their rows are in memory together, outside of DuckDB.
_PERIODS_PER_QUERY = 60


@dataclass(frozen=True, slots=True)
class Campaigns:
    """The rows of the table of campaigns, and why it cannot be read, if so. Without the table, both are empty."""

    rows: pa.Table
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRollups:
    """The window tables, rolled up.

    Attributes:
        contents: the partitions that were read, and the ones that could not be read, by table name.
    """

    tables: Mapping[str, pa.Table]
    contents: ViewContents
    campaigns: Campaigns


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodRollup:
    """One day, week or month, rolled up.

    Attributes:
        first_day: identifies the partition.
        rows: None if the partition has no raw files, or one of them cannot be read.
        unreadable: errors of the raw files that could not be read.
    """

    first_day: date
    rows: pa.Table | None
    partitions: Collection[Partition]
    unreadable: Sequence[LakeUnavailable | FileDamaged]


def read_campaigns(lake: Lake) -> Campaigns:
    """Read the table of campaigns. It is small: one row per campaign."""
    schema = schema_of(CAMPAIGN_COLUMNS)
    try:
        rows = lake.read_table(CAMPAIGNS_TABLE, schema=schema)
    except FileDamaged as error:
        return Campaigns(schema.empty_table(), str(error))
    return Campaigns(schema.empty_table() if rows is None else rows)


def roll_up_lake_windows(lake: Lake, tables: Sequence[RollupTable], *, memory_gb: float) -> WindowRollups:
    """Roll up window tables and tables about posts. Files that cannot be read are left out.

    The windows of each date basis end with the newest day of its raw table.
    """
    campaigns = read_campaigns(lake)
    with open_database(lake, memory_gb=memory_gb) as database:

        def roll_up(contents: ViewContents) -> WindowRollups:
            database.connection.register(CAMPAIGNS_TABLE, campaigns.rows)
            sql_engine.register_stored_files(database.connection, contents.partitions)
            rows = sql_engine.roll_up_tables(database.connection, tables)
            return WindowRollups(tables=rows, contents=contents, campaigns=campaigns)

        return database.read([(table, None) for table in _WINDOW_SOURCES], roll_up)


def check_lake_windows(
    lake: Lake, tables: Sequence[RollupTable], rows: Mapping[str, pa.Table], *, memory_gb: float
) -> dict[str, list[str]]:
    """Compare the rows of window tables, given by table name, with the raw tables of the lake.

    Returns:
        By table name, one sentence for each raw file that cannot be read and each total that differs.
    """
    with open_database(lake, memory_gb=memory_gb) as database:

        def check(contents: ViewContents) -> dict[str, list[str]]:
            sql_engine.register_stored_files(database.connection, contents.partitions)
            with sql_engine.translated_errors():
                sql_engine.prepare_posts(database.connection, tables[0])
                database.connection.execute(sql_engine.render("window_ranges.sql", tables[0])).fetchall()
                differences = reconciliation.check_windows(database.connection, tables, rows)
            unreadable = [str(error) for errors in contents.unreadable.values() for error in errors.values()]
            return {name: [*unreadable, *sentences] for name, sentences in differences.items()}

        return database.read([(source, None) for source in _WINDOW_SOURCES], check)


def roll_up_lake_periods(
    lake: Lake, table: RollupTable, first_days: Sequence[date], *, memory_gb: float
) -> Iterator[PeriodRollup]:
    """Roll up the days, weeks or months that begin on `first_days`, several with one query."""
    days = [day for first_day in first_days for day in days_of(table.cadence, first_day)]
    by_first_day: dict[date, list[Partition]] = {first_day: [] for first_day in first_days}
    for partition in lake.partitions(table.raw_table, days=days):
        by_first_day[first_day_of(table.cadence, partition.day)].append(partition)
    for start in range(0, len(first_days), _PERIODS_PER_QUERY):
        batch = {first_day: by_first_day[first_day] for first_day in first_days[start : start + _PERIODS_PER_QUERY]}
        with open_database(lake, memory_gb=memory_gb) as database:
            yield from _roll_up_batch(database, table, batch)


def check_lake_periods(
    lake: Lake, table: RollupTable, first_days: Sequence[date], *, memory_gb: float
) -> dict[date, list[str]]:
    """Compare stored days, weeks or months, which begin on `first_days`, with the raw rows.

    Returns:
        By first day, one sentence for each file that cannot be read and each total that differs, if there are any.
    """
    raw_table = _RAW_TABLES[table.raw_table]
    days = [day for first_day in first_days for day in days_of(table.cadence, first_day)]
    with open_database(lake, memory_gb=memory_gb) as database:

        def check(contents: ViewContents) -> dict[date, list[str]]:
            with sql_engine.translated_errors():
                database.connection.execute(sql_engine.duckdb_macros())
                database.connection.execute(
                    f"CREATE OR REPLACE VIEW {ROLLUP_RELATION} AS"
                    f" SELECT date AS {FIRST_DAY}, * EXCLUDE (date) FROM {table.name}"
                )
                differences = reconciliation.check_periods(database.connection, table)
            sentences: dict[date, list[str]] = {}
            for errors in contents.unreadable.values():
                for partition, error in errors.items():
                    sentences.setdefault(first_day_of(table.cadence, partition.day), []).append(str(error))
            for first_day, of_partition in differences.items():
                sentences.setdefault(first_day, []).extend(of_partition)
            return sentences

        raw_partitions = lake.partitions(raw_table.name, days=days)
        return database.read([(raw_table, raw_partitions), (table.table, [*map(Partition, first_days)])], check)


def _roll_up_batch(
    database: LakeDatabase, table: RollupTable, by_first_day: Mapping[date, Sequence[Partition]]
) -> Iterator[PeriodRollup]:
    raw_table = _RAW_TABLES[table.raw_table]

    def roll_up(contents: ViewContents) -> tuple[pa.Table, Mapping[Partition, LakeUnavailable | FileDamaged]]:
        sql_engine.register_stored_files(database.connection, contents.partitions)
        return sql_engine.roll_up_periods(database.connection, table), contents.unreadable[raw_table.name]

    raw_partitions = [partition for partitions in by_first_day.values() for partition in partitions]
    rows, unreadable = database.read([(raw_table, raw_partitions)], roll_up)
    for first_day, partitions in by_first_day.items():
        errors = [unreadable[partition] for partition in partitions if partition in unreadable]
        of_partition = rows.filter(pc.field(FIRST_DAY) == first_day).drop_columns([FIRST_DAY])
        # If a file cannot be read, the rows of the other files would look complete although some are missing.
        is_complete = partitions and not errors
        yield PeriodRollup(
            first_day=first_day, rows=of_partition if is_complete else None, partitions=partitions, unreadable=errors
        )
