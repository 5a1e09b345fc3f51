"""All that is there of a raw table, read for what needs all of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from later_reporting_dagster.lake import Lake, LakeUnavailable, Partition, PartitionDamaged
from later_reporting_dagster.lake.schema import day_column
from later_reporting_dagster.rollups.periods import Landed


@dataclass(frozen=True, slots=True)
class AllRead:
    """What is there, and what of it cannot be read, with why: it is left out, as if it had not landed."""

    landed: Landed
    partitions: int
    unread: Mapping[Partition, LakeUnavailable | PartitionDamaged]


def read_all(lake: Lake, asset: str, *, schema: pa.Schema) -> AllRead:
    """Reads all days of a raw table, in their order, as `schema`, whose last column is the day of their partition.

    Raises:
        LakeUnavailable: the days that are there cannot be listed.
    """
    rows_schema = pa.schema([*schema][:-1])
    tables = [rows_schema.empty_table()]
    days: list[tuple[date, int]] = []
    unread: dict[Partition, LakeUnavailable | PartitionDamaged] = {}
    there: dict[str, set[date]] = {}
    for read in lake.read_days(asset, schema=rows_schema):
        unread.update(read.unread)
        for partition, table in read.tables.items():
            tables.append(table)
            days.append((read.day, table.num_rows))
            there.setdefault(str(partition.instance_id), set()).add(read.day)
    rows = pa.concat_tables(tables).combine_chunks()
    return AllRead(Landed(rows.append_column(schema[-1], day_column(days)), there), len(days), unread)
