"""Roll up the raw tables of a lake."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.instances import Marks
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGN_PERIODS_TABLE,
    CAMPAIGNS_TABLE,
    FileDamaged,
    FileVersion,
    Lake,
    LakeUnavailable,
    Partition,
    schema_of,
)
from later_reporting_dagster.lake.campaign_owners import CampaignOwners
from later_reporting_dagster.lake.database import LakeDatabase, ViewContents
from later_reporting_dagster.lake.file_metadata import MadeFrom
from later_reporting_dagster.lake.retired import rows_in_numbers
from later_reporting_dagster.lake.tables import CAMPAIGN_PERIODS, POST_METRICS_DAILY, RAW_TABLES
from later_reporting_dagster.rollups import sql_engine
from later_reporting_dagster.rollups.made_from import Inputs, list_inputs, periods_without_raw_files
from later_reporting_dagster.rollups.rollup_tables import RollupTable, days_of, first_day_of
from later_reporting_dagster.rollups.sql_engine import FIRST_DAY, open_rollup_database

# How many days, weeks or months one query rolls up: their rows are in memory together, outside of DuckDB.
_PERIODS_PER_QUERY = 60
_OWNERS_SCHEMA = pa.schema({"campaign_id": pa.int64(), "instance_id": pa.string()})


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRollups:
    """The window tables, rolled up.

    Attributes:
        made_from: what each table was made from.
        contents: the partitions that were read, and the ones that could not be read, by table name.
        unreadable_campaigns: why the table of campaigns cannot be read; they are then without names.
        unreadable_periods: why the periods of campaigns cannot be read; the tables made from them are then left out.
    """

    tables: Mapping[str, pa.Table]
    made_from: Mapping[str, MadeFrom]
    contents: ViewContents
    unreadable_campaigns: str
    unreadable_periods: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodRollup:
    """One day, week or month, rolled up.

    Attributes:
        first_day: identifies the partition.
        rows: None if the partition never had raw files, or one of them cannot be read.
        unreadable: errors of the raw files that could not be read.
    """

    first_day: date
    rows: pa.Table | None
    made_from: MadeFrom
    partitions: Collection[Partition]
    unreadable: Sequence[LakeUnavailable | FileDamaged]


def campaign_relations(
    lake: Lake, rows: Iterable[tuple[int, str | None]], *, marks: Marks, database: LakeDatabase
) -> tuple[dict[str, pa.Table], str]:
    """Return relations for the SQL, and why the table of campaigns cannot be read, if so.

    The relations are `campaigns`, those that are in the numbers; `campaign_owners`, the instances of each campaign of
    `rows`; and `retired_campaigns`, of which none of these is in the numbers.

    `rows`: id and `extra` of the campaigns that are rolled up.
    """
    schema, error = schema_of(CAMPAIGN_COLUMNS), ""
    listed = schema.empty_table()
    try:
        listed = lake.read_table(CAMPAIGNS_TABLE, schema=schema) or listed
    except FileDamaged as damage:
        error = str(damage)
    owners = CampaignOwners(lake, database).of(rows)
    pairs = [(campaign_id, name) for campaign_id, names in owners.items() for name in sorted(names)]
    only_retired = [campaign_id for campaign_id, names in owners.items() if names and not marks.in_numbers(names)]
    relations = {
        CAMPAIGNS_TABLE: rows_in_numbers(listed, marks),
        "campaign_owners": pa.Table.from_pylist(
            [{"campaign_id": campaign_id, "instance_id": name} for campaign_id, name in pairs], _OWNERS_SCHEMA
        ),
        "retired_campaigns": pa.table({"campaign_id": pa.array(only_retired, pa.int64())}),
    }
    return relations, error


def roll_up_lake_windows(lake: Lake, tables: Sequence[RollupTable], *, memory_gb: float) -> WindowRollups:
    """Roll up window tables and tables about posts, without files that cannot be read or are not in the numbers."""
    # Listed before anything is read: what is replaced meanwhile makes the result outdated.
    inputs = list_inputs(lake, tables)
    periods, unreadable_periods = CAMPAIGN_PERIODS.schema.empty_table(), ""
    try:
        periods = lake.read_table(CAMPAIGN_PERIODS_TABLE, schema=CAMPAIGN_PERIODS.schema) or periods
    except FileDamaged as error:
        unreadable_periods = str(error)
        tables = [table for table in tables if CAMPAIGN_PERIODS_TABLE not in table.sources]
    # Facts may read a table from which none of the results is made.
    views = [(source.table, inputs.raw.get(source.name, ())) for source in RAW_TABLES.values()]
    with open_rollup_database(lake, memory_gb=memory_gb) as database:
        campaigns = zip(periods["campaign_id"].to_pylist(), periods["extra"].to_pylist(), strict=True)
        relations, unreadable_campaigns = campaign_relations(lake, campaigns, marks=inputs.marks, database=database)
        for name, rows in (relations | {CAMPAIGN_PERIODS_TABLE: periods}).items():
            database.connection.register(name, rows)

        def roll_up(contents: ViewContents) -> WindowRollups:
            sql_engine.register_stored_files(database.connection, contents.partitions)
            return WindowRollups(
                tables=sql_engine.roll_up(database.connection, tables),
                made_from={table.name: inputs.made_from(table) for table in tables},
                contents=contents,
                unreadable_campaigns=unreadable_campaigns,
                unreadable_periods=unreadable_periods,
            )

        return database.read(views, roll_up)


def roll_up_lake_periods(
    lake: Lake, table: RollupTable, first_days: Sequence[date], *, memory_gb: float
) -> Iterator[PeriodRollup]:
    """Roll up the days, weeks or months that begin on `first_days`, several with one query.

    Files that are not in the numbers have no rows here.
    """
    days = [day for first_day in first_days for day in days_of(table.cadence, first_day)]
    # Listed before anything is read: what is replaced meanwhile makes the result outdated.
    inputs = list_inputs(lake, [table], days=days)
    can_make = {*inputs.first_days(table)}
    if lost := [first_day for first_day in first_days if first_day not in can_make]:
        stored = [partition.day for partition in lake.partitions(table.name, days=lost)]
        can_make |= periods_without_raw_files(lake, table, inputs, stored=stored)
    by_first_day: dict[date, dict[Partition, FileVersion]] = {first_day: {} for first_day in first_days}
    for partition, version in inputs.raw[POST_METRICS_DAILY.name].items():
        by_first_day[first_day_of(table.cadence, partition.day)][partition] = version
    for start in range(0, len(first_days), _PERIODS_PER_QUERY):
        batch = {first_day: by_first_day[first_day] for first_day in first_days[start : start + _PERIODS_PER_QUERY]}
        with open_rollup_database(lake, memory_gb=memory_gb) as database:
            yield from _roll_up_batch(database, table, batch, inputs, can_make)


def _roll_up_batch(
    database: LakeDatabase,
    table: RollupTable,
    by_first_day: Mapping[date, Mapping[Partition, FileVersion]],
    inputs: Inputs,
    can_make: Collection[date],
) -> Iterator[PeriodRollup]:
    raw_table = POST_METRICS_DAILY.table

    def roll_up(contents: ViewContents) -> tuple[pa.Table, Mapping[Partition, LakeUnavailable | FileDamaged]]:
        sql_engine.register_stored_files(database.connection, contents.partitions)
        return sql_engine.roll_up(database.connection, [table])[table.name], contents.unreadable[raw_table.name]

    raw_files = {each: version for files in by_first_day.values() for each, version in files.items()}
    rows, unreadable = database.read([(raw_table, raw_files)], roll_up)
    for first_day, partitions in by_first_day.items():
        errors = [unreadable[partition] for partition in partitions if partition in unreadable]
        of_partition = rows.filter(pc.field(FIRST_DAY) == first_day).drop_columns([FIRST_DAY])
        # If a file cannot be read, the rows of the other files would look complete although some are missing.
        yield PeriodRollup(
            first_day=first_day,
            rows=of_partition if first_day in can_make and not errors else None,
            made_from=inputs.made_from(table, first_day),
            partitions=partitions,
            unreadable=errors,
        )
