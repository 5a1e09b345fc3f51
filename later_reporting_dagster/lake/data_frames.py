"""Load a table as Arrow, and from that as a frame of another library, without turning nulls into numbers."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.fs

from later_reporting_dagster.lake.database import table_files
from later_reporting_dagster.lake.lake import Lake
from later_reporting_dagster.lake.lake_filesystem import LakeFileSystem
from later_reporting_dagster.lake.paths import Partition
from later_reporting_dagster.lake.tables import DATE, Table, with_date_field

if TYPE_CHECKING:
    import pyarrow.dataset as ds

_KINDS = (
    "pandas.DataFrame, pyarrow.Table, pyarrow.dataset.Dataset, polars.DataFrame, polars.LazyFrame,"
    " duckdb.DuckDBPyRelation"
)


def read_frame(kind: Any, lake: Lake, table: Table, partitions: Collection[Partition]) -> Any:
    """Return a table as an object of type `kind`. If it is partitioned, `date` is the first column.

    A DuckDB relation is created on DuckDB's default connection. So several can be joined, and `duckdb.sql` can refer to
    them by their Python variable names.

    Args:
        partitions: the partitions to read, which have to exist. Frames that are not lazy keep this order. Ignored for
            an unpartitioned table.
    """
    # The library and the name of the class, whatever module it is defined in. Libraries are imported when they are
    # asked for: pandas takes 40 % of the time of `import dagster`, and Polars need not be installed.
    name = f"{kind.__module__.partition('.')[0].lstrip('_')}.{kind.__qualname__}" if isinstance(kind, type) else kind
    match name:
        case "pyarrow.Table":
            return _read_arrow(lake, table, partitions)
        case "pandas.DataFrame":
            return _to_pandas(_read_arrow(lake, table, partitions))
        case "polars.DataFrame":
            import polars as pl

            return pl.from_arrow(_read_arrow(lake, table, partitions))
        case "pyarrow.Dataset":
            return open_dataset(lake, table, partitions)
        case "polars.LazyFrame":
            import polars as pl

            return pl.scan_pyarrow_dataset(open_dataset(lake, table, partitions))
        case "duckdb.DuckDBPyRelation":
            import duckdb

            return duckdb.from_arrow(open_dataset(lake, table, partitions))
    raise TypeError(f"{name} is not supported: use one of {_KINDS}")


def _read_arrow(lake: Lake, table: Table, partitions: Collection[Partition]) -> pa.Table:
    if table.is_partitioned:
        return lake.read(table.name, partitions, schema=table.schema, with_date=True)
    rows = lake.read_table(table.name, schema=table.schema)
    return table.schema.empty_table() if rows is None else rows


def open_dataset(lake: Lake, table: Table, partitions: Collection[Partition] | None = None) -> "ds.Dataset":
    """Return partitions of a table, by default all that exist now, as a lazy dataset.

    A scan reads only the selected columns, and skips the partitions that a filter on `date` or `instance_id` excludes.
    Unlike `Lake.read`, it may fail if a partition is replaced meanwhile, and a network that was not known when a file
    was written is null.
    """
    import pyarrow.dataset as ds  # it imports pandas

    # As in `Lake.read`: a flipped bit raises an error instead of changing a number.
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
    filesystem: Any = pyarrow.fs.LocalFileSystem()
    if lake.storage.native_path("") is None:
        filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(LakeFileSystem(lake.storage)))
    fragments = []
    for path, partition in table_files(lake, table, partitions).items():
        # What holds for all rows of a file. From it, Arrow fills in `date`, and the instance id `007` stays a string.
        condition = None
        if partition is not None:
            condition = ds.field(DATE.name) == pa.scalar(partition.day, DATE.type)
            if partition.instance_id is not None:
                condition &= ds.field("instance_id") == partition.instance_id
        location = lake.storage.native_path(path) or path
        fragments.append(parquet.make_fragment(location, filesystem=filesystem, partition_expression=condition))
    schema = with_date_field(table.schema) if table.is_partitioned else table.schema
    return ds.FileSystemDataset(fragments, schema, parquet, filesystem)


def _to_pandas(rows: pa.Table) -> Any:
    import pandas as pd

    # Extension types have a null; with the default types, a column of integers with a null would become floats.
    nullable_types = {
        pa.int64(): pd.Int64Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.string(): pd.StringDtype(na_value=pd.NA),
        pa.bool_(): pd.BooleanDtype(),
    }
    return rows.to_pandas(types_mapper=nullable_types.get, date_as_object=False)
