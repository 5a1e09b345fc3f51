"""What a table of the lake is, for whoever reads it."""

from collections.abc import Sequence
from dataclasses import dataclass

from later_reporting_dagster.lake.columns import Column


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the lake.

    Whoever reads one that has partitions finds the first day of each row's partition in a column `date`, before these.
    """

    name: str
    columns: Sequence[Column]
    is_partitioned: bool = True
