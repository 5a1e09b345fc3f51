"""Read a table as a data frame of any supported library, without turning nulls into numbers.

Whole frames are read by `Lake.read`, which works while partitions are replaced. Lazy frames are datasets: when they are
computed, they read only the selected columns and partitions.
"""

from collections.abc import Callable, Collection
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


def read_frame(kind: Any, lake: Lake, table: Table, partitions: Collection[Partition]) -> Any:
    """Return a table as an object of type `kind`. If it is partitioned, `date` is the first column.

    A DuckDB relation is created on DuckDB's default connection. So several can be joined, and `duckdb.sql` can refer to
    them by their Python variable names.

    Args:
        kind: `pandas.DataFrame`, `polars.DataFrame`, `polars.LazyFrame`, `pyarrow.Table`, `pyarrow.dataset.Dataset` or
            `duckdb.DuckDBPyRelation`.
        partitions: the partitions to read, which have to exist. Frames that are not lazy keep this order. Ignored for
            an unpartitioned table.
    """
    read = _READERS.get(_type_name(kind))
    if read is None:
        kinds = ", ".join(_READERS).replace("pyarrow.Dataset", "pyarrow.dataset.Dataset")
        raise TypeError(f"{_type_name(kind)} is not supported: use one of {kinds}")
    return read(lake, table, partitions)


def open_dataset(lake: Lake, table: Table, partitions: Collection[Partition] | None = None) -> "ds.Dataset":
    """Return partitions of a table, by default all that exist now, as a lazy dataset.

    A scan reads only the selected columns, and skips the partitions that a filter on `date` or `instance_id` excludes.
    Unlike `Lake.read`, it may fail if a partition is replaced meanwhile.
    """
    # Deferred because pyarrow.dataset imports pandas, which takes 40 % of the time of `import dagster`.
    import pyarrow.dataset as ds

    schema = table.schema
    # As in `Lake.read`: a flipped bit raises an error instead of changing a number.
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
    is_local = lake.storage.native_path("") is not None
    filesystem = (
        pyarrow.fs.LocalFileSystem()
        if is_local
        else pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(LakeFileSystem(lake.storage)))
    )
    fragments = [
        parquet.make_fragment(
            lake.storage.native_path(path) if is_local else path,
            filesystem=filesystem,
            partition_expression=_partition_expression(partition) if partition else None,
        )
        for path, partition in table_files(lake, table, partitions).items()
    ]
    return ds.FileSystemDataset(
        fragments, with_date_field(schema) if table.is_partitioned else schema, parquet, filesystem
    )


def _partition_expression(partition: Partition) -> "ds.Expression":
    """Return the condition that holds for all rows of a file; from it, Arrow fills in the column `date`.

    So the instance id `007` stays a string: nothing is inferred from paths.
    """
    import pyarrow.dataset as ds

    condition = ds.field(DATE.name) == pa.scalar(partition.day, DATE.type)
    if partition.instance_id is None:
        return condition
    return condition & (ds.field("instance_id") == partition.instance_id)


def _type_name(kind: Any) -> str:
    """Return the library and the name of a class, such as `pandas.DataFrame`, whatever module it is defined in."""
    if not isinstance(kind, type):
        return str(kind)
    return f"{kind.__module__.partition('.')[0].lstrip('_')}.{kind.__qualname__}"


def _read_arrow(lake: Lake, table: Table, partitions: Collection[Partition]) -> pa.Table:
    schema = table.schema
    if table.is_partitioned:
        return lake.read(table.name, partitions, schema=schema, with_date=True)
    rows = lake.read_table(table.name, schema=schema)
    return schema.empty_table() if rows is None else rows


def _read_pandas(lake: Lake, table: Table, partitions: Collection[Partition]) -> Any:
    import pandas as pd  # deferred: takes 40 % of the time of `import dagster`

    # Extension types have a null; with the default types, a column of integers with a null would become floats.
    nullable_types = {
        pa.int64(): pd.Int64Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.string(): pd.StringDtype(na_value=pd.NA),
        pa.bool_(): pd.BooleanDtype(),
    }
    arrow = _read_arrow(lake, table, partitions)
    return arrow.to_pandas(types_mapper=nullable_types.get, date_as_object=False)


def _read_polars(lake: Lake, table: Table, partitions: Collection[Partition]) -> Any:
    import polars as pl  # installed by users who name its types

    return pl.from_arrow(_read_arrow(lake, table, partitions))


def _scan_polars(lake: Lake, table: Table, partitions: Collection[Partition]) -> Any:
    import polars as pl

    return pl.scan_pyarrow_dataset(open_dataset(lake, table, partitions))


def _read_duckdb(lake: Lake, table: Table, partitions: Collection[Partition]) -> Any:
    import duckdb

    return duckdb.from_arrow(open_dataset(lake, table, partitions))


_READERS: dict[str, Callable[[Lake, Table, Collection[Partition]], Any]] = {
    "pandas.DataFrame": _read_pandas,
    "pyarrow.Table": _read_arrow,
    "pyarrow.Dataset": open_dataset,
    "polars.DataFrame": _read_polars,
    "polars.LazyFrame": _scan_polars,
    "duckdb.DuckDBPyRelation": _read_duckdb,
}
