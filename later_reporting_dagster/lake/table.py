"""Description of a lake table: its name, columns and whether it is partitioned by day."""

from collections.abc import Sequence
from dataclasses import dataclass

from later_reporting_dagster.lake.columns import Column


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the lake.

    Attributes:
        name: the name of the table and of its directory below the lake's root.
        columns: the columns that its files may have. When a partitioned table is read, a first column `date` is added:
            the first day of the row's partition.
        is_partitioned: False if the table is one file.
    """

    name: str
    columns: Sequence[Column]
    is_partitioned: bool = True
