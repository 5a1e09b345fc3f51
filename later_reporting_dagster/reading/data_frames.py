"""Read a table as a data frame of any supported library, without turning nulls into numbers.

Whole frames are read by `Lake.read`, which works while partitions are replaced. Lazy ones are datasets: they read the
selected columns and partitions when they are computed.
"""

from collections.abc import Callable, Collection
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from later_reporting_dagster.lake import Lake, Partition, Table, schema_of
from later_reporting_dagster.lake.database import duckdb_relation

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow.dataset as ds


class LibraryNotInstalled(ValueError):  # noqa: N818 - a state of the environment, not a bug
    """The library of the requested type is not installed. The message has the command that installs it."""


def read_frame(kind: Any, lake: Lake, table: Table, partitions: Collection[Partition]) -> Any:
    """Return a table as an object of type `kind`.

    A DuckDB relation belongs to DuckDB's default connection, so that several can be joined, and named in `duckdb.sql`.

    Args:
        kind: `pandas.DataFrame`, `polars.DataFrame`, `polars.LazyFrame`, `pyarrow.Table`, `pyarrow.dataset.Dataset` or
            `duckdb.DuckDBPyRelation`.
        lake: the lake.
        table: the table.
        partitions: those of them that exist are returned, in a whole frame in the order given. Ignored for an
            unpartitioned table.

    Returns:
        The rows, for a partitioned table with a first column `date`; no rows when no file exists.

    Raises:
        TypeError: `kind` is not one of these types.
        LibraryNotInstalled: the library of `kind` is not installed.
        LakeUnavailable: the lake cannot be read.
        PartitionDamaged: a file is not Parquet, or a column is missing or of another type.
    """
    read = _READERS.get(_type_name(kind))
    if read is None:
        raise TypeError(f"{_type_name(kind)} is not supported: use one of {', '.join(_READERS)}")
    return read(lake, table, partitions)


def open_dataset(lake: Lake, table: Table, partitions: Collection[Partition] | None = None) -> "ds.Dataset":
    """Return a table as a lazy dataset, of those of `partitions` that exist or by default of all."""
    schema = schema_of(table.columns)
    return (
        lake.dataset(table.name, schema, partitions) if table.is_partitioned else lake.table_dataset(table.name, schema)
    )


def _type_name(kind: Any) -> str:
    """Return a class by its library and its name, such as `pandas.DataFrame`, in whichever module it is defined."""
    if not isinstance(kind, type):
        return str(kind)
    return f"{kind.__module__.partition('.')[0].lstrip('_')}.{kind.__qualname__}"


def _read_arrow(lake: Lake, table: Table, partitions: Collection[Partition]) -> pa.Table:
    schema = schema_of(table.columns)
    if table.is_partitioned:
        return lake.read(table.name, partitions, schema=schema, with_date=True)
    rows = lake.read_table(table.name, schema=schema)
    return schema.empty_table() if rows is None else rows


def _read_pandas(lake: Lake, table: Table, partitions: Collection[Partition]) -> "pd.DataFrame":
    import pandas as pd  # deferred: takes 40 % of the time of `import dagster`

    # Extension types, which have a null: with the default types, a count with a null becomes a float.
    nullable_types = {
        pa.int64(): pd.Int64Dtype(),
        pa.float64(): pd.Float64Dtype(),
        pa.string(): pd.StringDtype(na_value=pd.NA),
    }
    arrow = _read_arrow(lake, table, partitions)
    rows: pd.DataFrame = arrow.to_pandas(types_mapper=nullable_types.get, date_as_object=False)
    return rows


def _import_polars() -> Any:
    try:
        return import_module("polars")
    except ImportError:
        raise LibraryNotInstalled(
            "polars is not installed: pip install 'later-reporting-dagster[polars]', or polars alone"
        ) from None


def _read_polars(lake: Lake, table: Table, partitions: Collection[Partition]) -> "pl.DataFrame":
    rows: pl.DataFrame = _import_polars().from_arrow(_read_arrow(lake, table, partitions))
    return rows


def _scan_polars(lake: Lake, table: Table, partitions: Collection[Partition]) -> "pl.LazyFrame":
    rows: pl.LazyFrame = _import_polars().scan_pyarrow_dataset(open_dataset(lake, table, partitions))
    return rows


_READERS: dict[str, Callable[[Lake, Table, Collection[Partition]], Any]] = {
    "pandas.DataFrame": _read_pandas,
    "pyarrow.Table": _read_arrow,
    "pyarrow.Dataset": open_dataset,
    "polars.DataFrame": _read_polars,
    "polars.LazyFrame": _scan_polars,
    "duckdb.DuckDBPyRelation": duckdb_relation,
}
