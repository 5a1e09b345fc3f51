"""A table as a dataset for DuckDB whose files are not listed before they are scanned, which may cost a second."""

from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from later_reporting_dagster.lake import Lake, LakeUnavailable
from later_reporting_dagster.reading.frames import Table, dataset, read_schema


class LazyDataset(ds.Dataset):  # type: ignore[misc] # pyarrow has no types
    """What DuckDB asks of a dataset: its schema to plan with, and a scanner for each scan.

    Attributes:
        opened: the table's files as of the first scan.
        error: why they cannot be listed, which DuckDB makes an error of its own.
    """

    def __init__(self, lake: Lake, table: Table) -> None:
        self._lake, self._table = lake, table
        self.opened: ds.Dataset | None = None
        self.error: LakeUnavailable | None = None

    @property
    def schema(self) -> pa.Schema:
        """The columns that a reader finds."""
        return read_schema(self._table)

    def scanner(self, **options: Any) -> ds.Scanner:
        """Return a scanner of what `options` leave, or raise `LakeUnavailable`."""
        try:
            self.opened = self.opened or dataset(self._lake, self._table)
        except LakeUnavailable as error:
            self.error = error
            raise
        return self.opened.scanner(**options)
