"""Rolls up what lies in a lake, and holds the totals against a second, plain query of the raw tables."""

from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

import pyarrow as pa

from later_reporting_dagster.contract import METRICS, DateBasis
from later_reporting_dagster.lake import (
    Files,
    Lake,
    LakeDatabase,
    LakeUnavailable,
    Partition,
    PartitionDamaged,
    Table,
    open_database,
    post_columns,
)
from later_reporting_dagster.rollups import reconciliation, sql_engine
from later_reporting_dagster.rollups.periods import days_of, first_day_of
from later_reporting_dagster.rollups.rollup_tables import RolledUp
from later_reporting_dagster.rollups.sql_engine import FIRST_DAY, RAW, LandedDays

_Item = TypeVar("_Item", bound=Hashable)

# Date basis -> its raw table, with all columns that are known.
RAW_TABLES = {basis: Table(asset, post_columns(METRICS)) for basis, asset in RAW.items()}

# So many bytes of raw files are worked on at once, a GB of memory: their sums by post then fit into it.
_BYTES_TOGETHER_BY_POST = 65_000_000
_BYTES_TOGETHER_BY_DAY = 250_000_000


def landed_days(files: Files) -> LandedDays:
    """Return the days of the raw tables that have a file, of each instance."""
    landed: dict[DateBasis, dict[str, set[date]]] = {}
    for basis, asset in RAW.items():
        for partition in files.partitions.get(asset, ()):
            landed.setdefault(basis, {}).setdefault(str(partition.instance_id), set()).add(partition.day)
    return landed


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """The tables of windows.

    Attributes:
        tables: by name.
        differences: by name, one sentence for each total that differs from the raw rows.
        posts_that_disagree: how often a post of several campaigns has other numbers in one than in another, on a day.
        raw_rows: of each date basis, how many rows there are.
        files: what they were made from.
    """

    tables: Mapping[str, pa.Table]
    differences: Mapping[str, Sequence[str]]
    posts_that_disagree: int
    raw_rows: Mapping[DateBasis, int]
    files: Files


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledUpDays:
    """A day, week or month, rolled up. Without `rows` it was not: nothing of it is there, or a file is `unreadable`."""

    first: date
    rows: pa.Table | None
    raw_rows: int
    differences: Sequence[str]
    files: Collection[Partition]
    unreadable: Sequence[LakeUnavailable | PartitionDamaged]


def roll_up_windows_of(lake: Lake, tables: Sequence[RolledUp], *, memory_gb: float) -> Windows:
    """Roll up all windows as of the newest day that is there. What cannot be read is left out.

    Raises:
        LakeUnavailable: the lake cannot be listed or read.
        RollupFailed: a sum does not fit its column, or the work its memory.
    """
    with open_database(lake, memory_gb=memory_gb) as database:

        def work(files: Files) -> Windows:
            made = sql_engine.roll_up_windows(
                database.connection, tables, landed_days(files), batches=_batches(database, files, memory_gb=memory_gb)
            )
            checked = reconciliation.check_windows(database.connection, made, tables=tables, landed=landed_days(files))
            return Windows(
                tables=made.tables,
                differences=checked.differences,
                posts_that_disagree=made.shared.disagreeing,
                raw_rows=checked.raw_rows,
                files=files,
            )

        return database.read([(table, None) for table in RAW_TABLES.values()], work)


def check_windows_of(lake: Lake, table: RolledUp, rows: pa.Table, *, memory_gb: float) -> tuple[list[str], int]:
    """Hold a table of windows against the raw rows that are there now.

    Returns:
        One sentence for each total that differs and each file that cannot be read; and how often a post of several
        campaigns has other numbers in one campaign than in another, on a day.

    Raises:
        LakeUnavailable: the lake cannot be listed or read.
        RollupFailed: the work does not fit its memory.
    """
    with open_database(lake, memory_gb=memory_gb) as database:

        def work(files: Files) -> tuple[list[str], int]:
            landed = landed_days(files)
            with sql_engine.failures():
                sql_engine.prepare_windows(database.connection, table, landed)
                shared = sql_engine.shared_posts(database.connection, table)
                made = sql_engine.WindowTables({table.name: rows}, shared)
                checked = reconciliation.check_windows(database.connection, made, tables=[table], landed=landed)
            unread = [str(error) for errors in files.unreadable.values() for error in errors.values()]
            return [*unread, *checked.differences[table.name]], shared.disagreeing

        return database.read([(raw, None) for raw in RAW_TABLES.values()], work)


def roll_up_days_of(lake: Lake, table: RolledUp, firsts: Sequence[date], *, memory_gb: float) -> Iterator[RolledUpDays]:
    """Roll up days, weeks or months: those of a range in one query, as far as memory has room.

    Args:
        lake: where the raw table lies.
        table: whose files span a day, a week or a month.
        firsts: the first day of each partition, ascending.
        memory_gb: how much memory the work may take.

    Raises:
        LakeUnavailable: the lake cannot be listed or read.
        RollupFailed: a sum does not fit its column, or the work its memory.
    """
    (basis,) = table.bases
    partitions = lake.partitions(RAW[basis], days=[day for first in firsts for day in days_of(table.span, first)])
    sizes = lake.sizes(RAW[basis], partitions)
    by_first: dict[date, list[Partition]] = {first: [] for first in firsts}
    for partition in partitions:
        by_first[first_day_of(table.span, partition.day)].append(partition)
    weights = {first: sum(sizes[each] for each in members) for first, members in by_first.items()}
    for together in filled(weights, most=memory_gb * _BYTES_TOGETHER_BY_DAY):
        with open_database(lake, memory_gb=memory_gb) as database:
            yield from _rolled_up_days(database, table, {first: by_first[first] for first in together})


def totals_that_differ(
    lake: Lake, table: RolledUp, firsts: Sequence[date], *, memory_gb: float
) -> dict[date, Sequence[str]]:
    """Return, by partition, the totals of what is stored that differ from its raw rows, and files that are unreadable.

    Raises:
        LakeUnavailable: the lake cannot be listed or read.
        RollupFailed: the work does not fit its memory.
    """
    raw = RAW_TABLES[table.bases[0]]
    stored = Table(table.name, table.columns)
    wanted = [day for first in firsts for day in days_of(table.span, first)]
    with open_database(lake, memory_gb=memory_gb) as database:

        def work(files: Files) -> dict[date, Sequence[str]]:
            sql_engine.prepare(database.connection, table, landed_days(files))
            database.connection.execute(
                f"CREATE OR REPLACE VIEW rolled_up AS SELECT date AS {FIRST_DAY}, * EXCLUDE (date) FROM {table.name}"
            )
            checked = reconciliation.check_days(database.connection, table)
            differences = {first: check.differences for first, check in checked.items() if check.differences}
            for errors in files.unreadable.values():
                for partition, error in errors.items():
                    differences[first_day_of(table.span, partition.day)] = [str(error)]
            return differences

        return database.read([(raw, lake.partitions(raw.name, days=wanted)), (stored, [*map(Partition, firsts)])], work)


def filled(weights: Mapping[_Item, float], *, most: float) -> Iterator[list[_Item]]:
    """Yield the items in their order, as many together as weigh `most`; a heavier one is alone."""
    together: list[_Item] = []
    weight = 0.0
    for item, own in weights.items():
        if together and weight + own > most:
            yield together
            together, weight = [], 0.0
        together.append(item)
        weight += own
    if together:
        yield together


def _batches(database: LakeDatabase, files: Files, *, memory_gb: float) -> Iterator[None]:
    """Narrow the views to some instances after the other, and to all in the end: no group has posts of two."""
    weights: Counter[str] = Counter()
    for asset, partitions in files.partitions.items():
        for partition, size in database.lake.sizes(asset, partitions).items():
            weights[str(partition.instance_id)] += size
    for instances in filled(dict(sorted(weights.items())), most=memory_gb * _BYTES_TOGETHER_BY_POST):
        for asset in files.partitions:
            database.narrow_view(asset, instances)
        yield
    for asset in files.partitions:
        database.narrow_view(asset, None)


def _rolled_up_days(
    database: LakeDatabase, table: RolledUp, by_first: Mapping[date, Sequence[Partition]]
) -> Iterator[RolledUpDays]:
    raw = RAW_TABLES[table.bases[0]]
    wanted = [partition for partitions in by_first.values() for partition in partitions]

    def work(files: Files) -> tuple[Files, pa.Table, Mapping[date, reconciliation.CheckedDay]]:
        rows = sql_engine.roll_up_days(database.connection, table, landed_days(files))
        database.connection.register("rolled_up", rows)
        return files, rows, reconciliation.check_days(database.connection, table)

    files, rows, checked = database.read([(raw, wanted)], work)
    rows_of = sql_engine.by_first_day(rows, table.columns)
    for first, partitions in by_first.items():
        errors = [files.unreadable[raw.name][each] for each in partitions if each in files.unreadable[raw.name]]
        check = checked.get(first, reconciliation.CheckedDay(0, ()))
        yield RolledUpDays(
            first=first,
            # Without an unreadable file the partition would not be what it says.
            rows=None if errors or not partitions else rows_of(first),
            raw_rows=check.raw_rows,
            differences=check.differences,
            files=partitions,
            unreadable=errors,
        )
