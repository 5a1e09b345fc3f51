"""Description of a lake table: its name, columns and whether it is partitioned by day."""

from collections.abc import Sequence
from dataclasses import dataclass

from later_reporting_dagster.lake.columns import Column


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the lake.

    Attributes:
        name: the name of the table and of its directory below the lake's root.
        columns: the columns that its files may have. A partitioned table is read with a column `date` before them: the
            first day of the row's partition.
        is_partitioned: False for a table that is one file.
    """

    name: str
    columns: Sequence[Column]
    is_partitioned: bool = True
